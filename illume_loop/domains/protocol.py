"""What a domain offers the loop: prompts in disjoint splits, an exact checker where there is one, and reading probes.

    REQUIRED    what every domain has; `check` too where the domain is `exact`
    OPTIONAL    what a domain may leave out, with what the loop does then (OptionalParts)

A domain knows nothing of models, of the database or of rounds. Everything it returns depends only on its
arguments, so that a resumed run sees the same prompts as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from PIL import Image

from illume_loop.errors import NoCheckerError, NotFoundError, UsageError

Split = Literal["train", "heldout", "probe"]
CRITERIA = ("object", "count", "color", "attribute", "position")
"""What a question can be about, in the order in which critiques tell of them."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text to draw, or an edit: an instruction that says what is to become of a source image.

    `key` names the composition, whatever the wording: two prompts with one key ask for the same picture, and a
    key belongs to exactly one split. The `text` of an edit names it among all prompts; no model is told it.
    """

    text: str
    category: str
    key: str
    spec: Mapping[str, object]
    instruction: str = ""
    """Of an edit: what a model is told, beside the source image."""
    target: str = ""
    """Of an edit: the text that its result has to show."""

    @property
    def is_edit(self) -> bool:
        """Whether there is a source image to begin from."""
        return bool(self.instruction)

    @property
    def claim(self) -> Prompt:
        """What an image for this prompt is judged by: the prompt itself, or the target of an edit as a text to draw."""
        return replace(self, text=self.target, instruction="", target="") if self.is_edit else self


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an exact checker says of one image: the criteria that failed, in the domain's own words."""

    passed: bool
    failed: tuple[str, ...] = ()
    found: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Question:
    """One atomic yes/no question of a prompt; yes is the answer for an image that shows it.

    `criterion` is one of CRITERIA.
    """

    criterion: str
    text: str


@dataclass(frozen=True, slots=True)
class RealPair:
    """An image of the domain's world with its (possibly wrong, as on the web) caption."""

    image: Image.Image
    caption: str


@dataclass(frozen=True, slots=True)
class ReadingProbe:
    """A forced choice: which of two captions, alike but for one attribute, belongs to the image?"""

    image: Image.Image
    true_caption: str
    false_caption: str
    category: str


@dataclass(frozen=True, slots=True)
class EditProbe:
    """An image with an instruction to change it; `check` decides exactly whether another image is what it asks for."""

    image: Image.Image
    instruction: str
    category: str
    check: Callable[[Image.Image], Verdict]


REQUIRED = ("name", "exact", "categories", "prompts", "parse", "split_of", "questions")
OPTIONAL = ("check", "answers", "partner", "real_pairs", "reading_probes", "edits", "source", "edit_probes")


class OptionalParts:
    """The parts that a domain may leave out: derive from this class, and write those that the domain has."""

    name: str
    exact: bool

    def check(self, image: Image.Image, prompt: Prompt) -> Verdict:
        """Raise NoCheckerError: the run's base decides whether an image shows its prompt."""
        raise NoCheckerError(domain=self.name, what="a verdict", instead="let a model or a teacher judge")

    def answers(self, image: Image.Image, prompt: Prompt) -> list[bool]:
        """Raise NoCheckerError where the domain has no checker, UsageError where its checker answers no questions:
        then no calibration can be fitted with the checker's labels."""
        if not self.exact:
            raise NoCheckerError(domain=self.name, what="an answer", instead="let a model or a teacher judge")
        raise UsageError(
            f"the checker of the domain '{self.name}' answers no questions, as it has no `answers`: write them, or fit "
            "a calibration with `illume-loop judge fit --labels teacher`"
        )

    def partner(self, prompt: Prompt, seed: int) -> Prompt | None:
        """Return None: no prompt has a partner, so a round has no minimal pairs."""
        return None

    def real_pairs(self, count: int, seed: int) -> list[RealPair]:
        """Return nothing: there are no real pictures to replay."""
        return []

    def reading_probes(self, count: int, seed: int) -> list[ReadingProbe]:
        """Return nothing: the gate of an exact domain then has no guard of understanding."""
        return []

    def edits(self, split: Split, count: int, seed: int) -> list[Prompt]:
        """Return nothing. Raises UsageError where some are asked for."""
        if count:
            raise UsageError(f"the domain '{self.name}' has no edits; leave sampling.edit_share at 0")
        return []

    def source(self, prompt: Prompt) -> Image.Image:
        """Raise NotFoundError: there are no edits."""
        raise NotFoundError(kind="source of an edit", name=prompt.text)

    def edit_probes(self, count: int, seed: int) -> list[EditProbe]:
        """Return nothing: there are no pictures to edit."""
        return []


class Domain(Protocol):
    """A world of prompts.

    Where `exact`, alignment can be decided from the pixels. Where not, `check` and `answers` raise NoCheckerError, the
    run's base decides instead, and there may be no real pairs and no probes.
    """

    name: str
    categories: Sequence[str]
    exact: bool

    def prompts(self, split: Split, count: int, seed: int) -> list[Prompt]:
        """`count` different prompts of one split, balanced over categories as far as the split has them.

        The result for one `(split, seed)` is a prefix of the result for a larger `count`. Raises UsageError when
        the split has fewer than `count` prompts.
        """
        ...

    def parse(self, text: str) -> Prompt:
        """Read a user's text. Raises PromptOutsideGrammarError."""
        ...

    def split_of(self, text: str) -> Split | None:
        """The split that the composition of a text belongs to, whatever its wording; None where it is not this world's.

        What is to be trained on is asked for here, however it came to be there.
        """
        ...

    def partner(self, prompt: Prompt, seed: int) -> Prompt | None:
        """A prompt that differs from a train prompt in exactly one attribute and is a train prompt too.

        It has the same wording otherwise, and the same category. None where the train split has no such prompt.
        """
        ...

    def check(self, image: Image.Image, prompt: Prompt) -> Verdict:
        """Decide from the pixels alone whether `image` shows `prompt`, or is what an edit makes of its source.

        Raises NoCheckerError.
        """
        ...

    def questions(self, prompt: Prompt) -> list[Question]:
        """The questions of a prompt, from its spec; none where the spec does not tell."""
        ...

    def answers(self, image: Image.Image, prompt: Prompt) -> list[bool]:
        """What the exact checker answers to each of `questions(prompt)`. Raises NoCheckerError."""
        ...

    def real_pairs(self, count: int, seed: int) -> list[RealPair]:
        """Pairs of the world that the base model was pretrained on, with its caption noise; none where it has none."""
        ...

    def reading_probes(self, count: int, seed: int) -> list[ReadingProbe]:
        """Forced choices over compositions of the `probe` split; none where there are no pictures.

        An exact domain without any has no guard of understanding at the gate.
        """
        ...

    def edits(self, split: Split, count: int, seed: int) -> list[Prompt]:
        """`count` different edits of one split; source and target are both compositions of that split.

        The result for one `(split, seed)` is a prefix of the result for a larger `count`. Raises UsageError when the
        split has fewer than `count` edits, as a domain without edits always does.
        """
        ...

    def source(self, prompt: Prompt) -> Image.Image:
        """The image that an edit begins from, always the same. Raises NotFoundError where there are no edits."""
        ...

    def edit_probes(self, count: int, seed: int) -> list[EditProbe]:
        """Edits of images of the `probe` split; none where there are no pictures."""
        ...
