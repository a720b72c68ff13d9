"""Every task of every stage is worded in the words that the base has, and its questions have both answers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from illume_loop.pretrain.batches import LONG, Task, batches_at
from illume_loop.pretrain.recipe import Pretraining, Recipe

TASKS: tuple[Task, ...] = ("draw", "read", "reconstruct", "text", "question", "rate", "critique", "ask", "edit")


@pytest.fixture(scope="module")
def pretraining(tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Pretraining:
    return Pretraining(tiny_recipe, Path(tmp_path_factory.mktemp("tasks")), lambda *_: None)


@pytest.mark.parametrize("task", TASKS)
def test_no_word_is_unknown(pretraining: Pretraining, task: Task) -> None:
    unknown = pretraining.processor.tokenizer.unk_token_id
    (batch,) = batches_at(0, "test", {task: 1.0}, pretraining.corpus, pretraining.sequences, 200, 0.5, 0)
    assert not (batch.tensors["input_ids"] == unknown).any()
    assert (batch.tensors["labels"] != -100).any(dim=1).all()


def test_long_rows_have_a_batch_of_their_own(pretraining: Pretraining) -> None:
    mix: dict[Task, float] = {"draw": 0.5, "critique": 0.3, "edit": 0.2}
    short, long = batches_at(1, "test", mix, pretraining.corpus, pretraining.sequences, 64, 0.5, 0)
    assert len(short.tensors["input_ids"]) + len(long.tensors["input_ids"]) == 64
    assert short.tensors["input_ids"].shape[1] < long.tensors["input_ids"].shape[1]
    assert len(long.tensors["image_features"]) == len(long.tensors["input_ids"])
    assert "image_features" not in short.tensors
    assert set(mix) & set(LONG) == {"critique", "edit"}


def test_yes_and_no_are_equally_often_right(pretraining: Pretraining) -> None:
    (batch,) = batches_at(2, "test", {"question": 1.0}, pretraining.corpus, pretraining.sequences, 100, 0.5, 0)
    learned = batch.tensors["labels"]
    answers = Counter(learned[learned != -100].tolist())
    yes, no = (pretraining.sequences.words(word)[0] for word in ("yes", "no"))
    assert set(answers) == {yes, no}
    assert 0.4 < answers[yes] / answers.total() < 0.6
