"""One seed: a run of the service that is disturbed as the seed says, and what came of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from illume_db.migrate import upgrade
from illume_db.rounds import open_rounds, waiting_retries
from illume_db.tables import Round, Run
from illume_loop.settings import Settings, load_settings
from tests.chaos.checks import outcome, violations
from tests.chaos.cluster import FAILED, Cluster, Nursery
from tests.chaos.faults import Fault, Operation, Plan
from tests.support.canned_model import save_canned
from tests.support.canned_run import start as start_inline
from tests.support.servers import PostgresServer, RedisServer

LEASE_S = 1.5
DEADLINE_S = 90.0
"""A run takes seconds; one that is not over by now hangs."""
TEMPLATE = "illume_template"

RUN: Mapping[str, object] = {
    "run.rounds": 2,
    "run.domain": "shapes",
    "sampling.prompts_per_round": 4,
    "sampling.samples_per_prompt": 4,
    "sampling.batch_size": 4,
    "assess.batch_size": 5,
    "curate.keep_per_prompt": 2,
    "curate.real_rows": 6,
    "gate.heldout_prompts": 8,
    "gate.probe_items": 4,
    "gate.guidance_scale": 1.0,
    "gate.guidances": "1,2",
    "gate.temperatures": "1",
    "gate.decode_prompts": 4,
    "gate.resamples": 100,
    "gate.min_gain": -0.5,
}
PACE = {
    "LEASE_S": LEASE_S,
    "HEARTBEAT_S": 0.3,
    "STALL_AFTER_S": 20,
    "DRAIN_DEADLINE_S": 5,
    "VISIBILITY_TIMEOUT_S": 3,
    "POLL_S": 0.1,
    "REISSUE_AFTER_S": 1.5,
    "STAGE_DEADLINE_S": 60,
    "LEADER_LEASE_S": 1.5,
    "RECONNECT_S": 30,
}
"""Short waits, so that a run with three faults is over within seconds."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a seed: `held`, `failed` (a round failed, and says why) or `broken`."""

    seed: int
    faults: tuple[str, ...]
    fired: tuple[str, ...]
    result: str
    seconds: float
    notes: tuple[str, ...]
    ordered: tuple[str, ...] = ()
    """What people asked for, each with the exit code that they got."""


class Stage:
    """Servers, the forking process and the undisturbed runs that all seeds share."""

    def __init__(self, folder: Path, postgres: PostgresServer, redis: RedisServer, nursery: Nursery) -> None:
        self.folder, self.postgres, self.redis, self.nursery = folder, postgres, redis, nursery
        self._undisturbed: dict[tuple[int, int], dict[str, Any]] = {}
        self.base = save_canned(folder / "base", 0.4)
        postgres.execute(f"CREATE DATABASE {TEMPLATE}")
        upgrade(postgres.url(TEMPLATE))

    def settings(self, plan: Plan) -> Settings:
        """The settings of a seed's run, but for where its stores are."""
        chosen = {"run.base": str(self.base), "run.seed": plan.run_seed, "loop.overlap_rounds": plan.overlap}
        return load_settings(None, {**RUN, **chosen}, environ={})

    def undisturbed(self, plan: Plan) -> dict[str, Any]:
        """The outcome of the same run in one process, on SQLite, with nothing going wrong."""
        key = plan.run_seed, plan.overlap
        if key not in self._undisturbed:
            run_dir = self.folder / f"undisturbed-{key[0]}-{key[1]}"
            start_inline(self.settings(plan), run_dir)
            with _session(f"sqlite:///{run_dir / 'loop.sqlite'}") as session:
                self._undisturbed[key] = outcome(session, 1)
        return self._undisturbed[key]

    def play(self, plan: Plan) -> Verdict:
        """Run a seed."""
        folder = self.folder / f"seed-{plan.seed}"
        folder.mkdir()
        database = f"seed_{plan.seed}".replace("-", "_")
        undisturbed = self.undisturbed(plan)
        self.postgres.execute(f"CREATE DATABASE {database} TEMPLATE {TEMPLATE}")
        with self.redis.client() as client:
            client.flushall()
        began = time.monotonic()
        trial = _Trial(self, plan, folder, self.postgres.url(database))
        notes, code = trial.run()
        seconds = time.monotonic() - began
        result = "broken"
        if not notes and code == FAILED:
            result, notes = trial.failure()
        elif not notes:
            with _session(self.postgres.url(database)) as session:
                settings, ordered = self.settings(plan), trial.cluster.ordered
                notes = list(violations(session, trial.run_id(), settings, undisturbed, ordered))
            result = "broken" if notes else "held"
        if trial.assertions():
            result, notes = "broken", [*notes, *trial.assertions()]
        if result == "held":
            self.postgres.execute(f"DROP DATABASE {database} WITH (FORCE)")
        kinds = tuple(fault.kind for fault in plan.faults)
        told = tuple(f"{kind}: {code}" for kind, code in trial.cluster.ordered)
        return Verdict(plan.seed, kinds, tuple(trial.cluster.fired), result, seconds, tuple(notes), told)


class _Trial:
    def __init__(self, stage: Stage, plan: Plan, folder: Path, url: str) -> None:
        self._stage, self._plan, self._url = stage, plan, url
        config = folder / "run.toml"
        config.write_text(_toml({**RUN, **_chosen(stage, plan)}))
        env = {
            "ILLUME_STORE__DATABASE_URL": url,
            "ILLUME_STORE__ARTIFACTS_URL": str(folder / "artifacts"),
            "ILLUME_CLUSTER__REDIS_URL": stage.redis.url(),
            "ILLUME_CLUSTER__CACHE_DIR": str(folder / "cache"),
            "ILLUME_RUNTIME__MAX_ATTEMPTS": "5",
            "XDG_CACHE_HOME": str(folder / "cache"),
            **{f"ILLUME_CLUSTER__{name}": str(value) for name, value in PACE.items()},
        }
        self.cluster = Cluster(stage.nursery, folder, folder / "run", config, env)
        self._waiting = sorted((f for f in plan.faults if not f.point and not f.skew_s), key=lambda f: f.units_done)
        self._orders = list(plan.operations)

    def run(self) -> tuple[list[str], int]:
        """Bring the run to its end; what hangs or never comes up, and the coordinator's code."""
        try:
            self._start()
            code = self._play()
            self._let_the_late_ones_write()
            return [], code
        except (TimeoutError, RuntimeError) as error:
            return [str(error)], -1
        finally:
            self.cluster.kill_all()

    def run_id(self) -> int:
        """The id of the run's row."""
        with _session(self._url) as session:
            return session.scalars(select(Run.id)).one()

    def failure(self) -> tuple[str, list[str]]:
        """Why a coordinator gave up: `failed` where a round says why, `broken` where only its own last words do."""
        with _session(self._url) as session:
            errors = list(session.scalars(select(Round.error).where(Round.state == "failed")))
        if errors:
            return "failed", [str(error) for error in errors]
        log = (self.cluster.folder / "coordinator.log").read_text(errors="replace").splitlines()
        return "broken", [line for line in log if line.startswith("illume-loop: ")][-1:] or ["it ended with code 1"]

    def assertions(self) -> list[str]:
        """Lines of any process's log that tell of an AssertionError or another error that nobody expected."""
        logs = [*self.cluster.folder.glob("*.log"), *self.cluster.run_dir.glob("*.log")]
        lines = (line for log in logs for line in log.read_text(errors="replace").splitlines())
        return [line for line in lines if line.startswith(("AssertionError", "illume-loop: unexpected"))][:3]

    def _start(self) -> None:
        for fault in self._plan.faults:
            if fault.point:
                self.cluster.planned.setdefault(fault.role, []).append(fault)
        skews = {fault.role: fault for fault in self._plan.faults if fault.skew_s}
        for role in ("coordinator", "generator", "assessor", "trainer"):
            skew = skews.get(role)
            self.cluster.start(role, skew.skew_s if skew else 0.0)
            if skew:
                self.cluster.fired.append(skew.kind)
        if self._plan.standby:
            self.cluster.start("coordinator")

    def _play(self) -> int:
        deadline = time.monotonic() + DEADLINE_S * (1 + len(self._plan.operations) / 2)
        while True:
            code = self.cluster.tend()
            if code is not None and not self._is_more_wanted():
                return code
            if code is not None:
                self.cluster.start("coordinator")
            if self._waiting or self._orders:
                units_done = self._units_done()
                while self._waiting and units_done is not None and units_done >= self._waiting[0].units_done:
                    self._disturb(self._waiting.pop(0))
                while units_done is not None and self._is_due(units_done):
                    self._order(self._orders.pop(0))
            if time.monotonic() > deadline:
                raise TimeoutError(f"not over in time; {self._units_done()} units are done")
            time.sleep(0.02)

    def _is_due(self, units_done: int) -> bool:
        """Whether the next command is to be given; one to retry waits until those before it have had their effect."""
        if not self._orders or units_done < self._orders[0].units_done:
            return False
        return self._orders[0].kind != "retry" or not self.cluster.ordering

    def _is_more_wanted(self) -> bool:
        """Whether a round is to be run again that was asked for after the coordinator had looked for the last time.

        It may be under way by now: a standby takes over when that coordinator ends, and plans it.
        """
        deadline = time.monotonic() + 30
        while self.cluster.ordering and time.monotonic() < deadline:
            self.cluster.tend()
            time.sleep(0.02)
        with _session(self._url) as session:
            run_id = session.scalars(select(Run.id)).one()
            under_way = [round_ for round_ in open_rounds(session, run_id) if round_.retry_of_id is not None]
            return bool(under_way or waiting_retries(session, run_id))

    def _order(self, operation: Operation) -> None:
        argv = {"promote": ["models", "promote", f"v{operation.number:04d}", "--yes"]}
        argv |= {"rollback": ["models", "rollback", "--yes"]}
        number = operation.number
        if operation.kind in ("cancel", "retry"):
            with suppress(psycopg.Error), _raw(self._url) as connection:
                over = "state IN ('failed', 'cancelled')"
                under_way = "state NOT IN ('promoted', 'rejected', 'failed', 'cancelled')"
                wanted = under_way if operation.kind == "cancel" else over
                row = connection.execute(f'SELECT max("index") FROM rounds WHERE {wanted}').fetchone()
                number = row[0] if row and row[0] is not None else number
        self.cluster.order(operation.kind, argv.get(operation.kind, ["rounds", operation.kind, str(number)]))

    def _let_the_late_ones_write(self) -> None:
        """What was stopped goes on and tries to commit what it had, before anything is checked."""
        deadline = time.monotonic() + 10
        was_stopped = self.cluster.num_stopped()
        while self.cluster.num_stopped() and time.monotonic() < deadline:
            self.cluster.tend()
            time.sleep(0.02)
        if was_stopped:
            time.sleep(0.3)

    def _disturb(self, fault: Fault) -> None:
        if fault.number:
            self.cluster.signal(fault)
            return
        if fault.kind == "redis lost":
            self._stage.redis.restart(fault.seconds)
        elif fault.kind == "postgres restarted":
            self._stage.postgres.restart(fault.seconds)
        else:
            self._double_messages()
        self.cluster.fired.append(fault.kind)

    def _units_done(self) -> int | None:
        """Units that are done; None while the database cannot say."""
        with suppress(psycopg.Error), _raw(self._url) as connection:
            row = connection.execute("SELECT coalesce(sum(num_done), 0) FROM stage_counts").fetchone()
            return int(row[0]) if row else None
        return None

    def _double_messages(self) -> None:
        """Send every unit's message twice more, with its present token and with the one before."""
        from illume_workers.app import TASK, make_app
        from illume_workers.messages import KINDS_OF_ROLE, queue_of

        role_of = {kind: role for role, kinds in KINDS_OF_ROLE.items() for kind in kinds}
        settings = load_settings(environ={"ILLUME_CLUSTER__REDIS_URL": self._stage.redis.url()}).cluster
        with _raw(self._url) as connection:
            units = connection.execute("SELECT id, kind, fencing_token FROM units").fetchall()
        with make_app(settings) as app:
            for unit_id, kind, token in units:
                for sent in (token, max(0, token - 1)):
                    message = {"unit_id": unit_id, "token": sent}
                    app.send_task(TASK, kwargs=message, queue=queue_of(role_of[kind]))


def _chosen(stage: Stage, plan: Plan) -> dict[str, object]:
    return {"run.base": str(stage.base), "run.seed": plan.run_seed, "loop.overlap_rounds": plan.overlap}


def _toml(values: Mapping[str, object]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


@contextmanager
def _session(url: str) -> Iterator[Session]:
    engine = create_engine(url)
    try:
        with Session(engine) as session:
            yield session
    finally:
        engine.dispose()


def _raw(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True, connect_timeout=2)
