"""What goes wrong in a run, chosen by its seed."""

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


@dataclass(frozen=True, slots=True)
class Plan:
    """A run and what goes wrong in it."""

    seed: int
    run_seed: int
    overlap: int
    standby: bool
    faults: tuple[Fault, ...]


def plan_of(seed: int, lease_s: float) -> Plan:
    """The plan of a seed: one to three faults; the first kinds take turns, so that a row of seeds has each equally."""
    random = Random(f"chaos/{seed}")
    kinds = [KINDS[seed % len(KINDS)], *random.sample(KINDS, random.randint(0, 2))]
    faults = tuple(_fault(kind, random, lease_s) for kind in dict.fromkeys(kinds))
    return Plan(seed, random.randrange(3), random.randrange(2), random.random() < 0.5, faults)


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
