"""What is typical contradicts the prompt in one attribute, is a prompt of the same kind, and has no prior itself."""

from __future__ import annotations

import pytest

from illume_loop.domains.shapes.grammar import parse, words
from illume_loop.domains.shapes.spec import CATEGORIES, SHAPES, Category, Spec, all_specs
from illume_loop.pretrain.typical import COLOR, COMPANION, COUNT, as_typical


def _differences(spec: Spec, other: Spec) -> int:
    parts = zip(spec.parts, other.parts, strict=True)
    return (spec.relation != other.relation) + sum(
        (one.shape != two.shape) + (one.color != two.color) + (one.count != two.count) for one, two in parts
    )


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_typical_picture_differs_in_one_attribute(category: Category) -> None:
    for spec in all_specs(category):
        typical = as_typical(spec)
        if typical is not None:
            assert typical.key != spec.key
            assert _differences(spec, typical) == 1
            assert parse(words(typical)) == typical


@pytest.mark.parametrize("category", ["two_objects", "counting", "colors", "position"])
def test_what_is_typical_stays_as_it_is(category: Category) -> None:
    for spec in all_specs(category):
        typical = as_typical(spec)
        assert typical is None or as_typical(typical) is None


def test_both_orders_of_a_relation_have_the_same_prior() -> None:
    """A prior of a position belongs to the picture, not to the wording."""
    for spec in all_specs("position"):
        typical = as_typical(spec)
        (turned,) = [other for other in all_specs("position") if other.key == spec.key and other != spec]
        of_turned = as_typical(turned)
        assert (typical is None) == (of_turned is None)
        assert typical is None or of_turned is None or typical.key == of_turned.key


def test_every_shape_has_its_own_colour_and_companion() -> None:
    assert set(COLOR) == set(COUNT) == set(COMPANION) == set(SHAPES)
    assert len(set(COLOR.values())) == len(set(COMPANION.values())) == len(SHAPES)
    assert all(COMPANION[shape] != shape for shape in SHAPES)
