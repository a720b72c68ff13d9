"""The language model's batches, built from a corpus, for the stages text and 1 to 3.

draw         caption -> image ids; the caption is dropped 10 % of the time, for guidance
read         image features -> caption
reconstruct  image features -> image ids (the task that initialises the vision rows, stage 1)
text         a caption alone
question     image features, atomic questions in turn -> yes or no to each, both equally often
rate         image features, a claim -> 1 to 5
critique     image features, a claim -> verdicts, evidence and one sentence of analysis, as JSON
ask          a prompt -> its questions, as JSON
edit         image features, an instruction -> image ids

Captions and pictures disagree at the rates of `Pairs`, as on the web. Answers, grades, critiques and edits are
correct, as in instruction data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from torch import Tensor

from illume_loop.domains.shapes.checker import Component
from illume_loop.domains.shapes.domain import noisy
from illume_loop.domains.shapes.grammar import OPENINGS, words
from illume_loop.domains.shapes.questions import questions
from illume_loop.domains.shapes.spec import Category, Spec
from illume_loop.domains.shapes.wordings import critique, grade
from illume_loop.judge import instructions
from illume_loop.models.illume.sequences import SequenceBuilder
from illume_loop.models.sequences import IGNORED_LABEL, Sequence1D
from illume_loop.pretrain.corpus import Corpus
from illume_loop.pretrain.scenes import random_spec
from illume_loop.pretrain.typical import as_typical
from illume_loop.protocols import NO, YES

Task = Literal["draw", "read", "reconstruct", "text", "question", "rate", "critique", "ask", "edit"]
OF_AN_IMAGE: tuple[Task, ...] = ("read", "reconstruct", "question", "rate", "critique", "edit")
ANSWERS: tuple[Task, ...] = ("question", "rate")
SHORT: tuple[Task, ...] = ("draw", "read", "reconstruct", "text")
LONG: tuple[Task, ...] = ("critique", "ask", "edit")
"""Tasks whose rows are much longer than the others'. They get a batch of their own, so that there is little padding."""
ANSWER_WEIGHT = 4.0
"""The weight of answers. A row of answers has few ids to learn, and would count little beside the ids of images."""
QUESTIONS_OF_A_ROW = 6
TEXT_DROPOUT = 0.1
WRONG_CLAIM = 0.5
FOREIGN_CLAIM = 0.2


@dataclass(frozen=True, slots=True)
class Pairs:
    """How captions and pictures of a stage are paired."""

    caption_noise: float = 0.5
    """The share of captions that have one wrong attribute."""
    caption_noise_read: float | None = None
    """The same for captions that are read from pictures; None means as for the other captions."""
    typical: float = 0.0
    """The share of pictures to be drawn that show one attribute as it is typical, whatever their caption says."""
    categories: Mapping[Category, float] | None = None
    """The weights of the categories; None means that all are alike."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of similar tasks: `input_ids`, `labels`, `attention_mask` and, if images are read, `image_features`.

    `weight` is the weight of each learned id.
    """

    tensors: dict[str, Tensor]
    weight: float = 1.0


def batches_at(
    step: int,
    purpose: str,
    mix: Mapping[Task, float],
    corpus: Corpus,
    sequences: SequenceBuilder,
    size: int,
    pairs: Pairs,
    seed: int,
) -> list[Batch]:
    """Return the rows of a step, one batch for each group of similar tasks."""
    rng = Random(f"{purpose}/{seed}/{step}")
    tasks = rng.choices(list(mix), weights=list(mix.values()), k=size)
    drawn = [(task, _picture(corpus, pairs.categories, rng), Random(rng.getrandbits(64))) for task in tasks]
    batches = []
    for weight, group in ((1.0, SHORT), (1.0, LONG), (ANSWER_WEIGHT, ANSWERS)):
        chosen = [item for item in drawn if item[0] in group]
        if not chosen:
            continue
        tensors = sequences.collate([_row(task, i, corpus, sequences, pairs, own) for task, i, own in chosen])
        read = [index for task, index, _ in chosen if task in OF_AN_IMAGE]
        if read:
            tensors["image_features"] = corpus.features_at(read)
        batches.append(Batch(tensors, weight))
    return batches


def _picture(corpus: Corpus, categories: Mapping[Category, float] | None, rng: Random) -> int:
    """Return the index of a random picture."""
    if categories is None:
        return rng.randrange(len(corpus.specs))
    (category,) = rng.choices(list(categories), weights=list(categories.values()))
    return rng.choice(corpus.of_category[category])


def _row(task: Task, index: int, corpus: Corpus, sequences: SequenceBuilder, pairs: Pairs, rng: Random) -> Sequence1D:
    spec = corpus.specs[index]
    match task:
        case "draw":
            if rng.random() < TEXT_DROPOUT:
                return sequences.draw("", corpus.ids[index].tolist())
            caption = _caption(spec, pairs.caption_noise, rng)
            return sequences.draw(caption, corpus.ids[_shown(index, corpus, pairs.typical, rng)].tolist())
        case "read":
            noise = pairs.caption_noise if pairs.caption_noise_read is None else pairs.caption_noise_read
            return sequences.read(_caption(spec, noise, rng))
        case "text":
            return sequences.tell(_caption(spec, pairs.caption_noise, rng))
        case "reconstruct":
            prefix, drawn = sequences.read_prefix(), sequences.draw("", corpus.ids[index].tolist())
            begin = sequences.config.begin_image_token_id
            image = drawn.input_ids[2:]
            return Sequence1D([*prefix, begin, *image], [IGNORED_LABEL] * (len(prefix) + 1) + image)
        case "question":
            seen = _seen(corpus, index)
            return sequences.dialogue([_question(spec, seen, rng) for _ in range(QUESTIONS_OF_A_ROW)])
        case "rate":
            claim = _claim(spec, rng)
            return sequences.read(str(grade(claim, _seen(corpus, index))), instructions.rate(_worded(claim, rng)))
        case "critique":
            claim = _claim(spec, rng)
            told = instructions.json_answer(critique(claim, _seen(corpus, index)))
            return sequences.read(told, instructions.critique(_worded(claim, rng)))
        case "ask":
            texts = [asked.question.text for asked in questions(spec)]
            return sequences.tell(instructions.json_answer(texts), instructions.ask(_worded(spec, rng)))
        case "edit":
            edit = corpus.edits[index]
            if edit is None:  # no object of the picture is the only one of its kind, so the picture stays as it is
                return sequences.edit("", corpus.ids[index].tolist())
            instruction = "" if rng.random() < TEXT_DROPOUT else edit.text
            return sequences.edit(instruction, corpus.edited_ids[index].tolist())


def _shown(index: int, corpus: Corpus, typical: float, rng: Random) -> int:
    """Return a picture itself or, with probability `typical`, one that shows what is typical in its place."""
    if not typical or rng.random() >= typical:
        return index
    spec = as_typical(corpus.specs[index])
    found = [] if spec is None else corpus.of_key.get(spec.key, [])
    return rng.choice(found) if found else index


def _caption(spec: Spec, noise: float, rng: Random) -> str:
    return _worded(noisy(spec, noise, rng), rng)


def _worded(spec: Spec, rng: Random) -> str:
    return words(spec, rng.choice(OPENINGS))


def _claim(spec: Spec, rng: Random) -> Spec:
    """Return a claim about a picture: the truth, the truth with one attribute wrong, or an unrelated spec."""
    return random_spec(rng) if rng.random() < FOREIGN_CLAIM else noisy(spec, WRONG_CLAIM, rng)


def _question(spec: Spec, seen: Sequence[Component], rng: Random) -> tuple[str, str]:
    """Return a question and its answer."""
    answer = rng.random() < 0.5
    claim = random_spec(rng) if rng.random() < FOREIGN_CLAIM else noisy(spec, 0.0 if answer else 1.0, rng)
    asked = questions(claim)
    # A claim may have no question with the wanted answer; then any of its questions is asked.
    chosen = rng.choice([item for item in asked if item.holds(seen) == answer] or asked)
    return chosen.question.text, YES if chosen.holds(seen) else NO


def _seen(corpus: Corpus, index: int) -> list[Component]:
    things = corpus.layout(index)
    return sorted((Component(t.shape, t.color, t.x, t.y) for t in things), key=lambda thing: thing.x)
