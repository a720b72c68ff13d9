"""Measure what a base can do and learn; print the table of README.md here, one column.

    python docs/experiments/base/measure.py BASE [PART ...]

BASE is a shipped name or a model directory. The parts are `draws`, `eight`, `reads` and `teach`; all are measured if
none is named. The exact checker says which images are right.

- draws: the share of 512 held-out prompts drawn right at temperature 1, and at the model's own best decode, which is
  the best of a grid on 128 train prompts.
- eight: of eight images for each of 256 held-out prompts at two decodes, whether any is right, and whether the one that
  the model itself finds likeliest is right.
- reads: the forced choice between two captions that differ in one attribute, on 512 pictures.
- teach: the best decode and its share after one pass over 10,000 true pairs of train compositions.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np
from torch import Tensor

from illume_loop.domains import get_domain
from illume_loop.domains.shapes.grammar import OPENINGS, words
from illume_loop.domains.shapes.render import render
from illume_loop.domains.shapes.spec import CATEGORIES
from illume_loop.domains.shapes.splits import specs_of
from illume_loop.evals.suites import alignment, draw, understanding
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.models.shipped import base_path
from illume_loop.pretrain.stepper import ParameterGroup, train_stage
from illume_loop.protocols import Prompt, Sampling

GUIDANCES, TEMPERATURES = (1.0, 1.25, 1.5, 2.0, 2.5), (1.0, 0.8, 0.6, 0.4)
HELDOUT, SWEEP, PROMPTS_OF_EIGHT, PROBES = 512, 128, 256, 512
EIGHT = (Sampling(1.5, 0.7), Sampling(1.25, 0.7))
PAIRS, ROWS, RATE = 10_000, 64, 1.5e-3
SEED = 20_000
BATCH = 256
DOMAIN = get_domain("shapes")
PARTS = ("draws", "eight", "reads", "teach")


def drawn(model: IllumeBackend, prompts: Sequence[Prompt], decode: Sampling) -> list[bool]:
    """Return whether the checker accepts each draw."""
    return alignment(model, DOMAIN, prompts, list(range(SEED, SEED + len(prompts))), decode, BATCH).passed


def best_decode(model: IllumeBackend) -> Sampling:
    """Return the decode of the grid at which a model draws train prompts best."""
    prompts = DOMAIN.prompts("train", SWEEP, SEED)
    decodes = [Sampling(guidance, temperature) for guidance, temperature in product(GUIDANCES, TEMPERATURES)]
    return max(decodes, key=lambda decode: sum(drawn(model, prompts, decode)))


def by_category(prompts: Sequence[Prompt], right: Sequence[bool]) -> str:
    """Return the share that is right, and the same of each category, in percent."""
    found = defaultdict(list)
    for prompt, holds in zip(prompts, right, strict=True):
        found[prompt.category].append(holds)
    shares = ", ".join(f"{category} {100 * np.mean(found[category]):.0f}" for category in CATEGORIES if found[category])
    return f"{100 * np.mean(right):.1f} ({shares})"


def chunks(count: int) -> list[slice]:
    """Return the slices of `count` items in batches."""
    return [slice(start, start + BATCH) for start in range(0, count, BATCH)]


def tell(what: str, value: str) -> None:
    """Print one row."""
    print(f"| {what} | {value} |", flush=True)


def tell_draws(model: IllumeBackend, when: str = "") -> None:
    """Print the shares of held-out prompts that are drawn right."""
    prompts, best = DOMAIN.prompts("heldout", HELDOUT, SEED), best_decode(model)
    for told, decode in (("temperature 1, guidance 1.25", Sampling(1.25)), ("own best decode", best)):
        where = "" if decode != best else f": guidance {best.guidance_scale:g}, temperature {best.temperature:g}"
        tell(f"{when}{told}{where}", by_category(prompts, drawn(model, prompts, decode)))


def tell_eight(model: IllumeBackend, decode: Sampling) -> None:
    """Print the shares of prompts of which one of eight, any of eight, and the likeliest of eight is right."""
    told = f"eight at guidance {decode.guidance_scale:g}, temperature {decode.temperature:g}"
    asked = DOMAIN.prompts("heldout", PROMPTS_OF_EIGHT, SEED)
    prompts = [prompt for prompt in asked for _ in range(8)]
    images, _ = draw(model, prompts, list(range(SEED, SEED + len(prompts))), decode, BATCH)
    right = np.array([DOMAIN.check(image, p).passed for image, p in zip(images, prompts, strict=True)]).reshape(-1, 8)
    texts = [prompt.text for prompt in prompts]
    read = [model.log_likelihood(images[chunk], texts[chunk]) for chunk in chunks(len(images))]
    likelihood = np.concatenate(read).reshape(-1, 8)
    tell(f"{told}: mean", by_category(prompts, list(right.flat)))
    tell(f"{told}: any", by_category(asked, [any(row) for row in right]))
    chosen = right[np.arange(len(asked)), likelihood.argmax(axis=1)]
    tell(f"{told}: own choice by likelihood", by_category(asked, list(chosen)))


def teach(model: IllumeBackend) -> None:
    """Train a model on true pairs of train compositions, one pass."""
    rng = Random(SEED)
    specs = [rng.choice(specs_of(rng.choice(CATEGORIES), "train")) for _ in range(PAIRS)]
    texts = [words(spec, rng.choice(OPENINGS)) for spec in specs]
    images = [render(spec, rng) for spec in specs]
    ids = np.concatenate([model.encode(images[chunk]) for chunk in chunks(PAIRS)])
    model.model.requires_grad_(True)
    model.freeze_vision()

    def loss_at(step: int) -> Tensor:
        rows = range(step * ROWS, min((step + 1) * ROWS, PAIRS))
        dropped = Random(f"dropped/{step}")
        batch = [model.sequences.draw("" if dropped.random() < 0.1 else texts[i], ids[i].tolist()) for i in rows]
        loss: Tensor = model.model(**model.sequences.collate(batch), use_cache=False).loss
        return loss

    group = ParameterGroup([p for p in model.model.parameters() if p.requires_grad], RATE)
    with TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "teach.safetensors"
        train_stage("teach", model.model, [group], loss_at, -(-PAIRS // ROWS), checkpoint, lambda *_: None)


def main(base: str, parts: Sequence[str]) -> None:
    """Print a row for each thing measured."""
    model = IllumeBackend.load(base_path(base), "cpu")
    tell(base, "% right")
    tell("---", "---")
    if "reads" in parts:
        tell("reads", f"{100 * np.mean(understanding(model, DOMAIN, PROBES, SEED)):.1f}")
    if "eight" in parts:
        for decode in EIGHT:
            tell_eight(model, decode)
    if "draws" in parts:
        tell_draws(model)
    if "teach" in parts:
        teach(model)
        tell_draws(model, "taught, ")


if __name__ == "__main__":
    if len(sys.argv) < 2 or set(sys.argv[2:]) - set(PARTS):
        sys.exit(f"usage: python docs/experiments/base/measure.py BASE [{'|'.join(PARTS)} ...]")
    main(sys.argv[1], sys.argv[2:] or PARTS)
