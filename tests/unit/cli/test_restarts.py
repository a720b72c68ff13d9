"""A container whose settings cannot be used stays up, says why, and restarts with backoff."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

from illume_loop.cli.restarts import HEALTH_FILE, NUM_RESTARTS, backoff_s, restart_with_backoff
from illume_loop.errors import (
    DatabaseOutdatedError,
    IllumeLoopError,
    RoundFailedError,
    SettingsChangedError,
    SettingsError,
)


class Restarted(BaseException):
    """The process would have restarted here."""


def _restart() -> NoReturn:
    raise Restarted


@pytest.fixture
def health(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(HEALTH_FILE, str(tmp_path / "health"))
    monkeypatch.setenv(NUM_RESTARTS, "0")
    return tmp_path / "health"


def _raise(error: IllumeLoopError, slept: list[float]) -> None:
    with restart_with_backoff(slept.append, _restart):
        raise error


CANNOT_HEAL = [
    SettingsError(reason="store.database_url must be a URL"),
    SettingsChangedError(path="/data/run", names="train.epochs"),
    DatabaseOutdatedError(found="0009", expected="0011"),
]


@pytest.mark.parametrize("error", CANNOT_HEAL)
def test_it_waits_ever_longer_and_its_health_says_why(health: Path, error: IllumeLoopError) -> None:
    slept: list[float] = []
    for _ in range(3):
        with pytest.raises(Restarted):
            _raise(error, slept)
    assert slept == [10.0, 20.0, 40.0]
    _, state, sentence = health.read_text().strip().split(" ", 2)
    assert (state, sentence) == ("unhealthy", " ".join(str(error).split()))


def test_pauses_have_a_bound() -> None:
    assert [backoff_s(count) for count in (0, 4, 5, 99)] == [10, 160, 300, 300]


def test_a_failed_round_ends_the_process(health: Path) -> None:
    """The next start goes on with the next round."""
    with pytest.raises(RoundFailedError):
        _raise(RoundFailedError(index=1, reason="all units are dead."), [])
    assert not health.exists()


@pytest.mark.parametrize("error", CANNOT_HEAL)
def test_on_a_terminal_each_error_ends_the_command(monkeypatch: pytest.MonkeyPatch, error: IllumeLoopError) -> None:
    monkeypatch.delenv(HEALTH_FILE, raising=False)
    slept: list[float] = []
    with pytest.raises(type(error)):
        _raise(error, slept)
    assert slept == []


def test_no_secret_is_in_the_sentence(health: Path) -> None:
    reason = "could not connect to postgresql://illume:hunter22@db/illume"
    with pytest.raises(Restarted):
        _raise(SettingsError(reason=reason), [])
    assert "hunter22" not in health.read_text()
    assert os.environ[NUM_RESTARTS] == "1"
