"""Which field of a row is its image, its caption, its dialogue: by what it holds, then by its name."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from PIL import Image

from illume_loop.data.fields import BadRow
from illume_loop.data.rows import Place, Row, understood
from tests.support.sources import encoded

PNG = encoded(Image.new("RGB", (4, 4), "red"))
OTHER = encoded(Image.new("RGB", (4, 4), "blue"))
FILES = {"0.jpg": b"file", "a/b": b"plain"}
ASKED = [{"from": "human", "value": "<image>\nwhat is it ?"}, {"from": "gpt", "value": "a circle"}]


def _read(name: str) -> bytes:
    if name not in FILES:
        raise BadRow("image not found", name)
    return FILES[name]


def _row(fields: dict[str, Any], **names: str) -> Row:
    return understood(Place("file", 0), {"caption": "a circle"} | fields, names, _read)


@pytest.mark.parametrize(
    "fields",
    [
        {"image": {"bytes": PNG, "path": None}, "image_url": "https://example.org/0.jpg"},
        {"image": {"bytes": PNG, "path": "x.jpg"}, "image_name": "000000.jpg", "source": "laion", "target": "a dog"},
        {"image_name": "0.jpg", "jpg": PNG},
        {"image": "https://example.org/0.jpg", "img": {"bytes": PNG, "path": None}},
        {"image": "000000.jpg", "picture": {"bytes": PNG, "path": None}},
        {"photo": PNG, "image_url": "https://example.org/0.jpg"},
        {"image": [{"bytes": PNG, "path": None}]},
        {"images": [[{"bytes": PNG, "path": None}]]},
        {"images": [PNG], "image": None},
        {"image": {"bytes": PNG, "path": None, "height": 4}},
        {"Image": PNG},
        {"image": bytearray(PNG)},
        {"image": "data:image/png;base64," + base64.b64encode(PNG).decode()},
        {"image": base64.b64encode(PNG).decode()},
        {"image": PNG, "mask": OTHER},
        {"audio": {"bytes": b"RIFX", "path": "a.wav"}, "picture": PNG},
    ],
)
def test_the_image_is_the_field_that_holds_one(fields: dict[str, Any]) -> None:
    row = _row(fields)
    assert (row.kind, row.text, row.read) == ("pair", "a circle", (PNG,))


@pytest.mark.parametrize(
    "fields",
    [
        {"image": "0.jpg", "mask": OTHER},
        {"image": {"bytes": None, "path": "0.jpg"}},
        {"file_name": "0.jpg"},
        {"image_name": "0.jpg", "source": "coco"},
        {"image": "", "image_path": "0.jpg"},
        {"image": "0.jpg", "image_url": "https://example.org/0.jpg"},
    ],
)
def test_else_it_is_the_file_that_a_field_names(fields: dict[str, Any]) -> None:
    assert _row(fields).read == (b"file",)


def test_a_path_needs_no_ending_where_the_field_is_the_images() -> None:
    assert _row({"image": "a/b"}).read == (b"plain",)
    assert _row({"picture": "a/b"}, image="picture").read == (b"plain",)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"image": None, "mask": OTHER}, "no image"),
        ({"image": {"bytes": None, "path": None}}, "no image"),
        ({"image": {"bytes": b"", "path": ""}}, "no image"),
        ({"image": [None]}, "no image"),
        ({"image": [[1, 2], [3, 4]]}, "no image"),
        ({"image": 7}, "no image"),
        ({"image": "lost.jpg"}, "image not found"),
        ({"image": "https://example.org/0.jpg"}, "image is a URL"),
        ({"url": "https://example.org/0.jpg?width=9"}, "image is a URL"),
        ({"jpg_0": PNG, "jpg_1": OTHER}, "unknown layout"),
        ({"image": "data:image/png;base64,A"}, "unreadable image"),
        ({"image": PNG, "caption": 5}, "no caption"),
        ({"image": PNG, "caption": ["", None]}, "no caption"),
        ({"image": PNG, "caption": {"en": "a circle"}}, "no caption"),
        ({"image": PNG, "caption": b"\xff\xfe\xfd"}, "not UTF-8"),
        ({"image": PNG, "caption": "a" * 1_000_001}, "too long"),
        ({"image": PNG, "caption": BadRow("not UTF-8", "")}, "not UTF-8"),
        ({"image": BadRow("unreadable value", "")}, "unreadable value"),
    ],
)
def test_what_holds_none_has_a_reason(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRow) as caught:
        _row(fields)
    assert caught.value.reason == reason


@pytest.mark.parametrize("fields", [{"url": "https://example.org/page"}, {"path": "src/main.py"}, {"source": "c4"}])
def test_a_text_beside_other_names_stays_a_text(fields: dict[str, Any]) -> None:
    assert _row(fields).kind == "text"


def test_captions_are_the_first_text_there_is() -> None:
    assert _row({"image": PNG, "caption": None, "text": "a square"}).text == "a square"
    assert _row({"image": PNG, "caption": " ", "prompt": "a square"}).text == "a square"
    assert _row({"image": PNG, "caption": ["a square", "a ring"]}).text == "a square"
    assert _row({"image": PNG, "caption": b"a square"}).text == "a square"
    assert _row({"image": PNG, "TEXT": "not this", "caption": "a \ud800"}).text == "a \ufffd"
    assert understood(Place("file", 0), {"jpg": PNG, "TEXT": "a square"}, {}).text == "a square"


def test_dialogues_are_read_whatever_parquet_adds() -> None:
    unified = [turn | {"role": None, "content": None} for turn in ASKED]
    assert _row({"image": PNG, "conversations": unified, "text": "x"}).turns[1].text == "a circle"
    text = '[{"from": "human", "value": "is it red ?"}, {"from": "gpt", "value": "no"}]'
    assert _row({"image": None, "conversations": text}).kind == "dialogue"
    assert _row({"image": "", "conversations": text}).kind == "dialogue"
    assert _row({"image": PNG, "conversations": []}).kind == "pair"


def test_an_edit_takes_its_source_from_no_unknown_field() -> None:
    fields = {"target": PNG, "instruction": "make it red"}
    with pytest.raises(BadRow, match="no image"):
        _row(fields)
    row = _row(fields | {"source_image": {"bytes": None, "path": "0.jpg"}})
    assert (row.kind, row.read, row.drawn) == ("edit", (b"file",), (PNG,))
