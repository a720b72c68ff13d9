"""Critiques agree with the log-odds, or are none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from PIL import Image

from illume_loop.domains.shapes.grammar import parse
from illume_loop.domains.shapes.render import render
from illume_loop.judge.critiques import parse_critique, verdicts_of, write_critiques
from illume_loop.loop.unit_inputs import derived_seed
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.protocols import Question
from tests.support.canned_model import CannedModel

PROMPT = "a red circle"
YES_AND_NO = {"object": True, "count": False}
IMAGE = render(parse(PROMPT), Random(1))


class Obedient(CannedModel):
    """Goes on from whatever is forced on it, with blanks as a word tokenizer sets them; garbles its first tries."""

    def __init__(self, num_garbled: int = 0) -> None:
        super().__init__(1.0)
        self.num_garbled = num_garbled
        self.forced: list[list[str]] = []

    def instruct(self, images: Any, instructions: Sequence[str], **more: Any) -> list[str]:
        begun: list[str] = more["forced"]
        self.forced.append(begun)
        if self.num_garbled and begun[0].endswith('"analysis":"'):
            self.num_garbled -= 1
            return [text.replace('"', ' "') + " it shows" for text in begun]
        ends = [
            ' it shows a circle "}' if text.endswith('"analysis":"') else ' a circle "},"next":"more' for text in begun
        ]
        return [text.replace('"', ' " ') + end for text, end in zip(begun, ends, strict=True)]


def _write(model: Any, verdicts: Sequence[dict[str, bool]], retries: int = 0) -> list[Any]:
    images, keys = [IMAGE] * len(verdicts), list(range(len(verdicts)))
    prompts = [PROMPT] * len(verdicts)
    return write_critiques(model, images, prompts, verdicts, retries=retries, seed_of=derived_seed, keys=keys)


def test_a_criterion_is_right_where_all_its_questions_are() -> None:
    asked = [Question(c, f"{i} ?") for i, c in enumerate(("position", "object", "object", "count"))]
    assert list(verdicts_of(asked, [1.0, 2.0, -0.1, 0.5]).items()) == [
        ("object", False),
        ("count", True),
        ("position", True),
    ]
    assert verdicts_of(asked[:1], [float("nan")]) == {"position": False}


def test_verdicts_are_set_and_what_follows_is_the_models() -> None:
    model = Obedient()
    (answer, shorter) = _write(model, [YES_AND_NO, {"object": False}])
    assert answer.value == {
        "object": {"verdict": "yes", "evidence": "a circle"},
        "count": {"verdict": "no", "evidence": "a circle"},
        "analysis": "it shows a circle",
    }
    assert shorter.value["object"]["verdict"] == "no"
    assert model.forced[0] == [
        '{"object":{"verdict":"yes","evidence":"',
        '{"object":{"verdict":"no","evidence":"',
    ]
    assert model.forced[1] == ['{"object":{"verdict":"yes","evidence":"a circle"},"count":{"verdict":"no","evidence":"']
    assert len(model.forced) == 3, "one pass for each criterion and one for the analysis"


def test_an_invalid_critique_is_counted_and_written_again() -> None:
    (answer,) = _write(Obedient(num_garbled=2), [YES_AND_NO], retries=2)
    assert answer.num_invalid == 2
    assert answer.value is not None
    (answer,) = _write(Obedient(num_garbled=9), [YES_AND_NO], retries=2)
    assert (answer.value, answer.num_invalid) == (None, 3)


def test_the_canned_world_agrees_with_itself() -> None:
    verdicts = {"object": True, "count": True, "color": True, "attribute": True}
    (answer,) = _write(CannedModel(1.0), [verdicts])
    assert answer.value["analysis"] == "it shows a red circle"
    (answer,) = _write(CannedModel(1.0), [verdicts | {"color": False}])
    assert answer.value is None, "it wrote another verdict than was set"


def test_a_model_that_cannot_write_gives_none(sharp_backend: IllumeBackend) -> None:
    answers = _write(sharp_backend, [YES_AND_NO, {"object": False}], retries=1)
    assert [(answer.value, answer.num_invalid) for answer in answers] == [(None, 2), (None, 2)]


@pytest.mark.parametrize(
    "change",
    [
        {"object": {"verdict": "no", "evidence": "a circle"}},
        {"object": {"verdict": "yes", "evidence": " "}},
        {"object": {"verdict": "yes"}},
        {"object": "yes"},
        {"analysis": ""},
        {"analysis": 3},
        {"color": {"verdict": "yes", "evidence": "red"}},
    ],
)
def test_what_is_no_critique_is_refused(change: dict[str, Any]) -> None:
    told = {"object": {"verdict": "yes", "evidence": "a circle"}, "analysis": "it shows a circle"}
    assert parse_critique(json.dumps(told), {"object": True}) == told
    with pytest.raises(ValueError, match=r"."):
        parse_critique(json.dumps(told | change), {"object": True})


def test_the_forced_beginning_is_kept_by_the_real_model(sharp_backend: IllumeBackend) -> None:
    begun = '{"object":{"verdict":"no","evidence":"a circle"},"count":{"verdict":"yes","evidence":"'
    (text,) = sharp_backend.instruct([Image.new("RGB", (48, 48))], ["assess a circle :"], forced=[begun], max_tokens=4)
    assert text.replace(" ", "").startswith(begun.replace(" ", ""))
    assert text.count('"') >= begun.count('"')
