"""Writing a file so that it is there whole or not at all.

On a local disk: a temporary file beside the target, fsync, rename, fsync of the folder. An object store puts whole
objects anyway. A file that could not be written because the disk is full raises StorageFullError, and leaves nothing.
"""

from __future__ import annotations

import codecs
import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Self
from urllib.parse import unquote
from uuid import uuid4

from fsspec import AbstractFileSystem, available_protocols
from fsspec.callbacks import Callback
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from illume_loop.errors import (
    CorruptArtifactError,
    IllumeLoopError,
    MissingExtraError,
    SettingsError,
    StorageFullError,
    StoreUnusableError,
    UsageError,
)
from illume_loop.hooks import OnProgress, ignore
from illume_loop.redaction import url_without_password

BLOCK_BYTES = 1 << 20

SYNC_BYTES = 1 << 28
"""Bytes after which a file that is being written is synced to its disk."""

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class Root:
    """A folder of an fsspec file system, which paths cannot leave."""

    def __init__(self, url: str) -> None:
        """Raises SettingsError for a URL of no known kind, UsageError for one whose package is not installed, and
        StoreUnusableError for a store that does not answer."""
        folder = _local_folder(url)
        if folder is not None:
            self._hold(LocalFileSystem(), folder)
            return
        shown = url_without_password(url)
        try:
            with _usable(shown):
                filesystem, path = url_to_fs(url)
        except ImportError as error:
            if url.startswith(("s3://", "s3a://")):
                raise MissingExtraError(feature=f"the store {shown}", extra="s3") from error
            raise UsageError(f"the store {shown} needs a package that is not installed: {error}") from error
        except ValueError as error:
            raise SettingsError(reason=f"store.artifacts_url = {shown!r}: {error}") from error
        self._hold(filesystem, str(path))

    @classmethod
    def of_folder(cls, folder: Path) -> Self:
        """Return the root of a local folder, whatever characters its name has: a URL gives a meaning to some."""
        root = cls.__new__(cls)
        root._hold(LocalFileSystem(), str(folder.absolute()))
        return root

    def _hold(self, filesystem: AbstractFileSystem, path: str) -> None:
        self.filesystem: AbstractFileSystem = filesystem
        self.path = path.rstrip("/")
        self.is_local = isinstance(filesystem, LocalFileSystem)

    def full(self, relative: str) -> str:
        """The file system's name for a path below this root. Raises ValueError for one that may lead elsewhere."""
        if not stays_below(relative):
            raise ValueError(f"{relative!r} leads out of the artifact store")
        return f"{self.path}/{relative}"

    def exists(self, relative: str) -> bool:
        """Whether there is a file or folder of this name."""
        path = self.full(relative)
        with _usable(self.path):
            return bool(self.filesystem.exists(path))

    def read(self, relative: str) -> bytes:
        """The bytes of a file. Raises CorruptArtifactError where there is none."""
        path = self.full(relative)
        try:
            with _usable(self.path):
                return bytes(self.filesystem.cat_file(path))
        except FileNotFoundError:
            raise CorruptArtifactError(path=path, expected="a file", found="none") from None

    def write(self, relative: str, data: bytes) -> None:
        """Write a file whole or not at all. Raises StorageFullError, StoreUnusableError."""
        target = self.full(relative)
        with _usable(self.path, missing=True), storage_full_told(target):
            if self.is_local:
                write_atomically(Path(target), data)
            else:
                self.filesystem.pipe_file(target, data)

    def write_file(self, relative: str, source: Path, on_progress: OnProgress = ignore) -> None:
        """Copy a local file here block by block, whole or not at all. Raises StorageFullError, StoreUnusableError."""
        target = self.full(relative)
        with _usable(self.path, missing=True), storage_full_told(target):
            if self.is_local:
                with source.open("rb") as file:
                    write_atomically(Path(target), blocks_of(file, on_progress))
            else:
                self.filesystem.put_file(str(source), target, callback=_Reports(on_progress))

    def read_file(
        self, relative: str, target: Path, check: Callable[[str], None], on_progress: OnProgress = ignore
    ) -> None:
        """Copy a file to a local one block by block; there is none where `check` raises for the sha256 of its bytes.

        Raises CorruptArtifactError where there is no such file, StorageFullError, StoreUnusableError.
        """

        def checked(file: IO[bytes]) -> Iterator[bytes]:
            digest = hashlib.sha256()
            while True:
                with _usable(self.path):
                    block = file.read(BLOCK_BYTES)
                if not block:
                    break
                digest.update(block)
                yield block
                on_progress()
            check(digest.hexdigest())

        try:
            with _usable(self.path):
                opened = self.filesystem.open(self.full(relative), "rb")
            with opened as file, storage_full_told(target):
                write_atomically(target, checked(file))
        except FileNotFoundError:
            raise CorruptArtifactError(path=self.full(relative), expected="a file", found="none") from None


class _Reports(Callback):  # type: ignore[misc]
    """Passes on what fsspec tells of a copy that is under way."""

    def __init__(self, on_progress: OnProgress) -> None:
        super().__init__()
        self._on_progress = on_progress

    def call(self, *_: object, **__: object) -> None:
        """One more part is copied."""
        self._on_progress()


@contextmanager
def _usable(store: str, *, missing: bool = False) -> Iterator[None]:
    """Turn what a store answers in the place of a file into StoreUnusableError; `missing` ones too (no such bucket).

    Object stores raise errors of many packages, for a wrong address, for credentials, and for an outage alike. A full
    disk, a file that is not there, a wrong URL and a missing package are not the store's.
    """
    try:
        yield
    except (IllumeLoopError, ImportError, ValueError):
        raise
    except Exception as error:
        if disk_is_full(error) or (isinstance(error, FileNotFoundError) and not missing):
            raise
        reason = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())
        raise StoreUnusableError(store=store, reason=reason or type(error).__name__) from error


def _local_folder(url: str) -> str | None:
    """Return the absolute path of a local folder, as it is or as a file URL; None for another store.

    In a chain of stores (`simplecache::s3://...`) `::` has a meaning, which it has not in the name of a folder.
    Raises SettingsError for a store whose slashes were left out: a folder of that name is never meant.
    """
    scheme, separator, rest = url.partition("://")
    if separator:
        return str(Path(rest).absolute()) if scheme in ("file", "local") else None
    name = url.partition(":")[0]
    if name != url and name in available_protocols():
        raise SettingsError(reason=f"store.artifacts_url = {url!r}: write {name}://... for a store of this kind")
    return str(Path(url).expanduser().absolute())


def stays_below(relative: str) -> bool:
    """Whether a path names something below the folder that it is joined to, on every file system: no empty, `.` or
    `..` part, no backslash, no control character, as it is and with its %-escapes decoded."""
    for name in (relative, unquote(relative)):
        if any(part in ("", ".", "..") for part in name.split("/")) or "\\" in name or not name.isprintable():
            return False
    return True


def output_folder(folder: Path) -> Path:
    """Make the folder that somebody named for what a command writes, before the work is begun.

    Raises UsageError where there can be none, StorageFullError.
    """
    with storage_full_told(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in DISK_FULL:
                raise
            raise UsageError(f"cannot write to {folder}: {error.strerror}; name another directory") from None
    return folder


def write_atomically(target: Path, data: bytes | Iterable[bytes]) -> None:
    """Put `data` at `target` on a local disk, durably, whole or not at all. Blocks may raise: nothing is left then."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            unsynced = 0
            for block in [data] if isinstance(data, bytes) else data:
                file.write(block)
                unsynced += len(block)
                if unsynced >= SYNC_BYTES:
                    # Bit by bit: at the end a slow disk would take minutes in which nothing is reported.
                    file.flush()
                    os.fsync(file.fileno())
                    unsynced = 0
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


@contextmanager
def storage_full_told(path: object) -> Iterator[None]:
    """Turn the operating system's "disk full" into StorageFullError."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise StorageFullError(path=path) from error
        raise


def disk_is_full(error: BaseException | None) -> bool:
    """Whether a full disk is behind an error; SQLite and safetensors tell it in words only."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            return True
        if any(words in str(error) for words in ("No space left on device", "database or disk is full")):
            return True
        error = error.__cause__ or error.__context__
    return False


def sha256_of(path: Path, on_progress: OnProgress = ignore) -> str:
    """Return the digest of a local file; `on_progress` is called after each block."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in blocks_of(file, on_progress):
            digest.update(block)
    return digest.hexdigest()


def blocks_of(file: IO[bytes], on_progress: OnProgress = ignore) -> Iterator[bytes]:
    """Yield a file's bytes block by block; `on_progress` is called when a block is done with."""
    while block := file.read(BLOCK_BYTES):
        yield block
        on_progress()


def _sync_folder(folder: Path) -> None:
    # Without this a power cut can forget the new name although the data is safe.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    # The mark of UTF-16 little-endian begins the one of UTF-32, so UTF-32 is asked first.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_SURROGATES = dict.fromkeys(range(0xD800, 0xE000), "\ufffd")


def encoding_of(start: bytes) -> str:
    """Return the encoding of a text by its first bytes: its byte order mark, the zero bytes of UTF-16, else UTF-8."""
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding
    if len(start) >= 2 and start[0] and not start[1]:
        return "utf-16-le"
    if len(start) >= 2 and start[1] and not start[0]:
        return "utf-16-be"
    return "utf-8"


def decoded(data: bytes) -> str:
    """Return a text without its byte order mark. Raises UnicodeDecodeError."""
    return data.decode(encoding_of(data[:4])).removeprefix("\ufeff")


def storable(text: str) -> str:
    """Return the text with lone surrogates replaced, which neither UTF-8 nor a database can hold."""
    return text if text.isascii() else text.translate(_SURROGATES)
