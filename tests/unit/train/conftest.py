"""Rows and a base that every objective's tests share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from illume_loop.domains.shapes.domain import ShapesDomain
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.protocols import DrawRow, PairRow, ReadRow, TrainingRow
from illume_loop.train.trainings import CandidateTraining, run_training
from tests.support.shared_training import ALONE, Alone


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


@pytest.fixture(scope="session")
def rows(likely_rows: list[DrawRow | ReadRow]) -> list[DrawRow | ReadRow]:
    """Twenty rows, five steps in each pass. Some halves of a batch read no image."""
    return [*likely_rows, *likely_rows[:4]]


@pytest.fixture(scope="session")
def alone(base: Path, rows: list[TrainingRow], tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """Ten steps in this process."""
    out = Path(tmp_path_factory.mktemp("alone")) / "out"
    return run_training(CandidateTraining(base, rows, out, ALONE, 5), lambda *_: None), out


@pytest.fixture(scope="session")
def reading_rows(likely_rows: list[DrawRow | ReadRow]) -> list[DrawRow | ReadRow]:
    """Twenty rows of which fourteen read: with DeepSpeed a step without an image moves the adapter by its momentum."""
    draw, read = likely_rows[:6], likely_rows[10:]
    return [*draw, *read, *read, *read[:2]]


@pytest.fixture(scope="session")
def reading_alone(base: Path, reading_rows: list[TrainingRow], tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """Ten steps of those in this process."""
    out = Path(tmp_path_factory.mktemp("reading")) / "out"
    return run_training(CandidateTraining(base, reading_rows, out, ALONE, 5), lambda *_: None), out
