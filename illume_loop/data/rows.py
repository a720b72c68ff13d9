"""The four kinds of rows, whatever file they come from: pair, edit, dialogue and text.

Invariants:
- A row has everything that its kind needs, or it is refused with a reason that can be counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from illume_loop.data.fields import BadRow, Fields, ReadImage, RowFields, no_files, text_of

Kind = Literal["pair", "edit", "dialogue", "text"]
KINDS: tuple[Kind, ...] = ("pair", "edit", "dialogue", "text")

IMAGE_MARK = "<image>"
"""The place of an image in the text of a turn, as in LLaVA's layout."""
_ASKS, _ANSWERS, _FRAMES = ("human", "user"), ("gpt", "assistant", "model"), "system"
_IDS_AS_TEXT = re.compile(r"<image_\d+>")
"""Image ids as `samples export` writes them. They are refused, because nothing says which tokenizer made them."""


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

    The image of a pair is in both. `text` is the caption of a pair, the instruction of an edit, or the text itself.
    """

    kind: Kind
    place: Place
    text: str = ""
    turns: tuple[Turn, ...] = ()
    read: tuple[bytes, ...] = ()
    drawn: tuple[bytes, ...] = ()


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
        return _dialogue(place, _listed_turns(turns), meant.images())
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


def _dialogue(place: Place, said: object, images: Sequence[bytes]) -> Row:
    if not isinstance(said, Sequence) or isinstance(said, str | bytes) or not said:
        raise BadRow("unknown layout", "its turns are no list")
    turns = tuple(_turn(item) for item in said if not (isinstance(item, Mapping) and _side(item) == _FRAMES))
    if not turns or [turn.by for turn in turns] != ["user", "model"] * (len(turns) // 2):
        raise BadRow("unknown layout", "its turns are not the user's and the model's by turns")
    marks = [turn.by for turn in turns for _ in range(turn.text.count(IMAGE_MARK))]
    if len(marks) != len(images):
        raise BadRow("images and marks differ", f"{len(images)} images, {len(marks)} times {IMAGE_MARK}")
    edit = len(turns) == 2 and marks == ["user", "model"] and turns[1].text == IMAGE_MARK
    sides = {side: tuple(i for by, i in zip(marks, images, strict=True) if by == side) for side in ("user", "model")}
    if edit and (told := turns[0].text.replace(IMAGE_MARK, " ").strip()):
        return Row("edit", place, told, read=sides["user"], drawn=sides["model"])
    return Row("dialogue", place, turns=turns, read=sides["user"], drawn=sides["model"])


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
    told = text_of(text, "empty turn")
    if _IDS_AS_TEXT.search(told):
        raise BadRow("image ids as text", "give the image itself")
    return Turn("user" if by in _ASKS else "model", told)


def _side(item: Mapping[str, Any]) -> object:
    return next((item[key] for key in ("from", "role") if item.get(key) is not None), None)


def _content(part: object) -> str:
    """Return the text of one part of a turn, in the layout of TRL's and transformers' chat templates."""
    if not isinstance(part, Mapping) or part.get("type") not in ("image", "text"):
        raise BadRow("unknown layout", "a part of a turn is neither text nor an image")
    return IMAGE_MARK if part["type"] == "image" else str(part.get("text") or "")
