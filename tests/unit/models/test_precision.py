"""What a model in bfloat16 draws and reads with is rounded by its body alone: both heads multiply in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from illume_loop.engine.sampler import pick
from illume_loop.models.registry import load_model
from illume_loop.models.shipped import shipped_base
from illume_loop.protocols import Sampling
from tests.support.tiny_janus import save_tiny_janus

ROWS = 12
GUIDED = Sampling(guidance_scale=5.0, temperature=0.0)
EXACT = 1e-5
"""Nats; rounded to bfloat16, log-probabilities under guidance 5 are off by tenths."""


@pytest.fixture(params=["illume", "janus"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    folder = shipped_base() if request.param == "illume" else save_tiny_janus(tmp_path)
    model: Any = load_model(folder)
    model.model.to(torch.bfloat16)
    return model


@pytest.fixture
def hidden(backend: Any) -> Tensor:
    """Hidden states as the body gives them: conditional rows, then unconditional ones."""
    width = backend.model.get_input_embeddings().weight.shape[1]
    return torch.randn(2 * ROWS, width, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16) * 4


def _image_head(backend: Any, hidden: Tensor) -> Tensor:
    """The product over the codebook in float64, of the weights and hidden states as they are kept."""
    wide = hidden.double()
    if backend.name == "illume":
        return wide @ backend.model.lm_head.weight[backend.model.config.num_text_ids :].double().T
    head = backend.model.model.generation_head
    inner = head.activation_fn(F.linear(wide, head.proj_out.weight.double(), head.proj_out.bias.double()))
    return F.linear(inner, head.vision_head.weight.double(), head.vision_head.bias.double())


def _text_head(backend: Any, hidden: Tensor) -> Tensor:
    rows = backend.model.lm_head.weight
    if backend.name == "illume":
        rows = rows[: backend.model.config.num_text_ids]
    return hidden.double() @ rows.double().T


def _guided(logits: Tensor) -> Tensor:
    conditional, unconditional = logits.chunk(2)
    return torch.log_softmax(unconditional + 5.0 * (conditional - unconditional), dim=-1)


@torch.inference_mode()
def test_drawing_multiplies_the_image_head_in_float32(backend: Any, hidden: Tensor) -> None:
    logits = backend.language.image_logits(hidden)
    assert logits.dtype == torch.float32
    expected = _guided(_image_head(backend, hidden))
    torch.testing.assert_close(_guided(logits.double()), expected, atol=100 * EXACT, rtol=EXACT)
    rounded = _guided(_image_head(backend, hidden).to(torch.bfloat16).double())
    assert float((rounded - expected).abs().max()) > 0.05, "in bfloat16 the difference would show"
    seeds, position = torch.arange(ROWS), torch.zeros(1, dtype=torch.long)
    assert torch.equal(pick(logits, seeds, position, GUIDED), expected.argmax(dim=-1))


@torch.inference_mode()
def test_reading_and_writing_multiply_the_text_head_in_float32(backend: Any, hidden: Tensor) -> None:
    expected = _text_head(backend, hidden)
    for ids in (None, [5, 3]):
        logits = backend.language.text_logits(hidden, ids)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits.double(), expected if ids is None else expected[:, ids], atol=1e-4, rtol=1e-5)


@torch.inference_mode()
def test_a_float32_head_follows_its_weights(backend: Any, hidden: Tensor) -> None:
    before = backend.language.image_logits(hidden)
    with torch.no_grad():
        for name, weight in backend.model.named_parameters():
            if "head" in name:
                weight.mul_(0.5)
    assert not torch.equal(before, backend.language.image_logits(hidden))


@torch.inference_mode()
def test_a_model_in_bfloat16_draws_and_reads(backend: Any) -> None:
    ids = backend.sample(["a red circle"] * 2, [1, 2], Sampling(guidance_scale=5.0))
    images = backend.decode(ids)
    likelihoods, _ = backend.read(images, ["a red circle"] * 2, [[], []])
    assert (likelihoods < 0).all()
    assert len(backend.instruct(images, [""] * 2, max_tokens=3)) == 2
