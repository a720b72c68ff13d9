"""The diffusion detokenizer: pixels that follow from the ids alone, guidance as it is defined, sizes that fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, SiglipVisionConfig

from illume_loop.models.illume import IllumeConfig, IllumeForConditionalGeneration
from illume_loop.models.illume.detokenizer_diffusion import DiffusionDetokenizer
from illume_loop.models.illume.vision import VisionTokenizer

TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def config_with(**detokenizer: Any) -> IllumeConfig:
    """A model of 36 ids of 16 codes; its detokenizer is a small diffusion where nothing else is said."""
    vision = SiglipVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
    )
    small = {"detokenizer": "diffusion", "detokenizer_channels": [8, 16], "detokenizer_patch": 4}
    sizes = {"codebook_size": 16, "code_dim": 4, "quantizer_layers": 1}
    return IllumeConfig(text_config=LlamaConfig(**TEXT), vision_config=vision, **sizes, **{**small, **detokenizer})


def vision_with(**detokenizer: Any) -> VisionTokenizer:
    """A vision tokenizer of random weights, those of the UNet's last layer too, which begin as zeros."""
    torch.manual_seed(0)
    vision = VisionTokenizer(config_with(**detokenizer)).eval()
    torch.nn.init.normal_(vision.detokenizer.unet.conv_out.weight, std=0.1)
    return vision


def some_ids(count: int) -> torch.Tensor:
    """Ids (count, 36)."""
    return torch.randint(16, (count, 36), generator=torch.Generator().manual_seed(3))


@torch.inference_mode()
@pytest.mark.parametrize(("upscale", "side"), [(1, 48), (2, 96)])
def test_it_paints_as_large_as_it_says(upscale: int, side: int) -> None:
    vision = vision_with(detokenizer_upscale=upscale)
    pixels = vision.decode(some_ids(2))
    assert pixels.shape == (2, 3, side, side)
    assert config_with(detokenizer_upscale=upscale).painted_size == side
    assert float(pixels.min()) >= 0
    assert float(pixels.max()) <= 1
    assert float(pixels.std()) > 0.05


@torch.inference_mode()
@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_the_same_ids_are_the_same_pixels_whatever_is_painted_beside_them(guidance: float) -> None:
    vision, ids = vision_with(detokenizer_guidance=guidance), some_ids(4)
    together = vision.decode(ids)
    assert torch.equal(vision.decode(ids.flip(0)).flip(0), together)
    assert torch.equal(vision.decode(ids[1:3]), together[1:3])
    assert torch.equal(torch.cat([vision.decode(row[None]) for row in ids]), together)
    assert not torch.equal(together[0], together[1])


@torch.inference_mode()
def test_guidance_of_one_is_none_and_more_leads_away_from_no_features() -> None:
    vision, ids = vision_with(detokenizer_steps=1), some_ids(1)
    detokenizer = vision.detokenizer
    assert isinstance(detokenizer, DiffusionDetokenizer)
    known, seen = detokenizer.known(vision.quantizer.decode(ids)), []
    detokenizer.unet.register_forward_hook(lambda *_: seen.append(1))
    plain = vision.decode(ids)
    assert len(seen) == 1, "no second pass where there is nothing to lead away from"
    detokenizer.guidance = 1.5
    guided = vision.decode(ids)
    assert len(seen) == 3

    def clean(given: torch.Tensor) -> torch.Tensor:
        return detokenizer.predict(detokenizer.noise, torch.tensor([1000.0]), given)

    with_features, without = clean(known), clean(torch.zeros_like(known))
    for pixels, expected in ((plain, with_features), (guided, without + 1.5 * (with_features - without))):
        unfolded = torch.nn.functional.pixel_shuffle(expected.clamp(-1, 1) / 2 + 0.5, detokenizer.patch_size)
        assert torch.allclose(pixels, unfolded, atol=1e-5)


def test_what_it_minimises_is_the_distance_to_the_clean_image() -> None:
    """Nearly no noise and nearly only noise are learned alike, and a tenth of the images of which nothing is known."""
    detokenizer = vision_with().detokenizer
    assert isinstance(detokenizer, DiffusionDetokenizer)
    levels, dropped = [], []

    def seen(_: object, args: tuple[torch.Tensor, torch.Tensor]) -> None:
        levels.append(args[1])
        dropped.append((args[0][:, 3 * 4**2 :] == 0).flatten(1).all(dim=1))

    detokenizer.unet.register_forward_pre_hook(seen)
    pixels, features = torch.rand(200, 3, 48, 48), torch.randn(200, 36, 16)
    with torch.no_grad():
        detokenizer.loss(features, pixels, torch.Generator().manual_seed(0))
    shares = torch.cat(levels) / 1000
    assert float(shares.min()) < 0.05
    assert float(shares.max()) > 0.95
    assert 0.05 < float(torch.cat(dropped).float().mean()) < 0.15


@pytest.mark.parametrize("upscale", [1, 2])
def test_an_untrained_one_paints_its_draft_which_training_leaves_alone(upscale: int) -> None:
    torch.manual_seed(0)
    detokenizer = VisionTokenizer(config_with(detokenizer_upscale=upscale)).eval().detokenizer
    assert isinstance(detokenizer, DiffusionDetokenizer)
    features = torch.randn(2, 36, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        larger = detokenizer.draft(features).repeat_interleave(upscale, 2).repeat_interleave(upscale, 3)
        assert torch.allclose(detokenizer(features), larger, atol=1e-5)
    detokenizer.loss(features, larger, torch.Generator().manual_seed(0)).backward()
    assert all(parameter.grad is None for parameter in detokenizer.draft.parameters())
    assert detokenizer.unet.conv_out.weight.grad is not None


def test_a_checkpoint_paints_what_was_saved(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = IllumeForConditionalGeneration(config_with()).eval()
    model.save_pretrained(tmp_path)
    torch.manual_seed(2)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(again, IllumeForConditionalGeneration)
    assert again.config.detokenizer_channels == [8, 16]
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    with torch.inference_mode():
        ids = some_ids(2)
        assert np.array_equal(again.model.vision.decode(ids).numpy(), model.model.vision.decode(ids).numpy())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"detokenizer": "oil"}, "conv or diffusion, not 'oil'"),
        ({"detokenizer_channels": [12, 24]}, "multiples of 8"),
        ({"detokenizer_channels": []}, "multiples of 8"),
        ({"detokenizer_upscale": 3}, "must be 1 or 2"),
        ({"detokenizer_steps": 0}, "at least 1"),
        ({"detokenizer_guidance": -1.0}, "at least 0"),
        ({"detokenizer_patch": 5}, "cut 48 pixels"),
        ({"detokenizer_patch": 16}, "that 6 and 2 divide"),
        ({"detokenizer_channels": [8, 16, 32], "detokenizer_patch": 8}, "that 6 and 4 divide; 8 does not"),
        ({"detokenizer_patch": 0}, "0 does not"),
    ],
)
def test_sizes_that_cannot_be_built_are_named(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config_with(**wrong)
