"""One run of the service as real processes: workers and coordinators, kept alive as their containers would be.

A process that ended is started again, but for a coordinator whose run is over. A stopped one is continued after its
time, while a replacement has long been at work, so that it finds out that it lost what it held.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.faults import Fault
from tests.support.plugged import plugged
from tests.support.process import environment

FINISHED, FAILED, UNHEALTHY = 0, 1, 3
MOST_STARTS = 30
"""A process that is started more often than this will never come up."""


class Nursery:
    """The process that forks the others; see `tests.chaos.nursery`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.nursery"],
            env=environment(**plugged()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def fork(self, **request: Any) -> int:
        """Start a process; its pid."""
        return int(self._ask(request))

    def ended(self) -> dict[int, int]:
        """Return codes of the processes that ended since the last call, by pid; negative for a signal."""
        return {int(pid): int(code) for pid, code in self._ask({})}

    def close(self) -> None:
        """End it, and with it the processes that it forked."""
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(10)

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextmanager
def nursery() -> Iterator[Nursery]:
    """A nursery for many runs."""
    opened = Nursery()
    try:
        yield opened
    finally:
        opened.close()


@dataclass(slots=True)
class Member:
    """One process of the cluster."""

    role: str
    pid: int
    continue_at: float | None = None
    """When it is to go on, where it is stopped."""


@dataclass(slots=True)
class Cluster:
    """The processes of one run."""

    nursery: Nursery
    folder: Path
    run_dir: Path
    config: Path
    env: Mapping[str, str]
    planned: dict[str, list[Fault]] = field(default_factory=dict)
    """Faults that the next processes of a role will carry out on themselves, by role."""
    members: list[Member] = field(default_factory=list)
    starts: dict[str, int] = field(default_factory=dict)
    fired: list[str] = field(default_factory=list)
    """The faults that took place, in order."""
    pending: dict[int, Fault] = field(default_factory=dict)
    """Faults that a process will carry out on itself, by its pid."""
    ordering: dict[int, str] = field(default_factory=dict)
    """Commands of people that have not ended yet, by their pids."""
    ordered: list[tuple[str, int]] = field(default_factory=list)
    """Commands of people and their exit codes, in the order in which they ended."""

    def start(self, role: str, skew_s: float = 0.0) -> None:
        """Start a process of a role, which carries out the next planned fault of its role on itself."""
        self.starts[role] = self.starts.get(role, 0) + 1
        if self.starts[role] > MOST_STARTS:
            raise RuntimeError(f"the {role} was started {MOST_STARTS} times and never stayed up")
        argv = ["worker", "--role", role]
        if role == "coordinator":
            argv = ["start", "--executor", "celery", "--config", str(self.config), "--run-dir", str(self.run_dir)]
        faults = self.planned.get(role)
        fault = faults.pop(0) if faults else None
        pid = self.nursery.fork(
            argv=argv,
            env=dict(self.env),
            log=str(self.folder / f"{role}.log"),
            clock=skew_s,
            at=[fault.point, fault.number] if fault is not None else None,
        )
        self.members.append(Member(role, pid))
        if fault is not None:
            self.pending[pid] = fault

    def order(self, kind: str, argv: list[str]) -> None:
        """Start a command as a person gives it."""
        words = [*argv, "--run-dir", str(self.run_dir)]
        pid = self.nursery.fork(argv=words, env=dict(self.env), log=str(self.folder / "orders.log"))
        self.ordering[pid] = kind

    def signal(self, fault: Fault) -> None:
        """Carry out a fault on the first process of its role."""
        member = next((member for member in self.members if member.role == fault.role), None)
        if member is not None:
            os.kill(member.pid, fault.number)
            self.fired.append(fault.kind)
            if fault.number == signal.SIGSTOP:
                self._note_stop(member, fault)

    def tend(self) -> int | None:
        """Start again what ended, continue what was stopped long enough; the code of a coordinator that is done."""
        done = None
        for pid, code in self.nursery.ended().items():
            member = next((member for member in self.members if member.pid == pid), None)
            if member is None:
                if pid in self.ordering:
                    self.ordered.append((self.ordering.pop(pid), code))
                continue
            self.members.remove(member)
            fault = self.pending.pop(pid, None)
            if fault is not None and code == -fault.number:
                self.fired.append(fault.kind)
            if member.role == "coordinator" and code in (FINISHED, FAILED):
                done = code if done is None else max(done, code)
            else:
                self.start(member.role)
        self._look_after_stopped()
        return done

    def num_stopped(self) -> int:
        """Processes that are stopped now."""
        return sum(member.continue_at is not None for member in self.members)

    def kill_all(self) -> None:
        """End every process."""
        left = {member.pid for member in self.members} | self.ordering.keys()
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while left and time.monotonic() < deadline:
            left -= self.nursery.ended().keys()
            time.sleep(0.01)
        self.members.clear()
        self.ordering.clear()

    def _look_after_stopped(self) -> None:
        now = time.monotonic()
        for member in list(self.members):
            fault = self.pending.get(member.pid)
            if fault is not None and fault.number == signal.SIGSTOP and _is_stopped(member.pid):
                del self.pending[member.pid]
                self.fired.append(fault.kind)
                self._note_stop(member, fault)
            if member.continue_at is not None and now >= member.continue_at:
                member.continue_at = None
                with suppress(ProcessLookupError):
                    os.kill(member.pid, signal.SIGCONT)

    def _note_stop(self, member: Member, fault: Fault) -> None:
        member.continue_at = time.monotonic() + fault.seconds
        self.start(member.role)


def _is_stopped(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    return False
