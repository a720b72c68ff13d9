"""Loads the processor of a checkpoint with its Pillow image processor, whatever else is installed.

transformers takes torchvision's image processors where torchvision is installed. They resize otherwise, so the same
image would have other features, other ids and other scores on two hosts of one run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor
from transformers.image_processing_backends import PilBackend

from illume_loop.errors import UsageError


def load_processor(kind: Any, path: Path) -> Any:
    """Load a processor of the class `kind` from a checkpoint directory, its image processor being Pillow's.

    Raises UsageError where transformers has no Pillow image processor for the checkpoint.
    """
    processor = kind.from_pretrained(path, local_files_only=True)
    # Not as an argument of the call above: it would reach the tokenizer too, which writes it into its configuration.
    processor.image_processor = pillow_processor(path)
    return processor


def pillow_processor(folder: Path) -> Any:
    """Load the Pillow image processor of a folder; raises as `load_processor` does, OSError and ValueError."""
    found = AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True, trust_remote_code=False)
    if not isinstance(found, PilBackend):  # transformers falls back to torchvision with a warning alone
        raise UsageError(
            f"transformers has no Pillow image processor for {folder}, only {type(found).__name__}; "
            "use a checkpoint whose image processor has one, such as SigLIP's, CLIP's or Janus's"
        )
    return found
