"""A report that can be mailed: a run's page with studies and versions, its curves as PNG, and its settings.

report.html    the page, without references to other files
heldout.png, understanding.png, diversity.png, judge_auc.png    the curves
run.toml       the settings that differ from the defaults
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from illume_loop.charts.curve import HEIGHT, MEASURES, WIDTH, marks, strokes
from illume_loop.charts.strokes import png
from illume_loop.files import output_folder, raising_storage_full, write_atomically
from illume_loop.loop.run_directory import OpenRun
from illume_loop.report.page import page_of
from illume_loop.report.render import Page, StudyTable, render
from illume_loop.report.summary import changed_toml

NAME, SETTINGS = "report.html", "run.toml"
PACKAGES = ("illume-loop", "torch", "transformers", "trl", "peft", "datasets", "numpy", "pillow", "sqlalchemy")


def write_report(run: OpenRun, folder: Path, tables: Sequence[StudyTable] = ()) -> list[Path]:
    """Write the report of a run, with tables of studies, to a folder; return the files, the page first.

    Raises UsageError if the folder cannot be written to, and StorageFullError.
    """
    output_folder(folder)
    page = replace(page_of(run.session, run.run_id, run.images), studies=tables, versions=versions())
    with raising_storage_full(folder):
        written = {NAME: render(page).encode(), **_plots(page)}
        written[SETTINGS] = changed_toml(page.settings).encode()
        for name, data in written.items():
            write_atomically(folder / name, data)
    return [folder / name for name in written]


def versions() -> Mapping[str, str]:
    """Return the versions of the packages that the results may depend on, by name."""
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
