"""Continuing a run from its page: who may, what stands in the way, how it is stopped, and how a failure is told."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from illume_loop.dashboard.access import Role
from illume_loop.dashboard.starter import StartedLoop
from illume_loop.loop.run_directory import exclusive, holder
from tests.support.canned_run import small_settings, start
from tests.support.dashboard import PASSWORDS, RUN, dashboard_over
from tests.support.held_model import HELD, save_held
from tests.support.plugged import plugged


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FastAPI]:
    """The dashboard of a run of one round, whose next drawing is held; whatever was started ends with the test."""
    (tmp_path / "hold").touch()
    run_dir = tmp_path / "run"
    start(small_settings(save_held(tmp_path / "base", 0.4), run__rounds=1), run_dir, HELD)
    for name, value in plugged(HOLD_DRAWING=str(tmp_path / "hold")).items():
        monkeypatch.setenv(name, value)
    with dashboard_over(run_dir) as made:
        yield made
        loop = made.state.starter.last_loop()
        if loop is not None and loop.code is None:
            os.killpg(loop.pid, signal.SIGKILL)
            _ended(made)


def _ended(app: FastAPI) -> StartedLoop:
    deadline = time.monotonic() + 60
    while (loop := app.state.starter.last_loop()) is None or loop.code is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return loop


def _csrf(client: TestClient) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', client.get(f"{RUN}/start").text)
    assert found
    return found[1]


def test_one_loop_at_a_time_until_it_is_stopped(app: FastAPI) -> None:
    client = TestClient(app, base_url="http://127.0.0.1")
    run_dir, form = app.state.source.run_dir, {"csrf": _csrf(client), "rounds": 2}
    assert 'min="2"' in client.get(f"{RUN}/start").text
    assert client.post(f"{RUN}/start", data=form | {"csrf": "x"}).status_code == 403
    assert client.post(f"{RUN}/start", data=form, headers={"Origin": "https://evil.example"}).status_code == 403
    assert "name 2 rounds or more" in client.post(f"{RUN}/start", data=form | {"rounds": 1}).text
    assert app.state.starter.last_loop() is None
    with exclusive(run_dir):
        assert holder(run_dir) == str(os.getpid())
        refused = client.post(f"{RUN}/start", data=form)
        assert refused.status_code == 409
        assert f"pid {os.getpid()}" in refused.text

    assert holder(run_dir) is None
    before = client.get(f"{RUN}/live?once=true").text
    page = client.post(f"{RUN}/start", data=form).text
    assert "ann continued the run from this page, up to round 2" in page
    assert client.get(f"{RUN}/live?once=true").text != before
    assert client.post(f"{RUN}/start", data=form).status_code == 409

    assert "ann stopped the loop" in client.post(f"{RUN}/stop", data={"csrf": form["csrf"]}).text
    assert _ended(app).code == -signal.SIGTERM
    assert holder(run_dir) is None
    page = client.get(RUN).text
    assert "The loop was stopped. No work is lost." in page
    assert f'href="..{RUN}/start"' in page


def test_a_loop_that_is_refused_says_why_on_the_page(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    client = TestClient(app, base_url="http://127.0.0.1")
    monkeypatch.setenv("ILLUME_SAMPLING__TOP_K", "5")
    assert client.post(f"{RUN}/start", data={"csrf": _csrf(client), "rounds": 2}).status_code == 200
    assert _ended(app).code == 4
    page = client.get(RUN).text
    assert "ended with code 4: The run in" in page
    assert "sampling.top_k" in page


def test_only_an_admin_continues_and_only_the_run_of_this_directory(seen_run: Path, tmp_path: Path) -> None:
    with dashboard_over(seen_run, PASSWORDS) as app, TestClient(app, base_url="http://dashboard.example") as client:
        client.post("/login", data={"name": "bob", "password": PASSWORDS[Role.REVIEWER]})
        assert client.get(f"{RUN}/start").status_code == 403
        for path in ("start", "stop"):
            assert client.post(f"{RUN}/{path}", data={"rounds": 9}).status_code == 403
        assert "Continue" not in client.get(RUN).text
    url = f"sqlite:///{seen_run / 'loop.sqlite'}"
    with dashboard_over(tmp_path, url=url) as app, TestClient(app, base_url="http://127.0.0.1") as client:
        answer = client.get(f"{RUN}/start")
        assert answer.status_code == 409
        assert "where the run lies" in answer.text
        assert "Continue" not in client.get(RUN).text
