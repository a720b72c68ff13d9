"""Readies this process for models: threads, and third-party libraries that speak only when they should."""

from __future__ import annotations

import os

from illume_loop.config import RuntimeSettings


def prepare(settings: RuntimeSettings) -> None:
    """Set the CPU threads of torch and keep the progress bars and notices of other libraries off the terminal."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import datasets
    import torch
    import transformers

    torch.set_num_threads(settings.threads or len(os.sched_getaffinity(0)))
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
