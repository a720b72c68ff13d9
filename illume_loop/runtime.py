"""Readies this process for models: threads, memory, and third-party libraries that speak only when they should."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import sys

from illume_loop.settings import RuntimeSettings
from illume_loop.telemetry.libraries import set_quiet

log = logging.getLogger(__name__)

_GLIBC_TUNING = {-1: 2**31 - 1, -2: 1 << 28, -3: 1 << 30}
"""M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD of mallopt(3), in bytes."""


def prepare(settings: RuntimeSettings) -> None:
    """Set the CPU threads of torch, keep freed memory, and the progress bars of other libraries off the terminal.

    Call it before a backend is loaded: the libraries read these variables when they are imported, which a process
    whose backend does without torch, or which loads no model, never pays for.
    """
    set_quiet()
    _move_deepspeeds_log()
    _keep_freed_memory()
    if settings.threads:
        os.environ["OMP_NUM_THREADS"] = str(settings.threads)
        if "torch" in sys.modules:
            import torch

            torch.set_num_threads(settings.threads)


def _move_deepspeeds_log() -> None:
    """Let DeepSpeed's log be part of ours: its own goes to standard output, which belongs to results.

    Where it is installed transformers imports it whenever a model is saved, and it says at once that there is no GPU.
    """

    def moved(record: logging.LogRecord) -> bool:
        log.handle(record)
        return False

    logging.getLogger("DeepSpeed").addFilter(moved)


def _keep_freed_memory() -> None:
    """Let glibc keep what tensors give back instead of returning it to the kernel after each operation.

    Each step of a model frees and takes the same large tensors. Returned and taken again, their pages are cleared by
    the kernel every time; docs/experiments/loop/freed_memory.py measures what that costs.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # musl and macOS have none
        for parameter, value in _GLIBC_TUNING.items():
            libc.mallopt(parameter, value)


def release_freed_memory() -> None:
    """Give the kernel what tensors gave back and glibc kept, for who measures what a piece of work takes."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # of glibc alone
        gc.collect()
        libc.malloc_trim(0)
