"""Good images are assessed, bad ones assessed and corrected; what is said agrees with the scores, or is counted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from illume_db.curation import ExampleRow, SampleRow
from illume_db.prompts import PromptRow
from illume_loop.loop.stages.dialogues import assessment_rows, finds_fault, written
from illume_loop.settings import CurateSettings

PROMPTS, SAMPLES = 20, 4


def _sample(position: int, index: int) -> SampleRow:
    ids = np.array([position, index], dtype=np.int32)
    sample_id = 1 + position * SAMPLES + index
    prompt = PromptRow("train", f"k{position}", "c", f"t {position}", {}, id=500 + position, position=position)
    return SampleRow(sample_id, 1, index, prompt, ids, "f" * 64)


def _critique(verdict: str, evidence: object) -> dict[str, Any]:
    return {"object": {"verdict": verdict, "evidence": f"{evidence}"}, "analysis": "it shows something"}


ALL = [_sample(position, index) for position in range(PROMPTS) for index in range(SAMPLES)]
# Of each prompt the first two are right and accepted, the second one is the best.
SCORES = {sample.key: (3.0, 4.0, 1.0, 0.0)[sample.sample_index] for sample in ALL}
ACCEPTED = [sample for sample in ALL if sample.sample_index < 2]
CRITIQUES = {s.sample_id: _critique("yes" if s.sample_index < 2 else "no", s.sample_id) for s in ALL}


def _rows(
    critiques: Mapping[int, Mapping[str, Any]] = CRITIQUES, *, seed: int = 0, **values: Any
) -> tuple[list[ExampleRow], dict[str, int]]:
    settings = CurateSettings(**{"assessment_rows": 1000, "pair_margin": 1.0} | values)
    return assessment_rows(ALL, ACCEPTED, SCORES, critiques, settings, seed)


def _said(row: ExampleRow) -> int:
    """The sample whose critique a row has."""
    return int(json.loads(row.answer or "")["object"]["evidence"])


def _assessed(row: ExampleRow) -> SampleRow:
    sample = row.rejected or row.sample
    assert sample is not None
    return sample


def test_good_images_have_one_turn_and_bad_ones_the_best_as_their_correction() -> None:
    rows, counts = _rows()
    assert counts == {"assessed": 40, "corrected": 40, "contradicted": 0, "not_critiqued": 0}
    for row in rows:
        assert row.sample is not None
        assert row.text == row.sample.prompt.text
        assert _said(row) == _assessed(row).sample_id
        if row.kind == "assess":
            assert (row.rejected, row.sample.sample_index in (0, 1)) == (None, True)
        else:
            assert row.rejected is not None
            assert (row.sample.sample_index, row.rejected.sample_index in (2, 3)) == (1, True)
            assert row.rejected.prompt.id == row.sample.prompt.id


def test_what_contradicts_its_score_or_was_not_written_is_left_out_and_counted() -> None:
    critiques = dict(CRITIQUES) | {1: _critique("no", 1), 3: _critique("yes", 3)}
    del critiques[2]
    rows, counts = _rows(critiques)
    assert counts == {"assessed": 38, "corrected": 39, "contradicted": 2, "not_critiqued": 1}
    assert not {1, 2, 3} & {_assessed(row).sample_id for row in rows}


def test_a_worse_image_within_the_margin_is_not_called_bad() -> None:
    assert _rows(pair_margin=3.5)[1]["corrected"] == 20
    assert _rows(pair_margin=9.0)[1] == {"assessed": 40, "corrected": 0, "contradicted": 0, "not_critiqued": 0}


def test_the_limit_is_half_of_each_and_the_choice_repeats() -> None:
    rows, counts = _rows(assessment_rows=30)
    assert (counts["assessed"], counts["corrected"]) == (15, 15)
    assert rows == _rows(assessment_rows=30)[0] != _rows(assessment_rows=30, seed=1)[0]
    assert _rows(assessment_rows=30, pair_margin=9.0)[1]["assessed"] == 30, "one side fills up where the other lacks"


def test_shuffled_assessments_say_the_same_of_other_images() -> None:
    rows, _ = _rows()
    shuffled, counts = _rows(assessments="shuffled")
    assert sorted(map(_said, rows)) == sorted(map(_said, shuffled))
    assert [_assessed(row).sample_id for row in rows] == [_assessed(row).sample_id for row in shuffled]
    assert sum(_said(row) == _assessed(row).sample_id for row in shuffled) < 8
    assert (counts["assessed"], counts["corrected"]) == (40, 40)


def test_assessments_of_other_images_are_of_the_same_prompt() -> None:
    rows, counts = _rows(assessments="other-image")
    by_id = {sample.sample_id: sample for sample in ALL}
    assert (len(rows), counts["no_other_image"]) == (80, 0)
    for row in rows:
        other, assessed = by_id[_said(row)], _assessed(row)
        assert other.prompt.id == assessed.prompt.id
        assert other.sample_id != assessed.sample_id
    alone = {sample.sample_id: CRITIQUES[sample.sample_id] for sample in ALL if sample.sample_index == 0}
    assert _rows(alone, assessments="other-image")[1]["no_other_image"] == 20


@pytest.mark.parametrize(("verdict", "fault"), [("yes", False), ("no", True)])
def test_a_critique_finds_fault_where_a_verdict_is_no(verdict: str, fault: bool) -> None:
    assert finds_fault(_critique(verdict, "no such thing")) is fault
    assert json.loads(written(_critique(verdict, 1))) == _critique(verdict, 1)


def test_a_critique_is_written_in_one_order_whatever_the_database_made_of_it() -> None:
    told = {"verdict": "yes", "evidence": "e"}
    anyhow = {"analysis": "a", "position": dict(reversed(told.items())), "color": told, "object": told}
    each = '{"verdict":"yes","evidence":"e"}'
    assert written(anyhow) == f'{{"object":{each},"color":{each},"position":{each},"analysis":"a"}}'
