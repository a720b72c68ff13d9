"""Checkpoints: folders of files, named by the sha256 of a manifest that lists each file's size and sha256.

Invariants:
- A checkpoint exists once its manifest exists. The files are written first, each whole or not at all, and the manifest
  last. A publication that was killed leaves only files that the next one overwrites.
- The name follows from the content, so publishing twice is the same as publishing once.
- Every use verifies every file.
- A host's cache keeps the `CACHED` checkpoints that were used last, and every checkpoint in use. Each process holds the
  last `IN_USE` checkpoints that it asked for, by locks that the kernel frees when the process ends.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from illume_loop.artifacts.locks import last_used, unused, used
from illume_loop.errors import CorruptArtifactError, UsageError
from illume_loop.files import Root, sha256_of, stays_below
from illume_loop.hooks import OnProgress, ignore

MANIFEST = "manifest.json"
_LOCK = ".lock"
CACHED = 4
"""Enough for the active version, its parent, the run's base and a candidate."""
IN_USE = 4
"""More than any unit reads: the gate compares two checkpoints, and a training reads one."""
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz")
"""Endings of files that loaders unpickle, or can be asked to unpickle."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A published checkpoint."""

    sha256: str
    num_bytes: int


class CheckpointStore:
    """A store of checkpoints, in folders checkpoints/<sha256>/ below a root."""

    def __init__(
        self, root: Root, cache: Path, *, always_cache: bool = False, on_progress: OnProgress = ignore
    ) -> None:
        """Open the store.

        `cache` is a local folder. It is used if the root is not local, or with `always_cache`, because a shared folder
        is slow. `on_progress` is called after each block of a file that is copied or verified.
        """
        self._on_progress = on_progress
        self._root = root
        self._cache = cache
        self._is_cached = always_cache or not root.is_local
        self._used: OrderedDict[str, int] = OrderedDict()
        weakref.finalize(self, _give_back, self._used)

    def publish(self, folder: Path) -> Checkpoint:
        """Copy a local folder into the store.

        Raises StorageFullError, UsageError for weights in a format that can run code when it is read, and ValueError
        for an empty folder.
        """
        files, manifest = _listed(folder, self._on_progress)
        for name in files:
            if name.endswith(PICKLED):
                raise UsageError(f"{folder / name} may be a pickle, which can run code; keep weights as safetensors")
        sha256 = hashlib.sha256(manifest).hexdigest()
        if not self.has(sha256):
            for name, path in files.items():
                self._root.write_file(_path(sha256, name), path, self._on_progress)
            self._root.write(_path(sha256, MANIFEST), manifest)
        return Checkpoint(sha256, sum(path.stat().st_size for path in files.values()))

    def remove(self, sha256: str) -> None:
        """Delete a checkpoint from the store, if it is there. The caches of hosts are pruned by themselves."""
        # Without its manifest a checkpoint does not exist, so a kill in between leaves only files.
        self._root.remove(_path(sha256, MANIFEST))
        self._root.remove(_path(sha256))

    def has(self, sha256: str) -> bool:
        """Return True if the store has a checkpoint of this name."""
        return self._root.exists(_path(sha256, MANIFEST))

    def local_path(self, sha256: str) -> Path:
        """Return a verified local folder with the checkpoint's files; fetch them if the store uses its cache.

        A damaged file in the cache is fetched again. Raises CorruptArtifactError, which names the file, if a file in
        the store is missing or damaged.
        """
        entries = self._entries(sha256)
        if self._is_cached:
            return self._fetch(sha256, entries)
        folder = Path(self._root.full(_path(sha256)))
        for name, entry in entries.items():
            verify_file(folder / name, entry, self._on_progress)
        return folder

    def folder_of_training(self, name: str) -> Path | None:
        """Return the folder of a training's checkpoints; None if the store is not a folder.

        All hosts with this store see the folder. Trainers write and list its files themselves.
        """
        return Path(self._root.full(f"training/{name}")) if self._root.is_local else None

    def _entries(self, sha256: str) -> dict[str, Any]:
        manifest = self._root.read(_path(sha256, MANIFEST))
        found = hashlib.sha256(manifest).hexdigest()
        if found != sha256:
            raise CorruptArtifactError(path=self._root.full(_path(sha256, MANIFEST)), expected=sha256, found=found)
        entries: dict[str, Any] = json.loads(manifest)["files"]
        for name in entries:
            # These names are joined to local folders too, and others may write to the store of the manifest.
            if not stays_below(name):
                raise CorruptArtifactError(
                    path=self._root.full(_path(sha256, MANIFEST)), expected="names of files in it", found=repr(name)
                )
        return entries

    def _fetch(self, sha256: str, entries: dict[str, Any]) -> Path:
        self._use(sha256)
        folder = self._cache / sha256
        for name, entry in entries.items():
            try:
                verify_file(folder / name, entry, self._on_progress)
            except CorruptArtifactError:
                self._fetch_file(_path(sha256, name), folder / name, entry["sha256"])
        self._prune()
        return folder

    def _fetch_file(self, relative: str, target: Path, expected: str) -> None:
        def check(found: str) -> None:
            if found != expected:
                raise CorruptArtifactError(path=self._root.full(relative), expected=expected, found=found) from None

        self._root.read_file(relative, target, check, self._on_progress)

    def _use(self, sha256: str) -> None:
        """Hold a checkpoint of the cache; release the least recently asked for ones beyond `IN_USE`."""
        before = self._used.pop(sha256, None)
        self._used[sha256] = used(_lock(self._cache, sha256))
        if before is not None:
            os.close(before)
        while len(self._used) > IN_USE:
            os.close(self._used.popitem(last=False)[1])

    def _prune(self) -> None:
        """Delete the cached checkpoints that no process uses, except the `CACHED` ones that were used last."""
        names = {path.name.removesuffix(_LOCK) for path in self._cache.iterdir()}
        used_at = {name: last_used(_lock(self._cache, name)) for name in names}
        for name in sorted(names, key=lambda name: used_at[name], reverse=True)[CACHED:]:
            with unused(_lock(self._cache, name)) as is_free:
                if is_free:
                    shutil.rmtree(self._cache / name, ignore_errors=True)


def checkpoint_sha256(folder: Path) -> str:
    """Return the name that a local folder has, or would have, in a store. Raises ValueError for an empty folder."""
    return hashlib.sha256(_listed(folder)[1]).hexdigest()


def _listed(folder: Path, on_progress: OnProgress = ignore) -> tuple[dict[str, Path], bytes]:
    """Return the files of a folder by name, and the manifest that lists them."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    files.pop(MANIFEST, None)
    if not files:
        raise ValueError(f"{folder} holds no files to publish")
    return files, json.dumps({"files": entries_of(files, on_progress)}, sort_keys=True, indent=1).encode()


def entries_of(files: Mapping[str, Path], on_progress: OnProgress = ignore) -> dict[str, Any]:
    """Return the manifest's entry of each file, with `num_bytes` and `sha256`, by the file's name."""
    return {
        name: {"num_bytes": path.stat().st_size, "sha256": sha256_of(path, on_progress)} for name, path in files.items()
    }


def verify_file(path: Path, entry: Mapping[str, Any], on_progress: OnProgress = ignore) -> None:
    """Compare a file with its entry; call `on_progress` after each block.

    Raises CorruptArtifactError, which names the file, if the file is missing or differs from its entry.
    """
    if not path.exists():
        raise CorruptArtifactError(path=path, expected="a file", found="none")
    if path.stat().st_size != entry["num_bytes"]:
        raise CorruptArtifactError(
            path=path, expected=f"{entry['num_bytes']} bytes", found=f"{path.stat().st_size} bytes"
        )
    found = sha256_of(path, on_progress)
    if found != entry["sha256"]:
        raise CorruptArtifactError(path=path, expected=entry["sha256"], found=found)


def _lock(cache: Path, sha256: str) -> Path:
    return cache / f"{sha256}{_LOCK}"


def _give_back(used_now: OrderedDict[str, int]) -> None:
    for descriptor in used_now.values():
        os.close(descriptor)


def _path(sha256: str, name: str = "") -> str:
    return f"checkpoints/{sha256}/{name}".rstrip("/")
