"""What the loop needs of a unified model, and nothing more.

Shape suffixes: `_B` batch, `_L` image tokens, `_T` text tokens. Arrays that cross this boundary are NumPy, so that
neither the loop nor the store needs torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from illume_loop.config import TrainSettings
    from illume_loop.train.rows import TrainingRow

ImageIds = NDArray[np.int32]
Scores = NDArray[np.float64]
YES, NO = "yes", "no"
"""The answers to a question."""
MAX_ANSWER_TOKENS = 160
"""Tokens of a written answer, at most, where nothing else is said; a critique of the shapes world has fewer than 90."""


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
