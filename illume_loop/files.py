"""Files that are written whole or not at all, on a local disk or in a store of fsspec.

On a local disk, a file is written under a temporary name beside the target, synced and renamed, and its folder is
synced. Object stores write whole objects anyway. A full disk raises StorageFullError and leaves no file.
"""

from __future__ import annotations

import codecs
import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
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
"""The bytes after which a file is synced while it is being written."""

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class Root:
    """A folder of an fsspec file system. No path leads out of it."""

    def __init__(self, url: str) -> None:
        """Open the folder of a URL.

        Raises SettingsError for a URL of an unknown kind, UsageError if the package for its kind is not installed
        (MissingExtraError for S3), and StoreUnusableError if the store does not answer.
        """
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
        """Return the root of a local folder. Its name may have any characters, even those special in a URL."""
        root = cls.__new__(cls)
        root._hold(LocalFileSystem(), str(folder.absolute()))
        return root

    def _hold(self, filesystem: AbstractFileSystem, path: str) -> None:
        self.filesystem: AbstractFileSystem = filesystem
        self.path = path.rstrip("/")
        self.is_local = isinstance(filesystem, LocalFileSystem)

    def full(self, relative: str) -> str:
        """Return the file system's name of a path below this root. Raises ValueError if it may lead elsewhere."""
        if not stays_below(relative):
            raise ValueError(f"{relative!r} leads out of the artifact store")
        return f"{self.path}/{relative}"

    def exists(self, relative: str) -> bool:
        """Return True if there is a file or folder of this name."""
        path = self.full(relative)
        with _usable(self.path):
            return bool(self.filesystem.exists(path))

    def read(self, relative: str) -> bytes:
        """Return the bytes of a file. Raises CorruptArtifactError if there is no such file."""
        path = self.full(relative)
        try:
            with _usable(self.path):
                return bytes(self.filesystem.cat_file(path))
        except FileNotFoundError:
            raise CorruptArtifactError(path=path, expected="a file", found="none") from None

    def write(self, relative: str, data: bytes) -> None:
        """Write a file whole or not at all. Raises StorageFullError, StoreUnusableError."""
        target = self.full(relative)
        with _usable(self.path, missing=True), raising_storage_full(target):
            if self.is_local:
                write_atomically(Path(target), data)
            else:
                self.filesystem.pipe_file(target, data)

    def write_file(self, relative: str, source: Path, on_progress: OnProgress = ignore) -> None:
        """Copy a local file to `relative`, whole or not at all. Raises StorageFullError, StoreUnusableError."""
        target = self.full(relative)
        with _usable(self.path, missing=True), raising_storage_full(target):
            if self.is_local:
                with source.open("rb") as file:
                    write_atomically(Path(target), blocks_of(file, on_progress))
            else:
                self.filesystem.put_file(str(source), target, callback=_Reports(on_progress))

    def remove(self, relative: str) -> None:
        """Delete a file, or a folder with all that is in it; do nothing if there is none. Raises StoreUnusableError."""
        path = self.full(relative)
        with _usable(self.path), suppress(FileNotFoundError):
            self.filesystem.rm(path, recursive=True)

    def read_file(
        self, relative: str, target: Path, check: Callable[[str], None], on_progress: OnProgress = ignore
    ) -> None:
        """Copy a file to the local file `target` block by block, then call `check` with the sha256 of its bytes.

        If `check` raises, no file is left at `target`. Raises CorruptArtifactError if there is no such file,
        StorageFullError, StoreUnusableError.
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
            with opened as file, raising_storage_full(target):
                write_atomically(target, checked(file))
        except FileNotFoundError:
            raise CorruptArtifactError(path=self.full(relative), expected="a file", found="none") from None


class _Reports(Callback):  # type: ignore[misc]
    """A callback of fsspec that reports the progress of a copy."""

    def __init__(self, on_progress: OnProgress) -> None:
        super().__init__()
        self._on_progress = on_progress

    def call(self, *_: object, **__: object) -> None:
        """Report that one more part is copied."""
        self._on_progress()


@contextmanager
def _usable(store: str, *, missing: bool = False) -> Iterator[None]:
    """Turn a store's errors into StoreUnusableError.

    Object stores raise errors of many packages, for a wrong address, for credentials and for an outage alike. Errors
    that are not the store's fault pass unchanged: a full disk, a missing file, a wrong URL, a missing package. With
    `missing`, a missing file is the store's error too, because a write meets it only if there is no such bucket.
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
    """Return the absolute path of a local folder, given as a path or as a file URL; None for another store.

    `::` joins a chain of stores (`simplecache::s3://...`), but in a folder's name it means nothing. Raises
    SettingsError for a store without its slashes (`s3:...`), because a folder of that name is never meant.
    """
    scheme, separator, rest = url.partition("://")
    if separator:
        return str(Path(rest).absolute()) if scheme in ("file", "local") else None
    name = url.partition(":")[0]
    if name != url and name in available_protocols():
        raise SettingsError(reason=f"store.artifacts_url = {url!r}: write {name}://... for a store of this kind")
    return str(Path(url).expanduser().absolute())


def stays_below(relative: str) -> bool:
    """Return True if a path stays below the folder that it is joined to, on every file system.

    It must have no empty, `.` or `..` part, no backslash and no control character, both as written and with its
    %-escapes decoded.
    """
    for name in (relative, unquote(relative)):
        if any(part in ("", ".", "..") for part in name.split("/")) or "\\" in name or not name.isprintable():
            return False
    return True


def output_folder(folder: Path) -> Path:
    """Make the folder that the user named for a command's output, before the work begins.

    Raises UsageError if it cannot be made, StorageFullError.
    """
    with raising_storage_full(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in DISK_FULL:
                raise
            raise UsageError(f"cannot write to {folder}: {error.strerror}; name another directory") from None
    return folder


def write_atomically(target: Path, data: bytes | Iterable[bytes]) -> None:
    """Write `data` to `target` on a local disk, durably, whole or not at all. If a block raises, no file is left."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            unsynced = 0
            for block in [data] if isinstance(data, bytes) else data:
                file.write(block)
                unsynced += len(block)
                if unsynced >= SYNC_BYTES:
                    # Sync now and then: a single sync at the end could take minutes without a progress report.
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
def raising_storage_full(path: object) -> Iterator[None]:
    """Turn the operating system's "disk full" into StorageFullError."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise StorageFullError(path=path) from error
        raise


def disk_is_full(error: BaseException | None) -> bool:
    """Return True if a full disk has caused an error. SQLite and safetensors say so only in the message."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            return True
        if any(words in str(error) for words in ("No space left on device", "database or disk is full")):
            return True
        error = error.__cause__ or error.__context__
    return False


def sha256_of(path: Path, on_progress: OnProgress = ignore) -> str:
    """Return the sha256 of a local file; `on_progress` is called after each block."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in blocks_of(file, on_progress):
            digest.update(block)
    return digest.hexdigest()


def blocks_of(file: IO[bytes], on_progress: OnProgress = ignore) -> Iterator[bytes]:
    """Yield a file's bytes block by block; `on_progress` is called after the caller has used a block."""
    while block := file.read(BLOCK_BYTES):
        yield block
        on_progress()


def _sync_folder(folder: Path) -> None:
    # Without this a power cut can lose the new name although the data is safe.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    # UTF-32's little-endian mark begins with UTF-16's, so UTF-32 is tested first.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_SURROGATES = dict.fromkeys(range(0xD800, 0xE000), "\ufffd")


def encoding_of(start: bytes) -> str:
    """Return a text's encoding, judged by its byte order mark or by the zero bytes of UTF-16; UTF-8 otherwise."""
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding
    if len(start) >= 2 and start[0] and not start[1]:
        return "utf-16-le"
    if len(start) >= 2 and start[1] and not start[0]:
        return "utf-16-be"
    return "utf-8"


def decoded(data: bytes) -> str:
    """Return the text of some bytes, without the byte order mark. Raises UnicodeDecodeError."""
    return data.decode(encoding_of(data[:4])).removeprefix("\ufeff")


def storable(text: str) -> str:
    """Return the text with its lone surrogates replaced, because neither UTF-8 nor a database can hold them."""
    return text if text.isascii() else text.translate(_SURROGATES)
