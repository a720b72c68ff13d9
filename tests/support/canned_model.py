"""A real backend behind the UnifiedModel protocol that needs no torch: its checkpoint is one number, its skill.

Drawing is hashing: from (prompt, seed) follows whether it hits, and then it renders the prompt's own composition, else
one with an attribute changed. Ids say what is drawn, so decoding needs nothing else. Reading consults the exact
checker, blurred by noise. Editing hits as often, and else leaves the image as it is; the ids of an edited image
hold its objects. Training raises the skill by the share of rows to draw that show their prompt, so the loop truly
improves on good rows and truly spoils on bad ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from illume_loop.domains.shapes import checker
from illume_loop.domains.shapes.grammar import parse
from illume_loop.domains.shapes.questions import RuledQuestion, questions
from illume_loop.domains.shapes.render import CANVAS, Placed, draw, render
from illume_loop.domains.shapes.spec import CATEGORIES, COLORS, SHAPES, Spec, all_specs, change_one_attribute
from illume_loop.domains.shapes.wordings import critique, grade, scene
from illume_loop.loop.context import Toolbox
from illume_loop.protocols import MAX_ANSWER_TOKENS, DrawRow, ImageIds, PairRow, Sampling, Scores, TrainingRow
from illume_loop.settings import TrainSettings
from tests.support.plain_english import understood

TOKENS = 8
EDITED = 30_000
"""The first id of an edited image; then come kind, x and y of one object or two, and noise."""
NOTHING = 99
CONFIG = "config.json"


class CannedModel:
    """See the module."""

    name = "canned"
    tokens_per_image = TOKENS

    def __init__(self, skill: float) -> None:
        self.skill = skill

    def sample(self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> ImageIds:
        return np.stack([self._draw(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)])

    def decode(self, image_ids_BL: ImageIds) -> list[Image.Image]:
        return [
            draw(_layout(ids)) if ids[0] == EDITED else render(_specs()[int(ids[0])], Random(f"{ids.tolist()}"))
            for ids in image_ids_BL
        ]

    def encode(self, images: Sequence[Image.Image]) -> ImageIds:
        digests = [hashlib.sha256(image.tobytes()).digest() for image in images]
        return np.stack([np.frombuffer(digest[:TOKENS], np.uint8).astype(np.int32) for digest in digests])

    def log_likelihood(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Scores:
        scores = [
            2.0 * checker.check(image, parse(text)).passed + _uniform(text, image.tobytes().hex())
            for image, text in zip(images, texts, strict=True)
        ]
        return np.array(scores)

    def log_prior(self, texts: Sequence[str]) -> Scores:
        return np.array([-_uniform("prior", text) for text in texts])

    def yes_no_log_odds(self, images: Sequence[Image.Image], questions: Sequence[Sequence[str]]) -> list[Scores]:
        """Right with a margin of 4 and noise of up to 2, for the questions of the shapes domain."""
        return [
            np.array([_log_odds(image, text) for text in of_image])
            for image, of_image in zip(images, questions, strict=True)
        ]

    def read(
        self, images: Sequence[Image.Image], texts: Sequence[str], questions: Sequence[Sequence[str]]
    ) -> tuple[Scores, list[Scores]]:
        return self.log_likelihood(images, texts), self.yes_no_log_odds(images, questions)

    def instruct(
        self,
        images: Sequence[Image.Image] | None,
        instructions: Sequence[str],
        *,
        forced: Sequence[str] | None = None,
        temperature: float = 0.0,
        seeds: Sequence[int] = (),
        max_tokens: int = MAX_ANSWER_TOKENS,
    ) -> list[str]:
        """What the world itself would write, whatever is forced upon it."""
        looked = [[] if images is None else checker.look(images[i]) for i in range(len(instructions))]
        return [_answer(text, seen) for text, seen in zip(instructions, looked, strict=True)]

    def edit(
        self, images: Sequence[Image.Image], instructions: Sequence[str], seeds: Sequence[int], sampling: Sampling
    ) -> ImageIds:
        return np.stack([_edited(*one, self.skill) for one in zip(images, instructions, seeds, strict=True)])

    def _draw(self, prompt: str, seed: int) -> ImageIds:
        spec = parse(prompt)
        if _uniform("hit", seed) >= self.skill:
            spec = change_one_attribute(spec, Random(seed))[0]
        noise = Random(f"noise/{seed}")
        return np.array([_number(spec)] + [noise.randrange(256) for _ in range(TOKENS - 1)], dtype=np.int32)


def save_canned(folder: Path, skill: float) -> Path:
    """Write a checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps({"model_type": "canned", "domain": "shapes", "skill": skill}))
    return folder


def load_canned(path: Path, device: str) -> CannedModel:
    """Read a checkpoint."""
    return CannedModel(json.loads((path / CONFIG).read_text())["skill"])


def train_canned(
    base: Path,
    rows: Sequence[TrainingRow],
    out: Path,
    settings: TrainSettings,
    seed: int,
    on_step: Callable[[int, int], None],
) -> None:
    """The skill moves half of the way to the share of rows that show their prompt."""
    chosen = [DrawRow(row.prompt, row.chosen_ids) for row in rows if isinstance(row, PairRow)]
    to_draw = chosen + [row for row in rows if isinstance(row, DrawRow)]
    drawn = [row for row in to_draw if row.image_ids[0] < len(_specs())]
    on_step(1, 2)
    share = sum(_specs()[int(row.image_ids[0])].key == parse(row.prompt).key for row in drawn) / len(drawn)
    skill = load_canned(base, "cpu").skill
    save_canned(out, skill + (share - skill) / 2)
    on_step(2, 2)


class CannedBackend:
    """The backend as an entry point provides it; see `tests.support.plugged`."""

    load = staticmethod(load_canned)
    train = staticmethod(train_canned)


def canned_toolbox() -> Toolbox:
    """The backend as the coordinator takes it."""
    return Toolbox(load_canned, train_canned)


@cache
def _specs() -> tuple[Spec, ...]:
    return tuple(spec for category in CATEGORIES for spec in all_specs(category))


@cache
def _numbers() -> dict[Spec, int]:
    return {spec: number for number, spec in enumerate(_specs())}


def _number(spec: Spec) -> int:
    return _numbers()[spec]


def _uniform(*parts: object) -> float:
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def _looked(image: Image.Image) -> Sequence[checker.Component]:
    """What is on an image; nothing on one that is not of this world."""
    return checker.look(image) if image.size == (CANVAS, CANVAS) else ()


@cache
def _rules() -> dict[str, RuledQuestion]:
    return {asked.question.text: asked for spec in _specs() for asked in questions(spec)}


def _log_odds(image: Image.Image, text: str) -> float:
    rule = _rules()[text].holds if text in _rules() else understood(text)
    sign = 1.0 if rule(_looked(image)) else -1.0
    return 4.0 * sign + 4.0 * (_uniform(text, image.tobytes().hex()) - 0.5)


def _edited(image: Image.Image, instruction: str, seed: int, skill: float) -> ImageIds:
    """The ids of an image of one object or two in which one was changed, or of the same image."""
    color, shape, *_, new = instruction.removeprefix("make the ").split()
    ids = [EDITED]
    for thing in checker.look(image):
        assert thing.color is not None
        assert thing.shape is not None
        kind = [thing.color, thing.shape]
        if kind == [color, shape] and _uniform("hit", seed) < skill:
            kind[new in SHAPES] = new
        ids += [COLORS.index(kind[0]) * len(SHAPES) + SHAPES.index(kind[1]), int(thing.x), int(thing.y)]
    return np.array([*ids, *[NOTHING] * (TOKENS - 1 - len(ids)), seed % 256], dtype=np.int32)


def _layout(ids: ImageIds) -> list[Placed]:
    objects = ((int(kind), int(x), int(y)) for kind, x, y in (ids[1:4], ids[4:7]) if kind != NOTHING)
    return [Placed(SHAPES[kind % len(SHAPES)], COLORS[kind // len(SHAPES)], x, y) for kind, x, y in objects]


def _answer(instruction: str, seen: Sequence[checker.Component]) -> str:
    opening, _, rest = instruction.partition(" ")
    match opening:
        case "how":
            return str(grade(parse(rest.removeprefix("well does it show ").removesuffix(" ?")), seen))
        case "what":
            asked = questions(parse(rest.removeprefix("to ask about ").removesuffix(" ?")))
            return json.dumps([item.question.text for item in asked])
        case "assess":
            return json.dumps(critique(parse(rest.removesuffix(" :")), seen))
    return scene(seen)
