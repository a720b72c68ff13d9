"""Questions, critiques, grades and edits of the shapes world say what the checker sees."""

from __future__ import annotations

import json
from random import Random

from illume_loop.domains.shapes.checker import check, look
from illume_loop.domains.shapes.domain import ShapesDomain
from illume_loop.domains.shapes.edits import Edit, apply, check_edit, random_edit
from illume_loop.domains.shapes.grammar import parse
from illume_loop.domains.shapes.questions import questions
from illume_loop.domains.shapes.render import Placed, draw, place, render
from illume_loop.domains.shapes.spec import CATEGORIES, all_specs, change_one_attribute
from illume_loop.domains.shapes.wordings import critique, grade, scene
from illume_loop.protocols import CRITERIA

SPECS = [Random(category).choice(list(all_specs(category))) for category in CATEGORIES for _ in range(2)]


def test_yes_is_the_answer_to_every_question_about_a_right_image() -> None:
    domain = ShapesDomain()
    for prompt in domain.prompts("train", 120, 0):
        image = render(parse(prompt.text), Random(prompt.text))
        assert domain.questions(prompt)
        assert all(domain.answers(image, prompt)), prompt.text
        assert {question.criterion for question in domain.questions(prompt)} <= set(CRITERIA)


def test_a_changed_attribute_is_answered_with_no() -> None:
    domain = ShapesDomain()
    for index, prompt in enumerate(domain.prompts("train", 120, 0)):
        rng = Random(index)
        other, _ = change_one_attribute(parse(prompt.text), rng)
        assert not all(domain.answers(render(other, rng), prompt)), prompt.text


def test_questions_are_worded_by_the_spec() -> None:
    texts = [asked.question.text for asked in questions(parse("an orange ring and a blue square"))]
    assert texts == [
        "is there a ring ?",
        "is there one ring ?",
        "is there anything orange ?",
        "is the ring orange ?",
        "is there a square ?",
        "is there one square ?",
        "is there anything blue ?",
        "is the square blue ?",
        "are there two objects ?",
    ]
    assert questions(parse("a ring above a cross"))[-1].question.text == "is the ring above the cross ?"


def test_a_critique_agrees_with_the_checker() -> None:
    spec = parse("a red circle and a blue square")
    wrong = look(render(parse("a red circle and a green square"), Random(1)))
    told = critique(spec, wrong)
    assert {name: part["verdict"] for name, part in told.items() if isinstance(part, dict)} == {
        "object": "yes",
        "count": "yes",
        "color": "no",
        "attribute": "no",
    }
    assert str(told["analysis"]).startswith("it should show a red circle and a blue square but shows a ")
    assert "green square" in str(told["analysis"])
    assert (grade(spec, wrong), grade(spec, look(render(spec, Random(2))))) == (3, 5)
    assert json.loads(json.dumps(told)) == told


def test_a_scene_is_told_in_the_words_of_prompts() -> None:
    for spec in SPECS:
        if spec.relation is None and all(part.color for part in spec.parts):
            assert check(render(spec, Random(3)), parse(scene(look(render(spec, Random(3)))))).passed
    assert scene([]) == "nothing"


def test_an_edit_changes_what_was_meant_and_nothing_else() -> None:
    done = 0
    for seed in range(200):
        rng = Random(seed)
        layout = place(SPECS[seed % len(SPECS)], rng)
        edit = random_edit(layout, rng)
        if edit is None:
            continue
        done += 1
        before, after = draw(layout), draw(apply(edit, layout))
        assert check_edit(before, after, edit).passed, edit.text
        assert check_edit(before, before, edit).failed == ("object",), edit.text
        moved = [Placed(t.shape, t.color, t.x, t.y) for t in apply(edit, layout)][1:]
        assert not check_edit(before, draw(moved), edit).passed
    assert done > 150


def test_probes_of_editing_accept_the_edit_alone() -> None:
    domain = ShapesDomain()
    probes = domain.edit_probes(60, 0)
    assert [probe.instruction for probe in domain.edit_probes(30, 0)] == [probe.instruction for probe in probes[:30]]
    assert {probe.category for probe in probes} == {"color", "object"}
    assert not any(probe.check(probe.image).passed for probe in probes)


def test_edits_are_worded_by_what_changes() -> None:
    assert Edit("red", "circle", "blue", "circle").text == "make the red circle blue"
    assert Edit("red", "circle", "red", "square").text == "make the red circle a square"
