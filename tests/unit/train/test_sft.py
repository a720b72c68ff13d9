"""TRL's trainer on the unified vocabulary: its loss is ours, and it moves what it should."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from trl import SFTTrainer

from illume_loop.domains.shapes.domain import ShapesDomain
from illume_loop.errors import TrainingDivergedError
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.protocols import CorrectRow, DrawRow, EditRow, LikelyRow, ReadRow
from illume_loop.settings import TrainSettings
from illume_loop.train.candidates import train_candidate
from illume_loop.train.dataset import build_dataset
from illume_loop.train.sft import sft_arguments, train_sft
from illume_loop.train.trainings import CandidateTraining


@pytest.fixture
def rows(likely_rows: list[LikelyRow]) -> list[LikelyRow]:
    """Rows of both kinds."""
    return likely_rows


def test_trl_computes_the_true_loss(base: Path, rows: list[LikelyRow], tmp_path: Path) -> None:
    """The mean over labelled ids of -log p, from a forward pass row by row with no padding."""
    backend = IllumeBackend.load(base, "cpu")
    dataset, collator = build_dataset(rows, backend, text_dropout=0.0, seed=0)
    trainer = SFTTrainer(
        model=backend.model,
        args=sft_arguments(TrainSettings(batch_size=len(rows)), 0, str(tmp_path)),
        train_dataset=dataset,
        data_collator=collator,
        processing_class=backend.processor.tokenizer,
    )
    batch = collator([dataset[i] for i in range(len(rows))])
    trl_loss = float(trainer.compute_loss(backend.model.eval(), dict(batch)).detach())

    losses: list[torch.Tensor] = []
    with torch.inference_mode():
        for row in rows:
            if isinstance(row, DrawRow):
                sequence, features = backend.sequences.draw(row.prompt, row.image_ids.tolist()), None
            else:
                sequence, features = backend.sequences.read(row.caption), backend.features([row.image])
            ids = torch.tensor([sequence.input_ids])
            hidden = backend.model.model(input_ids=ids, image_features=features).last_hidden_state[0]
            log_probs = torch.log_softmax(hidden @ backend.model.lm_head.weight.T, dim=-1)
            losses += [
                -log_probs[position - 1, label] for position, label in enumerate(sequence.labels) if label != -100
            ]
    assert trl_loss == pytest.approx(float(torch.stack(losses).mean()), abs=1e-4)
    assert abs(trl_loss - math.log(backend.model.config.text_config.vocab_size)) > 1, (
        "near-uniform logits prove nothing"
    )


def test_prompts_are_masked_and_ids_arrive_as_drawn(base: Path, rows: list[LikelyRow]) -> None:
    backend = IllumeBackend.load(base, "cpu")
    dataset, _ = build_dataset(rows[:1], backend, text_dropout=0.0, seed=0)
    first, labels = rows[0], dataset[0]["labels"]
    assert isinstance(first, DrawRow)
    learned = [label for label in labels if label != -100]
    assert learned[:-1] == [backend.model.config.num_text_ids + int(i) for i in first.image_ids]
    assert labels.count(-100) == len(backend.sequences.draw_prefix(first.prompt))


def test_an_assessment_masks_what_is_asked_and_a_correction_is_a_second_turn(base: Path) -> None:
    backend = IllumeBackend.load(base, "cpu")
    image = ShapesDomain().real_pairs(1, 0)[0].image
    ids = np.arange(36, dtype=np.int32)
    asked, said = "assess a red circle :", '{"analysis":"it shows a red circle"}'
    request = "make it show a red circle"
    rows: list[LikelyRow] = [ReadRow(image, said, asked), CorrectRow(image, asked, said, request, ids)]
    dataset, collator = build_dataset(rows, backend, 0.0, seed=0)
    sequences, config = backend.sequences, backend.model.config
    prefix = sequences.read_prefix() + sequences.words(asked)
    one, two = ([label for label in dataset[i]["labels"] if label != -100] for i in (0, 1))
    assert [dataset[i]["input_ids"][: len(prefix)] for i in (0, 1)] == [prefix, prefix]
    assert [dataset[i]["labels"][: len(prefix)] for i in (0, 1)] == [[-100] * len(prefix)] * 2
    assert one == [*sequences.words(said), sequences.eos]
    drawn = [config.begin_image_token_id, *(config.num_text_ids + i for i in range(36)), config.end_image_token_id]
    assert two == [*sequences.words(said), sequences.eos, *drawn]
    length = len(dataset[0]["input_ids"])
    assert dataset[1]["input_ids"][:length] == dataset[0]["input_ids"]
    masked = sequences.words(request)
    assert dataset[1]["input_ids"][length : length + len(masked)] == masked
    assert dataset[1]["labels"][length : length + len(masked)] == [-100] * len(masked)
    assert collator([dataset[0], dataset[1]])["image_features"].shape[0] == 2


def test_an_edit_learns_the_image_that_its_source_is_to_become(base: Path) -> None:
    backend = IllumeBackend.load(base, "cpu")
    source = ShapesDomain().real_pairs(1, 0)[0].image
    ids = np.arange(36, dtype=np.int32)
    dataset, collator = build_dataset([EditRow(source, "make the red circle blue", ids)] * 2, backend, 0.0, seed=0)
    prefix, config = backend.sequences.edit_prefix("make the red circle blue"), backend.model.config
    assert dataset[0]["input_ids"][: len(prefix)] == prefix
    learned = [*(config.num_text_ids + i for i in range(36)), config.end_image_token_id]
    assert dataset[0]["labels"] == [-100] * len(prefix) + learned
    features = collator([dataset[0], dataset[1]])["image_features"]
    assert torch.equal(features, backend.features([source, source]))
    dropped, _ = build_dataset([EditRow(source, "make the red circle blue", ids)], backend, 1.0, seed=0)
    assert dropped[0]["input_ids"][: -len(learned)] == backend.sequences.edit_prefix("")


def test_assessments_are_learned_with_all_other_rows(base: Path, rows: list[LikelyRow], tmp_path: Path) -> None:
    image = ShapesDomain().real_pairs(1, 0)[0].image
    texts = "assess a red circle :", "a circle", "make it show a red circle"
    said: list[LikelyRow] = [CorrectRow(image, *texts, np.arange(36, dtype=np.int32))] * 8
    mix: list[LikelyRow] = [*rows, *said]
    settings = TrainSettings(objective="assess-sft", batch_size=8, epochs=6, learning_rate=3e-3)
    once = train_candidate(base, mix, tmp_path / "0", settings.model_copy(update={"epochs": 1}), 5, lambda *_: None)
    more = train_candidate(base, mix, tmp_path / "1", settings, 5, lambda *_: None)
    assert more.mean_loss < once.mean_loss


def test_text_dropout_is_seeded_and_near_its_share(base: Path) -> None:
    backend = IllumeBackend.load(base, "cpu")
    many: list[LikelyRow] = [DrawRow("a red circle", np.zeros(36, np.int32)) for _ in range(400)]
    lengths = [len(row["input_ids"]) for row in build_dataset(many, backend, 0.1, seed=3)[0]]
    assert lengths == [len(row["input_ids"]) for row in build_dataset(many, backend, 0.1, seed=3)[0]]
    assert 20 <= lengths.count(min(lengths)) <= 65


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_training_learns_moves_the_language_model_only_and_repeats(
    base: Path, rows: list[LikelyRow], tmp_path: Path, lora_rank: int
) -> None:
    settings = TrainSettings(batch_size=8, epochs=8, learning_rate=3e-3, lora_rank=lora_rank)
    reports = [
        train_sft(CandidateTraining(base, rows, tmp_path / str(i), settings, 5), lambda *_: None) for i in range(2)
    ]
    before, first, second = (
        load_file(folder / "model.safetensors") for folder in (base, tmp_path / "0", tmp_path / "1")
    )
    assert before.keys() == first.keys()
    assert reports[0].steps == 8 * 2
    for name, tensor in before.items():
        assert torch.equal(first[name], second[name]), f"{name} differs between two equal trainings"
        moved = not torch.equal(tensor, first[name])
        if "vision" in name:
            assert not moved, f"{name} is frozen"
        elif name.endswith("q_proj.weight"):
            assert moved, f"{name} did not learn"
    once = train_sft(
        CandidateTraining(base, rows, tmp_path / "once", settings.model_copy(update={"epochs": 1}), 5), lambda *_: None
    )
    assert reports[0].mean_loss < once.mean_loss


def test_weights_that_are_no_numbers_are_no_candidate_though_every_loss_was_one(
    base: Path, rows: list[LikelyRow], tmp_path: Path
) -> None:
    """Each loss is computed before its step, so it says nothing of what the last step did, nor of what it needs not."""
    backend = IllumeBackend.load(base, "cpu")
    with torch.no_grad():
        next(backend.model.model.vision.detokenizer.parameters()).fill_(math.nan)
    backend.save(tmp_path / "spoiled")
    with pytest.raises(TrainingDivergedError, match="its weights became nan"):
        train_sft(CandidateTraining(tmp_path / "spoiled", rows, tmp_path / "out", TrainSettings(), 0), lambda *_: None)
    assert not (tmp_path / "out").exists()
