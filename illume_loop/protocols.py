"""What a model and a domain must offer, and the values that pass between them and the loop.

Imported by every room; needs neither torch nor a database. Shape suffixes: `_B` batch, `_L` image tokens, `_T` text
tokens. Arrays are NumPy, so that neither the loop nor the store needs torch.

Invariants:

- What a domain returns depends only on its arguments, so a resumed run sees the same prompts as an uninterrupted one.
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

YES, NO = "yes", "no"
"""The answers to a question."""

MAX_ANSWER_TOKENS = 160
"""Tokens of a written answer, at most, where nothing else is said; a critique of the shapes world has fewer than 90."""


@dataclass(frozen=True, slots=True)
class DrawRow:
    """Text to image: the model learns `image_ids` (shape (L,)) given `prompt`; the prompt itself is masked."""

    prompt: str
    image_ids: ImageIds
    kind: Literal["draw"] = "draw"

    def __post_init__(self) -> None:
        _check_ids(self.image_ids)


@dataclass(frozen=True, slots=True)
class ReadRow:
    """Image to text: the model learns `caption` given the continuous features of `image` and, masked, `instruction`.

    Without an instruction it is a caption, with one the answer to it.
    """

    image: Image.Image
    caption: str
    instruction: str = ""
    kind: Literal["read"] = "read"


@dataclass(frozen=True, slots=True)
class PairRow:
    """A preference: of two images of one prompt, ids of shape (L,) each, the model learns to prefer `chosen_ids`."""

    prompt: str
    chosen_ids: ImageIds
    rejected_ids: ImageIds
    kind: Literal["pair"] = "pair"

    def __post_init__(self) -> None:
        _check_ids(self.chosen_ids)
        _check_ids(self.rejected_ids)


@dataclass(frozen=True, slots=True)
class CorrectRow:
    """Two turns about one image: the model learns `answer` given `image` and, masked, `instruction`; then `image_ids`
    (shape (L,)), the image as it should have been."""

    image: Image.Image
    instruction: str
    answer: str
    image_ids: ImageIds
    kind: Literal["correct"] = "correct"

    def __post_init__(self) -> None:
        _check_ids(self.image_ids)


@dataclass(frozen=True, slots=True)
class EditRow:
    """An image made of another: the model learns `image_ids` (shape (L,)) given `image` and, masked, `instruction`."""

    image: Image.Image
    instruction: str
    image_ids: ImageIds
    kind: Literal["edit"] = "edit"

    def __post_init__(self) -> None:
        _check_ids(self.image_ids)


LikelyRow = DrawRow | ReadRow | CorrectRow | EditRow
"""A row that is to become more likely."""

TrainingRow = DrawRow | ReadRow | PairRow | CorrectRow | EditRow


def _check_ids(image_ids: ImageIds) -> None:
    if image_ids.ndim != 1 or image_ids.dtype != np.int32:
        raise ValueError("image_ids must be a one-dimensional int32 array")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How image tokens are drawn.

    `guidance_scale` 1.0 is the plain conditional distribution; `top_k` 0 keeps every id, and `top_p` those that are the
    most probable up to this share together.
    """

    guidance_scale: float = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def content(self) -> dict[str, float]:
        """What a plan's name is made of; top-p came later, and 1.0 is what plans of before were carried out with."""
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

        The same arguments must give the same checkpoint, so that a killed training is simply run again.

        `on_step` is called with (steps done, steps in all) after each step, and with (0, 0) after each stage before the
        first one.
        """
        ...


@runtime_checkable
class TriesRows(Protocol):
    """A `UnifiedModel` whose backend can show that it could train on rows, without training on them."""

    def try_rows(self, rows: Sequence[TrainingRow], settings: TrainSettings) -> None:
        """Lay the rows out as a training by these settings reads them. Raises what the training would raise."""
        ...


@runtime_checkable
class KnowsWords(Protocol):
    """A `UnifiedModel` that can tell which words its tokenizer has no id for."""

    def unknown_words(self, text: str) -> list[str]:
        """Return the words of a text that the model has never seen, each once, in order."""
        ...


class UnifiedModel(Protocol):
    """A model that draws images and reads them."""

    name: str

    @property
    def tokens_per_image(self) -> int:
        """L: image tokens of one image."""
        ...

    def sample(self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> ImageIds:
        """Draw one image per (prompt, seed): ids of shape (B, L).

        The noise of a row depends on its seed and the position only, never on the batch.
        """
        ...

    def decode(self, image_ids_BL: ImageIds) -> list[Image.Image]:
        """Ids to RGB images."""
        ...

    def encode(self, images: Sequence[Image.Image]) -> ImageIds:
        """RGB images to ids of shape (B, L), the inverse of `decode` up to the tokenizer's loss."""
        ...

    def log_likelihood(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Scores:
        """log p(text | image) in nats, summed over the text's tokens, shape (B,)."""
        ...

    def log_prior(self, texts: Sequence[str]) -> Scores:
        """log p(text) in nats without any image, summed over the text's tokens, shape (B,)."""
        ...

    def yes_no_log_odds(self, images: Sequence[Image.Image], questions: Sequence[Sequence[str]]) -> list[Scores]:
        """log p(yes) - log p(no) for the questions of each image, one array for each image.

        An image goes through the model once, whatever the number of its questions.
        """
        ...

    def read(
        self, images: Sequence[Image.Image], texts: Sequence[str], questions: Sequence[Sequence[str]]
    ) -> tuple[Scores, list[Scores]]:
        """`log_likelihood` and `yes_no_log_odds` of the same images, each of which goes through the model once."""
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
        """The written answer to an instruction about each image, or with None about no image; "" asks for a caption.

        An answer begins with its `forced` text, where one is given. Temperature 0 writes greedily; otherwise each row
        needs a seed, on which alone its noise depends.
        """
        ...

    def edit(
        self, images: Sequence[Image.Image], instructions: Sequence[str], seeds: Sequence[int], sampling: Sampling
    ) -> ImageIds:
        """What the instructions make of the images, as ids (B, L); guidance is towards the instruction."""
        ...


@runtime_checkable
class EncodesOnce(Protocol):
    """A `UnifiedModel` that can keep what its encoder makes of images."""

    def encoded_once(self) -> AbstractContextManager[None]:
        """Return a context in which each image object goes through the encoder once, however often it is shown."""
        ...


def encoded_once(model: UnifiedModel) -> AbstractContextManager[None]:
    """Return the context of a model that keeps its encoder's features, and for others one that does nothing."""
    return model.encoded_once() if isinstance(model, EncodesOnce) else nullcontext()


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
class Decision:
    """A verdict, and what it rests on: each question with its log-odds."""

    verdict: Verdict
    questions: Sequence[Question]
    log_odds: Sequence[float]


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
