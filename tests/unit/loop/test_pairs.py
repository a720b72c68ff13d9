"""Clean pairs: which are made, which are dropped and how they are counted; near duplicates among the accepted."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from illume_db.curation import SampleRow
from illume_db.prompts import PromptRow
from illume_loop.loop.stages.curate import Key, Scored, accept, clean_pairs, select, without_near_duplicates
from illume_loop.settings import Settings, load_settings


def _pairs(
    scores: list[float | None], accepted: set[int], *, margin: float = 1.0, limit: int = 2
) -> tuple[list[tuple[int, int]], dict[str, int]]:
    """Of one prompt, by sample index."""
    settings = Settings().curate.model_copy(update={"pair_margin": margin, "pairs_per_prompt": limit})
    samples = [Scored(3, index, score) for index, score in enumerate(scores)]
    pairs, counts = clean_pairs(samples[::-1], {(3, index) for index in accepted}, settings)
    return [(chosen[1], rejected[1]) for chosen, rejected in pairs], counts


def test_best_meets_worst_and_an_image_is_rejected_once() -> None:
    assert _pairs([9.0, 8.0, 1.0, 2.0, 3.0], {0, 1})[0] == [(0, 2), (1, 3)]
    assert _pairs([9.0, 8.0, 1.0], {0, 1}, limit=9)[0] == [(0, 2)]
    assert _pairs([9.0, 1.0, 2.0, 3.0], {0}, limit=9)[0] == [(0, 1), (0, 2), (0, 3)]


def test_every_pair_that_is_not_made_is_counted_for_its_reason() -> None:
    """Accepted are 5.0 and 4.5; others are 4.5 (a tie with the second), 4.4 and 1.0."""
    pairs, counts = _pairs([5.0, 4.5, 4.5, 4.4, 1.0], {0, 1}, limit=1)
    assert pairs == [(0, 4)]
    assert counts == {"pairs": 1, "over_limit": 1, "ambiguous": 3, "ties": 1}
    assert sum(counts.values()) == 2 * 3


@pytest.mark.parametrize(("margin", "made"), [(1.9, 1), (2.0, 1), (2.1, 0)])
def test_a_pair_differs_by_the_margin_at_least(margin: float, made: int) -> None:
    pairs, counts = _pairs([3.0, 1.0], {0}, margin=margin)
    assert (len(pairs), counts["pairs"], counts["ambiguous"]) == (made, made, 1 - made)


def test_a_pair_the_wrong_way_round_is_ambiguous() -> None:
    assert _pairs([1.0, 9.0], {0}) == ([], {"pairs": 0, "over_limit": 0, "ambiguous": 1, "ties": 0})


@pytest.mark.parametrize("missing", [None, math.nan])
def test_samples_without_a_score_are_on_neither_side(missing: float | None) -> None:
    assert _pairs([9.0, missing, missing], {0, 1}) == ([], {"pairs": 0, "over_limit": 0, "ambiguous": 0, "ties": 0})


def test_prompts_do_not_meet() -> None:
    samples = [Scored(0, 0, 9.0), Scored(1, 0, 1.0)]
    assert clean_pairs(samples, {(0, 0)}, Settings().curate)[0] == []


@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]), min_size=1, max_size=6), min_size=1, max_size=6),
    st.integers(1, 4),
    st.sampled_from([0.5, 1.0, 3.0]),
)
def test_whatever_the_scores(scores: list[list[float]], limit: int, margin: float) -> None:
    """Every made pair is clean, every prompt is within its limit, and all pairs are accounted for."""
    settings = Settings().curate.model_copy(update={"pair_margin": margin, "pairs_per_prompt": limit})
    samples = [Scored(p, i, score) for p, of_prompt in enumerate(scores) for i, score in enumerate(of_prompt)]
    by_key = {sample.key: sample.score or 0.0 for sample in samples}
    accepted = set(accept(samples, settings))
    pairs, counts = clean_pairs(samples, accepted, settings)
    positions = [chosen[0] for chosen, _ in pairs]
    for chosen, rejected in pairs:
        assert chosen[0] == rejected[0]
        assert chosen in accepted
        assert rejected not in accepted
        assert by_key[chosen] - by_key[rejected] >= margin
    assert all(positions.count(position) <= limit for position in positions)
    assert len({rejected for _, rejected in pairs}) == len(pairs) == counts["pairs"]
    possible = sum(
        (p, i) in accepted and (p, j) not in accepted
        for p, row in enumerate(scores)
        for i in range(len(row))
        for j in range(len(row))
    )
    assert sum(counts.values()) == possible
    assert pairs == sorted(pairs)


def _row(index: int, ids: list[int], position: int = 0, text: str = "a red circle") -> SampleRow:
    return SampleRow(
        sample_id=100 * position + index,
        round_index=1,
        sample_index=index,
        prompt=PromptRow("train", "key", "colors", text, {}, id=position, position=position),
        image_ids=np.array(ids, dtype=np.int32),
        image_sha256="f" * 64,
    )


ALIKE = [_row(0, [1, 2, 3, 4]), _row(1, [1, 2, 3, 9]), _row(2, [7, 7, 7, 7])]
SCORES: dict[Key, float] = {(0, 0): 1.0, (0, 1): 2.0, (0, 2): 0.0}


@pytest.mark.parametrize(("share", "kept"), [(0.7, [1, 2]), (0.75, [0, 1, 2]), (1.0, [0, 1, 2])])
def test_the_worse_of_two_near_duplicates_goes(share: float, kept: list[int]) -> None:
    assert [row.sample_index for row in without_near_duplicates(ALIKE, [], SCORES, share)] == kept


def test_at_the_default_nothing_is_a_duplicate() -> None:
    twice = [ALIKE[0], replace(ALIKE[0], sample_index=1, sample_id=1)]
    assert without_near_duplicates(twice, [], SCORES, Settings().curate.duplicate_share) == twice


def test_what_earlier_rounds_accepted_counts_as_better_and_other_prompts_do_not() -> None:
    earlier = replace(ALIKE[2], round_index=0, sample_id=77)
    assert [row.sample_index for row in without_near_duplicates(ALIKE, [earlier], SCORES, 0.9)] == [0, 1]
    other = replace(earlier, prompt=replace(earlier.prompt, text="a blue circle"))
    assert len(without_near_duplicates(ALIKE, [other], SCORES, 0.9)) == 3


def _selected(**values: object) -> tuple[list[int], list[tuple[int, int]], dict[str, int]]:
    settings = load_settings(
        overrides={"curate.keep_per_prompt": 2, "curate.drop_lowest": 0.0}
        | {name.replace("__", "."): value for name, value in values.items()},
        environ={},
    )
    samples = [_row(0, [1, 2, 3, 4]), _row(1, [1, 2, 3, 9]), _row(2, [7, 7, 7, 7]), _row(3, [5, 5, 5, 5])]
    found = select(samples, {(0, 0): 8.0, (0, 1): 9.0, (0, 2): 1.0, (0, 3): 7.5}, [], settings)
    pairs = [(chosen.sample_index, rejected.sample_index) for chosen, rejected in found.preferences]
    return [row.sample_index for row in found.accepted], pairs, found.counts


def test_sft_selects_without_pairs() -> None:
    assert _selected() == ([0, 1], [], {"near_duplicates": 0})


def test_dpo_and_kto_select_the_same_samples_and_pairs_of_them() -> None:
    for objective in ("dpo", "kto"):
        accepted, pairs, counts = _selected(train__objective=objective)
        assert accepted == [0, 1]
        assert pairs == [(1, 2)], "the second best is closer to what is left than the margin"
        assert counts == {"near_duplicates": 0, "pairs": 1, "over_limit": 2, "ambiguous": 1, "ties": 0}


def test_a_near_duplicate_is_on_no_side_of_a_pair() -> None:
    accepted, pairs, counts = _selected(train__objective="dpo", curate__duplicate_share=0.5)
    assert accepted == [1]
    assert pairs == [(1, 2), (1, 3)]
    assert counts == {"near_duplicates": 1, "pairs": 2, "over_limit": 0, "ambiguous": 0, "ties": 0}
