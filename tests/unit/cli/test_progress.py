"""Plain progress lines: when one is due, and what it says."""

from __future__ import annotations

import io
from types import SimpleNamespace

from rich.console import Console
from rich.progress import Progress

from illume_loop.cli.progress import Bars, Lines, RunDisplay


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_come_at_the_start_every_ten_seconds_and_at_the_end() -> None:
    clock, lines = Clock(), list[str]()
    view = Lines(lines.append, clock)
    for second in range(26):
        clock.now = float(second)
        view.update("sampling", 4 * second, 100)
    assert lines == [
        "sampling: 0/100",
        "sampling: 40/100, 4.0/s, 15 s left",
        "sampling: 80/100, 4.0/s, 5 s left",
        "sampling: 100/100, 4.0/s",
    ]


def test_a_repeated_end_is_told_once() -> None:
    clock, lines = Clock(), list[str]()
    view = Lines(lines.append, clock)
    view.update("gating", 5, 5)
    clock.now = 20.0
    view.update("gating", 5, 5)
    assert lines == ["gating: 5/5"]


def test_a_resumed_stage_counts_its_rate_from_where_it_resumed() -> None:
    clock, lines = Clock(), list[str]()
    view = Lines(lines.append, clock)
    view.update("sampling", 90, 100)
    clock.now = 10.0
    view.update("sampling", 95, 100, "loss 0.5")
    assert lines[-1] == "sampling: 95/100, 0.5/s, 10 s left, loss 0.5"


def test_bars_show_stages_and_leave_one_line_for_a_round() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    with Progress(console=console) as progress:
        display = RunDisplay(Bars(progress))
        event = SimpleNamespace(round_index=1, num_rounds=3, stage="sampling", done=3, total=8)
        display.advanced(event)  # type: ignore[arg-type]
        assert [task.description for task in progress.tasks] == ["round 1/3 sampling"]
        assert (progress.tasks[0].completed, progress.tasks[0].total) == (3, 8)
        display.round_ended(1, "rejected", ["heldout gain +1.0 [-1.0, 3.0]"])
        assert progress.tasks == []
    assert "round 1 rejected: heldout gain +1.0 [-1.0, 3.0]" in out.getvalue()


def test_what_has_no_total_is_counted_without_one() -> None:
    clock, lines = Clock(), list[str]()
    view = Lines(lines.append, clock)
    for second in (0, 5, 10):
        clock.now = float(second)
        view.update("export samples", 10 * second, None)
    assert lines == ["export samples: 0", "export samples: 100, 10.0/s"]
