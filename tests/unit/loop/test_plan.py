"""Plans follow from settings, seed and round index; rounds draw other prompts until all were drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from illume_loop.domains import get_domain
from illume_loop.domains.shapes.spec import spec_from_json
from illume_loop.errors import UsageError
from illume_loop.loop.stages.plan import RoundPlan, round_plan, round_prompts, sampling_units, update_units
from illume_loop.loop.unit_inputs import derived_seed, sample_seed
from illume_loop.protocols import Prompt, Split
from illume_loop.settings import Settings, load_settings


def _settings(**values: object) -> Settings:
    overrides = {f"sampling.{name}": value for name, value in values.items()} | {"curate.keep_per_prompt": 1}
    return load_settings(None, overrides, environ={})


@dataclass
class FewPrompts:
    """A domain's prompts, cut short."""

    size: int

    def prompts(self, split: Split, count: int, seed: int) -> list[Prompt]:
        if count > self.size:
            raise UsageError("too few")
        return [Prompt(f"prompt {number}", "some", str(number), {}) for number in range(count)]


def _texts(prompts: Sequence[Prompt]) -> list[str]:
    return [prompt.text for prompt in prompts]


def test_rounds_draw_other_prompts() -> None:
    settings = _settings(prompts_per_round=16)
    rounds = [round_prompts(get_domain("shapes"), settings, index) for index in (1, 2, 3)]
    assert [prompt for prompts in rounds for prompt in prompts] == get_domain("shapes").prompts("train", 48, 0)


def test_prompts_begin_anew_when_all_were_drawn() -> None:
    domain = FewPrompts(10)
    assert _texts(round_prompts(domain, _settings(prompts_per_round=4), 3)) == [
        "prompt 8",
        "prompt 9",
        "prompt 0",
        "prompt 1",
    ]
    assert _texts(round_prompts(domain, _settings(prompts_per_round=4), 6))[0] == "prompt 0"


def test_half_of_a_later_round_is_new_and_the_other_half_keeps_every_category() -> None:
    domain, settings = get_domain("shapes"), _settings(prompts_per_round=768)
    rounds = [round_prompts(domain, settings, index) for index in (1, 2, 3)]
    seen: set[str] = set()
    for index, prompts in enumerate(rounds, 1):
        counts = Counter(prompt.category for prompt in prompts)
        texts = set(_texts(prompts))
        assert len(texts) == 768
        assert len(counts) == 6
        if index > 1:
            assert len(texts - seen) >= 384
            assert min(counts[category] for category in ("counting", "position", "colors")) >= 40
        seen |= texts


@dataclass
class Uneven:
    """A domain of two categories in turn; the second one has no more than three prompts."""

    def prompts(self, split: Split, count: int, seed: int) -> list[Prompt]:
        in_turn = [category for number in range(3) for category in ("many", "few")] + ["many"] * count
        return [Prompt(f"{category} {at}", category, str(at), {}) for at, category in enumerate(in_turn[:count])]


def test_prompts_of_an_exhausted_category_are_drawn_again_in_turn() -> None:
    settings = _settings(prompts_per_round=4)
    rounds = [_texts(round_prompts(Uneven(), settings, index)) for index in (1, 2, 3, 4)]
    assert rounds == [
        ["many 0", "few 1", "many 2", "few 3"],
        ["many 4", "few 5", "many 6", "many 7"],
        ["few 1", "many 8", "many 9", "many 10"],
        ["few 3", "many 11", "many 12", "many 13"],
    ]


def test_a_round_larger_than_the_domain_is_refused() -> None:
    with pytest.raises(UsageError, match="too few"):
        round_prompts(FewPrompts(10), _settings(prompts_per_round=11), 1)


def _round(unsolved: Sequence[Prompt] = (), **values: object) -> RoundPlan:
    return round_plan(get_domain("shapes"), _settings(prompts_per_round=60, **values), 2, unsolved)


def test_nothing_gives_way_by_default() -> None:
    unsolved = get_domain("shapes").prompts("train", 30, 9)
    fresh = round_prompts(get_domain("shapes"), _settings(prompts_per_round=60), 2)
    assert _round(unsolved) == RoundPlan(fresh)


def test_half_of_the_prompts_come_in_pairs_that_differ_in_one_attribute() -> None:
    domain = get_domain("shapes")
    plan, plain = _round(minimal_pairs=0.5), _round()
    changed = [place for place, (a, b) in enumerate(zip(plan.prompts, plain.prompts, strict=True)) if a != b]
    assert len(changed) == plan.num_pairs >= 9, "a category of few prompts may have no partner that is not drawn anyway"
    assert plan == _round(minimal_pairs=0.5)
    for place in changed:
        partner = plan.prompts[place]
        assert domain.split_of(partner.text) == "train"
        assert any(_differ_in_one(partner, other) for other in plan.prompts)
    assert len(set(_texts(plan.prompts))) == 60


def _differ_in_one(one: Prompt, other: Prompt) -> bool:
    if one.category != other.category:
        return False
    a, b = spec_from_json(one.spec), spec_from_json(other.spec)
    pairs = zip(a.parts, b.parts, strict=True)
    changes = sum(getattr(x, name) != getattr(y, name) for x, y in pairs for name in ("shape", "color", "count"))
    return changes + (a.relation != b.relation) == 1


def test_what_was_drawn_in_vain_is_drawn_again_up_to_its_share_in_its_own_category() -> None:
    unsolved = [p for p in get_domain("shapes").prompts("train", 400, 9) if p.category in ("position", "counting")]
    plan = _round(unsolved, replay_share=0.3, minimal_pairs=1.0)
    assert Counter(p.category for p in plan.prompts) == Counter(p.category for p in _round().prompts)
    again = [prompt for prompt in plan.prompts if prompt in unsolved[:10]]
    assert Counter(prompt.category for prompt in again) == {"position": 3, "counting": 3}
    assert plan.num_replayed == 6
    assert len(set(_texts(plan.prompts))) == 60
    assert _round(unsolved[:1], replay_share=1.0).num_replayed == 1, "no more than there are"


def test_seeds_differ_by_every_part_of_their_key() -> None:
    seeds = {
        sample_seed(run, round_, text, index)
        for run in range(3)
        for round_ in range(3)
        for text in ("a", "b")
        for index in range(3)
    }
    assert len(seeds) == 54
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_are_the_same_for_ever() -> None:
    """Stored runs resume with these: a change here changes their samples."""
    assert sample_seed(0, 1, "a red circle", 0) == 2952182029899583286
    assert derived_seed("a", "b") != derived_seed("a\x1fb", "")


def test_units_cover_every_row_once() -> None:
    settings = _settings(prompts_per_round=5, samples_per_prompt=3, batch_size=4).sampling
    units = sampling_units(settings, 7)
    for kind, sizes in (("sample", [4, 4, 4, 3]), ("assess", [7, 7, 1])):
        of_kind = [unit for unit in units if unit.kind == kind]
        assert [unit.num_items for unit in of_kind] == sizes
        assert [row for unit in of_kind if unit.rows for row in range(*unit.rows)] == list(range(15))
    assert len({unit.key for unit in units}) == len(units)


def test_updates_of_workers_cover_each_row_once_and_wait_for_their_policy() -> None:
    grpo = {"updates": 4, "prompts_per_update": 3, "rollouts": "workers", "max_staleness": 1}
    sampling = {"samples_per_prompt": 2, "batch_size": 4}
    settings = {"grpo": grpo, "sampling": sampling, "assess": {"batch_size": 6}, "curate": {"keep_per_prompt": 1}}
    units = update_units(Settings.model_validate(settings))
    samples, assessments, trainings = (
        [unit for unit in units if unit.kind == kind] for kind in ("sample", "assess", "train")
    )
    of_samples = [(0, 4), (4, 6), (6, 10), (10, 12), (12, 16), (16, 18), (18, 22), (22, 24)]
    assert [unit.rows for unit in samples] == of_samples
    of_updates = [(0, 6), (6, 12), (12, 18), (18, 24)]
    assert [unit.rows for unit in assessments] == [unit.rows for unit in trainings] == of_updates
    assert [unit.waits for unit in samples] == [False] * 4 + [True] * 4
    assert all(unit.waits for unit in trainings)
    # The policy after update 1 draws for update 3.
    assert [unit.payload["releases"] for unit in trainings[:2]] == of_updates[2:]
