"""A run of the canned backend to look at, and a dashboard over it, in this process or at a port."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from illume_loop.dashboard.access import Access, Role
from illume_loop.dashboard.app import create_app
from illume_loop.dashboard.source import Source
from illume_loop.settings import Settings, load_settings
from tests.support.canned_run import small_settings, start
from tests.support.servers import free_port

RUN = "/runs/1"
PASSWORDS = {Role.READER: "reads-only-1234", Role.REVIEWER: "reviews-too-1234", Role.ADMIN: "may-promote-1234"}


def looked_at(folder: Path, **values: object) -> Path:
    """A run of two rounds whose judge asks questions and writes critiques; its directory."""
    settings = small_settings(
        folder / "base",
        **{
            "sampling__prompts_per_round": 24,
            "assess__reading": "yes-no",
            "assess__critiques": True,
            "gate__min_gain": -1.0,
            **values,
        },
    )
    start(settings, folder / "run")
    return folder / "run"


@contextmanager
def dashboard_over(run_dir: Path, passwords: dict[Role, str] | None = None, url: str = "") -> Iterator[FastAPI]:
    """The dashboard as an application; without passwords, everyone is its admin "ann"."""
    values: dict[str, object] = {"store.database_url": url} if url else {}
    settings: Settings = load_settings(None, values, environ={})
    source = Source(settings, run_dir)
    try:
        yield create_app(source, Access(passwords or {}, "ann"))
    finally:
        source.close()


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The application at a port of its own; its URL."""
    config = uvicorn.Config(
        app, port=free_port(), log_level="error", lifespan="off", timeout_graceful_shutdown=1, proxy_headers=False
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < deadline, "the dashboard did not start"
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{config.port}"
    finally:
        server.should_exit = True
        thread.join(30)
