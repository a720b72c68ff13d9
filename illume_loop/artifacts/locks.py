"""Locks between processes of a host: files that the kernel gives back, however their process ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone_in(lock: Path) -> Iterator[None]:
    """One process at a time has what a lock file stands for; the others wait."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def used(lock: Path) -> int:
    """Return a file descriptor that marks as used what a lock file stands for; closing it, or ending, gives it back."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if _is_named(descriptor, lock):
            # The kernel's own clock of files moves in steps of milliseconds.
            os.utime(lock, ns=(time.time_ns(),) * 2)
            return descriptor
        # Whoever had it alone has deleted it with what it stands for.
        os.close(descriptor)


def last_used(lock: Path) -> int:
    """Return when a process last asked for what a lock file stands for, in nanoseconds; 0 for never."""
    try:
        return lock.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@contextmanager
def unused(lock: Path) -> Iterator[bool]:
    """Whether nobody uses what a lock file stands for: then nobody can for the block, after which the file is gone."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = _is_named(descriptor, lock)
        yield is_ours
        if is_ours:
            lock.unlink()
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def _is_named(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def claimed(lock: Path) -> Iterator[bool]:
    """Whether what a lock file stands for is ours for the block; nobody waits."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
