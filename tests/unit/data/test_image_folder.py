"""Images named by path are found however the path is written, and none outside of the folder."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from urllib.parse import quote

import pytest

from illume_loop.data.fields import BadRow
from illume_loop.data.image_folder import ImageFolder, files_below

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    names = (
        "0.jpg",
        "a/b.jpg",
        f"{DECOMPOSED}.jpg",
        f"a/{COMPOSED}.jpg",
        "50%.jpg",
        "a b.jpg",
        "a\\c.jpg",
        "a\u202fd.jpg",
    )
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "imagesque").mkdir()
    (tmp_path / "imagesque" / "0.jpg").write_bytes(b"secret")
    return folder


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("./0.jpg", "0.jpg"),
        (".//0.jpg", "0.jpg"),
        ("a//b.jpg", "a/b.jpg"),
        ("a/./b.jpg", "a/b.jpg"),
        ("a/../0.jpg", "0.jpg"),
        ("a\\b.jpg", "a/b.jpg"),
        (".\\a\\b.jpg", "a/b.jpg"),
        ("a\\c.jpg", "a\\c.jpg"),
        ("images/0.jpg", "0.jpg"),
        ("./images/a/b.jpg", "a/b.jpg"),
        ("a%20b.jpg", "a b.jpg"),
        ("50%.jpg", "50%.jpg"),
        ("50%25.jpg", "50%.jpg"),
        ("a\u202fd.jpg", "a\u202fd.jpg"),
        (f"{COMPOSED}.jpg", f"{DECOMPOSED}.jpg"),
        (f"a/{DECOMPOSED}.jpg", f"a/{COMPOSED}.jpg"),
        (quote(f"{COMPOSED}.jpg"), f"{DECOMPOSED}.jpg"),
    ],
)
def test_a_path_is_found_however_it_is_written(folder: Path, name: str, found: str) -> None:
    assert ImageFolder(folder).read(name) == found.encode()


def test_absolute_paths_below_the_folder_are_found_by_each_of_its_names(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    for images in (folder, tmp_path / "link"):
        for name in (f"{folder}/0.jpg", f"{folder}//./0.jpg", f"file://{folder}/0.jpg"):
            assert ImageFolder(images).read(name) == b"0.jpg"
    assert ImageFolder(tmp_path / "link").read(f"{tmp_path}/link/0.jpg") == b"0.jpg"
    (folder / "elsewhere").symlink_to(tmp_path / "imagesque")
    assert ImageFolder(folder).read("elsewhere/0.jpg") == b"secret", "whoever owns the folder has made the link"
    with pytest.raises(BadRow, match="outside"):
        ImageFolder(folder).read("elsewhere/../../secret.jpg")


@pytest.mark.parametrize(
    "name",
    [
        "../secret.jpg",
        "a/../../secret.jpg",
        "./../secret.jpg",
        "..\\secret.jpg",
        "a\\..\\..\\secret.jpg",
        "a/..\\../secret.jpg",
        "%2e%2e/secret.jpg",
        "..%2fsecret.jpg",
        "/etc/passwd",
        "\\etc\\passwd",
        "C:\\images\\0.jpg",
        "{folder}/../secret.jpg",
        "{folder}que/0.jpg",
        "file:///etc/passwd",
        "..",
        ".",
        "/",
        "",
    ],
)
def test_what_leaves_the_folder_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(BadRow) as caught:
        ImageFolder(folder).read(name.replace("{folder}", str(folder)))
    assert caught.value.reason == "image outside of the folder"


@pytest.mark.parametrize("name", ["a", "none.jpg", "0.jpg/1.jpg", "a\0b.jpg", "x" * 300 + ".jpg"])
def test_what_is_not_there_is_told(folder: Path, name: str) -> None:
    with pytest.raises(BadRow) as caught:
        ImageFolder(folder).read(name)
    assert caught.value.reason == "image not found"


def test_a_folder_is_walked_through_links_once_and_without_hidden_files(folder: Path, tmp_path: Path) -> None:
    (folder / "more").symlink_to(tmp_path / "imagesque")
    (folder / "round").symlink_to(folder)
    (folder / "._0.jpg").write_bytes(b"")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "1.jpg").write_bytes(b"")
    found = list(files_below(folder))
    assert found == sorted(found)
    assert len(found) == 9
    assert folder / "more" / "0.jpg" in found
