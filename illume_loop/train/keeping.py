"""Checkpoints of a training in progress. A resumed training starts from the newest whole one.

Invariants:
- Only registered checkpoints are used, whatever lies in the folder.
- No file of a checkpoint is read before its sha256 was compared with the registered one.
- A checkpoint holds weights, optimizer moments, schedule, random states and the place in the data, so a resumed
  training takes the steps that it would have taken.

The caller of a training sets `CHECKPOINT_PLAN` to have checkpoints kept. It is a context variable and no argument,
so a plug-in's backend may ignore it. Such a backend trains from the beginning each time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from illume_loop.artifacts.checkpoints import entries_of, verify_file
from illume_loop.errors import CorruptArtifactError
from illume_loop.hooks import OnProgress, ignore

EVERY_SECONDS = 60.0
"""The time between checkpoints: the most training that a kill costs. A shorter training leaves no checkpoint."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeptCheckpoint:
    """A registered checkpoint. `files` maps names in `folder` to their `num_bytes` and `sha256`."""

    step: int
    folder: Path
    files: Mapping[str, Any]

    def check(self, on_progress: OnProgress = ignore) -> None:
        """Verify every file. Raises CorruptArtifactError for the first one that is missing or damaged."""
        for name, entry in self.files.items():
            verify_file(self.folder / name, entry, on_progress)


@dataclass(frozen=True, slots=True)
class CheckpointPlan:
    """The keeping of a training's checkpoints.

    New checkpoints go below `folder`, and `keep(step, its folder)` registers each one. `kept` are the registered
    checkpoints, the newest first; the first one has been verified.
    """

    folder: Path
    kept: Sequence[KeptCheckpoint]
    keep: Callable[[int, Path], object]
    every_seconds: float = EVERY_SECONDS


CHECKPOINT_PLAN: ContextVar[CheckpointPlan | None] = ContextVar("CHECKPOINT_PLAN", default=None)


def listed_checkpoint(step: int, folder: Path, on_progress: OnProgress = ignore) -> KeptCheckpoint:
    """Return a checkpoint with the sizes and digests of its files, to be registered."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return KeptCheckpoint(step, folder, entries_of(files, on_progress))


def from_first_intact(
    kept: Sequence[KeptCheckpoint],
    on_damage: Callable[[KeptCheckpoint, CorruptArtifactError], None],
    on_progress: OnProgress = ignore,
) -> Sequence[KeptCheckpoint]:
    """Return the checkpoints from the first whole one on; empty if none is whole.

    `on_damage` is called for each damaged checkpoint before it.
    """
    for place, checkpoint in enumerate(kept):
        try:
            checkpoint.check(on_progress)
        except CorruptArtifactError as error:
            log.warning("checkpoint of step %d: %s", checkpoint.step, error)
            on_damage(checkpoint, error)
        else:
            return kept[place:]
    return ()
