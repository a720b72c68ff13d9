"""TRL's DPO and KTO on the unified vocabulary: their log-probabilities are ours, and they move what they should.

The model's weights are random and large: its distributions are far from uniform, so that a wrong log-probability shows.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from illume_loop.errors import TrainingDivergedError
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.protocols import DrawRow, PairRow, ReadRow, TrainingRow
from illume_loop.settings import TrainSettings
from illume_loop.train import fitting
from illume_loop.train.candidates import train_candidate
from illume_loop.train.preference import dpo_trainer, kto_trainer
from illume_loop.train.trainable import load_trainable

NEAR = 2e-3
"""Nats, of sums over 37 ids that are in the hundreds; a wrong head or a wrong shift is off by tens."""


def _log_probs(backend: IllumeBackend, row: DrawRow | ReadRow | PairRow, ids: np.ndarray | None = None) -> list[float]:
    """log p of each labelled id from a forward pass of one row, without padding and without TRL's patched forward."""
    if isinstance(row, ReadRow):
        sequence, features = backend.sequences.read(row.caption), backend.features([row.image])
    else:
        assert ids is not None
        sequence, features = backend.sequences.draw(row.prompt, ids.tolist()), None
    with torch.inference_mode():
        hidden = backend.model.model(
            input_ids=torch.tensor([sequence.input_ids]), image_features=features
        ).last_hidden_state[0]
        log_probs = torch.log_softmax((hidden @ backend.model.lm_head.weight.T).double(), dim=-1)
    return [float(log_probs[position - 1, label]) for position, label in enumerate(sequence.labels) if label != -100]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _whole_batch(trainer: Any) -> dict[str, Any]:
    batch: dict[str, Any] = trainer.data_collator([trainer.train_dataset[i] for i in range(len(trainer.train_dataset))])
    return batch


def _moved(backend: IllumeBackend) -> None:
    """As if some steps had been taken, so that policy and reference differ."""
    torch.manual_seed(3)
    with torch.no_grad():
        backend.model.lm_head.weight.add_(0.05 * torch.randn_like(backend.model.lm_head.weight))


@pytest.mark.parametrize("sft_weight", [0.0, 0.7])
def test_dpo_computes_the_true_log_probabilities_and_loss(
    base: Path, pair_rows: list[PairRow], likely_rows: list[DrawRow | ReadRow], tmp_path: Path, sft_weight: float
) -> None:
    backend = IllumeBackend.load(base, "cpu")
    settings = TrainSettings(objective="dpo", beta=0.2, sft_weight=sft_weight)
    trainer = dpo_trainer(backend, [*pair_rows, *likely_rows], settings, 0, str(tmp_path))
    of_side = lambda side: [_log_probs(backend, row, getattr(row, side)) for row in pair_rows]  # noqa: E731
    reference = {side: [sum(row) for row in of_side(side)] for side in ("chosen_ids", "rejected_ids")}
    _moved(backend)
    chosen, rejected = of_side("chosen_ids"), of_side("rejected_ids")
    loss = float(trainer.compute_loss(backend.model.eval(), _whole_batch(trainer)).detach())

    metrics = {name: values[-1] for name, values in trainer._metrics["eval"].items()}
    assert metrics["logps/chosen"] == pytest.approx(_mean([sum(row) for row in chosen]), abs=NEAR)
    assert metrics["logps/rejected"] == pytest.approx(_mean([sum(row) for row in rejected]), abs=NEAR)
    margins = [
        0.2 * ((sum(better) - was_better) - (sum(worse) - was_worse))
        for better, worse, was_better, was_worse in zip(chosen, rejected, *reference.values(), strict=True)
    ]
    assert metrics["rewards/margins"] == pytest.approx(_mean(margins), abs=NEAR)
    labelled = [logp for row in chosen for logp in row]
    for row in likely_rows:
        labelled += _log_probs(backend, row, row.image_ids if isinstance(row, DrawRow) else None)
    expected = _mean([math.log1p(math.exp(-margin)) for margin in margins]) - sft_weight * _mean(labelled)
    assert loss == pytest.approx(expected, abs=NEAR)
    uniform = 37 * math.log(backend.model.config.text_config.vocab_size)
    assert abs(metrics["logps/chosen"] + uniform) > 20, "near-uniform logits prove nothing"


def test_dpo_begins_at_ln_2_because_the_reference_is_the_start(
    base: Path, pair_rows: list[PairRow], tmp_path: Path
) -> None:
    backend = IllumeBackend.load(base, "cpu")
    settings = TrainSettings(objective="dpo", sft_weight=0.0, beta=1.0)
    trainer = dpo_trainer(backend, pair_rows, settings, 0, str(tmp_path))
    loss = float(trainer.compute_loss(backend.model.eval(), _whole_batch(trainer)).detach())
    assert loss == pytest.approx(math.log(2), abs=NEAR)


def test_kto_computes_the_true_log_probabilities_and_loss(
    base: Path, pair_rows: list[PairRow], likely_rows: list[DrawRow | ReadRow], tmp_path: Path
) -> None:
    backend = IllumeBackend.load(base, "cpu")
    settings = TrainSettings(objective="kto", beta=0.2, sft_weight=0.7, batch_size=1000)
    trainer = kto_trainer(backend, [*pair_rows, *likely_rows], settings, 0, str(tmp_path))
    images = {row.chosen_ids.tobytes(): (True, row.prompt, row.chosen_ids) for row in pair_rows}
    images |= {row.rejected_ids.tobytes(): (False, row.prompt, row.rejected_ids) for row in pair_rows}
    assert len(images) == 7 + 8, "an image that is chosen twice counts once"

    # The order is the trainer's; the images are found again by their ids, and each is compared with the one before it.
    first = backend.model.config.num_text_ids
    rows = [
        images[(np.array(item["completion_ids"][:-1], np.int32) - first).astype(np.int32).tobytes()]
        for item in trainer.train_dataset
    ]
    assert len(rows) == len(images)
    draw = lambda prompt, ids: _log_probs(backend, DrawRow(prompt, ids), ids)  # noqa: E731
    matched = lambda: [sum(draw(prompt, ids)) for _, prompt, ids in rows]  # noqa: E731
    mismatched = lambda: [sum(draw(row[1], before[2])) for row, before in zip(rows, [rows[-1], *rows], strict=False)]  # noqa: E731
    reference, reference_kl = matched(), mismatched()
    _moved(backend)
    loss = float(trainer.compute_loss(backend.model.eval(), _whole_batch(trainer)).detach())

    logps = matched()
    kl = max(0.0, _mean(mismatched()) - _mean(reference_kl))
    metrics = {name: values[-1] for name, values in trainer._metrics["eval"].items()}
    labels = [label for label, _, _ in rows]
    of = lambda wanted: [logp for logp, label in zip(logps, labels, strict=True) if label == wanted]  # noqa: E731
    assert metrics["logps/chosen"] == pytest.approx(_mean(of(True)), abs=NEAR)
    assert metrics["logps/rejected"] == pytest.approx(_mean(of(False)), abs=NEAR)
    assert metrics["kl"] == pytest.approx(kl, abs=NEAR)
    losses = [
        1 - 1 / (1 + math.exp(-0.2 * (1 if label else -1) * (logp - was - kl)))
        for label, logp, was in zip(labels, logps, reference, strict=True)
    ]
    labelled = [logp for label, prompt, ids in rows if label for logp in draw(prompt, ids)]
    for row in likely_rows:
        labelled += _log_probs(backend, row, row.image_ids if isinstance(row, DrawRow) else None)
    assert loss == pytest.approx(_mean(losses) - 0.7 * _mean(labelled), abs=NEAR)


def test_rows_of_the_anchor_are_dealt_out_once_and_steps_stay_of_the_same_size(
    base: Path, preference_rows: list[TrainingRow], tmp_path: Path
) -> None:
    backend = IllumeBackend.load(base, "cpu")
    trainer = dpo_trainer(backend, preference_rows, TrainSettings(objective="dpo", batch_size=8), 0, str(tmp_path))
    dealt = [number for item in trainer.train_dataset for number in item["anchor"]]
    assert sorted(dealt) == list(range(16))
    assert trainer.args.per_device_train_batch_size == 2, "2 pairs are 4 rows, and 4 of the anchor's come with them"
    batch = trainer.data_collator([trainer.train_dataset[0], trainer.train_dataset[1]])
    assert batch["input_ids"].shape[0] == batch["anchor"]["input_ids"].shape[0] == 4


@pytest.mark.parametrize("objective", ["dpo", "kto"])
def test_images_to_read_arrive_with_their_features(
    base: Path, preference_rows: list[TrainingRow], tmp_path: Path, objective: str
) -> None:
    """The reading rows' loss depends on their images: a row that has lost them would be refused, or read nothing."""
    backend = IllumeBackend.load(base, "cpu")
    make = {"dpo": dpo_trainer, "kto": kto_trainer}[objective]
    trainer = make(backend, preference_rows, TrainSettings(objective=objective), 0, str(tmp_path))
    batch = _whole_batch(trainer)
    losses = []
    for factor in (1.0, -1.0):
        copy = {**batch, "anchor": {**batch["anchor"], "image_features": factor * batch["anchor"]["image_features"]}}
        losses.append(float(trainer.compute_loss(backend.model.eval(), copy).detach()))
    assert abs(losses[0] - losses[1]) > 0.02
    del batch["anchor"]["image_features"]
    with pytest.raises(ValueError, match="image placeholders but 0 image features"):
        trainer.compute_loss(backend.model, batch)


@pytest.mark.parametrize("lora_rank", [0, 4])
@pytest.mark.parametrize("objective", ["dpo", "kto"])
def test_training_prefers_moves_the_language_model_only_and_repeats(
    base: Path,
    preference_rows: list[TrainingRow],
    pair_rows: list[PairRow],
    tmp_path: Path,
    objective: str,
    lora_rank: int,
) -> None:
    settings = TrainSettings(objective=objective, batch_size=8, epochs=6, learning_rate=3e-3, lora_rank=lora_rank)
    heard: list[list[tuple[int, int]]] = [[], []]
    for i, steps in enumerate(heard):
        train_candidate(base, preference_rows, tmp_path / str(i), settings, 5, lambda *step, to=steps: to.append(step))
    before, first, second = (
        load_file(folder / "model.safetensors") for folder in (base, tmp_path / "0", tmp_path / "1")
    )
    assert before.keys() == first.keys()
    for steps in heard:
        (in_all,) = {total for done, total in steps if done}
        # No step is done while the model and the reference are readied; the last one is told again once it is saved.
        assert [done for done, _ in steps if done] == [*range(1, in_all + 1), in_all]
    for name, tensor in before.items():
        assert torch.equal(first[name], second[name]), f"{name} differs between two equal trainings"
        moved = not torch.equal(tensor, first[name])
        if "vision" in name:
            assert not moved, f"{name} is frozen"
        elif name.endswith("q_proj.weight"):
            assert moved, f"{name} did not learn"

    def margin(path: Path) -> float:
        backend = IllumeBackend.load(path, "cpu")
        return _mean(
            [sum(_log_probs(backend, p, p.chosen_ids)) - sum(_log_probs(backend, p, p.rejected_ids)) for p in pair_rows]
        )

    assert margin(tmp_path / "0") > margin(base) + 10


@pytest.mark.parametrize("objective", ["dpo", "kto"])
def test_preferences_need_pairs_and_sft_takes_none(
    base: Path, likely_rows: list[DrawRow | ReadRow], pair_rows: list[PairRow], tmp_path: Path, objective: str
) -> None:
    with pytest.raises(ValueError, match="no row is one"):
        train_candidate(base, likely_rows, tmp_path / "out", TrainSettings(objective=objective), 0, lambda *_: None)
    with pytest.raises(ValueError, match="no use for pairs"):
        train_candidate(base, pair_rows, tmp_path / "out", TrainSettings(), 0, lambda *_: None)


@pytest.mark.parametrize("objective", ["dpo", "kto"])
def test_pairs_alone_are_enough(base: Path, pair_rows: list[PairRow], tmp_path: Path, objective: str) -> None:
    settings = TrainSettings(objective=objective, epochs=1, batch_size=1)
    report = train_candidate(base, pair_rows, tmp_path / "out", settings, 0, lambda *_: None)
    assert math.isfinite(report.mean_loss)
    assert (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.parametrize("objective", ["sft", "dpo", "kto"])
def test_a_loss_that_is_no_number_ends_the_training(
    base: Path, likely_rows: list[DrawRow | ReadRow], pair_rows: list[PairRow], tmp_path: Path, objective: str
) -> None:
    """The trainer would by itself report the mean of the losses that are numbers."""
    backend = IllumeBackend.load(base, "cpu")
    with torch.no_grad():
        backend.model.lm_head.weight[backend.sequences.eos] = math.nan
    backend.save(tmp_path / "damaged")
    rows: list[TrainingRow] = [*likely_rows, *(pair_rows if objective != "sft" else [])]
    settings = TrainSettings(objective=objective, epochs=1)  # type: ignore[arg-type]
    with pytest.raises(TrainingDivergedError):
        train_candidate(tmp_path / "damaged", rows, tmp_path / "out", settings, 0, lambda *_: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("lora_rank", [0, 4])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_policy_and_reference_are_equal_before_the_first_step_in_bfloat16(
    base: Path,
    pair_rows: list[PairRow],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stored: torch.dtype,
    lora_rank: int,
) -> None:
    """A reference in float32 beside this policy begins with a margin of several nats."""
    monkeypatch.setattr(fitting, "in_bfloat16", lambda settings: "bf16" in settings.saves)  # on the CPU too
    backend = IllumeBackend.load(base, "cpu")
    backend.model.to(stored)
    backend.model.config.dtype = stored
    backend.save(tmp_path / "stored")
    settings = {"beta": 1.0, "sft_weight": 0.0, "savings": "bf16", "batch_size": 1000, "lora_rank": lora_rank}
    for make, objective, metric in ((dpo_trainer, "dpo", "rewards/margins"), (kto_trainer, "kto", "kl")):
        policy = load_trainable(tmp_path / "stored", 0, every_weight=lora_rank == 0)
        trainer = make(policy, pair_rows, TrainSettings(objective=objective, **settings), 0, str(tmp_path))
        assert trainer.args.bf16
        trainer.train()
        first = trainer.state.log_history[0]
        assert first[metric] == pytest.approx(0.0, abs=NEAR)
        if objective == "dpo":
            assert first["loss"] == pytest.approx(math.log(2), abs=NEAR)
