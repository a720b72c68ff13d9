"""`bench sampling`: images drawn a second, against transformers' `generate(generation_mode="image")`.

Both draw the same batch with guidance from the same weights, and every row has its own prompt. Before anything is
measured, both draw greedily and must draw the same ids; see `Drawing.warm_up`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from illume_loop.bench.measuring import Limits, Row, compare, in_words, peak_memory_mib, seconds
from illume_loop.bench.sizes import BEGIN_IMAGE, BOS, PAD, Size, random_janus, words
from illume_loop.engine.batches import bytes_per_slot
from illume_loop.engine.sampler import sample_image_ids
from illume_loop.errors import EngineDiffersError
from illume_loop.models.janus.language import JanusLanguage
from illume_loop.protocols import Sampling

GUIDANCE = 5.0
WARM_UP_IDS = 16


@dataclass(frozen=True, slots=True)
class Drawing:
    """A model and a batch of prompts of equal length, with `samples` images to draw of each."""

    model: Any
    size: Size
    prompts: Sequence[Sequence[int]]
    samples: int = 1

    @classmethod
    def of(cls, size: Size, device: str, batch: int, prompt_ids: int) -> Drawing:
        """Make `batch` prompts of `prompt_ids` ids, of random words."""
        return cls(random_janus(size, device), size, _prompts(batch, prompt_ids, size))

    @property
    def num_rows(self) -> int:
        """The number of images."""
        return len(self.prompts) * self.samples

    def ours(self, temperature: float = 1.0, num_ids: int | None = None) -> Tensor:
        """Draw ids (B, L) with the engine."""
        rows = [prompt for prompt in self.prompts for _ in range(self.samples)]
        nothing = [[i if i in (BOS, BEGIN_IMAGE) else PAD for i in row] for row in rows]
        sampling = Sampling(GUIDANCE, temperature)
        num_ids = num_ids or self.size.ids
        return sample_image_ids(JanusLanguage(self.model), rows, nothing, range(len(rows)), sampling, num_ids)

    def transformers(self, temperature: float = 1.0, num_ids: int | None = None) -> Tensor:
        """Draw ids (B, L) with `generate`; all ids compete, as in the engine, while its default would keep 50."""
        ids = torch.tensor(self.prompts, device=self.model.device)
        with _ids_of_an_image(self.model, num_ids or self.size.ids):
            drawn: Tensor = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                generation_mode="image",
                guidance_scale=GUIDANCE,
                num_return_sequences=self.samples,
                do_sample=temperature > 0.0,
                **({"temperature": temperature, "top_k": 0} if temperature else {}),
            )
        return drawn

    def limit(self, limits: Limits) -> float:
        """Return the least seconds that the bytes and products of this drawing take.

        Each step reads the weights of the decoder and of the head, and the keys and values of the filled slots.
        """
        body, head = self.model.model.language_model, self.model.model.generation_head
        weights = sum(weight.numel() for part in (body.layers, head) for weight in part.parameters())
        rows, prefix = 2 * self.num_rows, len(self.prompts[0])
        filled = sum(prefix + step + 1 for step in range(self.size.ids))
        kv_numbers = 2 * self.size.layers * self.size.hidden * rows * filled
        numbers = weights * self.size.ids + kv_numbers
        return limits.least_seconds(
            numbers * self.model.lm_head.weight.element_size(), 2.0 * weights * rows * self.size.ids + 2.0 * kv_numbers
        )

    def warm_up(self) -> None:
        """Draw a few ids both ways, greedily. Raises EngineDiffersError if they differ.

        In less than float32, transformers rounds the logits and the engine does not, so rows part ways at near ties. Of
        a codebook's thousands of ids, more than half of the first ones drawn must still be the same.
        """
        num_ids = min(WARM_UP_IDS, self.size.ids)
        same = self.ours(0.0, num_ids) == self.transformers(0.0, num_ids)
        if not bool(same.all()) and (self.model.dtype == torch.float32 or float(same[:, 0].float().mean()) <= 0.5):
            raise EngineDiffersError(what="draw")
        self.ours(1.0, num_ids)


def bench_sampling(
    size: Size, device: str, *, batch: int, prompt_ids: int, repeats: int, threads: Sequence[int]
) -> Iterator[tuple[Row, int, Limits]]:
    """Yield a row for each number of threads, with that number and the limits that the row was compared with."""
    drawing = Drawing.of(size, device, batch, prompt_ids)
    for num_threads in threads:
        torch.set_num_threads(num_threads)
        limits = Limits.measured(device)
        drawing.warm_up()
        found = compare(drawing.ours, drawing.transformers, repeats)
        setting = f"{batch} images of {size.ids} ids, prompts of {prompt_ids}, guidance, {in_words(num_threads)}"
        yield (
            Row(
                setting,
                batch / found.ours,
                reference=batch / found.reference,
                ratio=found.ratio,
                control=found.control,
                limit_share=drawing.limit(limits) / found.ours,
            ),
            num_threads,
            limits,
        )


def bench_growth(size: Size, device: str, *, prompt_ids: int, num_threads: int) -> Iterator[Row]:
    """Yield rows that show how cost grows with the batch, samples of one prompt, and ids of an image.

    Only the engine runs, once for each row. Memory is the peak of a run. Beside it stands what the engine predicts when
    it chooses a batch size.
    """
    torch.set_num_threads(num_threads)
    short = replace(size, ids=min(size.ids, 144))
    model = random_janus(short, device)
    for batch in (1, 2, 4, 8, 16, 32):
        drawing = Drawing(model, short, _prompts(batch, prompt_ids, short))
        yield _grown(drawing, f"batch {batch}, {short.ids} ids", device)
    for samples in (1, 2, 4, 8, 16):
        drawing = Drawing(model, short, _prompts(1, prompt_ids, short), samples)
        yield _grown(drawing, f"{samples} samples of one prompt, {short.ids} ids", device)
    for ids in (36, 144, 324, 576):
        if ids <= size.ids:
            drawing = Drawing(model, replace(size, ids=ids), _prompts(8, prompt_ids, size))
            yield _grown(drawing, f"{ids} ids, batch 8", device)


def _grown(drawing: Drawing, setting: str, device: str) -> Row:
    drawing.ours(1.0, 2)
    took: list[float] = []
    memory = peak_memory_mib(lambda: took.append(seconds(drawing.ours)), device)
    slots = 2 * drawing.num_rows * (len(drawing.prompts[0]) + drawing.size.ids)
    predicted = slots * bytes_per_slot(drawing.model.model.language_model) / 2**20
    return Row(setting, drawing.num_rows / took[0], memory_mib=memory, predicted_mib=predicted)


def _prompts(count: int, length: int, size: Size) -> list[list[int]]:
    return [[BOS, *words(length - 2, seed, size), BEGIN_IMAGE] for seed in range(count)]


@contextmanager
def _ids_of_an_image(model: Any, count: int) -> Iterator[None]:
    """Make `generate` draw `count` ids of an image.

    It draws as many as the vision encoder's configuration says, whatever else it is told.
    """
    config = model.model.vision_model.config
    usual, config.num_image_tokens = config.num_image_tokens, count
    try:
        yield
    finally:
        config.num_image_tokens = usual
