"""Tables are not cut in a pipe, JSON is strict, markup in data is shown as it is."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from illume_loop.cli.output import console, hint, print_fields, print_json, print_table, say
from illume_loop.cli.progress import Bars, bars, open_view


def test_a_table_in_a_pipe_keeps_every_word(capsys: pytest.CaptureFixture[str]) -> None:
    reason = "heldout gain +6.0 [3.0, 9.0] and everything else within its margin"
    print_table("rounds", ("round", "reasons"), [("1", reason), ("2", None)])
    out = capsys.readouterr().out
    assert reason in out
    assert "-" in out.splitlines()[-2] + out.splitlines()[-1]


def test_json_refuses_what_is_no_json() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        print_json({"mean": float("nan")})


def test_json_keeps_letters(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"text": "größer"})
    out = capsys.readouterr().out
    assert "größer" in out
    assert json.loads(out) == {"text": "größer"}


def test_fields_are_nested_and_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields({"name": "[bold]x[/bold]", "inner": {"a": None, "b": [1, 2]}, "rows": [{"c": 3}]})
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["name", "[bold]x[/bold]"],
        ["inner"],
        ["a", "-"],
        ["b", "1,", "2"],
        ["rows"],
        ["-", "c", "3"],
    ]


NAMES = (
    "[/x]",
    "[red]hot[/red]",
    "color [new]",
    r"\[x]",
    "\\[",
    "[",
    ":smile: :cat:",
    "[link=https://example.org]x[/link]",
)


@pytest.mark.parametrize("name", NAMES)
def test_names_are_shown_as_they_are(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_table(name, ("name", name), [(name, None)])
    print_fields({name: name, "inner": {name: [name]}, "rows": [{"a": name}]})
    say(name)
    console().print(name)
    assert capsys.readouterr().out.count(name) == 10
    hint(name)
    with open_view() as view:
        view.update(name, 1, 2, note=name)
        view.clear(name)
    assert capsys.readouterr().err.count(name) == 4


@pytest.mark.parametrize("name", NAMES)
def test_bars_show_names_as_they_are(name: str) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=200, color_system=None)
    with bars(terminal) as progress:
        view = Bars(progress)
        view.update(name, 1, 2, note=name)
        progress.refresh()
        view.clear(name)
    assert isinstance(terminal.file, io.StringIO)
    first = terminal.file.getvalue()
    assert first.count(name) >= 3


HOSTILE = "a\x1b[31mred\x1b]0;title\x07\x9b2J\rb\x7f\u202etxt"
VISIBLE = "a\\x1b[31mred\\x1b]0;title\\x07\\x9b2J\\x0db\\x7f\\u202etxt"


def test_control_characters_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(HOSTILE, (HOSTILE,), [(HOSTILE,)])
    print_fields({HOSTILE: HOSTILE})
    say(HOSTILE)
    hint(HOSTILE)
    print_json({HOSTILE: HOSTILE, "letters": "gr\u00f6\u00dfer"})
    out, err = capsys.readouterr()
    table_and_fields, _, told = out.partition("{\n")
    assert table_and_fields.count(VISIBLE) == 6
    assert err == VISIBLE + "\n"
    assert json.loads("{" + told) == {HOSTILE: HOSTILE, "letters": "gr\u00f6\u00dfer"}
    assert "gr\u00f6\u00dfer" in told
    assert all(letter.isprintable() or letter == "\n" for letter in out + err)
