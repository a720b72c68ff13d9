"""The metrics for Prometheus: the counts of a process, and the state of a run in its database.

The database is read at every scrape. So a restarted coordinator shows the same numbers, and they agree with those of
`rounds ls` and `workers ls`. If the database is away, the scrape lacks its metrics.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from illume_db.live import RunTotals, run_totals
from illume_db.runs import num_unattended
from illume_db.sessions import transaction
from illume_db.tables.rounds import ROUND_STATES
from illume_db.tables.units import ENDED_STATES
from illume_db.workers import queue_table, workers_table
from illume_loop.telemetry.tally import TALLY, Tally

log = logging.getLogger(__name__)

RUN = ("run",)
LOST_SHOWN_S = 3600.0
"""Seconds without a heartbeat after which the series of a lost worker ends. A person was told by then."""


class ProcessCollector:
    """A collector of a process's counts, and of the memory of its GPUs if it has some."""

    def __init__(self, tally: Tally = TALLY) -> None:
        self._tally = tally

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, for prometheus_client."""
        counts = self._tally.counts()
        attempts = CounterMetricFamily(
            "illume_unit_attempts", "Attempts at units that are over.", labels=("kind", "outcome")
        )
        for key, count in counts.attempts.items():
            attempts.add_metric(key, count)
        yield attempts
        for name, told, by_kind in (
            ("illume_unit_seconds", "Seconds spent on units.", counts.seconds),
            ("illume_unit_items", "Items (images, judgements, probes) of the units that are done.", counts.items),
        ):
            family = CounterMetricFamily(name, told, labels=("kind",))
            for kind, value in by_kind.items():
                family.add_metric((kind,), value)
            yield family
        yield CounterMetricFamily("illume_images_drawn", "Images drawn as samples.", value=counts.images)
        yield CounterMetricFamily("illume_image_tokens_drawn", "Image tokens drawn for samples.", value=counts.tokens)
        yield _gpu_memory()


def _gpu_memory() -> Metric:
    family = GaugeMetricFamily(
        "illume_gpu_memory_bytes", "Memory of each visible GPU: what this process holds, what is free, and all.",
        labels=("device", "what"),
    )  # fmt: skip
    torch: Any = sys.modules.get("torch")
    # A process that has not imported torch holds no GPU memory, and torch must not be imported only to ask.
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return family
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        held = {"allocated": torch.cuda.memory_allocated(number), "reserved": torch.cuda.memory_reserved(number)}
        for what, value in {**held, "free": free, "total": total}.items():
            family.add_metric((f"cuda:{number}", what), value)
    return family


class RunCollector:
    """A collector of the state of one run, and of the workers and queues of its database."""

    def __init__(self, engine: Engine, run_id: int) -> None:
        self._engine, self._run_id = engine, run_id

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, for prometheus_client."""
        try:
            with transaction(self._engine) as session:
                totals = run_totals(session, self._run_id)
                queues, workers = queue_table(session, self._run_id), workers_table(session)
        except SQLAlchemyError as error:
            log.warning("no metrics of the run, the database is away: %s", getattr(error, "orig", None) or error)
            return
        yield from of_run(totals)
        yield from of_service(queues, workers)

    def describe(self) -> list[Metric]:
        """Return no metrics. Without this method, registering would read the database."""
        return []


class StoreCollector:
    """A collector of the state of all runs of a database. Workers serve it, because they outlive a run."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, for prometheus_client."""
        try:
            with transaction(self._engine) as session:
                count = num_unattended(session)
        except SQLAlchemyError as error:
            log.warning("no metrics of the database, it is away: %s", getattr(error, "orig", None) or error)
            return
        yield from of_store(count)

    def describe(self) -> list[Metric]:
        """Return no metrics. Without this method, registering would read the database."""
        return []


def of_store(unattended: int) -> Iterator[Metric]:
    """Yield the number of unfinished runs without a coordinator; see `illume_db.runs.num_unattended`."""
    told = "Runs for workers that are not finished and have no coordinator."
    yield _gauge("illume_unattended_runs", told, (), [((), unattended)])


def of_service(queues: Sequence[Mapping[str, Any]], workers: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    """Yield the queue of each role and the age of each worker's heartbeat.

    The arguments are rows of `queue_table` and `workers_table`. A worker that ended has no series. A worker that was
    lost keeps its series for `LOST_SHOWN_S`.
    """
    depths = [((row["role"],), row["depth"]) for row in queues]
    yield _gauge("illume_queue_depth", "Units that could be taken now.", ("role",), depths)
    waits = [((row["role"],), row["oldest_age_s"] or 0.0) for row in queues]
    yield _gauge("illume_queue_age_seconds", "Since when the oldest of them waits.", ("role",), waits)
    fields = ("worker", "role", "state")
    shown = [row for row in workers if row["state"] not in ENDED_STATES and row["heartbeat_age_s"] <= LOST_SHOWN_S]
    ages = [((row["name"], row["role"], row["state"]), row["heartbeat_age_s"]) for row in shown]
    yield _gauge("illume_worker_heartbeat_age_seconds", "Since when a worker was not heard of.", fields, ages)


def of_run(totals: RunTotals) -> Iterator[Metric]:
    """Yield the totals of a run. A state or decision that did not occur counts 0, so that a rise can be seen."""
    run = (totals.name,)
    yield _gauge(
        "illume_units",
        "Units of the run by kind and state.",
        ("run", "kind", "state"),
        [((*run, *key), count) for key, count in totals.units.items()],
    )
    yield _gauge("illume_samples", "Samples of the run.", RUN, [(run, totals.num_samples)])
    yield _gauge("illume_accepted_samples", "Samples that became training rows.", RUN, [(run, totals.num_accepted)])
    by_state = [((*run, state), totals.rounds.get(state, 0)) for state in ROUND_STATES]
    yield _gauge("illume_rounds", "Rounds of the run by state.", ("run", "state"), by_state)
    decisions = [((*run, decision), totals.decisions.get(decision, 0)) for decision in ("promoted", "rejected")]
    yield _gauge("illume_gate_decisions", "Decisions of the gate.", ("run", "decision"), decisions)
    heldout = totals.last_numbers.get("heldout") or {}
    for name, key, told in (
        ("share", "mean", "Held-out prompts drawn right, at the last gate."),
        ("low", "low", "Lower end of its interval."),
        ("high", "high", "Upper end of its interval."),
    ):
        sides = {side: heldout[side].get(key) for side in ("parent", "candidate") if heldout.get(side)}
        shares = [((*run, side), share) for side, share in sides.items() if share is not None]
        yield _gauge(f"illume_heldout_{name}", told, ("run", "model"), shares)


def _gauge(name: str, told: str, labels: tuple[str, ...], values: Sequence[tuple[tuple[str, ...], float]]) -> Metric:
    family = GaugeMetricFamily(name, told, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family
