"""The base class of the backends whose models are language models behind the engine.

A backend adds how its images become pixels and back, and how its prompts, questions and answers become ids.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from illume_loop.engine.batches import assembled, draw_batches, draw_scored, in_batches
from illume_loop.engine.protocol import EngineModel, Prefix
from illume_loop.engine.scorer import Branch, score_branches
from illume_loop.engine.writer import write_text
from illume_loop.hooks import OnProgress
from illume_loop.models.processors import pixels_of
from illume_loop.models.sequences import Sequences
from illume_loop.protocols import ImageIds, LogProbs, Sampling, Scores

if TYPE_CHECKING:
    from illume_loop.settings import TrainSettings


class EngineBackend(ABC):
    """One model with its processor on one device; `device` is a torch device name."""

    sequences: Sequences

    def __init__(self, model: Any, processor: Any, device: str, language: EngineModel) -> None:
        self.model = model
        nn.Module.to(self.model, device)
        self.model.train(False)
        self.language = language
        self.processor = processor
        self.device = torch.device(device)
        self._kept: dict[int, tuple[Image.Image, Tensor]] | None = None

    def report_to(self, on_progress: OnProgress) -> Self:
        """Set and call `on_progress`, and return this backend.

        From now on the hook is called after each batch, and every few positions while the model draws or writes.
        """
        self.language.on_progress = on_progress
        on_progress()
        return self

    @property
    def on_progress(self) -> OnProgress:
        """The hook that is called after each batch."""
        return self.language.on_progress

    @staticmethod
    @abstractmethod
    def check_training(settings: TrainSettings) -> None:
        """Raise UsageError if models of this backend cannot be trained with these settings."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The text tokenizer."""
        tokenizer: PreTrainedTokenizerBase = self.processor.tokenizer
        return tokenizer

    def unknown_words(self, text: str) -> list[str]:
        """Return the words of a text that the tokenizer has no id for; see `HasVocabulary`."""
        unknown = self.tokenizer.unk_token_id
        words = dict.fromkeys(text.split())
        if unknown is None:
            return []
        return [word for word in words if unknown in self.tokenizer(word, add_special_tokens=False)["input_ids"]]

    def freeze_vision(self) -> None:
        """Exclude the vision parts from training; see the model's own `freeze_vision`."""
        self.model.freeze_vision()

    def save(self, path: Path) -> None:
        """Write weights, configuration and processor in the model's own layout."""
        self.model.save_pretrained(path)
        self.processor.save_pretrained(path)

    def sample(self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> ImageIds:
        """Draw codebook ids (B, L); see `UnifiedModel.sample`."""
        return assembled(self.draw_batches(prompts, seeds, sampling), len(prompts))

    def draw_batches(
        self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling
    ) -> Iterator[tuple[list[int], ImageIds]]:
        """Draw as `sample` does, batch by batch; see `illume_loop.engine.drawing.DrawsInBatches`."""
        return draw_batches(self.language, *self._drawn_after(prompts), seeds, sampling, self.tokens_per_image)

    def sample_scored(
        self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling
    ) -> tuple[ImageIds, LogProbs]:
        """Draw as `sample` does; return codebook ids and their log-probabilities, both (B, L).

        The log-probabilities are those of the distribution that the ids were drawn from: with guidance and temperature.
        """
        return draw_scored(self.language, *self._drawn_after(prompts), seeds, sampling, self.tokens_per_image)

    @property
    @abstractmethod
    def tokens_per_image(self) -> int:
        """L: the number of image tokens of one image."""

    @abstractmethod
    def _drawn_after(self, prompts: Sequence[str]) -> tuple[list[list[int]], list[list[int]]]:
        """Return the prefix of each prompt, and its unconditional prefix for guidance."""

    @abstractmethod
    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """Return the vision encoder's features (B, L, H) of images."""

    @contextmanager
    def encoded_once(self) -> Iterator[None]:
        """Keep the features of each image object in main memory until the context ends; see `CachesEncodings`."""
        if self._kept is not None:
            yield
            return
        self._kept = {}
        try:
            yield
        finally:
            self._kept = None

    def yes_no_log_odds(self, images: Sequence[Image.Image], questions: Sequence[Sequence[str]]) -> list[Scores]:
        """Return log p(yes) - log p(no) for each question; see `UnifiedModel.yes_no_log_odds`.

        Raises UsageError if the model's vocabulary has no id for one of the two words.
        """
        return score_branches(self.language, self._seen(images), [self._asked(of_image) for of_image in questions])

    @abstractmethod
    def _asked(self, questions: Sequence[str]) -> list[Branch]:
        """Return the branches that ask these questions after an image."""

    @abstractmethod
    def _seen(self, images: Sequence[Image.Image]) -> list[Tensor]:
        """Return the input embeddings of each image, ready for a question or a text after it."""

    def _blocks(self, image: Image.Image) -> list[Image.Image]:
        """Return the blocks in which an image is read: the whole image, unless the backend slices it."""
        return [image]

    def _looked_at(self, images: Sequence[Image.Image]) -> list[Tensor]:
        """Return the features (blocks, L, H) of each image; features kept by `encoded_once` are used again."""
        kept = self._kept
        if kept is None:
            return self._encoded(images)
        new = {id(image): image for image in images if id(image) not in kept}
        if new:
            for image, features in zip(new.values(), self._encoded([*new.values()]), strict=True):
                kept[id(image)] = image, features.cpu()  # a kept image stays alive, so its id stays its own
        return [kept[id(image)][1].to(self.device) for image in images]

    def _encoded(self, images: Sequence[Image.Image]) -> list[Tensor]:
        blocks = [self._blocks(image) for image in images]
        features = self.features([block for of_image in blocks for block in of_image])
        return [*features.split([len(of_image) for of_image in blocks])]

    def _write(
        self,
        images: Sequence[Image.Image] | None,
        prefixes: Sequence[Sequence[int]],
        eos: int,
        max_tokens: int,
        temperature: float,
        seeds: Sequence[int],
    ) -> list[list[int]]:
        """Write text after each prefix, in batches that fit into memory, and return its ids.

        If there are images, each prefix holds the placeholders of its row's image.
        """

        def write(rows: list[int]) -> list[list[int]]:
            of_rows: Sequence[Prefix] = [prefixes[row] for row in rows]
            if images is not None:
                features = torch.cat(self._looked_at([images[row] for row in rows]))
                of_rows = self._embedded([prefixes[row] for row in rows], features)
            some = [seeds[row] for row in rows] if seeds else ()
            return write_text(self.language, of_rows, eos, max_tokens, temperature=temperature, seeds=some)

        num_slots = max(map(len, prefixes), default=0) + max_tokens
        batches = in_batches(self.language.body, range(len(prefixes)), num_slots, write)
        return [text for _, texts in batches for text in texts]

    def _pixel_batches(self, images: Sequence[Image.Image], size: int) -> Iterator[Tensor]:
        """Yield images as pixels, `size` at a time; report progress when the caller is done with a batch."""
        for pixels in self._pixels(images).split(size):
            yield pixels
            self.on_progress()

    def _pixels(self, images: Sequence[Image.Image]) -> Tensor:
        return pixels_of(images, self.processor.image_processor, self.device, self.model.dtype)

    @torch.inference_mode()
    def _embedded(self, prefixes: Sequence[Sequence[int]], features_BLH: Tensor) -> list[Tensor]:
        """Return the input embeddings of prefixes whose images have these features, in reading order."""
        ids = torch.tensor([[i for prefix in prefixes for i in prefix]], device=self.device)
        embeds = self.model.model.embed(ids, features_BLH)[0]
        return [*embeds.split([len(prefix) for prefix in prefixes])]
