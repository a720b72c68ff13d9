"""The parts of an ILLUME model: a causal language model with its tokenizer, and a vision encoder.

Invariants:

- A loaded part is what its checkpoint says, with all of its weights.
- A language model looks only back, and its logits are one product of its hidden states and its head.
- A vision encoder gives a square grid of features.
- Nothing that a checkpoint brings along is run: classes are transformers' own, weights are safetensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_MAPPING_NAMES

from illume_loop.errors import PartError, UsageError
from illume_loop.models.hub import model_folder
from illume_loop.models.illume.configuration import side_of
from illume_loop.models.illume.vision import encoded
from illume_loop.models.processors import pillow_processor

_HERE_ONLY: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
_PIXELS = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "resample")
_TRIED_IDS = 6
"""Positions in the trial of a language model."""


@dataclass(frozen=True, slots=True)
class Language:
    """A causal language model: its body without the head, the rows of its head (V, H), and its tokenizer."""

    name: str
    body: Any
    head_VH: Tensor
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Vision:
    """A vision encoder, and the scaling and normalisation of its pixels, as arguments of an image processor."""

    name: str
    encoder: Any
    pixels: dict[str, Any]

    @property
    def image_size(self) -> int:
        """Pixels along one side of the images that the encoder was made for."""
        return side_of(self.encoder.config.image_size)


def load_language(name: str) -> Language:
    """Load a causal language model from a folder or a hub id, in its stored precision.

    Raises NotFoundError, HubError, and PartError if it is no causal language model, or none that can be trained here.
    """
    folder = model_folder(name, "language model")
    config = _config_of(folder, name)
    kind = config.model_type
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or config.get_text_config() is not config:
        raise PartError(name=name, reason=f"'{kind}' is no causal language model of text alone; give --llm one")
    tokenizer = _tokenizer_of(folder, name)
    model = _weights_of(AutoModelForCausalLM, folder, name)
    return language_of(name, model, tokenizer)


def language_of(name: str, model: Any, tokenizer: PreTrainedTokenizerBase) -> Language:
    """Return the parts of a causal language model of transformers.

    Raises PartError if the tokenizer has more ids than the table has rows, and what `_try` raises.
    """
    head = model.get_output_embeddings()
    num_rows, num_words = head.weight.shape[0], num_ids(tokenizer)
    if num_words > num_rows:
        raise PartError(
            name=name, reason=f"its tokenizer has {num_words} ids but its table {num_rows} rows; give it its own"
        )
    _try(name, model)
    return Language(name, model.base_model, head.weight.detach(), tokenizer)


def load_vision(name: str) -> Vision:
    """Load a vision encoder from a folder or a hub id: a ViT by itself, or the vision tower of a CLIP or SigLIP.

    Raises NotFoundError, HubError, and PartError if it is no vision encoder.
    """
    folder = model_folder(name, "vision encoder")
    config = _config_of(folder, name)
    config = getattr(config, "vision_config", None) or config
    sizes = [getattr(config, key, None) for key in ("image_size", "patch_size", "hidden_size")]
    if None in sizes or config.model_type not in MODEL_MAPPING_NAMES:
        reason = f"'{config.model_type}' is no vision encoder with square patches; give --vision one, such as a SigLIP"
        raise PartError(name=name, reason=reason)
    return Vision(name, _weights_of(AutoModel, folder, name, config=config), _pixels_of(folder, name))


def check_grid(vision: Vision, image_size: int, tokens_per_image: int) -> None:
    """Raise PartError if an encoder gives no grid for `tokens_per_image` ids of an image of `image_size` pixels."""
    grid, patches = math.isqrt(tokens_per_image), image_size // side_of(vision.encoder.config.patch_size)
    if grid**2 != tokens_per_image:
        raise PartError(name=vision.name, reason=f"{tokens_per_image} ids make no square image; take 256, say")
    if grid > patches:
        reason = (
            f"{tokens_per_image} ids need {grid} x {grid} patches, but {image_size} pixels are {patches} x {patches}; "
            "raise --image-size or lower --tokens-per-image"
        )
        raise PartError(name=vision.name, reason=reason)
    try:
        num_tokens = _tokens_of(vision.encoder, image_size)
    except (ValueError, RuntimeError, TypeError, AttributeError) as error:
        reason = f"it does not read images of {image_size} pixels ({_first_line(error)}); try another --image-size"
        raise PartError(name=vision.name, reason=reason) from error
    others = num_tokens - patches**2
    if others not in (0, 1 + int(getattr(vision.encoder.config, "num_register_tokens", 0))):
        reason = f"it gives {num_tokens} features of {image_size} pixels, which is no grid of {patches} x {patches}"
        raise PartError(name=vision.name, reason=reason)


def num_ids(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the number of rows that a tokenizer needs: one more than its highest id."""
    return 1 + max(tokenizer.get_vocab().values())


def _config_of(folder: Path, name: str) -> PretrainedConfig:
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, **_HERE_ONLY)
    except (ValueError, KeyError, OSError) as error:
        reason = f"transformers has no such architecture, and code of a checkpoint is never run ({_first_line(error)})"
        raise PartError(name=name, reason=reason) from error
    return config


def _weights_of(auto: Any, folder: Path, name: str, **arguments: Any) -> Any:
    """Load a model with all of its weights. Raises PartError if some are missing, damaged or not safetensors."""
    if not any(folder.glob("*.safetensors")):
        reason = "it has no weights as safetensors, and pickles are never read; have them converted where they are safe"
        raise PartError(name=name, reason=reason)
    try:
        model, found = auto.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, dtype="auto", **_HERE_ONLY, **arguments
        )
    except Exception as error:  # safetensors, json and transformers each raise an error of their own for a damaged file
        raise PartError(name=name, reason=f"its weights cannot be read ({_first_line(error)})") from error
    missing = sorted(found["missing_keys"])
    if missing:
        raise PartError(name=name, reason=f"{len(missing)} of its weights are missing, the first of them {missing[0]}")
    return model.eval()


def _tokenizer_of(folder: Path, name: str) -> PreTrainedTokenizerBase:
    # Without these files, transformers makes a tokenizer of no words for some architectures.
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise PartError(name=name, reason=f"it has no tokenizer; put its {' or '.join(_TOKENIZER_FILES)} there")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, **_HERE_ONLY)
    except Exception as error:  # tokenizers, json and transformers each raise an error of their own for a damaged file
        raise PartError(name=name, reason=f"its tokenizer cannot be read ({_first_line(error)})") from error
    if tokenizer.eos_token_id is None:
        raise PartError(name=name, reason="its tokenizer has no token that ends a text (eos_token)")
    return tokenizer


def _pixels_of(folder: Path, name: str) -> dict[str, Any]:
    try:
        processor = pillow_processor(folder)
    except (OSError, ValueError, ImportError, UsageError) as error:
        reason = "it has no preprocessor_config.json that transformers reads, which says how pixels are normalised"
        raise PartError(name=name, reason=reason) from error
    return {key: getattr(processor, key) for key in _PIXELS if getattr(processor, key, None) is not None}


@torch.inference_mode()
def _try(name: str, model: Any) -> None:
    """Raise PartError if a model is not causal, or if its logits are more than hidden states times the head.

    TRL computes losses from that product and would leave out a cap or a scale without a word.
    """
    ids = torch.arange(_TRIED_IDS).unsqueeze(0)
    other = ids.clone()
    other[0, -1] = _TRIED_IDS
    logits = model(input_ids=ids, use_cache=False).logits
    hidden, changed = (model.base_model(input_ids=some, use_cache=False).last_hidden_state for some in (ids, other))
    if not _same(hidden[:, :-1], changed[:, :-1]):
        raise PartError(name=name, reason="it looks ahead, so it is no causal language model; give --llm one")
    product = F.linear(hidden, model.get_output_embeddings().weight)
    if not _same(product, logits):
        reason = (
            "its logits are more than its hidden states times its head (a bias, a scale or a cap), as training has it"
        )
        raise PartError(name=name, reason=reason)


def _same(found: Tensor, expected: Tensor) -> bool:
    """Return whether two tensors are equal up to rounding in the precision of `expected`."""
    rounding = 16 * torch.finfo(expected.dtype).eps * float(expected.abs().max())
    return torch.allclose(found.float(), expected.float(), atol=rounding, rtol=0.0)


@torch.inference_mode()
def _tokens_of(encoder: nn.Module, image_size: int) -> int:
    """Return the number of tokens that an encoder gives for a whole image."""
    weight = next(encoder.parameters())
    pixels = torch.zeros(1, 3, image_size, image_size, dtype=weight.dtype, device=weight.device)
    hidden = encoded(encoder, pixels)
    if hidden.ndim != 3:
        raise ValueError("its features are no sequence")
    return int(hidden.shape[1])


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
