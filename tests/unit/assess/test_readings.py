"""Readings by name."""

from __future__ import annotations

import pytest
from PIL import Image

from illume_loop.assess.readings import READINGS, score_batch
from illume_loop.config import AssessSettings
from illume_loop.errors import NotFoundError
from illume_loop.models.illume.backend import IllumeBackend


def test_the_settings_and_the_readings_name_the_same_things(sharp_backend: IllumeBackend) -> None:
    images = [Image.new("RGB", (48, 48), "red")] * 2
    for name in READINGS:
        AssessSettings(reading=name)  # type: ignore[arg-type] # the setting is a Literal of these names
        scores = score_batch(sharp_backend, images, ["a red circle", "a blue ring"], name)
        assert all(score < 0 for score in scores), "a log-likelihood"


def test_unknown_readings_are_refused(sharp_backend: IllumeBackend) -> None:
    with pytest.raises(NotFoundError, match="no reading 'tea-leaves'"):
        score_batch(sharp_backend, [], [], "tea-leaves")
