"""Checkpoints of a training that is under way, and going on from the last one that is whole.

Guarantee: which checkpoint a training goes on from is said by what was registered, never by what lies in a folder; and
no file of one is read before its sha256 was found to be the registered one. A checkpoint holds weights, optimizer
moments, schedule, random states and the place in the data, so a training that is killed and goes on takes the steps
that it would have taken.

Who starts a training says by `KEEPING` that it is to be kept, and how. It is a context and no argument, so backends
that plug in need not know of it: one that does not look trains from the beginning each time.
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
"""Training that a kill may cost; a training that is shorter leaves no checkpoint."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeptCheckpoint:
    """A registered checkpoint: `files` maps names in `folder` to their `num_bytes` and `sha256`."""

    step: int
    folder: Path
    files: Mapping[str, Any]

    def check(self, on_progress: OnProgress = ignore) -> None:
        """Read every file. Raises CorruptArtifactError that names the first one that is missing or damaged."""
        for name, entry in self.files.items():
            verify_file(self.folder / name, entry, on_progress)


@dataclass(frozen=True, slots=True)
class Keeping:
    """How a training is kept: new checkpoints go below `folder`, each is registered by `keep(step, its folder)`.

    `kept` are the registered ones, the newest first; the first one was found whole.
    """

    folder: Path
    kept: Sequence[KeptCheckpoint]
    keep: Callable[[int, Path], object]
    every_seconds: float = EVERY_SECONDS


KEEPING: ContextVar[Keeping | None] = ContextVar("KEEPING", default=None)


def listed_checkpoint(step: int, folder: Path, on_progress: OnProgress = ignore) -> KeptCheckpoint:
    """A checkpoint as it is now, to be registered."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return KeptCheckpoint(step, folder, entries_of(files, on_progress))


def intact_first(
    kept: Sequence[KeptCheckpoint],
    on_damage: Callable[[KeptCheckpoint, CorruptArtifactError], None],
    on_progress: OnProgress = ignore,
) -> Sequence[KeptCheckpoint]:
    """The checkpoints from the first whole one on; `on_damage` hears of those before it. Empty where none is whole."""
    for place, checkpoint in enumerate(kept):
        try:
            checkpoint.check(on_progress)
        except CorruptArtifactError as error:
            log.warning("checkpoint of step %d: %s", checkpoint.step, error)
            on_damage(checkpoint, error)
        else:
            return kept[place:]
    return ()
