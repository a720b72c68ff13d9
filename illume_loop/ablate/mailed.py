"""Tables of studies for the report of a run."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path

from illume_loop.ablate.results import stored_results
from illume_loop.ablate.running import PLOT, RESULTS
from illume_loop.ablate.table import table_of
from illume_loop.errors import UsageError
from illume_loop.report.render import StudyTable


def tables_for(run_dir: Path, studies: Sequence[Path] = ()) -> list[StudyTable]:
    """Return the tables of `studies`, which are folders of `illume-loop ablate`, and of the study that made this run.

    Raises UsageError for a folder without a study's results.
    """
    made_by = _study_of(run_dir)
    return [_study(folder) for folder in [*studies, *(folder for folder in made_by if folder not in studies)]]


def _study_of(run_dir: Path) -> list[Path]:
    """Return the folder of the study that made this run; empty if there is none or it has no results."""
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
