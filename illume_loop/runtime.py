"""Readies this process for models: threads, and third-party libraries that speak only when they should."""

from __future__ import annotations

import os

from illume_loop.config import RuntimeSettings


def prepare(settings: RuntimeSettings) -> None:
    """Set the CPU threads of torch and keep the progress bars and notices of other libraries off the terminal."""
    # Read when `datasets` and `tokenizers` are imported, which only training does.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch
    import transformers

    if settings.threads:
        torch.set_num_threads(settings.threads)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
