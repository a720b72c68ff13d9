"""Images by content: the same once and twice, checked at every read."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from illume_loop.artifacts.images import ImageStore
from illume_loop.errors import CorruptArtifactError
from illume_loop.files import Root

RED = Image.new("RGB", (4, 4), "red")
BLUE = Image.new("RGB", (4, 4), "blue")


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Root:
    """A local folder, and a file system without renames as object stores are."""
    return Root(str(tmp_path)) if request.param == "local" else Root(f"memory://{tmp_path}")


def test_what_is_written_is_read(root: Root) -> None:
    store = ImageStore(root)
    red, blue, again = store.write_all([RED, BLUE, RED.copy()])
    assert red == again != blue
    assert store.read(blue).tobytes() == BLUE.tobytes()


def test_a_damaged_image_is_refused(root: Root) -> None:
    store = ImageStore(root)
    (name,) = store.write_all([RED])
    path = f"images/{name[:2]}/{name}.png"
    root.write(path, root.read(path)[:-1])
    with pytest.raises(CorruptArtifactError, match=name):
        store.read(name)


def test_a_missing_image_is_named(root: Root) -> None:
    with pytest.raises(CorruptArtifactError, match=f"{'0' * 64}.png"):
        ImageStore(root).read("0" * 64)


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "/etc/passwd",
        "images/../../outside",
        "images//etc/passwd",
        "images/./x",
        "images\\..\\x",
        "images/%2e%2e/%2e%2e/outside",
        "images/x\0.png",
        "images/x\n",
        "",
    ],
)
def test_no_path_leaves_the_root(root: Root, name: str) -> None:
    for act in (lambda: root.write(name, b""), lambda: root.read(name), lambda: root.exists(name)):
        with pytest.raises(ValueError, match="leads out"):
            act()
