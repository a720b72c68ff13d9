"""The recipe: stages train what they say, resume where they were killed, and end in a loadable model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from illume_loop.errors import NotFoundError
from illume_loop.models.registry import load_model
from illume_loop.pretrain.pretraining import Pretraining, run_recipe
from illume_loop.pretrain.recipe import STAGES, Recipe
from illume_loop.pretrain.stepper import ParameterGroup, train_stage


@pytest.fixture(scope="module")
def finished(tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A recipe run from end to end, and the stages that it reported."""
    out, seen = tmp_path_factory.mktemp("recipe"), []
    Pretraining(tiny_recipe, out, lambda stage, *_: seen.append(stage)).run(STAGES)
    return out, list(dict.fromkeys(seen))


def test_every_stage_runs_in_order_and_leaves_a_model(finished: tuple[Path, list[str]], tiny_recipe: Recipe) -> None:
    out, seen = finished
    assert [stage for stage in seen if stage != "corpus"] == list(tiny_recipe.stages)
    assert load_model(out / "model").tokens_per_image == 36


def test_a_finished_recipe_is_not_trained_again(finished: tuple[Path, list[str]], tiny_recipe: Recipe) -> None:
    out, _ = finished
    before = (out / "model" / "model.safetensors").read_bytes()
    seen: list[str] = []
    Pretraining(tiny_recipe, out, lambda stage, *_: seen.append(stage)).run(STAGES)
    assert seen == []
    assert (out / "model" / "model.safetensors").read_bytes() == before


def test_stage1_trains_the_adapter_and_the_vision_rows_only(tiny_recipe: Recipe, tmp_path: Path) -> None:
    """Text rows of embedding and head and the whole language model stay bit-identical; vision rows and adapter move."""
    stage = dataclasses.replace(tiny_recipe.language["stage1"], steps=6)
    recipe = dataclasses.replace(tiny_recipe, language={**tiny_recipe.language, "stage1": stage})
    run = Pretraining(recipe, tmp_path, lambda *_: None)
    run.run(STAGES[: STAGES.index("stage1")])
    before = {name: tensor.detach().clone() for name, tensor in run.model.named_parameters()}
    run.run(("stage1",))
    num_text_ids = run.model.config.num_text_ids
    for name, after in run.model.named_parameters():
        if name.endswith(("embed_tokens.weight", "lm_head.weight")):
            assert torch.equal(after[:num_text_ids], before[name][:num_text_ids]), f"text rows of {name} moved"
            assert not torch.equal(after[num_text_ids:], before[name][num_text_ids:]), f"vision rows of {name} did not"
        else:
            assert torch.equal(after, before[name]) != ("adapter" in name), name


def test_a_recipe_may_have_a_stage_of_its_own(tiny_recipe: Recipe, tmp_path: Path) -> None:
    binding = tiny_recipe.language["stage2"]
    recipe = dataclasses.replace(
        tiny_recipe, vocabulary="prompts", language={**tiny_recipe.language, "binding": binding}
    )
    run = Pretraining(recipe, tmp_path, lambda *_: None)
    run.run(("binding",))
    assert (tmp_path / "binding.safetensors").exists()
    assert run.backend().unknown_words("is it a red circle") == ["is", "it"]


def test_stages_are_not_the_recipes_to_invent(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no recipe 'clouds'"):
        run_recipe("clouds", tmp_path)
    with pytest.raises(NotFoundError, match="no stage 'stage9'"):
        run_recipe("shapes", tmp_path, ("stage9",))
    with pytest.raises(NotFoundError, match="no stage 'binding'"):
        run_recipe("shapes", tmp_path, ("binding",))


class Killed(Exception):
    """Stands for the end of the process: nothing after it runs."""


@pytest.mark.parametrize("killed_at", [1, 251, 499])
def test_a_killed_stage_ends_with_the_weights_of_an_unbroken_one(tmp_path: Path, killed_at: int) -> None:
    def stage(checkpoint: Path, killed_at: int) -> Tensor:
        torch.manual_seed(0)
        module = nn.Linear(4, 4)

        def loss_at(step: int) -> Tensor:
            if step == killed_at:
                raise Killed
            inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            return (module(inputs) - inputs.flip(1)).square().mean()

        groups = [ParameterGroup(list(module.parameters()), 1e-2, 0.1)]
        train_stage("toy", module, groups, loss_at, 600, checkpoint, lambda *_: None)
        return module.weight.detach()

    unbroken = stage(tmp_path / "unbroken.safetensors", killed_at=-1)
    with pytest.raises(Killed):
        stage(tmp_path / "broken.safetensors", killed_at)
    assert torch.equal(stage(tmp_path / "broken.safetensors", killed_at=-1), unbroken)
