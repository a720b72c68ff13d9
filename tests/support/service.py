"""The service on this machine: Postgres, Redis, coordinators and workers as real processes, on the canned backend."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select

from illume_db.migrate import upgrade
from illume_db.sessions import open_engine, transaction
from illume_db.tables import Unit
from illume_db.workers import workers_table
from tests.support.canned_run import SMALL, result
from tests.support.held_model import save_held
from tests.support.plugged import plugged
from tests.support.process import ILLUME_LOOP, Ended, environment
from tests.support.servers import PostgresServer, RedisServer

DEADLINE_S = 90.0
QUICK = {
    "ILLUME_CLUSTER__LEASE_S": "3",
    "ILLUME_CLUSTER__HEARTBEAT_S": "0.3",
    "ILLUME_CLUSTER__STALL_AFTER_S": "20",
    "ILLUME_CLUSTER__DRAIN_DEADLINE_S": "10",
    "ILLUME_CLUSTER__POLL_S": "0.2",
    "ILLUME_CLUSTER__REISSUE_AFTER_S": "3",
    "ILLUME_CLUSTER__LEADER_LEASE_S": "2",
    "ILLUME_CLUSTER__STAGE_DEADLINE_S": "60",
    "ILLUME_CLUSTER__RECONNECT_S": "40",
}
"""Waits of seconds, where production has minutes."""
PATIENT = {"ILLUME_CLUSTER__LEASE_S": "120", "ILLUME_CLUSTER__STALL_AFTER_S": "240"}
"""Waits of a worker that is held while slow processes start: it keeps its unit whatever the time."""


@dataclass(slots=True)
class Service:
    """Settings that every process of it shares, and the processes."""

    folder: Path
    postgres: PostgresServer
    redis: RedisServer
    database: str
    variables: dict[str, str]
    settings: dict[str, object] = field(default_factory=lambda: dict(SMALL))
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    @property
    def database_url(self) -> str:
        return self.postgres.url(self.database)

    @property
    def artifacts_url(self) -> str:
        return str(self.folder / "artifacts")

    def begin(self, *args: object, name: str, **more: str) -> subprocess.Popen[bytes]:
        """Start an `illume-loop` process whose output goes to `<name>.log`."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [ILLUME_LOOP, *map(str, args)],
                cwd=self.folder,
                env=environment(**plugged(**self.variables)) | more,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def worker(self, *roles: str, name: str, **more: str) -> subprocess.Popen[bytes]:
        """Start a worker."""
        words = [word for role in roles for word in ("--role", role)]
        return self.begin("worker", *words, "--name", name, name=name, **more)

    def coordinator(self, name: str = "coordinator", **more: str) -> subprocess.Popen[bytes]:
        """Start a coordinator of the run."""
        config = self.folder / "run.toml"
        if not config.exists():
            base = self.settings.get("run.base") or str(save_held(self.folder / "base", 0.4))
            config.write_text(_toml(self.settings | {"run.base": base}))
        return self.begin(
            "start", "--config", config, "--run-dir", self.run_dir, "--executor", "celery", name=name, **more
        )

    def command(self, *args: object, **more: str) -> Ended:
        """Run an `illume-loop` command to its end."""
        done = subprocess.run(
            [ILLUME_LOOP, *map(str, args)],
            cwd=self.folder,
            env=environment(**plugged(**self.variables)) | more,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def result(self) -> dict[str, Any]:
        """What the run has come to; see `tests.support.canned_run.result`."""
        return result(self.run_dir, database_url=self.database_url, artifacts_url=self.artifacts_url)

    def log(self, name: str) -> str:
        """What a process has said."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def logs(self) -> str:
        """The last words of all processes."""
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in _logs(self.folder))

    def held(self, state: str = "leased", kind: str = "sample") -> Unit:
        """A unit of a kind once it is in a state."""
        query = select(Unit).where(Unit.state == state, Unit.kind == kind).order_by(Unit.id).limit(1)
        unit: Unit = self.wait_for(lambda session: session.scalar(query), f"a {kind} unit that is {state}")
        return unit

    def shown(self, index: int = 1) -> dict[str, Any]:
        """What `rounds show` prints of a round."""
        ended = self.command("rounds", "show", index, "--json", "--run-dir", self.run_dir)
        assert ended.code == 0, ended.err
        found: dict[str, Any] = json.loads(ended.out)
        return found

    def worker_row(self, name: str) -> dict[str, Any]:
        """A worker as `workers ls` shows it."""
        with self.engine() as engine, transaction(engine) as session:
            return next(row for row in workers_table(session) if row["name"] == name)

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """An engine on the database."""
        engine = open_engine(self.database_url)
        try:
            yield engine
        finally:
            engine.dispose()

    def wait_for(self, found: Callable[[Any], Any], what: str, seconds: float = DEADLINE_S) -> Any:
        """What `found(session)` returns once it is true."""
        deadline = time.monotonic() + seconds
        with self.engine() as engine:
            while time.monotonic() < deadline:
                with transaction(engine) as session:
                    answer = found(session)
                if answer:
                    return answer
                time.sleep(0.02)
        raise AssertionError(f"waited {seconds} s for {what}\n{self.logs()}")

    def ended(self, process: subprocess.Popen[bytes], seconds: float = DEADLINE_S) -> int:
        """The exit code of a process that ends by itself."""
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"a process did not end within {seconds} s\n{self.logs()}") from None

    def kill_all(self) -> None:
        """End every process that is still there, stopped ones too."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()


@contextmanager
def running_service(folder: Path, postgres: PostgresServer, redis: RedisServer, database: str) -> Iterator[Service]:
    """A service with a database of its own and no process yet; what is left of its processes is killed."""
    postgres.execute(f'CREATE DATABASE "{database}"')
    service = Service(folder, postgres, redis, database, {})
    service.variables = QUICK | {
        "ILLUME_STORE__DATABASE_URL": service.database_url,
        "ILLUME_STORE__ARTIFACTS_URL": service.artifacts_url,
        "ILLUME_CLUSTER__REDIS_URL": redis.url(),
        "ILLUME_CLUSTER__CACHE_DIR": str(folder / "cache"),
    }
    upgrade(service.database_url)
    try:
        yield service
    finally:
        service.kill_all()


def _logs(folder: Path) -> Sequence[Path]:
    return sorted(folder.glob("*.log"))


def _toml(settings: dict[str, object]) -> str:
    lines: dict[str, list[str]] = {}
    for key, value in settings.items():
        section, name = key.split(".")
        text = str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else value
        lines.setdefault(section, []).append(f"{name} = {text}")
    return "\n".join(f"[{section}]\n" + "\n".join(values) for section, values in lines.items()) + "\n"
