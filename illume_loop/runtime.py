"""Prepare this process for models: its threads, its memory, and the output of third-party libraries."""

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
"""The values of M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD of mallopt(3), in bytes."""


def prepare(settings: RuntimeSettings) -> None:
    """Set torch's CPU threads, keep freed memory, and keep other libraries' progress bars off the terminal.

    Call it before a backend is loaded, because the libraries read these variables when they are imported. It does not
    import torch, so a process that does without torch does not pay for the import.
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
    """Move DeepSpeed's log into ours. Its own goes to standard output, which is for results.

    If DeepSpeed is installed, transformers imports it whenever a model is saved, and DeepSpeed logs at once that there
    is no GPU.
    """

    def moved(record: logging.LogRecord) -> bool:
        log.handle(record)
        return False

    logging.getLogger("DeepSpeed").addFilter(moved)


def _keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors instead of returning it to the kernel after each operation.

    Each step of a model frees and takes the same large tensors. If their pages were returned, the kernel would clear
    them every time. docs/experiments/loop/freed_memory.py measures what that costs.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # musl and macOS have none
        for parameter, value in _GLIBC_TUNING.items():
            libc.mallopt(parameter, value)


def release_freed_memory() -> None:
    """Return the memory that glibc kept to the kernel, so that the memory of a piece of work can be measured."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # only glibc has it
        gc.collect()
        libc.malloc_trim(0)
