"""Serves the dashboard until it is stopped.

The server checks passwords, run directory and address before it reports its URL.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uvicorn

from illume_loop.dashboard.access import Access, check_reachable, passwords_of
from illume_loop.dashboard.app import create_app
from illume_loop.dashboard.source import Source
from illume_loop.errors import PortTakenError, UsageError
from illume_loop.judge.reviews import reviewer_name
from illume_loop.settings import Settings
from illume_loop.settings.hosts import networks_in

STOP_S = 2
"""The seconds that open pages can delay the end of the server."""


def serve(settings: Settings, run_dir: Path, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; call `on_ready` with the URL once the server listens.

    Raises UsageError if others could reach the address without a password or if it is not an address of this machine,
    PortTakenError, NotARunDirectoryError, ConflictError, and DatabaseOutdatedError.
    """
    passwords = passwords_of(settings.dashboard)
    check_reachable(host, passwords)
    source = Source(settings, run_dir)
    try:
        app = create_app(
            source, Access(passwords, reviewer_name(None)), networks_in(settings.dashboard.trusted_proxies)
        )
        config = uvicorn.Config(
            app,
            log_level=settings.runtime.log_level.lower(),
            access_log=False,
            server_header=False,
            # `Guard` decides which proxies to trust, and needs the connection's own address for that.
            proxy_headers=False,
            timeout_graceful_shutdown=STOP_S,
        )
        with _listening(host, port) as listener:
            on_ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
            # uvicorn raises the signal that ended it once more.
            with suppress(KeyboardInterrupt):
                uvicorn.Server(config).run(sockets=[listener])
    finally:
        source.close()


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address. Raises PortTakenError, UsageError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(f"--host {host} is not an address of this machine: {error.strerror}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(address=f"{host}:{port}") from None
        raise UsageError(f"cannot listen at {host}:{port}: {error.strerror}; name another --host or --port") from None
    return listener
