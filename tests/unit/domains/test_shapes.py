"""The shapes world: an exact checker, disjoint splits, a grammar that reads what it writes."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import get_args

import pytest
from PIL import Image

from illume_loop.domains.shapes import checker
from illume_loop.domains.shapes.domain import CAPTION_NOISE, ShapesDomain, noisy, split_of
from illume_loop.domains.shapes.grammar import OPENINGS, parse, words
from illume_loop.domains.shapes.render import CANVAS, GROUND, Placed, draw, render
from illume_loop.domains.shapes.spec import (
    CATEGORIES,
    Part,
    Spec,
    all_specs,
    change_one_attribute,
    spec_from_json,
)
from illume_loop.errors import PromptOutsideGrammarError, UsageError
from illume_loop.protocols import Split

DOMAIN = ShapesDomain()
SPLITS: tuple[Split, ...] = get_args(Split)
EVERY_SPEC = [spec for category in CATEGORIES for spec in all_specs(category)]


def random_specs(count: int, seed: int) -> list[tuple[Spec, Random]]:
    rng = Random(seed)
    by_category = {category: list(all_specs(category)) for category in CATEGORIES}
    return [(rng.choice(by_category[CATEGORIES[i % len(CATEGORIES)]]), rng) for i in range(count)]


def test_the_checker_accepts_ground_truth_and_rejects_changed_attributes() -> None:
    """The bar is 99.5 % of 5,000 each way."""
    accepted = rejected = named = 0
    for spec, rng in random_specs(5_000, seed=11):
        accepted += checker.check(render(spec, rng), spec).passed
        other, attribute = change_one_attribute(spec, rng)
        verdict = checker.check(render(other, rng), spec)
        rejected += not verdict.passed
        named += attribute in verdict.failed
    assert accepted >= 0.995 * 5_000
    assert rejected >= 0.995 * 5_000
    assert named >= 0.995 * 5_000, "the checker must say which criterion failed"


@pytest.mark.parametrize(
    ("objects", "prompt", "failed"),
    [
        ([], "a circle", {"object", "count"}),
        ([("circle", "red", 8, 8)], "a blue circle", {"color"}),
        ([("circle", "red", 8, 8)], "a red square", {"object"}),
        ([("ring", "red", 8, 8)], "two red rings", {"count"}),
        (
            [("ring", "red", 8, 8), ("ring", "red", 24, 8), ("cross", "red", 24, 40)],
            "two red rings",
            {"object", "count"},
        ),
        ([("ring", "red", 8, 8), ("cross", "red", 24, 8)], "a cross left of a ring", {"position"}),
        ([("ring", "red", 8, 8), ("cross", "red", 24, 24)], "a ring left of a cross", {"position"}),
        ([("ring", "red", 8, 8), ("cross", "blue", 24, 8)], "a blue ring and a red cross", {"color"}),
    ],
)
def test_the_failed_criterion_is_named(objects: list[tuple], prompt: str, failed: set[str]) -> None:  # type: ignore[type-arg]
    image = draw([Placed(*thing) for thing in objects])
    assert set(DOMAIN.check(image, DOMAIN.parse(prompt)).failed) >= failed - {"count"}
    assert not DOMAIN.check(image, DOMAIN.parse(prompt)).passed


def test_blots_are_no_objects() -> None:
    image = Image.new("RGB", (CANVAS, CANVAS), GROUND)
    image.paste((228, 38, 44), (4, 4, 20, 9))
    assert checker.look(image)[0].shape is None
    assert DOMAIN.check(image, DOMAIN.parse("a red square")).failed[0] == "object"


def test_a_frame_with_nothing_in_its_middle_is_no_object() -> None:
    image = Image.new("RGB", (CANVAS, CANVAS), (228, 38, 44))
    image.paste(GROUND, (3, 3, CANVAS - 3, CANVAS - 3))
    assert [thing.shape for thing in checker.look(image)] == [None]
    assert not DOMAIN.check(image, DOMAIN.parse("a red square")).passed


def test_other_image_sizes_are_read_too() -> None:
    spec = parse("a red circle")
    image = render(spec, Random(0)).resize((192, 192), Image.Resampling.NEAREST)
    assert checker.check(image, spec).passed


def test_the_grammar_reads_what_it_writes() -> None:
    for spec in EVERY_SPEC:
        for opening in OPENINGS:
            assert parse(words(spec, opening)) == spec
        assert spec_from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "write for example"),
        ("a dog", "'dog'"),
        ("five circles", "'five'"),
        ("a mauve circle", "'mauve'"),
        ("two circle", "'circle'"),
        ("a circle and a square and a ring", "at most two"),
        ("a circle and a circle", "different shapes"),
        ("two circles and a ring", "single objects"),
        ("a red circle and a square", "colours"),
    ],
)
def test_prompts_outside_the_grammar_say_why(text: str, word: str) -> None:
    with pytest.raises(PromptOutsideGrammarError, match=word):
        parse(text)


def test_equal_meanings_have_one_key() -> None:
    assert parse("a circle left of a ring").key == parse("A ring  right of a circle.").key
    assert parse("a red ring and a blue cross").key == parse("a picture of a blue cross and a red ring").key
    assert parse("a circle left of a ring").key != parse("a ring left of a circle").key


def test_splits_share_no_composition() -> None:
    keys = {split: {p.key for p in DOMAIN.prompts(split, count, 0)} for split, count in SPLIT_SIZES.items()}
    assert not keys["train"] & keys["heldout"]
    assert not keys["train"] & keys["probe"]
    assert not keys["heldout"] & keys["probe"]
    for split in keys:
        assert {p.category for p in DOMAIN.prompts(split, 200, 0)} == set(CATEGORIES)


SPLIT_SIZES = {"train": 3_000, "heldout": 1_500, "probe": 500}


def test_prompts_are_distinct_and_a_longer_list_begins_with_the_shorter() -> None:
    long = DOMAIN.prompts("train", 1_000, 3)
    assert len({prompt.text for prompt in long}) == 1_000
    assert DOMAIN.prompts("train", 300, 3) == long[:300]
    assert DOMAIN.prompts("train", 300, 4) != long[:300]


def test_asking_for_more_prompts_than_there_are_is_refused() -> None:
    with pytest.raises(UsageError, match="ask for fewer"):
        DOMAIN.prompts("probe", 100_000, 0)


def test_real_pairs_stay_in_the_training_split_and_carry_the_stated_noise() -> None:
    pairs = DOMAIN.real_pairs(600, 1)
    wrong = 0
    for pair in pairs:
        assert split_of(parse(pair.caption)) == "train"
        wrong += not DOMAIN.check(pair.image, DOMAIN.parse(pair.caption)).passed
    assert abs(wrong / len(pairs) - CAPTION_NOISE) < 0.07


def test_reading_probes_have_one_true_caption() -> None:
    for probe in DOMAIN.reading_probes(120, 5):
        assert split_of(parse(probe.true_caption)) == "probe"
        assert DOMAIN.check(probe.image, DOMAIN.parse(probe.true_caption)).passed
        assert not DOMAIN.check(probe.image, DOMAIN.parse(probe.false_caption)).passed


def test_noise_is_never_a_second_true_caption() -> None:
    rng = Random(2)
    spec = Spec("position", (Part("ring"), Part("cross")), "above")
    assert all(noisy(spec, 1.0, rng).key != spec.key for _ in range(200))


def test_a_partner_differs_in_one_attribute_and_stays_in_the_train_split() -> None:
    attributes = Counter[str]()
    for prompt in DOMAIN.prompts("train", 600, 3):
        partner = DOMAIN.partner(prompt, seed=5)
        assert partner == DOMAIN.partner(prompt, seed=5)
        assert partner is not None
        assert DOMAIN.split_of(partner.text) == "train"
        assert partner.category == prompt.category
        assert [partner.text.startswith(words) for words in OPENINGS] == [prompt.text.startswith(w) for w in OPENINGS]
        assert partner.key != prompt.key
        one, other = spec_from_json(prompt.spec), spec_from_json(partner.spec)
        pairs = list(zip(one.parts, other.parts, strict=True))
        changed = [
            name for name in ("shape", "color", "count") for a, b in pairs if getattr(a, name) != getattr(b, name)
        ]
        changed += ["relation"] * (one.relation != other.relation)
        assert len(changed) == 1
        attributes[changed[0]] += 1
    assert min(attributes[name] for name in ("shape", "color", "count", "relation")) > 20


def test_a_text_is_of_the_split_of_its_composition_whatever_its_wording() -> None:
    for split in SPLITS:
        for prompt in DOMAIN.prompts(split, 30, 2):
            assert DOMAIN.split_of(prompt.text.upper() + " .") == split
    assert DOMAIN.split_of("a horse") is None
