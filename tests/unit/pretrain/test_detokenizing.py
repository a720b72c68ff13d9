"""Training a detokenizer: any pictures, only the detokenizer moves, a killed stage ends as an unbroken one does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from illume_loop.cli.main import app
from illume_loop.errors import NotFoundError, RepaintingChangedError, UsageError
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.models.registry import load_model
from illume_loop.pretrain import stepper
from illume_loop.pretrain.detokenizing import with_replaced_ids
from illume_loop.pretrain.pretraining import run_recipe
from illume_loop.pretrain.repainting import REPAINTINGS, DetokenizerRecipe, repaint
from illume_loop.protocols import Sampling

TINY = DetokenizerRecipe("tiny", channels=(8, 16), patch=8, painting_steps=2, steps=8, batch=4, learning_rate=3e-3)


@pytest.fixture(scope="module")
def base(sharp_backend: IllumeBackend, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with the convolutional detokenizer."""
    folder = tmp_path_factory.mktemp("base")
    sharp_backend.save(folder)
    return folder


@pytest.fixture(scope="module")
def repainted(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after a recipe that went through."""
    return repaint(TINY, str(base), tmp_path_factory.mktemp("repainted"), lambda *_: None)


def test_only_the_detokenizer_is_another(base: Path, repainted: Path) -> None:
    """The new model draws the same ids, and every other tensor is bit-identical."""
    before, after = (load_file(path / "model.safetensors") for path in (base, repainted))
    for name in {name for name in before.keys() | after.keys() if ".detokenizer." not in name}:
        assert torch.equal(before[name], after[name]), name
    old, new = (load_model(path) for path in (base, repainted))
    ids = [model.sample(["a red circle"], [5], Sampling()) for model in (old, new)]
    assert np.array_equal(*ids)
    assert old.decode(ids[0])[0].size == new.decode(ids[1])[0].size == (48, 48)
    assert json.loads((repainted / "recipe.json").read_text())["name"] == "tiny"


class Killed(Exception):
    """Stands for the end of the process: nothing after it runs."""


def test_a_killed_training_ends_with_the_weights_of_an_unbroken_one(
    base: Path, repainted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stepper, "CHECKPOINT_EVERY", 3)

    def pixels_at(step: int) -> torch.Tensor:
        if step == 5:
            raise Killed
        return TINY.pixels_at(step)

    with pytest.raises(Killed):
        repaint(TINY, str(base), tmp_path, lambda *_: None, pixels_at)
    assert not (tmp_path / "model").exists()
    ended = repaint(TINY, str(base), tmp_path, lambda *_: None)
    before, after = (load_file(path / "model.safetensors") for path in (repainted, ended))
    for name in before:
        assert torch.equal(before[name], after[name]), name


def test_training_paints_better_at_twice_the_size(base: Path, tmp_path: Path) -> None:
    """What is learned are pictures of one's own, larger than those that the encoder takes."""
    losses: list[float] = []
    pixels = torch.zeros(4, 3, 96, 96)
    pixels[:, :, 16:32, 40:80] = torch.rand(4, 3, 1, 1)
    for steps in (1, 50):
        recipe = replace(TINY, upscale=2, patch=16, steps=steps, learning_rate=1e-2)
        out = tmp_path / str(steps)
        ended = repaint(recipe, str(base), out, lambda *told: losses.append(told[-1]), lambda _: pixels)
    assert losses[-1] < losses[0] / 2, losses
    model = load_model(ended)
    (image,) = model.decode(model.sample(["a red circle"], [5], Sampling()))
    assert image.size == (96, 96)


def test_a_tenth_of_the_ids_of_half_the_images_are_replaced() -> None:
    ids = torch.full((2_000, 36), 7)
    changed = with_replaced_ids(ids, 1_000, torch.Generator().manual_seed(0)) != ids
    touched = changed.any(dim=1)
    assert float(touched.float().mean()) == pytest.approx(0.5, abs=0.05)
    assert float(changed[touched].float().mean()) == pytest.approx(0.1, abs=0.01)


def test_a_folder_belongs_to_one_model_and_recipe(base: Path, repainted: Path) -> None:
    with pytest.raises(RepaintingChangedError, match="another recipe;"):
        repaint(replace(TINY, steps=9), str(base), repainted.parent, lambda *_: None)
    with pytest.raises(RepaintingChangedError, match="another base;"):
        repaint(TINY, "shapes-base", repainted.parent, lambda *_: None)


def test_what_a_recipe_of_a_detokenizer_needs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name one, such as --from shapes-instruct"):
        run_recipe("shapes-diffusion", tmp_path)
    with pytest.raises(UsageError, match="leave out --from"):
        run_recipe("shapes", tmp_path, base="shapes-base")
    with pytest.raises(NotFoundError, match="no stage 'stage1'"):
        run_recipe("shapes-diffusion", tmp_path, ["stage1"], base="shapes-base")
    with pytest.raises(NotFoundError, match="no base model 'clouds'"):
        run_recipe("shapes-diffusion", tmp_path, base="clouds")


def test_the_command_leaves_a_model_that_other_commands_take(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REPAINTINGS, "tiny", TINY)
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> str:
        ran = CliRunner().invoke(app, list(arguments))
        assert ran.exit_code == 0, ran.output
        return ran.stdout

    assert command("pretrain", "--recipe", "tiny", "--from", str(base), "-o", "mine") == "mine/model\n"
    command("sample", "a red circle", "--model", "mine/model", "-n", "2", "-o", "drawn")
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 2
