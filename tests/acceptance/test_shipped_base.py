"""The shipped base keeps what its model card promises."""

from __future__ import annotations

from random import Random

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
from illume_loop.settings import GateSettings

DOMAIN = ShapesDomain()
PROMPTS = DOMAIN.prompts("heldout", 512, seed=77)


@pytest.fixture(scope="module")
def base() -> IllumeBackend:
    return IllumeBackend.load(shipped_base(), "cpu")


@pytest.fixture(scope="module")
def drawn(base: IllumeBackend) -> Drawn:
    """One draw of each of 512 held-out prompts at the guidance of the gate."""
    return alignment(base, DOMAIN, PROMPTS, list(range(512)), Sampling(GateSettings().guidance_scale), 256)


def test_it_is_small() -> None:
    assert (shipped_base() / "model.safetensors").stat().st_size <= 15_000_000


def test_encoding_and_decoding_keeps_what_an_image_shows(base: IllumeBackend) -> None:
    rng = Random(5)
    specs = [rng.choice(list(all_specs(CATEGORIES[i % len(CATEGORIES)]))) for i in range(1_000)]
    decoded = base.decode(base.encode([render(spec, rng) for spec in specs]))
    passed = sum(checker.check(image, spec).passed for image, spec in zip(decoded, specs, strict=True))
    assert passed >= 0.97 * len(specs)


def test_its_alignment_leaves_honest_headroom(drawn: Drawn) -> None:
    assert 0.30 <= sum(drawn.passed) / len(drawn.passed) <= 0.65


def test_it_judges_its_own_samples(base: IllumeBackend, drawn: Drawn) -> None:
    scores = base.log_likelihood(drawn.images, [prompt.text for prompt in PROMPTS])
    agreement = auc(list(scores), drawn.passed)
    assert agreement is not None
    assert agreement >= 0.85


def test_it_reads(base: IllumeBackend) -> None:
    right = understanding(base, DOMAIN, 256, seed=3)
    assert sum(right) / len(right) >= 0.9
