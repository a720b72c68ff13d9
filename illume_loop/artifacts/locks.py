"""Lock files between the processes of a host. The kernel frees a lock however its process ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive_lock(lock: Path) -> Iterator[None]:
    """Hold a lock file exclusively for the block; wait while another process holds it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def used(lock: Path) -> int:
    """Take a shared lock that marks a lock file's resource as used; return its file descriptor.

    The lock is freed when the descriptor is closed or the process ends.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if _is_named(descriptor, lock):
            # Set the time explicitly, because the kernel's file times move in steps of milliseconds.
            os.utime(lock, ns=(time.time_ns(),) * 2)
            return descriptor
        # A process with the exclusive lock has deleted the file and its resource, so try again with a new file.
        os.close(descriptor)


def last_used(lock: Path) -> int:
    """Return the time at which a process last took the lock by `used`, in nanoseconds; 0 if none has."""
    try:
        return lock.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@contextmanager
def unused(lock: Path) -> Iterator[bool]:
    """Yield True if no process uses the lock file's resource, else False.

    If True, no process can use it during the block, and the lock file is deleted afterwards.
    """
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
    """Return True if the open file is still the file at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def claimed(lock: Path) -> Iterator[bool]:
    """Yield True if this process holds the lock file for the block, False if another process holds it.

    It never waits.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
