"""The shapes world behind the Domain protocol: splits, prompts, noisy real pairs and reading probes.

Guarantee: a composition (`Spec.key`) belongs to exactly one split, decided by the order of a hash of the key within its
category; so every category has compositions in every split, and no wording of a held-out composition is a training
prompt. Everything here depends on its arguments only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache, partial
from random import Random

from PIL import Image

from illume_loop.domains.protocol import EditProbe, Prompt, Question, ReadingProbe, RealPair, Split, Verdict
from illume_loop.domains.shapes import checker
from illume_loop.domains.shapes.edits import check_edit, random_edit
from illume_loop.domains.shapes.grammar import OPENINGS, parse, words
from illume_loop.domains.shapes.questions import questions
from illume_loop.domains.shapes.render import draw, place, render
from illume_loop.domains.shapes.spec import (
    CATEGORIES,
    Category,
    Spec,
    all_specs,
    change_one_attribute,
    spec_from_json,
)
from illume_loop.errors import PromptOutsideGrammarError, UsageError

HELDOUT_SHARE = 0.3
PROBE_SHARE = 0.1
CAPTION_NOISE = 0.5
"""Share of real pairs whose caption has one attribute wrong, as web alt-texts do; stated in the model card."""

PARTNER_TRIES = 64
"""Changes that are drawn in search of one that stays in the train split, which most do."""


class ShapesDomain:
    """Two-object compositions of six shapes and eight colours; see the module docstring."""

    name = "shapes"
    categories: Sequence[str] = CATEGORIES

    def prompts(self, split: Split, count: int, seed: int) -> list[Prompt]:
        """`count` different prompts of one split; see `Domain.prompts`."""
        queues = {category: _prompt_queue(category, split, seed) for category in CATEGORIES}
        chosen: list[Prompt] = []
        while len(chosen) < count and any(queues.values()):
            chosen.extend(queue.pop() for queue in queues.values() if queue)
        if len(chosen) < count:
            raise UsageError(f"the split '{split}' has {len(chosen)} prompts, {count} were asked for; ask for fewer")
        return chosen[:count]

    def parse(self, text: str) -> Prompt:
        """Read a user's text; see `Domain.parse`."""
        return _prompt(parse(text), text)

    def split_of(self, text: str) -> Split | None:
        """The split of a text's composition; see `Domain.split_of`."""
        try:
            return split_of(parse(text))
        except PromptOutsideGrammarError:
            return None

    def partner(self, prompt: Prompt, seed: int) -> Prompt | None:
        """A train prompt that differs in one attribute; see `Domain.partner`."""
        spec, rng = spec_from_json(prompt.spec), _rng(f"partner/{prompt.text}", seed)
        opening = next(opening for opening in OPENINGS[::-1] if prompt.text.startswith(opening))
        for _ in range(PARTNER_TRIES):
            other, _ = change_one_attribute(spec, rng)
            if split_of(other) == "train" and other.key != spec.key:
                return _prompt(other, words(other, opening))
        return None

    def check(self, image: Image.Image, prompt: Prompt) -> Verdict:
        """Decide from pixels; see `Domain.check`."""
        return checker.check(image, spec_from_json(prompt.spec))

    def questions(self, prompt: Prompt) -> list[Question]:
        """The questions of a prompt; see `Domain.questions`."""
        return [asked.question for asked in questions(spec_from_json(prompt.spec))]

    def answers(self, image: Image.Image, prompt: Prompt) -> list[bool]:
        """The checker's answers; see `Domain.answers`."""
        seen = checker.look(image)
        return [asked.holds(seen) for asked in questions(spec_from_json(prompt.spec))]

    def real_pairs(self, count: int, seed: int) -> list[RealPair]:
        """Images of training compositions with captions of training compositions, CAPTION_NOISE of them wrong."""
        rng = _rng("real", seed)
        train = {category: _specs(category, "train") for category in CATEGORIES}
        pairs = []
        for _ in range(count):
            spec = rng.choice(train[rng.choice(CATEGORIES)])
            caption = spec
            if rng.random() < CAPTION_NOISE:
                while caption == spec or split_of(caption) != "train":
                    caption, _ = change_one_attribute(spec, rng)
            pairs.append(RealPair(render(spec, rng), words(caption, rng.choice(OPENINGS))))
        return pairs

    def reading_probes(self, count: int, seed: int) -> list[ReadingProbe]:
        """Clean captions of probe compositions against the same with one attribute changed."""
        rng = _rng("probe", seed)
        probes = []
        for index in range(count):
            spec = rng.choice(_specs(CATEGORIES[index % len(CATEGORIES)], "probe"))
            other, _ = change_one_attribute(spec, rng)
            opening = rng.choice(OPENINGS)
            probes.append(ReadingProbe(render(spec, rng), words(spec, opening), words(other, opening), spec.category))
        return probes

    def edit_probes(self, count: int, seed: int) -> list[EditProbe]:
        """Edits of pictures of probe compositions, of one kind of object each; see `Domain.edit_probes`."""
        rng = _rng("edits", seed)
        probes: list[EditProbe] = []
        while len(probes) < count:
            layout = place(rng.choice(_specs(rng.choice(CATEGORIES), "probe")), rng)
            edit = random_edit(layout, rng)
            if edit is not None:
                image = draw(layout)
                category = "color" if edit.new_shape == edit.shape else "object"
                probes.append(EditProbe(image, edit.text, category, partial(check_edit, image, edit=edit)))
        return probes


def split_of(spec: Spec) -> Split:
    """The one split that a composition belongs to."""
    return _split_by_key(spec.category)[spec.key]


def noisy(spec: Spec, share: float, rng: Random) -> Spec:
    """`spec` itself, or with probability `share` a spec with one attribute changed."""
    return change_one_attribute(spec, rng)[0] if rng.random() < share else spec


@cache
def _split_by_key(category: Category) -> dict[str, Split]:
    keys = sorted({spec.key for spec in all_specs(category)}, key=lambda key: hashlib.sha256(key.encode()).digest())
    num_heldout = max(1, round(HELDOUT_SHARE * len(keys)))
    num_probe = max(1, round(PROBE_SHARE * len(keys)))

    def split(rank: int) -> Split:
        return "heldout" if rank < num_heldout else "probe" if rank < num_heldout + num_probe else "train"

    return {key: split(rank) for rank, key in enumerate(keys)}


@cache
def _specs(category: Category, split: Split) -> tuple[Spec, ...]:
    return tuple(spec for spec in all_specs(category) if split_of(spec) == split)


def _prompt_queue(category: Category, split: Split, seed: int) -> list[Prompt]:
    """All prompts of a category in random order, to be popped from the end."""
    found = list(_wordings(category, split))
    _rng(f"prompts/{category}/{split}", seed).shuffle(found)
    return found


def _wordings(category: Category, split: Split) -> Iterator[Prompt]:
    for spec in _specs(category, split):
        for opening in OPENINGS:
            yield _prompt(spec, words(spec, opening))


def _prompt(spec: Spec, text: str) -> Prompt:
    return Prompt(text=text, category=spec.category, key=spec.key, spec=spec.to_json())


def _rng(purpose: str, seed: int) -> Random:
    return Random(f"shapes/{purpose}/{seed}")
