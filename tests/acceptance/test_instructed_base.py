"""The shipped base that was taught instructions keeps what its model card promises."""

from __future__ import annotations

import json

import numpy as np
import pytest

from illume_loop.domains.shapes.domain import ShapesDomain
from illume_loop.evals.statistics import auc
from illume_loop.evals.suites import Drawn, alignment, editing, understanding
from illume_loop.judge.instructions import GRADES, ask, critique, rate
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.models.shipped import shipped_base
from illume_loop.protocols import Sampling

DOMAIN = ShapesDomain()
PROMPTS = [prompt for prompt in DOMAIN.prompts("heldout", 96, seed=78) for _ in range(4)]
TEXTS = [prompt.text for prompt in PROMPTS]


@pytest.fixture(scope="module")
def base() -> IllumeBackend:
    return IllumeBackend.load(shipped_base("shapes-instruct"), "cpu")


@pytest.fixture(scope="module")
def drawn(base: IllumeBackend) -> Drawn:
    """Four draws of each prompt, as the loop draws them."""
    return alignment(base, DOMAIN, PROMPTS, list(range(len(PROMPTS))), Sampling(), 256)


def test_it_is_small() -> None:
    assert (shipped_base("shapes-instruct") / "model.safetensors").stat().st_size <= 15_000_000


def test_its_answers_judge_its_own_samples(base: IllumeBackend, drawn: Drawn) -> None:
    questions = [[question.text for question in DOMAIN.questions(prompt)] for prompt in PROMPTS]
    log_odds = base.yes_no_log_odds(drawn.images, questions)
    agreement = auc([float(of_image.min()) for of_image in log_odds], drawn.passed)
    assert agreement is not None
    assert agreement >= 0.93
    truth = np.concatenate([DOMAIN.answers(image, prompt) for image, prompt in zip(drawn.images, PROMPTS, strict=True)])
    assert ((np.concatenate(log_odds) > 0) == truth).mean() >= 0.9


def test_what_it_writes_can_be_read(base: IllumeBackend, drawn: Drawn) -> None:
    critiques = base.instruct(drawn.images[:48], [critique(text) for text in TEXTS[:48]])
    assert sum(_is_json(text) for text in critiques) >= 45
    grades = base.instruct(drawn.images[:48], [rate(text) for text in TEXTS[:48]], max_tokens=4)
    assert set(grades) <= set(GRADES)
    asked = base.instruct(None, [ask(text) for text in TEXTS[:48:4]])
    assert sum(_is_json(text) for text in asked) >= 10


def test_it_edits(base: IllumeBackend) -> None:
    passed = editing(base, DOMAIN.edit_probes(128, 5), list(range(128)), Sampling(1.5))
    assert sum(passed) / len(passed) >= 0.25


def test_it_reads(base: IllumeBackend) -> None:
    right = understanding(base, DOMAIN, 256, seed=3)
    assert sum(right) / len(right) >= 0.95


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True
