"""Language-model batches of the three stages, from a corpus.

draw         noisy caption -> image ids, the caption dropped 10 % of the time for guidance
read         image features -> noisy caption
reconstruct  image features -> image ids (the task that initialises the vision rows, stage 1)
text         a caption alone
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Literal

from torch import Tensor

from illume_loop.domains.shapes.domain import noisy
from illume_loop.domains.shapes.grammar import OPENINGS, words
from illume_loop.models.illume.modeling import IGNORED_LABEL
from illume_loop.models.illume.sequences import Sequence1D, SequenceBuilder
from illume_loop.pretrain.corpus import Corpus

Task = Literal["draw", "read", "reconstruct", "text"]
TEXT_DROPOUT = 0.1


def batch_at(
    step: int,
    purpose: str,
    mix: Mapping[Task, float],
    corpus: Corpus,
    sequences: SequenceBuilder,
    size: int,
    caption_noise: float,
    seed: int,
) -> dict[str, Tensor]:
    """`input_ids`, `labels`, `attention_mask` and, where images are read, `image_features`."""
    rng = Random(f"{purpose}/{seed}/{step}")
    tasks = rng.choices(list(mix), weights=list(mix.values()), k=size)
    rows: list[Sequence1D] = []
    read: list[int] = []
    for task in tasks:
        index = rng.randrange(len(corpus.specs))
        caption = words(noisy(corpus.specs[index], caption_noise, rng), rng.choice(OPENINGS))
        rows.append(_row(task, caption, index, corpus, sequences, rng))
        if task in ("read", "reconstruct"):
            read.append(index)
    batch = sequences.collate(rows)
    if read:
        batch["image_features"] = corpus.features_at(read)
    return batch


def _row(task: Task, caption: str, index: int, corpus: Corpus, sequences: SequenceBuilder, rng: Random) -> Sequence1D:
    match task:
        case "draw":
            prompt = "" if rng.random() < TEXT_DROPOUT else caption
            return sequences.draw(prompt, corpus.ids[index].tolist())
        case "read":
            return sequences.read(caption)
        case "text":
            ids = [sequences.bos, *sequences.words(caption), sequences.eos]
            return Sequence1D(ids, [IGNORED_LABEL, *ids[1:]])
        case "reconstruct":
            prefix, drawn = sequences.read_prefix(), sequences.draw("", corpus.ids[index].tolist())
            begin = sequences.config.begin_image_token_id
            image = drawn.input_ids[2:]
            return Sequence1D([*prefix, begin, *image], [IGNORED_LABEL] * (len(prefix) + 1) + image)
