"""`bench round`: images drawn, decoded and assessed a second, the whole way from prompt to score.

The reference does each step by itself with transformers and passes images on as PNG, as separate processes would. Ours
passes them on in memory.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from illume_loop.bench.assessing import Reading
from illume_loop.bench.measuring import Limits, Row, compare, in_words
from illume_loop.bench.sampling import Drawing
from illume_loop.bench.sizes import Size


def bench_round(
    size: Size,
    device: str,
    *,
    batch: int,
    prompt_ids: int,
    num_questions: int,
    repeats: int,
    threads: Sequence[int],
) -> Iterator[tuple[Row, int, Limits]]:
    """Yield a row for each number of threads, with that number and the limits that the row was compared with."""
    drawing = Drawing.of(size, device, batch, prompt_ids)
    reading = Reading.of(size, drawing.model, batch, num_questions)

    def decoded(ids: Tensor) -> Tensor:
        with torch.inference_mode():
            pixels: Tensor = drawing.model.model.vqmodel.decode(ids)
        return ((pixels.float() + 1) * 127.5).clamp(0, 255).byte()

    def judged(pixels: Tensor) -> Reading:
        return replace(reading, pixels=(pixels.to(drawing.model.device).to(drawing.model.dtype) / 127.5 - 1))

    def ours() -> Tensor:
        return judged(decoded(drawing.ours())).ours()

    def transformers() -> Tensor:
        return judged(_through_png(decoded(drawing.transformers()))).transformers()

    for num_threads in threads:
        torch.set_num_threads(num_threads)
        limits = Limits.measured(device)
        drawing.warm_up()
        reading.warm_up()
        found = compare(ours, transformers, repeats)
        row = Row(
            f"{batch} images of {size.ids} ids drawn, decoded and asked {num_questions} questions and the prompt, "
            f"{in_words(num_threads)}",
            batch / found.ours,
            reference=batch / found.reference,
            ratio=found.ratio,
            control=found.control,
            limit_share=(drawing.limit(limits) + reading.limit(limits)) / found.ours,
        )
        yield row, num_threads, limits


def _through_png(pixels: Tensor) -> Tensor:
    """Write images (B, 3, S, S) as PNG and read them again."""
    read = []
    for array in pixels.permute(0, 2, 3, 1).cpu().numpy():
        file = io.BytesIO()
        Image.fromarray(array).save(file, format="PNG")
        read.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2)
