"""Whatever many workers and a coordinator do at once, the counts of a stage are those of its units."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from random import Random

from sqlalchemy import Engine, func, select

from illume_db.errors import FencedOutError
from illume_db.leases import (
    expire_leases,
    fail_attempt,
    finish_unit,
    hand_back,
    lease_unit,
    renew_lease,
    take_back_leases,
)
from illume_db.prompts import PromptRow, ensure_prompts
from illume_db.rounds import add_round, count_samples
from illume_db.rounds_table import open_stages
from illume_db.runs import add_run
from illume_db.sessions import transaction
from illume_db.tables import Unit
from illume_db.units import NewUnit, add_units, mark_issued, ready_units, stage_counts
from illume_db.versions import add_version

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN, ROUND = 1, 1
NUM_UNITS, MAX_ATTEMPTS = 24, 4
NUM_WORKERS = 4
MANY = 10_000


def _plan(engine: Engine) -> None:
    units = [NewUnit("sample", f"sample/{i}", {}, (2 * i, 2 * i + 2), 2) for i in range(NUM_UNITS)]
    units += [NewUnit("assess", f"assess/{i}", {}, (3 * i, 3 * i + 3), 3) for i in range(NUM_UNITS * 2 // 3)]
    with transaction(engine) as session:
        add_run(session, key="k", name="n", seed=0, settings={}, at=NOW)
        add_version(session, RUN, parent_id=None, state="active", sha256="0" * 64, num_bytes=1, origin="o", at=NOW)
        ids = ensure_prompts(session, RUN, [PromptRow("train", "key", "c", "t", {})])
        add_round(session, RUN, 1, parent_version_id=1, prompt_ids=ids, at=NOW)
        add_units(session, ROUND, units)


def _is_settled(engine: Engine) -> bool:
    with transaction(engine) as session:
        return all(c.num_pending + c.num_leased == 0 for c in stage_counts(session, ROUND).values())


def _work(engine: Engine, random: Random) -> None:
    """Lease, and then finish, fail, hand back, stall or vanish, until nothing is left."""
    for _ in range(MANY):
        with transaction(engine) as session:
            units = [u for kind in ("assess", "sample") for u in ready_units(session, ROUND, kind, 5)]
            mark_issued(session, [unit.id for unit in units])
        if not units:
            if _is_settled(engine):
                return
            continue
        unit = random.choice(units)
        with transaction(engine) as session:
            lease_s = random.choice([60.0, 60.0, 0.0, None])
            lease = lease_unit(session, unit.id, "me", token=unit.token, lease_s=lease_s)
        if lease is None:
            continue
        try:
            with transaction(engine) as session:
                match random.randrange(8):
                    case 0:
                        fail_attempt(session, lease, "e", MAX_ATTEMPTS)
                    case 1:
                        hand_back(session, lease)
                    case 2:
                        renew_lease(session, lease, 1, 2, 0.0)
                    case _:
                        finish_unit(session, lease, 1.0, lambda session: count_samples(session, ROUND, 2))
        except FencedOutError:
            pass


def _coordinate(engine: Engine, random: Random) -> None:
    for _ in range(MANY):
        with transaction(engine) as session:
            expire_leases(session, RUN, MAX_ATTEMPTS)
        if random.random() < 0.3:
            with transaction(engine) as session:
                take_back_leases(session, RUN)
        if _is_settled(engine):
            return


def test_counts_are_those_of_the_units(engine: Engine) -> None:
    _plan(engine)
    with ThreadPoolExecutor(NUM_WORKERS + 1) as pool:
        done = [pool.submit(_work, engine, Random(seed)) for seed in range(NUM_WORKERS)]
        done.append(pool.submit(_coordinate, engine, Random("coordinator")))
        for future in done:
            future.result(240)
    assert _is_settled(engine)
    with transaction(engine) as session:
        counts = stage_counts(session, ROUND)
        found = session.execute(
            select(Unit.kind, Unit.state, func.count(), func.sum(Unit.items_done)).group_by(Unit.kind, Unit.state)
        )
        rows = {(kind, state): (num, items) for kind, state, num, items in found}
        waiting = session.scalar(select(func.count()).where(Unit.ready_at.is_(None)))
    assert waiting == 0, "every assessment became ready"
    for kind, stage in counts.items():
        num_done, items_done = rows.get((kind, "done"), (0, 0))
        num_dead, _ = rows.get((kind, "dead"), (0, 0))
        assert (stage.num_done, stage.num_dead, stage.items_done) == (num_done, num_dead, items_done)
        assert stage.seconds == num_done
        assert stage.num_units == num_done + num_dead
    assert counts["sample"].num_done > 0


def test_a_unit_that_says_its_items_when_it_is_under_way_adds_none_to_what_was_planned(engine: Engine) -> None:
    """A training has as many steps as it turns out to have, also when another worker begins it anew."""
    _plan(engine)
    with transaction(engine) as session:
        add_units(session, ROUND, [NewUnit("train", "train", {})])
        (unit,) = ready_units(session, ROUND, "train", 1)
    for _ in range(2):
        with transaction(engine) as session:
            lease = lease_unit(session, unit.id, "me")
            assert lease is not None
            assert renew_lease(session, lease, 4, 10, 60.0)
        with transaction(engine) as session:
            [shown] = open_stages(session, RUN)
            training = shown["stages"]["training"]
            assert (training["items_done"], training["items_total"]) == (4, 10), "its steps are seen while it runs"
            assert hand_back(session, lease)
    with transaction(engine) as session:
        lease = lease_unit(session, unit.id, "me")
        assert lease is not None
        assert finish_unit(session, lease, 1.0)
        counts = stage_counts(session, ROUND)["train"]
    assert (counts.num_done, counts.items_done, counts.items_total) == (1, 0, 0)
