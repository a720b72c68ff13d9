"""The Janus and Janus-Pro checkpoints of transformers behind the `UnifiedModel` protocol.

The backend draws and reads through the engine, never through `generate`. `generate` has no plain sampling without
guidance, keeps 50 ids unless told otherwise, and ignores images when it draws. Both ways can draw greedily; tests check
that they draw the same ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import JanusProcessor

from illume_loop.engine.scorer import Branch, LogOddsBranch, Scored, score_branches
from illume_loop.errors import UsageError
from illume_loop.hooks import OnProgress, ignore
from illume_loop.models.backend import EngineBackend
from illume_loop.models.janus.language import JanusLanguage
from illume_loop.models.janus.modeling import UnifiedJanus
from illume_loop.models.janus.sequences import NO_EDITS, JanusSequences
from illume_loop.models.processors import load_processor
from illume_loop.models.sequences import spellings
from illume_loop.protocols import MAX_ANSWER_TOKENS, NO, YES, ImageIds, Sampling, Scores

if TYPE_CHECKING:
    from illume_loop.settings import TrainSettings

BRIEFLY = "Please answer yes or no."
"""The sentence after each question, as in the benchmarks that Janus was measured on."""
PIXEL_BATCH = 16
"""Images that are encoded or decoded at a time; at 384 pixels each takes the image tokenizer about 150 MiB."""


class JanusBackend(EngineBackend):
    """One Janus model that draws and reads; `device` is a torch device name."""

    name = "janus"
    sequences: JanusSequences

    def __init__(self, model: UnifiedJanus, processor: JanusProcessor, device: str) -> None:
        super().__init__(model, processor, device, JanusLanguage(model))
        self.sequences = JanusSequences(processor, model.config)

    @classmethod
    def load(cls, path: Path, device: str, dtype: str = "auto", on_progress: OnProgress = ignore) -> JanusBackend:
        """Load a checkpoint directory in the published layout, in its stored precision or in `dtype`.

        Weights that are not safetensors are refused. `on_progress` is called after each stage, and by the model after
        each batch.
        """
        # The classes are named here rather than looked up, so no code of a checkpoint is ever run.
        model = UnifiedJanus.from_pretrained(path, local_files_only=True, use_safetensors=True, dtype=dtype)
        on_progress()
        return cls(model, load_processor(JanusProcessor, path), device).report_to(on_progress)

    @staticmethod
    def check_training(settings: TrainSettings) -> None:
        """Raise UsageError for a strategy that cuts weights in pieces, as each step joins both heads."""
        if settings.backend == "ray" and settings.strategy == "zero3":
            raise UsageError("Janus cannot train with train.strategy = 'zero3'; set it to 'zero2' or 'ddp'")

    @property
    def tokens_per_image(self) -> int:
        """L: the number of image tokens of one image."""
        images: Any = self.model.config.vq_config
        return int(images.num_patches**2)

    def _drawn_after(self, prompts: Sequence[str]) -> tuple[list[list[int]], list[list[int]]]:
        prefixes = [self.sequences.draw_prefix(prompt) for prompt in prompts]
        return prefixes, [self.sequences.unconditional(prefix) for prefix in prefixes]

    @torch.inference_mode()
    def decode(self, image_ids_BL: ImageIds) -> list[Image.Image]:
        """Return the RGB images of codebook ids; those of published checkpoints are 384 pixels square."""
        ids = torch.from_numpy(np.asarray(image_ids_BL, dtype=np.int64)).to(self.device)
        shown = self.processor.image_processor
        mean, std = (torch.tensor(values, device=self.device) for values in (shown.image_mean, shown.image_std))
        images: list[Image.Image] = []
        for some in ids.split(PIXEL_BATCH):
            pixels = self.model.model.vqmodel.decode(some).permute(0, 2, 3, 1).float()
            bytes_BSSC = ((pixels * std + mean) * 255).clamp(0, 255).byte().cpu().numpy()
            images.extend(Image.fromarray(array) for array in bytes_BSSC)
            self.on_progress()
        return images

    @torch.inference_mode()
    def encode(self, images: Sequence[Image.Image]) -> ImageIds:
        """Return the codebook ids (B, L) that the image tokenizer gives for images."""
        parts = [
            self.model.model.vqmodel.encode(pixels).image_tokens.view(len(pixels), -1)
            for pixels in self._pixel_batches(images, PIXEL_BATCH)
        ]
        return torch.cat(parts).cpu().numpy().astype(np.int32)

    @torch.inference_mode()
    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """Return the vision encoder's features (B, L, H_vision) of images, before the aligner."""
        parts = [
            self.model.model.vision_model(pixels).last_hidden_state
            for pixels in self._pixel_batches(images, PIXEL_BATCH)
        ]
        return torch.cat(parts)

    def log_likelihood(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Scores:
        """Return log p(text | image) in nats, shape (B,), with the text as the answer to CAPTION.

        See `UnifiedModel.log_likelihood`.
        """
        return self.read(images, texts, [()] * len(texts))[0]

    def log_prior(self, texts: Sequence[str]) -> Scores:
        """Return log p(text) in nats, shape (B,), with the text as the same answer without an image.

        See `UnifiedModel.log_prior`.
        """
        prefix = self.sequences.tell_prefix()
        values = score_branches(self.language, [prefix] * len(texts), [[self._told([], text)] for text in texts])
        return np.concatenate(values)

    def read(
        self, images: Sequence[Image.Image], texts: Sequence[str], questions: Sequence[Sequence[str]]
    ) -> tuple[Scores, list[Scores]]:
        """Return `log_likelihood` and `yes_no_log_odds` of the same images; see `UnifiedModel.read`.

        Raises what `yes_no_log_odds` raises, if there are questions.
        """
        _, caption = self.sequences.read_prefix()
        branches = [
            [self._told(caption, text), *self._asked(of_image)] for text, of_image in zip(texts, questions, strict=True)
        ]
        values = score_branches(self.language, self._seen(images), branches)
        return np.array([of_image[0] for of_image in values]), [of_image[1:] for of_image in values]

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
        """Write answers to instructions; see `UnifiedModel.instruct`."""
        begun = [self.sequences.answer(text) if text else [] for text in forced or [""] * len(instructions)]
        asked = [self._questioned(text, about_an_image=images is not None) for text in instructions]
        ids = [prefix + start for prefix, start in zip(asked, begun, strict=True)]
        written = self._write(images, ids, self.sequences.eos, max_tokens, temperature, seeds)
        # The space before an answer belongs to the template, not to the answer.
        return [
            str(self.tokenizer.decode(start + row, skip_special_tokens=True)).removeprefix(" ")
            for start, row in zip(begun, written, strict=True)
        ]

    def edit(
        self, images: Sequence[Image.Image], instructions: Sequence[str], seeds: Sequence[int], sampling: Sampling
    ) -> ImageIds:
        """Raise UsageError: Janus was trained to draw from text alone and would ignore the images."""
        del images, instructions, seeds, sampling  # the protocol names these parameters
        raise UsageError(NO_EDITS)

    def _questioned(self, instruction: str, *, about_an_image: bool) -> list[int]:
        if not about_an_image:
            return self.sequences.tell_prefix(instruction)
        image, question = self.sequences.read_prefix(instruction)
        return image + question

    def _told(self, question: Sequence[int], text: str) -> Branch:
        answer = [*self.sequences.answer(text), self.sequences.eos]
        return Scored([*question, *answer], len(answer))

    def _asked(self, questions: Sequence[str]) -> list[Branch]:
        if not questions:
            return []
        answers = (spellings(self.tokenizer, YES), spellings(self.tokenizer, NO))
        return [
            LogOddsBranch(self.sequences.read_prefix(f"{question} {BRIEFLY}")[1], answers) for question in questions
        ]

    def _seen(self, images: Sequence[Image.Image]) -> list[Tensor]:
        """Return the input embeddings of each image, ready for a question after it."""
        return self._embedded([self.sequences.read_prefix()[0]] * len(images), torch.cat(self._looked_at(images)))
