"""A checkpoint exists once it is complete, and every use verifies it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from illume_loop.artifacts.checkpoints import CACHED, IN_USE, CheckpointStore
from illume_loop.errors import CorruptArtifactError
from illume_loop.files import Root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    (made / "deep").mkdir(parents=True)
    (made / "config.json").write_text("{}")
    (made / "deep" / "model.safetensors").write_bytes(b"weights")
    return made


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> CheckpointStore:
    url = str(tmp_path / "store") if request.param == "local" else f"memory://{tmp_path}"
    return CheckpointStore(Root(url), tmp_path / "cache")


def test_what_is_published_is_found(store: CheckpointStore, folder: Path) -> None:
    checkpoint = store.publish(folder)
    shutil.rmtree(folder)
    local = store.local_path(checkpoint.sha256)
    assert (local / "deep" / "model.safetensors").read_bytes() == b"weights"
    assert checkpoint.num_bytes == len(b"{}") + len(b"weights")


def test_the_name_follows_from_the_content(store: CheckpointStore, folder: Path, tmp_path: Path) -> None:
    first = store.publish(folder)
    assert store.publish(folder) == first
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    assert store.publish(moved) == first
    (moved / "config.json").write_text("{ }")
    assert store.publish(moved) != first


@pytest.mark.parametrize("damage", ["change", "cut", "remove"])
def test_a_damaged_file_is_named(tmp_path: Path, folder: Path, damage: str) -> None:
    store = CheckpointStore(Root(str(tmp_path / "store")), tmp_path / "cache")
    sha256 = store.publish(folder).sha256
    weights = store.local_path(sha256) / "deep" / "model.safetensors"
    {
        "change": lambda: weights.write_bytes(b"weightz"),
        "cut": lambda: weights.write_bytes(b"w"),
        "remove": weights.unlink,
    }[damage]()
    with pytest.raises(CorruptArtifactError, match=r"model\.safetensors"):
        store.local_path(sha256)


def test_a_publication_cut_short_does_not_count_and_is_made_good(tmp_path: Path, folder: Path) -> None:
    store = CheckpointStore(Root(str(tmp_path / "store")), tmp_path / "cache")
    sha256 = store.publish(folder).sha256
    published = tmp_path / "store" / "checkpoints" / sha256
    (published / "manifest.json").unlink()
    (published / "config.json").write_text("half wri")
    with pytest.raises(CorruptArtifactError, match=r"manifest\.json"):
        store.local_path(sha256)
    assert store.publish(folder).sha256 == sha256
    assert (store.local_path(sha256) / "config.json").read_text() == "{}"


def test_an_empty_folder_is_no_checkpoint(store: CheckpointStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no files"):
        store.publish(tmp_path / "empty")


@pytest.mark.parametrize("name", ["../../stolen", "/etc/hostname", "deep/../../../stolen", "deep//etc/hostname"])
def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path, store: CheckpointStore, name: str) -> None:
    """A store that others write to may hold such a manifest under its right digest."""
    manifest = json.dumps({"files": {name: {"num_bytes": 1, "sha256": "0" * 64}}}).encode()
    sha256 = hashlib.sha256(manifest).hexdigest()
    store._root.write(f"checkpoints/{sha256}/manifest.json", manifest)
    with pytest.raises(CorruptArtifactError, match="names of files in it"):
        store.local_path(sha256)
    assert not (tmp_path / "stolen").exists()


def test_a_cache_holds_what_was_used_and_mends_itself(tmp_path: Path, folder: Path) -> None:
    store = CheckpointStore(Root(str(tmp_path / "store")), tmp_path / "cache", always_cache=True)
    sha256 = store.publish(folder).sha256
    weights = store.local_path(sha256) / "deep" / "model.safetensors"
    assert weights == tmp_path / "cache" / sha256 / "deep" / "model.safetensors"
    weights.write_bytes(b"weightz")
    assert store.local_path(sha256) == tmp_path / "cache" / sha256
    assert weights.read_bytes() == b"weights"


def _published(store: CheckpointStore, folder: Path, count: int) -> list[str]:
    found = []
    for number in range(count):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(f"{number}")
        found.append(store.publish(folder).sha256)
    return found


def _cached(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()}


def test_a_cache_keeps_what_was_used_last(tmp_path: Path) -> None:
    def opened() -> CheckpointStore:
        return CheckpointStore(Root(str(tmp_path / "store")), tmp_path / "cache", always_cache=True)

    names = _published(opened(), tmp_path / "published", CACHED + 3)
    (tmp_path / "cache" / "of-an-older-release").mkdir(parents=True)
    for at, name in enumerate(names):
        # Each is asked for by a process that has ended since.
        opened().local_path(name)
        os.utime(tmp_path / "cache" / f"{name}.lock", (at, at))
    opened().local_path(names[3])
    assert _cached(tmp_path) == set(names[3:])
    assert {path.name for path in (tmp_path / "cache").glob("*.lock")} == {f"{name}.lock" for name in names[3:]}
    assert (opened().local_path(names[0]) / "config.json").read_text() == "0", "it is fetched again"
    assert len(_cached(tmp_path)) == CACHED


def test_what_another_process_uses_stays_until_it_ends(tmp_path: Path) -> None:
    store = CheckpointStore(Root(str(tmp_path / "store")), tmp_path / "cache", always_cache=True)
    names = _published(store, tmp_path / "published", CACHED + IN_USE + 2)
    code = (
        "import sys; from pathlib import Path; from illume_loop.files import Root;"
        "from illume_loop.artifacts.checkpoints import CheckpointStore;"
        "store = CheckpointStore(Root(sys.argv[1]), Path(sys.argv[2]), always_cache=True);"
        "print(store.local_path(sys.argv[3]), flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "store"), str(tmp_path / "cache"), names[0]]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == str(tmp_path / "cache" / names[0])
        os.utime(tmp_path / "cache" / f"{names[0]}.lock", (0, 0))
        for name in names[1:-1]:
            store.local_path(name)
        assert names[0] in _cached(tmp_path)
        assert names[1] not in _cached(tmp_path)
        other.kill()
    store.local_path(names[-1])
    assert names[0] not in _cached(tmp_path)


def test_a_file_that_is_damaged_in_the_store_never_gets_into_the_cache(tmp_path: Path, folder: Path) -> None:
    store = CheckpointStore(Root(str(tmp_path / "store")), tmp_path / "cache", always_cache=True)
    sha256 = store.publish(folder).sha256
    published = tmp_path / "store" / "checkpoints" / sha256 / "deep" / "model.safetensors"
    published.write_bytes(b"weightz")
    with pytest.raises(CorruptArtifactError, match=r"store/checkpoints/.*model\.safetensors"):
        store.local_path(sha256)
    assert not (tmp_path / "cache" / sha256 / "deep" / "model.safetensors").exists()
