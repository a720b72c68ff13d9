"""How far the unified loss lies above the loss by blocks: what a base spends on telling text from images.

    python docs/experiments/loss/gap.py [--base shapes-base] [--rows 64]

Rows of the shapes world, half to draw and half to read, with the base's own ids of real pictures.
"""

from __future__ import annotations

import argparse

import torch

from illume_loop.domains.shapes.domain import ShapesDomain
from illume_loop.loop.opening import base_path
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.models.sequences import IGNORED_LABEL, Sequence1D, collate
from illume_loop.train.head import label_log_probs


@torch.inference_mode()
def losses(backend: IllumeBackend, rows: list[Sequence1D], features: torch.Tensor | None) -> tuple[float, float, int]:
    """Mean nats of a label, unified and by blocks, and how many labels there are."""
    batch = collate(rows, backend.sequences.pad)
    labels = batch.pop("labels")[:, 1:]
    hidden = backend.model.model(**batch, image_features=features).last_hidden_state[:, :-1]
    labelled = labels != IGNORED_LABEL
    head, num_text_ids = backend.model.lm_head.weight, backend.model.config.num_text_ids
    found = [
        -float(label_log_probs(hidden[labelled], head, labels[labelled], sizes).mean())
        for sizes in ([len(head)], [num_text_ids, len(head) - num_text_ids])
    ]
    return found[0], found[1], int(labelled.sum())


def main() -> None:
    """One line for each kind of row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="shapes-base")
    parser.add_argument("--rows", type=int, default=64)
    args = parser.parse_args()
    backend = IllumeBackend.load(base_path(args.base), "cpu")
    pairs = ShapesDomain().real_pairs(args.rows, 0)
    images = [pair.image for pair in pairs]
    drawn = [
        backend.sequences.draw(pair.caption, ids.tolist())
        for pair, ids in zip(pairs, backend.encode(images), strict=True)
    ]
    read = [backend.sequences.read(pair.caption) for pair in pairs]
    for kind, rows, features in (("draw", drawn, None), ("read", read, backend.features(images))):
        unified, blocks, count = losses(backend, rows, features)
        print(f"{kind}: unified {unified:.6f}, by blocks {blocks:.6f}, gap {unified - blocks:.2e} nats, {count} labels")


if __name__ == "__main__":
    main()
