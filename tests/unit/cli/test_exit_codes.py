"""Every error ends in one sentence on stderr and the right exit code."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import pytest
import typer

from illume_loop.cli import exit_codes
from illume_loop.errors import CorruptArtifactError, PromptOutsideGrammarError, RunExistsError, StorageFullError


@pytest.fixture(autouse=True)
def _fresh_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(exit_codes, "ERROR_OPTIONS", exit_codes.ErrorOptions(run_dir=tmp_path))
    monkeypatch.setattr("sys.argv", ["illume-loop"])


def _ends(error: BaseException | None) -> int:
    app = typer.Typer()

    @app.command()
    def command() -> None:
        if error is not None:
            raise error

    return exit_codes.run_app(app)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, 0),
        (typer.Exit(3), 3),
        (KeyboardInterrupt(), 130),
        (PromptOutsideGrammarError(text="x", hint="y"), 2),
        (CorruptArtifactError(path="x", expected="a", found="b"), 3),
        (OSError(errno.ENOSPC, "No space left on device", "/full/file"), 3),
        (sqlite3.OperationalError("database or disk is full"), 3),
        (sqlite3.DatabaseError("file is not a database"), 3),
        (sqlite3.IntegrityError("UNIQUE constraint failed"), 1),
        (RunExistsError(path="x"), 4),
        (ModuleNotFoundError("No module named 'celery'", name="celery"), 2),
        (ModuleNotFoundError("No module named 'celeriac'", name="celeriac"), 1),
        (ValueError("surprise"), 1),
    ],
)
def test_exit_codes(error: BaseException | None, code: int) -> None:
    assert _ends(error) == code


def test_a_known_error_is_its_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    _ends(RunExistsError(path="here"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"illume-loop: {RunExistsError(path='here')}\n"


def test_a_full_disk_is_told_wherever_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    error = RuntimeError("writing failed")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device", "/full/file")
    assert _ends(error) == 3
    assert str(StorageFullError(path="/full/file")) in capsys.readouterr().err


def test_an_unexpected_error_names_the_file_with_its_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "run.json").touch()
    assert _ends(ZeroDivisionError("division by zero\nand more")) == 1
    sentence = capsys.readouterr().err
    [log] = tmp_path.glob("error-*.log")
    assert sentence.count("\n") == 1
    assert "unexpected ZeroDivisionError: division by zero" in sentence
    assert str(log) in sentence
    assert "Traceback" in log.read_text(encoding="utf-8")


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    exit_codes.ERROR_OPTIONS.debug = True
    _ends(ZeroDivisionError("division by zero"))
    assert "Traceback" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_usage_error_is_one_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["illume-loop", "--nonsense"])
    assert _ends(None) == 2
    sentence = capsys.readouterr().err
    assert sentence.count("\n") == 1
    assert "No such option: --nonsense" in sentence
    assert "--help`." in sentence


def test_no_password_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither in the sentence nor in the traceback's file."""
    (tmp_path / "run.json").write_text("{}")
    assert _ends(RuntimeError("cannot reach redis://:hunter22@redis:6379/0")) == 1
    told = capsys.readouterr().err
    (written,) = tmp_path.glob("error-*.log")
    assert "redis://:***@redis:6379/0" in told
    assert "hunter22" not in told + written.read_text()
