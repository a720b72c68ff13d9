"""Which checkpoints a stage under way has, in a file: what the database is for the trainings of a run.

Guarantee: a checkpoint counts from when the file names it with the sha256 of each of its files; the file is written
whole or not at all. It also says what the stage was asked to do, so that a changed recipe does not go on with it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

from illume_loop.errors import CorruptArtifactError, RecipeChangedError, StageDamagedError
from illume_loop.files import write_atomically
from illume_loop.train.keeping import KEEPING, Keeping, KeptCheckpoint, intact_first, listed_checkpoint

NUM_KEPT = 2
"""The newest one, and the one before it in case that the newest is damaged."""


class Register:
    """The checkpoints of one stage, in a folder of its own."""

    def __init__(self, folder: Path, stage: str, asked: Mapping[str, Any]) -> None:
        """Raises RecipeChangedError for a folder of a stage that was asked to do something else."""
        self.folder, self.stage = folder, stage
        self.path = folder / "register.json"
        content: dict[str, Any] = {"asked": dict(asked), "kept": []}
        if self.path.exists():
            content = json.loads(self.path.read_bytes())
            check_asked(content["asked"], asked, stage, folder)
        self.asked = content["asked"]
        self.kept = [KeptCheckpoint(row["step"], Path(row["folder"]), row["files"]) for row in content["kept"]]

    @contextmanager
    def keeping(self, every_seconds: float) -> Iterator[None]:
        """Keep the training that goes on inside. Raises StageDamagedError where no checkpoint is whole."""
        damaged: list[str] = []
        intact = intact_first(self.kept, lambda _, error: damaged.append(_file_of(error)))
        if self.kept and not intact:
            raise StageDamagedError(stage=self.stage, files="; ".join(damaged), folder=self.folder)
        self._write()
        token = KEEPING.set(Keeping(self.folder / uuid4().hex, intact, self.keep, every_seconds))
        try:
            yield
        finally:
            KEEPING.reset(token)

    def keep(self, step: int, folder: Path) -> KeptCheckpoint:
        """Register a checkpoint, then delete those that are too many."""
        checkpoint = listed_checkpoint(step, folder)
        self.kept.insert(0, checkpoint)
        dropped, self.kept = self.kept[NUM_KEPT:], self.kept[:NUM_KEPT]
        self._write()
        for old in dropped:
            shutil.rmtree(old.folder, ignore_errors=True)
        return checkpoint

    def forget(self) -> None:
        """The stage is over."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self) -> None:
        kept = [asdict(checkpoint) | {"folder": str(checkpoint.folder)} for checkpoint in self.kept]
        write_atomically(self.path, json.dumps({"asked": self.asked, "kept": kept}, indent=1).encode())


def check_asked(before: Mapping[str, Any], now: Mapping[str, Any], stage: str, folder: Path) -> None:
    """Raises RecipeChangedError where a stage is asked for otherwise than it was begun."""
    plain = json.loads(json.dumps(now))
    changed = sorted(name for name in before.keys() | plain.keys() if before.get(name) != plain.get(name))
    if changed:
        raise RecipeChangedError(stage=stage, names=", ".join(changed), folder=folder)


def _file_of(error: CorruptArtifactError) -> str:
    return str(error.fields["path"])
