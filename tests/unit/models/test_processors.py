"""Images are prepared by Pillow's processors, also where torchvision's could be had."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoImageProcessor
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.auto import image_processing_auto as auto

from illume_loop.errors import PartError, UsageError
from illume_loop.models.illume.parts import load_vision
from illume_loop.models.processors import pillow_processor
from illume_loop.models.registry import load_model
from illume_loop.models.shipped import shipped_base
from tests.support.tiny_janus import save_tiny_janus
from tests.support.tiny_parts import save_siglip

KINDS = ("SiglipImageProcessor", "JanusImageProcessor")


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let transformers believe that torchvision is there, with an image processor of each kind that is not Pillow's."""
    monkeypatch.setattr(auto, "is_torchvision_available", lambda: True)
    for name in KINDS:
        mapping = auto._find_mapping_for_image_processor(name)
        assert mapping is not None
        monkeypatch.setitem(mapping, "torchvision", type(name, (BaseImageProcessor,), {}))


CHECKPOINTS: dict[str, Callable[[Path], Path]] = {
    "illume": lambda _: shipped_base(),
    "janus": save_tiny_janus,
}


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_backends_prepare_images_with_pillow_though_torchvision_is_there(kind: str, tmp_path: Path) -> None:
    folder = CHECKPOINTS[kind](tmp_path)
    assert not isinstance(AutoImageProcessor.from_pretrained(folder), PilBackend), "the trap is set"
    backend = load_model(folder)
    assert isinstance(backend.processor.image_processor, PilBackend)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("torchvision")
def test_what_a_backend_saves_is_read_alike(tmp_path: Path) -> None:
    backend = load_model(save_tiny_janus(tmp_path / "first"))
    backend.save(tmp_path / "second")  # type: ignore[attr-defined]
    again = load_model(tmp_path / "second")
    assert again.processor.image_processor.to_dict() == backend.processor.image_processor.to_dict()  # type: ignore[attr-defined]
    config = json.loads((tmp_path / "second" / "tokenizer_config.json").read_text())
    assert config["backend"] == "tokenizers", "the word for the image processor has not reached the tokenizer"


@pytest.mark.usefixtures("torchvision")
def test_parts_prepare_images_with_pillow(tmp_path: Path) -> None:
    assert load_vision(str(save_siglip(tmp_path))).pixels["image_mean"] == (0.5, 0.5, 0.5)


def test_a_checkpoint_without_a_pillow_processor_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers would fall back to torchvision's with a warning."""
    mapping = auto._find_mapping_for_image_processor("SiglipImageProcessor")
    assert mapping is not None
    monkeypatch.setitem(mapping, "torchvision", type("SiglipImageProcessor", (BaseImageProcessor,), {}))
    monkeypatch.setitem(mapping, "pil", None)
    with pytest.raises(UsageError, match=r"no Pillow image processor for .*, only SiglipImageProcessor; use a checkp"):
        pillow_processor(shipped_base())
    with pytest.raises(PartError, match="no preprocessor_config"):
        load_vision(str(save_siglip(tmp_path)))
