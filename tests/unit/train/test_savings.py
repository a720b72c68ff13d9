"""What training saves changes no loss, but for `block-logits`, whose loss is that of the masked vocabulary."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from trl import SFTTrainer

from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.protocols import LikelyRow
from illume_loop.settings import TrainSettings
from illume_loop.train.candidates import train_candidate
from illume_loop.train.dataset import build_dataset
from illume_loop.train.head import label_log_probs, use_logits
from illume_loop.train.packing import PackingCollator, first_fit
from illume_loop.train.sft import sft_arguments

NEAR = 1e-4


def _trainer(backend: IllumeBackend, rows: Sequence[LikelyRow], scratch: Path) -> tuple[SFTTrainer, dict[str, Tensor]]:
    dataset, collator = build_dataset(rows, backend, text_dropout=0.0, seed=0)
    trainer = SFTTrainer(
        model=backend.model,
        args=sft_arguments(TrainSettings(batch_size=len(rows)), 0, str(scratch)),
        train_dataset=dataset,
        data_collator=collator,
        processing_class=backend.processor.tokenizer,
    )
    return trainer, collator([dataset[i] for i in range(len(rows))])


def _loss_and_gradients(backend: IllumeBackend, trainer: SFTTrainer, batch: dict[str, Any]) -> tuple[float, list[Any]]:
    backend.model.zero_grad()
    loss = trainer.compute_loss(backend.model.eval(), dict(batch))
    loss.backward()
    return float(loss.detach()), [weights.grad for weights in backend.model.parameters() if weights.requires_grad]


@pytest.fixture
def backend(base: Path) -> IllumeBackend:
    loaded = IllumeBackend.load(base, "cpu")
    loaded.model.freeze_vision()
    return loaded


def test_labelled_logits_are_trls_loss_and_gradient(
    backend: IllumeBackend, likely_rows: list[LikelyRow], tmp_path: Path
) -> None:
    trainer, batch = _trainer(backend, likely_rows, tmp_path)
    theirs, their_gradients = _loss_and_gradients(backend, trainer, batch)
    use_logits(backend.model, by_block=False)
    ours, gradients = _loss_and_gradients(backend, trainer, batch)
    assert ours == pytest.approx(theirs, abs=NEAR)
    for one, two in zip(gradients, their_gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)


def test_block_logits_are_the_loss_of_the_whole_vocabulary_with_the_other_block_masked(
    backend: IllumeBackend, likely_rows: list[LikelyRow], tmp_path: Path
) -> None:
    trainer, batch = _trainer(backend, likely_rows, tmp_path)
    unified, _ = _loss_and_gradients(backend, trainer, batch)
    use_logits(backend.model, by_block=True)
    loss, gradients = _loss_and_gradients(backend, trainer, batch)

    backend.model.zero_grad()
    labels = batch["labels"][:, 1:]
    logits = backend.model(**{name: tensor for name, tensor in batch.items() if name != "labels"}).logits[:, :-1]
    is_image = torch.arange(logits.shape[-1]) >= backend.model.config.num_text_ids
    other = is_image != (labels >= backend.model.config.num_text_ids).unsqueeze(-1)
    masked = torch.nn.functional.cross_entropy(logits.masked_fill(other, -torch.inf).flatten(0, 1), labels.flatten())
    masked.backward()
    assert loss == pytest.approx(float(masked.detach()), abs=NEAR)
    assert loss < unified - 0.1, "a model whose other block weighs nothing proves nothing"
    expected = [weights.grad for weights in backend.model.parameters() if weights.requires_grad]
    for one, two in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("by_block", [False, True])
def test_image_labels_are_fitted_at_the_temperature_and_text_labels_are_not(
    backend: IllumeBackend, likely_rows: list[LikelyRow], tmp_path: Path, by_block: bool
) -> None:
    trainer, batch = _trainer(backend, likely_rows, tmp_path)
    use_logits(backend.model, by_block=by_block, image_temperature=0.5)
    loss, _ = _loss_and_gradients(backend, trainer, batch)

    labels = batch["labels"][:, 1:]
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    logits = backend.model(**inputs).logits[:, :-1].detach()
    of_image = (labels >= backend.model.config.num_text_ids).unsqueeze(-1)
    assert set((labels[labels >= 0] >= backend.model.config.num_text_ids).tolist()) == {False, True}, "both kinds"
    scaled = torch.where(of_image, logits / 0.5, logits)
    if by_block:
        is_image = torch.arange(logits.shape[-1]) >= backend.model.config.num_text_ids
        scaled = scaled.masked_fill(is_image != of_image, -torch.inf)
    expected = torch.nn.functional.cross_entropy(scaled.flatten(0, 1), labels.flatten())
    assert loss == pytest.approx(float(expected), abs=NEAR)


def test_a_label_costs_the_logits_of_its_own_block_only(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []
    mm = torch.mm

    def counted(left: Tensor, right: Tensor, **named: Any) -> Tensor:
        sizes.append((left.shape[0], right.shape[1]))
        return mm(left, right, **named)

    monkeypatch.setattr(torch, "mm", counted)
    hidden, head = torch.randn(30, 8), torch.randn(40_000, 8)
    labels = torch.cat([torch.arange(10), torch.arange(36_000, 36_020)])
    label_log_probs(hidden, head, labels, [36_000, 4_000])
    assert sizes == [(10, 16_384), (10, 16_384), (10, 3_232), (20, 4_000)]


def test_a_batch_without_labels_of_a_block_gives_its_rows_a_gradient_of_zeros() -> None:
    hidden, head = torch.randn(3, 8, requires_grad=True), torch.randn(20, 8, requires_grad=True)
    label_log_probs(hidden, head, torch.tensor([1, 2, 3]), [12, 8]).sum().backward()
    assert head.grad is not None
    assert float(head.grad[12:].abs().max()) == 0.0
    assert float(head.grad[:12].abs().max()) > 0.0


def test_packed_rows_have_the_loss_of_padded_ones_and_fewer_positions(
    backend: IllumeBackend, likely_rows: list[LikelyRow], tmp_path: Path
) -> None:
    # Two long rows with their images, and short ones of text alone.
    trainer, batch = _trainer(backend, [likely_rows[0], *likely_rows[-2:]], tmp_path)
    items = [
        {"input_ids": ids[mask.bool()].tolist(), "labels": labels[mask.bool()].tolist(), "picture": picture}
        for ids, labels, mask, picture in zip(
            batch["input_ids"], batch["labels"], batch["attention_mask"], (-1, 0, 1), strict=True
        )
    ]
    told = [backend.sequences.tell(text) for text in ("a red circle", "two blue squares", "a green circle")]
    items += [{"input_ids": row.input_ids, "labels": row.labels, "picture": -1} for row in told]
    items = [items[3], items[1], items[4], items[0], items[5], items[2]]
    collator = trainer.data_collator
    padded, packed = collator(items), PackingCollator(collator, backend.sequences.pad)(items)
    assert packed["input_ids"].numel() < 0.8 * padded["input_ids"].numel()
    assert (packed["labels"] != -100).sum() == (padded["labels"] != -100).sum()
    one, expected = _loss_and_gradients(backend, trainer, padded)
    two, gradients = _loss_and_gradients(backend, trainer, packed)
    assert two == pytest.approx(one, abs=NEAR)
    for left, right in zip(gradients, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-4)


def test_rows_are_packed_whole_and_in_order_of_length() -> None:
    assert first_fit([2, 5, 3, 1, 4]) == [[1], [4, 3], [2, 0]]


def test_all_savings_train(base: Path, likely_rows: list[LikelyRow], tmp_path: Path) -> None:
    plain = TrainSettings(batch_size=8)
    saving = TrainSettings(batch_size=8, savings="bf16,checkpointing,packing,labelled-logits")
    reports = [
        train_candidate(base, likely_rows, tmp_path / str(index), settings, 0, lambda *_: None)
        for index, settings in enumerate((plain, saving))
    ]
    assert reports[1].losses == pytest.approx(reports[0].losses, rel=1e-3)


def test_deepspeed_says_nothing_on_standard_output() -> None:
    """Output is for results, which may be JSON; where it is installed, it is imported whenever a model is saved."""
    pytest.importorskip("deepspeed", reason="the extra `cluster` is not installed")
    code = (
        "from illume_loop.settings import RuntimeSettings\n"
        "from illume_loop.runtime import prepare\n"
        "prepare(RuntimeSettings())\n"
        "import deepspeed\n"
        "deepspeed.utils.logger.warning('for the log')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == ""
    assert "for the log" in done.stderr
