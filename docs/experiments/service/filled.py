"""A run whose database holds as many samples as are asked for, made by the loop's own planning and by bulk inserts.

Everything but the bulk of rows comes from the code that is measured: the run, its rounds, prompts and units are planned
by it. Samples, assessments and the ends of units and rounds are then written by SQL, as their units would have.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from illume_db.sessions import transaction
from illume_db.tables import Round
from illume_db.types import pack_image_ids
from illume_loop.loop.context import RunContext, default_toolbox
from illume_loop.loop.moves import move
from illume_loop.loop.opening import check_start, open_context
from illume_loop.loop.prompts import with_domain
from illume_loop.loop.run_directory import RunDirectory, locked
from illume_loop.loop.stages import plan
from illume_loop.loop.stages.plan import plan_round, round_prompts
from illume_loop.loop.states import RoundState
from illume_loop.settings import Settings, load_settings
from tests.support.noop_model import TOKENS, save_noop

SHIPPED = (384, 8, 256)
"""Prompts, samples of each and batch of the shipped configuration: rounds of 3,072 samples."""

SAMPLES = """
INSERT INTO samples
    (round_id, prompt_id, sample_index, seed, model_version_id, image_ids, image_sha256, created_at, staleness)
SELECT p.round_id, p.prompt_id, i, (random() * 9e18)::bigint, r.drawing_version_id, :ids,
       md5(random()::text) || md5(random()::text), clock_timestamp(), 0
FROM round_prompts p JOIN rounds r ON r.id = p.round_id, generate_series(0, :last) i
WHERE p.round_id = :round AND p.position * (:last + 1) + i < :stop
ORDER BY p.position, i
"""
ASSESSMENTS = """
INSERT INTO assessments (sample_id, assessor, model_version_id, state, score, failed_criteria)
SELECT s.id, a.assessor, CASE a.assessor WHEN 'self' THEN s.model_version_id END, 'ok', random(), '[]'
FROM samples s, (VALUES ('checker'), ('self')) a (assessor) WHERE s.round_id = :round
"""
UNITS = """
UPDATE units SET state = 'done', fencing_token = 1, items_done = items_total, seconds = 1,
       ready_at = clock_timestamp(), progress_at = clock_timestamp()
WHERE round_id = :round AND stop_row <= :stop
"""
COUNTS = """
UPDATE stage_counts c SET num_pending = u.pending, num_done = u.done, items_done = u.items, seconds = u.done
FROM (SELECT round_id, kind, count(*) FILTER (WHERE state = 'pending') pending,
             count(*) FILTER (WHERE state = 'done') done, sum(items_done) items
      FROM units WHERE round_id = :round GROUP BY round_id, kind) u
WHERE c.round_id = u.round_id AND c.kind = u.kind
"""


def settings_for(url: str, base: Path, shape: tuple[int, int, int]) -> Settings:
    """Return the settings of a run on `url` whose rounds have (prompts, samples of each, batch)."""
    num_prompts, num_samples, batch = shape
    values: dict[str, object] = {
        "run.base": str(base),
        "run.rounds": 1000,
        "sampling.prompts_per_round": num_prompts,
        "sampling.samples_per_prompt": num_samples,
        "sampling.batch_size": batch,
        "assess.batch_size": batch,
        "store.database_url": url,
        "runtime.max_attempts": 1,
    }
    return load_settings(None, values, environ={})


@contextmanager
def filled_run(
    url: str, folder: Path, num_samples: int, shape: tuple[int, int, int]
) -> Iterator[tuple[RunContext, RunDirectory]]:
    """Open a run with `num_samples` samples, whose last round still has an eighth to draw."""
    settings = with_domain(settings_for(url, save_noop(folder / "base", distinct_images=False), shape))
    with (
        locked(folder / "run") as directory,
        open_context(settings, check_start(settings, directory.path), directory, default_toolbox()) as context,
    ):
        prompts = round_prompts(context.domain, settings, 1)
        # Every round draws the same prompts: asking the domain for others, hundreds of times, would take the time.
        with patch.object(plan, "round_prompts", lambda *_: prompts):
            _fill(context, num_samples, shape[0] * shape[1])
        with context.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
        yield context, directory


def _fill(context: RunContext, num_samples: int, per_round: int) -> None:
    left, index = num_samples, 0
    while left > 0:
        index += 1
        _fill_round(context, index, min(left, per_round), is_last=left <= per_round)
        left -= per_round


def _fill_round(context: RunContext, index: int, num_samples: int, *, is_last: bool) -> None:
    sampling = context.settings.sampling
    stop = num_samples * 7 // 8 // sampling.batch_size * sampling.batch_size if is_last else num_samples
    with transaction(context.engine) as session:
        plan_round(context, session, index)
        round_ = session.scalars(select(Round).where(Round.run_id == context.run_id, Round.index == index)).one()
        move(context, session, round_, RoundState.SAMPLING)
    ids = pack_image_ids(np.arange(TOKENS, dtype=np.int32))
    with transaction(context.engine) as session:
        values = {"round": round_.id, "stop": stop, "last": sampling.samples_per_prompt - 1}
        session.execute(text(SAMPLES), {**values, "ids": ids})
        session.execute(text(ASSESSMENTS), values)
        session.execute(text(UNITS), values)
        session.execute(text(COUNTS), values)
        session.execute(text("UPDATE rounds SET num_samples = :stop WHERE id = :round"), values)
        if not is_last:
            _end(session, round_.id)


def _end(session: Session, round_id: int) -> None:
    """Reject the round, with numbers as the gate writes them."""
    share = {"mean": 0.4, "low": 0.35, "high": 0.45, "n": 512}
    numbers = {
        "heldout": {"parent": share, "candidate": share, "delta": {"mean": 0.0, "low": -0.05, "high": 0.05}},
        "diversity": {"parent": 0.06, "candidate": 0.06},
        "understanding": {"parent": 0.98, "candidate": 0.98},
    }
    session.execute(
        text(
            "INSERT INTO gate_decisions (round_id, decision, reasons, numbers, decided_at)"
            " VALUES (:round, 'rejected', '[\"heldout gain +0.0 [-5.0, 5.0]\"]', :numbers, clock_timestamp())"
        ),
        {"round": round_id, "numbers": json.dumps(numbers)},
    )
    session.execute(
        text(
            "UPDATE rounds SET state = 'rejected', num_accepted = 500, ended_at = clock_timestamp() WHERE id = :round"
        ),
        {"round": round_id},
    )
