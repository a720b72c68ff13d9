"""The Celery app: JSON messages, one queue for each role, and an acknowledgement when the unit of a message is over.

Redis carries only messages. A message may be lost, duplicated or old, because the database decides if its unit is done
(see `illume_workers.messages`). There is no result backend: a unit's result is in the database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.worker.request import Request

from illume_loop.errors import MissingExtraError
from illume_loop.settings import ClusterSettings

if TYPE_CHECKING:
    from celery import Celery

TASK = "illume_loop.unit"

CONNECT_TIMEOUT_S = 5.0

SOCKET_TIMEOUT_S = 10.0
"""The timeout of a read from Redis, so that no read waits forever. It is longer than the one second for which the
consumer's blocking read waits."""

FIRST_PAUSE_S = 2
"""The seconds by which Celery's pause grows before each further try to connect."""


def make_app(settings: ClusterSettings) -> Celery:
    """Return the Celery app of coordinators and workers. Raises MissingExtraError if Celery is not installed."""
    try:
        from celery import Celery
    except ImportError as error:
        raise MissingExtraError(feature="the Celery executor", extra="service") from error
    app = Celery("illume_loop", set_as_current=False)
    app.conf.update(configuration(settings))
    return app


def configuration(settings: ClusterSettings) -> dict[str, Any]:
    """Return Celery's settings."""
    return {
        "broker_url": _verifying(settings.redis_url),
        "broker_connection_retry": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": tries_within(settings.reconnect_s),
        "broker_transport_options": {
            "visibility_timeout": settings.visibility_timeout_s,
            "socket_timeout": SOCKET_TIMEOUT_S,
            "socket_connect_timeout": CONNECT_TIMEOUT_S,
            "socket_keepalive": True,
        },
        "task_serializer": "json",
        "accept_content": ["json"],
        "result_backend": None,
        "task_ignore_result": True,
        "task_acks_late": True,
        # A failed unit is recorded as failed in the database, and the coordinator sends it again under a new token.
        "task_acks_on_failure_or_timeout": True,
        "task_reject_on_worker_lost": True,
        "task_create_missing_queues": True,
        "worker_prefetch_multiplier": 1,
        "worker_pool": "solo",
        "worker_concurrency": 1,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_send_task_events": False,
        "worker_enable_remote_control": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_detect_quorum_queues": False,
    }


def _verifying(url: str) -> str:
    """Return the URL with verification of the TLS server, unless the URL sets it itself.

    Celery's default accepts any server.
    """
    if not url.startswith("rediss://") or "ssl_cert_reqs=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=required"


def tries_within(seconds: float) -> int:
    """Return how many tries Celery needs to spend at least `seconds`; its pauses last 2, 4, 6, ... seconds."""
    tries, spent = 1, 0
    while spent < seconds:
        spent += FIRST_PAUSE_S * tries
        tries += 1
    return tries


class UnitRequest(Request):  # type: ignore[misc]
    """A Celery request that raises if its acknowledgement fails, so that the worker connects anew."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Celery only logs a failed acknowledgement if its error is one of these.
        self._connection_errors = ()
