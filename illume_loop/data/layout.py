"""Rows of data as sequences of the unified vocabulary, one way for each task.

    caption        a pair, read: the image, then its caption
    text-to-image  a pair, drawn: the caption, then the image's ids; without the caption where it is dropped
    reconstruct    a pair whose image is read and drawn, which initialises the vision rows (stage 1)
    text           a text alone
    instruct       a dialogue about images or none
    assess         a dialogue that judges an image, and may draw it as it should have been; laid out as `instruct`
    edit           the source, the instruction and the target's ids; without the instruction where it is dropped

An image that is read for what it shows goes in whole, in slices where it is large; one that is drawn again, or edited,
goes in as the square that the tokenizer saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from illume_loop.data.rows import IMAGE_MARK, Kind, Turn
from illume_loop.models.illume.sequences import Part, SequenceBuilder
from illume_loop.models.sequences import Sequence1D

Task = Literal["caption", "text-to-image", "reconstruct", "text", "instruct", "assess", "edit"]

KIND_OF: Mapping[Task, Kind] = {
    "caption": "pair",
    "text-to-image": "pair",
    "reconstruct": "pair",
    "text": "text",
    "instruct": "dialogue",
    "assess": "dialogue",
    "edit": "edit",
}
TASKS: tuple[Task, ...] = tuple(KIND_OF)
DRAWS: frozenset[Task] = frozenset({"text-to-image", "reconstruct", "edit"})
"""Tasks whose rows need the ids of an image."""
DROPS: frozenset[Task] = frozenset({"text-to-image", "edit"})
"""Tasks whose text may be dropped, for guidance."""
WHOLE: frozenset[Task] = frozenset({"caption", "instruct", "assess"})
"""Tasks that read images as they are, in slices where these are large; the others read the tokenizer's squares."""


class Sayings(Protocol):
    """What of a row its sequence is made of."""

    @property
    def text(self) -> str:
        """The caption, instruction or text."""
        ...

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Of a dialogue."""
        ...


def sequence_of(
    task: Task,
    row: Sayings,
    ids: Sequence[Sequence[int]],
    sequences: SequenceBuilder,
    num_blocks: Sequence[int],
    *,
    dropped: bool = False,
) -> Sequence1D:
    """The sequence of a row for a task.

    `ids` are those of the images that it draws, `num_blocks` how many blocks of placeholders each image has that it
    reads; `dropped` leaves the text out, where the task may.
    """
    match task:
        case "caption":
            return sequences.converse([(False, [num_blocks[0]]), (True, [row.text])])
        case "text-to-image":
            return sequences.draw(row.text, ids[0], prompt_dropped=dropped)
        case "reconstruct":
            return sequences.edit("", ids[0])
        case "text":
            return sequences.tell(row.text)
        case "edit":
            return sequences.edit(row.text, ids[0], prompt_dropped=dropped)
        case "instruct" | "assess":
            return sequences.converse(_parts(row.turns, ids, num_blocks))


def longest(kind: Kind, row: Sayings, num_read: int, ids: Sequence[Sequence[int]], sequences: SequenceBuilder) -> int:
    """Ids of the longest sequence that any task makes of a row, each image in one block."""
    tasks = [task for task in TASKS if KIND_OF[task] == kind and (ids or task not in DRAWS)]
    return max(len(sequence_of(task, row, ids, sequences, [1] * num_read).input_ids) for task in tasks)


def _parts(
    turns: Sequence[Turn], ids: Sequence[Sequence[int]], num_blocks: Sequence[int]
) -> list[tuple[bool, list[Part]]]:
    drawn, read = iter(ids), iter(num_blocks)
    said = []
    for turn in turns:
        is_learned = turn.by == "model"
        first, *others = turn.text.split(IMAGE_MARK)
        parts: list[Part] = [first]
        for text in others:
            parts += [list(next(drawn)) if is_learned else next(read), text]
        said.append((is_learned, [part for part in parts if not isinstance(part, str) or part.strip()]))
    return said
