"""Objectives `dpo` and `kto`: TRL's DPOTrainer and KTOTrainer over the unified vocabulary, anchored by cross-entropy.

TRL's trainers tokenise text themselves, so ours are subclasses that take tokenised rows. The reference is the model
that training starts from. Its log-probabilities are computed once and stored in the rows, so the model is never held
twice. The reference and the policy use the same forward pass in the same precision: a reference in float32 beside a
policy in bfloat16 would start with margins of mere rounding.

Preferences do not train reading, and they can widen a margin by making both images unlikely. So cross-entropy on the
chosen images and on all other rows of the manifest anchors the model. The anchor's rows are dealt evenly to the
preferences and travel in the same batches. The anchor weighs all labelled ids alike, so without preferences it would be
`sft`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

import torch
from datasets import Dataset
from torch import Tensor
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer
from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference, KTOTrainer

from illume_loop.hooks import OnProgress
from illume_loop.models.sequences import IGNORED_LABEL
from illume_loop.protocols import DrawRow, ImageIds, LikelyRow, PairRow, TrainingRow
from illume_loop.settings import TrainSettings
from illume_loop.train.dataset import FeatureCollator, build_dataset
from illume_loop.train.fitting import common_arguments, fit, lora_config, preparing
from illume_loop.train.sharing import of_process
from illume_loop.train.trainable import Trainable, load_trainable
from illume_loop.train.trainings import CandidateTraining, OnStep, TrainReport

ANCHOR = "anchor"
"""The batch's key for the anchor's rows, which are a batch of their own."""
ANCHOR_LABELS = "anchor_labels"
"""The batch's key for the number of labelled ids in the anchor's rows."""

Item = dict[str, Any]


def train_dpo(training: CandidateTraining, on_step: OnStep) -> TrainReport:
    """Train a copy of the base by direct preference optimisation (arXiv 2305.18290) and write the candidate.

    Raises ValueError if no row is a pair, TrainingDivergedError if the loss is no longer finite.
    """
    rows, settings, seed = training.rows, training.settings, training.seed
    backend = load_trainable(training.base, seed, preparing(on_step), every_weight=settings.lora_rank == 0)
    with tempfile.TemporaryDirectory() as scratch:
        return fit(dpo_trainer(backend, rows, settings, seed, scratch), backend, training.out, len(rows), on_step)


def train_kto(training: CandidateTraining, on_step: OnStep) -> TrainReport:
    """Train a copy of the base by Kahneman-Tversky optimisation (arXiv 2402.01306) and write the candidate.

    Each side of a pair counts by itself. Raises what `train_dpo` raises.
    """
    rows, settings, seed = training.rows, training.settings, training.seed
    backend = load_trainable(training.base, seed, preparing(on_step), every_weight=settings.lora_rank == 0)
    with tempfile.TemporaryDirectory() as scratch:
        return fit(kto_trainer(backend, rows, settings, seed, scratch), backend, training.out, len(rows), on_step)


def dpo_trainer(
    backend: Trainable, rows: Sequence[TrainingRow], settings: TrainSettings, seed: int, scratch: str
) -> DPOTrainer:
    """Return TRL's DPO trainer with its losses `sigmoid` and `sft`.

    `sft` is the anchor's part on the chosen images.
    """
    pairs, others = _parts(rows)
    items: list[Item] = [
        {
            "prompt_ids": backend.sequences.draw_prefix(pair.prompt),
            "chosen_ids": _completion(backend, pair.chosen_ids),
            "rejected_ids": _completion(backend, pair.rejected_ids),
        }
        for pair in pairs
    ]
    anchor = _Anchor.of(others, backend, settings, seed)
    share = anchor.num_labels / (anchor.num_labels + sum(len(item["chosen_ids"]) for item in items))
    arguments = common_arguments(settings, seed, scratch)
    size = _items_in_a_step(settings.batch_size, len(items), 2, len(others))
    arguments["per_device_train_batch_size"] = of_process(size, settings)
    return _DpoTrainer(
        anchor_weight=settings.sft_weight * share,
        on_progress=backend.on_progress,
        model=backend.model,
        args=DPOConfig(
            **arguments,
            precompute_ref_log_probs=True,
            beta=settings.beta,
            loss_type=["sigmoid", "sft"],
            loss_weights=[1.0, settings.sft_weight * (1.0 - share)],
        ),
        train_dataset=Dataset.from_list(anchor.dealt_to(items)),
        data_collator=_AnchoredCollator(DataCollatorForPreference(backend.sequences.pad), anchor, settings),
        processing_class=backend.tokenizer,
        peft_config=lora_config(settings),
    )


def kto_trainer(
    backend: Trainable, rows: Sequence[TrainingRow], settings: TrainSettings, seed: int, scratch: str
) -> KTOTrainer:
    """Return TRL's KTO trainer with its loss `kto`.

    The trainer has no cross-entropy of its own, so the chosen images join the anchor. The loss estimates the model's
    distance from the reference on other images of the same batch (`KL_completion_ids`), so the batches are fixed here.
    """
    pairs, others = _parts(rows)
    chosen = _unique(DrawRow(pair.prompt, pair.chosen_ids) for pair in pairs)
    rejected = _unique(DrawRow(pair.prompt, pair.rejected_ids) for pair in pairs)
    items: list[Item] = [
        {
            "prompt_ids": backend.sequences.draw_prefix(row.prompt),
            "completion_ids": _completion(backend, row.image_ids),
            "label": label,
        }
        for label, side in ((True, chosen), (False, rejected))
        for row in side
    ]
    Random(seed).shuffle(items)
    anchor = _Anchor.of([*chosen, *others], backend, settings, seed)
    size = _items_in_a_step(settings.batch_size, len(items), 1, len(chosen) + len(others))
    size = max(2 * settings.num_processes, size)  # a process with a single image would have no other image
    for start in range(0, len(items), size):
        batch = items[start : start + size]
        _put(batch, "KL_completion_ids", [item["completion_ids"] for item in [batch[-1], *batch[:-1]]])
    return _KtoTrainer(
        anchor_weight=settings.sft_weight,
        on_progress=backend.on_progress,
        model=backend.model,
        args=KTOConfig(
            **common_arguments(settings, seed, scratch) | {"per_device_train_batch_size": of_process(size, settings)},
            precompute_ref_log_probs=True,
            beta=settings.beta,
        ),
        train_dataset=Dataset.from_list(anchor.dealt_to(items)),
        data_collator=_AnchoredCollator(DataCollatorForUnpairedPreference(backend.sequences.pad), anchor, settings),
        processing_class=backend.tokenizer,
        peft_config=lora_config(settings),
    )


@dataclass(frozen=True, slots=True)
class _Anchor:
    """The rows of the anchor's cross-entropy, without those that TRL's own loss covers."""

    rows: Sequence[Item]
    collator: FeatureCollator
    num_labels: int

    @classmethod
    def of(cls, rows: Sequence[LikelyRow], backend: Trainable, settings: TrainSettings, seed: int) -> _Anchor:
        """Encode the rows and shuffle them by the seed."""
        if not rows:
            return cls([], FeatureCollator(backend.sequences.pad, None), 0)
        dataset, collator = build_dataset(rows, backend, settings.text_dropout, seed)
        items = list(dataset.shuffle(seed=seed))
        return cls(items, collator, sum(label != IGNORED_LABEL for item in items for label in item["labels"]))

    def dealt_to(self, items: Sequence[Item]) -> list[Item]:
        """Return the preferences, each with the numbers of its share of the anchor's rows in `anchor`."""
        return [item | {ANCHOR: list(range(i, len(self.rows), len(items)))} for i, item in enumerate(items)]


class _AnchoredCollator:
    """A collator that batches the preferences by TRL's own collator and adds the anchor's rows under `anchor`.

    With several processes each batch has at least one row of the anchor, if only one of weight 0. Otherwise a process
    could run one forward pass less than the others, and they would wait for its buffers.
    """

    def __init__(self, preferences: Any, anchor: _Anchor, settings: TrainSettings) -> None:
        self.preferences = preferences
        self.anchor = anchor
        self.num_fillers = 1 if settings.num_processes > 1 else 0

    def __call__(self, items: Sequence[Item]) -> dict[str, Any]:
        """Return one batch."""
        batch: dict[str, Any] = self.preferences(items)
        rows = [self.anchor.rows[number] for item in items for number in item[ANCHOR]]
        num_labels = sum(label != IGNORED_LABEL for row in rows for label in row["labels"])
        rows += self.anchor.rows[: 0 if rows else self.num_fillers]
        return batch | {ANCHOR: self.anchor.collator(rows), ANCHOR_LABELS: num_labels} if rows else batch


class _Anchored:
    """The changes to both of TRL's trainers: rows stay as they are, and the anchor's loss is added."""

    reference_columns: ClassVar[tuple[str, ...]]
    """The columns of the dataset that hold the reference's log-probabilities, as TRL names them."""

    def __init__(self, anchor_weight: float, on_progress: OnProgress, **arguments: Any) -> None:
        """Make the trainer. `on_progress` is called after each batch of the reference's log-probabilities."""
        self.anchor_weight, self.on_progress = anchor_weight, on_progress
        super().__init__(**arguments)

    def _prepare_dataset(self, dataset: Dataset, *_: object) -> Dataset:
        """Return the dataset unchanged. TRL would look for text under `chosen`, but the rows have ids already."""
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *_: object) -> Dataset:
        """Add the reference's log-probabilities, by the forward of TRL that also computes the policy's.

        TRL's own method would write them to a cache that outlives the training.
        """
        trainer: Any = self
        size = trainer.args.per_device_train_batch_size
        found: dict[str, list[float]] = {name: [] for name in self.reference_columns}
        for start in range(0, len(dataset), size):
            items = [dataset[row] for row in range(start, min(start + size, len(dataset)))]
            batch = {
                name: tensor.to(trainer.accelerator.device)
                for name, tensor in trainer.data_collator.preferences(items).items()
            }
            log_probs = trainer.compute_ref_log_probs(trainer.model, batch)
            for name, of_batch in zip(self.reference_columns, log_probs, strict=True):
                found[name] += of_batch.tolist()
            self.on_progress()
        for name, values in found.items():
            dataset = dataset.add_column(name, values)
        return dataset

    def compute_loss(self, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        """Return TRL's loss plus the weighted cross-entropy of the anchor's rows in the batch."""
        anchor, num_labels = inputs.pop(ANCHOR, None), inputs.pop(ANCHOR_LABELS, 0)
        loss: Tensor = super().compute_loss(model, inputs, *rest, **named)  # type: ignore[misc]
        if anchor is None:
            return loss
        weight = self.anchor_weight * self._share_of(num_labels)
        return loss + weight * model(**anchor, fused_lm_head=True).loss

    def _share_of(self, num_labels: int) -> float:
        """Return this process's number of anchor labels over the mean number of all processes.

        The losses of all processes count alike, and a caption has fewer labels than an image. Without this factor a
        label would weigh more in a process with few labels.
        """
        accelerator = self.accelerator  # type: ignore[attr-defined]
        if accelerator.num_processes == 1:
            return 1.0
        own = torch.tensor(float(num_labels), device=accelerator.device)
        mean = float(accelerator.reduce(own, "mean"))
        return num_labels / mean if mean else 0.0


class _DpoTrainer(_Anchored, DPOTrainer):
    reference_columns = ("ref_chosen_logps", "ref_rejected_logps")


class _KtoTrainer(_Anchored, KTOTrainer):
    reference_columns = ("ref_logps", "ref_KL_logps")


def _parts(rows: Sequence[TrainingRow]) -> tuple[list[PairRow], list[LikelyRow]]:
    pairs = [row for row in rows if isinstance(row, PairRow)]
    if not pairs:
        raise ValueError("preferences are learned from pairs, and no row is one")
    return pairs, [row for row in rows if not isinstance(row, PairRow)]


def _unique(rows: Iterable[DrawRow]) -> list[DrawRow]:
    return list({(row.prompt, row.image_ids.tobytes()): row for row in rows}.values())


def _completion(backend: Trainable, image_ids: ImageIds) -> list[int]:
    """Return the ids that follow the prefix in a row to draw."""
    return [label for label in backend.sequences.draw("", image_ids.tolist()).labels if label != IGNORED_LABEL]


def _put(items: Iterable[Item], name: str, values: Iterable[object]) -> None:
    for item, value in zip(items, values, strict=True):
        item[name] = value


def _items_in_a_step(batch_size: int, num_items: int, images_of_item: int, num_others: int) -> int:
    """Return the preferences per step that make about `batch_size` rows with the anchor's rows dealt to them."""
    return max(1, round(batch_size * num_items / (images_of_item * num_items + num_others)))
