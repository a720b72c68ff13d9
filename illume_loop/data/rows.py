"""The four kinds of rows, whatever file they come from: pair, edit, dialogue and text.

Invariants:
- A row has everything that its kind needs, or it is refused with a reason that can be counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from illume_loop.data.fields import BadRow, Fields, ReadImage, RowFields, no_files, text_of

Kind = Literal["pair", "edit", "dialogue", "text"]
KINDS: tuple[Kind, ...] = ("pair", "edit", "dialogue", "text")

IMAGE_MARK = "<image>"
"""The place of an image in the text of a turn, as in LLaVA's layout."""
_ASKS, _ANSWERS, _FRAMES = ("human", "user"), ("gpt", "assistant", "model"), "system"
Ids = tuple[int, ...]
"""The codebook ids of an image, (L,)."""
_MARKS = re.compile(rf"{IMAGE_MARK}|(?:<image_\d+>)+")
"""An image in the text of a turn: its mark, or its ids as `samples export` writes them, one `<image_N>` for each."""
_ID = re.compile(r"<image_(\d+)>")


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a row: its file, its number in the file from 0, and its name there if it has one."""

    file: str
    index: int
    key: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a dialogue.

    Each IMAGE_MARK in `text` stands for the next image: one to read in a user's turn, one to draw in the model's.
    """

    by: Literal["user", "model"]
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """A row with the encoded images that it reads and that it draws, in the order of their marks.

    The image of a pair is in both. `text` is the caption of a pair, the instruction of an edit, or the text itself. An
    image to draw may be given by its ids instead; `tokenizer` is then the digest of the tokenizer that made them.
    """

    kind: Kind
    place: Place
    text: str = ""
    turns: tuple[Turn, ...] = ()
    read: tuple[bytes, ...] = ()
    drawn: tuple[bytes | Ids, ...] = ()
    tokenizer: str = ""


def understood(place: Place, fields: Fields, names: Mapping[str, str], read: ReadImage = no_files) -> Row:
    """Return the row that the fields describe. Raises BadRow.

    `names` maps a meaning to the source's own name of the field and overrides ALSO_CALLED. `read` returns an image
    that is named by path.
    """
    meant = RowFields(fields, names, read)
    turns = meant.value("turns")
    if _is_list(fields.get("prompt")) and _is_list(fields.get("completion")) and not turns:
        turns = [*fields["prompt"], *fields["completion"]]  # TRL's layout
    if turns:
        return _dialogue(place, _listed_turns(turns), meant.images(), fields.get("tokenizer"))
    target = meant.picture("target")
    if target is not None:
        return _edit(place, meant, target)
    images = meant.images()
    if len(images) > 1:
        raise BadRow("unknown layout", f"{len(images)} images without turns that say where they stand")
    if images or meant.has("image"):
        told, image = meant.text("caption", "no caption"), images[0] if images else meant.image(None)
        return Row("pair", place, told, read=(image,), drawn=(image,))
    if meant.value("answer") is not None:
        asked = " ".join(
            part for part in (meant.value("instruction"), fields.get("input")) if isinstance(part, str) and part.strip()
        )
        said = (Turn("user", text_of(asked, "no instruction")), Turn("model", meant.text("answer", "empty answer")))
        return Row("dialogue", place, turns=said)
    if meant.has("caption") and meant.value("caption") is not None:
        return Row("text", place, meant.text("caption", "empty text"))
    raise BadRow("unknown layout", f"it has the fields {', '.join(sorted(map(str, fields))) or '(none)'}")


def _edit(place: Place, meant: RowFields, target: bytes) -> Row:
    told = meant.text("instruction", "no instruction")
    # Some collections of edits name the source just "image".
    source = meant.picture("source") or meant.image(meant.value("image"))
    return Row("edit", place, told, read=(source,), drawn=(target,))


def _is_list(value: object) -> bool:
    return isinstance(value, list) and bool(value)


def _listed_turns(turns: object) -> object:
    """Return the turns of a dialogue; parse them if the collection keeps them as JSON text. Raises BadRow."""
    if not isinstance(turns, str):
        return turns
    try:
        return json.loads(turns)
    except ValueError:
        raise BadRow("unknown layout", "its turns are no list") from None


def _dialogue(place: Place, said: object, images: Sequence[bytes], tokenizer: object) -> Row:
    if not isinstance(said, Sequence) or isinstance(said, str | bytes) or not said:
        raise BadRow("unknown layout", "its turns are no list")
    turns = tuple(_turn(item) for item in said if not (isinstance(item, Mapping) and _side(item) == _FRAMES))
    if not turns or [turn.by for turn in turns] != ["user", "model"] * (len(turns) // 2):
        raise BadRow("unknown layout", "its turns are not the user's and the model's by turns")
    marks = [(turn.by, mark) for turn in turns for mark in _MARKS.findall(turn.text)]
    num_images = sum(mark == IMAGE_MARK for _, mark in marks)
    if num_images != len(images):
        raise BadRow("images and marks differ", f"{len(images)} images, {num_images} times {IMAGE_MARK}")
    made_by = _tokenizer_of_ids(marks, tokenizer)
    turns = tuple(replace(turn, text=_MARKS.sub(IMAGE_MARK, turn.text)) for turn in turns)
    left = iter(images)
    read: list[bytes] = []
    drawn: list[bytes | Ids] = []
    for by, mark in marks:
        if mark != IMAGE_MARK:
            drawn.append(tuple(map(int, _ID.findall(mark))))
        elif by == "user":
            read.append(next(left))
        else:
            drawn.append(next(left))
    is_edit = len(turns) == 2 and [by for by, _ in marks] == ["user", "model"] and turns[1].text == IMAGE_MARK
    if is_edit and (told := turns[0].text.replace(IMAGE_MARK, " ").strip()):
        return Row("edit", place, told, read=tuple(read), drawn=tuple(drawn), tokenizer=made_by)
    return Row("dialogue", place, turns=turns, read=tuple(read), drawn=tuple(drawn), tokenizer=made_by)


def _tokenizer_of_ids(marks: Sequence[tuple[str, str]], tokenizer: object) -> str:
    """Return the tokenizer of the ids that stand in a dialogue as text; empty if there are none. Raises BadRow."""
    of_ids = [by for by, mark in marks if mark != IMAGE_MARK]
    if not of_ids:
        return ""
    if "user" in of_ids:
        raise BadRow("image ids as text", "a model reads pixels: give the image itself in the user's turn")
    if not isinstance(tokenizer, str) or not tokenizer:
        raise BadRow("image ids as text", "the field `tokenizer` does not say what made them; give the image itself")
    return tokenizer


def _turn(item: object) -> Turn:
    if not isinstance(item, Mapping):
        raise BadRow("unknown layout", "a turn is no object")
    by = _side(item)
    # Parquet gives every turn the keys of all turns, with null for the missing ones.
    text = next((item[key] for key in ("value", "content") if item.get(key) is not None), None)
    if by not in (*_ASKS, *_ANSWERS):
        raise BadRow("unknown layout", f"a turn is by {by!r}")
    if isinstance(text, list):
        text = " ".join(_content(part) for part in text)
    return Turn("user" if by in _ASKS else "model", text_of(text, "empty turn"))


def _side(item: Mapping[str, Any]) -> object:
    return next((item[key] for key in ("from", "role") if item.get(key) is not None), None)


def _content(part: object) -> str:
    """Return the text of one part of a turn, in the layout of TRL's and transformers' chat templates."""
    if not isinstance(part, Mapping) or part.get("type") not in ("image", "text"):
        raise BadRow("unknown layout", "a part of a turn is neither text nor an image")
    return IMAGE_MARK if part["type"] == "image" else str(part.get("text") or "")
