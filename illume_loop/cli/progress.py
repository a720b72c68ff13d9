"""Live progress on stderr: bars on a terminal, plain lines elsewhere.

Both show the label, the items done and in all, the rate, and the time left. Several labels can be in progress at once,
because sampling and assessing overlap.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from illume_loop.cli.output import console, say, visible
from illume_loop.cli.terminal import moves

if TYPE_CHECKING:
    from rich.console import Console

    from illume_loop.loop.coordinator import StageProgress

SECONDS_BETWEEN_LINES = 10.0


class View(Protocol):
    """A display of progress by label."""

    def update(self, label: str, done: int, total: int | None, note: str = "") -> None:
        """Show that `done` of `total` items of `label` are finished; a total of None is unknown."""
        ...

    def clear(self, line: str) -> None:
        """Remove all progress and show `line` instead."""
        ...


@contextmanager
def open_view() -> Iterator[View]:
    """Open bars if stderr is a terminal, or else plain lines."""
    if not moves(sys.stderr):
        yield Lines(lambda line: say(line, stderr=True))
        return
    with bars(console(stderr=True)) as progress:
        yield Bars(progress)


def bars(console: Console) -> Progress:
    """Return the bars that all commands use: label, progress, rate, and time left."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    return Progress(*columns, console=console)


class RunDisplay:
    """An adapter that shows the coordinator's reports in a view; it is a `illume_loop.loop.coordinator.Progress`."""

    def __init__(self, view: View) -> None:
        self._view = view

    def advanced(self, event: StageProgress) -> None:
        """Show the progress of a round's stage."""
        self._view.update(f"round {event.round_index}/{event.num_rounds} {event.stage}", event.done, event.total)

    def round_ended(self, index: int, state: str, reasons: Sequence[str]) -> None:
        """Show the terminal state of a round."""
        self._view.clear(f"round {index} {state}" + (f": {'; '.join(reasons)}" if reasons else ""))


class Bars:
    """A view with one live bar per label."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def update(self, label: str, done: int, total: int | None, note: str = "") -> None:
        """Move the bar of `label`."""
        if label not in self._tasks:
            self._tasks[label] = self._progress.add_task(visible(label), total=total, note="")
        self._progress.update(self._tasks[label], completed=done, total=total, note=visible(note))

    def forget(self) -> None:
        """Remove the bars."""
        for task in self._tasks.values():
            self._progress.remove_task(task)
        self._tasks.clear()

    def clear(self, line: str) -> None:
        """Replace the bars by `line`."""
        self.forget()
        self._progress.console.print(visible(line), markup=False, emoji=False, highlight=False)


class Lines:
    """A view of plain lines: one when a label begins, one at most every ten seconds, and one when it is done."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._began: dict[str, tuple[float, int]] = {}
        self._last: dict[str, tuple[float, int]] = {}

    def update(self, label: str, done: int, total: int | None, note: str = "") -> None:
        """Write a line if one is due."""
        now = self._clock()
        began, first = self._began.setdefault(label, (now, done))
        last, last_done = self._last.get(label, (float("-inf"), -1))
        is_over = total is not None and done >= total
        if last_done == done or (now - last < SECONDS_BETWEEN_LINES and not is_over):
            return
        self._last[label] = (now, done)
        rate = (done - first) / (now - began) if now > began else 0.0
        speed = f", {rate:.1f}/s" if rate else ""
        left = f", {(total - done) / rate:.0f} s left" if rate and total is not None and done < total else ""
        of_total = "" if total is None else f"/{total}"
        self._write(f"{label}: {done}{of_total}{speed}{left}" + (f", {note}" if note else ""))

    def clear(self, line: str) -> None:
        """Write `line`."""
        self._write(line)


class _Rate(TextColumn):
    """A column with the items per second, or a dash before the rate is known."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("-" if speed is None else f"{speed:.1f}/s", style="progress.data.speed")
