"""A line of JSON holds the ids at hand and no password; text stays what it was."""

from __future__ import annotations

import json
import logging
from typing import Any

from illume_loop.redaction import RedactingFormatter, learn_secret
from illume_loop.telemetry.logs import formatter, log_context


def _line(message: str, *arguments: object, **more: Any) -> dict[str, Any]:
    record = logging.LogRecord("illume_loop.loop", logging.WARNING, "file.py", 1, message, arguments, **more)
    line: dict[str, Any] = json.loads(formatter("json").format(record))
    return line


def test_a_line_carries_what_is_at_hand() -> None:
    with log_context(run="k", worker="w"), log_context(round=3, unit="sample/0"):
        line = _line("unit %s is done", "sample/0", exc_info=None)
    assert (line["run"], line["round"], line["unit"], line["worker"]) == ("k", 3, "sample/0", "w")
    assert (line["level"], line["logger"], line["message"]) == ("WARNING", "illume_loop.loop", "unit sample/0 is done")
    assert line["at"].endswith("+00:00")
    assert not {"run", "unit"} & _line("later", exc_info=None).keys()


def test_neither_message_nor_traceback_holds_a_password() -> None:
    learn_secret("hunter22-json")
    try:
        raise ValueError("hunter22-json")
    except ValueError as error:
        line = _line("at %s", "redis://:hunter22-json@host", exc_info=(ValueError, error, error.__traceback__))
    assert "hunter22-json" not in json.dumps(line)
    assert "ValueError: ***" in line["error"]


def test_text_is_the_default() -> None:
    assert isinstance(formatter("text"), RedactingFormatter)
