"""`bench assess`: images assessed a second, against one forward pass of transformers for each question.

Each image is asked several yes/no questions, and the likelihood of its prompt is read. Ours sends pixels and prefix
through the model once for all of these. The reference is the usual way of asking transformers: for each question,
pixels and text go through the whole model, the images as one batch, with logits of the last positions only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from illume_loop.bench.measuring import Limits, Row, compare, in_words
from illume_loop.bench.sizes import BEGIN_IMAGE, BOS, END_IMAGE, IMAGE, Size, random_janus, words
from illume_loop.engine.scorer import Branch, LogOddsBranch, Scored, score_branches
from illume_loop.errors import EngineDiffersError
from illume_loop.models.janus.language import JanusLanguage

QUESTION_IDS = 14
PROMPT_IDS = 16
YES, NO = 6, 7
TOLERANCE = {torch.float32: 5e-3, torch.bfloat16: 0.5}


@dataclass(frozen=True, slots=True)
class Reading:
    """A model, pixels (B, 3, S, S), and the questions and the prompt that are asked of every image."""

    model: Any
    pixels: Tensor
    questions: Sequence[Sequence[int]]
    prompt: Sequence[int]

    @classmethod
    def of(cls, size: Size, model: Any, batch: int, num_questions: int) -> Reading:
        """Make images of noise and questions of random words."""
        side = model.config.vision_config.image_size
        pixels = torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1
        asked = [words(QUESTION_IDS, seed, size) for seed in range(num_questions)]
        return cls(model, pixels.to(model.device, model.dtype), asked, words(PROMPT_IDS, 99, size))

    @property
    def _prefix(self) -> list[int]:
        slots = [IMAGE] * self.model.config.vision_config.num_image_tokens
        return [BOS, BEGIN_IMAGE, *slots, END_IMAGE]

    @torch.inference_mode()
    def ours(self) -> Tensor:
        """Return log-odds and likelihood (B, questions + 1) from the engine."""
        language, prefix = JanusLanguage(self.model), torch.tensor(self._prefix, device=self.model.device)
        features = self.model.model.get_image_features(self.pixels).pooler_output
        embeds = language.embed_text(prefix).expand(len(self.pixels), -1, -1).clone()
        embeds[:, prefix == IMAGE] = features.to(embeds.dtype)
        branches: list[Branch] = [
            *(LogOddsBranch(ids, ([YES], [NO])) for ids in self.questions),
            Scored(self.prompt, len(self.prompt)),
        ]
        return torch.tensor(np.stack(score_branches(language, [*embeds], [branches] * len(embeds))))

    @torch.inference_mode()
    def transformers(self) -> Tensor:
        """Return the same values from transformers, with one forward pass for each."""
        columns = []
        for question in self.questions:
            logits = self._forward(question, 1)[:, 0]
            columns.append(logits[:, YES] - logits[:, NO])
        logits = self._forward(self.prompt, len(self.prompt) + 1)[:, :-1]
        targets = torch.tensor(self.prompt, device=logits.device).expand(len(logits), -1)
        columns.append(logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).sum((1, 2)))
        return torch.stack(columns, dim=1).double().cpu()

    def _forward(self, ids: Sequence[int], logits_to_keep: int) -> Tensor:
        rows = torch.tensor([[*self._prefix, *ids]] * len(self.pixels), device=self.pixels.device)
        logits: Tensor = self.model(input_ids=rows, pixel_values=self.pixels, logits_to_keep=logits_to_keep).logits
        return logits.float()

    def warm_up(self) -> None:
        """Run both ways once. Raises EngineDiffersError if their values differ by more than TOLERANCE."""
        difference = (self.ours() - self.transformers()).abs().max().item()
        if difference > TOLERANCE[self.model.dtype]:
            raise EngineDiffersError(what="read")

    def limit(self, limits: Limits) -> float:
        """Return the least seconds that the products take if everything goes through the model once."""
        model = self.model.model
        prefix, size = len(self._prefix), self.model.config.text_config.hidden_size
        tail = sum(map(len, self.questions)) + len(self.prompt)
        body = sum(weight.numel() for weight in model.language_model.layers.parameters())
        vision = sum(weight.numel() for weight in model.vision_model.parameters())
        attention = 2 * size * len(model.language_model.layers) * (prefix**2 / 2 + tail * prefix)
        flops = 2.0 * len(self.pixels) * (body * (prefix + tail) + vision * (prefix - 3) + attention)
        return limits.least_seconds(body * self.model.lm_head.weight.element_size(), flops)


def bench_assess(
    size: Size, device: str, *, batch: int, num_questions: int, repeats: int, threads: Sequence[int]
) -> Iterator[tuple[Row, int, Limits]]:
    """Yield a row for each number of threads, with that number and the limits that the row was compared with."""
    reading = Reading.of(size, random_janus(size, device), batch, num_questions)
    for num_threads in threads:
        torch.set_num_threads(num_threads)
        limits = Limits.measured(device)
        reading.warm_up()
        found = compare(reading.ours, reading.transformers, repeats)
        row = Row(
            f"{batch} images, {num_questions} questions and the prompt each, {in_words(num_threads)}",
            batch / found.ours,
            reference=batch / found.reference,
            ratio=found.ratio,
            control=found.control,
            limit_share=reading.limit(limits) / found.ours,
        )
        yield row, num_threads, limits
