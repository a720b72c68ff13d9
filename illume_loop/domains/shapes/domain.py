"""The shapes world behind the Domain protocol: splits, prompts, noisy real pairs and reading probes.

Invariants:
- A composition (`Spec.key`) belongs to exactly one split, by the order of a hash of its key within its category. So
  every category has compositions in every split, and no wording of a held-out composition is a training prompt.
- Every result depends on the arguments only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from random import Random

from PIL import Image

from illume_loop.domains.shapes import checker
from illume_loop.domains.shapes.edit_prompts import (
    SOURCE_CATEGORIES,
    check_prompt,
    edit_prompts,
    source_of,
    split_of_edit,
)
from illume_loop.domains.shapes.edits import check_edit, random_edit
from illume_loop.domains.shapes.grammar import OPENINGS, parse, words
from illume_loop.domains.shapes.questions import questions
from illume_loop.domains.shapes.render import draw, place, render
from illume_loop.domains.shapes.spec import (
    CATEGORIES,
    Category,
    Spec,
    change_one_attribute,
    spec_from_json,
)
from illume_loop.domains.shapes.splits import specs_of, split_of
from illume_loop.errors import PromptOutsideGrammarError, UsageError
from illume_loop.protocols import EditProbe, Prompt, Question, ReadingProbe, RealPair, Split, Verdict

CAPTION_NOISE = 0.1
"""The share of real pairs whose caption has one wrong attribute, as of the web."""

PARTNER_TRIES = 64
"""The number of changes drawn in search of one that stays in the train split; most of them do."""


class ShapesDomain:
    """The domain of compositions of one or two kinds of object, of six shapes and eight colours."""

    name = "shapes"
    exact = True
    categories: Sequence[str] = CATEGORIES

    def prompts(self, split: Split, count: int, seed: int) -> list[Prompt]:
        """Return `count` different prompts of one split; see `Domain.prompts`."""
        queues = {category: _prompts_in_random_order(category, split, seed) for category in CATEGORIES}
        return _in_turn(queues, count, f"the split '{split}' has {{}} prompts")

    def parse(self, text: str) -> Prompt:
        """Return the prompt that a user's text asks for; see `Domain.parse`.

        Surplus blanks and the full stop are removed, because the shipped models never saw them.
        """
        return _prompt(parse(text), " ".join(text.split()).rstrip("."))

    def split_of(self, text: str) -> Split | None:
        """Return the split of a text's composition; see `Domain.split_of`."""
        try:
            return split_of(parse(text))
        except PromptOutsideGrammarError:
            return split_of_edit(text)

    def partner(self, prompt: Prompt, seed: int) -> Prompt | None:
        """Return a train prompt that differs in one attribute; see `Domain.partner`."""
        spec, rng = spec_from_json(prompt.spec), _rng(f"partner/{prompt.text}", seed)
        opening = next(opening for opening in OPENINGS[::-1] if prompt.text.startswith(opening))
        for _ in range(PARTNER_TRIES):
            other, _ = change_one_attribute(spec, rng)
            if split_of(other) == "train" and other.key != spec.key:
                return _prompt(other, words(other, opening))
        return None

    def check(self, image: Image.Image, prompt: Prompt) -> Verdict:
        """Decide from the pixels; see `Domain.check`."""
        if prompt.is_edit:
            return check_prompt(image, prompt)
        return checker.check(image, spec_from_json(prompt.spec))

    def questions(self, prompt: Prompt) -> list[Question]:
        """Return the questions of a prompt; see `Domain.questions`."""
        return [asked.question for asked in questions(spec_from_json(prompt.spec))]

    def answers(self, image: Image.Image, prompt: Prompt) -> list[bool]:
        """Return the checker's answers; see `Domain.answers`."""
        seen = checker.look(image)
        return [asked.holds(seen) for asked in questions(spec_from_json(prompt.spec))]

    def real_pairs(self, count: int, seed: int) -> list[RealPair]:
        """Return images of training compositions with captions, of which a share of CAPTION_NOISE are wrong.

        A wrong caption is of a training composition too.
        """
        rng = _rng("real", seed)
        train = {category: specs_of(category, "train") for category in CATEGORIES}
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
        """Return images of probe compositions, with true captions and the same with one attribute changed."""
        rng = _rng("probe", seed)
        probes = []
        for index in range(count):
            spec = rng.choice(specs_of(CATEGORIES[index % len(CATEGORIES)], "probe"))
            other, _ = change_one_attribute(spec, rng)
            opening = rng.choice(OPENINGS)
            probes.append(ReadingProbe(render(spec, rng), words(spec, opening), words(other, opening), spec.category))
        return probes

    def edits(self, split: Split, count: int, seed: int) -> list[Prompt]:
        """Return edits of pictures of one or two objects; see `Domain.edits`.

        An edit gives one object another colour or shape.
        """
        queues = {c: edit_prompts(c, split, _rng(f"edits/{c}/{split}", seed)) for c in SOURCE_CATEGORIES}
        return _in_turn(queues, count, f"the split '{split}' has {{}} edits")

    def source(self, prompt: Prompt) -> Image.Image:
        """Return the picture that an edit begins from; see `Domain.source`."""
        return source_of(prompt)

    def edit_probes(self, count: int, seed: int) -> list[EditProbe]:
        """Return edits of pictures of probe compositions; see `Domain.edit_probes`.

        The edited object is the only one of its colour and shape in the picture.
        """
        rng = _rng("edits", seed)
        probes: list[EditProbe] = []
        while len(probes) < count:
            layout = place(rng.choice(specs_of(rng.choice(CATEGORIES), "probe")), rng)
            edit = random_edit(layout, rng)
            if edit is not None:
                image = draw(layout)
                category = "color" if edit.new_shape == edit.shape else "object"
                probes.append(EditProbe(image, edit.text, category, partial(check_edit, image, edit=edit)))
        return probes


def noisy(spec: Spec, share: float, rng: Random) -> Spec:
    """Return `spec` itself or, with probability `share`, a spec with one attribute changed."""
    return change_one_attribute(spec, rng)[0] if rng.random() < share else spec


def _in_turn(queues: Mapping[Category, Iterator[Prompt]], count: int, there_are: str) -> list[Prompt]:
    """Return `count` prompts, taken from the categories in turn as long as they have any.

    Raises UsageError if there are fewer.
    """
    left = dict(queues)
    chosen: list[Prompt] = []
    while len(chosen) < count and left:
        for category, queue in list(left.items()):
            prompt = next(queue, None)
            if prompt is None:
                del left[category]
            else:
                chosen.append(prompt)
    if len(chosen) < count:
        raise UsageError(f"{there_are.format(len(chosen))}, {count} were asked for; ask for fewer")
    return chosen[:count]


def _prompts_in_random_order(category: Category, split: Split, seed: int) -> Iterator[Prompt]:
    found = list(_wordings(category, split))
    _rng(f"prompts/{category}/{split}", seed).shuffle(found)
    yield from reversed(found)


def _wordings(category: Category, split: Split) -> Iterator[Prompt]:
    for spec in specs_of(category, split):
        for opening in OPENINGS:
            yield _prompt(spec, words(spec, opening))


def _prompt(spec: Spec, text: str) -> Prompt:
    return Prompt(text=text, category=spec.category, key=spec.key, spec=spec.to_json())


def _rng(purpose: str, seed: int) -> Random:
    return Random(f"shapes/{purpose}/{seed}")
