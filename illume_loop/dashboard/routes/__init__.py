"""The dashboard's pages, one subject a file."""
