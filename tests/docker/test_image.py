"""The image: built of layers that a change of the source keeps, without a secret, able to work without a network."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.engine import BUILD_S, Project

pytestmark = [pytest.mark.docker, pytest.mark.timeout(7200)]
CANARY = "canary-7f3a9c"


def test_what_is_private_never_reaches_the_image(project: Project, image: str) -> None:
    private = ("configs/ca.key", "configs/.env", "illume_loop/server.key", "db/tls/server.crt", "secrets/more", "tls/a")
    for path in private:
        (project.folder / path).parent.mkdir(exist_ok=True)
        (project.folder / path).write_text(CANARY)
    try:
        project.compose("build", deadline_s=BUILD_S)
        found = project.sh(f"docker run --rm --entrypoint grep {image} -rl {CANARY} /configs /opt/illume/lib", code=1)
        assert found == ""
        names = project.sh(f"docker run --rm --entrypoint find {image} /configs /opt/illume/lib -name '*.key'")
        assert names == ""
        told = project.sh(f"docker history --no-trunc {image}; docker image inspect {image}")
        assert CANARY not in told
    finally:
        for path in private:
            (project.folder / path).unlink()


def test_a_change_of_the_source_installs_nothing_else_anew(project: Project, image: str) -> None:
    with (project.folder / "illume_loop" / "__init__.py").open("a") as source:
        source.write("\n# changed\n")
    with (project.folder / "pyproject.toml").open("a") as settings:
        settings.write("\n[tool.of_nobody]\nchanged = true\n")
    said = project.compose("build", "--progress=plain", deadline_s=BUILD_S)
    steps = {line.split()[0] for line in said.splitlines() if "install -c constraints.txt -r requirements.txt" in line}
    assert len(steps) == 1, said
    assert f"{steps.pop()} CACHED" in said, said
    changed = project.sh(
        f"docker run --rm {image} tail -1 /opt/illume/lib/python3.11/site-packages/illume_loop/__init__.py"
    )
    assert changed == "# changed\n"


def test_a_shipped_base_needs_no_network(project: Project, image: str) -> None:
    """A whole run, although nothing forbids the hub."""
    run = f"docker run --rm --network none --read-only --tmpfs /tmp {image}"
    assert "HF_HUB_OFFLINE" not in project.sh(f"{run} env")
    mounts = f"--volume {project.folder}/configs:/configs:ro --tmpfs /data:uid=10001,gid=10001"
    script = "illume-loop start --config /configs/small.toml --run-dir /data/run 2>&1"
    run = f"docker run --rm --network none --read-only --tmpfs /tmp {mounts} --env OMP_NUM_THREADS=1 {image}"
    said = project.sh(f"{run} sh -c '{script}'", deadline_s=1800)
    assert "page: /data/run/index.html" in said


def test_the_image_runs_as_nobody_special(image: str) -> None:
    words = ["docker", "run", "--rm", "--entrypoint", "id", image, "-u"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "10001\n"
