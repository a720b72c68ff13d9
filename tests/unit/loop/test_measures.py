"""A measure's plan has one name for one measurement."""

from __future__ import annotations

from functools import partial

import pytest

from illume_db.evaluations import DecodeTrial, best_trial
from illume_loop.domains import get_domain
from illume_loop.loop.gate_plans import DIVERSITY_SAMPLES, GUARDS, KEPT_DRAWS, MeasurePlan, gate_plans
from illume_loop.loop.stages.evaluate import best_of, measure
from illume_loop.protocols import Sampling
from illume_loop.settings import Settings, load_settings
from tests.support.canned_model import CannedModel

DOMAIN = get_domain("shapes")
SMALL = {"gate.heldout_prompts": 80, "gate.probe_items": 12, "sampling.prompts_per_round": 6}


def _settings(**values: object) -> Settings:
    return load_settings(None, SMALL | {name.replace("__", "."): value for name, value in values.items()}, environ={})


def _plan(suite: str, settings: Settings, round_index: int = 1) -> MeasurePlan:
    return gate_plans(DOMAIN, settings).of({"suite": suite}, round_index)


def _names(settings: Settings) -> list[str]:
    return [_plan(suite, settings).sha256 for suite in ("heldout", *GUARDS)]


def test_the_name_changes_with_what_is_measured() -> None:
    name = _names(_settings())
    assert len(set(name)) == 3
    assert _names(_settings()) == name
    assert _names(_settings(gate__guidance_scale=2.0)) != name
    assert _names(_settings(gate__heldout_prompts=81))[0] != name[0]
    assert _names(_settings(gate__probe_items=13))[1] != name[1]
    assert all(a != b for a, b in zip(_names(_settings(run__seed=1)), name, strict=True))


def test_the_name_does_not_change_with_what_only_trains() -> None:
    changed = _settings(train__epochs=3, curate__margin=0.5, sampling__guidance_scale=2.0, sampling__batch_size=7)
    assert _names(changed) == _names(_settings())


def test_each_round_draws_the_same_prompts_with_new_noise() -> None:
    settings = _settings()
    first, second = (_plan("heldout", settings, index) for index in (1, 2))
    assert first.sha256 != second.sha256
    assert {prompt.text for prompt in first.prompts} == {prompt.text for prompt in second.prompts}
    assert not set(first.seeds) & set(second.seeds)
    assert [_plan(suite, settings, 1) for suite in GUARDS] == [_plan(suite, settings, 2) for suite in GUARDS]


def test_looks_share_out_the_prompts_and_each_is_like_the_whole() -> None:
    settings = _settings(gate__heldout_prompts=512)
    looks = gate_plans(DOMAIN, settings).looks(3)
    assert [plan.count for plan in looks] == [128, 128, 256]
    prompts = [prompt.text for plan in looks for prompt in plan.prompts]
    wanted = DOMAIN.prompts("heldout", 512, 0)
    assert sorted(prompts) == sorted(prompt.text for prompt in wanted)
    for category in DOMAIN.categories:
        share = sum(prompt.category == category for prompt in wanted) / 512
        assert sum(prompt.category == category for prompt in looks[0].prompts) / 128 == pytest.approx(share, abs=0.12)
    assert [plan.num_kept for plan in looks] == [KEPT_DRAWS, 0, 0]


def test_two_models_are_paired() -> None:
    """Same prompts, same seeds: whatever the weaker one hits, the stronger one hits too (that is how it draws)."""
    plan = _plan("heldout", _settings())
    weak, strong = (measure(plan, partial(CannedModel, skill), DOMAIN, lambda *_: None) for skill in (0.3, 0.7))
    assert 0.15 < weak.value < 0.45 < strong.value
    assert sum(weak.passed) / len(weak.passed) == weak.value
    assert all(after for before, after in zip(weak.passed, strong.passed, strict=True) if before)
    assert len(weak.images) == KEPT_DRAWS


def test_understanding_and_diversity() -> None:
    take = partial(CannedModel, 0.5)
    understanding = measure(_plan("understanding", _settings()), take, DOMAIN, lambda *_: None)
    assert len(understanding.passed) == 12
    plan = _plan("diversity", _settings())
    diversity = measure(plan, take, DOMAIN, lambda *_: None)
    assert len(plan.seeds) == 6 * DIVERSITY_SAMPLES
    assert 0.0 < diversity.value <= 1.0
    assert diversity.passed == []


def test_trials_draw_the_same_train_prompts_at_every_decode() -> None:
    settings = _settings(gate__guidances="1,2", gate__temperatures="1,0.5", gate__decode_prompts=20)
    trials = gate_plans(DOMAIN, settings).trials
    assert [(plan.sampling.guidance_scale, plan.sampling.temperature) for plan in trials] == [
        (1.0, 1.0),
        (1.0, 0.5),
        (2.0, 1.0),
        (2.0, 0.5),
    ]
    assert all((plan.prompts, plan.seeds) == (trials[0].prompts, trials[0].seeds) for plan in trials)
    assert len({plan.sha256 for plan in trials}) == 4
    assert {DOMAIN.split_of(prompt.text) for prompt in trials[0].prompts} == {"train"}
    assert len(trials[0].prompts) == 20


def test_a_grid_of_one_decode_needs_no_trial() -> None:
    plans = gate_plans(DOMAIN, _settings(gate__guidances="2", gate__temperatures="0.5"))
    assert plans.trials == ()
    assert plans.grid == (Sampling(2.0, 0.5),)


def _trial(guidance: float, temperature: float, value: float) -> DecodeTrial:
    return DecodeTrial("", {"guidance_scale": guidance, "temperature": temperature}, value, 10)


def test_the_best_decode_does_not_depend_on_the_order_of_trials() -> None:
    setting = {"guidance_scale": 1.25, "temperature": 1.0}
    trials = [_trial(1, 1, 0.5), _trial(2, 0.5, 0.6), _trial(2, 1, 0.6), _trial(1.5, 1, 0.6), _trial(1.25, 1, 0.5)]
    for order in (trials, trials[::-1]):
        assert best_trial(order, setting) == _trial(1.5, 1, 0.6)
        assert best_trial([*order, _trial(1.25, 1, 0.6)], setting) == _trial(1.25, 1, 0.6)


def test_the_best_draw_is_the_one_that_the_model_scores_highest() -> None:
    passed = [False, True, *[False] * 6, True, *[False] * 7]
    scores = [0.1, 0.9, None, *[0.2] * 5, None, 0.3, *[0.1] * 6]
    assert best_of(passed, scores) == [True, False]
    assert best_of(passed[8:], [None] * 8) == [True]
