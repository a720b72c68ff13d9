"""Files of prompts are told apart, read whole or refused, and a refusal names the file and the line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from illume_loop.domains.text.detecting import detected
from illume_loop.domains.text.formats import FORMATS, Source, read_prompts
from illume_loop.errors import PromptFileError

METADATA = {"tag": "counting", "include": [{"class": "clock", "count": 2}], "exclude": [{"class": "clock", "count": 3}]}


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def _read(path: Path) -> list[tuple[str, str]]:
    return [(prompt.text, prompt.category) for _, prompt in read_prompts(Source(path, detected(path)))]


def test_every_format_is_told_apart_and_read(tmp_path: Path) -> None:
    geneval = _write(tmp_path / "m.jsonl", json.dumps({**METADATA, "prompt": "a photo of two clocks"}) + "\n")
    compbench = _write(tmp_path / "numeracy_train.txt", "four trucks\r\n\r\n  two  cups \r\n")
    parti = _write(
        tmp_path / "p.tsv", 'Prompt\tCategory\tChallenge\tNote\nbond\tAbstract\tBasic\t\na "sign"\tArts\tX\n'
    )
    text = _write(tmp_path / "mine.txt", "\ufeffa cat\u2028on a mat\na dog")
    lines = _write(
        tmp_path / "l.jsonl", '{"prompt": "a cow", "category": "Farm", "split": "probe"}\n{"prompt": "a hen"}'
    )
    _write(tmp_path / "dpg" / "prompts" / "COCOval2014000000014635.txt", "A woman.\nA table.")
    _write(tmp_path / "dpg" / "prompts" / "116.txt", "Eight cabbages.")
    folder = tmp_path / "dpg"

    found = {detected(path): _read(path) for path in (geneval, compbench, parti, text, lines, folder)}

    assert set(found) == set(FORMATS) - {"csv", "tsv", "json", "yaml", "parquet"}
    assert found["geneval"] == [("a photo of two clocks", "counting")]
    assert found["t2i-compbench"] == [("four trucks", "numeracy"), ("two cups", "numeracy")]
    assert found["partiprompts"] == [("bond", "abstract"), ('a "sign"', "arts")]
    assert found["text"] == [("a cat on a mat", "mine"), ("a dog", "mine")], "a line ends where people see it end"
    assert found["jsonl"] == [("a cow", "farm"), ("a hen", "l")]
    assert found["dpg"] == [("Eight cabbages.", "dpg"), ("A woman. A table.", "cocoval")]
    ((_, prompt),) = read_prompts(Source(geneval, "geneval"))
    assert prompt.spec == METADATA
    assert [split for split, _ in read_prompts(Source(lines, "jsonl"))] == ["probe", None]
    assert [p.category for _, p in read_prompts(Source(folder, "dpg", "long"))] == ["long", "long"]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.txt", "", "a.txt: it holds no prompt"),
        ("a.txt", "fine\n\x07\n", "line 2: the prompt holds a character that cannot be printed"),
        ("a.jsonl", '{"prompt": "x"}\n{"prompt": ""}\n{}\n', "line 2: the prompt is empty (and 1 more bad lines)"),
        ("a.jsonl", '{"prompt": "x"}\n{"prompt": 3}\n', "line 2: 'prompt' must be a text"),
        ("a.jsonl", '{"prompt": "x"}\n["y"]\n', "line 2: it is no JSON object"),
        ("a.jsonl", '{"prompt": "x", "spec": {}, "colour": "red"}\n', "line 1: unknown key 'colour'"),
        ("a.jsonl", '{"prompt": "x", "splt": "train"}\n', "line 1: unknown key 'splt'; did you mean 'split'?"),
        ("a.jsonl", '{"prompt": "x", "split": "test"}\n', "line 1: 'split' must be one of train, heldout, probe"),
        ("a.jsonl", '{"prompt": "x", "spec": {"include": [{"class": "", "count": 1}]}}', "line 1: include.0.class"),
        (
            "a.jsonl",
            '{"prompt": "x", "spec": {"include": [{"class": "dog", "position": ["above", 0]}]}}',
            "the position of 'dog' is relative to no earlier thing",
        ),
        (
            "a.jsonl",
            '{"prompt": "x", "spec": {"questions": [{"criterion": "mood", "question": "Is it sad?"}]}}',
            "it is none of object, count, color, attribute, position",
        ),
        ("a.jsonl", '{"tag": "counting", "include": [], "prompt": "x"\n', "line 1: it is no JSON"),
        ("a.jsonl", '{"tag": "counting", "include": [], "prompt": "x", "extra": 1}', "line 1: unknown key 'extra'"),
        ("a.tsv", "Prompt\tCategory\na\tb\tc\n", "line 2: it has 3 columns and the header has 2"),
        ("a.tsv", "Prompt\tCategory\na\n", "line 2: the category must have 1 to 64 characters"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, name: str, text: str, told: str) -> None:
    path = _write(tmp_path / name, text)
    with pytest.raises(PromptFileError) as caught:
        _read(path)
    assert told in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_text_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"fine\nna\xefve\n")
    with pytest.raises(PromptFileError, match=r"a\.txt, line 2: it is not UTF-8 text"):
        _read(path)
    with pytest.raises(PromptFileError, match="No such file"):
        _read(tmp_path / "absent.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PromptFileError, match=r"there is no \.txt file in it"):
        _read(tmp_path / "empty")
