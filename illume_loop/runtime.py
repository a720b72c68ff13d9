"""Readies this process for models: threads, and third-party libraries that speak only when they should."""

from __future__ import annotations

import os
import sys

from illume_loop.config import RuntimeSettings

QUIET = {
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}


def prepare(settings: RuntimeSettings) -> None:
    """Set the CPU threads of torch and keep the progress bars and notices of other libraries off the terminal.

    Call it before a backend is loaded: the libraries read these variables when they are imported, which a process
    whose backend does without torch, or which loads no model, never pays for.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if settings.threads:
        os.environ["OMP_NUM_THREADS"] = str(settings.threads)
        if "torch" in sys.modules:
            import torch

            torch.set_num_threads(settings.threads)
