"""What goes wrong in a run, and what people decide in it meanwhile, chosen by its seed."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from random import Random

ROLES = ("generator", "assessor", "trainer", "coordinator")
POINTS = {"generator": 105, "assessor": 165, "trainer": 25, "coordinator": 350}
"""About as many points as a process of each role passes in an undisturbed run; see `tests.chaos.nursery`."""
UNITS_DONE = 27
"""About as many units as an undisturbed run has."""
SKEWS_S = (-86_400.0, -300.0, -20.0, 20.0, 300.0, 86_400.0)

KINDS = (
    *(f"kill {role}" for role in ROLES),
    *(f"stop {role}" for role in ROLES),
    "redis lost",
    "postgres restarted",
    "messages doubled",
    *(f"clock of {role}" for role in ROLES),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    A process is signalled at its own numbered `point`, or from outside when `units_done` units are done; a server, and
    the messages, when `units_done` units are done; a clock is wrong (`skew_s`) from the start.
    """

    kind: str
    role: str = ""
    number: int = 0
    point: int = 0
    units_done: int = 0
    seconds: float = 0.0
    """How long a process is stopped, or a server is down."""
    skew_s: float = 0.0


OPERATIONS = ("cancel", "retry", "promote", "rollback")
MOST_OPERATIONS = 3
NUM_VERSIONS = 3
"""About as many versions as a run has."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A command that a person gives when `units_done` units are done.

    A round to cancel is one that is under way at that moment, a round to retry one that has failed or was cancelled;
    where there is none it is round `number`. A version to promote is the one of that number, whether it is there or
    not.
    """

    kind: str
    units_done: int
    number: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A run, what goes wrong in it, and what people decide in it."""

    seed: int
    run_seed: int
    overlap: int
    standby: bool
    faults: tuple[Fault, ...]
    operations: tuple[Operation, ...] = ()


def plan_of(seed: int, lease_s: float) -> Plan:
    """Return the plan of a seed: one to three faults, and in two of three seeds as many operations.

    The first kinds take turns, so that a row of seeds has each equally.
    """
    random = Random(f"chaos/{seed}")
    kinds = [KINDS[seed % len(KINDS)], *random.sample(KINDS, random.randint(0, 2))]
    faults = tuple(_fault(kind, random, lease_s) for kind in dict.fromkeys(kinds))
    chosen = random.randrange(3), random.randrange(2), random.random() < 0.5
    return Plan(seed, *chosen, faults, _operations(seed) if seed % 3 else ())


def _operations(seed: int) -> tuple[Operation, ...]:
    # Of its own, so that the faults of a seed are what they were before there were operations.
    random = Random(f"chaos-operations/{seed}")
    kinds = [OPERATIONS[seed % len(OPERATIONS)], *random.choices(OPERATIONS, k=random.randrange(MOST_OPERATIONS))]
    found = [Operation(kind, random.randrange(UNITS_DONE), 1 + random.randrange(NUM_VERSIONS)) for kind in kinds]
    # A round to retry must have ended: one that is cancelled just before makes the retry more than a refusal.
    found += [Operation("cancel", max(0, one.units_done - 2), 1) for one in found if one.kind == "retry"]
    return tuple(sorted(found, key=lambda one: (one.units_done, OPERATIONS.index(one.kind))))


def _fault(kind: str, random: Random, lease_s: float) -> Fault:
    verb, _, role = kind.rpartition(" ")
    if verb == "clock of":
        return Fault(kind, role, skew_s=random.choice(SKEWS_S))
    units_done = random.randrange(UNITS_DONE)
    if verb not in ("kill", "stop"):
        return Fault(kind, units_done=units_done, seconds=random.choice((0.0, 0.5, 1.0)))
    # Half of the stops are shorter than a lease: the process must then go on as if nothing had been.
    seconds = random.choice((0.3, 0.6)) * lease_s if random.random() < 0.5 else lease_s * random.uniform(1.2, 2.0)
    number = signal.SIGKILL if verb == "kill" else signal.SIGSTOP
    if random.random() < 0.8:
        return Fault(kind, role, number, point=random.randint(1, POINTS[role]), seconds=seconds)
    return Fault(kind, role, number, units_done=units_done, seconds=seconds)
