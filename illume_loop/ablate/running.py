"""The run of a whole study, and its files of results.

    results.json    the study, its rows with intervals, every round of every cell
    table.md        the same as tables
    plot.svg        the same as a plot

Invariants:
- The three files depend only on the finished cells, so a study that was killed and resumed ends with the same bytes.
- They are written anew after every cell.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from illume_loop.ablate.grid import FinishedCell, finished_cell, run_cell
from illume_loop.ablate.jobs import done_in_processes
from illume_loop.ablate.plot import svg
from illume_loop.ablate.progress import Silent, StudyProgress
from illume_loop.ablate.results import Results, results_of
from illume_loop.ablate.study import Cell, Study, cells
from illume_loop.ablate.table import markdown
from illume_loop.domains import get_domain
from illume_loop.errors import NoCheckerError, UsageError
from illume_loop.files import output_folder, raising_storage_full, write_atomically
from illume_loop.loop.opening import check_start
from illume_loop.loop.run_directory import exclusive
from illume_loop.runtime import prepare

RESULTS, TABLE, PLOT = "results.json", "table.md", "plot.svg"
OURS = ("lock", "bases", "runs", "cells", "measured", "checkpoints", "cache", RESULTS, TABLE, PLOT)


def run_study(
    study: Study, folder: Path, *, seeds: Sequence[int] = (), jobs: int = 1, progress: StudyProgress | None = None
) -> Results:
    """Run the study's missing cells in `folder` and write the results there.

    Without `seeds`, the study's own seeds are used. With several jobs, cells run in processes of their own, each with
    its share of the machine's threads. Raises what `run_cell` raises, RunLockedError, NoCheckerError for a domain
    without an exact checker, and UsageError for a folder that holds other things or for settings that the domain cannot
    meet.
    """
    told = progress or Silent()
    grid = cells(study, seeds)
    if folder.exists() and (not folder.is_dir() or any(entry.name not in OURS for entry in folder.iterdir())):
        raise UsageError(f"{folder} holds other things than a study; name a new or empty directory with -o")
    for cell in grid:
        check_start(cell.settings, folder / "runs" / cell.key)
        domain = cell.settings.run.domain
        if not get_domain(domain).exact:
            instead = "study another domain, or compare runs by `rounds ls`"
            raise NoCheckerError(domain=domain, what="a study", instead=instead)
    with raising_storage_full(folder):
        output_folder(folder)
        with exclusive(folder):
            found = {cell.key: finished for cell in grid if (finished := finished_cell(cell, folder))}
            missing = [cell for cell in grid if cell.key not in found]
            done = _in_processes(missing, folder, jobs) if jobs > 1 else _here(missing, folder, told)
            for finished in done:
                found[finished.key] = finished
                told.finished(finished.key, len(found), len(grid), finished.seconds)
                _write(results_of(study, list(found.values())), folder)
            results = results_of(study, list(found.values()))
            _write(results, folder)
            return results


def _here(missing: Sequence[Cell], folder: Path, progress: StudyProgress) -> Iterator[FinishedCell]:
    for cell in missing:
        prepare(cell.settings.runtime)
        yield run_cell(cell, folder, progress)


def _in_processes(missing: Sequence[Cell], folder: Path, jobs: int) -> Iterator[FinishedCell]:
    threads = max(1, (os.cpu_count() or 1) // jobs)
    for cell in done_in_processes(partial(_alone, folder, threads), missing, jobs):
        finished = finished_cell(cell, folder)
        assert finished is not None, "its process finished it"
        yield finished


def _alone(folder: Path, threads: int, cell: Cell) -> None:
    runtime = cell.settings.runtime
    prepare(runtime if runtime.threads else runtime.model_copy(update={"threads": threads}))
    run_cell(cell, folder, Silent())


def _write(results: Results, folder: Path) -> None:
    content = json.dumps(results.as_json(), indent=1, ensure_ascii=False) + "\n"
    for name, text in ((RESULTS, content), (TABLE, markdown(results)), (PLOT, svg(results))):
        write_atomically(folder / name, text.encode())
