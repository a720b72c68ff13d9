"""A round is cancelled at any moment from another terminal, and run again; nothing of it is lost or done afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from illume_db.runs import events
from illume_db.tables import Prompt, Round, RoundPrompt, StageCount, TrainingCheckpoint, Unit
from illume_db.versions import models_table
from illume_loop.errors import NotFoundError, NotRetriableError, RoundFailedError, RoundOverError, UsageError
from illume_loop.loop.rounds import Cancelled, cancel, retry
from illume_loop.loop.run_directory import OpenRun, open_run
from tests.support.canned_run import Heard, result, small_settings, start, table
from tests.support.meanwhile import Meanwhile

STATES = ("sampling", "assessing", "training", "gating")


def _cancel(run: OpenRun) -> Cancelled:
    return cancel(run.session, run.run_id, 1, by="ann", reason="wrong prompts")


def _prompts(session: Session, index: int) -> list[str]:
    query = select(Prompt.text).join(RoundPrompt, RoundPrompt.prompt_id == Prompt.id)
    of_round = query.join(Round, Round.id == RoundPrompt.round_id).where(Round.index == index)
    return list(session.scalars(of_round.order_by(RoundPrompt.position)))


def _check_units(session: Session) -> None:
    """Nothing is in hand, and the counts are those of the units."""
    assert session.scalar(select(func.count()).where(Unit.state == "leased")) == 0
    query = select(Unit.round_id, Unit.kind, Unit.state, func.count()).group_by(Unit.round_id, Unit.kind, Unit.state)
    counted = {(id_, kind, state): num for id_, kind, state, num in session.execute(query)}
    for row in session.scalars(select(StageCount)):
        for state in ("pending", "leased", "done", "dead"):
            assert getattr(row, f"num_{state}") == counted.get((row.round_id, row.kind, state), 0)


@pytest.fixture(params=STATES)
def cancelled(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Meanwhile, Heard]:
    """A run of two rounds whose first one was cancelled in a stage, while a unit of it was being done."""
    meanwhile = Meanwhile(tmp_path / "run", request.param, _cancel)
    _, heard = start(small_settings(tmp_path / "base"), tmp_path / "run", meanwhile.toolbox())
    assert meanwhile.said == [Cancelled(1, 1, request.param, 1)]
    return tmp_path / "run", meanwhile, heard


def test_the_unit_in_hand_is_dropped_and_the_next_round_begins(cancelled: tuple[Path, Meanwhile, Heard]) -> None:
    run_dir, meanwhile, heard = cancelled
    first, second = table(run_dir)
    assert (first["state"], first["decision"], first["dead_units"]) == ("cancelled", None, 0)
    assert first["reasons"] == ["cancelled by ann: wrong prompts"]
    assert first["ended_at"] is not None
    assert (second["state"], second["parent"], second["retry_of"]) == ("promoted", "v0001", None)
    assert (1, "cancelled", ["cancelled by ann: wrong prompts"]) in heard.ended
    assert meanwhile.num_trained == (2 if meanwhile.state == "gating" else 1), "a training stops at its next step"
    with open_run(run_dir) as run:
        _check_units(run.session)
        versions = models_table(run.session, run.run_id)
        told = [event for event in events(run.session, run.run_id, limit=1000) if event["kind"] == "cancelled"]
        assert run.session.scalar(select(func.count()).where(TrainingCheckpoint.state == "kept")) == 0
    assert [row["state"] for row in versions].count("active") == 1
    assert [row["state"] for row in versions if row["round"] == 1] == ["rejected"] * (meanwhile.state == "gating")
    assert [(event["round"], event["message"]) for event in told] == [
        (1, f"round 1, {meanwhile.state}: cancelled by ann: wrong prompts")
    ]


def test_a_cancelled_round_is_run_again_with_its_prompts(
    cancelled: tuple[Path, Meanwhile, Heard], tmp_path: Path
) -> None:
    run_dir, _, _ = cancelled
    before = result(run_dir)
    with open_run(run_dir, writing=True) as run:
        assert retry(run.session, run.run_id, 1, by="ann", reason="prompts mended") == "cancelled"
        run.session.commit()
        with pytest.raises(NotRetriableError, match="asked for already"):
            retry(run.session, run.run_id, 1, by="ann")
    start(small_settings(tmp_path / "base"), run_dir)
    rows = table(run_dir)
    assert [row["state"] for row in rows] == ["cancelled", "promoted", "promoted"]
    assert [row["retry_of"] for row in rows] == [None, None, 1]
    assert result(run_dir)["rounds"][:2] == before["rounds"]
    with open_run(run_dir, writing=True) as run:
        assert _prompts(run.session, 3) == _prompts(run.session, 1)
        told = [event["message"] for event in events(run.session, run.run_id, limit=1000)]
        assert "round 1, cancelled: to be run again, as ann asked: prompts mended" in told
        assert any(
            line.startswith("round 3 planned") and "the prompts of round 1 again (cancelled)" in line for line in told
        )
        with pytest.raises(NotRetriableError, match="run again as round 3, which is promoted"):
            retry(run.session, run.run_id, 1, by="ann")
    start(small_settings(tmp_path / "base"), run_dir)
    assert len(table(run_dir)) == 3, "a round that is run again does not make another one"


def test_what_cannot_be_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    start(small_settings(tmp_path / "base", run__rounds=1), tmp_path / "run")
    before = result(tmp_path / "run")
    with open_run(tmp_path / "run", writing=True) as run:
        for refused, error, match in (
            (cancel, RoundOverError, r"Round 1 is over \(promoted\)"),
            (retry, NotRetriableError, "it was promoted, and only failed and cancelled"),
        ):
            with pytest.raises(error, match=match):
                refused(run.session, run.run_id, 1, by="ann")
            for index in (0, 2, -1, 10**9):
                with pytest.raises(NotFoundError, match=f"round '{index}'"):
                    refused(run.session, run.run_id, index, by="ann")
        run.session.commit()
    assert result(tmp_path / "run") == before


def _unfit(run: OpenRun) -> None:
    with pytest.raises(NotRetriableError, match=r"under way \(training\); cancel it first with `illume-loop rounds ca"):
        retry(run.session, run.run_id, 1, by="ann")
    for reason in ("two\nlines", "x" * 501):
        with pytest.raises(UsageError, match="one line of at most"):
            cancel(run.session, run.run_id, 1, by="ann", reason=reason)
        run.session.rollback()


def test_a_round_under_way_is_not_run_again_beside_itself(tmp_path: Path) -> None:
    settings = small_settings(tmp_path / "base", run__rounds=1)
    start(settings, tmp_path / "run", Meanwhile(tmp_path / "run", "training", _unfit).toolbox())
    assert [row["state"] for row in table(tmp_path / "run")] == ["promoted"]


def test_a_failed_round_is_run_again_and_so_is_the_one_that_did(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    settings = small_settings(tmp_path / "base", run__rounds=1, runtime__max_attempts=1)

    def broken(run: OpenRun) -> None:
        raise RuntimeError("no memory")

    with pytest.raises(RoundFailedError, match="illume-loop rounds retry 1"):
        start(settings, run_dir, Meanwhile(run_dir, "training", broken).toolbox())
    for index in (1, 2):
        with open_run(run_dir, writing=True) as run:
            assert retry(run.session, run.run_id, index, by="ann") == "failed"
            run.session.commit()
        if index == 1:
            with pytest.raises(RoundFailedError):
                start(settings, run_dir, Meanwhile(run_dir, "training", broken, index=2).toolbox())
            with (
                open_run(run_dir, writing=True) as run,
                pytest.raises(NotRetriableError, match=r"as round 2; use `illume-loop rounds retry 2`"),
            ):
                retry(run.session, run.run_id, 1, by="ann")
    start(settings, run_dir)
    rows = table(run_dir)
    assert [(row["state"], row["retry_of"]) for row in rows] == [("failed", None), ("failed", 1), ("promoted", 2)]
    with open_run(run_dir) as run:
        assert _prompts(run.session, 3) == _prompts(run.session, 1)


@pytest.mark.parametrize("state", STATES)
def test_rounds_that_overlap_are_cancelled_one_by_one(tmp_path: Path, state: str) -> None:
    """The earlier one is cancelled where both are under way, and the later one goes on; then it is run again."""
    run_dir, overlap = tmp_path / "run", {"run__rounds": 3, "loop__overlap_rounds": 1}
    later = Meanwhile(
        run_dir, state, lambda run: cancel(run.session, run.run_id, 1 if state == "sampling" else 2, by="ann"), index=2
    )
    start(small_settings(tmp_path / "base", **overlap), run_dir, later.toolbox())
    rows = table(run_dir)
    gone = 0 if state == "sampling" else 1
    assert [row["state"] for row in rows] == ["cancelled" if place == gone else "promoted" for place in range(3)]
    with open_run(run_dir, writing=True) as run:
        retry(run.session, run.run_id, gone + 1, by="ann")
        run.session.commit()
    start(small_settings(tmp_path / "base", **overlap), run_dir)
    with open_run(run_dir) as run:
        _check_units(run.session)
    assert [(row["state"], row["retry_of"]) for row in table(run_dir)][3:] == [("promoted", gone + 1)]
