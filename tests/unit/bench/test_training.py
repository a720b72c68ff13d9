"""`bench train` on a tiny model: what it takes for a step is one, and its operations are those that are done."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from illume_loop.bench.training import TINY, Step
from illume_loop.cli.main import app


@pytest.fixture(scope="module")
def step() -> Step:
    return Step.of(TINY, "cpu", 4)


def test_a_step_learns_by_the_logits_of_each_labels_block(step: Step) -> None:
    labels, first = step.batch["labels"][:, 1:], step.model.config.num_text_ids
    with torch.no_grad():
        logits = step.model(**{k: v for k, v in step.batch.items() if k != "labels"}).logits[:, :-1]
    labelled = labels != -100
    of_image = (labels >= first).unsqueeze(-1) != (torch.arange(logits.shape[-1]) >= first)
    log_probs = logits.masked_fill(of_image, -torch.inf).log_softmax(-1)
    expected = -log_probs[labelled].gather(1, labels[labelled].unsqueeze(1)).mean()
    losses = [step.ours() for _ in range(5)]
    assert losses[0] == pytest.approx(float(expected), abs=1e-4)
    assert losses[-1] < losses[0]
    assert step.reference() > losses[-1], "all logits compete, and so it is less sure"


def test_what_is_frozen_and_what_is_counted(step: Step) -> None:
    assert not any(p.requires_grad for p in step.model.model.vision.parameters())
    assert step.num_tokens == 2 * (24 + 1 + 64) + 2 * (1 + 64 + 48)


def test_operations_are_those_of_the_products_that_a_body_needs() -> None:
    """One row, which is not padded: products of weights are counted by torch, the rest is small."""
    step = Step.of(TINY, "cpu", 1)
    inputs: dict[str, Any] = {k: v for k, v in step.batch.items() if k != "labels"}
    with FlopCounterMode(display=False) as counter:
        step.model.model(**inputs, use_cache=False).last_hidden_state.sum().backward()
    done = sum(count for name, count in counter.get_flop_counts()["Global"].items() if "mm" in str(name))
    config = step.model.config
    logits = 6 * config.text_config.hidden_size * 64 * config.codebook_size
    attention = 6 * 2 * 128 * step.num_tokens**2
    # The first layer's inputs get no gradient through their weights but through the table.
    assert step.flops - logits - attention == pytest.approx(done, rel=0.02)


def test_the_command_prints_tokens_a_second_and_the_share_of_the_machine() -> None:
    done = CliRunner().invoke(app, ["bench", "train", "--batch", "2", "--repeats", "1", "--threads", "1", "--json"])
    (row,) = json.loads(done.stdout)["rows"]
    assert row["unit"] == "tokens/s"
    assert row["setting"] == "a step of 2 rows, 202 tokens, 1 thread"
    assert 0 < row["limit_share"] < 1.5
    assert min(row["ours"], row["reference"], row["ratio"], row["control"]) > 0
    for wrong, sentence in (("--size small", "no size 'small'"), ("--ids 4", "--ids is for random Janus models")):
        refused = CliRunner().invoke(app, ["bench", "train", *wrong.split()])
        assert sentence in str(refused.exception)
