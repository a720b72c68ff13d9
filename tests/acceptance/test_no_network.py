"""A run of a shipped base asks no server for anything, although nothing forbids it to."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.support.process import TINY, run


def test_a_run_of_a_shipped_base_asks_no_hub(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(TINY.replace("rounds = 2", "rounds = 1"))
    with socket.create_server(("127.0.0.1", 0)) as hub:
        address = f"http://127.0.0.1:{hub.getsockname()[1]}"
        allowed = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0", "HTTPS_PROXY": address}
        # As installed: what was imported before would not read these variables.
        ended = run("start", "--config", "small.toml", "--run-dir", "run", cwd=tmp_path, cold=True, **allowed)
        assert ended.code == 0, ended.err
        assert not _was_asked(hub)


def _was_asked(hub: socket.socket) -> bool:
    hub.setblocking(False)
    try:
        connection, _ = hub.accept()
    except BlockingIOError:
        return False
    connection.close()
    return True
