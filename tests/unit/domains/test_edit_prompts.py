"""Edits as prompts: what they ask for, and that no split learns of another."""

from __future__ import annotations

from itertools import product
from random import Random

import pytest

from illume_loop.domains.shapes.checker import check
from illume_loop.domains.shapes.domain import ShapesDomain
from illume_loop.domains.shapes.edit_prompts import SOURCE_CATEGORIES, edit_prompts
from illume_loop.domains.shapes.edits import Edit, apply
from illume_loop.domains.shapes.grammar import one, parse
from illume_loop.domains.shapes.render import draw, place
from illume_loop.domains.shapes.spec import COLORS, SHAPES, spec_from_json
from illume_loop.errors import UsageError
from illume_loop.protocols import Split

DOMAIN = ShapesDomain()
SPLITS: tuple[Split, ...] = ("train", "heldout", "probe")
EDITS = {split: DOMAIN.edits(split, 60, 0) for split in SPLITS}


@pytest.mark.parametrize("split", SPLITS)
def test_source_and_target_are_of_the_split_and_tell_each_other_apart(split: Split) -> None:
    for prompt in EDITS[split]:
        source, (_, _, words) = DOMAIN.source(prompt), prompt.text.partition(": ")
        assert {DOMAIN.split_of(text) for text in (prompt.text, prompt.text.upper(), prompt.target, words)} == {split}
        assert check(source, parse(words)).passed
        assert not DOMAIN.check(source, prompt).passed
        assert not DOMAIN.check(source, prompt.claim).passed
        assert DOMAIN.source(prompt) == source
        assert prompt.claim.text == prompt.target
        assert not prompt.claim.is_edit
        assert all(question.text for question in DOMAIN.questions(prompt.claim))


def test_the_right_edit_passes_and_a_picture_of_the_target_elsewhere_does_not() -> None:
    for prompt in EDITS["train"][:30]:
        source = parse(prompt.text.partition(": ")[2])
        layout = place(source, Random(f"shapes/source/{prompt.text.partition(': ')[2]}"))
        right = draw(apply(Edit(**prompt.spec["edit"]), layout))  # type: ignore[arg-type]
        assert DOMAIN.check(right, prompt).passed, prompt.text
        assert DOMAIN.check(right, prompt.claim).passed, prompt.text
        assert spec_from_json(prompt.spec) == parse(prompt.target)
        elsewhere = [draw(place(parse(prompt.target), Random(seed))) for seed in range(8)]
        assert not all(DOMAIN.check(image, prompt).passed for image in elsewhere)
        assert all(DOMAIN.check(image, prompt.claim).passed for image in elsewhere)


def test_edits_of_two_splits_share_nothing() -> None:
    texts = [{prompt.text for c in SOURCE_CATEGORIES for prompt in edit_prompts(c, s, Random(0))} for s in SPLITS]
    keys = [{prompt.key for prompt in EDITS[split]} for split in SPLITS]
    for sets in (texts, keys):
        assert len(set.union(*sets)) == sum(map(len, sets))
    assert all(len(found) > 40 for found in texts)


def test_an_edit_across_splits_is_not_for_training() -> None:
    assert DOMAIN.split_of("make the red circle blue: a horse") is None
    assert DOMAIN.split_of("make the red circle a horse: a red circle") is None
    found = set()
    for color, shape in product(COLORS, SHAPES):
        if shape != "circle":
            splits = {DOMAIN.split_of(one(f"{color} {shape}")), DOMAIN.split_of(one(f"{color} circle"))}
            edit = DOMAIN.split_of(f"make the {color} circle {one(shape)}: {one(f'{color} circle')}")
            assert (edit == "train") == (splits == {"train"})
            assert edit in splits
            found.add(len(splits))
    assert found == {1, 2}


def test_more_edits_begin_with_the_same_and_too_many_are_refused() -> None:
    assert DOMAIN.edits("train", 20, 0) == EDITS["train"][:20]
    assert [p.text for p in DOMAIN.edits("train", 20, 1)] != [p.text for p in EDITS["train"][:20]]
    assert len({prompt.text for prompt in EDITS["heldout"]}) == 60
    with pytest.raises(UsageError, match="edits, 100000 were asked for"):
        DOMAIN.edits("probe", 100_000, 0)
