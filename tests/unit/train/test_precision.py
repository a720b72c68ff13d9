"""A candidate keeps what it learned, however small, though its base is stored in bfloat16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from illume_loop.errors import UsageError
from illume_loop.models import registry
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.models.registry import load_model
from illume_loop.protocols import DrawRow, PairRow, TrainingRow
from illume_loop.settings import TrainSettings
from illume_loop.train.candidates import train_candidate
from illume_loop.train.trainable import load_trainable
from tests.support.tiny_janus import save_tiny_janus

NUM_CODES = 24
"""Ids that both codebooks have."""


@pytest.fixture(params=["illume", "janus"])
def halved(request: pytest.FixtureRequest, sharp_backend: IllumeBackend, tmp_path: Path) -> Path:
    """A base whose weights are stored in bfloat16, as published ones are."""
    if request.param == "janus":
        return save_tiny_janus(tmp_path / "base", tied=False, dtype=torch.bfloat16)
    sharp_backend.save(tmp_path / "sharp")
    backend: Any = load_model(tmp_path / "sharp", weights="bfloat16")
    backend.save(tmp_path / "base")
    return tmp_path / "base"


def _rows(kind: type, tokens_per_image: int) -> list[TrainingRow]:
    ids = np.random.default_rng(0).integers(0, NUM_CODES, (8, tokens_per_image)).astype(np.int32)
    if kind is PairRow:
        return [PairRow("a red circle", ids[i], ids[i + 1]) for i in range(0, 8, 2)]
    return [DrawRow("a red circle", row) for row in ids]


def _learned(folder: Path) -> Tensor:
    weights = load_file(folder / "model.safetensors")
    learned = [name for name in sorted(weights) if "language_model" in name and name.endswith("q_proj.weight")]
    return torch.cat([weights[name].flatten() for name in learned])


@pytest.mark.parametrize(("objective", "lora_rank"), [("sft", 0), ("sft", 4), ("dpo", 4), ("kto", 0)])
def test_an_update_below_the_step_of_bfloat16_survives_merge_save_and_load(
    halved: Path, tmp_path: Path, objective: Any, lora_rank: int
) -> None:
    rows = _rows(PairRow if objective in ("dpo", "kto") else DrawRow, load_model(halved).tokens_per_image)
    settings = TrainSettings(objective=objective, lora_rank=lora_rank, batch_size=8, epochs=4, learning_rate=1e-5)
    train_candidate(halved, rows, tmp_path / "out", settings, 5, lambda *_: None)

    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
    before, after = _learned(halved), _learned(tmp_path / "out")
    assert before.dtype == torch.bfloat16
    assert float((after != before.float()).double().mean()) > 0.9, "the update was lost"
    assert float((after.bfloat16() == before).double().mean()) > 0.8, "bfloat16 could not store it"

    again: Any = load_trainable(tmp_path / "out", 0)
    assert again.model.dtype == torch.float32, "the next round starts from all of it"
    again.save(tmp_path / "saved")
    assert torch.equal(_learned(tmp_path / "saved"), after)


def test_models_draw_as_stored_and_in_less_where_the_setting_says_so(halved: Path, tmp_path: Path) -> None:
    first: Any = load_model(halved)
    first.model.float()
    first.save(tmp_path / "wide")
    for weights, dtype in (("stored", torch.float32), ("bfloat16", torch.bfloat16)):
        backend: Any = load_model(tmp_path / "wide", weights=weights)
        assert backend.model.dtype == dtype
        assert backend.model.get_input_embeddings().weight.dtype == dtype
    assert load_model(halved).model.dtype == torch.bfloat16  # type: ignore[attr-defined]


def test_a_backend_that_loads_as_stored_only_says_so(halved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain:
        @staticmethod
        def load(path: Path, device: str) -> object:
            return path, device

    monkeypatch.setattr(registry, "_backend", lambda _: Plain)
    assert load_model(halved)
    with pytest.raises(UsageError, match=r"loads weights as stored only; set runtime\.weights = 'stored'"):
        load_model(halved, weights="bfloat16")
