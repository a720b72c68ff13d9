"""The health of a process as a small file, which the health check of a container reads with the shell alone.

The file has one line: the time until which it is valid (seconds since 1970), a state and a sentence:

    1764271514 ok generator@gpu-3:7 waits for a unit

Invariants:

- The state of a process that hangs or was killed expires by itself.
- A reader always finds a whole line, because the file is replaced and never rewritten.
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
"""Seconds for which the state `starting` is valid. Opening a large base takes minutes."""

log = logging.getLogger(__name__)


class HealthFile:
    """The health file of this process; without a path there is no file."""

    def __init__(self, path: str = "", clock: Callable[[], float] = time.time) -> None:
        self._path = Path(path) if path else None
        self._clock = clock
        self._told: tuple[State, str] | None = None
        self._renew_at = 0.0
        self._failed = False

    def tell(self, state: State, sentence: str, valid_s: float) -> None:
        """Write the state of this process, which is valid for the next `valid_s` seconds.

        It may be called often. The same sentence is written again only after a quarter of `valid_s`.
        """
        now = self._clock()
        if self._path is None or ((state, sentence) == self._told and now < self._renew_at):
            return
        self._told, self._renew_at = (state, sentence), now + valid_s / 4
        # The time is rounded down to whole seconds, as `date +%s` counts them. Rounded up, a silent process would pass
        # for a second longer. Line breaks are removed, because they would end the line that a check reads.
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
        """Delete the file, because a process that has ended is not healthy."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()
