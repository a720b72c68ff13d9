"""What Prometheus sees: of a process what it has done, and of a run what its database holds at the moment of the look.

The database is read anew for every look, so a coordinator that was started again shows the same numbers, and no number
can differ from what `rounds ls` and `workers ls` show. A database that is away leaves its metrics out of that look.
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
from illume_db.tables.units import GONE
from illume_db.workers import queue_table, workers_table
from illume_loop.telemetry.tally import TALLY, Tally

log = logging.getLogger(__name__)

RUN = ("run",)
LOST_SHOWN_S = 3600.0
"""Seconds without a heartbeat after which a lost worker has no series any more: somebody was told by then."""


class ProcessCollector:
    """The counts of a process, and the memory of its GPUs where it has some."""

    def __init__(self, tally: Tally = TALLY) -> None:
        self._tally = tally

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client."""
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
    # A process that has not imported torch holds nothing on a device, and asking would import it.
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return family
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        held = {"allocated": torch.cuda.memory_allocated(number), "reserved": torch.cuda.memory_reserved(number)}
        for what, value in {**held, "free": free, "total": total}.items():
            family.add_metric((f"cuda:{number}", what), value)
    return family


class RunCollector:
    """The state of one run, and of the workers and queues that its database knows."""

    def __init__(self, engine: Engine, run_id: int) -> None:
        self._engine, self._run_id = engine, run_id

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client."""
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
        """Nothing: without it, registering would look at the database."""
        return []


class StoreCollector:
    """What workers, which outlive a run and its coordinator, see of all runs of their database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client."""
        try:
            with transaction(self._engine) as session:
                count = num_unattended(session)
        except SQLAlchemyError as error:
            log.warning("no metrics of the database, it is away: %s", getattr(error, "orig", None) or error)
            return
        yield from of_store(count)

    def describe(self) -> list[Metric]:
        """Nothing: without it, registering would look at the database."""
        return []


def of_store(unattended: int) -> Iterator[Metric]:
    """Runs that are not finished and have no coordinator; see `illume_db.runs.num_unattended`."""
    told = "Runs for workers that are not finished and have no coordinator."
    yield _gauge("illume_unattended_runs", told, (), [((), unattended)])


def of_service(queues: Sequence[Mapping[str, Any]], workers: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    """What waits for each role, and when each worker was heard of; rows of `queue_table` and `workers_table`.

    A worker that has said that it ends has no series, one that was lost has it for `LOST_SHOWN_S` more.
    """
    depths = [((row["role"],), row["depth"]) for row in queues]
    yield _gauge("illume_queue_depth", "Units that could be taken now.", ("role",), depths)
    waits = [((row["role"],), row["oldest_age_s"] or 0.0) for row in queues]
    yield _gauge("illume_queue_age_seconds", "Since when the oldest of them waits.", ("role",), waits)
    fields = ("worker", "role", "state")
    shown = [row for row in workers if row["state"] not in GONE and row["heartbeat_age_s"] <= LOST_SHOWN_S]
    ages = [((row["name"], row["role"], row["state"]), row["heartbeat_age_s"]) for row in shown]
    yield _gauge("illume_worker_heartbeat_age_seconds", "Since when a worker was not heard of.", fields, ages)


def of_run(totals: RunTotals) -> Iterator[Metric]:
    """What a run comes to. States and decisions that there are none of count 0, so that a rise can be seen."""
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
