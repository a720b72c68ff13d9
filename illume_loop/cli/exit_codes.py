"""Turns the error of a command into one sentence on stderr and an exit code.

Exit codes: 0 done, 1 failed, 2 usage, 3 unhealthy, 4 conflict, 130 interrupted. The message of a known error
(IllumeLoopError) says what to do next. An unexpected error also gets one sentence; its traceback goes to a file in the
run directory, or in the temporary directory without a run, and to stderr only with --debug.

Invariants:
- Neither the sentence nor the traceback contains a password.
"""

from __future__ import annotations

import errno
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import typer
from typer.exceptions import TyperException

from illume_loop.cli.output import say
from illume_loop.cli.terminal import ReaderGone
from illume_loop.errors import (
    DatabaseAddressError,
    DatabaseUnusableError,
    IllumeLoopError,
    MissingExtraError,
    StorageFullError,
)
from illume_loop.redaction import redact

INTERRUPTED = 130
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_EXTRA_OF = {
    "psycopg": ("a Postgres database", "service"),
    "celery": ("the executor celery", "service"),
    "redis": ("the executor celery", "service"),
    "fastapi": ("the dashboard", "dashboard"),
    "uvicorn": ("the dashboard", "dashboard"),
}


@dataclass
class ErrorOptions:
    """The options by which the running command reports an error: `--debug`, and the directory for tracebacks."""

    debug: bool = False
    run_dir: Path | None = None


ERROR_OPTIONS = ErrorOptions()


def run_app(app: typer.Typer) -> int:
    """Run a Typer app and return the exit code."""
    code = _run_app(app)
    try:
        # Flush now, because nothing could report an error of the interpreter's own flush at exit.
        sys.stdout.flush()
    except ReaderGone:
        return code
    except OSError as error:
        return _report(error)
    return code


def _run_app(app: typer.Typer) -> int:
    try:
        result = app(standalone_mode=False)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except TyperException as error:
        _say(error.format_message().rstrip(".") + "." + _see_help(error))
        return error.exit_code
    except typer.Abort:
        return INTERRUPTED
    except Exception as error:
        return _report(error)
    return result if isinstance(result, int) else 0


def known_error(error: BaseException) -> IllumeLoopError | None:
    """Return the IllumeLoopError that an error is or was caused by; None if there is none.

    A full disk, an unreachable or damaged database, and a missing package of an extra count as such errors, too.
    """
    for link in _chain(error):
        if isinstance(link, IllumeLoopError):
            return link
        if isinstance(link, OSError) and link.errno in _NO_SPACE:
            return StorageFullError(path=link.filename or ERROR_OPTIONS.run_dir)
        if isinstance(link, ModuleNotFoundError) and link.name in _EXTRA_OF:
            feature, extra = _EXTRA_OF[link.name]
            return MissingExtraError(feature=feature, extra=extra)
    return _database_error(error)


def _database_error(error: BaseException) -> IllumeLoopError | None:
    from illume_db.errors import problem_of

    trouble = problem_of(error)
    if trouble is None:
        return None
    if trouble.kind == "full":
        return StorageFullError(path="the database")
    kind = DatabaseAddressError if trouble.kind == "address" else DatabaseUnusableError
    return kind(database=trouble.database or "of the run", reason=trouble.reason)


def _report(error: Exception) -> int:
    if ERROR_OPTIONS.debug:
        print(redact("".join(traceback.format_exception(error))), file=sys.stderr, end="")
    found = known_error(error)
    if found is not None:
        _say(str(found))
        return found.exit_code
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    _say(f"unexpected {type(error).__name__}: {reason} ({_where(error)})")
    return 1


def _where(error: Exception) -> str:
    if ERROR_OPTIONS.debug:
        return "traceback above"
    try:
        return f"traceback in {_write_traceback(error)}"
    except OSError:
        return "run again as `illume-loop --debug ...` for the traceback"


def _write_traceback(error: Exception) -> Path:
    directory = ERROR_OPTIONS.run_dir
    if directory is None or not (directory / "run.json").exists():
        directory = Path(tempfile.gettempdir())
    path = directory / f"error-{datetime.now(UTC):%Y%m%dT%H%M%S}.log"
    path.write_text(redact("".join(traceback.format_exception(error))), encoding="utf-8")
    return path


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _see_help(error: TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f" See `{context.command_path} --help`." if context is not None else ""


def _say(sentence: str) -> None:
    say(f"illume-loop: {redact(sentence)}", stderr=True)
