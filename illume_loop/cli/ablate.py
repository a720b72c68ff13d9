"""`illume-loop ablate`: run or continue a study, a controlled experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from illume_loop.cli.options import AsJson
from illume_loop.cli.output import hint, print_json, print_table

if TYPE_CHECKING:
    from illume_loop.cli.progress import View

LIST = "ls"


def ablate(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A shipped study, a TOML file, or `ls` to list the shipped studies.")
    ],
    seeds: Annotated[
        str | None, typer.Option("--seeds", metavar="S,...", help="Seeds of the runs. Default: the study's own.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="Folder of the study. Default: ablate-NAME.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", metavar="N", min=1, max=64, help="Runs at the same time.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Run a study: each arm with each seed, all measured alike; write a table with intervals and a plot."""
    from illume_loop.ablate.running import PLOT, TABLE, run_study
    from illume_loop.ablate.study import load_study
    from illume_loop.cli.exit_codes import INTERRUPTED
    from illume_loop.cli.progress import open_view
    from illume_loop.errors import CellsFailedError
    from illume_loop.runtime import prepare
    from illume_loop.settings import RuntimeSettings

    if name == LIST:
        _list(as_json)
        return
    prepare(RuntimeSettings())  # before a recipe imports torch; each cell applies its own settings later
    study, wanted = load_study(name), _seeds(seeds)
    folder = out or Path(f"ablate-{study.name}")
    hint(f"illume-loop: study {study.name} in {folder} (stop with Ctrl-C at any time; the same command continues)")
    try:
        with open_view() as view:
            results = run_study(study, folder, seeds=wanted, jobs=jobs, progress=_Display(view))
    except KeyboardInterrupt:
        hint("\nillume-loop: stopped, finished cells are kept; the same command continues")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json(results.as_json())
    else:
        print((folder / TABLE).read_text(encoding="utf-8"), end="")
    hint(f"table: {folder / TABLE}   plot: {folder / PLOT}")
    if results.failed:
        first = results.failed[0]
        raise CellsFailedError(
            failed=len(results.failed),
            total=len(results.cells),
            cell=first.key,
            reason=(first.failed or "").rstrip("."),
        )


def _list(as_json: bool) -> None:
    from illume_loop.ablate.study import shipped_studies

    studies = shipped_studies()
    if as_json:
        print_json([study.model_dump(mode="json") for study in studies])
        return
    rows = [(s.name, str(len(s.arms)), ", ".join(map(str, s.seeds)), str(s.num_rounds), s.title) for s in studies]
    print_table("studies", ("name", "arms", "seeds", "rounds", "comparison"), rows)
    hint("next: illume-loop ablate NAME")


def _seeds(text: str | None) -> list[int]:
    from illume_loop.errors import UsageError

    try:
        seeds = [int(part) for part in text.split(",")] if text is not None else []
    except ValueError:
        raise UsageError(f"--seeds {text} is not a list of numbers; write it like 0,1,2") from None
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"--seeds {text} names a seed twice")
    return seeds


class _Display:
    """An adapter that shows a study's progress in a view; it is a `illume_loop.ablate.progress.StudyProgress`."""

    def __init__(self, view: View) -> None:
        self._view = view

    def advanced(self, cell: str, what: str, done: int, total: int) -> None:
        """Show the progress of a stage or a measurement of a cell."""
        self._view.update(f"{cell} {what}", done, total)

    def finished(self, cell: str, done: int, total: int, seconds: float) -> None:
        """Show that a cell is finished."""
        self._view.clear(f"{cell} finished in {seconds:.0f} s, {done} of {total} cells")
