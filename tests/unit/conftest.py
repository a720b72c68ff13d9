"""Small random models for unit tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.pretrain.recipe import Recipe
from tests.support.sharp_base import sharpened, small_recipe


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    """The shapes recipe in a few seconds: every stage, two steps each."""
    return small_recipe()


@pytest.fixture(scope="session")
def sharp_backend(tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> IllumeBackend:
    """A random model whose distributions are far from uniform."""
    return sharpened(tiny_recipe, Path(tmp_path_factory.mktemp("sharp")))
