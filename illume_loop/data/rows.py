"""What a row of a source is, whichever file it comes from: a pair, an edit, a dialogue or a text.

Guarantee: a row either has all that its kind needs or is refused with a reason that can be counted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["pair", "edit", "dialogue", "text"]
KINDS: tuple[Kind, ...] = ("pair", "edit", "dialogue", "text")
Fields = Mapping[str, Any]

IMAGE_MARK = "<image>"
"""Where an image stands in the text of a turn, as in LLaVA's layout."""
ALSO_CALLED: Mapping[str, tuple[str, ...]] = {
    "image": ("image", "jpg", "jpeg", "png", "webp", "img", "image_bytes"),
    "caption": ("caption", "text", "txt", "prompt", "alt_text", "re_caption"),
    "source": ("source", "source_image", "source_img", "input_image", "original_image"),
    "target": ("target", "target_image", "target_img", "output_image", "edited_image"),
    "instruction": ("instruction", "edit_instruction", "edit_prompt", "edit"),
    "answer": ("answer", "output", "response"),
    "turns": ("conversations", "messages", "conversation"),
    "images": ("images",),
}
"""The names under which sources are known to hold each field, the first one found counts."""
_ASKS, _ANSWERS, _FRAMES = ("human", "user"), ("gpt", "assistant", "model"), "system"
_IDS_AS_TEXT = re.compile(r"<image_\d+>")
"""As `samples export` writes image ids: nothing says which tokenizer they are of."""


class BadRow(Exception):  # noqa: N818 - it is told of, and ends nothing
    """A row that cannot be used. `reason` is counted, `detail` says more of this one."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands: its file, its number in it from 0, and its name there where it has one."""

    file: str
    index: int
    key: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says; each IMAGE_MARK in `text` stands for the next image of a user to be read, or of the model to
    be drawn."""

    by: Literal["user", "model"]
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """A row with the encoded images that it reads and those that it draws, in the order of their marks.

    The image of a pair is both. `text` is the caption of a pair, the instruction of an edit, or the text itself.
    """

    kind: Kind
    place: Place
    text: str = ""
    turns: tuple[Turn, ...] = ()
    read: tuple[bytes, ...] = ()
    drawn: tuple[bytes, ...] = ()


def understood(place: Place, fields: Fields, names: Mapping[str, str]) -> Row:
    """The row that some fields are; `names` say which fields of the source are meant, before ALSO_CALLED is asked.

    Raises BadRow.
    """
    turns = _value(fields, names, "turns")
    if turns is None and isinstance(fields.get("prompt"), list) and isinstance(fields.get("completion"), list):
        turns = [*fields["prompt"], *fields["completion"]]  # TRL's layout
    if turns is not None:
        return _dialogue(place, turns, _images(fields, names))
    source, target = _value(fields, names, "source"), _value(fields, names, "target")
    instruction = _value(fields, names, "instruction")
    # Some collections of edits call the source just "image".
    source = _value(fields, names, "image") if source is None and target is not None else source
    if target is not None:
        told = _text(instruction, "no instruction")
        return Row("edit", place, told, read=(_image(source),), drawn=(_image(target),))
    images = _images(fields, names)
    if len(images) > 1:
        raise BadRow("unknown layout", f"{len(images)} images without turns that say where they stand")
    if images or _present(fields, names, "image"):
        image = images[0] if images else _image(None)
        return Row("pair", place, _text(_value(fields, names, "caption"), "no caption"), read=(image,), drawn=(image,))
    if (answer := _value(fields, names, "answer")) is not None:
        asked = " ".join(part for part in (instruction, fields.get("input")) if isinstance(part, str) and part.strip())
        said = (Turn("user", _text(asked, "no instruction")), Turn("model", _text(answer, "empty answer")))
        return Row("dialogue", place, turns=said)
    if (text := _value(fields, names, "caption")) is not None:
        return Row("text", place, _text(text, "empty text"))
    raise BadRow("unknown layout", f"it has the fields {', '.join(sorted(fields)) or '(none)'}")


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
    by, text = _side(item), item.get("value", item.get("content"))
    if by not in (*_ASKS, *_ANSWERS):
        raise BadRow("unknown layout", f"a turn is by {by!r}")
    if isinstance(text, list):
        text = " ".join(_content(part) for part in text)
    told = _text(text, "empty turn")
    if _IDS_AS_TEXT.search(told):
        raise BadRow("image ids as text", "give the image itself")
    return Turn("user" if by in _ASKS else "model", told)


def _side(item: Mapping[str, Any]) -> object:
    return item.get("from", item.get("role"))


def _content(part: object) -> str:
    """A part of a turn in the layout of TRL's and transformers' chat templates."""
    if not isinstance(part, Mapping) or part.get("type") not in ("image", "text"):
        raise BadRow("unknown layout", "a part of a turn is neither text nor an image")
    return IMAGE_MARK if part["type"] == "image" else str(part.get("text") or "")


def _images(fields: Fields, names: Mapping[str, str]) -> list[bytes]:
    found = _value(fields, names, "images")
    if found is None:
        found = _value(fields, names, "image")
    listed = found if isinstance(found, list) else [] if found is None else [found]
    return [_image(one) for one in listed]


def _image(value: object) -> bytes:
    """The bytes of an image: plain, or as `datasets` keeps them, beside a path."""
    found = value.get("bytes") if isinstance(value, Mapping) else value
    if not isinstance(found, bytes) or not found:
        raise BadRow("no image")
    return found


def _text(value: object, reason: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadRow(reason)
    return value.strip()


def _value(fields: Fields, names: Mapping[str, str], wanted: str) -> Any:
    """A field's value, None where it is missing or empty."""
    for name in _called(names, wanted):
        if fields.get(name) is not None:
            return fields[name]
    return None


def _present(fields: Fields, names: Mapping[str, str], wanted: str) -> bool:
    return any(name in fields for name in _called(names, wanted))


def _called(names: Mapping[str, str], wanted: str) -> tuple[str, ...]:
    return (names[wanted],) if wanted in names else ALSO_CALLED[wanted]
