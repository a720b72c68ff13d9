"""Live progress on stderr: bars on a terminal, plain lines elsewhere.

Both show what goes on, done and total, the rate, and the time left at that rate. Sampling and assessing stream into
each other, so several things can be under way at once.
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
    """Shows how far labelled things have come."""

    def update(self, label: str, done: int, total: int | None, note: str = "") -> None:
        """`done` of `total` items of `label` are finished; a total of None is one that nobody knows."""
        ...

    def clear(self, line: str) -> None:
        """Everything shown so far is over; `line` takes its place."""
        ...


@contextmanager
def open_view() -> Iterator[View]:
    """The view that fits stderr."""
    if not moves(sys.stderr):
        yield Lines(lambda line: say(line, stderr=True))
        return
    with bars(console(stderr=True)) as progress:
        yield Bars(progress)


def bars(console: Console) -> Progress:
    """The bars as they look everywhere: what, how far, the rate, and the time left at that rate."""
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
    """Tells a view what the coordinator reports; fits `illume_loop.loop.coordinator.Progress`."""

    def __init__(self, view: View) -> None:
        self._view = view

    def advanced(self, event: StageProgress) -> None:
        """A stage of a round went on."""
        self._view.update(f"round {event.round_index}/{event.num_rounds} {event.stage}", event.done, event.total)

    def round_ended(self, index: int, state: str, reasons: Sequence[str]) -> None:
        """A round reached a terminal state."""
        self._view.clear(f"round {index} {state}" + (f": {'; '.join(reasons)}" if reasons else ""))


class Bars:
    """One live bar for each label."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def update(self, label: str, done: int, total: int | None, note: str = "") -> None:
        """Move the bar of `label`."""
        if label not in self._tasks:
            self._tasks[label] = self._progress.add_task(visible(label), total=total, note="")
        self._progress.update(self._tasks[label], completed=done, total=total, note=visible(note))

    def forget(self) -> None:
        """Take the bars away."""
        for task in self._tasks.values():
            self._progress.remove_task(task)
        self._tasks.clear()

    def clear(self, line: str) -> None:
        """Put `line` in the place of the bars."""
        self.forget()
        self._progress.console.print(visible(line), markup=False, emoji=False, highlight=False)


class Lines:
    """A line when something begins, at most every ten seconds while it runs, and when it is done."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._began: dict[str, tuple[float, int]] = {}
        self._last: dict[str, tuple[float, int]] = {}

    def update(self, label: str, done: int, total: int | None, note: str = "") -> None:
        """Write a line where one is due."""
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
    """Items per second, a dash before there is one."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("-" if speed is None else f"{speed:.1f}/s", style="progress.data.speed")
