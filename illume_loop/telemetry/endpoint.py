"""The HTTP endpoint that Prometheus reads, in a thread of its own.

Several processes of a host may share one address. Each takes the first free port, from the given one up.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from illume_loop.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

PORTS = 64
"""The number of ports that are tried."""

log = logging.getLogger(__name__)


def check_metrics(address: str) -> None:
    """Raise MissingExtraError if an address is set and the packages are missing."""
    if address:
        try:
            import prometheus_client  # noqa: F401
        except ImportError as error:
            raise MissingExtraError(feature="runtime.metrics_address", extra="telemetry") from error


@contextmanager
def serving_metrics(address: str, collectors: Sequence[Collector]) -> Iterator[int | None]:
    """Serve the metrics of `collectors` at "host:port" while the block lasts.

    Yields the port; None for an empty address. Raises MissingExtraError, UsageError if no port is free.
    """
    check_metrics(address)
    if not address:
        yield None
        return
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    host, _, first = address.rpartition(":")
    for port in range(int(first), min(int(first) + PORTS, 65_536)):
        try:
            server, thread = start_http_server(port, host or "127.0.0.1", registry)
            break
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise UsageError(f"runtime.metrics_address = '{address}' cannot be served: {error.strerror}") from error
    else:
        raise UsageError(f"none of {PORTS} ports from runtime.metrics_address = '{address}' on is free; name another")
    log.info("metrics at http://%s:%d/metrics", host or "127.0.0.1", port)
    try:
        yield port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
