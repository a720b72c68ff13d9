"""What a host needs to take part: stores that every other host reaches too."""

from __future__ import annotations

from illume_loop.config import Settings
from illume_loop.errors import UsageError


def check_service(settings: Settings) -> None:
    """Refuse settings with which coordinator and workers would not meet. Raises UsageError."""
    if not settings.store.database_url.startswith("postgresql"):
        raise UsageError(
            "The Celery executor needs Postgres: set store.database_url (or ILLUME_STORE__DATABASE_URL) to a"
            " postgresql+psycopg:// URL, the same for the coordinator and every worker."
        )
    if not settings.store.artifacts_url:
        raise UsageError(
            "The Celery executor needs a store that every host reaches: set store.artifacts_url (or"
            " ILLUME_STORE__ARTIFACTS_URL) to a shared folder or an object store."
        )
