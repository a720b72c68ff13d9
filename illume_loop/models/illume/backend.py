"""The ILLUME models behind the `UnifiedModel` protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForCausalLM

from illume_loop.engine.batches import assembled, draw_batches, in_batches
from illume_loop.engine.scorer import Branch, LogOddsBranch, Scored, score_branches
from illume_loop.hooks import OnProgress, ignore
from illume_loop.models.backend import EngineBackend
from illume_loop.models.illume.language import IllumeLanguage
from illume_loop.models.illume.modeling import IllumeForConditionalGeneration
from illume_loop.models.illume.processing import IllumeProcessor
from illume_loop.models.illume.sequences import SequenceBuilder
from illume_loop.models.illume.slices import blocks_of, num_blocks
from illume_loop.models.processors import load_processor
from illume_loop.models.sequences import spellings
from illume_loop.protocols import MAX_ANSWER_TOKENS, NO, YES, ImageIds, Sampling, Scores
from illume_loop.settings import TrainSettings


class IllumeBackend(EngineBackend):
    """One ILLUME model that draws and reads; `device` is a torch device name."""

    name = "illume"
    sequences: SequenceBuilder

    def __init__(self, model: IllumeForConditionalGeneration, processor: IllumeProcessor, device: str) -> None:
        super().__init__(model, processor, device, IllumeLanguage(model))
        self.sequences = SequenceBuilder(processor.tokenizer, model.config)

    @classmethod
    def load(cls, path: Path, device: str, dtype: str = "auto", on_progress: OnProgress = ignore) -> IllumeBackend:
        """Load a checkpoint directory written by `save_pretrained`, in its stored precision or in `dtype`.

        Weights that are not safetensors are refused. `on_progress` is called after each stage, and by the model after
        each batch.
        """
        # Without `use_safetensors`, transformers would unpickle a pytorch_model.bin if the safetensors were gone.
        model = AutoModelForCausalLM.from_pretrained(path, local_files_only=True, use_safetensors=True, dtype=dtype)
        assert isinstance(model, IllumeForConditionalGeneration)
        on_progress()
        return cls(model, load_processor(IllumeProcessor, path), device).report_to(on_progress)

    @staticmethod
    def check_training(settings: TrainSettings) -> None:
        """Accept all settings; see `EngineBackend.check_training`."""
        del settings

    @property
    def tokens_per_image(self) -> int:
        """L: the number of image tokens of one image."""
        return int(self.model.config.tokens_per_image)

    def _drawn_after(self, prompts: Sequence[str]) -> tuple[list[list[int]], list[list[int]]]:
        prefixes = [self.sequences.draw_prefix(prompt) for prompt in prompts]
        return prefixes, [self.sequences.draw_prefix("")] * len(prefixes)

    @torch.inference_mode()
    def decode(self, image_ids_BL: ImageIds) -> list[Image.Image]:
        """Return the RGB images of codebook ids."""
        ids = torch.from_numpy(np.asarray(image_ids_BL, dtype=np.int64)).to(self.device)
        pixels = self.model.model.vision.decode(ids)
        stacked = (pixels.permute(0, 2, 3, 1).float() * 255).round().byte().cpu().numpy()
        return [Image.fromarray(array) for array in stacked]

    @torch.inference_mode()
    def encode(self, images: Sequence[Image.Image]) -> ImageIds:
        """Return the codebook ids (B, L) that the vision tokenizer gives for images."""
        ids_BL: ImageIds = self.model.model.vision.encode(self._pixels(images)).cpu().numpy().astype(np.int32)
        return ids_BL

    @torch.inference_mode()
    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """Return the continuous features (B, L, H) of images, as the language model reads them."""
        body = self.model.model
        encoder = body.vision.encoder if body.reader is None else body.reader
        num_patches = self.model.config.patches_per_side**2
        parts = in_batches(
            encoder,
            range(len(images)),
            num_patches,
            lambda rows: body.read(self._pixels([images[row] for row in rows])),
        )
        found: list[Tensor] = []
        for _, features in parts:
            found.append(features)
            self.on_progress()
        return torch.cat(found)

    def log_likelihood(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Scores:
        """Return log p(text | image) in nats, shape (B,); see `UnifiedModel.log_likelihood`."""
        return np.concatenate(score_branches(self.language, self._seen(images), [[self._told(t)] for t in texts]))

    def log_prior(self, texts: Sequence[str]) -> Scores:
        """Return log p(text) in nats, shape (B,); see `UnifiedModel.log_prior`."""
        values = score_branches(self.language, [[self.sequences.bos]] * len(texts), [[self._told(t)] for t in texts])
        return np.concatenate(values)

    def read(
        self, images: Sequence[Image.Image], texts: Sequence[str], questions: Sequence[Sequence[str]]
    ) -> tuple[Scores, list[Scores]]:
        """Return `log_likelihood` and `yes_no_log_odds` of the same images; see `UnifiedModel.read`.

        Raises what `yes_no_log_odds` raises, if there are questions.
        """
        branches = [[self._told(text), *self._asked(of_image)] for text, of_image in zip(texts, questions, strict=True)]
        values = score_branches(self.language, self._seen(images), branches)
        return np.array([of_image[0] for of_image in values]), [of_image[1:] for of_image in values]

    def _told(self, text: str) -> Branch:
        ids = [*self.sequences.words(text), self.sequences.eos]
        return Scored(ids, len(ids))

    def _asked(self, questions: Sequence[str]) -> list[Branch]:
        if not questions:
            return []
        answers = (spellings(self.tokenizer, YES), spellings(self.tokenizer, NO))
        return [LogOddsBranch(self.sequences.words(question), answers) for question in questions]

    def _seen(self, images: Sequence[Image.Image]) -> list[Tensor]:
        """Return the input embeddings of each image, ready for a question or a text after it."""
        features = self._looked_at(images)
        prefixes = [self.sequences.read_prefix(len(of_image)) for of_image in features]
        return self._embedded(prefixes, torch.cat(features))

    def _blocks(self, image: Image.Image) -> list[Image.Image]:
        config = self.model.config
        return blocks_of(image, config.image_size, config.max_slices)

    def _num_blocks(self, image: Image.Image) -> int:
        config = self.model.config
        return num_blocks(image.width, image.height, config.image_size, config.max_slices)

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
        words = self.sequences.words
        begun = [
            words(text, follow_text=bool(instruction))
            for text, instruction in zip(forced or [""] * len(instructions), instructions, strict=True)
        ]
        about = (
            [[self.sequences.bos]] * len(instructions)
            if images is None
            else [self.sequences.read_prefix(self._num_blocks(image)) for image in images]
        )
        prefixes = [seen + words(text) + start for seen, text, start in zip(about, instructions, begun, strict=True)]
        written = self._write(images, prefixes, self.sequences.eos, max_tokens, temperature, seeds)
        return [
            str(self.tokenizer.decode(start + row, skip_special_tokens=True)).removeprefix(self.sequences.gap)
            for start, row in zip(begun, written, strict=True)
        ]

    def edit(
        self, images: Sequence[Image.Image], instructions: Sequence[str], seeds: Sequence[int], sampling: Sampling
    ) -> ImageIds:
        """Draw edited images and return their codebook ids (B, L); see `UnifiedModel.edit`."""
        features = self.features(images)
        prefixes = [self.sequences.edit_prefix(instruction) for instruction in instructions]
        unconditional = [self.sequences.edit_prefix("")] * len(images)
        of_rows = self._embedded(prefixes, features), self._embedded(unconditional, features)
        return assembled(draw_batches(self.language, *of_rows, seeds, sampling, self.tokens_per_image), len(images))
