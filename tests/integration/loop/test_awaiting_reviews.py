"""A round waits for the reviews that it was told to wait for, and its manifest follows what people said."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from sqlalchemy import select

from illume_db.reviews import NewReview, put_review
from illume_db.samples import samples_page
from illume_db.sessions import open_engine, transaction
from illume_db.tables import Example, Round
from illume_loop.loop.run_directory import open_run
from tests.support.canned_run import Heard, small_settings, start

PATIENCE_S = 60


def _state(run_dir: Path) -> str | None:
    if not (run_dir / "loop.sqlite").exists() or not (run_dir / "run.json").exists():
        return None
    engine = open_engine(f"sqlite:///{run_dir / 'loop.sqlite'}", read_only=True)
    with engine.connect() as connection:
        found = connection.scalar(select(Round.state).order_by(Round.index.desc()).limit(1))
    engine.dispose()
    return found


def test_a_round_waits_and_then_leaves_out_what_people_found_wrong(tmp_path: Path) -> None:
    settings = small_settings(tmp_path / "base", run__rounds=1, curate__reviews=2, curate__drop_lowest=0.0)
    heard: list[Heard] = []
    loop = threading.Thread(target=lambda: heard.append(start(settings, tmp_path / "run")[1]), daemon=True)
    loop.start()
    deadline = time.monotonic() + PATIENCE_S
    while _state(tmp_path / "run") != "curating":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with open_run(tmp_path / "run") as run:
        rows = samples_page(run.session, run.run_id, limit=1000)
    best = max(rows, key=lambda row: row["score"])
    worst = min(rows, key=lambda row: row["score"])
    engine = open_engine(f"sqlite:///{tmp_path / 'run' / 'loop.sqlite'}")
    for row, verdict in ((best, "disagree"), (worst, "agree")):
        assert _state(tmp_path / "run") == "curating"
        with transaction(engine) as session:
            put_review(session, row["id"], NewReview("ann", verdict), replace=False)
    loop.join(PATIENCE_S)
    assert not loop.is_alive()
    with transaction(engine) as session:
        learned = set(session.scalars(select(Example.sample_id)))
    engine.dispose()
    assert best["id"] not in learned
    assert worst["id"] in learned
    waits = [(event.done, event.total) for event in heard[0].stages if event.stage == "waiting for reviews"]
    assert waits[0] == (0, 2)
