"""docker-compose.yml on a real engine, in a person's order: each test goes on where the last one ended."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from tests.support.engine import BUILD_S, Project, shell_blocks

pytestmark = [pytest.mark.docker, pytest.mark.timeout(7200), pytest.mark.xdist_group("one-host")]
STOP, START = os.environ.get("ILLUME_DOCKER_STOP"), os.environ.get("ILLUME_DOCKER_START")
"""Commands that stop the engine gracefully and start it again, where a test may do that."""
WORKERS = {"generator": 2, "assessor": 1, "trainer": 1}
STORES = {"postgres": 1, "redis": 1}


def test_a_run_ends_with_its_round(project: Project) -> None:
    _passwords, _workers, start, *_ = shell_blocks("run-the-service.md")
    project.sh(start.splitlines()[0], deadline_s=BUILD_S)
    assert project.wait_until_ended("loop") == 0, project.logs()
    (round_,) = project.read("rounds", "ls", "--run-dir", "/data/run")
    assert round_["state"] in ("promoted", "rejected")
    assert (round_["samples"], round_["dead_units"]) == (48, 0)
    assert project.running() == STORES | WORKERS


def test_workers_are_listed_under_the_name_of_the_host(project: Project) -> None:
    rows = project.read("workers", "ls")["workers"]
    assert {row["host"] for row in rows} == {os.uname().nodename}
    containers = [container["Id"][:12] for name in WORKERS for container in project.containers(name)]
    assert sorted(re.search(r":([0-9a-f]{12})\.\d+$", row["name"])[1] for row in rows) == sorted(containers)  # type: ignore[index]


def test_all_are_healthy_and_their_checks_are_cheap(project: Project) -> None:
    """A check takes less than 50 ms of CPU."""
    project.wait_until_healthy(*STORES, *WORKERS)
    for service in (*STORES, *WORKERS):
        check = project.containers(service)[0]["Config"]["Healthcheck"]["Test"]
        spent = cpu_seconds(project, service, check)
        print(f"health check of {service}: {1000 * spent:.1f} ms of CPU")
        assert spent < 0.05, service


def test_up_with_build_starts_nothing_anew_when_nothing_changed(project: Project) -> None:
    before = project.ids()
    started = {name: _started(project, name) for name in (*STORES, *WORKERS)}
    project.compose("up --detach --build", deadline_s=BUILD_S)
    assert project.ids() == before
    assert {name: _started(project, name) for name in (*STORES, *WORKERS)} == started


def test_the_dashboard_leaves_the_workers_as_they_are(project: Project) -> None:
    assert project.wait_until_ended("loop") == 0  # `up` started it again, and it found nothing left to do
    before = project.ids()
    page = (project.folder / "docs" / "how-to" / "run-the-service.md").read_text()
    password, up = re.search(r"\| see it in a browser \| `([^`]+)`, then `([^`]+)`", page).groups()  # type: ignore[union-attr]
    project.sh(f"{password}\n{up}", deadline_s=BUILD_S)
    project.wait_until_healthy("dashboard")
    assert _staying(project) == STORES | WORKERS | {"dashboard": 1}
    assert before.items() <= project.ids().items()
    check = project.containers("dashboard")[0]["Config"]["Healthcheck"]["Test"]
    spent = cpu_seconds(project, "dashboard", check)
    print(f"health check of dashboard: {1000 * spent:.1f} ms of CPU")
    assert spent < 0.05


def test_the_numbers_in_env_scale(project: Project) -> None:
    variables = project.folder / ".env"
    variables.write_text(variables.read_text().replace("GENERATORS=2", "GENERATORS=3"))
    before = project.ids()
    project.compose("up --detach")
    assert _staying(project) == STORES | WORKERS | {"dashboard": 1, "generator": 3}
    assert before.items() <= project.ids().items()
    variables.write_text(variables.read_text().replace("GENERATORS=3", "GENERATORS=2"))
    project.compose("up --detach")
    assert _staying(project) == STORES | WORKERS | {"dashboard": 1}


def test_a_worker_that_is_killed_comes_back(project: Project) -> None:
    project.wait_until_healthy("assessor")
    (before,) = project.containers("assessor")
    # Process 1 is the init, and the worker its only child.
    project.compose("exec assessor sh -c 'kill -9 $(cat /proc/1/task/1/children)'")
    project.wait(lambda: project.containers("assessor")[0]["RestartCount"] == 1, "the worker to be started again")
    project.wait_until_healthy("assessor")
    (after,) = project.containers("assessor")
    assert after["Id"] == before["Id"]


def test_a_worker_that_hears_sigterm_comes_back(project: Project) -> None:
    """As the daemon's own end sends it: the worker drains, ends with 143 and is started again."""
    project.wait_until_healthy("trainer")
    project.compose("exec trainer sh -c 'kill -TERM 1'")
    project.wait(lambda: project.containers("trainer")[0]["RestartCount"] == 1, "the worker to be started again")
    project.wait_until_healthy("trainer")


def test_a_worker_that_was_drained_stays_down(project: Project) -> None:
    (container,) = project.containers("trainer")
    rows = project.read("workers", "ls")["workers"]
    (name,) = [row["name"] for row in rows if row["role"] == "trainer" and row["state"] == "running"]
    assert container["Id"][:12] in name
    project.compose(f"exec generator illume-loop workers drain {name}")
    assert project.wait_until_ended("trainer") == 0
    assert "trainer" not in project.running()
    project.compose("up --detach")
    assert _staying(project) == STORES | WORKERS | {"dashboard": 1}


@pytest.mark.skipif(not (STOP and START), reason="ILLUME_DOCKER_STOP and ILLUME_DOCKER_START do not say how to restart")
def test_everything_comes_back_with_the_daemon(project: Project) -> None:
    """In the middle of a run, which then goes on."""
    with (project.folder / ".env").open("a") as variables:
        variables.write("RUN=second\n")
    project.compose("up --detach")
    working = WORKERS | STORES | {"dashboard": 1, "loop": 1}
    project.wait(lambda: _samples(project, "second") > 0, "the first samples")
    assert project.running() == working
    for command in (STOP, START):
        subprocess.run(["bash", "-c", str(command)], check=True, stdout=subprocess.DEVNULL)
    project.wait(lambda: project.running() == working, "everything to run again")
    assert project.wait_until_ended("loop") == 0, project.logs()
    (round_,) = project.read("rounds", "ls", "--run-dir", "/data/second")
    assert (round_["samples"], round_["dead_units"]) == (48, 0)
    project.wait_until_healthy(*STORES, *WORKERS, "dashboard")


def test_no_secret_is_seen(project: Project) -> None:
    told = project.logs() + str(project.containers())
    told += project.sh("for id in $(docker ps --quiet); do docker top $id -eo pid,args; done")
    told += project.sh("docker history --no-trunc $ILLUME_IMAGE; docker image inspect $ILLUME_IMAGE")
    told += project.compose("exec generator env") + project.compose("exec generator illume-loop config show --json")
    secrets = project.secrets()
    assert len(secrets) == 3
    for secret in secrets:
        assert secret not in told


def test_down_takes_everything_along_and_up_goes_on(project: Project) -> None:
    run = "second" if "RUN=second" in (project.folder / ".env").read_text() else "run"
    before = project.read("rounds", "ls", "--run-dir", f"/data/{run}")
    project.sh(_documented(project, "stop everything"))
    assert project.containers() == []
    assert project.volumes() == {"postgres", "data", "cache"}
    project.compose("up --detach")
    assert project.wait_until_ended("loop") == 0
    assert project.running() == STORES | WORKERS
    assert project.read("rounds", "ls", "--run-dir", f"/data/{run}") == before


def test_deleting_everything_leaves_nothing(project: Project) -> None:
    project.compose("up --detach dashboard")
    project.sh(_documented(project, "delete everything"))
    assert (project.containers(), project.volumes()) == ([], set())


def cpu_seconds(project: Project, service: str, check: list[str]) -> float:
    """User and system time of a health check, the mean of twenty."""
    kind, *words = check
    command = words if kind == "CMD" else ["sh", "-c", *words]
    number = 20
    loop = f'i=0; while [ $i -lt {number} ]; do "$@" >/dev/null || exit 9; i=$((i+1)); done; times'
    container = project.containers(service)[0]["Id"]
    done = subprocess.run(
        ["docker", "exec", container, "sh", "-c", loop, "check", *command], capture_output=True, text=True, check=True
    )
    minutes_and_seconds = re.findall(r"(\d+)m([\d.]+)s", done.stdout)[2:]  # the second line is of the children
    return sum(60 * int(minutes) + float(seconds) for minutes, seconds in minutes_and_seconds) / number


def _staying(project: Project) -> dict[str, int]:
    """What runs, without the loop: each `up` starts it again, and it ends at once when its rounds are done."""
    return {service: number for service, number in project.running().items() if service != "loop"}


def _started(project: Project, service: str) -> list[str]:
    return [container["State"]["StartedAt"] for container in project.containers(service)]


def _samples(project: Project, run: str) -> int:
    listed = project.sh(
        f"docker compose exec generator illume-loop samples ls --run-dir /data/{run} --json 2>/dev/null", code=None
    )
    return listed.count('"id"')


def _documented(project: Project, purpose: str) -> str:
    """The command that the how-to's table gives for a purpose."""
    page = (project.folder / "docs" / "how-to" / "run-the-service.md").read_text()
    return re.search(rf"(?m)^\| {purpose} \| `([^`]+)`", page)[1]  # type: ignore[index]
