"""The layout of prompts, images and captions as ids of the unified vocabulary.

    draw   <bos> words <boi> id ... id <eoi>          learned: the image ids and <eoi>
    read   <bos> <boi> <img> ... <img> <eoi> instruction words <eos>   learned: the words and <eos>
    tell   <bos> instruction words <eos>              learned: the words and <eos>
    edit   <bos> <boi> <img> ... <img> <eoi> words <boi> id ... id <eoi>   learned: the image ids and <eoi>
    correct   a row of `read`, then request <boi> id ... id <eoi>   learned: as in `read`, and <boi>, the ids and <eoi>
    converse  <bos> and turns of words, images to be read and images as ids; learned: the model's turns, and <eos> after
              each that ends in words

A text that follows another text begins with a space if the tokenizer needs one to keep their words apart. <img> marks
the positions where continuous features enter. A caption is read without an instruction. The unconditional prompt of
guidance is `draw` or `edit` without words. The paper does not print its templates; these are ours.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from illume_loop.models.illume.configuration import IllumeConfig
from illume_loop.models.sequences import IGNORED_LABEL, Sequence1D, collate, gap_of, refuse_images_in

Part = str | int | list[int]
"""A part of a turn: words, an image to be read in so many blocks, or the codebook ids of an image to be drawn."""


class SequenceBuilder:
    """A builder of rows for one tokenizer and one configuration."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: IllumeConfig) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self.bos = int(tokenizer.bos_token_id)
        self.eos = int(tokenizer.eos_token_id)
        self.pad = int(tokenizer.pad_token_id)
        self.gap = gap_of(tokenizer)
        of_images = [config.begin_image_token_id, config.end_image_token_id, config.image_placeholder_token_id]
        self._of_images = tokenizer.convert_ids_to_tokens(of_images)

    def words(self, text: str, *, follow_text: bool = False) -> list[int]:
        """Return the ids of a text, without special ids; `follow_text` says that the text follows another one.

        Raises UsageError if the model would take some of the text for an image.
        """
        refuse_images_in(text, self._of_images)
        if follow_text and text:
            text = self.gap + text
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def draw_prefix(self, prompt: str) -> list[int]:
        """Return the ids before the first image id; the empty prompt is the unconditional one."""
        return [self.bos, *self.words(prompt), self.config.begin_image_token_id]

    def draw(self, prompt: str, image_ids: Sequence[int], *, prompt_dropped: bool = False) -> Sequence1D:
        """Build a text-to-image row; `image_ids` are codebook ids in [0, codebook_size)."""
        return self._drawn(self.draw_prefix("" if prompt_dropped else prompt), image_ids)

    def read_prefix(self, num_blocks: int = 1) -> list[int]:
        """Return the ids of an image to be read; text follows them.

        One block is the whole image; further blocks are its slices.
        """
        return [self.bos, *self._seen(num_blocks)]

    def read(self, answer: str, instruction: str = "") -> Sequence1D:
        """Build an image-to-text row: a caption, or the answer to an instruction."""
        return self._answered(self.read_prefix(), instruction, answer)

    def dialogue(self, turns: Sequence[tuple[str, str]]) -> Sequence1D:
        """Build a row of questions about one image, each with its answer; only the answers are learned."""
        prefix = self.read_prefix()
        row = Sequence1D([*prefix], [IGNORED_LABEL] * len(prefix))
        for question, answer in turns:
            asked = self.words(question, follow_text=len(row.input_ids) > len(prefix))
            answered = self.words(answer, follow_text=True)
            row.input_ids.extend(asked + answered)
            row.labels.extend([IGNORED_LABEL] * len(asked) + answered)
        return row

    def tell(self, answer: str, instruction: str = "") -> Sequence1D:
        """Build a row of text alone."""
        return self._answered([self.bos], instruction, answer)

    def edit_prefix(self, instruction: str) -> list[int]:
        """Return the ids before the first image id of an edited image."""
        return [*self.read_prefix(), *self.words(instruction), self.config.begin_image_token_id]

    def edit(self, instruction: str, image_ids: Sequence[int], *, prompt_dropped: bool = False) -> Sequence1D:
        """Build an image-to-image row; `image_ids` are codebook ids in [0, codebook_size)."""
        return self._drawn(self.edit_prefix("" if prompt_dropped else instruction), image_ids)

    def correct(self, instruction: str, answer: str, request: str, image_ids: Sequence[int]) -> Sequence1D:
        """Build a row of two turns; see `Sequences.correct`."""
        first: list[tuple[bool, Sequence[Part]]] = [(False, [1, instruction]), (True, [answer])]
        return self.converse([*first, (False, [request]), (True, [list(image_ids)])])

    def converse(self, turns: Sequence[tuple[bool, Sequence[Part]]]) -> Sequence1D:
        """Build a row of the turns of a dialogue, each given with whether it is learned.

        Images may stand at any place in the turns of either side.
        """
        row = Sequence1D([self.bos], [IGNORED_LABEL])
        after_text = False
        for is_learned, parts in turns:
            said: list[int] = []
            for part in parts:
                said += self._part(part, follow_text=after_text)
                after_text = isinstance(part, str)
            if is_learned and not (parts and isinstance(parts[-1], list)):
                said.append(self.eos)
                after_text = False
            row.input_ids.extend(said)
            row.labels.extend(said if is_learned else [IGNORED_LABEL] * len(said))
        return row

    def _part(self, part: Part, *, follow_text: bool) -> list[int]:
        if isinstance(part, str):
            return self.words(part, follow_text=follow_text)
        if isinstance(part, int):
            return self._seen(part)
        return self._drawn([self.config.begin_image_token_id], part).input_ids

    def _seen(self, num_blocks: int) -> list[int]:
        config = self.config
        placeholders = [config.image_placeholder_token_id] * config.tokens_per_image
        return [config.begin_image_token_id, *placeholders, config.end_image_token_id] * num_blocks

    def _drawn(self, prefix: list[int], image_ids: Sequence[int]) -> Sequence1D:
        image = [self.config.num_text_ids + int(i) for i in image_ids] + [self.config.end_image_token_id]
        return Sequence1D.with_prefix(prefix, image)

    def _answered(self, prefix: list[int], instruction: str, answer: str) -> Sequence1D:
        answered = self.words(answer, follow_text=bool(instruction))
        return Sequence1D.with_prefix([*prefix, *self.words(instruction)], [*answered, self.eos])

    def collate(self, rows: Sequence[Sequence1D]) -> dict[str, Tensor]:
        """Return one batch; see `illume_loop.models.sequences.collate`."""
        return collate(rows, self.pad)
