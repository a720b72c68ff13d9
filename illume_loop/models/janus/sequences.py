"""The layout of prompts, images and captions as ids for Janus, by the checkpoint's own chat template.

    draw      [user: prompt] <begin_of_image> id ... id    learned: the image ids
    read      [system] [user: image, instruction] answer <eos>    learned: the answer and <eos>
    tell      [system] [user: instruction] answer <eos>    the same without an image
    correct   a row of `read`, then [user: request] <begin_of_image> id ... id    learned: the answer, <eos> and all
              after the request

An image to be read is <begin_of_image>, placeholders and <end_of_image>. A caption is the answer to CAPTION. A drawn
image ends with its last id, because Janus learned nothing about what comes after it.

The unconditional prompt of guidance is the prompt with pads in the place of all ids but <bos> and <begin_of_image>, as
in transformers and in the authors' own code. So each length of prompt has an unconditional prompt of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import JanusConfig, JanusProcessor
from transformers.models.janus.processing_janus import DEFAULT_SYSTEM_PROMPT

from illume_loop.errors import UsageError
from illume_loop.models.sequences import Sequence1D, refuse_images_in

CAPTION = "Describe the image in one sentence."
"""The instruction that asks for a caption; Janus reads no image without a question."""
NO_EDITS = "Janus draws from text alone and edits no images; use a base of the type illume"


class JanusSequences:
    """A builder of rows for one checkpoint."""

    def __init__(self, processor: JanusProcessor, config: JanusConfig) -> None:
        self._processor = processor
        tokenizer = processor.tokenizer
        self._tokenizer = tokenizer
        self.bos = int(tokenizer.bos_token_id)
        self.eos = int(tokenizer.eos_token_id)
        self.pad = int(tokenizer.pad_token_id)
        self.num_text_ids = int(config.get_text_config().vocab_size)
        self._begin_image = int(tokenizer.convert_tokens_to_ids(processor.image_start_token))
        self._end_image = int(tokenizer.convert_tokens_to_ids(processor.image_end_token))
        vision_config: Any = config.vision_config
        placeholders = processor.image_token * int(vision_config.num_image_tokens)
        # The number comes from the model: published checkpoints leave the processor's own number at its default.
        self._image = processor.image_start_token + placeholders + processor.image_end_token
        self._system = DEFAULT_SYSTEM_PROMPT if processor.use_default_system_prompt else ""

    def answer(self, text: str) -> list[int]:
        """Return the ids of an answer, with the space that the template puts before it.

        The template's generation prompt ends before that space.
        """
        return self._ids(f" {text}", begins=False)

    def draw_prefix(self, prompt: str) -> list[int]:
        """Return the ids before the first image id."""
        return self._ids(self._asked([self._said(prompt)]) + self._processor.image_start_token)

    def unconditional(self, prefix: Sequence[int]) -> list[int]:
        """Return the unconditional prefix for a prefix of `draw_prefix`."""
        return [i if i in (self.bos, self._begin_image) else self.pad for i in prefix]

    def draw(self, prompt: str, image_ids: Sequence[int], *, prompt_dropped: bool = False) -> Sequence1D:
        """Build a text-to-image row; see `Sequences.draw`."""
        prefix = self.draw_prefix(prompt)
        return Sequence1D.with_prefix(self.unconditional(prefix) if prompt_dropped else prefix, self._drawn(image_ids))

    def read_prefix(self, instruction: str = "") -> tuple[list[int], list[int]]:
        """Return the ids before an answer about an image, in two parts: up to the image's end, and the question."""
        content = [{"type": "image"}, self._said(instruction or CAPTION)]
        asked = self._asked(content).replace(self._processor.image_token, self._image)
        ids = self._ids(self._system + asked)
        stop = ids.index(self._end_image) + 1
        return ids[:stop], ids[stop:]

    def read(self, answer: str, instruction: str = "") -> Sequence1D:
        """Build an image-to-text row; see `Sequences.read`."""
        image, question = self.read_prefix(instruction)
        return Sequence1D.with_prefix(image + question, [*self.answer(answer), self.eos])

    def tell_prefix(self, instruction: str = "") -> list[int]:
        """Return the ids before an answer without an image."""
        return self._ids(self._system + self._asked([self._said(instruction or CAPTION)]))

    def correct(self, instruction: str, answer: str, request: str, image_ids: Sequence[int]) -> Sequence1D:
        """Build a row of two turns; see `Sequences.correct`."""
        assessed = self.read(answer, instruction)
        asked = self._ids(self._asked([self._said(request)]), begins=False)
        corrected = Sequence1D.with_prefix(asked, [self._begin_image, *self._drawn(image_ids)])
        return Sequence1D(assessed.input_ids + corrected.input_ids, assessed.labels + corrected.labels)

    def edit(self, instruction: str, image_ids: Sequence[int], *, prompt_dropped: bool = False) -> Sequence1D:
        """Raise UsageError, as the backend's `edit` does: Janus was trained to draw from text alone."""
        del instruction, image_ids, prompt_dropped  # the protocol names these parameters
        raise UsageError(NO_EDITS)

    def _asked(self, content: list[dict[str, str]]) -> str:
        """Return the template's text of one user turn and of the beginning of the assistant's turn."""
        turns: list[dict[str, Any]] = [{"role": "user", "content": content}]
        asked: str = self._processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        return asked

    def _ids(self, text: str, *, begins: bool = True) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=begins)["input_ids"]
        return ids

    def _drawn(self, image_ids: Sequence[int]) -> list[int]:
        return [self.num_text_ids + int(i) for i in image_ids]

    def _said(self, text: str) -> dict[str, str]:
        """Return a text as a part of a turn. Raises UsageError if the model would take some of it for an image."""
        processor = self._processor
        refuse_images_in(text, (processor.image_token, processor.image_start_token, processor.image_end_token))
        return {"type": "text", "text": text}
