"""TRL on Janus: its losses are those of transformers' own modules, it moves what it should, and the layout stays."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import JanusForConditionalGeneration, JanusProcessor
from trl.trainer.sft_trainer import SFTTrainer

from illume_loop.errors import UsageError
from illume_loop.models.registry import load_model
from illume_loop.protocols import DrawRow, LikelyRow, PairRow, TrainingRow
from illume_loop.settings import TrainSettings
from illume_loop.train.candidates import train_candidate
from illume_loop.train.dataset import build_dataset
from illume_loop.train.preference import dpo_trainer, kto_trainer
from illume_loop.train.sft import sft_arguments
from illume_loop.train.trainable import Trainable, load_trainable
from tests.support.tiny_janus import CODES, TOKENS
from tests.unit.models.janus.reference import Reference

NEAR = 1e-4
"""Nats for each id."""


@pytest.fixture(scope="session")
def reference(published: JanusForConditionalGeneration, processor: JanusProcessor) -> Reference:
    return Reference(published, processor)


@pytest.fixture
def backend(folder: Path) -> Trainable:
    return load_trainable(folder, 0)


def _whole_batch(trainer: Any) -> dict[str, Any]:
    batch: dict[str, Any] = trainer.data_collator([trainer.train_dataset[i] for i in range(len(trainer.train_dataset))])
    return batch


def _loss(trainer: Any, backend: Trainable) -> float:
    return float(trainer.compute_loss(backend.model.eval(), _whole_batch(trainer)).detach())


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _sides(reference: Reference, pairs: list[PairRow]) -> tuple[list[list[float]], list[list[float]]]:
    chosen = [reference.image(pair.prompt, pair.chosen_ids) for pair in pairs]
    return chosen, [reference.image(pair.prompt, pair.rejected_ids) for pair in pairs]


def test_a_mix_of_text_and_images_is_scored_by_trl_as_by_transformers(
    backend: Trainable, likely_rows: list[LikelyRow], reference: Reference, tmp_path: Path
) -> None:
    dataset, collator = build_dataset(likely_rows, backend, text_dropout=0.0, seed=0)
    trainer = SFTTrainer(
        model=backend.model,
        args=sft_arguments(TrainSettings(batch_size=len(likely_rows)), 0, str(tmp_path)),
        train_dataset=dataset,
        data_collator=collator,
        processing_class=backend.tokenizer,
    )
    expected = [value for row in likely_rows for value in reference.log_probs(row)]
    assert _loss(trainer, backend) == pytest.approx(-_mean(expected), abs=NEAR)
    # Controls: near-uniform logits would prove nothing, nor would heads between which there is no difference.
    of_images = [value for row in likely_rows if isinstance(row, DrawRow) for value in reference.log_probs(row)]
    assert abs(_mean(of_images) + math.log(CODES)) > 1
    with torch.inference_mode():
        batch = _whole_batch(trainer)
        labels = batch.pop("labels")[:, 1:]
        hidden = backend.model.base_model(**batch).last_hidden_state[:, :-1]
        head = backend.model.get_output_embeddings()
        joint = torch.log_softmax(hidden[..., :-8] @ head.weight[:, :-8].T + head.bias, dim=-1)
        competing = joint[labels != -100].gather(1, labels[labels != -100].unsqueeze(1))
    assert abs(float(competing.mean()) - _mean(expected)) > 0.3


def test_a_dropped_prompt_is_the_unconditional_one_of_the_same_length(backend: Trainable) -> None:
    row = backend.sequences.draw("a red circle", list(range(TOKENS)), prompt_dropped=True)
    prefix = backend.sequences.draw_prefix("a red circle")
    pads = [backend.tokenizer.pad_token_id] * (len(prefix) - 2)
    assert row.input_ids[: len(prefix)] == [prefix[0], *pads, prefix[-1]]
    assert row.labels[len(prefix) :] == [len(backend.model.lm_head.weight) + i for i in range(TOKENS)]


def test_dpo_begins_at_ln_2_and_computes_the_true_loss_once_it_has_moved(
    backend: Trainable,
    published: JanusForConditionalGeneration,
    processor: JanusProcessor,
    pair_rows: list[PairRow],
    likely_rows: list[LikelyRow],
    reference: Reference,
    tmp_path: Path,
) -> None:
    plain = TrainSettings(objective="dpo", beta=1.0, sft_weight=0.0)
    assert _loss(dpo_trainer(backend, pair_rows, plain, 0, str(tmp_path)), backend) == pytest.approx(
        math.log(2), abs=TOKENS * NEAR
    )
    settings = TrainSettings(objective="dpo", beta=0.2, sft_weight=0.7)
    trainer = dpo_trainer(backend, [*pair_rows, *likely_rows], settings, 0, str(tmp_path))
    was_chosen, was_rejected = _sides(reference, pair_rows)
    torch.manual_seed(3)
    with torch.no_grad():
        weight = backend.model.model.generation_head.vision_head.weight
        weight.add_(0.05 * torch.randn_like(weight))
    moved = JanusForConditionalGeneration(published.config).eval()
    moved.load_state_dict(backend.model.state_dict())
    after = Reference(moved, processor)
    chosen, rejected = _sides(after, pair_rows)
    loss = _loss(trainer, backend)
    metrics = {name: values[-1] for name, values in trainer._metrics["eval"].items()}
    assert metrics["logps/chosen"] == pytest.approx(_mean([sum(row) for row in chosen]), abs=TOKENS * NEAR)
    assert metrics["logps/rejected"] == pytest.approx(_mean([sum(row) for row in rejected]), abs=TOKENS * NEAR)
    margins = [
        0.2 * ((sum(a) - sum(was_a)) - (sum(b) - sum(was_b)))
        for a, b, was_a, was_b in zip(chosen, rejected, was_chosen, was_rejected, strict=True)
    ]
    anchored = [value for row in chosen for value in row]
    anchored += [value for row in likely_rows for value in after.log_probs(row)]
    expected = _mean([math.log1p(math.exp(-margin)) for margin in margins]) - 0.7 * _mean(anchored)
    assert loss == pytest.approx(expected, abs=TOKENS * NEAR)


def test_kto_sees_the_true_log_probabilities(
    backend: Trainable, pair_rows: list[PairRow], reference: Reference, tmp_path: Path
) -> None:
    settings = TrainSettings(objective="kto", batch_size=100, sft_weight=0.0)
    trainer = kto_trainer(backend, pair_rows, settings, 0, str(tmp_path))
    assert _loss(trainer, backend) == pytest.approx(0.5, abs=NEAR), "nothing has moved yet"
    chosen, rejected = _sides(reference, pair_rows)
    metrics = {name: values[-1] for name, values in trainer._metrics["eval"].items()}
    assert metrics["logps/chosen"] == pytest.approx(_mean([sum(row) for row in chosen]), abs=TOKENS * NEAR)
    assert metrics["logps/rejected"] == pytest.approx(_mean([sum(row) for row in rejected]), abs=TOKENS * NEAR)


@pytest.mark.parametrize("lora_rank", [0, 4])
@pytest.mark.parametrize("objective", ["sft", "dpo", "kto"])
def test_training_moves_what_it_should_and_saves_the_published_layout(
    folder: Path,
    likely_rows: list[LikelyRow],
    pair_rows: list[PairRow],
    processor: JanusProcessor,
    reference: Reference,
    tmp_path: Path,
    objective: Any,
    lora_rank: int,
) -> None:
    rows: list[TrainingRow] = [*likely_rows, *(pair_rows if objective != "sft" else [])]
    settings = TrainSettings(objective=objective, lora_rank=lora_rank, batch_size=8, epochs=6, learning_rate=3e-3)
    train_candidate(folder, rows, tmp_path, settings, 5, lambda *_: None)
    before, after = (load_file(path / "model.safetensors") for path in (folder, tmp_path))
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    projections = {name for name in before if "language_model" in name and name.endswith("_proj.weight")}
    if lora_rank:
        assert moved == projections, "LoRA is of the language model only"
    else:
        assert not {name for name in moved if "vision_model" in name or "vqmodel" in name}
        heads = {"generation_head.vision_head.weight", "generation_embeddings.weight", "aligner.fc1.weight"}
        assert projections | {f"model.{name}" for name in heads} <= moved
    # transformers itself reads what was written, and finds it better at what it was taught.
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["JanusForConditionalGeneration"]
    assert config["tie_word_embeddings"] is True
    learned = Reference(JanusForConditionalGeneration.from_pretrained(tmp_path), processor)
    if objective == "sft":
        better = [sum(learned.log_probs(row)) - sum(reference.log_probs(row)) for row in likely_rows]
    else:
        (good, bad), (was_good, was_bad) = _sides(learned, pair_rows), _sides(reference, pair_rows)
        better = [
            sum(a) - sum(b) - sum(was_a) + sum(was_b)
            for a, b, was_a, was_b in zip(good, bad, was_good, was_bad, strict=True)
        ]
    assert _mean(better) > 1


def test_what_training_saves_changes_no_loss(folder: Path, likely_rows: list[LikelyRow], tmp_path: Path) -> None:
    losses = []
    for number, savings in enumerate(("", "packing,block-logits", "labelled-logits")):
        settings = TrainSettings(batch_size=3, lora_rank=4, savings=savings, epochs=1)
        losses.append(train_candidate(folder, likely_rows, tmp_path / str(number), settings, 0, lambda *_: None).losses)
    assert len(losses[0]) == 2
    assert losses[1] == pytest.approx(losses[0], abs=NEAR)
    assert losses[2] == pytest.approx(losses[0], abs=NEAR)


def test_weights_in_pieces_are_refused(folder: Path, likely_rows: list[LikelyRow], tmp_path: Path) -> None:
    settings = TrainSettings(backend="ray", strategy="zero3")
    with pytest.raises(UsageError, match="zero2"):
        train_candidate(folder, likely_rows, tmp_path, settings, 0, lambda *_: None)


def test_placeholders_without_features_are_refused(backend: Trainable, likely_rows: list[LikelyRow]) -> None:
    row = backend.sequences.read("a circle")
    with pytest.raises(ValueError, match="16 image placeholders but 0 image features"):
        backend.model(torch.tensor([row.input_ids]))


def test_the_registry_finds_the_backend(folder: Path) -> None:
    assert load_model(folder).name == "janus"
