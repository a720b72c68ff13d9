"""A checkpoint tells the domain that it was made for, whatever it was saved as."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.models.shipped import SHIPPED, domain_of_checkpoint, shipped_base
from tests.support.tiny_janus import save_tiny_janus


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_bases_and_what_is_saved_of_them_are_of_the_shapes_world(name: str, tmp_path: Path) -> None:
    assert domain_of_checkpoint(shipped_base(name)) == "shapes"
    IllumeBackend.load(shipped_base(name), "cpu").save(tmp_path / "candidate")
    assert domain_of_checkpoint(tmp_path / "candidate") == "shapes"


def test_a_janus_takes_any_prompt(tmp_path: Path) -> None:
    assert domain_of_checkpoint(save_tiny_janus(tmp_path / "janus")) == "text"


@pytest.mark.parametrize("file", ["config.json", "recipe.json"])
def test_what_a_checkpoint_says_of_itself_goes_before_its_words(file: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((shipped_base() / "tokenizer.json").read_bytes())
    (tmp_path / file).write_text(json.dumps({"domain": "kitchens"}))
    assert domain_of_checkpoint(tmp_path) == "kitchens"


@pytest.mark.parametrize("content", ["{", "[]", '{"domain": 3}', ""])
def test_a_damaged_file_tells_nothing(content: str, tmp_path: Path) -> None:
    for name in ("config.json", "recipe.json", "tokenizer.json"):
        (tmp_path / name).write_text(content)
    assert domain_of_checkpoint(tmp_path) == "text"


@pytest.mark.parametrize("name", SHIPPED)
def test_words_that_a_model_never_saw_are_named_each_once(name: str, tmp_path: Path) -> None:
    model = IllumeBackend.load(shipped_base(name), "cpu")
    assert model.unknown_words("A red circle left of a blue square") == []
    assert model.unknown_words("a black bird and a black cat") == ["black", "bird", "cat"]
