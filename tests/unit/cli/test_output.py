"""Tables are not cut in a pipe, JSON is strict, markup in data is shown as it is."""

from __future__ import annotations

import json

import pytest

from illume_loop.cli.output import print_fields, print_json, print_table


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
