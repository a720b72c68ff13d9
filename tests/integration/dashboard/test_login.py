"""With passwords: who gets in, what each role may do, and how a wrong password ends."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import pytest
from fastapi.testclient import TestClient

from illume_loop.dashboard.access import TRIES, Role
from tests.support.dashboard import PASSWORDS, RUN, dashboard_over
from tests.support.process import run


@pytest.fixture
def locked(seen_run: Path) -> Iterator[TestClient]:
    with dashboard_over(seen_run, PASSWORDS) as app, TestClient(app, base_url="http://dashboard.example") as found:
        yield found


def _log_in(client: TestClient, role: Role) -> None:
    assert client.post("/login", data={"name": "bob", "password": PASSWORDS[role]}).status_code == 200


@pytest.mark.parametrize("path", ["/", RUN, f"{RUN}/live", "/openapi.json", f"/images/{'0' * 64}", f"{RUN}/review"])
def test_nothing_is_shown_to_who_is_not_logged_in(locked: TestClient, path: str) -> None:
    answer = locked.get(path, follow_redirects=False)
    assert answer.status_code == 303
    assert urljoin(path, answer.headers["location"]).startswith("/login?next=")
    assert answer.text == ""


def test_roles_may_do_what_they_may(locked: TestClient) -> None:
    _log_in(locked, Role.READER)
    assert locked.get(f"{RUN}/gallery").status_code == 200
    assert locked.get(f"{RUN}/review").status_code == 403
    assert locked.get(f"{RUN}/models/v0001/promote").status_code == 403
    for path in (f"{RUN}/review", f"{RUN}/review/undo", f"{RUN}/models/v0001/promote", f"{RUN}/models/rollback"):
        assert locked.post(path, data={"sample": 1, "round": 1, "verdict": "agree"}).status_code == 403
    _log_in(locked, Role.REVIEWER)
    assert locked.get(f"{RUN}/review").status_code == 200
    assert locked.get(f"{RUN}/models/v0001/promote").status_code == 403
    assert "Promote" not in locked.get(f"{RUN}/models").text
    _log_in(locked, Role.ADMIN)
    assert locked.get(f"{RUN}/models/v0001/promote").status_code == 200


def test_the_cookie_is_kept_from_scripts_and_other_sites_and_leads_nowhere_else(locked: TestClient) -> None:
    form = {"name": "bob", "password": PASSWORDS[Role.READER], "next": "//evil.example/x"}
    answer = locked.post("/login", data=form, follow_redirects=False)
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert urljoin("/login", answer.headers["location"]) == "/"
    page = locked.get("/").text
    token = page.split('name="csrf" value="')[1].split('"')[0]
    locked.post("/logout", data={"csrf": token})
    assert locked.get("/", follow_redirects=False).status_code == 303


def test_after_some_wrong_passwords_even_the_right_one_has_to_wait(locked: TestClient) -> None:
    for _ in range(TRIES):
        assert locked.post("/login", data={"name": "bob", "password": "guess"}).status_code == 401
    answer = locked.post("/login", data={"name": "bob", "password": PASSWORDS[Role.ADMIN]})
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0


def test_without_passwords_another_host_name_is_refused(client: TestClient) -> None:
    """A page elsewhere may point its own name at this machine (DNS rebinding)."""
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 403
    assert client.get("/", headers={"Host": "localhost:8420"}).status_code == 200


def test_the_command_refuses_to_be_reached_by_others_without_a_password(seen_run: Path) -> None:
    ended = run("dashboard", "--host", "0.0.0.0", "--run-dir", seen_run, cwd=seen_run.parent)
    assert ended.code == 2
    assert len(ended.sentences) == 1
    assert "ILLUME_DASHBOARD__ADMIN_PASSWORD" in ended.sentences[0]
    assert "http://" not in ended.err


def test_a_port_that_is_taken_is_told_in_one_sentence(seen_run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("dashboard", "--port", port, "--run-dir", seen_run, cwd=seen_run.parent)
    assert (ended.code, ended.out) == (4, "")
    assert ended.err.splitlines() == [
        f"illume-loop: Another process listens at 127.0.0.1:{port}; stop it, or name another port with --port."
    ]
