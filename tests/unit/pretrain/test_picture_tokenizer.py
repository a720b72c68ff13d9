"""A model's tokenizer learns on a folder of pictures: only what it should move moves, and what was killed goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from illume_loop.cli import model as command
from illume_loop.errors import DataSourceError, TokenizerChangedError
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.models.illume.composing import compose_random, write
from illume_loop.models.illume.sizes import Choices, Size
from illume_loop.models.registry import load_model
from illume_loop.pretrain import stepper
from illume_loop.pretrain.picture_folder import PictureFolder
from illume_loop.pretrain.picture_tokenizer import Numbers, train_picture_tokenizer
from tests.support.tiny_parts import SIZES, VISION

CHOICES = Choices(codebook_size=32, code_dim=8, quantizer_layers=1, detokenizer_width=16)
NUMBERS = Numbers(steps=6, detokenizer_steps=6, batch=4, learning_rate=1e-3)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights in half precision, as published ones are."""
    text = {**SIZES, "model_type": "qwen2", "vocab_size": 300, "dtype": "bfloat16"}
    vision = {**VISION, "model_type": "siglip_vision_model", "image_size": 32, "patch_size": 8}
    folder = tmp_path_factory.mktemp("model") / "base"
    write(compose_random(Size("", "", text, vision), CHOICES), folder, {})
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain ones of several colours, shapes and formats, and one that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    for index, color in enumerate(["red", "lime", "blue", "white", "black", "orange"]):
        size = (40, 30 + 10 * index)
        Image.new("RGB", size, color).save(folder / f"{index}.{('png', 'jpg', 'webp')[index % 3]}")
    (folder / "broken.png").write_bytes(b"nothing")
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_the_tokenizer_alone_learns_and_says_what_it_came_to(
    base: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command.tokenizer(str(base), pictures, tmp_path, 6, 6, 4, 1e-3, 0, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["model"] == str(tmp_path / "model")
    assert 1 <= told["perplexity"] <= told["codes_used"] <= told["codes"] == 32
    assert told["ids"] == 8 * 4 * 16
    before, after = load_model(base), load_model(tmp_path / "model")
    assert isinstance(before, IllumeBackend)
    assert isinstance(after, IllumeBackend)
    theirs = before.model.state_dict()
    for name, tensor in after.model.state_dict().items():
        assert tensor.dtype == torch.float32, "what was learned is not rounded"
        learns = ".quantizer." in name or ".detokenizer." in name
        if not learns or name.endswith("codebook"):
            assert torch.equal(tensor, theirs[name].float()), f"{name} moved"
    moved = {name for name, tensor in after.model.state_dict().items() if not torch.equal(tensor, theirs[name].float())}
    assert {"model.vision.quantizer.code_map.weight", "model.vision.detokenizer.stem.weight"} <= moved


class Killed(Exception):
    """Stands for the end of the process."""


def test_what_was_killed_goes_on_to_the_same_weights(
    base: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stepper, "CHECKPOINT_EVERY", 2)
    whole = train_picture_tokenizer(str(base), pictures, tmp_path / "whole", NUMBERS, lambda *_: None, "cpu")
    at = PictureFolder.at

    def dies(self: PictureFolder, step: int, purpose: str = "") -> torch.Tensor:
        if (step, purpose) == (3, "detokenizer"):
            raise Killed
        return at(self, step, purpose)

    monkeypatch.setattr(PictureFolder, "at", dies)
    with pytest.raises(Killed):
        train_picture_tokenizer(str(base), pictures, tmp_path / "killed", NUMBERS, lambda *_: None, "cpu")
    monkeypatch.setattr(PictureFolder, "at", at)
    again = train_picture_tokenizer(str(base), pictures, tmp_path / "killed", NUMBERS, lambda *_: None, "cpu")
    assert (Path(whole.model) / "model.safetensors").read_bytes() == (
        Path(again.model) / "model.safetensors"
    ).read_bytes()
    assert (whole.similarity, whole.codes_used) == (again.similarity, again.codes_used)
    other = Numbers(steps=7, detokenizer_steps=6, batch=4, learning_rate=1e-3)
    with pytest.raises(TokenizerChangedError, match=r"trained otherwise \(steps\)"):
        train_picture_tokenizer(str(base), pictures, tmp_path / "killed", other, lambda *_: None, "cpu")


def test_pictures_follow_from_the_step_and_broken_ones_are_left_out(pictures: Path, tmp_path: Path) -> None:
    source = PictureFolder(pictures, 16, 24, seed=1)
    assert len(source.files) == 7
    first = source.at(3, "tokenizer")
    assert first.shape == (16, 3, 24, 24)
    assert torch.equal(first, PictureFolder(pictures, 16, 24, seed=1).at(3, "tokenizer"))
    assert not torch.equal(first, source.at(4, "tokenizer"))
    with pytest.raises(DataSourceError, match="it holds no pictures"):
        PictureFolder(tmp_path, 1, 24, seed=0)
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(DataSourceError, match=r"20 pictures one after the other cannot be read, such as a\.png"):
        PictureFolder(tmp_path, 1, 24, seed=0).at(0)
