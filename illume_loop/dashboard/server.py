"""Serving the dashboard until it is stopped."""

from __future__ import annotations

from pathlib import Path

import uvicorn

from illume_loop.assess.reviews import reviewer_name
from illume_loop.config import Settings
from illume_loop.dashboard.access import Access, check_reachable, passwords_of
from illume_loop.dashboard.app import create_app
from illume_loop.dashboard.source import Source

STOP_S = 2
"""Seconds that open pages keep the server alive after it was told to stop."""


def serve(settings: Settings, run_dir: Path, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises UsageError for an address that others reach without a password, NotARunDirectoryError, DatabaseOutdatedError.
    """
    passwords = passwords_of(settings.dashboard)
    check_reachable(host, passwords)
    source = Source(settings, run_dir)
    try:
        app = create_app(source, Access(passwords, reviewer_name(None)))
        uvicorn.run(
            app,
            host=host,
            port=port,
            log_level=settings.runtime.log_level.lower(),
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=STOP_S,
        )
    finally:
        source.close()
