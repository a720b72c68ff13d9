"""Observe the work: the metrics and traces of a process, and one attempt at a unit.

The work is the same with and without observers. An observer that fails is logged, or is refused before any work begins.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

from illume_db.errors import FencedOutError
from illume_db.sessions import open_engine
from illume_loop.errors import LostLeaseError
from illume_loop.settings import RuntimeSettings
from illume_loop.telemetry.endpoint import check_metrics, serving_metrics
from illume_loop.telemetry.logs import log_context
from illume_loop.telemetry.tally import TALLY
from illume_loop.telemetry.tracing import check_traces, span, tracing


def check_telemetry(runtime: RuntimeSettings) -> None:
    """Raise MissingExtraError if packages that the settings need are missing. Call it before any work begins."""
    check_metrics(runtime.metrics_address)
    check_traces(runtime.traces_url)


@contextmanager
def observed(runtime: RuntimeSettings, database_url: str, run_id: int | None = None) -> Iterator[None]:
    """Serve this process's metrics and send its traces, as the settings say.

    The metrics include those of the run `run_id`; without a run, those of all runs of the database. Raises UsageError
    if no port is free, MissingExtraError.
    """
    with ExitStack() as stack:
        stack.enter_context(tracing(runtime.traces_url))
        if runtime.metrics_address:
            check_metrics(runtime.metrics_address)
            from illume_loop.telemetry.collectors import ProcessCollector, RunCollector, StoreCollector

            collectors: list[Any] = [ProcessCollector()]
            # Metrics have their own read-only engine, so that a scrape never waits for the loop, nor the loop for it.
            engine = open_engine(database_url, read_only=True)
            stack.callback(engine.dispose)
            collectors.append(StoreCollector(engine) if run_id is None else RunCollector(engine, run_id))
            stack.enter_context(serving_metrics(runtime.metrics_address, collectors))
        yield


class Watch:
    """An observer of one attempt at a unit. It counts, times and traces it, and adds the unit's ids to log lines."""

    def __init__(self, run_key: str, round_index: int, kind: str, key: str, num_items: int) -> None:
        self._ids = {"run": run_key, "round": round_index, "unit": key}
        self._kind, self._num_items = kind, num_items
        self._span = span(f"unit {kind}", run_key, round_index, unit=key, kind=kind, items=num_items)
        self._stack = ExitStack()
        self._began = 0.0

    def lines(self) -> AbstractContextManager[None]:
        """Add the ids of this unit to the lines logged within the block."""
        return log_context(**self._ids)

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._stack.enter_context(self.lines())
        self._stack.enter_context(self._span)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        TALLY.attempted(self._kind, _outcome(error), time.monotonic() - self._began, self._num_items)
        self._stack.__exit__(kind, error, trace)


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "done"
    return "lost" if isinstance(error, FencedOutError | LostLeaseError) else "failed"
