"""Output on any terminal: every encoding, closed streams, readers that have gone, full disks; by real processes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ILLUME_LOOP = Path(sys.executable).with_name("illume-loop")
MARK = "=====\n"
PRINT = f"""
from illume_loop.cli import terminal
terminal.ready()
from illume_loop.cli.output import hint, print_fields, print_json, print_table
data = {{"text": "größer → 日本 😀 \\udcff"}}
print_json(data)
print("{MARK.strip()}")
print_table("T\\u2013T", ("a → b",), [("größer …",)])
print("{MARK.strip()}")
print_fields(data)
hint("next → größer \\udcff")
"""


@cache
def _printed(encoding: str) -> tuple[bytes, bytes, bytes, bytes]:
    """JSON, a table, fields and a hint, as a process writes them in an encoding."""
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", PRINT], env=env, capture_output=True, check=True)
    as_json, table, fields = done.stdout.split(MARK.encode())
    return as_json, table, fields, done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "ascii:strict", "iso-8859-1", "cp1252", "shift_jis", "utf-8"])
def test_json_is_valid_and_lossless_in_every_encoding(encoding: str) -> None:
    """JSON is UTF-8, so elsewhere it is ASCII."""
    text = _printed(encoding)[0].decode("utf-8" if encoding == "utf-8" else "ascii")
    assert json.loads(text) == {"text": "größer → 日本 😀 \udcff"}
    assert ("größer" in text) == (encoding == "utf-8")


def test_what_an_encoding_lacks_is_shown_by_plain_characters_or_escaped() -> None:
    _, table, fields, hint = (part.decode("ascii") for part in _printed("ascii"))
    assert "T-T" in table
    assert "a -> b" in table
    assert "gr\\xf6\\xdfer ..." in table
    assert "-> \\u65e5\\u672c \\U0001f600 \\udcff" in fields
    assert hint == "next -> gr\\xf6\\xdfer \\udcff\n"


@pytest.mark.parametrize(
    ("encoding", "kept"), [("iso-8859-1", "größer"), ("cp1252", "größer …"), ("shift_jis", "日本")]
)
def test_what_an_encoding_has_is_kept(encoding: str, kept: str) -> None:
    text = b"".join(_printed(encoding)[1:]).decode(encoding)
    assert kept in text


def _run(redirection: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = f'"$0" "$@" {redirection}'
    return subprocess.run(["bash", "-c", command, ILLUME_LOOP, *args], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("redirection", "code", "err"),
    [
        ("| head -c 1 >/dev/null; exit ${PIPESTATUS[0]}", 0, ""),
        (">&-", 0, ""),
        (">&- 2>&-", 0, ""),
        (">/dev/full", 3, "No space left to write standard output"),
        ("2>/dev/full", 0, ""),
        ("2>&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
    ],
)
def test_a_stream_that_cannot_be_written_ends_no_command_in_a_traceback(redirection: str, code: int, err: str) -> None:
    done = _run(redirection, "--help")
    assert done.returncode == code
    assert err in done.stderr
    assert done.stderr.count("\n") <= 1


def test_a_reader_who_has_gone_before_anything_was_written_ends_it_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([ILLUME_LOOP, "--help"], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_error_is_told_by_its_code_when_nobody_reads_it() -> None:
    """Neither stderr nor stdout is there: the command still ends as it should."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([ILLUME_LOOP, "rounds", "nonsense"], stdout=write, stderr=write)
    os.close(write)
    assert done.returncode == 2


def test_a_closed_stream_gives_its_number_to_no_file() -> None:
    """A database opened as number 1 would be written into by whatever prints."""
    code = (
        "import os\nfrom illume_loop.cli import terminal\nterminal.ready()\n"
        "opened = os.open('/dev/null', os.O_RDONLY)\nos._exit(0 if opened > 2 else opened + 10)"
    )
    done = subprocess.run(["bash", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, code])
    assert done.returncode == 0


def _on_a_terminal(code: str, **more: str) -> str:
    """What a program shows on a terminal of its own."""
    ours, theirs = pty.openpty()
    env = {**os.environ, **more}
    process = subprocess.Popen([sys.executable, "-c", code], env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65_536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert process.wait() == 0, shown
    return shown.decode()


PROGRESS = """
from illume_loop.cli import terminal
terminal.ready()
from illume_loop.cli.progress import open_view
from illume_loop.cli.output import print_table
with open_view() as view:
    view.update("sampling", 3, 8)
    view.clear("round 1 promoted")
print_table("rounds", ("round", "reasons"), [("1", "heldout gain +6.0 [3.0, 9.0]")])
"""


def test_a_dumb_terminal_gets_lines_and_no_escapes() -> None:
    shown = _on_a_terminal(PROGRESS, TERM="dumb", NO_COLOR="1")
    assert "\x1b" not in shown
    assert "sampling: 3/8" in shown


@pytest.mark.parametrize(
    "more", [{"COLUMNS": "20"}, {"COLUMNS": "0"}, {"COLUMNS": "no"}, {"COLUMNS": "20", "NO_COLOR": "1"}]
)
def test_a_narrow_terminal_loses_no_words(more: dict[str, str]) -> None:
    shown = _on_a_terminal(PROGRESS, TERM="xterm", **more)
    assert "round 1 promoted" in shown
    for word in ("heldout", "+6.0", "9.0]"):
        assert word in shown


def test_colour_is_asked_for_in_a_pipe_and_progress_stays_lines() -> None:
    """FORCE_COLOR is set by services that keep logs."""
    env = {**os.environ, "FORCE_COLOR": "1"}
    done = subprocess.run([sys.executable, "-c", PROGRESS], env=env, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["sampling: 3/8", "round 1 promoted"]
