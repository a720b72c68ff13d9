"""Putting parts together: sizes, what is refused and in which words, and a folder that is there whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, BertConfig, BertLMHeadModel, Gemma2Config

from illume_loop.cli import model as command
from illume_loop.errors import FolderInUseError, NotFoundError, PartError, UsageError
from illume_loop.models.illume.composing import compose, compose_random, write
from illume_loop.models.illume.sizes import SIZES, Choices, Size, named_size
from illume_loop.models.registry import load_model
from illume_loop.protocols import Sampling
from tests.support.hub import hub
from tests.support.tiny_parts import SIZES as WIDTHS
from tests.support.tiny_parts import VISION, save_llama, save_qwen, save_siglip

Captured = pytest.CaptureFixture[str]
SMALL = Choices(codebook_size=64, code_dim=8, quantizer_layers=1, detokenizer_width=16)
NUM_PARAMETERS = {"illume-7b": (6_607_343_616, 630_766_080), "illume-0.5b": (494_032_768, 92_930_304)}
"""Of the published language models without their heads, and of the vision encoders."""


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("parts") / "llama")


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_siglip(tmp_path_factory.mktemp("parts") / "siglip")


def test_the_command_builds_tells_and_never_overwrites(
    llama: Path, siglip: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "deep" / "base"
    command.init(out, str(llama), str(siglip), codebook_size=64, code_dim=8, seed=7, as_json=True)
    printed = capsys.readouterr()
    told = json.loads(printed.out)
    assert told == json.loads((out / "parts.json").read_text())
    assert (told["llm"], told["vision"], told["seed"]) == (str(llama), str(siglip), 7)
    assert (told["patches"], told["tokens_per_image"], told["image_size"]) == (16, 16, 32)
    assert told["codebook"] == "64 x 8, l2, simvq"
    loaded = load_model(out)
    assert sum(told["parameters"].values()) == sum(p.numel() for p in loaded.model.parameters())  # type: ignore[attr-defined]
    assert loaded.sample(["a ring"], [1], Sampling()).shape == (1, 16)
    assert f"illume-loop model tokenizer {out} PICTURES" in printed.err
    assert [path.name for path in out.parent.iterdir()] == ["base"]
    with pytest.raises(FolderInUseError, match=r"is there and not empty; name another directory with -o") as refused:
        command.init(out, str(llama), str(siglip))
    assert refused.value.exit_code == 4


def test_the_same_parts_and_seed_give_the_same_model(llama: Path, siglip: Path) -> None:
    first, again, other = (compose(str(llama), str(siglip), SMALL, seed=seed).model.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    differ = {name for name in first if not torch.equal(first[name], other[name])}
    assert {"lm_head.weight", "model.vision.quantizer.codebook", "model.adapter.0.weight"} <= differ
    assert not any(".layers." in name and "language_model" in name for name in differ)


def test_half_precision_is_kept_but_for_what_positions_are_made_of(llama: Path, siglip: Path) -> None:
    model = compose(str(llama), str(siglip), SMALL, dtype="bfloat16").model
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.bfloat16}
    assert model.model.language_model.rotary_emb.inv_freq.dtype == torch.float32
    assert model.config.dtype == torch.bfloat16


def test_a_folder_that_could_not_be_finished_is_not_there(llama: Path, siglip: Path, tmp_path: Path) -> None:
    made = compose(str(llama), str(siglip), SMALL)
    with pytest.raises(TypeError, match="not JSON serializable"):
        write(made, tmp_path / "base", {"what": object()})
    assert not any(tmp_path.iterdir())
    (tmp_path / "base").mkdir()
    write(made, tmp_path / "base", {})
    assert (tmp_path / "base" / "model.safetensors").is_file()


def test_parts_are_fetched_by_their_hub_ids(
    llama: Path, siglip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with hub("some-lab/llama", llama) as (url, asked):
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
        made = compose("some-lab/llama", str(siglip), SMALL)
        with pytest.raises(NotFoundError, match="no folder or model on the hub 'some-lab/siglip'"):
            compose("some-lab/llama", "some-lab/siglip", SMALL)
    assert {"model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(asked)
    assert made.summary()["llm"] == "some-lab/llama"


def _changed(source: Path, target: Path, change: Callable[[Path], object]) -> str:
    shutil.copytree(source, target)
    change(target)
    return str(target)


def _without_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def _with_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "ours", "auto_map": {"AutoConfig": "ours.Config", "AutoModelForCausalLM": "ours.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "ours.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")


def _as_bert(folder: Path) -> None:
    sizes = {name: size for name, size in WIDTHS.items() if name != "num_key_value_heads"}
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    BertLMHeadModel(BertConfig(**sizes, vocab_size=vocabulary)).save_pretrained(folder)


def _as_gemma(folder: Path) -> None:
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    config = Gemma2Config(**WIDTHS, vocab_size=vocabulary, head_dim=16, final_logit_softcapping=0.05)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


LANGUAGE: list[tuple[Callable[[Path], object], str]] = [
    (_pickled, "no weights as safetensors, and pickles are never read"),
    (_without_a_weight, "1 of its weights are missing, the first of them model.layers.1.mlp.down_proj.weight"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b"short"), "its weights cannot be read"),
    (lambda folder: (folder / "tokenizer.json").unlink(), "it has no tokenizer; put its tokenizer.json"),
    (lambda folder: (folder / "tokenizer.json").write_text("{}"), "its tokenizer cannot be read"),
    (_with_code, "no such architecture, and code of a checkpoint is never run"),
    (_as_bert, "it looks ahead, so it is no causal language model"),
    (_as_gemma, "more than its hidden states times its head"),
]


@pytest.mark.parametrize(("change", "reason"), LANGUAGE, ids=[reason[:24] for _, reason in LANGUAGE])
def test_a_language_model_that_cannot_be_used_is_refused_in_a_sentence(
    llama: Path, siglip: Path, tmp_path: Path, change: Callable[[Path], object], reason: str
) -> None:
    name = _changed(llama, tmp_path / "changed", change)
    with pytest.raises(PartError) as refused:
        compose(name, str(siglip), SMALL)
    sentence = str(refused.value)
    assert reason in sentence
    assert sentence.startswith(f"Cannot build a model from {name}: ")
    assert "\n" not in sentence
    assert refused.value.exit_code == 2
    assert not (tmp_path / "changed" / "ran").exists()


def test_parts_of_the_wrong_kind_are_told_apart(llama: Path, siglip: Path, tmp_path: Path) -> None:
    with pytest.raises(PartError, match="'siglip' is no causal language model of text alone; give --llm one"):
        compose(str(siglip), str(siglip), SMALL)
    with pytest.raises(PartError, match="'llama' is no vision encoder with square patches; give --vision one"):
        compose(str(llama), str(llama), SMALL)
    with pytest.raises(NotFoundError, match="no vision encoder"):
        compose(str(llama), str(tmp_path / "nothing"), SMALL)
    unnormalised = _changed(siglip, tmp_path / "siglip", lambda folder: (folder / "preprocessor_config.json").unlink())
    with pytest.raises(PartError, match=r"no preprocessor_config\.json"):
        compose(str(llama), unnormalised, SMALL)


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        (replace(SMALL, tokens_per_image=15), "15 ids make no square image"),
        (replace(SMALL, tokens_per_image=25), "25 ids need 5 x 5 patches, but 32 pixels are 4 x 4; raise --image-size"),
        (replace(SMALL, image_size=4), "it does not read images of 4 pixels"),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(llama: Path, siglip: Path, choices: Choices, reason: str) -> None:
    with pytest.raises(PartError, match=reason):
        compose(str(llama), str(siglip), choices)


@pytest.mark.parametrize("name", SIZES)
def test_shipped_sizes_are_those_of_the_parts_that_they_name(name: str) -> None:
    size = named_size(name)
    with torch.device("meta"):
        made = [AutoModel.from_config(AutoConfig.for_model(**c)) for c in (size.text_config, size.vision_config)]
    assert tuple(sum(p.numel() for p in part.parameters()) for part in made) == NUM_PARAMETERS[name]
    assert (size.choices.codebook_size, size.choices.tokens_per_image) == (16_384, 256)


def test_a_size_is_built_of_random_weights(tmp_path: Path) -> None:
    text = {**WIDTHS, "model_type": "qwen2", "vocab_size": 700, "tie_word_embeddings": True, "dtype": "bfloat16"}
    vision = {**VISION, "model_type": "siglip_vision_model", "image_size": 64, "patch_size": 16}
    made = compose_random(Size("", "", text, vision, SMALL), SMALL, dtype="float32")
    assert made.model.config.num_text_ids == 704
    write(made, tmp_path / "random", {})
    loaded = load_model(tmp_path / "random")
    images = loaded.decode(loaded.sample(["any words at all"], [1], Sampling()))
    assert images[0].size == (64, 64)
    assert loaded.yes_no_log_odds(images, [["is it so?"]])[0].shape == (1,)


def test_what_is_asked_for_has_to_make_sense(tmp_path: Path) -> None:
    out = tmp_path / "base"
    with pytest.raises(UsageError, match="--random needs --size, and takes neither"):
        command.init(out, random=True)
    with pytest.raises(UsageError, match="give --llm and --vision, or --size"):
        command.init(out, llm="some-lab/llama")
    with pytest.raises(NotFoundError, match="no size 'illume-9b'"):
        command.init(out, size="illume-9b")
    assert not out.exists()


def test_a_size_gives_what_is_not_asked_for(tmp_path: Path, siglip: Path) -> None:
    """The vision encoder is too small for the size's 256 ids, which is how one sees that they were taken."""
    qwen = save_qwen(tmp_path / "qwen")
    with pytest.raises(PartError, match="256 ids need 16 x 16 patches, but 32 pixels are 4 x 4"):
        command.init(tmp_path / "base", str(qwen), str(siglip), size="illume-0.5b", image_size=32)
