"""Rows and a base that every objective's tests share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from illume_loop.domains.shapes.domain import ShapesDomain
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.train.rows import DrawRow, PairRow, ReadRow, TrainingRow


def _ids(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 64, 36).astype(np.int32)


@pytest.fixture(scope="session")
def likely_rows() -> list[DrawRow | ReadRow]:
    """Rows to draw and to read, with ids of a codebook of 64."""
    domain, rng = ShapesDomain(), np.random.default_rng(0)
    draw = [DrawRow(prompt.text, _ids(rng)) for prompt in domain.prompts("train", 10, 0)]
    return [*draw, *(ReadRow(pair.image, pair.caption) for pair in domain.real_pairs(6, 0))]


@pytest.fixture(scope="session")
def pair_rows() -> list[PairRow]:
    """Preferences between random images; two of them choose the same one."""
    rng = np.random.default_rng(1)
    pairs = [PairRow(prompt.text, _ids(rng), _ids(rng)) for prompt in ShapesDomain().prompts("train", 7, 1)]
    return [*pairs, PairRow(pairs[0].prompt, pairs[0].chosen_ids, _ids(rng))]


@pytest.fixture(scope="session")
def preference_rows(pair_rows: list[PairRow], likely_rows: list[DrawRow | ReadRow]) -> list[TrainingRow]:
    """What a manifest for `dpo` and `kto` holds."""
    return [*pair_rows, *likely_rows]


@pytest.fixture(scope="session")
def base(sharp_backend: IllumeBackend, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("base")
    sharp_backend.save(path)
    return path
