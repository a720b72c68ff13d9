"""What people decide about model versions while a round is under way, and how a run without an active version heals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from illume_db.runs import events
from illume_db.versions import models_table, promote_version
from illume_loop.errors import NoActiveVersionError, UnderTrialError
from illume_loop.loop.promotion import promote, repair, rollback
from illume_loop.loop.run_directory import OpenRun, open_run
from tests.support.canned_run import small_settings, start, table
from tests.support.meanwhile import Meanwhile

REJECTS = {"gate__min_gain": 0.99}


def _states(run_dir: Path) -> dict[str, str]:
    with open_run(run_dir) as run:
        return {row["name"]: row["state"] for row in models_table(run.session, run.run_id)}


def _event_messages(run_dir: Path) -> list[str]:
    with open_run(run_dir) as run:
        return [event["message"] for event in events(run.session, run.run_id)]


def _without_active(run: OpenRun) -> None:
    """Leave the run as an older release could: nothing in the schema keeps the last active version from retiring."""
    run.session.execute(text("UPDATE model_versions SET state = 'retired' WHERE state = 'active'"))
    run.session.commit()


def _refused(run: OpenRun) -> str:
    assert [row["under_trial"] for row in models_table(run.session, run.run_id)] == [False, True]
    with pytest.raises(UnderTrialError) as refusal:
        promote(run.session, run.run_id, "v0002", by="ann")
    run.session.rollback()
    for change in (
        "UPDATE model_versions SET state = 'active' WHERE number = 2",
        "UPDATE model_versions SET state = 'rejected' WHERE number = 2",
        "UPDATE model_versions SET state = 'retired' WHERE number = 2",
        "UPDATE model_versions SET state = 'rejected' WHERE number = 1",
        "DELETE FROM model_versions WHERE number = 2",
        "DELETE FROM model_versions WHERE number = 1",
    ):
        with pytest.raises(DBAPIError, match=r"versions_|uq_model_versions_one_active|UNIQUE"):
            run.session.execute(text(change))
        run.session.rollback()
    return str(refusal.value)


@pytest.mark.parametrize("rejects", [True, False])
def test_a_version_under_trial_is_the_gates_alone(tmp_path: Path, rejects: bool) -> None:
    meanwhile = Meanwhile(tmp_path / "run", "gating", _refused)
    settings = small_settings(tmp_path / "base", run__rounds=1, **(REJECTS if rejects else {}))
    start(settings, tmp_path / "run", meanwhile.toolbox())
    assert meanwhile.said == [
        "v0002 cannot be changed by hand: it is under trial in round 1. Wait for the gate's decision, or end the trial "
        "with `illume-loop rounds cancel 1`."
    ]
    expected = {"v0001": "active", "v0002": "rejected"} if rejects else {"v0001": "retired", "v0002": "active"}
    assert _states(tmp_path / "run") == expected
    other = "v0002" if rejects else "v0001"
    with open_run(tmp_path / "run", writing=True) as run:
        promote(run.session, run.run_id, other, by="ann")
        run.session.commit()
    assert _states(tmp_path / "run")[other] == "active"


def _roll_back(run: OpenRun) -> object:
    return rollback(run.session, run.run_id, by="ann")


def _promote_first(run: OpenRun) -> object:
    return promote(run.session, run.run_id, "v0001", by="ann")


@pytest.mark.parametrize(
    ("act", "what"), [(_roll_back, "ann rolled back from v0002 to v0001"), (_promote_first, "ann promoted v0001")]
)
@pytest.mark.parametrize("auto_promote", [True, False])
def test_a_gate_that_passes_leaves_what_a_person_made_active(
    tmp_path: Path, act: Any, what: str, auto_promote: bool
) -> None:
    run_dir, base = tmp_path / "run", tmp_path / "base"
    start(small_settings(base, run__rounds=1), run_dir)
    if not auto_promote:
        # Settings of a run do not change, so this one is made as it would be with the gate's own promotion.
        base, run_dir = tmp_path / "other-base", tmp_path / "other-run"
        start(small_settings(base, run__rounds=1, gate__auto_promote=False), run_dir)
        with open_run(run_dir, writing=True) as run:
            promote(run.session, run.run_id, "v0002", by="ann")
            run.session.commit()
    settings = small_settings(base, run__rounds=2, gate__auto_promote=auto_promote)
    start(settings, run_dir, Meanwhile(run_dir, "gating", act, index=2).toolbox())
    row = table(run_dir)[1]
    assert (row["state"], row["parent"], row["candidate"]) == ("rejected", "v0002", "v0003")
    reason = row["reasons"][-1]
    assert reason == (
        f"the gate accepts v0003, but {what} while the round was under way, so v0001 stays active; "
        "`illume-loop models promote v0003` makes v0003 active"
    )
    assert f"round 2: {reason}" in _event_messages(run_dir)
    assert _states(run_dir) == {"v0001": "active", "v0002": "retired", "v0003": "candidate"}
    with open_run(run_dir, writing=True) as run:
        assert promote(run.session, run.run_id, "v0003", by="ann") == "v0001"
        run.session.commit()
    assert _states(run_dir) == {"v0001": "retired", "v0002": "retired", "v0003": "active"}


def test_a_gate_that_rejects_leaves_what_a_person_made_active(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    start(small_settings(tmp_path / "base", run__rounds=1, **REJECTS), run_dir)
    settings = small_settings(tmp_path / "base", run__rounds=2, **REJECTS)
    start(
        settings,
        run_dir,
        Meanwhile(run_dir, "gating", lambda run: promote(run.session, run.run_id, "v0002", by="ann"), 2).toolbox(),
    )
    assert _states(run_dir) == {"v0001": "retired", "v0002": "active", "v0003": "rejected"}


def _promote_as_before(run: OpenRun) -> None:
    for name in ("versions_under_trial_stay", "versions_move_as_allowed"):
        run.session.execute(text(f"DROP TRIGGER {name}"))
    promote_version(run.session, run.run_id, 2)


@pytest.mark.parametrize("rejects", [True, False])
def test_a_candidate_that_an_older_release_let_be_promoted_stays_active(tmp_path: Path, rejects: bool) -> None:
    settings = small_settings(tmp_path / "base", run__rounds=1, **(REJECTS if rejects else {}))
    start(settings, tmp_path / "run", Meanwhile(tmp_path / "run", "gating", _promote_as_before).toolbox())
    row = table(tmp_path / "run")[0]
    assert row["state"] == ("rejected" if rejects else "promoted")
    assert row["reasons"][-1] == "v0002 was decided on by hand during its trial and stays active"
    assert _states(tmp_path / "run") == {"v0001": "retired", "v0002": "active"}


def test_a_run_without_an_active_version_is_repaired_by_the_next_start(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    start(small_settings(tmp_path / "base", run__rounds=1, **REJECTS), run_dir)
    with open_run(run_dir, writing=True) as run:
        _without_active(run)
        with pytest.raises(NoActiveVersionError, match="doctor --repair"):
            rollback(run.session, run.run_id, by="ann")
    with open_run(run_dir) as run, pytest.raises(NoActiveVersionError):
        run.checkpoint()
    start(small_settings(tmp_path / "base", run__rounds=2, **REJECTS), run_dir)
    assert [row["parent"] for row in table(run_dir)] == ["v0001", "v0001"]
    message = "repaired: no version was active, v0001 (the base of the run) is active again"
    assert message in _event_messages(run_dir)
    with open_run(run_dir, writing=True) as run:
        assert repair(run.session, run.run_id) is None


def test_the_repair_takes_the_parent_of_the_latest_round_and_a_person_may_choose_instead(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    start(small_settings(tmp_path / "base"), run_dir)
    for chosen in (None, "v0001"):
        with open_run(run_dir, writing=True) as run:
            _without_active(run)
            if chosen is None:
                said = repair(run.session, run.run_id)
                assert said == "repaired: no version was active, v0002 (the parent of round 2) is active again"
            else:
                assert promote(run.session, run.run_id, chosen, by="ann") == "(none)"
            run.session.commit()
        assert _states(run_dir)[chosen or "v0002"] == "active"
        assert list(_states(run_dir).values()).count("active") == 1
