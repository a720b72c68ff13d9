"""Alembic revisions of the store. Run them with `illume-loop db upgrade`."""
