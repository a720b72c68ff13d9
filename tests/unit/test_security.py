"""Nothing that is read can run code: no pickle in any form, safetensors only, no eval."""

from __future__ import annotations

import ast
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from illume_loop.artifacts.checkpoints import CheckpointStore
from illume_loop.errors import CorruptArtifactError, UsageError
from illume_loop.files import Root
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.models.registry import load_model
from illume_loop.models.shipped import SHIPPED, shipped_base

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path for room in ("illume_loop", "workers", "db", "migrations") for path in (ROOT / room).rglob("*.py")
)
CODE_RUNNERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "torch.load", "torch.save", "yaml.load", "os.system"}
FORBIDDEN_ARGUMENTS = {"allow_pickle", "trust_remote_code", "shell"}


def _breaches(tree: ast.AST, words: frozenset[str] = frozenset({"pickle"})) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names if name.name.split(".")[0] in CODE_RUNNERS)
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in CODE_RUNNERS:
                yield module
            case ast.Call(func=func, keywords=keywords):
                if ast.unparse(func) in FORBIDDEN_CALLS:
                    yield ast.unparse(func)
                yield from (word.arg for word in keywords if word.arg in FORBIDDEN_ARGUMENTS and not _is_off(word))
            case ast.Constant(value=str(value)) if value in words:
                yield f"the word {value!r}"


def _is_off(word: ast.keyword) -> bool:
    return isinstance(word.value, ast.Constant) and word.value.value is False


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_reads_what_could_run(path: Path) -> None:
    # Celery takes the name of a serialiser; elsewhere YAML is a kind of file, which `yaml.safe_load` reads.
    words = {"pickle", "yaml"} if path.is_relative_to(ROOT / "workers") else {"pickle"}
    assert list(_breaches(ast.parse(path.read_text(encoding="utf-8")), frozenset(words))) == []


def test_the_search_finds_what_it_looks_for() -> None:
    text = (
        "import pickle\nfrom dill import x\ntorch.load(p)\nnp.load(p, allow_pickle=True)\naccept = ['pickle', 'yaml']\n"
    )
    assert len(list(_breaches(ast.parse(text)))) == 5
    assert len(list(_breaches(ast.parse(text), frozenset({"pickle", "yaml"})))) == 6
    assert len(list(_breaches(ast.parse("f(trust_remote_code=flag)\ng(trust_remote_code=False)")))) == 1


class _Bomb:
    """Leaves a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def test_pickled_weights_in_a_checkpoint_are_not_read(sharp_backend: IllumeBackend, tmp_path: Path) -> None:
    folder, mark = tmp_path / "checkpoint", tmp_path / "exploded"
    sharp_backend.save(folder)
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Bomb(mark)))
    with pytest.raises(CorruptArtifactError, match="safetensors"):
        load_model(folder)
    torch.save({"weight": torch.zeros(1)}, folder / "pytorch_model.bin")
    with pytest.raises(CorruptArtifactError, match="safetensors"):
        load_model(folder)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "deep/optimizer.pt", "scaler.pkl", "training_args.bin"])
def test_a_file_that_may_be_a_pickle_is_not_published(tmp_path: Path, name: str) -> None:
    file = tmp_path / "made" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    store = CheckpointStore(Root(str(tmp_path / "store")), tmp_path / "cache")
    with pytest.raises(UsageError, match="safetensors"):
        store.publish(tmp_path / "made")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_what_ships_is_safetensors_and_text(name: str) -> None:
    endings = {path.suffix for path in shipped_base(name).rglob("*") if path.is_file()}
    assert endings <= {".safetensors", ".json", ".md", ".txt", ".jinja"}
