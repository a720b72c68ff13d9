"""A manifest's hash depends on what is trained on, and on nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from illume_db.curation import ExampleRow, SampleRow
from illume_db.prompts import PromptRow
from illume_loop.loop.canonical import manifest_sha256
from illume_loop.loop.stages.manifest import manifest_rows, new_examples
from illume_loop.loop.stages.train import training_rows
from illume_loop.protocols import CorrectRow, DrawRow, PairRow, ReadRow, RealPair
from illume_loop.settings import CurateSettings

IMAGE = Image.new("RGB", (2, 2), "red")
PAIRS = [RealPair(Image.new("RGB", (2, 2), (number, 0, 0)), f"caption {number}") for number in range(4)]
SAMPLE = SampleRow(
    sample_id=5,
    round_index=1,
    sample_index=2,
    prompt=PromptRow("train", "key", "colors", "a red circle", {}, id=7, position=0),
    image_ids=np.array([1, 2, 3], dtype=np.int32),
    image_sha256="f" * 64,
)
SETTINGS = CurateSettings(caption_share=0.5, self_captions=True)


def _sha256(*samples: SampleRow, settings: CurateSettings = SETTINGS) -> str:
    return manifest_sha256(manifest_rows(samples, PAIRS, settings))


def test_samples_are_drawn_and_read_and_real_pairs_replayed() -> None:
    rows = manifest_rows([SAMPLE], PAIRS, SETTINGS)
    assert [(row.kind, row.text, row.real_index) for row in rows] == [
        ("draw", "a red circle", None),
        ("read", "a red circle", None),
        ("read", "caption 0", 0),
        ("read", "caption 1", 1),
        ("draw", "caption 2", 2),
        ("draw", "caption 3", 3),
    ]
    without = manifest_rows([SAMPLE], [], SETTINGS.model_copy(update={"self_captions": False}))
    assert [row.kind for row in without] == ["draw"]


def test_the_hash_knows_no_ids_of_the_database() -> None:
    assert _sha256(SAMPLE) == _sha256(
        replace(SAMPLE, sample_id=99, prompt=replace(SAMPLE.prompt, id=98), image_sha256="0" * 64)
    )


def test_the_hash_knows_everything_that_is_trained_on() -> None:
    others = [
        replace(SAMPLE, prompt=replace(SAMPLE.prompt, text="a blue circle")),
        replace(SAMPLE, image_ids=np.array([1, 2, 4], dtype=np.int32)),
        replace(SAMPLE, sample_index=3),
        replace(SAMPLE, round_index=2),
    ]
    hashes = {_sha256(SAMPLE), *map(_sha256, others), _sha256(SAMPLE, SAMPLE), _sha256()}
    hashes.add(_sha256(SAMPLE, settings=CurateSettings(caption_share=0.25, self_captions=True)))
    assert len(hashes) == 8


def test_the_hash_is_the_same_for_ever() -> None:
    """Stored manifests are verified against it before training."""
    assert _sha256(SAMPLE) == "13142f5aae583ce602f337bc3bc3081126f2b56c1bed5514f71f69d0267caa6d"


WORSE = replace(SAMPLE, sample_id=6, sample_index=4, image_ids=np.array([9, 9, 9], dtype=np.int32))
OTHER = replace(SAMPLE, sample_id=8, sample_index=1)


def test_a_chosen_sample_stands_in_its_pairs_and_the_others_are_drawn() -> None:
    rows = manifest_rows([SAMPLE, OTHER], PAIRS[:1], SETTINGS, [(SAMPLE, WORSE)])
    assert [
        (row.kind, row.sample and row.sample.sample_id, row.rejected and row.rejected.sample_id) for row in rows
    ] == [
        ("pair", 5, 6),
        ("draw", 8, None),
        ("read", 5, None),
        ("read", 8, None),
        ("draw", None, None),
    ]
    assert [(e.sample_id, e.rejected_id, e.prompt_id) for e in new_examples(rows)][:2] == [(5, 6, 7), (8, None, 7)]
    pair = training_rows(rows[:1], [], lambda _: np.zeros((0, 3), np.int32), lambda _: IMAGE)[0]
    assert isinstance(pair, PairRow)
    assert (pair.prompt, pair.chosen_ids.tolist(), pair.rejected_ids.tolist()) == ("a red circle", [1, 2, 3], [9, 9, 9])


def test_the_hash_knows_both_sides_of_a_pair() -> None:
    def sha256(*preferences: tuple[SampleRow, SampleRow]) -> str:
        return manifest_sha256(manifest_rows([SAMPLE], PAIRS, SETTINGS, preferences))

    assert sha256() == _sha256(SAMPLE)
    hashes = {
        sha256(),
        sha256((SAMPLE, WORSE)),
        sha256((WORSE, SAMPLE)),
        sha256((SAMPLE, replace(WORSE, image_ids=np.array([9, 9, 8], dtype=np.int32)))),
        sha256((SAMPLE, replace(WORSE, sample_index=5))),
        sha256((SAMPLE, replace(WORSE, round_index=2))),
    }
    assert len(hashes) == 6
    assert sha256((SAMPLE, WORSE)) == sha256((SAMPLE, replace(WORSE, sample_id=99)))
    assert sha256((SAMPLE, WORSE)) == "49055051a8e96d96588d03862ee4cc1cbee2beb7010700b9129c03a6905d5133", (
        "stored manifests are verified against it"
    )


def test_rows_become_training_rows_in_order() -> None:
    encoded: list[str] = []

    def encode(images: object) -> np.ndarray:
        assert isinstance(images, list)
        encoded.extend(str(image.getpixel((0, 0))) for image in images)
        return np.arange(2 * len(images), dtype=np.int32).reshape(len(images), 2)

    rows = training_rows(manifest_rows([SAMPLE], PAIRS, SETTINGS), PAIRS, encode, lambda _: IMAGE)
    assert encoded == ["(2, 0, 0)", "(3, 0, 0)"]
    draw, read, real_read, _, real_draw, last = rows
    assert isinstance(draw, DrawRow)
    assert draw.image_ids.tolist() == [1, 2, 3]
    assert read == ReadRow(IMAGE, "a red circle")
    assert real_read == ReadRow(PAIRS[0].image, "caption 0")
    assert isinstance(real_draw, DrawRow)
    assert isinstance(last, DrawRow)
    assert (real_draw.prompt, real_draw.image_ids.tolist()) == ("caption 2", [0, 1])
    assert last.image_ids.tolist() == [2, 3]


def test_examples_name_either_a_sample_or_a_real_pair() -> None:
    sample, *_, real = new_examples(manifest_rows([SAMPLE], PAIRS, SETTINGS))
    assert (sample.sample_id, sample.prompt_id, sample.real_index) == (5, 7, None)
    assert sample.ids_sha256 is not None
    assert (real.sample_id, real.prompt_id, real.ids_sha256, real.real_index) == (None, None, None, 3)


def test_assessments_train_as_one_turn_and_two() -> None:
    worse = replace(SAMPLE, sample_id=6, sample_index=0, image_ids=np.array([9, 9, 9], dtype=np.int32))
    rows = [
        ExampleRow("assess", SAMPLE.prompt.text, None, SAMPLE, answer="{}"),
        ExampleRow("correct", SAMPLE.prompt.text, None, SAMPLE, worse, "{}"),
    ]
    images = {SAMPLE.image_sha256: IMAGE}
    one, two = training_rows(rows, [], lambda _: np.zeros((0, 3), np.int32), images.__getitem__)
    assert one == ReadRow(IMAGE, "{}", "assess a red circle :")
    assert isinstance(two, CorrectRow)
    assert (two.image, two.instruction, two.answer) == (IMAGE, "assess a red circle :", "{}")
    assert two.request == "make it show a red circle"
    assert two.image_ids.tolist() == SAMPLE.image_ids.tolist()
    for row, example in zip(rows, new_examples(rows), strict=True):
        assert (example.kind, example.answer, example.rejected_id) == (row.kind, "{}", row.rejected and 6)
        assert manifest_sha256([row]) != manifest_sha256([replace(row, answer="[]")])
    everything = manifest_rows([SAMPLE], PAIRS, SETTINGS, (), rows)
    assert [row.kind for row in everything] == ["draw", "read", "assess", "correct", "read", "read", "draw", "draw"]
