"""A report to be mailed: the page of a run with studies and versions, its curves as PNG, its settings as a file.

report.html    one file without references to others
heldout.png, understanding.png, diversity.png, judge_auc.png    the curves
run.toml       the settings in which the run differs from the defaults
"""

from __future__ import annotations

import base64
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from illume_loop.ablate.results import stored_results
from illume_loop.ablate.running import PLOT, RESULTS
from illume_loop.ablate.table import table_of
from illume_loop.errors import UsageError
from illume_loop.files import output_folder, storage_full_told, write_atomically
from illume_loop.loop.run_directory import OpenRun
from illume_loop.report.curve import HEIGHT, MEASURES, WIDTH, marks, strokes
from illume_loop.report.page import page_of
from illume_loop.report.painting import png
from illume_loop.report.render import Page, StudyTable, render
from illume_loop.report.summary import changed_toml

NAME, SETTINGS = "report.html", "run.toml"
PACKAGES = ("illume-loop", "torch", "transformers", "trl", "peft", "datasets", "numpy", "pillow", "sqlalchemy")


def write_report(run: OpenRun, folder: Path, studies: Sequence[Path] = ()) -> list[Path]:
    """Write the report of a run to a folder; the files, the page first. `studies` are folders of `illume-loop ablate`.

    A run that is a cell of a study has that study's table without being asked. Raises UsageError for a folder that
    holds no study's results, and for one that cannot be written to, StorageFullError.
    """
    folders = [*studies, *(cell for cell in _study_of(run.path) if cell not in studies)]
    tables = [_study(study) for study in folders]
    output_folder(folder)
    page = replace(page_of(run.session, run.run_id, run.images), studies=tables, versions=versions())
    with storage_full_told(folder):
        written = {NAME: render(page).encode(), **_plots(page)}
        written[SETTINGS] = changed_toml(page.settings).encode()
        for name, data in written.items():
            write_atomically(folder / name, data)
    return [folder / name for name in written]


def versions() -> Mapping[str, str]:
    """The programs that the results may depend on, by name."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _plots(page: Page) -> dict[str, bytes]:
    num_probes = page.settings["gate"]["probe_items"]
    drawn = {name: strokes(marks(page.rounds, name, num_probes)) for name in MEASURES}
    return {f"{name}.png": png(plot, MEASURES[name], WIDTH, HEIGHT) for name, plot in drawn.items() if plot}


def _study_of(run_dir: Path) -> list[Path]:
    """The folder of the study that made this run, if one did and has results."""
    folder = run_dir.absolute().parent.parent
    return [folder] if run_dir.absolute().parent.name == "runs" and (folder / RESULTS).is_file() else []


def _study(folder: Path) -> StudyTable:
    try:
        results = stored_results(json.loads((folder / RESULTS).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder} holds no results of a study; name a directory of `illume-loop ablate`") from error
    plot = folder / PLOT
    image = base64.b64encode(plot.read_bytes()).decode("ascii") if plot.is_file() else ""
    source = f"data:image/svg+xml;base64,{image}" if image else ""
    return StudyTable(results.study.title, results.study.question, *table_of(results), plot=source)
