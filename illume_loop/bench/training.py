"""`bench train`: tokens a second of a step of stage 2, and how much of the machine's products it uses.

The model is an ILLUME of random weights, made as `illume-loop model init --random` makes it. A step is what training
does: forward, backward and AdamW on language model, adapter and head. On a GPU it runs in bfloat16, with weights in
float32. As many rows draw as read. The features of images are given, as they are if data is tokenised before.

Ours computes the logits that labels need (`train.savings = "block-logits"`). The reference computes all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from illume_loop.bench.measuring import Limits, Row, compare, in_words, peak_memory_mib
from illume_loop.models.illume.composing import compose_random
from illume_loop.models.illume.sizes import Choices, Size
from illume_loop.models.sequences import IGNORED_LABEL, Sequence1D, collate
from illume_loop.train.head import label_log_probs

PROMPT_WORDS, ANSWER_WORDS = 24, 48
TINY = Size(
    llm="",
    vision="",
    text_config={
        "model_type": "qwen2",
        "vocab_size": 2_048,
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "dtype": "float32",
    },
    vision_config={
        "model_type": "siglip_vision_model",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 8,
    },
    choices=Choices(codebook_size=1_024, code_dim=8, quantizer_layers=1, detokenizer_width=16),
)


@dataclass(frozen=True, slots=True)
class Step:
    """A model with its optimiser and one batch."""

    model: Any
    optimizer: torch.optim.Optimizer
    batch: dict[str, Tensor]

    @classmethod
    def of(cls, size: Size, device: str, num_rows: int) -> Step:
        """Make random weights, and rows of random ids; half of the rows, rounded up, draw."""
        model = compose_random(size, size.choices, dtype="float32").model
        model.freeze_vision()
        nn.Module.to(model, device).train()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=5e-5, weight_decay=0.0, fused=device.startswith("cuda"))
        batch = {name: tensor.to(device) for name, tensor in _batch(model.config, num_rows).items()}
        return cls(model, optimizer, batch)

    @property
    def num_tokens(self) -> int:
        """Positions of the batch without padding."""
        return int(self.batch["attention_mask"].sum())

    @property
    def flops(self) -> float:
        """The operations of a step: six for each weight and token, attention over earlier positions, and logits.

        The logits are those within the block of each label. Operations that are repeated or padded are not counted.
        """
        config = self.model.config.text_config
        body = self.model.model.language_model
        table = body.get_input_embeddings().weight.numel()
        weights = sum(p.numel() for p in body.parameters()) - table
        lengths = self.batch["attention_mask"].sum(1).double()
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        # Two products of queries with half of the keys on average, of two operations each; backward does twice as many.
        attended: float = (
            6 * config.num_hidden_layers * config.num_attention_heads * head_dim * float(lengths.square().sum())
        )
        labels = self.batch["labels"][:, 1:]
        first = self.model.config.num_text_ids
        of_text = int(((labels >= 0) & (labels < first)).sum()) * first
        of_images = int((labels >= first).sum()) * self.model.config.codebook_size
        return float(6 * (weights * self.num_tokens + config.hidden_size * (of_text + of_images))) + attended

    def ours(self) -> float:
        """Run one step with the logits that labels need; return its loss."""
        labels = self.batch["labels"][:, 1:]
        labelled = labels != IGNORED_LABEL
        config, weight = self.model.config, self.model.lm_head.weight
        with self._precision():
            inputs = {name: tensor for name, tensor in self.batch.items() if name != "labels"}
            hidden = self.model.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
            blocks = [config.num_text_ids, config.codebook_size]
            scored = label_log_probs(hidden[labelled], weight, labels[labelled], blocks)
        return self._learn(-scored.mean())

    def reference(self) -> float:
        """Run one step with all logits; return its loss."""
        with self._precision():
            loss: Tensor = self.model(**self.batch, use_cache=False).loss
        return self._learn(loss)

    def _learn(self, loss: Tensor) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def _precision(self) -> Any:
        device = self.batch["labels"].device.type
        return torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda")


def bench_train(
    size: Size, device: str, *, batch: int, repeats: int, threads: Sequence[int]
) -> Iterator[tuple[Row, int, Limits]]:
    """Yield a row for each number of threads, with that number and the limits that the row was compared with."""
    step = Step.of(size, device, batch)
    for num_threads in threads:
        torch.set_num_threads(num_threads)
        limits = Limits.measured(device)
        memory = peak_memory_mib(step.ours, device)
        step.reference()
        found = compare(step.ours, step.reference, repeats)
        row = Row(
            f"a step of {batch} rows, {step.num_tokens} tokens, {in_words(num_threads)}",
            step.num_tokens / found.ours,
            unit="tokens/s",
            reference=step.num_tokens / found.reference,
            ratio=found.ratio,
            control=found.control,
            limit_share=step.flops / limits.flops_per_second / found.ours,
            memory_mib=memory,
        )
        yield row, num_threads, limits


def _batch(config: Any, num_rows: int) -> dict[str, Tensor]:
    """Return a batch in which rows that draw and rows that read take turns.

    A drawing row is a prompt and its image. A reading row is an image and what is said of it.
    """
    generator = torch.Generator().manual_seed(0)
    image = config.tokens_per_image

    def drawn(below: int, count: int, first: int = 0) -> list[int]:
        ids: list[int] = (first + torch.randint(below, (count,), generator=generator)).tolist()
        return ids

    rows = []
    for index in range(num_rows):
        if index % 2:
            prefix = [config.begin_image_token_id, *[config.image_placeholder_token_id] * image]
            rows.append(Sequence1D.with_prefix(prefix, drawn(256, ANSWER_WORDS)))
        else:
            prefix = [*drawn(256, PROMPT_WORDS), config.begin_image_token_id]
            ids = drawn(config.codebook_size, image, config.num_text_ids)
            rows.append(Sequence1D.with_prefix(prefix, ids))
    batch = collate(rows, config.pad_token_id)
    if num_rows > 1:
        width = config.vision_config.hidden_size
        batch["image_features"] = torch.randn(num_rows // 2, image, width, generator=generator)
    return batch
