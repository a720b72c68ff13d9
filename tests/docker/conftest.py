"""A copy of the checkout on a real Docker Engine; tests here are marked `docker` and skipped where there is none."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from tests.support.engine import BUILD_S, Project, copy_of_the_checkout, engine_answers, shell_blocks
from tests.support.process import TINY

IMAGE = os.environ.get("ILLUME_DOCKER_IMAGE", "illume-loop:docker-tests")


@pytest.fixture(scope="session")
def engine() -> None:
    """A Docker Engine that answers."""
    if not engine_answers():
        pytest.skip("no Docker Engine answers `docker info`")


@pytest.fixture(scope="module")
def project(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A checkout with the passwords of the how-to and a small run to do, and nothing started."""
    folder = tmp_path_factory.mktemp("checkout") / "illume-loop"
    made = Project(copy_of_the_checkout(folder), f"illume-test-{uuid.uuid4().hex[:8]}", {"ILLUME_IMAGE": IMAGE})
    (folder / "configs" / "small.toml").write_text(TINY.replace("rounds = 2", "rounds = 1"))
    (folder.parent / "home").mkdir()
    passwords, workers, *_ = shell_blocks("run-the-service.md")
    made.sh(passwords)
    made.sh(workers.replace("GENERATORS=4", "GENERATORS=2"))
    with (folder / ".env").open("a") as variables:
        variables.write("CONFIG=small.toml\n")
    try:
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def image(project: Project) -> str:
    """The image, built from the copy."""
    project.compose("build", deadline_s=BUILD_S)
    return IMAGE
