"""A worker's place on its host: a number that no other live worker of this host has, a device, a scratch folder.

Guarantee: two live workers that share a cache folder never share a slot. The lock is the kernel's, so a slot is free
again when its worker has ended, however it ended.
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
    """A place that is held."""

    number: int
    scratch: Path
    """Emptied when the slot is taken: what a killed worker left half-made is not kept."""


def default_cache() -> Path:
    """illume-loop in the user's cache folder."""
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
    """The device that is set, or else the host's visible ones in turn; the CPU where there is none."""
    if setting != "auto":
        return setting
    return f"cuda:{slot % num_devices}" if num_devices else "cpu"


def num_visible_devices() -> int:
    """CUDA devices that a process started now would see, found without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    # In a container these are the ones that it was given.
    return len(list(Path("/dev").glob("nvidia[0-9]*")))
