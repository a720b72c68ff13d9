"""The service: a Celery app, worker processes with roles, and the executor that sends units to them."""
