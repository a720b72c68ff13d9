"""People overrule the judge before a manifest is built."""

from __future__ import annotations

import numpy as np
import pytest

from illume_db.curation import SampleRow
from illume_db.prompts import PromptRow
from illume_loop.loop.stages.curate import select
from illume_loop.loop.stages.dialogues import contradicts_people
from illume_loop.settings import Settings, load_settings

Key = tuple[int, int]


def _settings(**values: object) -> Settings:
    changed = {name.replace("__", "."): value for name, value in values.items()}
    return load_settings(None, {"curate.keep_per_prompt": 1, "curate.drop_lowest": 0.0} | changed, environ={})


def _prompt(position: int) -> PromptRow:
    return PromptRow("train", f"k{position}", "color", f"t{position}", {}, id=position, position=position)


def _samples(num_prompts: int = 2, of_each: int = 3) -> list[SampleRow]:
    keys = [(position, index) for position in range(num_prompts) for index in range(of_each)]
    ids = np.zeros(4, dtype=np.int32)
    return [
        SampleRow(number, 1, index, _prompt(position), ids + number, "0" * 64)
        for number, (position, index) in enumerate(keys)
    ]


SCORES: dict[Key, float] = {(0, 0): 3.0, (0, 1): 2.0, (0, 2): 1.0, (1, 0): 3.0, (1, 1): 2.0, (1, 2): 1.0}


def _accepted(settings: Settings, reviewed: dict[Key, bool]) -> list[Key]:
    return [sample.key for sample in select(_samples(), SCORES, [], settings, reviewed).accepted]


def test_what_a_person_finds_wrong_is_not_accepted_and_what_is_found_right_is() -> None:
    settings = _settings()
    assert _accepted(settings, {}) == [(0, 0), (1, 0)]
    assert _accepted(settings, {(0, 0): False}) == [(0, 1), (1, 0)]
    assert _accepted(settings, {(0, 2): True}) == [(0, 0), (0, 2), (1, 0)]
    assert _accepted(settings, {(0, 0): False, (0, 1): False, (0, 2): False}) == [(1, 0)]


def test_a_pair_is_of_what_people_found_right_and_wrong_however_it_was_scored() -> None:
    settings = _settings(train__objective="dpo", curate__pair_margin=1.5)
    selection = select(_samples(), SCORES, [], settings, {(0, 0): False, (0, 2): True})
    pairs = {(chosen.key, rejected.key) for chosen, rejected in selection.preferences}
    assert ((0, 2), (0, 0)) in pairs
    assert all(chosen != (0, 0) for chosen, _ in pairs)
    assert selection.counts["reviewed"] == 2


def test_a_sample_that_the_judge_could_not_score_is_accepted_where_a_person_finds_it_right() -> None:
    scores = {key: value for key, value in SCORES.items() if key != (0, 1)}
    selection = select(_samples(), scores, [], _settings(assess__assessor="checker"), {(0, 1): True})
    assert [sample.key for sample in selection.accepted] == [(0, 0), (0, 1), (1, 0)]


@pytest.mark.parametrize(
    ("agrees", "criteria", "expected"),
    [
        (True, {}, True),
        (False, {}, False),
        (False, {"color": False}, False),
        (False, {"color": True}, True),
        (False, {"count": False}, True),
        (False, {"position": False}, False),
    ],
)
def test_a_critique_is_held_against_what_people_decided(
    agrees: bool, criteria: dict[str, bool], expected: bool
) -> None:
    critique = {
        "color": {"verdict": "no", "evidence": "it is red"},
        "count": {"verdict": "yes", "evidence": "two"},
        "analysis": "the color is wrong",
    }
    assert contradicts_people(critique, agrees, criteria) is expected
