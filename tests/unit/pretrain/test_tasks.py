"""Every task of every stage is worded in the words that the base has, and its questions have both answers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from illume_loop.domains.shapes.grammar import parse
from illume_loop.pretrain.batches import LONG, Pairs, Task, batches_at
from illume_loop.pretrain.corpus import _features
from illume_loop.pretrain.pretraining import Pretraining
from illume_loop.pretrain.recipe import Recipe
from illume_loop.pretrain.scenes import pixel_batch
from illume_loop.pretrain.typical import as_typical

TASKS: tuple[Task, ...] = ("draw", "read", "reconstruct", "text", "question", "rate", "critique", "ask", "edit")


@pytest.fixture(scope="module")
def pretraining(tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Pretraining:
    return Pretraining(tiny_recipe, Path(tmp_path_factory.mktemp("tasks")), lambda *_: None)


@pytest.mark.parametrize("task", TASKS)
def test_no_word_is_unknown(pretraining: Pretraining, task: Task) -> None:
    unknown = pretraining.processor.tokenizer.unk_token_id
    (batch,) = batches_at(0, "test", {task: 1.0}, pretraining.corpus, pretraining.sequences, 200, Pairs(0.5), 0)
    assert not (batch.tensors["input_ids"] == unknown).any()
    assert (batch.tensors["labels"] != -100).any(dim=1).all()


def test_long_rows_have_a_batch_of_their_own(pretraining: Pretraining) -> None:
    mix: dict[Task, float] = {"draw": 0.5, "critique": 0.3, "edit": 0.2}
    short, long = batches_at(1, "test", mix, pretraining.corpus, pretraining.sequences, 64, Pairs(0.5), 0)
    assert len(short.tensors["input_ids"]) + len(long.tensors["input_ids"]) == 64
    assert short.tensors["input_ids"].shape[1] < long.tensors["input_ids"].shape[1]
    assert len(long.tensors["image_features"]) == len(long.tensors["input_ids"])
    assert "image_features" not in short.tensors
    assert set(mix) & set(LONG) == {"critique", "edit"}


def test_yes_and_no_are_equally_often_right(pretraining: Pretraining) -> None:
    (batch,) = batches_at(2, "test", {"question": 1.0}, pretraining.corpus, pretraining.sequences, 100, Pairs(0.5), 0)
    learned = batch.tensors["labels"]
    answers = Counter(learned[learned != -100].tolist())
    yes, no = (pretraining.sequences.words(word)[0] for word in ("yes", "no"))
    assert set(answers) == {yes, no}
    assert 0.4 < answers[yes] / answers.total() < 0.6


def _drawn(pretraining: Pretraining, pairs: Pairs) -> list[tuple[str, list[int]]]:
    """Return the words and image ids of 200 rows to draw whose caption was not dropped."""
    rows = batches_at(3, "test", {"draw": 1.0}, pretraining.corpus, pretraining.sequences, 200, pairs, 0)[0].tensors
    found = []
    for ids, labels in zip(rows["input_ids"], rows["labels"], strict=True):
        prompt = pretraining.processor.tokenizer.decode(ids[labels == -100], skip_special_tokens=True).strip()
        image = ids[labels != -100][:-1] - pretraining.model.config.num_text_ids
        found.append((prompt, image.tolist()))
    return [(prompt, image) for prompt, image in found if prompt]


def test_pictures_are_typical_whatever_the_caption_says(pretraining: Pretraining) -> None:
    corpus = pretraining.corpus
    for typical in (0.0, 1.0):
        for prompt, image in _drawn(pretraining, Pairs(0.0, typical=typical)):
            told = parse(prompt)
            prior = as_typical(told)
            wanted = told if not typical or prior is None or prior.key not in corpus.of_key else prior
            assert image in [corpus.ids[index].tolist() for index in corpus.of_key[wanted.key]]


def test_only_the_wanted_categories_are_drawn(pretraining: Pretraining) -> None:
    for prompt, _ in _drawn(pretraining, Pairs(0.0, categories={"position": 1.0, "colors": 1.0})):
        assert parse(prompt).category in ("position", "colors")


def test_captions_that_are_read_have_a_noise_of_their_own(pretraining: Pretraining) -> None:
    pairs = Pairs(1.0, caption_noise_read=0.0)
    (batch,) = batches_at(4, "test", {"read": 1.0}, pretraining.corpus, pretraining.sequences, 50, pairs, 0)
    keys = set(pretraining.corpus.of_key)
    for labels in batch.tensors["labels"]:
        told = pretraining.processor.tokenizer.decode(labels[labels != -100], skip_special_tokens=True)
        assert parse(told).key in keys


def test_features_of_the_corpus_are_those_of_the_encoder(pretraining: Pretraining) -> None:
    pixels = pixel_batch(0, "test", 0, 6) * 2 - 1
    with torch.inference_mode():
        expected = pretraining.vision.features(pixels)
        torch.testing.assert_close(_features(pretraining.vision, pixels), expected)
