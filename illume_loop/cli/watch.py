"""`illume-loop rounds watch`: the live progress of a run, read from its database, so any host can show it.

A terminal shows a board that updates itself; elsewhere each change is a line, or with --json an object.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from illume_loop.cli.options import DEFAULT_RUN_DIR, AsJson, RunDir
from illume_loop.cli.output import hint, say, to_json, visible
from illume_loop.cli.rounds_table import update_sentence
from illume_loop.cli.terminal import moves

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from illume_loop.loop.run_directory import OpenRun

ENDED = ("promoted", "rejected", "failed", "cancelled")
LINES = 6
"""The number of events on the board."""
SHOWN = 8
"""The number of image pairs that are shown when a round ends."""


def watch(
    run_dir: RunDir = DEFAULT_RUN_DIR,
    every: Annotated[float, typer.Option("--every", min=0.1, max=3600, help="Seconds between two updates.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Watch the rounds until the last one ends. Ctrl-C stops watching; the run continues."""
    from illume_loop.cli.runs import open_run

    with open_run(run_dir) as run, _open_view(run, as_json=as_json) as view:
        try:
            for snapshot in _snapshots(run, every):
                view.show(snapshot)
        except KeyboardInterrupt:
            hint(f"the run continues; see `illume-loop rounds ls --run-dir {run_dir}`")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot of the run: all rounds, the latest round's stages as (done, total), the workers, the last events.

    `updates` are those of the latest round, if it learns from rewards.
    """

    rounds: Sequence[Mapping[str, Any]]
    num_rounds: int
    stages: Mapping[str, tuple[int, int]]
    workers: Sequence[Mapping[str, Any]]
    events: Sequence[Mapping[str, Any]]
    updates: Sequence[Mapping[str, Any]] = ()

    @property
    def is_over(self) -> bool:
        """True if the last requested round has ended, or the latest round has failed."""
        if not self.rounds:
            return False
        last = self.rounds[-1]
        return last["state"] in ENDED and (last["index"] >= self.num_rounds or last["state"] == "failed")


class View(Protocol):
    """A display of snapshots."""

    def show(self, snapshot: Snapshot) -> None:
        """Show the newest snapshot."""
        ...


def _snapshots(run: OpenRun, every: float) -> Iterator[Snapshot]:
    while True:
        snapshot = take_snapshot(run)
        # End the transaction, so that the next snapshot sees newer rows.
        run.session.rollback()
        run.session.expire_all()
        yield snapshot
        if snapshot.is_over:
            return
        time.sleep(every)


def take_snapshot(run: OpenRun) -> Snapshot:
    """Return a snapshot of the run. It reads the number of rounds anew, because a start may have changed it."""
    from illume_db.rounds import total_rounds
    from illume_db.rounds_table import round_detail, rounds_table
    from illume_db.runs import last_events, run_row
    from illume_db.workers import workers_table

    rounds = rounds_table(run.session, run.run_id)
    detail = round_detail(run.session, run.run_id, rounds[-1]["index"]) if rounds else None
    workers = [row for row in workers_table(run.session) if row["state"] in ("running", "draining")]
    events = last_events(run.session, run.run_id, LINES)[::-1]
    num_rounds = run_row(run.session, run.run_id)["settings"]["run"]["rounds"]
    in_all = total_rounds(run.session, run.run_id, num_rounds)
    stages, updates = (_stages(detail), detail["updates"]) if detail else ({}, ())
    return Snapshot(rounds, in_all, stages, workers, events, updates)


def _stages(detail: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Return (done, total) items by stage."""
    stages = detail["stages"].items()
    return {stage: (of["items_done"], of["items_total"]) for stage, of in stages if of["items_total"]}


@contextmanager
def _open_view(run: OpenRun, *, as_json: bool) -> Iterator[View]:
    from illume_loop.cli.output import console

    if as_json:
        yield JsonLines()
    elif not moves(sys.stdout):
        yield PlainLines()
    else:
        with Board(console(), run) as board:
            yield board


class JsonLines:
    """A view that prints a JSON object per change: round, state, stages, decision, reasons.

    A round that learns from rewards also has "update", the latest one.
    """

    def __init__(self) -> None:
        self._last = ""

    def show(self, snapshot: Snapshot) -> None:
        """Print the latest round if it differs from the last output."""
        if snapshot.rounds:
            row = snapshot.rounds[-1]
            told = {"round": row["index"], "state": row["state"], "stages": snapshot.stages}
            told |= {"update": snapshot.updates[-1]} if snapshot.updates else {}
            line = to_json(told | {"decision": row["decision"], "reasons": row["reasons"]})
            if line != self._last:
                print(line, flush=True)
                self._last = line


class PlainLines:
    """A view that prints a line per progress of a stage, and per round that ends."""

    def __init__(self) -> None:
        from illume_loop.cli.progress import Lines

        self._lines = Lines(lambda line: say(line, flush=True))
        self._ended: set[int] = set()
        self._told_updates: set[tuple[int, int]] = set()

    def show(self, snapshot: Snapshot) -> None:
        """Print the changes since the last snapshot."""
        for update in snapshot.updates:
            key = snapshot.rounds[-1]["index"], update["index"]
            if key not in self._told_updates:
                self._told_updates.add(key)
                self._lines.clear(f"round {key[0]} {update_sentence(update)}")
        for row in snapshot.rounds:
            if row["state"] in ENDED and row["index"] not in self._ended:
                self._ended.add(row["index"])
                self._lines.clear(f"round {row['index']} {row['state']}: {'; '.join(row['reasons'])}")
        if snapshot.rounds and snapshot.rounds[-1]["state"] not in ENDED:
            for stage, (done, total) in snapshot.stages.items():
                self._lines.update(f"round {snapshot.rounds[-1]['index']}/{snapshot.num_rounds} {stage}", done, total)


class Board:
    """A live board on a terminal. When a round ends, the draws of parent and candidate appear above the board."""

    def __init__(self, console: Console, run: OpenRun) -> None:
        from rich.live import Live

        from illume_loop.cli.progress import Bars, bars

        self._console, self._run = console, run
        self._progress = bars(console)
        self._bars = Bars(self._progress)
        self._snapshot: Snapshot | None = None
        self._ended: set[int] = set()
        self._live = Live(get_renderable=self._board, console=console, refresh_per_second=4)

    def __enter__(self) -> Board:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Update the board."""
        first = self._snapshot is None
        self._snapshot = snapshot
        ended = {row["index"]: row for row in snapshot.rounds if row["state"] in ENDED}
        for index in sorted(ended.keys() - self._ended):
            self._bars.forget()
            # At the start, show pictures of the last ended round only.
            if not first or index == max(ended):
                self._show_pictures(ended[index])
        self._ended |= ended.keys()
        if snapshot.rounds and snapshot.rounds[-1]["index"] not in ended:
            for stage, (done, total) in snapshot.stages.items():
                self._bars.update(f"round {snapshot.rounds[-1]['index']}/{snapshot.num_rounds} {stage}", done, total)
        self._live.refresh()

    def _board(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        from illume_loop.cli.output import table
        from illume_loop.cli.rounds_table import COLUMNS, cells_of

        if self._snapshot is None:
            return Text("loading ...")
        snapshot = self._snapshot
        parts: list[RenderableType] = [
            table(
                "rounds (shares in percent)",
                COLUMNS,
                (cells for row in snapshot.rounds[-5:] for cells in cells_of(row)),
            )
        ]
        parts += [Text(visible(update_sentence(update))) for update in snapshot.updates[-LINES:]]
        if self._progress.tasks:
            parts.append(self._progress.get_renderable())
        if snapshot.workers:
            rows = (
                [row["name"], row["model_version"], row["unit"], f"{row['items_done']}"] for row in snapshot.workers
            )
            parts.append(table("workers", ("worker", "model", "unit", "items"), rows))
        parts += [Text(visible(f"{event['at'][11:19]} {event['message']}"), style="dim") for event in snapshot.events]
        return Group(*parts)

    def _show_pictures(self, row: Mapping[str, Any]) -> None:
        from illume_db.evaluations import kept_draws
        from illume_loop.charts.strip import strip
        from illume_loop.cli.images import print_picture, terminal_shows_images

        draws = kept_draws(self._run.session, self._run.run_id, row["index"])[:SHOWN] if terminal_shows_images() else []
        if not draws:
            return
        images = self._run.images
        sides = [[images.read(draw[side]["image_sha256"]) for draw in draws] for side in ("parent", "candidate")]
        # Stop the board while the image is printed, because both move the cursor.
        self._live.stop()
        self._console.print(f"round {row['index']}: {row['parent']} above, {row['candidate']} below")
        print_picture(self._console, strip(sides), str(Path(self._run.path) / "index.html"))
        self._live.start()
