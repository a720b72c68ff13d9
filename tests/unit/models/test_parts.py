"""Models built of published layouts: text stays what it was, features are the encoder's, and what is new learns."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from illume_loop.engine.llama import can_step
from illume_loop.errors import UsageError
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.models.illume.composing import compose, write
from illume_loop.models.illume.sizes import Choices
from illume_loop.models.registry import load_model
from illume_loop.models.sequences import spellings
from illume_loop.pretrain.stepper import ParameterGroup, train_stage
from illume_loop.pretrain.vision_rows import VisionRowsOnly
from illume_loop.protocols import NO, YES, Sampling
from tests.support.tiny_parts import PADDING, save_clip, save_dinov2, save_llama, save_qwen, save_siglip

OTHERS = {"siglip": 0, "clip": 1, "dinov2": 5}
"""Class and register tokens that stand before the patches."""
SMALL = {"codebook_size": 64, "code_dim": 8, "quantizer_layers": 1, "detokenizer_width": 16}
PAIRS: list[tuple[str, str, dict[str, Any]]] = [
    ("llama", "siglip", {}),
    ("qwen", "siglip", {"code_distance": "cosine"}),
    ("qwen", "clip", {"tokens_per_image": 16, "codebook_update": "ema"}),
    ("llama", "dinov2", {"image_size": 28, "code_distance": "cosine", "codebook_update": "ema"}),
]
TEXTS = ["a red circle", "two blue squares above a ring"]
QUESTIONS = ["is there a red circle?", "are there two rings?"]


@dataclass(frozen=True)
class Built:
    """A model that was built, written and loaded, and the parts that it was built of."""

    llm: Path
    vision: Path
    kind: str
    backend: IllumeBackend

    @property
    def num_inherited(self) -> int:
        return len(AutoTokenizer.from_pretrained(self.llm))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("parts")
    saved = {"llama": save_llama, "qwen": save_qwen, "siglip": save_siglip, "clip": save_clip, "dinov2": save_dinov2}
    return {name: save(folder / name) for name, save in saved.items()}


@pytest.fixture(scope="module", params=PAIRS, ids=[f"{llm}-{vision}" for llm, vision, _ in PAIRS])
def built(request: pytest.FixtureRequest, parts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Built:
    llm, vision, chosen = request.param
    out = tmp_path_factory.mktemp("built") / "model"
    write(compose(str(parts[llm]), str(parts[vision]), Choices(**SMALL, **chosen)), out, {})
    backend = load_model(out)
    assert isinstance(backend, IllumeBackend)
    return Built(parts[llm], parts[vision], vision, backend)


@pytest.fixture(scope="module")
def sharp(built: Built) -> Iterator[IllumeBackend]:
    """The same model with image ids that are far from equally probable."""
    model, first = built.backend.model, built.backend.model.config.num_text_ids
    tables = [model.get_input_embeddings().weight, model.lm_head.weight]
    before = [table.detach().clone() for table in tables]
    torch.manual_seed(1)
    with torch.no_grad():
        for table in tables:
            table[first:] = 0.3 * torch.randn_like(table[first:])
    yield built.backend
    with torch.no_grad():
        for table, rows in zip(tables, before, strict=True):
            table.copy_(rows)


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(3)
    return [Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)) for side in (48, 33)]


@torch.inference_mode()
def test_text_keeps_its_ids_its_rows_and_its_logits(built: Built) -> None:
    published = AutoModelForCausalLM.from_pretrained(built.llm).eval()
    model, kept = built.backend.model, built.num_inherited
    tokenizer = AutoTokenizer.from_pretrained(built.llm)
    theirs = published.get_input_embeddings().weight, published.get_output_embeddings().weight
    ours = model.get_input_embeddings().weight, model.lm_head.weight
    for old, new in zip(theirs, ours, strict=True):
        assert torch.equal(old[:kept], new[:kept])
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert built.backend.sequences.words(text) == ids
        logits = published(torch.tensor([ids])).logits[..., :kept]
        assert torch.equal(model(torch.tensor([ids])).logits[..., :kept], logits)
    assert not model.config.tie_word_embeddings
    assert ours[0].data_ptr() != ours[1].data_ptr()


def test_new_ids_stand_behind_those_of_text_and_differ(built: Built) -> None:
    config, tokenizer, kept = built.backend.model.config, built.backend.tokenizer, built.num_inherited
    old_rows = kept + (PADDING if built.llm.name == "qwen" else 0)
    special = [config.begin_image_token_id, config.end_image_token_id, config.image_placeholder_token_id]
    assert special == tokenizer.convert_tokens_to_ids(["<boi>", "<eoi>", "<img>"])
    assert min(special) >= kept == config.num_inherited_ids
    assert max(len(tokenizer), old_rows) <= config.num_text_ids < max(len(tokenizer), old_rows) + 64
    assert config.text_config.vocab_size == config.num_text_ids + 64
    for table in (built.backend.model.get_input_embeddings().weight, built.backend.model.lm_head.weight):
        assert len(table) == config.text_config.vocab_size
        old, new = table.detach()[:kept], table.detach()[kept:]
        assert len(new.unique(dim=0)) == len(new)
        assert float((new - old.mean(0)).std() / (old - old.mean(0)).std()) == pytest.approx(0.1, rel=0.1)


@torch.inference_mode()
def test_the_product_that_trl_takes_is_the_logits(built: Built, images: list[Image.Image]) -> None:
    backend = built.backend
    rows = [backend.sequences.read("a circle", "is it?"), backend.sequences.draw("a ring", range(16))]
    batch = backend.sequences.collate(rows)
    batch["image_features"] = backend.features(images[:1])
    logits = backend.model(**batch).logits
    labels = batch.pop("labels")
    hidden = backend.model.base_model(**batch).last_hidden_state
    product = hidden @ backend.model.get_output_embeddings().weight.T
    assert torch.allclose(product, logits, atol=1e-5)
    assert int(labels.max()) < logits.shape[-1]


@torch.inference_mode()
def test_features_are_those_of_the_encoders_patches(built: Built, images: list[Image.Image]) -> None:
    """Compared with the encoder as transformers loads it, pixels and pooling by hand."""
    whole = AutoModel.from_pretrained(built.vision).eval()
    encoder = getattr(whole, "vision_model", whole)
    config = built.backend.model.config
    shown = images[0].resize((config.image_size,) * 2, Image.Resampling.BICUBIC)
    mean, std = {
        "siglip": ([0.5] * 3, [0.5] * 3),
        "clip": ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
        "dinov2": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    }[built.kind]
    pixels = (torch.from_numpy(np.asarray(shown) / 255) - torch.tensor(mean)) / torch.tensor(std)
    tokens = encoder(pixels.permute(2, 0, 1)[None].float()).last_hidden_state[0, OTHERS[built.kind] :]
    expected = F.layer_norm(_averaged(tokens, config.grid), tokens.shape[-1:])
    found = built.backend.features(images[:1])[0]
    assert torch.allclose(found, expected, atol=1e-3 if built.kind == "dinov2" else 1e-4)
    assert found.shape == (config.tokens_per_image, config.vision_config.hidden_size) == (16, 32)


def _averaged(tokens: Tensor, grid: int) -> Tensor:
    """Each of grid x grid windows, which cover all patches: from the floor of where it begins to the ceiling."""
    side = round(len(tokens) ** 0.5)
    planes = tokens.view(side, side, -1)
    spans = [range(i * side // grid, -(-(i + 1) * side // grid)) for i in range(grid)]
    return torch.stack([planes[list(a)][:, list(b)].mean((0, 1)) for a, b in itertools.product(spans, spans)])


def test_the_first_stage_moves_the_adapter_and_new_rows_alone(
    built: Built, images: list[Image.Image], tmp_path: Path
) -> None:
    """One step; then the trained model is saved and comes back as it is."""
    built.backend.save(tmp_path / "base")
    trained = load_model(tmp_path / "base")
    assert isinstance(trained, IllumeBackend)
    model, sequences, kept = trained.model, trained.sequences, built.num_inherited
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.requires_grad_(True)
    model.freeze_vision()
    rows = VisionRowsOnly(model)
    ids = trained.encode(images)
    batch = sequences.collate([sequences.read(TEXTS[0]), sequences.draw(TEXTS[1], ids[1].tolist())])
    batch["image_features"] = trained.features(images[:1]).clone()
    groups = [ParameterGroup(list(model.model.adapter.parameters()), 1e-3), ParameterGroup(rows.tables, 2e-4, 0.1)]
    train_stage(
        "stage1",
        model,
        groups,
        lambda _: model(**batch, use_cache=False).loss,
        2,
        tmp_path / "stage1.safetensors",
        lambda *_: None,
        rows.restore,
    )
    for name, after in model.state_dict().items():
        if name.endswith(("embed_tokens.weight", "lm_head.weight")):
            assert torch.equal(after[:kept], before[name][:kept]), f"text rows of {name} moved"
            moved = (after[kept:] != before[name][kept:]).any(1)
            assert bool(moved[model.config.begin_image_token_id - kept])
            assert bool(moved[-model.config.codebook_size :].all())
        else:
            assert torch.equal(after, before[name]) != ("adapter" in name), name
    trained.save(tmp_path / "trained")
    again = load_model(tmp_path / "trained")
    assert isinstance(again, IllumeBackend)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name
    drawn = trained.sample(TEXTS, [1, 2], Sampling(2.0))
    assert np.array_equal(again.sample(TEXTS, [1, 2], Sampling(2.0)), drawn)
    assert [image.tobytes() for image in again.decode(drawn)] == [image.tobytes() for image in trained.decode(drawn)]


@torch.inference_mode()
def test_drawing_is_what_the_models_own_forward_says(sharp: IllumeBackend) -> None:
    """Greedily, id by id, without a cache; and the engine takes both decoders."""
    assert can_step(sharp.language.body)
    drawn = sharp.sample(TEXTS, [0, 1], Sampling(2.0, 0.0))
    first = sharp.model.config.num_text_ids
    for text, ids in zip(TEXTS, drawn, strict=True):
        logits = []
        for prompt in (text, ""):
            row = sharp.sequences.draw(prompt, ids.tolist())
            start = len(sharp.sequences.draw_prefix(prompt)) - 1
            forced = sharp.model(torch.tensor([row.input_ids])).logits[0, start : start + len(ids), first:]
            logits.append(forced)
        assert np.array_equal((2.0 * logits[0] - logits[1]).argmax(-1).numpy(), ids)
    assert len(np.unique(drawn)) > 4, "an image of few ids proves little"
    side = sharp.model.config.grid * sharp.model.config.pixels_per_token
    assert {image.size for image in sharp.decode(drawn)} == {(side, side)}


@torch.inference_mode()
def test_questions_are_answered_as_the_models_own_forward_does(sharp: IllumeBackend, images: list[Image.Image]) -> None:
    found = sharp.yes_no_log_odds(images, [QUESTIONS] * 2)
    ids = {word: spellings(sharp.tokenizer, word) for word in (YES, NO)}
    assert all(1 <= len(spelled) <= 4 for spelled in ids.values())
    for image, of_image in zip(images, found, strict=True):
        for question, value in zip(QUESTIONS, of_image, strict=True):
            asked = torch.tensor([sharp.sequences.read_prefix() + sharp.sequences.words(question)])
            logits = sharp.model(asked, image_features=sharp.features([image])).logits[0, -1]
            expected = logits[ids[YES]].logsumexp(0) - logits[ids[NO]].logsumexp(0)
            assert value == pytest.approx(float(expected), abs=1e-3)
    told = sharp.log_likelihood(images, TEXTS)
    row = sharp.sequences.read(TEXTS[1])
    loss = sharp.model(
        torch.tensor([row.input_ids]),
        image_features=sharp.features(images[1:]),
        labels=torch.tensor([row.labels]),
    ).logits[0]
    start = len(sharp.sequences.read_prefix())
    log_probs = loss[start - 1 : -1, : sharp.model.config.num_text_ids].log_softmax(-1)
    expected = sum(float(log_probs[i, of]) for i, of in enumerate(row.input_ids[start:]))
    assert told[1] == pytest.approx(expected, abs=1e-3)
    assert sharp.log_prior(TEXTS).shape == (2,)


def test_words_that_follow_words_stay_apart(built: Built, images: list[Image.Image]) -> None:
    sequences, tokenizer = built.backend.sequences, built.backend.tokenizer
    row = sequences.dialogue([(QUESTIONS[0], YES), (QUESTIONS[1], NO)])
    learned = [label for label in row.labels if label != -100]
    assert learned[0] in spellings(tokenizer, YES)
    assert learned[1] in spellings(tokenizer, NO)
    text = tokenizer.decode(row.input_ids[len(sequences.read_prefix()) :])
    assert text == f"{QUESTIONS[0]} {YES} {QUESTIONS[1]} {NO}"
    written = built.backend.instruct(images[:1], [QUESTIONS[0]], forced=["a red circle"], max_tokens=3)
    assert written[0].startswith("a red circle")


def test_text_that_would_be_an_image_is_refused(built: Built) -> None:
    with pytest.raises(UsageError, match="'<img>' stands for an image to the model; leave it out of 'a <img>'"):
        built.backend.sample(["a <img>"], [0], Sampling())
