"""Updates of reinforcement learning are stored once and never change; their samples survive, up, down and up again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import pytest
from sqlalchemy import Engine, func, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from illume_db.migrate import downgrade, drift, upgrade
from illume_db.prompts import PromptRow, ensure_prompts
from illume_db.rounds import add_round
from illume_db.runs import add_run
from illume_db.samples import NewSample, add_samples
from illume_db.sessions import open_engine, transaction
from illume_db.tables import Rollout, Round, Sample, Update
from illume_db.updates import NewGroup, NewRollout, NewUpdate, add_update, groups_before, learned_rollouts, sample_ids
from illume_db.versions import add_version

NOW = datetime(2026, 1, 1, tzinfo=UTC)
IDS = np.array([1, 2], dtype=np.int32)
LOG_PROBS = np.array([-0.1, -2.5], dtype=np.float32)
ROUND = 1


@pytest.fixture
def filled(empty_url: str) -> Iterator[Engine]:
    """A run whose first round has made one update: two samples of one prompt, the second without an advantage."""
    upgrade(empty_url)
    engine = open_engine(empty_url)
    with transaction(engine) as session:
        run = add_run(session, key="k" * 32, name="r", seed=0, settings={}, at=NOW)
        base = add_version(
            session, run.id, parent_id=None, state="active", sha256="0" * 64, num_bytes=1, origin="o", at=NOW
        )
        prompt_ids = ensure_prompts(session, run.id, [PromptRow("train", "key", "c", "a red circle", {})])
        add_round(session, run.id, 1, parent_version_id=base.id, prompt_ids=prompt_ids, at=NOW)
        samples = [NewSample(prompt_ids[0], index, 7, IDS, "0" * 64) for index in (0, 1)]
        add_samples(session, ROUND, base.id, samples, at=NOW)
        _add(session)
    yield engine
    engine.dispose()


def _add(session: Session) -> None:
    ids = sample_ids(session, ROUND, 0, 2)
    (prompt_id, _), *_ = ids
    new = NewUpdate(
        index=1,
        rewards={"self": -1.5},
        checked=None,
        num_samples=2,
        num_learned=1,
        num_groups=1,
        num_without_variance=0,
        num_with_too_few=0,
        entropy=1.0,
        kl=None,
        clipped=0.0,
        grad_norm=1.0,
        gap=0.0,
        seconds={"draw": 0.1},
    )
    rollouts = [NewRollout(id_, LOG_PROBS, advantage) for id_, advantage in zip(ids.values(), (0.1, None), strict=True)]
    add_update(session, ROUND, new, [NewGroup(prompt_id, 2, {"self": 0.5})], rollouts, at=NOW)


def test_what_an_update_learned_from_is_read_as_it_was_stored(filled: Engine) -> None:
    with transaction(filled) as session:
        (row,) = learned_rollouts(session, ROUND, 1)
        assert (row.prompt, row.image_ids.tolist(), row.advantage) == ("a red circle", IDS.tolist(), 0.1)
        assert row.log_probs.tobytes() == LOG_PROBS.tobytes()
        assert [group.spreads for group in groups_before(session, 1, 1, 2)] == [{"self": 0.5}]
        assert groups_before(session, 1, 1, 1) == []
        assert session.scalar(select(Round.num_accepted)) == 1


def test_an_update_is_stored_once_and_never_changes(filled: Engine) -> None:
    with pytest.raises(IntegrityError), transaction(filled) as session:
        _add(session)
    for table, values in ((Update, {"entropy": 2.0}), (Rollout, {"advantage": 2.0})):
        with pytest.raises(DBAPIError, match="_are_immutable"), transaction(filled) as session:
            session.execute(update(table).values(**values))


def test_up_down_up_keeps_the_samples(filled: Engine, empty_url: str) -> None:
    for step, num_updates in ((lambda url: downgrade(url, "0014"), None), (upgrade, 0)):
        filled.dispose()
        step(empty_url)
        with transaction(filled) as session:
            assert session.scalar(select(func.count()).select_from(Sample)) == 2
            if num_updates is not None:
                assert session.scalar(select(func.count()).select_from(Update)) == num_updates
    assert drift(empty_url) == []
