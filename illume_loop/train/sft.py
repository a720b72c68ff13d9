"""Objectives `sft` and `assess-sft`: supervised fine-tuning with TRL's SFTTrainer over the unified vocabulary.

All rows have the same next-token cross-entropy, as in the paper; image ids are fitted at `image_temperature`. The two
objectives differ in the manifest's rows.
"""

from __future__ import annotations

import tempfile

from peft import get_peft_model
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from illume_loop.protocols import PairRow
from illume_loop.settings import TrainSettings
from illume_loop.train.dataset import FeatureCollator, build_dataset
from illume_loop.train.fitting import common_arguments, fit, lora_config, preparing
from illume_loop.train.head import use_logits
from illume_loop.train.packing import Collator, PackingCollator
from illume_loop.train.sharing import EvenCollator
from illume_loop.train.trainable import load_trainable
from illume_loop.train.trainings import CandidateTraining, OnStep, TrainReport


def train_sft(training: CandidateTraining, on_step: OnStep) -> TrainReport:
    """Train a copy of the base on the rows and write the candidate.

    Raises ValueError if a row is a pair, TrainingDivergedError if the loss is no longer finite.
    """
    rows, settings, seed = training.rows, training.settings, training.seed
    backend = load_trainable(training.base, seed, preparing(on_step), every_weight=settings.lora_rank == 0)
    likely = [row for row in rows if not isinstance(row, PairRow)]
    if len(likely) < len(rows):
        raise ValueError("the objective sft has no use for pairs")
    dataset, collator = build_dataset(likely, backend, settings.text_dropout, seed)
    lora = lora_config(settings)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = SFTTrainer(
            model=backend.model if lora is None else get_peft_model(backend.model, lora),
            args=sft_arguments(settings, seed, scratch),
            train_dataset=dataset,
            data_collator=_saving_collator(collator, backend.sequences.pad, settings),
            processing_class=backend.tokenizer,
        )
        temperature = settings.image_temperature or 1.0
        if temperature != 1.0 or settings.saves & {"labelled-logits", "block-logits"}:
            use_logits(backend.model, by_block="block-logits" in settings.saves, image_temperature=temperature)
        return fit(trainer, backend, training.out, len(rows), on_step)


def sft_arguments(settings: TrainSettings, seed: int, scratch: str) -> SFTConfig:
    """Return TRL's arguments for rows that are already tokenised; `scratch` is a folder that may be thrown away."""
    return SFTConfig(
        **common_arguments(settings, seed, scratch),
        dataset_kwargs={"skip_prepare_dataset": True},
    )


def _saving_collator(collator: FeatureCollator, pad: int, settings: TrainSettings) -> Collator:
    collate: Collator = collator if settings.strategy == "ddp" else EvenCollator(collator)
    return PackingCollator(collate, pad) if "packing" in settings.saves else collate
