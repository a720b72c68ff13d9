"""The health of a process as a small file, which a container's check reads with the shell alone.

The file holds one line: the time (seconds since 1970) until which it is valid, a state and a sentence:

    1764271514 ok generator@gpu-3:7 waits for a unit

Invariants:

- The state of a process that hangs or was killed ends by itself, because its time passes.
- A reader finds a whole line: the file is replaced, never rewritten.
- A file that cannot be written is reported once in the log and never ends the process.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

State = Literal["starting", "ok", "unhealthy"]
STARTING_S = 600.0
"""Seconds for which a process that starts may say nothing else; what opens a large base takes minutes."""

log = logging.getLogger(__name__)


class HealthFile:
    """Where this process keeps its health; without a path it keeps none."""

    def __init__(self, path: str = "", clock: Callable[[], float] = time.time) -> None:
        self._path = Path(path) if path else None
        self._clock = clock
        self._told: tuple[State, str] | None = None
        self._renew_at = 0.0
        self._failed = False

    def tell(self, state: State, sentence: str, valid_s: float) -> None:
        """Say how this process is for the next `valid_s` seconds.

        Call it as often as you like: the same sentence is written again after a quarter of `valid_s`.
        """
        now = self._clock()
        if self._path is None or ((state, sentence) == self._told and now < self._renew_at):
            return
        self._told, self._renew_at = (state, sentence), now + valid_s / 4
        # Whole seconds, as `date +%s` counts them: rounded up, a silent process would pass for a second longer.
        # A line break would end the line that a check reads.
        line = f"{int(now + valid_s)} {state} {' '.join(sentence.split())}\n"
        try:
            beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
            beside.write_text(line, encoding="utf-8")
            beside.replace(self._path)
        except OSError as error:
            if not self._failed:
                log.warning("the health file %s cannot be written: %s", self._path, error.strerror)
            self._failed = True

    def remove(self) -> None:
        """Delete the file: a process that has ended is not healthy."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()
