"""Continues a run from its page: `illume-loop start` as a separate process, on the machine that serves the page.

Invariants:
- At most one process works on a run: the command takes the directory's lock or stands by, as it does in a terminal.
- The process survives the page and the server.
- Only the run in the server's own directory can be continued; the server knows the rows of other runs, but not their
  directories.
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
"""The bytes at the end of the log that are searched for the reason of a failure."""


@dataclass(frozen=True, slots=True)
class StartedLoop:
    """A loop that a page started; `code` is None while it runs, and negative if a signal ended it."""

    pid: int
    rounds: int
    by: str
    code: int | None
    said: str

    @property
    def was_stopped(self) -> bool:
        """True if a signal or Ctrl-C ended the loop."""
        return self.code is not None and (self.code < 0 or self.code == 130)


class Starter:
    """Starts and stops the loop of a run directory; it knows only the process that this server started."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._rounds, self._by = 0, ""

    def can_start(self, run_key: str) -> bool:
        """Return True if the run is the one in this server's directory, and the directory is writable."""
        return run_key_in(self.run_dir) == run_key and os.access(self.run_dir, os.W_OK)

    def start(self, run_key: str, rounds: int, *, by: str, leader: str | None) -> int:
        """Continue the run until it has `rounds` rounds; return the process id.

        Raises NotStartableError, and RunLockedError while another process works on the run or coordinates its workers.
        """
        if not self.can_start(run_key):
            raise NotStartableError(path=self.run_dir)
        if leader is not None:
            raise RunLockedError(path=self.run_dir, pid=f"{leader}, which coordinates workers")
        command = [sys.executable, "-m", "illume_loop", "start", "--run-dir", str(self.run_dir), "--rounds"]
        # The loop does not need the dashboard's passwords.
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
        """End the loop that was started here, with its children; return False if none runs. The run can continue."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                return False
            os.killpg(self._process.pid, signal.SIGTERM)
            return True

    def last_loop(self) -> StartedLoop | None:
        """Return the loop that was started here last; None before the first."""
        with self._lock:
            if self._process is None:
                return None
            code = self._process.poll()
            said = self._said() if code else ""
            return StartedLoop(self._process.pid, self._rounds, self._by, code, said)

    def mark(self) -> str:
        """Return a text that changes whenever a loop is started here or ends."""
        found = self.last_loop()
        return "" if found is None else f"{found.pid}.{found.code}"

    def _said(self) -> str:
        """Return the last message of the loop in its log."""
        try:
            end = (self.run_dir / LOG).read_bytes()[-_SAID_BYTES:].decode(errors="replace")
        except OSError:
            return ""
        lines = [line for line in end.splitlines() if line.startswith("illume-loop: ")]
        return lines[-1].removeprefix("illume-loop: ") if lines else ""
