"""The format of log lines: a sentence, or one JSON object with the current run, round and unit."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from illume_loop.redaction import RedactingFormatter, redact

PLAIN = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_LOG_CONTEXT: ContextVar[dict[str, object]] = ContextVar("log_context", default={})  # noqa: B039 - it is never changed


@contextmanager
def log_context(**ids: object) -> Iterator[None]:
    """Add these ids (run, round, unit, worker) to the lines logged within the block, besides those around it."""
    token = _LOG_CONTEXT.set(_LOG_CONTEXT.get() | ids)
    try:
        yield
    finally:
        _LOG_CONTEXT.reset(token)


class JsonFormatter(logging.Formatter):
    """A formatter of lines of JSON: at, level, logger, message, the current ids, and a traceback as `error`.

    The lines contain no password.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the finished line."""
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": redact(record.getMessage()),
            **_LOG_CONTEXT.get(),
        }
        if record.exc_info:
            line["error"] = redact(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)


def formatter(log_format: str) -> logging.Formatter:
    """Return the formatter that `runtime.log_format` names."""
    return JsonFormatter() if log_format == "json" else RedactingFormatter(PLAIN)
