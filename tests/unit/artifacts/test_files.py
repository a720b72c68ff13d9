"""A file is there whole or not at all."""

from __future__ import annotations

import errno
import resource
import signal
from pathlib import Path

import pytest

from illume_loop.errors import StorageFullError
from illume_loop.files import disk_is_full, raising_storage_full, sha256_of, write_atomically


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "file"
    write_atomically(target, b"before")
    write_atomically(target, b"after")
    assert target.read_bytes() == b"after"
    assert list(target.parent.iterdir()) == [target]


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    """The kernel refuses the write itself: a limit on file sizes stands in for a disk that runs full."""
    target = tmp_path / "file"
    write_atomically(target, b"before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_atomically(target, b"x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_told_as_such() -> None:
    """/dev/full refuses every write, as a full disk does."""
    with pytest.raises(StorageFullError, match="the page"), raising_storage_full("the page"):
        Path("/dev/full").write_bytes(b"x")
    assert not disk_is_full(OSError(errno.EACCES, "denied"))


def test_a_disk_that_is_full_deep_down_counts() -> None:
    """safetensors and SQLite tell it in words only, and trainers wrap what they catch."""
    error = ValueError("saving failed")
    error.__cause__ = RuntimeError("I/O error: No space left on device (os error 28)")
    assert disk_is_full(error)


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_of(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
