"""`rounds cancel`, `rounds retry` and `doctor` as people use them: what they print, and their exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from sqlalchemy import text

from illume_db.migrate import downgrade
from illume_db.sessions import open_engine
from illume_loop.errors import RoundFailedError
from illume_loop.loop.run_directory import stored_settings
from illume_loop.settings import load_settings
from tests.support.canned_run import small_settings, start
from tests.support.meanwhile import Meanwhile
from tests.support.plugged import plugged
from tests.support.process import Ended, run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose first round failed and whose second one ended well."""
    folder = tmp_path_factory.mktemp("orders")
    settings = small_settings(folder / "base", runtime__max_attempts=1)

    def broken(_: object) -> None:
        raise RuntimeError("no memory")

    with pytest.raises(RoundFailedError):
        start(settings, folder / "run", Meanwhile(folder / "run", "training", broken).toolbox())
    start(settings, folder / "run")
    return folder / "run"


@pytest.fixture
def run_dir(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def _told(run_dir: Path, *words: object) -> Ended:
    ended = run(*words, "--run-dir", run_dir, cwd=run_dir.parent, **plugged())
    assert "AssertionError" not in ended.err
    assert "unexpected" not in ended.err
    return ended


def _change(run_dir: Path, *statements: str) -> None:
    engine = open_engine(f"sqlite:///{run_dir / 'loop.sqlite'}")
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("cancel", "1"), 4, "Round 1 is over (failed)"),
        (("cancel", "2"), 4, "Round 2 is over (promoted)"),
        (("cancel", "9"), 2, "There is no round '9'"),
        (("cancel", "0"), 2, "There is no round '0'"),
        (("cancel", "one"), 2, "valid integer"),
        (("cancel",), 2, "Missing argument"),
        (("retry", "2"), 4, "it was promoted"),
        (("retry", "9"), 2, "There is no round '9'"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_its_code(
    run_dir: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    ended = _told(run_dir, "rounds", *words)
    assert (ended.code, ended.out) == (code, "")
    assert len(ended.sentences) == 1
    assert said in ended.sentences[0]


def test_a_failed_round_is_run_again_by_the_next_start(run_dir: Path) -> None:
    unwell = _told(run_dir, "doctor")
    assert unwell.code == 0
    assert f"run it again with `illume-loop rounds retry 1 --run-dir {run_dir}`" in unwell.out.replace("\n", " ")
    ended = _told(run_dir, "rounds", "retry", "1", "--json")
    assert ended.code == 0
    assert json.loads(ended.out) | {"by": ""} == {"round": 1, "state": "failed", "retry": "waiting", "by": ""}
    assert _told(run_dir, "rounds", "retry", "1").code == 4
    assert "rounds retry 1" not in _told(run_dir, "doctor").out
    assert _told(run_dir, "start").code == 0
    rows = json.loads(_told(run_dir, "rounds", "ls", "--json").out)
    assert [(row["state"], row["retry_of"]) for row in rows] == [("failed", None), ("promoted", None), ("promoted", 1)]


def test_a_round_is_cancelled_where_nothing_runs(run_dir: Path) -> None:
    """As after a Ctrl-C: the round is under way, and no process works on it."""
    assert _told(run_dir, "rounds", "retry", "1").code == 0
    planned = _interrupted(run_dir)
    ended = _told(run_dir, "rounds", "cancel", str(planned))
    assert ended.code == 0
    assert ended.out.startswith(f"round {planned} is cancelled (it was ")
    assert _told(run_dir, "start").code == 0
    rows = json.loads(_told(run_dir, "rounds", "ls", "--json").out)
    assert [row["state"] for row in rows] == ["failed", "promoted", "cancelled"]


def _interrupted(run_dir: Path) -> int:
    """Leave the run in the middle of its next round; the round's number."""

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    index = 3
    settings = load_settings(stored=stored_settings(run_dir), environ={})
    with pytest.raises(KeyboardInterrupt):
        start(settings, run_dir, Meanwhile(run_dir, "sampling", interrupt, index).toolbox())
    return index


def test_a_healthy_run_is_told_so(run_dir: Path) -> None:
    ended = _told(run_dir, "doctor", "--json")
    found = json.loads(ended.out)
    assert (ended.code, found["ok"], found["repaired"]) == (0, True, None)
    states = {check["name"]: check["state"] for check in found["checks"]}
    assert states["schema"] == states["active version"] == states["checkpoint of the active version"] == "ok"


BRICKED = ("UPDATE model_versions SET state = 'retired' WHERE state = 'active'",)


def test_a_run_without_an_active_version_is_told_and_repaired(run_dir: Path) -> None:
    _change(run_dir, *BRICKED)
    ended = _told(run_dir, "doctor")
    assert ended.code == 3
    assert f"illume-loop doctor --repair --run-dir {run_dir}" in ended.out
    assert _told(run_dir, "models", "rollback", "--yes").code == 3
    assert _told(run_dir, "sample", "a red circle", "-o", run_dir.parent / "drawn").code == 3
    repaired = _told(run_dir, "doctor", "--repair")
    assert repaired.code == 0
    assert "repaired: no version was active" in repaired.out
    assert _told(run_dir, "doctor").code == 0
    assert "repaired" not in _told(run_dir, "doctor", "--repair").out


def test_a_start_repairs_a_run_without_an_active_version(run_dir: Path) -> None:
    _change(run_dir, *BRICKED)
    assert _told(run_dir, "start").code == 0
    assert [row["state"] for row in json.loads(_told(run_dir, "models", "ls", "--json").out)].count("active") == 1


def test_a_person_repairs_a_run_by_promoting(run_dir: Path) -> None:
    _change(run_dir, *BRICKED)
    assert _told(run_dir, "models", "promote", "v0001", "--yes").code == 0
    assert _told(run_dir, "doctor").code == 0


def test_a_damaged_checkpoint_is_told(run_dir: Path) -> None:
    for config in (run_dir / "checkpoints").rglob("config.json"):
        config.write_text("{}")
    ended = _told(run_dir, "doctor", "--json")
    assert ended.code == 3
    [bad] = [check for check in json.loads(ended.out)["checks"] if check["state"] == "bad"]
    assert "is damaged" in bad["found"]
    assert "restore the files from a copy" in bad["todo"]


def test_a_database_of_an_older_release_is_told(run_dir: Path) -> None:
    downgrade(f"sqlite:///{run_dir / 'loop.sqlite'}", "0009")
    ended = _told(run_dir, "doctor")
    assert ended.code == 3
    assert f"run `illume-loop db upgrade --run-dir {run_dir}`" in ended.out
    assert _told(run_dir, "db", "upgrade").code == 0
    assert _told(run_dir, "doctor").code == 0


def test_a_database_that_is_gone_is_told_and_not_made_anew(run_dir: Path) -> None:
    for path in run_dir.glob("loop.sqlite*"):
        path.unlink()
    ended = _told(run_dir, "doctor", "--json")
    assert ended.code == 3
    assert [check["state"] for check in json.loads(ended.out)["checks"]] == ["bad"]
    assert not (run_dir / "loop.sqlite").exists()


def test_where_there_is_no_run_there_is_nothing_to_check(tmp_path: Path) -> None:
    for words in (("doctor",), ("rounds", "cancel", "1"), ("rounds", "retry", "1")):
        ended = run(*words, "--run-dir", tmp_path / "nowhere", cwd=tmp_path)
        assert (ended.code, len(ended.sentences)) == (2, 1)
