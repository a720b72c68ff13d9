"""Drawing: what the uncached distribution says, whatever the batch, with guidance in logits or in log-probabilities."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaModel, Qwen2Config, Qwen2Model

from illume_loop.engine.llama import LlamaSteps, can_step
from illume_loop.engine.prefixes import batch_prefixes
from illume_loop.engine.sampler import pick, sample_image_ids, sample_scored_ids
from illume_loop.engine.steps import TransformersSteps, begin_steps
from illume_loop.protocols import Sampling
from tests.unit.engine.conftest import SmallModel

PREFIXES = [[1, 7, 8, 3], [1, 3], [1, 7, 8, 3], [1, 9, 10, 11, 12, 3]]
NOTHING = [[1, 0, 0, 3], [1, 3], [1, 0, 0, 3], [1, 0, 0, 0, 0, 3]]
SEEDS = [3, 2**63, 5, 2**64 - 1]
LENGTH = 20


def uncached(model: SmallModel, prefix: list[int], ids: Tensor) -> Tensor:
    """Logits (L, K) along drawn ids, from one forward pass over everything."""
    embeds = torch.cat([model.embed_text(torch.tensor(prefix)), model.embed_image_ids(ids)])
    hidden = model.body(inputs_embeds=embeds.unsqueeze(0)).last_hidden_state[0]
    return model.image_logits(hidden[len(prefix) - 1 : -1])


@torch.inference_mode()
@pytest.mark.parametrize(("kind", "num_kv_heads"), [("llama", 1), ("llama", 2), ("llama", 4), ("qwen2", 2)])
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_greedy_drawing_follows_the_uncached_distribution(kind: str, num_kv_heads: int, guidance_scale: float) -> None:
    model = SmallModel(num_kv_heads, kind)
    drawn = sample_image_ids(model, PREFIXES, NOTHING, SEEDS, Sampling(guidance_scale, 0.0), LENGTH)
    assert len({tuple(row) for row in drawn.tolist()}) == 3, "two of the prompts are one"
    for prefix, nothing, ids in zip(PREFIXES, NOTHING, drawn, strict=True):
        conditional, unconditional = (torch.log_softmax(uncached(model, p, ids), -1) for p in (prefix, nothing))
        mixed = guidance_scale * (conditional - unconditional) + unconditional
        assert torch.equal(mixed.argmax(-1), ids), "mixing logits is mixing log-probabilities, up to a constant"


@torch.inference_mode()
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(2.0, 0.7), Sampling(1.5, 0.8, 12, 0.9)])
def test_log_probabilities_are_those_of_the_distribution_that_was_drawn_from(sampling: Sampling) -> None:
    model = SmallModel()
    drawn, scored = sample_scored_ids(model, PREFIXES, NOTHING, SEEDS, sampling, LENGTH)
    assert torch.equal(drawn, sample_image_ids(model, PREFIXES, NOTHING, SEEDS, sampling, LENGTH))
    for prefix, nothing, ids, found in zip(PREFIXES, NOTHING, drawn, scored, strict=True):
        conditional, unconditional = uncached(model, prefix, ids), uncached(model, nothing, ids)
        guided = unconditional + sampling.guidance_scale * (conditional - unconditional)
        probabilities = (guided / sampling.temperature).softmax(-1)
        if sampling.top_k:
            lowest = probabilities.topk(sampling.top_k).values[:, -1:]
            kept = probabilities.masked_fill(probabilities < lowest, 0.0)
            kept = kept / kept.sum(-1, keepdim=True)
            ordered, order = kept.sort(descending=True)
            before = ordered.cumsum(-1) - ordered
            kept = torch.zeros_like(kept).scatter(1, order, ordered.masked_fill(before >= sampling.top_p, 0.0))
            probabilities = kept / kept.sum(-1, keepdim=True)
        expected = probabilities.gather(1, ids.unsqueeze(1)).squeeze(1).log()
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_a_row_is_the_same_in_any_batch(small_model: SmallModel) -> None:
    sampling = Sampling(2.0, 0.9, 30, 0.95)
    together = sample_image_ids(small_model, PREFIXES, NOTHING, SEEDS, sampling, LENGTH)
    assert not torch.equal(together[0], together[2]), "one prompt, two seeds"
    for i in range(4):
        alone = sample_image_ids(small_model, [PREFIXES[i]], [NOTHING[i]], [SEEDS[i]], sampling, LENGTH)
        assert torch.equal(alone[0], together[i])


def test_equal_prefixes_go_through_once(small_model: SmallModel) -> None:
    sample_image_ids(small_model, PREFIXES, NOTHING, SEEDS, Sampling(2.0), LENGTH)
    assert small_model.shapes == [(5, 6)], "three prompts, of which one is nothing, and two more lengths of nothing"


@torch.inference_mode()
@pytest.mark.parametrize(("kind", "stretch"), [("llama", 1), ("llama", 16), ("qwen2", 1)])
def test_fast_steps_are_the_steps_of_transformers(kind: str, stretch: int) -> None:
    """Also where attention goes over slots that are not filled yet, as it does in a CUDA graph."""
    small_model = SmallModel(kind=kind)
    assert can_step(small_model.body)
    batch = batch_prefixes(small_model, PREFIXES)
    fast = LlamaSteps(small_model.body, batch, LENGTH, stretch=stretch)
    slow = TransformersSteps(small_model.body, batch)
    torch.testing.assert_close(fast.hidden, slow.hidden)
    for step, extent in enumerate(fast.extents(LENGTH)):
        embeds = small_model.embed_image_ids(torch.tensor([step, step + 1, step + 2, 63 - step]))
        torch.testing.assert_close(fast.advance(embeds, extent), slow.advance(embeds, 0), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("part", ["mlp.down_proj.weight", "self_attn.v_proj.bias"])
def test_changed_weights_are_seen(part: str) -> None:
    small_model = SmallModel(kind="qwen2")
    before = sample_image_ids(small_model, PREFIXES, NOTHING, SEEDS, Sampling(1.0, 0.0), LENGTH)
    with torch.no_grad():
        small_model.body.get_parameter(f"layers.1.{part}").mul_(-1.0)
    after = sample_image_ids(small_model, PREFIXES, NOTHING, SEEDS, Sampling(1.0, 0.0), LENGTH)
    assert not torch.equal(before, after)
    with torch.inference_mode():
        assert torch.equal(uncached(small_model, PREFIXES[1], after[1]).argmax(-1), after[1])


def test_what_is_no_plain_llama_steps_as_transformers_has_it() -> None:
    body = LlamaModel(
        LlamaConfig(
            vocab_size=9,
            hidden_size=16,
            num_hidden_layers=1,
            attention_bias=True,
            num_attention_heads=2,
            intermediate_size=8,
        )
    )
    model = SmallModel()
    model.body = body
    model.text_head = model.text_head[:, :16]
    with torch.inference_mode():
        assert isinstance(begin_steps(body, batch_prefixes(model, [[1, 2]]), 3), TransformersSteps)


def test_a_window_of_attention_is_left_to_transformers() -> None:
    config = Qwen2Config(
        vocab_size=9,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=8,
        use_sliding_window=True,
        sliding_window=4,
        max_window_layers=1,
    )
    assert not can_step(Qwen2Model(config))
    config.use_sliding_window = False
    assert can_step(Qwen2Model(Qwen2Config(**{**config.to_dict(), "layer_types": None, "sliding_window": None})))


def test_top_p_keeps_the_most_probable() -> None:
    logits = torch.tensor([0.5, 0.25, 0.15, 0.1]).log().expand(4000, 4)
    seeds, position, shares = torch.arange(4000), torch.tensor([0]), (0.4, 0.7, 0.8, 1.0)
    kept = {top_p: set(pick(logits, seeds, position, Sampling(top_p=top_p)).tolist()) for top_p in shares}
    assert kept == {0.4: {0}, 0.7: {0, 1}, 0.8: {0, 1, 2}, 1.0: {0, 1, 2, 3}}
    assert set(pick(logits, seeds, position, Sampling(top_k=3, top_p=0.99)).tolist()) == {0, 1, 2}
    hot = pick(logits, seeds, position, Sampling(temperature=10.0, top_p=0.7))
    assert set(hot.tolist()) == {0, 1, 2}, "top-p is of the probabilities at the temperature"
