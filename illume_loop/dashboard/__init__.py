"""The dashboard: web pages that show runs, collect reviews, and let an admin promote and roll back."""
