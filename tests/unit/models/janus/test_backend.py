"""The backend janus: it draws and reads what transformers' own classes would, id by id and nat by nat."""

from __future__ import annotations

import json
import pickle
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import JanusForConditionalGeneration, JanusProcessor

from illume_loop.errors import CorruptArtifactError, NotFoundError, UsageError
from illume_loop.models.janus.backend import BRIEFLY, JanusBackend
from illume_loop.models.janus.sequences import CAPTION
from illume_loop.models.registry import load_model
from illume_loop.models.sequences import spellings
from illume_loop.protocols import Sampling
from tests.support.tiny_janus import CODES, IMAGE_SIZE, TOKENS
from tests.unit.models.janus.reference import Reference

PROMPTS = ["a red circle", "an image with three blue squares above a ring", "a cross"]
SEEDS = [3, 4, 5]


@pytest.fixture(scope="module")
def backend(folder: Path) -> JanusBackend:
    return JanusBackend.load(folder, "cpu")


@pytest.fixture(scope="module")
def reference(published: JanusForConditionalGeneration, processor: JanusProcessor) -> Reference:
    return Reference(published, processor)


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
def test_greedy_drawing_is_that_of_transformers_id_by_id(
    backend: JanusBackend, published: JanusForConditionalGeneration, processor: JanusProcessor, guidance_scale: float
) -> None:
    """Prompts of different lengths, which transformers pads on the left. It crashes at 1, so a hair above stands in."""
    turns = [[{"role": "user", "content": [{"type": "text", "text": prompt}]}] for prompt in PROMPTS]
    texts = [processor.apply_chat_template(turn, add_generation_prompt=True) for turn in turns]
    prepared = processor(text=texts, generation_mode="image", padding=True, return_tensors="pt")
    theirs = published.generate(
        **prepared, generation_mode="image", do_sample=False, guidance_scale=max(guidance_scale, 1 + 1e-6)
    )
    ours = backend.sample(PROMPTS, SEEDS, Sampling(guidance_scale, temperature=1e-9))
    assert np.array_equal(ours, theirs.numpy())
    assert len(np.unique(ours)) > 3, "an image of one id proves nothing"


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_teacher_forced_log_probabilities_are_those_at_sampling_time(
    backend: JanusBackend, reference: Reference, monkeypatch: pytest.MonkeyPatch, guidance_scale: float
) -> None:
    at_sampling: list[torch.Tensor] = []
    head = backend.language.image_logits

    def recorded(hidden: torch.Tensor) -> torch.Tensor:
        at_sampling.append(head(hidden))
        return at_sampling[-1]

    monkeypatch.setattr(backend.language, "image_logits", recorded)
    ((rows, ids_BL),) = backend.draw_batches(PROMPTS, SEEDS, Sampling(guidance_scale))
    logits_LBK = torch.stack(at_sampling)
    log_probs_LBK = torch.log_softmax(logits_LBK.float(), dim=-1)[:, : len(PROMPTS)]
    drawn = torch.from_numpy(ids_BL).long()
    sampled = log_probs_LBK.gather(2, drawn.T.unsqueeze(-1)).squeeze(-1).T
    for row, (place, ids) in enumerate(zip(rows, ids_BL, strict=True)):
        prompt = PROMPTS[place]
        assert reference.image(prompt, ids) == pytest.approx(sampled[row].tolist(), abs=1e-4)
        sequence = backend.sequences.draw(prompt, ids.tolist())
        with torch.inference_mode():
            forced = torch.log_softmax(backend.model(torch.tensor([sequence.input_ids])).logits[0], dim=-1)
        places = range(len(sequence.labels) - TOKENS, len(sequence.labels))
        learned = [float(forced[place - 1, sequence.labels[place]]) for place in places]
        assert learned == pytest.approx(sampled[row].tolist(), abs=1e-4)
    assert float(sampled.mean()) > -np.log(CODES) + 1, "near-uniform logits prove nothing"


def test_guidance_of_logits_and_of_log_probabilities_is_the_same(backend: JanusBackend) -> None:
    """They differ by a number for each row, which no softmax sees."""
    torch.manual_seed(0)
    logits = 5 * torch.randn(2, 3, CODES)
    mixed = [torch.lerp(x[1], x[0], 5.0).softmax(-1) for x in (logits, logits.log_softmax(-1))]
    assert torch.allclose(*mixed, atol=1e-5)


def test_a_row_draws_the_same_image_in_any_batch_and_from_all_ids(backend: JanusBackend) -> None:
    together = backend.sample(PROMPTS, SEEDS, Sampling(2.0))
    alone = [backend.sample([prompt], [seed], Sampling(2.0))[0] for prompt, seed in zip(PROMPTS, SEEDS, strict=True)]
    assert np.array_equal(together, np.stack(alone))
    assert together.shape == (3, backend.tokens_per_image)
    with torch.inference_mode():
        prefix = torch.tensor([backend.sequences.draw_prefix(PROMPTS[0])])
        hidden = backend.model.model.language_model(prefix).last_hidden_state[0, -1]
        probabilities = backend.model.model.generation_head(hidden).softmax(-1)
    first = backend.sample(PROMPTS[:1] * 600, list(range(600)), Sampling())[:, 0]
    for index in probabilities.topk(4).indices.tolist():
        probability = float(probabilities[index])
        assert abs(float((first == index).mean()) - probability) < 5 * (probability / 600) ** 0.5


def test_pixels_are_those_of_transformers(
    backend: JanusBackend,
    published: JanusForConditionalGeneration,
    processor: JanusProcessor,
    images: list[Image.Image],
) -> None:
    ids = np.random.default_rng(2).integers(0, CODES, (2, TOKENS)).astype(np.int32)
    with torch.inference_mode():
        decoded = published.decode_image_tokens(torch.from_numpy(ids).long()).permute(0, 3, 1, 2)
    theirs = processor.postprocess(list(decoded.float()), return_tensors="PIL.Image.Image")["pixel_values"]
    ours = backend.decode(ids)
    for a, b in zip(ours, theirs, strict=True):
        assert a.size == (IMAGE_SIZE, IMAGE_SIZE)
        assert np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 1
    assert not np.array_equal(np.asarray(ours[0]), np.asarray(ours[1]))
    pixels = processor.image_processor(images, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        encoded = published.model.vqmodel.encode(pixels).image_tokens.view(len(images), TOKENS)
    assert np.array_equal(backend.encode(images), encoded.numpy())


def test_a_caption_is_as_likely_as_transformers_finds_it(
    backend: JanusBackend, reference: Reference, images: list[Image.Image]
) -> None:
    texts = ["two blue squares above a ring", "a circle", "no"]
    found = backend.log_likelihood(images, texts)
    eos = backend.sequences.eos
    for image, text, value in zip(images, texts, found, strict=True):
        expected = reference.written(reference.about(image, CAPTION), [*reference.answer(text), eos])
        assert value == pytest.approx(sum(expected), abs=1e-3)
    assert not np.allclose(backend.log_likelihood(images[::-1], texts), found, atol=0.05), "pixels do not matter"
    alone = reference.asked([{"type": "text", "text": CAPTION}], "text", None)
    expected = reference.written(alone, [*reference.answer(texts[0]), eos])
    assert backend.log_prior(texts)[0] == pytest.approx(sum(expected), abs=1e-3)


def test_questions_share_their_image_and_are_answered_as_alone(
    backend: JanusBackend, reference: Reference, images: list[Image.Image]
) -> None:
    asked = [["Is there a circle ?", "are there two blue squares ?"], [], ["Is the ring left of the cross ?"]]
    found = backend.yes_no_log_odds(images, asked)
    likelihood, beside = backend.read(images, ["a circle"] * 3, asked)
    assert likelihood == pytest.approx(backend.log_likelihood(images, ["a circle"] * 3), abs=1e-3)
    for word in ("yes", "no"):
        ids = backend.tokenizer.convert_tokens_to_ids([f"Ġ{word.capitalize()}", f"Ġ{word}"])
        assert set(ids) <= set(spellings(backend.tokenizer, word))
    for image, questions, log_odds, again in zip(images, asked, found, beside, strict=True):
        assert len(log_odds) == len(questions)
        assert again == pytest.approx(log_odds, abs=1e-3)
        for question, value in zip(questions, log_odds, strict=True):
            prefix = reference.about(image, f"{question} {BRIEFLY}")
            with torch.inference_mode():
                logits = reference.model(**prefix).logits[0, -1]
            of = lambda word: logits[spellings(backend.tokenizer, word)].logsumexp(0)  # noqa: B023, E731
            assert value == pytest.approx(float(of("yes") - of("no")), abs=1e-3)


def test_writing_is_that_of_transformers(
    backend: JanusBackend, reference: Reference, images: list[Image.Image]
) -> None:
    asked = ["assess a red circle", "Is there a ring ?"]
    written = backend.instruct(images[:2], asked, max_tokens=8)
    for image, question, ours in zip(images, asked, written, strict=False):
        prefix = reference.about(image, question)
        ids = reference.model.generate(**prefix, max_new_tokens=8, do_sample=False)[0, prefix["input_ids"].shape[1] :]
        theirs = backend.tokenizer.decode(ids, skip_special_tokens=True).removeprefix(" ")
        assert ours == theirs
    assert len(set(written)) == 2


def test_answers_are_the_same_in_any_batch_and_begin_as_they_must(
    backend: JanusBackend, images: list[Image.Image]
) -> None:
    asked, forced = ["assess a red circle", "Is there a ring ?"], ["yes, a circle", ""]
    for temperature, seeds in ((0.0, [0, 0]), (1.0, [5, 6])):
        answer = partial(backend.instruct, temperature=temperature, max_tokens=6)
        together = answer(images[:2], asked, forced=forced, seeds=seeds)
        alone = [answer([images[i]], [asked[i]], forced=[forced[i]], seeds=[seeds[i]])[0] for i in (0, 1)]
        assert together == alone
        assert together[0].startswith("yes, a circle")
    assert len(backend.instruct(None, asked, max_tokens=6)) == 2


def test_the_layout_in_which_checkpoints_were_first_published_is_read_alike(
    backend: JanusBackend, folder: Path, images: list[Image.Image], tmp_path: Path
) -> None:
    """The image processor in a file of its own, a tokenizer said to be Llama's, and no number of placeholders."""
    older = tmp_path / "older"
    shutil.copytree(folder, older)
    whole = json.loads((older / "processor_config.json").read_text())
    (older / "preprocessor_config.json").write_text(json.dumps(whole["image_processor"]))
    (older / "processor_config.json").write_text(
        '{"processor_class": "JanusProcessor", "use_default_system_prompt": true}'
    )
    named = json.loads((older / "tokenizer_config.json").read_text()) | {"tokenizer_class": "LlamaTokenizerFast"}
    (older / "tokenizer_config.json").write_text(json.dumps(named))
    again = JanusBackend.load(older, "cpu")
    assert again.processor.num_image_tokens == 576
    assert again.sequences.read_prefix("Is it ?") == backend.sequences.read_prefix("Is it ?")
    assert again.sequences.draw_prefix("a ring") == backend.sequences.draw_prefix("a ring")
    assert again.log_likelihood(images, PROMPTS) == pytest.approx(backend.log_likelihood(images, PROMPTS))


def test_what_janus_cannot_do_is_said_plainly(backend: JanusBackend, images: list[Image.Image]) -> None:
    with pytest.raises(UsageError, match="draws from text alone"):
        backend.edit(images[:1], ["make it blue"], [0], Sampling())
    with pytest.raises(UsageError, match="'<image_placeholder>' stands for an image"):
        backend.sample(["a <image_placeholder>"], [0], Sampling())


def test_the_authors_own_layout_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "multi_modality"}')
    with pytest.raises(UsageError, match="deepseek-community/Janus-Pro-1B"):
        load_model(tmp_path)


class _Bomb:
    """Leaves a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def test_pickled_weights_and_code_beside_them_are_not_run(backend: JanusBackend, tmp_path: Path) -> None:
    folder, mark = tmp_path / "checkpoint", tmp_path / "exploded"
    backend.save(folder)
    code = f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
    (folder / "processing.py").write_text(code)
    config = (folder / "processor_config.json").read_text().rstrip().removesuffix("}")
    (folder / "processor_config.json").write_text(config + ', "auto_map": {"AutoProcessor": "processing.Processor"}}')
    assert load_model(folder).name == "janus"
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Bomb(mark)))
    with pytest.raises(CorruptArtifactError, match="safetensors"):
        load_model(folder)
    assert not mark.exists()


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no checkpoint"):
        load_model(tmp_path / "nothing")
