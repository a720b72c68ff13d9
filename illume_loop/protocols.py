"""The protocols of a model and of a domain, and the values that pass between them and the loop.

All rooms import this module. It needs neither torch nor a database: arrays are NumPy, so that neither the loop nor the
store needs torch. Shape suffixes: `_B` batch, `_L` image tokens, `_T` text tokens.

Invariants:
- A domain's results depend only on the arguments, so a resumed run sees the same prompts as an uninterrupted one.
- A domain knows nothing of models, of the database or of rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from illume_loop.errors import NoCheckerError, NotFoundError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from illume_loop.settings import TrainSettings


ImageIds = NDArray[np.int32]

Scores = NDArray[np.float64]

LogProbs = NDArray[np.float32]
"""Log-probabilities of image-token ids, in nats."""

YES, NO = "yes", "no"
"""The two answers to a question."""

MAX_ANSWER_TOKENS = 160
"""The default limit on the tokens of a written answer; a critique of the shapes world has fewer than 90."""


@dataclass(frozen=True, slots=True)
class DrawRow:
    """A text-to-image row: the model learns `image_ids`, shape (L,), given `prompt`, which is masked."""

    prompt: str
    image_ids: ImageIds
    kind: Literal["draw"] = "draw"

    def __post_init__(self) -> None:
        _check_ids(self.image_ids)


@dataclass(frozen=True, slots=True)
class ReadRow:
    """An image-to-text row: the model learns `caption` given the continuous features of `image` and `instruction`.

    `instruction` is masked. If it is empty, `caption` is a caption; otherwise it is the answer to the instruction.
    """

    image: Image.Image
    caption: str
    instruction: str = ""
    kind: Literal["read"] = "read"


@dataclass(frozen=True, slots=True)
class PairRow:
    """A preference row: given `prompt`, the model learns to prefer `chosen_ids` to `rejected_ids`.

    Both arrays have shape (L,).
    """

    prompt: str
    chosen_ids: ImageIds
    rejected_ids: ImageIds
    kind: Literal["pair"] = "pair"

    def __post_init__(self) -> None:
        _check_ids(self.chosen_ids)
        _check_ids(self.rejected_ids)


@dataclass(frozen=True, slots=True)
class CorrectRow:
    """A row of two turns about one image: its assessment, then its correction.

    In the first turn the model learns `answer` given `image` and `instruction`. In the second turn it learns
    `image_ids`, shape (L,), the image as it should have been, given all that and the user's `request`. `instruction`
    and `request` are masked.
    """

    image: Image.Image
    instruction: str
    answer: str
    request: str
    image_ids: ImageIds
    kind: Literal["correct"] = "correct"

    def __post_init__(self) -> None:
        _check_ids(self.image_ids)


@dataclass(frozen=True, slots=True)
class EditRow:
    """An image-to-image row: the model learns `image_ids`, shape (L,), given `image` and `instruction`.

    `instruction` is masked.
    """

    image: Image.Image
    instruction: str
    image_ids: ImageIds
    kind: Literal["edit"] = "edit"

    def __post_init__(self) -> None:
        _check_ids(self.image_ids)


LikelyRow = DrawRow | ReadRow | CorrectRow | EditRow
"""A row that training makes more likely."""

TrainingRow = DrawRow | ReadRow | PairRow | CorrectRow | EditRow


def _check_ids(image_ids: ImageIds) -> None:
    if image_ids.ndim != 1 or image_ids.dtype != np.int32:
        raise ValueError("image_ids must be a one-dimensional int32 array")


@dataclass(frozen=True, slots=True)
class Sampling:
    """The settings by which image tokens are drawn.

    `guidance_scale` 1.0 is the plain conditional distribution. `top_k` 0 keeps every id. `top_p` keeps the most
    probable ids that together have this share of the probability; 1.0 keeps every id.
    """

    guidance_scale: float = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def content(self) -> dict[str, float]:
        """Return the settings that a plan's name is made of.

        `top_p` is left out at 1.0. Plans made before the setting existed lack it, and 1.0 is what they were carried out
        with.
        """
        content = asdict(self)
        return content if self.top_p < 1.0 else {key: value for key, value in content.items() if key != "top_p"}


class TrainFunction(Protocol):
    """A function that trains a copy of a checkpoint on rows and writes the candidate's checkpoint."""

    def __call__(
        self,
        base: Path,
        rows: Sequence[TrainingRow],
        out: Path,
        settings: TrainSettings,
        seed: int,
        on_step: Callable[[int, int], None],
    ) -> object:
        """Train a copy of the checkpoint `base` on `rows` and write the candidate's checkpoint to `out`.

        The same arguments must give the same checkpoint, because a killed training is simply run again.

        `on_step` is called with (steps done, steps in all) after each step, and with (0, 0) after each stage before the
        first step.
        """
        ...


@runtime_checkable
class ChecksRows(Protocol):
    """A `UnifiedModel` whose backend can show that it could train on rows, without training on them."""

    def try_rows(self, rows: Sequence[TrainingRow], settings: TrainSettings) -> None:
        """Lay the rows out as a training with these settings reads them. Raises what the training would raise."""
        ...


@runtime_checkable
class HasVocabulary(Protocol):
    """A `UnifiedModel` that can tell which words its tokenizer has no id for."""

    def unknown_words(self, text: str) -> list[str]:
        """Return the words of a text that the tokenizer has no id for, each once, in order."""
        ...


class UnifiedModel(Protocol):
    """A model that draws images and reads them."""

    name: str

    @property
    def tokens_per_image(self) -> int:
        """The number of image tokens of one image, L."""
        ...

    def sample(self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> ImageIds:
        """Draw one image per (prompt, seed); return ids of shape (B, L).

        The noise of a row depends only on its seed and the position, never on the batch.
        """
        ...

    def decode(self, image_ids_BL: ImageIds) -> list[Image.Image]:
        """Return the RGB images of ids."""
        ...

    def encode(self, images: Sequence[Image.Image]) -> ImageIds:
        """Return the ids of RGB images, shape (B, L): the inverse of `decode` up to the tokenizer's loss."""
        ...

    def log_likelihood(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Scores:
        """Return log p(text | image) in nats, summed over the text's tokens, shape (B,)."""
        ...

    def log_prior(self, texts: Sequence[str]) -> Scores:
        """Return log p(text) in nats without an image, summed over the text's tokens, shape (B,)."""
        ...

    def yes_no_log_odds(self, images: Sequence[Image.Image], questions: Sequence[Sequence[str]]) -> list[Scores]:
        """Return log p(yes) - log p(no) for the questions of each image, one array for each image.

        Each image goes through the model once, for any number of questions.
        """
        ...

    def read(
        self, images: Sequence[Image.Image], texts: Sequence[str], questions: Sequence[Sequence[str]]
    ) -> tuple[Scores, list[Scores]]:
        """Return `log_likelihood` and `yes_no_log_odds` of the same images; each goes through the model once."""
        ...

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
        """Return the written answer to each instruction, about its image or, if `images` is None, about no image.

        The instruction "" asks for a caption. If `forced` texts are given, each answer begins with its own. Temperature
        0 writes greedily. At any other temperature each row needs a seed, and its noise depends on that seed alone.
        """
        ...

    def edit(
        self, images: Sequence[Image.Image], instructions: Sequence[str], seeds: Sequence[int], sampling: Sampling
    ) -> ImageIds:
        """Return the edited images as ids, shape (B, L).

        Guidance is towards the instruction.
        """
        ...


@runtime_checkable
class DrawsScored(Protocol):
    """A `UnifiedModel` that tells the log-probabilities of what it draws, as reinforcement learning needs them."""

    def sample_scored(
        self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling
    ) -> tuple[ImageIds, LogProbs]:
        """Draw as `UnifiedModel.sample` does; return ids and their log-probabilities, both of shape (B, L)."""
        ...


@runtime_checkable
class CachesEncodings(Protocol):
    """A `UnifiedModel` that can keep its encoder's features of images."""

    def encoded_once(self) -> AbstractContextManager[None]:
        """Return a context in which each image object goes through the encoder once, however often it is shown."""
        ...


def encoded_once(model: UnifiedModel) -> AbstractContextManager[None]:
    """Return the context of a model that keeps its encoder's features; for other models, one that does nothing."""
    return model.encoded_once() if isinstance(model, CachesEncodings) else nullcontext()


Split = Literal["train", "heldout", "probe"]

CRITERIA = ("object", "count", "color", "attribute", "position")
"""The criteria that a question can be about, in the order in which critiques give them."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text to draw, or an edit: an instruction to change a source image.

    `key` names the composition, apart from its wording: two prompts with one key ask for the same picture. A key
    belongs to exactly one split. The `text` of an edit identifies it among all prompts; no model is given it.
    """

    text: str
    category: str
    key: str
    spec: Mapping[str, object]
    instruction: str = ""
    """The instruction of an edit, which a model gets with the source image; empty for a text to draw."""
    target: str = ""
    """The text that the result of an edit has to show; empty for a text to draw."""

    @property
    def is_edit(self) -> bool:
        """True if the prompt is an edit, which begins from a source image."""
        return bool(self.instruction)

    @property
    def claim(self) -> Prompt:
        """The prompt by which an image is judged: this prompt or, for an edit, its target as a text to draw."""
        return replace(self, text=self.target, instruction="", target="") if self.is_edit else self


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict of a checker or a referee on one image.

    `failed` lists the criteria that failed, in the domain's own words. `found` lists what a checker saw.
    """

    passed: bool
    failed: tuple[str, ...] = ()
    found: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Question:
    """An atomic yes/no question of a prompt; yes is the answer for an image that shows the prompt.

    `criterion` is one of CRITERIA, or "whole" for the question about a prompt as a whole (judge/questions.py).
    """

    criterion: str
    text: str


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict with its basis: each question with its log-odds."""

    verdict: Verdict
    questions: Sequence[Question]
    log_odds: Sequence[float]


@dataclass(frozen=True, slots=True)
class RealPair:
    """An image of the domain's world with its caption, which may be wrong, as on the web."""

    image: Image.Image
    caption: str


@dataclass(frozen=True, slots=True)
class ReadingProbe:
    """A forced choice between two captions of an image, alike but for one attribute."""

    image: Image.Image
    true_caption: str
    false_caption: str
    category: str


@dataclass(frozen=True, slots=True)
class EditProbe:
    """An image with an instruction to change it.

    `check` decides exactly if another image is the one that the instruction asks for.
    """

    image: Image.Image
    instruction: str
    category: str
    check: Callable[[Image.Image], Verdict]


REQUIRED = ("name", "exact", "categories", "prompts", "parse", "split_of", "questions")

OPTIONAL = ("check", "answers", "partner", "real_pairs", "reading_probes", "edits", "source", "edit_probes")


class OptionalParts:
    """The defaults of the parts that a domain may leave out.

    A domain derives from this class and overrides the parts that it has.
    """

    name: str
    exact: bool

    def check(self, image: Image.Image, prompt: Prompt) -> Verdict:
        """Raise NoCheckerError: the run's base decides if an image shows its prompt."""
        raise NoCheckerError(domain=self.name, what="a verdict", instead="let a model or a teacher judge")

    def answers(self, image: Image.Image, prompt: Prompt) -> list[bool]:
        """Raise NoCheckerError if the domain has no checker, and UsageError if its checker answers no questions.

        Without answers no calibration can be fitted with the checker's labels.
        """
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
        """Return an empty list: there are no real pictures to replay."""
        return []

    def reading_probes(self, count: int, seed: int) -> list[ReadingProbe]:
        """Return an empty list: the gate of an exact domain then has no guard of understanding."""
        return []

    def edits(self, split: Split, count: int, seed: int) -> list[Prompt]:
        """Return an empty list. Raises UsageError if `count` is not 0."""
        if count:
            raise UsageError(f"the domain '{self.name}' has no edits; leave sampling.edit_share at 0")
        return []

    def source(self, prompt: Prompt) -> Image.Image:
        """Raise NotFoundError: there are no edits."""
        raise NotFoundError(kind="source of an edit", name=prompt.text)

    def edit_probes(self, count: int, seed: int) -> list[EditProbe]:
        """Return an empty list: there are no pictures to edit."""
        return []


class Domain(Protocol):
    """A world of prompts.

    If `exact` is true, a checker decides from the pixels if an image shows its prompt. Otherwise `check` and `answers`
    raise NoCheckerError, the run's base decides instead, and there may be no real pairs and no probes.
    """

    name: str
    categories: Sequence[str]
    exact: bool

    def prompts(self, split: Split, count: int, seed: int) -> list[Prompt]:
        """Return `count` different prompts of one split, balanced over categories as far as the split has them.

        The result for one `(split, seed)` is a prefix of the result for a larger `count`. Raises UsageError if the
        split has fewer than `count` prompts.
        """
        ...

    def parse(self, text: str) -> Prompt:
        """Return the prompt that a user's text asks for. Raises PromptOutsideGrammarError."""
        ...

    def split_of(self, text: str) -> Split | None:
        """Return the split of a text's composition, whatever its wording; None if it is not of this world.

        The loop calls this for every text that it is about to train on, whatever the text's source.
        """
        ...

    def partner(self, prompt: Prompt, seed: int) -> Prompt | None:
        """Return a train prompt that differs from the train prompt `prompt` in exactly one attribute.

        Its other words and its category are the same. Returns None if the train split has no such prompt.
        """
        ...

    def check(self, image: Image.Image, prompt: Prompt) -> Verdict:
        """Decide from the pixels alone if `image` shows `prompt` or, for an edit, is what the edit makes of its source.

        Raises NoCheckerError.
        """
        ...

    def questions(self, prompt: Prompt) -> list[Question]:
        """Return the questions of a prompt from its spec; none if the spec gives none."""
        ...

    def answers(self, image: Image.Image, prompt: Prompt) -> list[bool]:
        """Return the exact checker's answer to each of `questions(prompt)`. Raises NoCheckerError."""
        ...

    def real_pairs(self, count: int, seed: int) -> list[RealPair]:
        """Return pairs of the world that the base was pretrained on, with its caption noise; none if it has none."""
        ...

    def reading_probes(self, count: int, seed: int) -> list[ReadingProbe]:
        """Return forced choices over compositions of the `probe` split; none if there are no pictures.

        An exact domain without reading probes has no guard of understanding at the gate.
        """
        ...

    def edits(self, split: Split, count: int, seed: int) -> list[Prompt]:
        """Return `count` different edits of one split; source and target are both compositions of that split.

        The result for one `(split, seed)` is a prefix of the result for a larger `count`. Raises UsageError if the
        split has fewer than `count` edits. A domain without edits has 0.
        """
        ...

    def source(self, prompt: Prompt) -> Image.Image:
        """Return the source image of an edit, always the same. Raises NotFoundError if there are no edits."""
        ...

    def edit_probes(self, count: int, seed: int) -> list[EditProbe]:
        """Return edits of images of the `probe` split; none if there are no pictures."""
        ...
