"""A copy of the project on a real Docker Engine: the commands of the how-tos, and what the engine says of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.golden import ROOT

DEADLINE_S = 1800.0
BUILD_S = 3600.0


def engine_answers() -> bool:
    """Whether there is a Docker Engine with Compose that this process may use."""
    try:
        found = [
            subprocess.run(["docker", *words], capture_output=True) for words in (["info"], ["compose", "version"])
        ]
    except FileNotFoundError:
        return False
    return all(done.returncode == 0 for done in found)


def shell_blocks(page: str) -> list[str]:
    """The ```sh blocks of a how-to, in order."""
    text = (ROOT / "docs" / "how-to" / page).read_text(encoding="utf-8")
    return re.findall(r"(?ms)^```sh\n(.*?)^```$", text)


def copy_of_the_checkout(folder: Path) -> Path:
    """What git has or would add, as a new checkout holds it."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@dataclass(slots=True)
class Project:
    """One Compose project in a copy of the checkout."""

    folder: Path
    name: str
    environ: dict[str, str] = field(default_factory=dict)

    def sh(self, script: str, *, deadline_s: float = DEADLINE_S, code: int | None = 0) -> str:
        """Run a script in the folder; what it printed. It must end with `code`, unless that is None."""
        own = {"COMPOSE_PROJECT_NAME": self.name, "COMPOSE_PROGRESS": "plain", "HOME": str(self.folder.parent / "home")}
        config = os.environ.get("DOCKER_CONFIG", str(Path.home() / ".docker"))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ILLUME_", "COMPOSE_"))}
        done = subprocess.run(
            ["bash", "-ec", script],
            cwd=self.folder,
            env=kept | {"DOCKER_CONFIG": config} | own | self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=deadline_s,
        )
        assert code is None or done.returncode == code, (
            f"{script}\nended with {done.returncode}:\n{done.stdout[-6000:]}"
        )
        return done.stdout

    def compose(self, *words: str, deadline_s: float = DEADLINE_S, code: int | None = 0) -> str:
        """Run `docker compose` with these words."""
        return self.sh("docker compose " + " ".join(words), deadline_s=deadline_s, code=code)

    def containers(self, service: str = "") -> list[dict[str, Any]]:
        """What `docker inspect` says of the containers of a service, or of all, oldest first; ended ones too."""
        labels = [f"label=com.docker.compose.project={self.name}"]
        labels += [f"label=com.docker.compose.service={service}"] if service else []
        filters = [word for label in labels for word in ("--filter", label)]
        ids = _docker("ps", "--all", "--quiet", "--no-trunc", *filters).split()
        if not ids:
            return []
        found: list[dict[str, Any]] = json.loads(_docker("inspect", *ids))
        return sorted(found, key=lambda container: container["Created"])

    def running(self) -> dict[str, int]:
        """How many containers of each service run."""
        counted: dict[str, int] = {}
        for container in self.containers():
            if container["State"]["Running"]:
                service = container["Config"]["Labels"]["com.docker.compose.service"]
                counted[service] = counted.get(service, 0) + 1
        return counted

    def ids(self) -> dict[str, str]:
        """The id of each container by its name: another id under the same name is another container."""
        return {container["Name"]: container["Id"] for container in self.containers()}

    def logs(self) -> str:
        """The logs of all containers."""
        return self.compose("--profile '*' logs --no-color --timestamps")

    def read(self, *words: str, service: str = "loop") -> Any:
        """What a reading command of ours prints with --json, in a container of its own."""
        command = f"docker compose run --rm --no-deps {service} illume-loop {' '.join(words)} --json"
        return json.loads(self.sh(f"{command} 2>/dev/null"))

    def wait(self, found: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
        """What `found()` returns once it is true."""
        deadline = time.monotonic() + deadline_s
        while not (answer := found()):
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"waited {deadline_s:.0f} s for {what}\n{self.compose('ps --all')}\n{self.logs()[-9000:]}"
                )
            time.sleep(0.5)  # each look is a process
        return answer

    def wait_until_healthy(self, *services: str) -> None:
        """Wait for the health checks of all running containers of the services."""

        def healthy() -> bool:
            states = [(c["State"], c["State"].get("Health", {})) for name in services for c in self.containers(name)]
            return all(state["Running"] and health.get("Status") == "healthy" for state, health in states)

        self.wait(healthy, f"{', '.join(services)} to be healthy")

    def wait_until_ended(self, service: str) -> int:
        """The exit code of a service that ends by itself."""
        self.wait(lambda: self.containers(service)[0]["State"]["Status"] == "exited", f"{service} to end")
        return int(self.containers(service)[0]["State"]["ExitCode"])

    def volumes(self) -> set[str]:
        """The volumes of the project, by their names in the file."""
        listed = _docker("volume", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={self.name}").split()
        return {volume.removeprefix(f"{self.name}_") for volume in listed}

    def secrets(self) -> list[str]:
        """Every secret of the checkout."""
        return [path.read_text().strip() for path in sorted((self.folder / "secrets").iterdir())]

    def remove(self) -> None:
        """Delete containers and volumes, whatever state a test left them in."""
        self.compose("--profile '*' down --volumes --remove-orphans --timeout 5", code=None)


def _docker(*words: str) -> str:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True, timeout=DEADLINE_S).stdout
