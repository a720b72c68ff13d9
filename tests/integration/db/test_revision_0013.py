"""Trials of decodes go down as nothing; the evaluations that were there before them survive, up, down and up again."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Engine, text

from illume_db.evaluations import NewItem, add_evaluation, decode_trials, find_evaluation
from illume_db.migrate import downgrade, drift, upgrade
from illume_db.runs import add_run
from illume_db.sessions import open_engine, transaction
from illume_db.versions import add_version

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SETTING = {"guidance_scale": 1.25, "temperature": 1.0, "top_k": 0, "top_p": 1.0}


def _suites(engine: Engine) -> tuple[list[str], int]:
    """The suites of all evaluations, and how many items they have."""
    with engine.connect() as connection:
        suites = connection.scalars(text("SELECT suite FROM evaluations ORDER BY id")).all()
        items = connection.scalar(text("SELECT count(*) FROM evaluation_items"))
    return list(suites), items or 0


def test_trials_of_decodes_go_down_as_nothing(empty_url: str) -> None:
    upgrade(empty_url)
    engine = open_engine(empty_url)
    with transaction(engine) as session:
        run = add_run(session, key="k" * 32, name="r", seed=0, settings={}, at=NOW)
        version = add_version(
            session, run.id, parent_id=None, state="active", sha256="0" * 64, num_bytes=1, origin="o", at=NOW
        )
        for suite, num_items in (("heldout", 2), ("decode", 0), ("best-of", 8)):
            add_evaluation(
                session,
                version.id,
                suite=suite,
                plan_sha256="0" * 64,
                value=0.5,
                num_items=8,
                items=[NewItem(True)] * num_items,
                at=NOW,
                decode=SETTING,
            )
        run_id, version_id = run.id, version.id
    with transaction(engine) as session:
        assert [trial.decode for trial in decode_trials(session, run_id)[version_id]] == [SETTING]
    assert _suites(engine) == (["heldout", "decode", "best-of"], 10)
    for step in (lambda url: downgrade(url, "0012"), upgrade):
        engine.dispose()
        step(empty_url)
        assert _suites(engine) == (["heldout"], 2)
    with transaction(engine) as session:
        assert decode_trials(session, run_id) == {}
        found = find_evaluation(session, version_id, "heldout", "0" * 64)
        assert found is not None
        assert found.passed == [True, True]
    engine.dispose()
    assert drift(empty_url) == []
