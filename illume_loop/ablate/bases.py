"""The bases that arms pretrain. Each recipe is trained once for all cells, and resumed if it was stopped.

bases/<recipe>-<digest>/          one pretraining
bases/visual-<digest>/            the visual stages and the corpus that several pretrainings share
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from illume_loop.ablate.progress import StudyProgress
from illume_loop.ablate.study import Cell
from illume_loop.artifacts.locks import exclusive_lock

if TYPE_CHECKING:
    from illume_loop.pretrain.recipe import Recipe


def pretrained_base(cell: Cell, folder: Path, progress: StudyProgress) -> Path | None:
    """Return the model directory of the cell's own base; pretrain it if it is missing. None if the cell has none."""
    recipe = cell.recipe
    if recipe is None:
        return None
    # Imported here, because a study of models of another backend needs no torch.
    from illume_loop.pretrain.variants import pretrain_sharing, visual_part

    def told(stage: str, done: int, total: int, _: float) -> None:
        progress.advanced(cell.key, f"pretraining, {stage}", done, total)

    with exclusive_lock(folder / "lock"):
        return pretrain_sharing(recipe, folder / _name(recipe), folder / _name(visual_part(recipe)), told).absolute()


def _name(recipe: Recipe) -> str:
    digest = hashlib.sha256(json.dumps(asdict(recipe), sort_keys=True).encode()).hexdigest()
    return f"{recipe.name}-{digest[:12]}"
