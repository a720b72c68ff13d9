"""A host has a name that people know, and a process one that no other has."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from illume_loop.errors import SettingsError
from illume_loop.host import container_id, host_name, process_name
from illume_loop.settings import load_settings

ID = "3f51b36e560bfc252b68f4f32e7d27c9a6adcaac8f6667cc413db5d7191b2354"
DOCKER = f"""\
118 45 0:51 / / ro,relatime - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/ABC
135 118 254:0 /var/lib/docker/containers/{ID}/resolv.conf /etc/resolv.conf ro,relatime - ext4 /dev/vda rw
136 118 254:0 /var/lib/docker/containers/{ID}/hostname /etc/hostname ro,relatime - ext4 /dev/vda rw
"""
PODMAN = f"""\
700 690 0:25 /containers/storage/overlay-containers/{ID}/userdata/hostname /etc/hostname rw,nosuid - tmpfs tmpfs rw
"""
NO_CONTAINER = "21 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [(DOCKER, ID[:12]), (PODMAN, ID[:12]), (NO_CONTAINER, "")],
    ids=["docker", "podman", "no container"],
)
def test_a_container_is_known_by_its_mounts(tmp_path: Path, mounts: str, expected: str) -> None:
    (tmp_path / "mountinfo").write_text(mounts)
    assert container_id(tmp_path / "mountinfo") == expected


def test_where_nothing_tells_of_mounts_there_is_no_container(tmp_path: Path) -> None:
    assert container_id(tmp_path / "none") == ""


def test_processes_of_two_containers_of_a_host_have_two_names(tmp_path: Path) -> None:
    """Each container counts its processes from 1, and all see the host's name."""
    names = []
    for number, letter in enumerate("ab"):
        mounts = tmp_path / str(number)
        mounts.write_text(DOCKER.replace(ID, letter * 64))
        names.append(process_name("gpu-3", mounts))
    assert names == [f"gpu-3:{'a' * 12}.{os.getpid()}", f"gpu-3:{'b' * 12}.{os.getpid()}"]


def test_a_container_is_not_named_twice(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(DOCKER)
    assert process_name(ID[:12], tmp_path / "mountinfo") == f"{ID[:12]}:{os.getpid()}"


def test_a_host_has_its_own_name_unless_one_is_set() -> None:
    assert host_name() == socket.gethostname()
    settings = load_settings(environ={"ILLUME_RUNTIME__HOST_NAME": "gpu-3"})
    assert host_name(settings.runtime.host_name) == "gpu-3"


@pytest.mark.parametrize("name", ["two words", "a/b", "[red]", "x" * 65])
def test_a_name_that_lists_could_not_show_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="host_name"):
        load_settings(environ={"ILLUME_RUNTIME__HOST_NAME": name})
