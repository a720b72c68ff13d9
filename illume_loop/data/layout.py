"""The layout of a data row as a sequence of the unified vocabulary, by task.

    caption        a pair: the image, then its caption
    text-to-image  a pair: the caption, then the image's ids; the caption may be dropped
    reconstruct    a pair: the image, then its own ids; this initialises the vision rows (stage 1)
    text           a text alone
    instruct       a dialogue, with or without images
    assess         a dialogue that judges an image and may draw a corrected one; its layout is that of `instruct`
    edit           the source, the instruction and the target's ids; the instruction may be dropped

Tasks in WHOLE read an image as it is, and in slices if it is large. The other tasks read the square that the tokenizer
saw.
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
"""Tasks whose text may be dropped in training, as classifier-free guidance needs."""
WHOLE: frozenset[Task] = frozenset({"caption", "instruct", "assess"})
"""Tasks that read whole images, with slices of large ones. The other tasks read the tokenizer's squares."""


class RowText(Protocol):
    """The part of a row that its sequence is made of."""

    @property
    def text(self) -> str:
        """The caption, instruction or text."""
        ...

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The turns of a dialogue; empty for another kind of row."""
        ...


def sequence_of(
    task: Task,
    row: RowText,
    ids: Sequence[Sequence[int]],
    sequences: SequenceBuilder,
    num_blocks: Sequence[int],
    *,
    dropped: bool = False,
) -> Sequence1D:
    """Return the sequence of a row for a task.

    `ids` holds the ids of each image that the row draws. `num_blocks` holds the number of placeholder blocks of each
    image that it reads. `dropped` leaves the text out; only tasks in DROPS heed it.
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


def longest(kind: Kind, row: RowText, num_read: int, ids: Sequence[Sequence[int]], sequences: SequenceBuilder) -> int:
    """Return the number of ids of the longest sequence that any task makes of a row, with one block per image."""
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
