"""A study's cells. A cell is a real run of the loop and the measurements of its models.

    bases/                    models that arms pretrain, by recipe
    runs/<arm>-<seed>/        the cell's run directory, as `start` makes it
    measured/<sha256>.json    measurements, by checkpoint and plan
    cells/<arm>-<seed>.json   the finished cells

Invariants:
- The same call resumes a study that was killed, to the same results. Finished cells are kept, and an unfinished run
  goes on where it stopped.
- A cell that was made with other settings is refused.
- A failed round is a result: its cell is finished and keeps the reason. Any other error ends the study, which can then
  be resumed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from illume_db.rounds_table import rounds_table
from illume_db.versions import models_table
from illume_loop.ablate.bases import pretrained_base
from illume_loop.ablate.measuring import Measured, measure_once, plan_of
from illume_loop.ablate.progress import StudyProgress
from illume_loop.ablate.study import Cell
from illume_loop.artifacts.checkpoints import CheckpointStore
from illume_loop.errors import RoundFailedError, StudyChangedError
from illume_loop.files import Root, write_atomically
from illume_loop.loop.coordinator import StageProgress
from illume_loop.loop.opening import changed_settings
from illume_loop.loop.run_directory import MARKER, open_run
from illume_loop.models.shipped import base_path
from illume_loop.settings import Settings
from illume_loop.start import start_run

BASE = "v0001"
KEPT = (
    "index", "state", "parent", "candidate", "heldout", "diversity", "understanding", "judge_auc", "samples",
    "accepted", "curation", "manifest_rows", "manifest_sha256", "decision", "reasons",
)  # fmt: skip
"""The columns of a round that do not depend on when and where it ran."""


@dataclass(frozen=True, slots=True)
class FinishedCell:
    """The results of a cell."""

    arm: str
    seed: int
    failed: str | None
    """The reason why the run failed, or None. A failed run is not measured."""
    rounds: list[dict[str, Any]]
    base: Measured | None
    versions: dict[int, str]
    """The version that was measured after each round, by round."""
    models: dict[int, Measured]
    """The measurements by round; round 0 is the base."""
    seconds: float

    @property
    def key(self) -> str:
        """The cell's name."""
        return f"{self.arm}-{self.seed}"


@dataclass(frozen=True, slots=True)
class Versions:
    """The models of a cell: the digests by name, and the store of the checkpoints."""

    digests: Mapping[str, str]
    checkpoints: CheckpointStore


def finished_cell(cell: Cell, folder: Path) -> FinishedCell | None:
    """Return a cell's stored results; None if it is not finished. Raises StudyChangedError."""
    file = _file(cell, folder)
    if not file.exists():
        return None
    kept = json.loads(file.read_bytes())
    before, now = kept["identity"], _identity(cell)
    names = changed_settings(before["settings"], now["settings"])
    names += [name for name in now if name != "settings" and before[name] != now[name]]
    if names:
        raise StudyChangedError(path=folder, cell=cell.key, names=", ".join(names))

    def measured(name: str) -> Measured:
        return Measured(**json.loads((folder / "measured" / f"{name}.json").read_bytes()))

    return FinishedCell(
        arm=cell.arm.name,
        seed=cell.seed,
        failed=kept["failed"],
        rounds=kept["rounds"],
        base=measured(kept["base"]) if kept["base"] else None,
        versions={int(index): name for index, name in kept["versions"].items()},
        models={int(index): measured(name) for index, name in kept["models"].items()},
        seconds=kept["seconds"],
    )


def run_cell(cell: Cell, folder: Path, progress: StudyProgress) -> FinishedCell:
    """Run and measure a cell, or finish what an earlier call began. A finished cell is only read.

    Raises StudyChangedError, and what `start_run` raises except RoundFailedError.
    """
    found = finished_cell(cell, folder)
    if found is not None:
        return found
    began = time.monotonic()
    settings = cell.settings
    base = pretrained_base(cell, folder / "bases", progress)
    if base is not None:
        settings = settings.model_copy(update={"run": settings.run.model_copy(update={"base": str(base)})})
    run_dir = folder / "runs" / cell.key
    rounds = _run(cell, settings, run_dir, progress) if cell.study.num_rounds else []
    failed = next((row["error"] for row in rounds if row["state"] == "failed"), None)
    content: dict[str, Any] = {
        "identity": _identity(cell),
        "failed": failed,
        "base": None,
        "rounds": [{key: row[key] for key in KEPT} for row in rounds],
        "versions": {},
        "models": {},
    }
    if failed is None:
        with _versions(folder, run_dir, settings) as versions:
            content |= _measurements(cell, folder, versions, rounds, progress)
    content["seconds"] = round(time.monotonic() - began, 1)
    write_atomically(_file(cell, folder), json.dumps(content, indent=1).encode())
    finished = finished_cell(cell, folder)
    assert finished is not None, "it was written just now"
    return finished


def _run(cell: Cell, settings: Settings, run_dir: Path, progress: StudyProgress) -> list[dict[str, Any]]:
    """Start or resume the cell's run; return its rounds when it has ended."""
    rounds = _rounds(run_dir) if (run_dir / MARKER).exists() else []
    # After a failed round the loop would go on with the next one, which would be another experiment.
    if not any(row["state"] == "failed" for row in rounds):
        # A study measures its models itself, so the run needs no closing comparison.
        gate = settings.gate.model_copy(update={"closing": False})
        with suppress(RoundFailedError):  # the round's row holds the error
            start_run(settings.model_copy(update={"gate": gate}), run_dir, progress=_CellReporter(cell, progress))
    return _rounds(run_dir)


def _rounds(run_dir: Path) -> list[dict[str, Any]]:
    with open_run(run_dir) as run:
        return rounds_table(run.session, run.run_id)


@contextmanager
def _versions(folder: Path, run_dir: Path, settings: Settings) -> Iterator[Versions]:
    """Yield the models of a cell: those of its run, or the base alone if the cell has no run."""
    if not (run_dir / MARKER).exists():
        store = CheckpointStore(Root.of_folder(folder), folder / "cache")
        yield Versions({BASE: store.publish(base_path(settings.run.base)).sha256}, store)
        return
    with open_run(run_dir) as run:
        digests = {row["name"]: row["sha256"] for row in models_table(run.session, run.run_id)}
        yield Versions(digests, run.checkpoints)


def _measurements(
    cell: Cell, folder: Path, found: Versions, rounds: Sequence[Mapping[str, Any]], progress: StudyProgress
) -> dict[str, Any]:
    settings = cell.settings
    plan = plan_of(settings, cell.study.measure)

    def measured(version: str) -> str:
        """Measure a version; return the name of the measurement."""
        sha256 = found.digests[version]
        path = found.checkpoints.local_path(sha256)

        def told(what: str, done: int, total: int) -> None:
            progress.advanced(cell.key, f"{what} with {version}", done, total)

        measure_once(plan, sha256, path, folder / "measured", settings.runtime.device, told)
        return plan.sha256(sha256)

    versions = {index: _subject(cell, rounds, index) for index in cell.study.after}
    models = {index: measured(version) for index, version in versions.items()}
    return {"base": measured(BASE), "versions": versions, "models": models}


def _subject(cell: Cell, rounds: Sequence[Mapping[str, Any]], index: int) -> str:
    """Return the version that is measured after a round."""
    if cell.study.subject == "candidate":
        return str(rounds[index - 1]["candidate"])
    promoted = [row["candidate"] for row in rounds[:index] if row["state"] == "promoted"]
    return promoted[-1] if promoted else BASE


def _identity(cell: Cell) -> dict[str, Any]:
    """Return everything that determines a cell's results, as plain values that JSON does not change."""
    settings = cell.settings.resolved()
    for of_the_machine in ("runtime", "cluster", "store"):
        del settings[of_the_machine]
    del settings["run"]["name"]  # the study may be copied under another name
    study = cell.study
    return {
        "settings": settings,
        "after": list(study.after),
        "subject": study.subject,
        "measure": study.measure.model_dump(),
        "pretrain": cell.arm.pretrain and cell.arm.pretrain.model_dump(),
    }


def _file(cell: Cell, folder: Path) -> Path:
    return folder / "cells" / f"{cell.key}.json"


class _CellReporter:
    """The adapter that reports the coordinator's progress under the cell's name."""

    def __init__(self, cell: Cell, progress: StudyProgress) -> None:
        self._cell, self._progress = cell, progress

    def advanced(self, event: StageProgress) -> None:
        what = f"round {event.round_index}/{event.num_rounds} {event.stage}"
        self._progress.advanced(self._cell.key, what, event.done, event.total)

    def round_ended(self, index: int, state: str, reasons: Sequence[str]) -> None:
        """Do nothing: the cell's results hold its rounds."""
