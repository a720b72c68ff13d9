"""Bases that are named by a hub id: what is fetched, from where, and what is said where that fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from illume_loop.errors import HubError, NotFoundError
from illume_loop.models.shipped import base_path, shipped_base
from tests.support.hub import hub

NAME = "some-lab/tiny-model"
FILES = "/{repo_id}/resolve/{revision}/{filename}"


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub with one model; the names of the files that it was asked for."""
    files = {
        "config.json": "{}",
        "model.safetensors": "weights",
        "chat_template.jinja": "",
        "README.md": "",
        "modeling.py": "import os",
        "pytorch_model.bin": "pickle",
    }
    folder = tmp_path / "served"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with hub(NAME, folder) as (url, names):
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + FILES)
        yield names


def test_weights_and_texts_are_fetched_but_neither_code_nor_pickles(asked: list[str]) -> None:
    path = base_path(NAME)
    assert {file.name for file in path.iterdir()} == {"config.json", "model.safetensors", "chat_template.jinja"}
    assert set(asked) == {"config.json", "model.safetensors", "chat_template.jinja"}
    assert base_path(NAME) == path


def test_what_was_fetched_is_found_without_the_hub(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = base_path(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert base_path(NAME) == path
    with pytest.raises(HubError, match=r"no folder some-lab/other here, and the hub could not be asked"):
        base_path("some-lab/other")


def test_a_model_that_the_hub_has_not_is_named(asked: list[str]) -> None:
    with pytest.raises(NotFoundError, match="no folder or model on the hub 'some-lab/other'"):
        base_path("some-lab/other")


def test_folders_and_shipped_names_come_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    folder = Path("some-lab/mine")
    folder.mkdir(parents=True)
    with pytest.raises(NotFoundError, match="no base model 'some-lab/mine'"):
        base_path(str(folder))
    (folder / "config.json").write_text("{}")
    assert base_path(str(folder)) == folder
    assert base_path("shapes-base") == shipped_base()
    for name in ("../elsewhere", "a/b/c", str(tmp_path / "nothing")):
        with pytest.raises(NotFoundError, match="no base model"):
            base_path(name)
