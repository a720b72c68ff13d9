"""Variants leave out what they say and nothing else; a quantiser of pixels is a tokenizer like the other."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest

from illume_loop.domains.shapes.render import render
from illume_loop.models.registry import load_model
from illume_loop.pretrain.pretraining import Pretraining
from illume_loop.pretrain.recipe import RECIPES, STAGES, Recipe
from illume_loop.pretrain.scenes import random_spec
from illume_loop.pretrain.variants import TASKS_OF, VISUAL, variant, visual_part


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_task_is_of_a_kind_or_of_text(name: str) -> None:
    tasks = {task for stage in RECIPES[name].language.values() for task in stage.mix}
    assert tasks - TASKS_OF["generation"] - TASKS_OF["understanding"] <= {"text", "ask"}
    assert not TASKS_OF["generation"] & TASKS_OF["understanding"]


@pytest.mark.parametrize("learns", ["generation", "understanding"])
def test_the_rows_that_stay_are_as_many(learns: str) -> None:
    recipe = RECIPES["shapes-small"]
    changed = variant(recipe, seed=3, learns=learns)  # type: ignore[arg-type]
    assert changed.seed == 3
    for name, stage in recipe.language.items():
        only = changed.language[name]
        assert only.steps == stage.steps
        assert set(only.mix) == {t for t in stage.mix if t in TASKS_OF[learns] | {"text", "ask"}}  # type: ignore[index]
        for task, weight in only.mix.items():
            rows, before = only.share * weight / sum(only.mix.values()), stage.mix[task] / sum(stage.mix.values())
            assert rows == pytest.approx(before)


def test_what_is_alike_in_the_visual_stages_shares_them() -> None:
    recipe = RECIPES["shapes-small"]
    parts = [visual_part(variant(recipe, seed=0, learns=learns)) for learns in ("both", "generation")]  # type: ignore[arg-type]
    assert parts[0] == parts[1]
    assert visual_part(variant(recipe, seed=1)) != parts[0]
    assert visual_part(variant(recipe, seed=0, quantised="pixels")) != parts[0]


def test_a_quantiser_of_pixels_encodes_and_decodes(tiny_recipe: Recipe, tmp_path: Path) -> None:
    Pretraining(variant(tiny_recipe, seed=0, quantised="pixels"), tmp_path, lambda *_: None).run(STAGES)
    model = load_model(tmp_path / "model")
    images = [render(random_spec(Random(index)), Random(index)) for index in range(4)]
    ids = model.encode(images)
    assert ids.shape == (4, 36)
    assert len(np.unique(ids)) > 1
    assert model.decode(ids)[0].size == images[0].size
    assert VISUAL == ("encoder", "tokenizer", "detokenizer")
