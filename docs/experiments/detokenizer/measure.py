"""What two detokenizers make of the same ids: PYTHONPATH=. python measure.py CONV DIFFUSION [N].

CONV and DIFFUSION are shipped names or model directories that differ in their detokenizers alone. N images (256) of
each kind: held-out scenes rendered, encoded and painted, and draws for held-out prompts. Prints a Markdown table. Times
are of the CPU's clock, on one thread, as the loop paints; what is checked is painted in batches, which differs from
that in single last bits.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from random import Random
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from illume_loop.charts.numbers import gain, interval
from illume_loop.domains.shapes.checker import check
from illume_loop.domains.shapes.domain import ShapesDomain
from illume_loop.domains.shapes.render import draw, place
from illume_loop.domains.shapes.spec import Spec, spec_from_json
from illume_loop.evals.statistics import paired_bootstrap, wilson_interval
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.models.registry import load_model
from illume_loop.models.shipped import base_path
from illume_loop.protocols import ImageIds, Sampling

SEED = 2_000
"""Of prompts, layouts and noise: no run, no gate and no training draws with it."""
GUIDANCE_OF_DRAWS = 1.25
STEPS, GUIDANCE = (1, 2, 4, 8), (1.0, 1.5, 2.0)
IMAGES_TIMED, REPEATS, BATCH = 4, 5, 64
COLUMNS = (
    "painted by",
    "scenes right, %",
    "draws right, %",
    "draws, against conv",
    "PSNR, dB",
    "L1",
    "ms an image",
    "conv = 1",
    "conv, control",
)


@dataclass(frozen=True, slots=True)
class Painted:
    """How often what was painted of scenes and of draws shows what it should, and how far the scenes are from it."""

    scenes: list[bool]
    draws: list[bool]
    psnr: float
    l1: float


def main(paths: Sequence[str], count: int) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    conv, diffusion = (_model(path) for path in paths)
    prompts = ShapesDomain().prompts("heldout", count, SEED)
    specs = [spec_from_json(prompt.spec) for prompt in prompts]
    layouts = [place(spec, Random(f"detokenizer/{SEED}/{i}")) for i, spec in enumerate(specs)]
    ids = (
        conv.encode([draw(layout) for layout in layouts]),
        conv.sample([prompt.text for prompt in prompts], range(SEED, SEED + count), Sampling(GUIDANCE_OF_DRAWS)),
    )
    upscale = diffusion.model.config.detokenizer_upscale
    truth = {scale: np.stack([np.asarray(draw(layout, scale)) / 255 for layout in layouts]) for scale in (1, upscale)}
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    before = _painted(conv, ids, specs, truth[1])
    _row(f"conv, {_millions(conv)}", before, None, _times(conv, conv, ids[0]))
    painter = diffusion.model.model.vision.detokenizer
    for painter.guidance in GUIDANCE:
        for painter.steps in STEPS:
            name = f"diffusion, {_millions(diffusion)}, steps {painter.steps}, guidance {painter.guidance:g}"
            after = _painted(diffusion, ids, specs, truth[upscale])
            _row(name, after, before, _times(diffusion, conv, ids[0]))


def _model(path: str) -> IllumeBackend:
    model = load_model(base_path(path))
    assert isinstance(model, IllumeBackend)
    return model


def _painted(
    model: IllumeBackend, ids: tuple[ImageIds, ImageIds], specs: Sequence[Spec], truth: NDArray[np.float64]
) -> Painted:
    scenes, draws = (_batches(model, of_kind) for of_kind in ids)
    apart = np.stack([np.asarray(image) / 255 for image in scenes]) - truth
    psnr = -10 * np.log10((apart**2).mean(axis=(1, 2, 3)))
    return Painted(_right(scenes, specs), _right(draws, specs), float(psnr.mean()), float(np.abs(apart).mean()))


@torch.inference_mode()
def _batches(model: IllumeBackend, ids: ImageIds) -> list[Image.Image]:
    vision = model.model.model.vision
    parts = torch.from_numpy(ids.astype(np.int64)).split(BATCH)
    pixels = torch.cat([vision.detokenizer(vision.quantizer.decode(part)) for part in parts])
    return [Image.fromarray(array) for array in (pixels.permute(0, 2, 3, 1) * 255).round().byte().numpy()]


def _right(images: Sequence[Image.Image], specs: Sequence[Spec]) -> list[bool]:
    return [check(image, spec).passed for image, spec in zip(images, specs, strict=True)]


def _times(model: IllumeBackend, reference: IllumeBackend, ids: ImageIds) -> tuple[float, float, float]:
    """Milliseconds an image, times as long as the reference takes, and the reference against itself."""
    rounds = []
    for _ in range(REPEATS):
        rounds.append([_seconds(one, ids[:IMAGES_TIMED]) for one in (reference, model, reference)])
    milliseconds = 1000 * median(ours for _, ours, _ in rounds) / IMAGES_TIMED
    return milliseconds, median(b / a for a, b, _ in rounds), median(c / a for a, _, c in rounds)


def _seconds(model: IllumeBackend, ids: ImageIds) -> float:
    began = time.process_time()
    model.decode(ids)
    return time.process_time() - began


def _millions(model: IllumeBackend) -> str:
    return f"{sum(p.numel() for p in model.model.model.vision.detokenizer.parameters()) / 1e6:.2f} M"


def _row(name: str, painted: Painted, before: Painted | None, times: tuple[float, float, float]) -> None:
    cells = [name, *(interval(asdict(wilson_interval(kind))) for kind in (painted.scenes, painted.draws))]
    cells.append("" if before is None else gain(asdict(paired_bootstrap(before.draws, painted.draws))))
    cells += [f"{painted.psnr:.1f}", f"{painted.l1:.4f}", *(f"{value:.2f}" for value in times)]
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:3], int(sys.argv[3]) if len(sys.argv) > 3 else 256)
