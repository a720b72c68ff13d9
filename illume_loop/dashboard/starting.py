"""Continuing a run from its page: `illume-loop start` as a process of its own, on the machine that serves the page.

Guarantee: at most one process works on a run, because that command holds the directory's lock, or stands by, as it does
when a person types it; and it goes on when the page is closed or the server ends. Only the run in the server's own
directory can be continued: of others it knows the rows, and not where they lie.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from illume_loop.errors import NotStartableError, RunLockedError
from illume_loop.loop.run_directory import holder, run_key_in

LOG = "start.log"
_SAID_BYTES = 4000
"""The end of the log, in which the reason of a failure stands."""


@dataclass(frozen=True, slots=True)
class Going:
    """A loop that a page started: `code` is None while it goes on, negative where a signal ended it."""

    pid: int
    rounds: int
    by: str
    code: int | None
    said: str

    @property
    def was_stopped(self) -> bool:
        """Whether somebody ended it."""
        return self.code is not None and (self.code < 0 or self.code == 130)


class Starter:
    """The loop of one run directory, as far as this server started it."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._rounds, self._by = 0, ""

    def can_start(self, run_key: str) -> bool:
        """Whether the run is that of this server's directory, and may be written to."""
        return run_key_in(self.run_dir) == run_key and os.access(self.run_dir, os.W_OK)

    def start(self, run_key: str, rounds: int, *, by: str, leader: str | None) -> int:
        """Continue the run until it has `rounds` rounds; the process's id.

        Raises NotStartableError, and RunLockedError while another process works on the run or coordinates its workers.
        """
        if not self.can_start(run_key):
            raise NotStartableError(path=self.run_dir)
        if leader is not None:
            raise RunLockedError(path=self.run_dir, pid=f"{leader}, which coordinates workers")
        command = [sys.executable, "-m", "illume_loop", "start", "--run-dir", str(self.run_dir), "--rounds"]
        # Who may look at the dashboard is no business of the loop's.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ILLUME_DASHBOARD__")}
        with self._lock:
            working = holder(self.run_dir)
            if self._process is not None and self._process.poll() is None:
                working = str(self._process.pid)
            if working is not None:
                raise RunLockedError(path=self.run_dir, pid=working)
            with (self.run_dir / LOG).open("wb") as log:
                self._process = subprocess.Popen(
                    [*command, str(rounds)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=kept,
                    start_new_session=True,
                )
            self._rounds, self._by = rounds, by
            return self._process.pid

    def stop(self) -> bool:
        """End what was started here, with all its children; whether there was anything. It can be continued."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                return False
            os.killpg(self._process.pid, signal.SIGTERM)
            return True

    def going(self) -> Going | None:
        """What was started here last."""
        with self._lock:
            if self._process is None:
                return None
            code = self._process.poll()
            said = self._said() if code else ""
            return Going(self._process.pid, self._rounds, self._by, code, said)

    def mark(self) -> str:
        """Changes when a loop is started here, and when it ends."""
        found = self.going()
        return "" if found is None else f"{found.pid}.{found.code}"

    def _said(self) -> str:
        """The last sentence that the loop said."""
        try:
            end = (self.run_dir / LOG).read_bytes()[-_SAID_BYTES:].decode(errors="replace")
        except OSError:
            return ""
        lines = [line for line in end.splitlines() if line.startswith("illume-loop: ")]
        return lines[-1].removeprefix("illume-loop: ") if lines else ""
