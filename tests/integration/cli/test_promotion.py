"""Promoting and rolling back by hand: one version is active, the event log says who did it, the next round uses it."""

from __future__ import annotations

from pathlib import Path

import pytest

from illume_db.rounds_table import rounds_table
from illume_db.runs import events
from illume_db.versions import models_table
from illume_loop.cli import models
from illume_loop.errors import NotFoundError, PromotionError, UsageError
from illume_loop.judge.reviews import reviewer_name
from illume_loop.loop.promotion import rollback
from illume_loop.loop.run_directory import open_run
from tests.support.canned_run import small_settings, start


def _states(run_dir: Path) -> dict[str, str]:
    with open_run(run_dir) as run:
        return {row["name"]: row["state"] for row in models_table(run.session, run.run_id)}


@pytest.fixture
def rejected(tmp_path: Path) -> Path:
    """A run of one round whose candidate the gate rejected."""
    start(small_settings(tmp_path / "base", run__rounds=1, gate__min_gain=0.99), tmp_path / "run")
    assert _states(tmp_path / "run") == {"v0001": "active", "v0002": "rejected"}
    return tmp_path / "run"


def test_a_person_overrules_the_gate_and_takes_it_back(
    rejected: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models.promote("v0002", run_dir=rejected, yes=True)
    assert capsys.readouterr().out == "v0002 is now active (before: v0001)\n"
    assert _states(rejected) == {"v0001": "retired", "v0002": "active"}
    settings = small_settings(tmp_path / "base", run__rounds=2, gate__min_gain=0.99)
    start(settings, rejected)
    with open_run(rejected) as run:
        assert rounds_table(run.session, run.run_id)[1]["drawn_by"] == "v0002"
        told = [event["message"] for event in events(run.session, run.run_id) if event["kind"] == "promoted"]
    assert told == [f"{reviewer_name(None)} promoted v0002"]
    models.rollback(run_dir=rejected, yes=True)
    states = _states(rejected)
    assert (states["v0001"], states["v0002"]) == ("active", "retired")


def test_what_cannot_be_is_refused_and_changes_nothing(rejected: Path) -> None:
    before = _states(rejected)
    with pytest.raises(UsageError, match="--yes"):
        models.promote("v0002", run_dir=rejected)
    with pytest.raises(NotFoundError, match="v0009"):
        models.promote("v0009", run_dir=rejected, yes=True)
    with pytest.raises(PromotionError, match="active already"):
        models.promote("v0001", run_dir=rejected, yes=True)
    with pytest.raises(PromotionError, match="v0001 is the base"):
        models.rollback(run_dir=rejected, yes=True)
    with open_run(rejected, writing=True) as run, pytest.raises(PromotionError, match="v0001 is active by now"):
        rollback(run.session, run.run_id, by="ann", expected="v0002")
    assert _states(rejected) == before
