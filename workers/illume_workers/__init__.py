"""The loop as a service: coordinators that send units through Celery, and worker processes that do them."""
