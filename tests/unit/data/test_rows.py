"""Which row some fields are, in every layout that is known, and why others are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from webdataset.writer import TarWriter

from illume_loop.data.fields import BadRow
from illume_loop.data.readers import Piece, files_of, pieces_of, rows_of
from illume_loop.data.rows import Place, Row, Turn, understood

AT = Place("file", 0)
ASKED = {"from": "human", "value": "<image>\nwhat is it ?"}
SAID = {"from": "gpt", "value": "a circle"}


def _row(fields: dict[str, Any], **names: str) -> Row:
    return understood(AT, fields, names)


def test_pairs_are_known_by_the_names_that_collections_use() -> None:
    for image in ("image", "jpg", "png", "webp", "img"):
        for caption in ("caption", "text", "txt", "prompt"):
            row = _row({image: b"1", caption: " a circle "})
            assert (row.kind, row.text, row.read, row.drawn) == ("pair", "a circle", (b"1",), (b"1",))
    assert _row({"image": {"bytes": b"1", "path": None}, "caption": "x"}).read == (b"1",)
    assert _row({"picture": b"1", "caption": "no", "alt": "yes"}, image="picture", caption="alt").text == "yes"


def test_edits_are_known_by_a_target() -> None:
    for source, target, told in (
        ("source", "target", "instruction"),
        ("source_img", "target_img", "instruction"),
        ("original_image", "edited_image", "edit_prompt"),
        ("image", "edited_image", "edit_prompt"),
    ):
        row = _row({source: b"1", target: b"2", told: "make it red"})
        assert (row.kind, row.text, row.read, row.drawn) == ("edit", "make it red", (b"1",), (b"2",))


def test_dialogues_are_known_by_their_turns() -> None:
    turns = (Turn("user", "<image>\nwhat is it ?"), Turn("model", "a circle"))
    assert _row({"image": b"1", "conversations": [ASKED, SAID]}) == Row("dialogue", AT, turns=turns, read=(b"1",))
    in_roles = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}]
    row = _row({"messages": [*in_roles, {"role": "assistant", "content": "hello"}]})
    assert row.turns == (Turn("user", "hello"), Turn("model", "hello"))
    asked = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it ?"}]}
    said = {"role": "assistant", "content": [{"type": "text", "text": "a circle"}]}
    row = _row({"images": [{"bytes": b"1", "path": "1.png"}], "prompt": [asked], "completion": [said]})
    assert (row.turns[0].text, row.read) == ("<image> what is it ?", (b"1",))
    row = _row({"instruction": "add", "input": "1 and 2", "output": "3"})
    assert row.turns == (Turn("user", "add 1 and 2"), Turn("model", "3"))


def test_images_of_the_models_turns_are_drawn() -> None:
    drawn = {"from": "gpt", "value": "no, it shows a square <image>"}
    row = _row({"images": [b"1", b"2"], "conversations": [ASKED, drawn]})
    assert (row.kind, row.read, row.drawn) == ("dialogue", (b"1",), (b"2",))
    row = _row({"images": [b"1", b"2"], "conversations": [ASKED, {"from": "gpt", "value": "<image>"}]})
    assert (row.kind, row.text, row.read, row.drawn) == ("edit", "what is it ?", (b"1",), (b"2",))


def test_images_to_draw_may_be_given_by_their_ids_if_the_row_names_their_tokenizer() -> None:
    judged = {"from": "gpt", "value": "no, it shows a square"}
    turns = [
        ASKED,
        judged,
        {"from": "human", "value": "make it a circle"},
        {"from": "gpt", "value": "<image_7><image_0>"},
    ]
    row = _row({"images": [b"1"], "conversations": turns, "tokenizer": "abc"})
    assert (row.kind, row.read, row.drawn, row.tokenizer) == ("dialogue", (b"1",), ((7, 0),), "abc")
    assert [turn.text for turn in row.turns[2:]] == ["make it a circle", "<image>"]
    both = {"from": "gpt", "value": "<image> or <image_3>"}
    row = _row({"images": [b"1", b"2"], "conversations": [ASKED, both], "tokenizer": "abc"})
    assert (row.drawn, row.turns[1].text) == ((b"2", (3,)), "<image> or <image>")
    edited = {"from": "gpt", "value": "<image_7>"}
    row = _row({"image": b"1", "conversations": [ASKED, edited], "tokenizer": "abc"})
    assert (row.kind, row.text, row.drawn, row.tokenizer) == ("edit", "what is it ?", ((7,),), "abc")
    with pytest.raises(BadRow, match="image ids as text"):
        _row({"conversations": [{"from": "human", "value": "<image_7> is it ?"}, SAID], "tokenizer": "abc"})


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"image": b"1"}, "no caption"),
        ({"image": b"", "caption": "x"}, "no image"),
        ({"image": None, "caption": "x"}, "no image"),
        ({"source": b"1", "target": b"2"}, "no instruction"),
        ({"target": b"2", "instruction": "x"}, "no image"),
        ({"images": [b"1", b"2"], "caption": "x"}, "unknown layout"),
        ({"text": ""}, "empty text"),
        ({"audio": b"1"}, "unknown layout"),
        ({"conversations": [ASKED, SAID]}, "images and marks differ"),
        ({"image": b"1", "conversations": [SAID, ASKED]}, "unknown layout"),
        ({"image": b"1", "conversations": [ASKED]}, "unknown layout"),
        ({"image": b"1", "conversations": [ASKED, {"from": "gpt", "value": ""}]}, "empty turn"),
        ({"image": b"1", "conversations": [ASKED, {"from": "bot", "value": "x"}]}, "unknown layout"),
        ({"image": b"1", "conversations": [ASKED, {"from": "gpt", "value": "<image_7>"}]}, "image ids as text"),
        ({"conversations": "hello"}, "unknown layout"),
    ],
)
def test_what_is_no_row_has_a_reason(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRow) as caught:
        _row(fields)
    assert caught.value.reason == reason


def test_a_tar_names_its_images_and_a_damaged_one_tells_where_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "edits.tar"
    with TarWriter(str(path), encoder=False) as tar:
        for number in range(3):
            told = {"source.jpg": b"1" * 2000, "target.png": b"2" * 2000, "instruction.txt": b"make it red"}
            tar.write({"__key__": f"a/{number}", **told})
    found = list(rows_of(Piece(str(path), 0, None)))
    assert [place.key for place, _ in found] == ["a/0", "a/1", "a/2"]
    assert all(not isinstance(fields, BadRow) and _row(dict(fields)).kind == "edit" for _, fields in found)
    with TarWriter(str(tmp_path / "json.tar"), encoder=False) as tar:
        tar.write({"__key__": "list", "json": b"[1]"})
        tar.write({"__key__": "broken", "json": b"{"})
        tar.write({"__key__": "text", "txt": "\xe9".encode("latin-1")})
    problems = [problem for _, problem in rows_of(Piece(str(tmp_path / "json.tar"), 0, None))]
    assert [p.reason for p in problems if isinstance(p, BadRow)] == ["unknown layout", "not JSON", "not UTF-8"]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    *_, (place, problem) = list(rows_of(Piece(str(path), 0, None)))
    assert isinstance(problem, BadRow)
    assert (problem.reason, place.index) == ("damaged file", 1)


def test_files_are_cut_into_pieces_that_cover_them(sources: dict[str, Path], tmp_path: Path) -> None:
    folder = next(iter(sources.values())).parent
    assert files_of(folder) == sorted(sources.values())
    lines = sources["llava.jsonl"]
    pieces = pieces_of(lines, 4)
    assert [(piece.first, piece.stop) for piece in pieces] == [(0, 4), (4, 8), (8, 11)]
    whole = [place.index for place, _ in rows_of(Piece(str(lines), 0, None))]
    assert [place.index for piece in pieces for place, _ in rows_of(piece)] == whole == list(range(11))
    (tmp_path / "llava.json").write_text(json.dumps([{"text": str(number)} for number in range(5)]))
    cut = pieces_of(tmp_path / "llava.json", 2)
    assert [fields for piece in cut for _, fields in rows_of(piece)] == [{"text": str(n)} for n in range(5)]
