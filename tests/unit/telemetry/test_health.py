"""A process keeps its health in a file that the check of docker-compose.yml reads."""

from __future__ import annotations

import logging
import subprocess
import time
from pathlib import Path

import pytest

from illume_loop.telemetry.health import HealthFile
from tests.support.compose import BASE, compose

SERVICES = ("loop", "generator", "assessor", "trainer")


def _check(path: Path, service: str = "generator") -> subprocess.CompletedProcess[str]:
    """The health check of a service, as its container would run it: with a shell and no Python."""
    kind, script = compose(BASE)["services"][service]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    environment = {"ILLUME_RUNTIME__HEALTH_FILE": str(path), "PATH": "/usr/bin:/bin"}
    command = ["sh", "-c", script.replace("$$", "$")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("service", SERVICES)
def test_a_process_that_says_so_is_healthy(tmp_path: Path, service: str) -> None:
    HealthFile(str(tmp_path / "health")).tell("ok", "generator@a:1 waits for a unit", 30)
    checked = _check(tmp_path / "health", service)
    assert (checked.returncode, checked.stdout) == (0, "ok: generator@a:1 waits for a unit\n")


@pytest.mark.parametrize("state", ["starting", "unhealthy"])
def test_any_other_state_is_not_and_its_sentence_is_shown(tmp_path: Path, state: str) -> None:
    HealthFile(str(tmp_path / "health")).tell(state, "the database is away", 30)  # type: ignore[arg-type]
    checked = _check(tmp_path / "health")
    assert (checked.returncode, checked.stdout) == (1, f"{state}: the database is away\n")


def test_a_process_that_says_nothing_any_more_is_not(tmp_path: Path) -> None:
    HealthFile(str(tmp_path / "health"), clock=lambda: time.time() - 31).tell("ok", "all is well", 30)
    assert _check(tmp_path / "health").returncode == 1


@pytest.mark.parametrize("content", [None, "", "nonsense\n", "ok\n", "9999999999\n"])
def test_a_file_that_says_nothing_is_not(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "health").write_text(content)
    assert _check(tmp_path / "health").returncode == 1


def test_a_process_that_ended_is_not(tmp_path: Path) -> None:
    health = HealthFile(str(tmp_path / "health"))
    health.tell("ok", "all is well", 30)
    health.remove()
    assert _check(tmp_path / "health").returncode == 1
    health.remove()


def test_a_sentence_of_several_lines_stays_one(tmp_path: Path) -> None:
    HealthFile(str(tmp_path / "health"), clock=lambda: 100.0).tell("unhealthy", "it\nfailed $(id) `id`\n", 30)
    assert (tmp_path / "health").read_text() == "130 unhealthy it failed $(id) `id`\n"
    assert _check(tmp_path / "health").stdout == "unhealthy: it failed $(id) `id`\n"


def test_the_time_is_in_whole_seconds_never_rounded_up(tmp_path: Path) -> None:
    HealthFile(str(tmp_path / "health"), clock=lambda: 100.9).tell("ok", "all is well", 30)
    assert (tmp_path / "health").read_text() == "130 ok all is well\n"


def test_the_same_is_written_again_only_after_a_while(tmp_path: Path) -> None:
    now = [100.0]
    health = HealthFile(str(tmp_path / "health"), clock=lambda: now[0])
    health.tell("ok", "a", 40)
    (tmp_path / "health").unlink()
    now[0] = 109.0
    health.tell("ok", "a", 40)
    assert not (tmp_path / "health").exists()
    health.tell("ok", "b", 40)
    assert (tmp_path / "health").read_text() == "149 ok b\n"
    now[0] = 119.0
    health.tell("ok", "b", 40)
    assert (tmp_path / "health").read_text() == "159 ok b\n"


def test_a_file_that_cannot_be_written_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    health = HealthFile(str(tmp_path / "none" / "health"))
    with caplog.at_level(logging.WARNING):
        health.tell("ok", "a", 30)
        health.tell("ok", "b", 30)
    assert [record.getMessage().count(str(tmp_path / "none" / "health")) for record in caplog.records] == [1]


def test_without_a_path_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    health = HealthFile()
    health.tell("ok", "a", 30)
    health.remove()
    assert list(tmp_path.iterdir()) == []
