"""The file that registers the checkpoints of a stage in progress, as the database does for the trainings of a run.

Invariants:
- A checkpoint counts once the file names it with the sha256 of each of its files.
- The file is written whole or not at all.
- The file holds the stage's request, so that a changed recipe cannot resume the stage.
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
from illume_loop.train.keeping import (
    CHECKPOINT_PLAN,
    CheckpointPlan,
    KeptCheckpoint,
    from_first_intact,
    listed_checkpoint,
)

NUM_KEPT = 2
"""The newest checkpoint, and the one before it in case the newest is damaged."""


class Register:
    """The checkpoints of one stage, in a folder of its own."""

    def __init__(self, folder: Path, stage: str, asked: Mapping[str, Any]) -> None:
        """Read the folder's register. Raises RecipeChangedError if its stage was begun with another request."""
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
        """Keep the checkpoints of the training inside the block.

        Raises StageDamagedError if there are checkpoints and none is whole.
        """
        damaged: list[str] = []
        intact = from_first_intact(self.kept, lambda _, error: damaged.append(_file_of(error)))
        if self.kept and not intact:
            raise StageDamagedError(stage=self.stage, files="; ".join(damaged), folder=self.folder)
        self._write()
        token = CHECKPOINT_PLAN.set(CheckpointPlan(self.folder / uuid4().hex, intact, self.keep, every_seconds))
        try:
            yield
        finally:
            CHECKPOINT_PLAN.reset(token)

    def keep(self, step: int, folder: Path) -> KeptCheckpoint:
        """Register a checkpoint, then delete all but the newest NUM_KEPT."""
        checkpoint = listed_checkpoint(step, folder)
        self.kept.insert(0, checkpoint)
        dropped, self.kept = self.kept[NUM_KEPT:], self.kept[:NUM_KEPT]
        self._write()
        for old in dropped:
            shutil.rmtree(old.folder, ignore_errors=True)
        return checkpoint

    def forget(self) -> None:
        """Delete the folder, because the stage is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self) -> None:
        kept = [asdict(checkpoint) | {"folder": str(checkpoint.folder)} for checkpoint in self.kept]
        write_atomically(self.path, json.dumps({"asked": self.asked, "kept": kept}, indent=1).encode())


def check_asked(before: Mapping[str, Any], now: Mapping[str, Any], stage: str, folder: Path) -> None:
    """Raise RecipeChangedError if a stage's request differs from the one that it was begun with."""
    plain = json.loads(json.dumps(now))
    changed = sorted(name for name in before.keys() | plain.keys() if before.get(name) != plain.get(name))
    if changed:
        raise RecipeChangedError(stage=stage, names=", ".join(changed), folder=folder)


def _file_of(error: CorruptArtifactError) -> str:
    return str(error.fields["path"])
