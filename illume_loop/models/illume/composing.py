"""The composing of an ILLUME model from its parts, and the writing of its checkpoint.

Invariants:

- The weights of the parts are copied bit by bit, unless another precision is asked for.
- New weights (rows of image ids, adapter, quantiser, detokenizer) depend on the seed alone.
- The checkpoint's folder appears whole or not at all.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from illume_loop.errors import FolderInUseError, UsageError
from illume_loop.files import raising_storage_full
from illume_loop.models.illume.configuration import IllumeConfig, side_of
from illume_loop.models.illume.modeling import IllumeForConditionalGeneration, adapter_of
from illume_loop.models.illume.parts import (
    Language,
    Vision,
    check_grid,
    language_of,
    load_language,
    load_vision,
    num_ids,
)
from illume_loop.models.illume.processing import IllumeProcessor, byte_tokenizer, image_processor
from illume_loop.models.illume.sizes import Choices, Size
from illume_loop.models.illume.vision import VisionTokenizer
from illume_loop.models.illume.vocabulary import extend_tokenizer, grown, num_text_rows
from illume_loop.protocols import NO, YES

PAPER_GRID = 16
"""Ids along one side of an image in the paper, 256 in all."""
PARTS = "parts.json"
RANDOM = "random weights"


@dataclass(frozen=True, slots=True)
class Composed:
    """A composed model, its processor, and the names of its parts."""

    model: IllumeForConditionalGeneration
    processor: IllumeProcessor
    llm: str
    vision: str

    def summary(self) -> dict[str, Any]:
        """Return the parts' names and numbers of weights, and the sizes that a user of the model needs."""
        config, body = self.model.config, self.model.model
        parts: Mapping[str, nn.Module] = {
            "language model": body.language_model,
            "head": self.model.lm_head,
            "adapter": body.adapter,
            "vision encoder": body.vision.encoder,
            "quantiser": body.vision.quantizer,
            "detokenizer": body.vision.detokenizer,
        }
        return {
            "llm": self.llm,
            "vision": self.vision,
            "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()},
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "text_ids": config.num_text_ids,
            "inherited_ids": config.num_inherited_ids,
            "codebook": f"{config.codebook_size} x {config.code_dim}, {config.code_distance}, {config.codebook_update}",
            "image_size": config.image_size,
            "patches": config.patches_per_side**2,
            "tokens_per_image": config.tokens_per_image,
        }


def compose(llm: str, vision: str, choices: Choices, *, seed: int = 0, dtype: str | None = None) -> Composed:
    """Compose a model from the parts of these names, in the language model's precision or in `dtype`.

    A name is a folder or a hub id. Raises NotFoundError if a part does not exist, HubError if the hub cannot be
    reached, and PartError for a part of another kind or parts that do not fit.
    """
    return compose_parts(load_language(llm), load_vision(vision), choices, seed=seed, dtype=dtype)


def compose_random(size: Size, choices: Choices, *, seed: int = 0, dtype: str | None = None) -> Composed:
    """Compose a model of a size, with random weights and a tokenizer of bytes and a few words.

    Such a model serves benchmarks and tests of the mechanics.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text = AutoConfig.for_model(**size.text_config)
        model = AutoModelForCausalLM.from_config(text, dtype=_dtype(dtype or str(size.text_config["dtype"])))
        encoder = AutoModel.from_config(AutoConfig.for_model(**size.vision_config))
    language = language_of(RANDOM, model.eval(), byte_tokenizer([YES, NO]))
    return compose_parts(language, Vision(RANDOM, encoder.eval(), {}), choices, seed=seed, dtype=dtype)


def compose_parts(
    language: Language, vision: Vision, choices: Choices, *, seed: int = 0, dtype: str | None = None
) -> Composed:
    """Compose a model from loaded parts, which become parts of the model.

    Raises PartError if they do not fit.
    """
    choices = _resolved(choices, vision)
    num_inherited = num_ids(language.tokenizer)
    config = _config_of(language, vision, choices)
    # On the meta device, the modules made of the configuration have no weights yet and take no memory.
    with torch.device("meta"):
        model = IllumeForConditionalGeneration(config)
    body, rows = language.body, config.text_config.vocab_size
    old: Any = body.get_input_embeddings()
    table = nn.Embedding(
        rows, old.weight.shape[1], old.padding_idx, _weight=grown(old.weight, num_inherited, rows, seed)
    )
    body.set_input_embeddings(table)
    head = nn.Linear(old.weight.shape[1], rows, bias=False, device="meta")
    head.weight = nn.Parameter(grown(language.head_VH, num_inherited, rows, seed + 1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.model.vision = VisionTokenizer(config, vision.encoder)
        model.model.adapter = adapter_of(config)
    model.model.language_model, model.lm_head = body, head
    chosen = head.weight.dtype if dtype is None else _dtype(dtype)
    # `model.to` would also round the frequencies of rotary embeddings, which are kept in float32.
    for tensor in model.state_dict(keep_vars=True).values():
        tensor.data = tensor.data.to(chosen)
    config.dtype = chosen
    assert choices.image_size is not None
    processor = IllumeProcessor(image_processor(choices.image_size, **vision.pixels), language.tokenizer)
    model.train(False)
    return Composed(model, processor, language.name, vision.name)


def write(composed: Composed, folder: Path, about: Mapping[str, Any]) -> None:
    """Write a checkpoint, and `about` as its parts.json.

    `about` says what the model was made of. Raises FolderInUseError as `check_free` does, and StorageFullError.
    """
    check_free(folder)
    new = folder.with_name(f".{folder.name}.{uuid4().hex}")
    with raising_storage_full(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            composed.model.save_pretrained(new)
            composed.processor.save_pretrained(new)
            (new / PARTS).write_text(json.dumps(dict(about), indent=2) + "\n", encoding="utf-8")
            new.replace(folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def check_free(folder: Path) -> None:
    """Raise FolderInUseError if the folder holds something that a model would overwrite."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderInUseError(path=folder)


def _resolved(choices: Choices, vision: Vision) -> Choices:
    """Return the choices with the numbers that they leave to the encoder. Raises PartError if they do not fit it."""
    image_size = choices.image_size or vision.image_size
    patches = image_size // side_of(vision.encoder.config.patch_size)
    tokens = choices.tokens_per_image or min(patches, PAPER_GRID) ** 2
    check_grid(vision, image_size, tokens)
    return replace(choices, image_size=image_size, tokens_per_image=tokens)


def _config_of(language: Language, vision: Vision, choices: Choices) -> IllumeConfig:
    tokenizer, text_config = language.tokenizer, language.body.config
    num_inherited = num_ids(tokenizer)
    begin_image, end_image, image = extend_tokenizer(tokenizer)
    fields = asdict(choices)
    tokens = fields.pop("tokens_per_image")
    return IllumeConfig(
        text_config=text_config,
        vision_config=vision.encoder.config,
        slice_size=choices.image_size,
        pooled_grid=round(tokens**0.5),
        num_text_ids=num_text_rows(tokenizer, len(language.head_VH)),
        num_inherited_ids=num_inherited,
        begin_image_token_id=begin_image,
        end_image_token_id=end_image,
        image_placeholder_token_id=image,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **fields,
    )


def _dtype(name: str) -> torch.dtype:
    """Return the precision of this name. Raises UsageError if no weights are kept in it."""
    found = getattr(torch, name, None)
    if found not in (torch.float32, torch.bfloat16, torch.float16):
        raise UsageError(f"weights are kept in no precision '{name}'; take float32, bfloat16 or float16")
    assert isinstance(found, torch.dtype)
    return found
