"""A worker's slot on its host: a number, a device and a scratch folder.

Invariants:

- Two live workers with the same cache folder never share a slot.
- A slot is free again when its worker has ended, however it ended, because the kernel releases the lock.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Slot:
    """A held slot: its number and its scratch folder."""

    number: int
    scratch: Path
    """The scratch folder. It is emptied when the slot is taken, because a killed worker may have left files in it."""


def default_cache() -> Path:
    """Return the folder illume-loop in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "illume-loop"


@contextmanager
def held_slot(cache: Path) -> Iterator[Slot]:
    """Hold the first free slot of this host."""
    slots = cache / "slots"
    slots.mkdir(parents=True, exist_ok=True)
    for number in count():
        with (slots / f"{number}.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            scratch = slots / f"{number}"
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            yield Slot(number, scratch)
            return


def device_for(setting: str, slot: int, num_devices: int) -> str:
    """Return the device of a slot: the one that is set, else a visible CUDA device in turn, else the CPU."""
    if setting != "auto":
        return setting
    return f"cuda:{slot % num_devices}" if num_devices else "cpu"


def num_visible_devices() -> int:
    """Return the number of CUDA devices that a new process would see, without an import of torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    # A container has only the device files of the devices that it was given.
    return len(list(Path("/dev").glob("nvidia[0-9]*")))
