"""The shipped base keeps what its model card promises."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from illume_loop.domains.shapes import checker
from illume_loop.domains.shapes.domain import ShapesDomain
from illume_loop.domains.shapes.render import render
from illume_loop.domains.shapes.spec import CATEGORIES, all_specs
from illume_loop.evals.statistics import auc
from illume_loop.evals.suites import Drawn, alignment, understanding
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.models.shipped import shipped_base
from illume_loop.protocols import Sampling
from illume_loop.settings import Settings

DOMAIN = ShapesDomain()
PROMPTS = DOMAIN.prompts("heldout", 512, seed=77)
SETTING = Sampling(Settings().sampling.guidance_scale, Settings().sampling.temperature)
OF_EIGHT = 192
"""Prompts that are drawn eight times."""


@pytest.fixture(scope="module")
def base() -> IllumeBackend:
    return IllumeBackend.load(shipped_base(), "cpu")


@pytest.fixture(scope="module")
def drawn(base: IllumeBackend) -> Drawn:
    """One draw of each of 512 held-out prompts at the default decode."""
    return alignment(base, DOMAIN, PROMPTS, list(range(512)), SETTING, 256)


@pytest.fixture(scope="module")
def eight(base: IllumeBackend) -> tuple[np.ndarray, np.ndarray]:
    """Eight draws of each of some held-out prompts: whether each is right, and its log-likelihood; each prompts x 8."""
    prompts = [prompt for prompt in PROMPTS[:OF_EIGHT] for _ in range(8)]
    drawn = alignment(base, DOMAIN, prompts, list(range(len(prompts))), SETTING, 256)
    scores = base.log_likelihood(drawn.images, [prompt.text for prompt in prompts])
    return np.reshape(drawn.passed, (-1, 8)), np.reshape(scores, (-1, 8))


def test_it_is_small() -> None:
    assert (shipped_base() / "model.safetensors").stat().st_size <= 15_000_000


def test_encoding_and_decoding_keeps_what_an_image_shows(base: IllumeBackend) -> None:
    rng = Random(5)
    specs = [rng.choice(list(all_specs(CATEGORIES[i % len(CATEGORIES)]))) for i in range(1_000)]
    decoded = base.decode(base.encode([render(spec, rng) for spec in specs]))
    passed = sum(checker.check(image, spec).passed for image, spec in zip(decoded, specs, strict=True))
    assert passed >= 0.97 * len(specs)


def test_its_alignment_leaves_honest_headroom(drawn: Drawn) -> None:
    assert 0.50 <= sum(drawn.passed) / len(drawn.passed) <= 0.70


def test_one_of_eight_draws_is_right_and_the_base_finds_it(eight: tuple[np.ndarray, np.ndarray]) -> None:
    right, scores = eight
    chosen = right[np.arange(len(right)), scores.argmax(axis=1)]
    assert right.any(axis=1).mean() >= 0.93
    assert chosen.mean() >= 0.88
    position = [prompt.category == "position" for prompt in PROMPTS[:OF_EIGHT]]
    assert chosen[position].mean() >= 0.75


def test_it_judges_its_own_samples(base: IllumeBackend, drawn: Drawn) -> None:
    scores = base.log_likelihood(drawn.images, [prompt.text for prompt in PROMPTS])
    agreement = auc(list(scores), drawn.passed)
    assert agreement is not None
    assert agreement >= 0.85


def test_it_reads(base: IllumeBackend) -> None:
    right = understanding(base, DOMAIN, 256, seed=3)
    assert sum(right) / len(right) >= 0.97
