"""A store that cannot be used ends in one sentence, whatever its package raises; a folder's name has no meaning."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from illume_loop.errors import (
    MissingExtraError,
    SettingsError,
    StoreUnusableError,
    UsageError,
)
from illume_loop.files import Root
from tests.support.servers import free_port

STRANGE = ["my%20run", "what?", "a#b", "a::b", "[1]*", "{x}", "a@b:c", "s3::b"]


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("written", ["folder", "plain", "url"])
def test_a_folder_of_any_name_is_itself(name: str, written: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    root = (
        Root.of_folder(folder) if written == "folder" else Root(f"file://{folder}" if written == "url" else str(folder))
    )
    root.write("a/b", b"content")
    assert (folder / "a" / "b").read_bytes() == root.read("a/b") == b"content"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert root.is_local


def test_a_server_that_refuses_is_told() -> None:
    with pytest.raises(
        StoreUnusableError, match=r"ftp://me:\*\*\*@127\.0\.0\.1:\d+/x cannot be used \(Connection refused"
    ):
        Root(f"ftp://me:secret@127.0.0.1:{free_port()}/x")


def test_a_server_that_ends_the_connection_is_told_at_each_access() -> None:
    """The file system answers lazily: it is made without a server."""
    root = Root(f"webhdfs://127.0.0.1:{free_port()}/x")
    with pytest.raises(StoreUnusableError, match="cannot be used"):
        root.read("a")
    with pytest.raises(StoreUnusableError, match="cannot be used"):
        root.write("a", b"x")


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(StoreUnusableError, match=r"store cannot be used \(.*; see that it is reachable"):
        Root(str(tmp_path / "store")).write("a/b", b"x")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    with pytest.raises(StoreUnusableError):
        Root.of_folder(tmp_path).read("socket")
    listening.close()


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("s3://key:secret@bucket/x", MissingExtraError, r"illume-loop\[s3\]"),
        ("s3:bucket/x", SettingsError, "write s3://"),
        ("gs://bucket/x", UsageError, "gcsfs"),
        ("nofs://bucket/x", SettingsError, "nofs"),
    ],
)
def test_a_wrong_address_says_what_to_do(url: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as told:
        Root(url)
    assert "secret" not in str(told.value)
