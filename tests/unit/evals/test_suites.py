"""The suites measure what they say: on pictures and on a model whose answers are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from illume_loop.domains.shapes.domain import ShapesDomain
from illume_loop.evals.suites import alignment, image_diversity, prompt_diversity, understanding
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.protocols import Sampling, Scores
from tests.support.canned_model import CannedModel


def test_equal_images_have_no_diversity_and_opposite_ones_all_of_it() -> None:
    black, white = (Image.new("RGB", (8, 8), color) for color in ("black", "white"))
    assert image_diversity([black, black, black]) == 0.0
    assert image_diversity([black, white]) == 1.0
    assert image_diversity([black, white, black]) == pytest.approx(2 / 3)


def test_diversity_is_of_the_samples_of_one_prompt(sharp_backend: IllumeBackend) -> None:
    prompts = ["a red circle", "a blue ring"]
    alike = prompt_diversity(sharp_backend, prompts, [[1, 1], [2, 2]], Sampling())
    different = prompt_diversity(sharp_backend, prompts, [[1, 2], [3, 4]], Sampling())
    assert alike == 0.0
    assert different > 0.0


def test_alignment_draws_every_prompt_with_its_own_seed_whatever_the_batch() -> None:
    domain, model = ShapesDomain(), CannedModel(skill=0.5)
    prompts, seeds = domain.prompts("heldout", 20, 0), list(range(20))
    whole = alignment(model, domain, prompts, seeds, Sampling(), 20)
    parts = alignment(model, domain, prompts, seeds, Sampling(), 7)
    assert np.array_equal(whole.image_ids_BL, parts.image_ids_BL)
    assert whole.passed == parts.passed
    assert len(whole.images) == 20


def test_understanding_asks_which_caption_is_more_probable() -> None:
    class Longer(CannedModel):
        """Finds longer texts more probable."""

        def log_likelihood(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Scores:
            return np.array([float(len(text)) for text in texts])

    domain = ShapesDomain()
    expected = [len(p.true_caption) > len(p.false_caption) for p in domain.reading_probes(40, 1)]
    assert understanding(Longer(skill=0.5), domain, 40, 1, batch_size=16) == expected
