"""Pixels are the processor's own, bit by bit, whichever way they went."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image
from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from illume_loop.models.processors import pixels_of

SIZE = {"height": 24, "width": 24}


@pytest.mark.parametrize("make", [SiglipImageProcessorPil, JanusImageProcessorPil])
def test_pixels_are_those_of_the_processor(make: Callable[..., Any]) -> None:
    processor = make(size=SIZE, image_mean=[0.5, 0.4, 0.3], image_std=[0.5, 0.25, 0.3])
    ours = [Image.effect_noise((24, 24), 50 + i).convert("RGB") for i in range(3)]
    calls = []

    class Counted:
        def __getattr__(self, name: str) -> Any:
            return getattr(processor, name)

        def __call__(self, *arguments: Any, **named: Any) -> Any:
            calls.append(arguments)
            return processor(*arguments, **named)

    for images in (ours, [*ours, Image.effect_noise((24, 30), 50).convert("RGB")]):
        expected = processor(images, return_tensors="pt")["pixel_values"]
        found = pixels_of(images, Counted(), torch.device("cpu"), torch.float32)
        assert torch.equal(found, expected)
    assert len(calls) == 1, "only what is of another size goes through the processor"
