"""The ILLUME model: one product gives the logits, sampling follows them, checkpoints come back as they were."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor

from illume_loop.errors import CorruptArtifactError, NotFoundError, UsageError
from illume_loop.models.illume import IllumeConfig, IllumeForConditionalGeneration, IllumeProcessor
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.models.illume.processing import build_processor
from illume_loop.models.registry import load_model
from illume_loop.models.sequences import log_probs_of
from illume_loop.pretrain.pretraining import Pretraining
from illume_loop.pretrain.recipe import Recipe
from illume_loop.protocols import Sampling

PROMPTS = ["a red circle", "an image with three blue squares", "a ring above a cross"]


def teacher_forced(backend: IllumeBackend, prompt: str, ids: np.ndarray, guidance_scale: float) -> torch.Tensor:
    """Guided log-probabilities (L, K) along drawn ids, from one full forward pass without a cache."""
    config = backend.model.config
    image_head = backend.model.lm_head.weight[config.num_text_ids :]

    def scores(text: str) -> torch.Tensor:
        row = backend.sequences.draw(text, ids.tolist())
        start = len(backend.sequences.draw_prefix(text)) - 1
        hidden = backend.model.model(input_ids=torch.tensor([row.input_ids])).last_hidden_state
        return torch.log_softmax(hidden[0, start : start + len(ids)] @ image_head.T, dim=-1)

    conditional, unconditional = scores(prompt), scores("")
    return guidance_scale * (conditional - unconditional) + unconditional


@torch.inference_mode()
@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
def test_greedy_sampling_follows_the_uncached_distribution(sharp_backend: IllumeBackend, guidance_scale: float) -> None:
    """Each drawn id is the most probable one of a full forward pass: cache and batched guidance change nothing."""
    drawn = sharp_backend.sample(PROMPTS, [0, 1, 2], Sampling(guidance_scale, temperature=1e-9))
    for prompt, ids in zip(PROMPTS, drawn, strict=True):
        best = teacher_forced(sharp_backend, prompt, ids, guidance_scale).argmax(dim=-1)
        assert np.array_equal(best.numpy(), ids)


def test_sampled_ids_are_distributed_as_the_model_says(sharp_backend: IllumeBackend) -> None:
    """The first id's frequencies over many seeds match the model's probabilities (chi-squared)."""
    with torch.inference_mode():
        prefix = torch.tensor([sharp_backend.sequences.draw_prefix("a red circle")])
        head = sharp_backend.model.lm_head.weight[sharp_backend.model.config.num_text_ids :]
        probabilities = torch.softmax(sharp_backend.model.model(input_ids=prefix).last_hidden_state[0, -1] @ head.T, -1)
    count = 2000
    drawn = sharp_backend.sample(["a red circle"] * count, list(range(count)), Sampling())[:, 0]
    top = probabilities.topk(5)
    for probability, index in zip(top.values.tolist(), top.indices.tolist(), strict=True):
        seen = float((drawn == index).mean())
        assert abs(seen - probability) < 5 * (probability / count) ** 0.5, (index, seen, probability)


def test_a_row_draws_the_same_image_in_any_batch(sharp_backend: IllumeBackend) -> None:
    alone = [sharp_backend.sample([prompt], [seed], Sampling(1.5))[0] for seed, prompt in enumerate(PROMPTS)]
    together = sharp_backend.sample(PROMPTS, [0, 1, 2], Sampling(1.5))
    turned = sharp_backend.sample(PROMPTS[::-1], [2, 1, 0], Sampling(1.5))[::-1]
    assert np.array_equal(np.stack(alone), together)
    assert np.array_equal(together, turned)


def test_top_k_one_is_greedy(sharp_backend: IllumeBackend) -> None:
    greedy = sharp_backend.sample(PROMPTS, [0, 1, 2], Sampling(1.0, temperature=1e-9))
    assert np.array_equal(sharp_backend.sample(PROMPTS, [3, 4, 5], Sampling(1.0, top_k=1)), greedy)


@torch.inference_mode()
def test_log_likelihood_is_the_sum_over_caption_tokens(sharp_backend: IllumeBackend) -> None:
    image = Image.effect_noise((48, 48), 80).convert("RGB")
    texts = ["a red circle", "an image with three blue squares"]
    row = sharp_backend.sequences.read(texts[1])
    hidden = sharp_backend.model.model(
        input_ids=torch.tensor([row.input_ids]), image_features=sharp_backend.features([image])
    ).last_hidden_state
    text_logits = hidden @ sharp_backend.model.lm_head.weight[: sharp_backend.model.config.num_text_ids].T
    start = len(sharp_backend.sequences.read_prefix()) - 1
    expected = log_probs_of(text_logits[:, start:-1], torch.tensor([row.input_ids[start + 1 :]])).sum()
    assert sharp_backend.log_likelihood([image, image], texts)[1] == pytest.approx(float(expected), abs=1e-4)


def test_reading_depends_on_the_pixels(sharp_backend: IllumeBackend) -> None:
    images = [Image.new("RGB", (48, 48), color) for color in ("red", "blue")]
    first, second = sharp_backend.log_likelihood(images, ["a red circle"] * 2)
    assert abs(first - second) > 1e-3


@torch.inference_mode()
def test_the_prior_is_the_sum_over_the_words_alone(sharp_backend: IllumeBackend) -> None:
    texts = ["a red circle", "an image with three blue squares"]
    ids = torch.tensor([sharp_backend.sequences.tell(texts[1]).input_ids])
    hidden = sharp_backend.model.model(input_ids=ids).last_hidden_state
    text_logits = hidden @ sharp_backend.model.lm_head.weight[: sharp_backend.model.config.num_text_ids].T
    expected = log_probs_of(text_logits[:, :-1], ids[:, 1:]).sum()
    assert sharp_backend.log_prior(texts)[1] == pytest.approx(float(expected), abs=1e-4)


@torch.inference_mode()
def test_shared_prefixes_change_no_answer(sharp_backend: IllumeBackend) -> None:
    images = [Image.effect_noise((48, 48), 80).convert("RGB") for _ in range(3)]
    asked = [["is there a circle ?", "are there three blue squares ?"], [], ["is the ring left of the cross ?"]]
    found = sharp_backend.yes_no_log_odds(images, asked)
    assert [len(log_odds) for log_odds in found] == [2, 0, 1]
    words = sharp_backend.sequences.words
    for image, questions, log_odds in zip(images, asked, found, strict=True):
        for question, value in zip(questions, log_odds, strict=True):
            ids = torch.tensor([sharp_backend.sequences.read_prefix() + words(question)])
            hidden = sharp_backend.model.model(input_ids=ids, image_features=sharp_backend.features([image]))
            log_probs = torch.log_softmax(hidden.last_hidden_state[0, -1] @ sharp_backend.model.lm_head.weight.T, -1)
            expected = log_probs[words("yes")[0]] - log_probs[words("no")[0]]
            assert value == pytest.approx(float(expected), abs=1e-3)


def test_a_base_without_the_words_answers_no_questions(tiny_recipe: Recipe) -> None:
    model = Pretraining(tiny_recipe, Path("unused"), lambda *_: None).model
    backend = IllumeBackend(model, build_processor(["is", "it"], 48), "cpu")
    with pytest.raises(UsageError, match="no word 'yes'"):
        backend.yes_no_log_odds([Image.new("RGB", (48, 48))], [["is it ?"]])


def test_writing_stops_and_stays_in_the_text_vocabulary(sharp_backend: IllumeBackend) -> None:
    for text in sharp_backend.instruct([Image.new("RGB", (48, 48))] * 2, ["", ""], max_tokens=20):
        assert "<" not in text


def test_answers_are_the_same_in_any_batch_and_begin_as_they_must(sharp_backend: IllumeBackend) -> None:
    images = [Image.effect_noise((48, 48), 80).convert("RGB") for _ in range(2)]
    instructions, forced = ["assess a red circle :", "is it ?"], ['{"object":{"verdict":"no","', ""]
    for temperature, seeds in ((0.0, [0, 0]), (1.0, [5, 6])):
        answer = partial(sharp_backend.instruct, temperature=temperature, max_tokens=12)
        together = answer(images, instructions, forced=forced, seeds=seeds)
        for i in range(2):
            assert [together[i]] == answer([images[i]], [instructions[i]], forced=[forced[i]], seeds=[seeds[i]])
        assert together[0].startswith('{" object ":{" verdict ":" no ","')


def test_text_alone_is_answered_too(sharp_backend: IllumeBackend) -> None:
    first, second = sharp_backend.instruct(None, ["what to ask about a circle ?", "what to ask about two blue rings ?"])
    assert first != second


def test_an_edit_is_the_same_in_any_batch_and_depends_on_the_image(sharp_backend: IllumeBackend) -> None:
    images = [Image.effect_noise((48, 48), 80).convert("RGB") for _ in range(2)]
    texts = ["make the red circle blue", "make the blue ring a square"]
    together = sharp_backend.edit(images, texts, [1, 2], Sampling(1.5))
    alone = [sharp_backend.edit([images[i]], [texts[i]], [i + 1], Sampling(1.5))[0] for i in range(2)]
    assert np.array_equal(together, np.stack(alone))
    assert not np.array_equal(sharp_backend.edit(images[::-1], texts, [1, 2], Sampling(1.5)), together)


def test_placeholders_without_features_are_refused(sharp_backend: IllumeBackend) -> None:
    ids = torch.tensor([sharp_backend.sequences.read_prefix()])
    with pytest.raises(ValueError, match="36 image placeholders but 0 image features"):
        sharp_backend.model(input_ids=ids)


def test_checkpoints_come_back_through_the_auto_classes(sharp_backend: IllumeBackend, tmp_path: Path) -> None:
    sharp_backend.save(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), IllumeConfig)
    assert isinstance(AutoProcessor.from_pretrained(tmp_path), IllumeProcessor)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(model, IllumeForConditionalGeneration)
    for name, tensor in sharp_backend.model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    again = load_model(tmp_path)
    assert np.array_equal(
        again.sample(PROMPTS, [0, 1, 2], Sampling()), sharp_backend.sample(PROMPTS, [0, 1, 2], Sampling())
    )


def test_a_damaged_checkpoint_is_named(sharp_backend: IllumeBackend, tmp_path: Path) -> None:
    sharp_backend.save(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CorruptArtifactError, match=str(tmp_path)):
        load_model(tmp_path)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no checkpoint"):
        load_model(tmp_path / "nothing")
