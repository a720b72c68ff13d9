"""The model's side of tokenising: images to ids, and the digest of everything that the ids depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from illume_loop.errors import UsageError
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.models.registry import backend_of, load_model


def open_tokenizer(path: Path, device: str) -> IllumeBackend:
    """Return the model of a folder. Raises UsageError if it is of another backend, and what `load_model` raises."""
    model = load_model(path, device=device)
    if not isinstance(model, IllumeBackend):
        raise UsageError(
            f"{path} is a model of the backend {model.name}; data is tokenised for models of ours (illume)"
        )
    return model


def tokenizer_digest(backend: IllumeBackend) -> str:
    """Return the sha256 of encoder, quantiser and image processor.

    Training the language model does not change it, nor does another decoder from ids to pixels.
    """
    vision = backend.model.model.vision
    digest = hashlib.sha256()
    for part in ("encoder", "quantizer"):
        for name, tensor in sorted(getattr(vision, part).state_dict().items()):
            plain = tensor.detach().to("cpu", torch.float32).contiguous()
            digest.update(f"{part}.{name} {tuple(plain.shape)}".encode())
            digest.update(plain.numpy().tobytes())
    config = backend.model.config
    names = ("image_size", "slices_per_side", "grid", "quantised", "code_distance")
    read_as = {name: getattr(config, name) for name in names}
    told = [read_as, backend.processor.image_processor.to_dict()]
    digest.update(json.dumps(told, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def digest_of_checkpoint(path: Path) -> str:
    """Return the `tokenizer_digest` of a checkpoint; empty if it is of another backend, for which no data is tokenised.

    Raises NotFoundError if its backend is not installed, and CorruptArtifactError.
    """
    if backend_of(path) is not IllumeBackend:
        return ""
    return tokenizer_digest(open_tokenizer(path, "cpu"))


def ids_of(backend: IllumeBackend, images: Sequence[Image.Image], batch_size: int) -> list[list[int]]:
    """Return the codebook ids of each image, (L,). All images must be squares of the model's size."""
    found: list[list[int]] = []
    for start in range(0, len(images), batch_size):
        found += backend.encode(images[start : start + batch_size]).tolist()
    return found
