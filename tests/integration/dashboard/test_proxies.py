"""The dashboard behind real reverse proxies: people log in, links stay below the proxy's path, forgery is ignored."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from fastapi.testclient import TestClient
from starlette.testclient import httpx

from illume_loop.dashboard.access import ALL_TRIES, TRIES, Role
from illume_loop.settings.hosts import networks_in
from tests.support import proxy
from tests.support.dashboard import PASSWORDS, dashboard_over, served
from tests.support.process import begin
from tests.support.servers import free_port

FORM = {"name": "Kim", "password": PASSWORDS[Role.ADMIN]}
FLAVOURS = (
    proxy.nginx_as_documented,
    proxy.apache_as_it_comes,
    proxy.caddy_as_it_comes,
    proxy.with_standard_header,
)
LINKS = ("href", "src", "action", "hx-get", "data-live")
FORWARDED = {
    "Origin": "https://loop.example.org",
    "X-Forwarded-Host": "loop.example.org",
    "X-Forwarded-Proto": "https",
}


@pytest.fixture(scope="module")
def port(seen_run: Path) -> Iterator[int]:
    with dashboard_over(seen_run, PASSWORDS) as app, served(app) as url:
        yield urlsplit(url).port or 0


def _browser(url: str) -> httpx.Client:
    return httpx.Client(headers={"Origin": re.sub(r"(?<=\d)/.*", "", url)}, trust_env=False, timeout=60)


class _Links(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, _: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in LINKS and value and not value.startswith("#")]


@pytest.mark.parametrize("flavour", FLAVOURS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("path", ["", "/loop"])
def test_people_log_in_and_out(port: int, flavour: proxy.Flavour, path: str) -> None:
    with proxy.proxied(port, flavour, path) as url, _browser(url) as browser:
        asked = browser.get(f"{url}/runs/1/models?a=v0001&b=v0002")
        login = urljoin(f"{url}/runs/1/models", asked.headers["location"])
        assert login.startswith(f"{url}/login?next=")
        page = browser.get(login)
        wanted = re.search(r'name="next" value="([^"]+)"', page.text)
        assert wanted
        answer = browser.post(f"{url}/login", data=FORM | {"next": wanted[1].replace("&amp;", "&")})
        assert answer.status_code == 303
        assert urljoin(f"{url}/login", answer.headers["location"]) == f"{url}/runs/1/models?a=v0001&b=v0002"
        cookie = answer.headers["set-cookie"].lower()
        assert ("secure" in cookie) == (flavour is not proxy.apache_as_it_comes)
        [kept] = browser.cookies.jar
        assert kept.path == (path or "/")
        kept.secure = False  # This proxy speaks plain HTTP to its browser.
        assert "Compare" in browser.get(f"{url}/runs/1/models").text
        token = re.search(r'name="csrf" value="([^"]+)"', browser.get(f"{url}/runs/1").text)
        assert token
        assert browser.post(f"{url}/logout", data={"csrf": token[1]}).status_code == 303
        assert list(browser.cookies.jar) == []


def test_every_link_of_every_page_stays_below_the_proxys_path(port: int) -> None:
    """Pages, images, scripts, forms and news, wherever they stand; a path that the proxy cuts off is unknown here."""
    with proxy.proxied(port, proxy.apache_as_it_comes, "/tools/loop") as url, _browser(url) as browser:
        assert browser.post(f"{url}/login", data=FORM).status_code == 303
        waiting, kinds = [f"{url}/"], set[str]()
        while waiting:
            page = waiting.pop()
            answer = browser.get(page + ("?once=true" if page.endswith("/live") else ""))
            assert answer.status_code == 200, page
            for link in _Links(answer.text).found if "text/html" in answer.headers["content-type"] else ():
                there = urljoin(page, link)
                assert there.startswith(f"{url}/"), (page, link)
                kind = re.sub(r"[0-9a-f]{64}|\d+", "N", urlsplit(there).path)
                if kind not in kinds:
                    kinds.add(kind)
                    # Addresses of forms are not asked for, all others are.
                    if not re.search(r"/(login|logout|undo|stop)$", kind):
                        waiting.append(there)
    found = {kind.removeprefix("/tools/loop") for kind in kinds}
    assert found >= {
        *("/", "/workers", "/static/app.js", "/static/style.css", "/runs/N", "/runs/N/live", "/runs/N/gallery"),
        *("/runs/N/rounds/N", "/runs/N/samples/N", "/runs/N/judge", "/runs/N/models", "/runs/N/review", "/live"),
        *("/images/N", "/thumbs/N", "/logout", "/runs/N/models/vN/promote", "/runs/N/start"),
    }


def test_a_path_that_the_proxy_names_and_leaves_is_understood(port: int) -> None:
    headers = FORWARDED | {"X-Forwarded-Prefix": "/loop"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False) as browser:
        for asked in ("/loop", "/loop/", "/loop/runs/1", "/runs/1"):
            answer = browser.get(asked)
            assert answer.headers["location"].startswith("/loop/login?next=/"), asked
        assert 'href="/loop/static/style.css"' in browser.get("/loop/login").text
        answer = browser.get("/login", headers={"X-Forwarded-Prefix": '//evil.example/"><script>'})
        assert "evil" not in answer.text


def test_a_slash_too_many_does_not_lead_to_the_address_behind_the_proxy(port: int) -> None:
    with proxy.proxied(port, proxy.nginx_as_documented, "/loop") as url, _browser(url) as browser:
        answer = browser.get(f"{url}/login/")
        assert urljoin(f"{url}/login/", answer.headers["location"]) == f"{url}/login"


def test_nginx_as_it_comes_works_with_browsers_that_tell_whose_form_it_is(port: int) -> None:
    with proxy.proxied(port, proxy.nginx_as_it_comes) as url, _browser(url) as browser:
        assert browser.post(f"{url}/login", data=FORM, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 303
        told = browser.post(f"{url}/login", data=FORM)
        assert told.status_code == 403
        assert "X-Forwarded-Host" in told.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://loop.example.org:8443"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_forms_of_other_sites_are_refused_behind_a_proxy_too(port: int, headers: dict[str, str]) -> None:
    answer = httpx.post(f"http://127.0.0.1:{port}/login", data=FORM, headers=FORWARDED | headers, trust_env=False)
    assert answer.status_code == 403


def test_who_is_no_trusted_proxy_is_not_believed(seen_run: Path) -> None:
    with dashboard_over(seen_run, PASSWORDS) as app:
        for peer in ("203.0.113.7", "::ffff:203.0.113.7", "testclient"):
            attacker = TestClient(app, base_url="http://10.0.0.5", client=(peer, 4711), follow_redirects=False)
            assert attacker.post("/login", data=FORM, headers=FORWARDED).status_code == 403
            answer = attacker.post("/login", data=FORM, headers={"X-Forwarded-Proto": "https"})
            assert "secure" not in answer.headers["set-cookie"].lower()
            guesses = [
                attacker.post("/login", data={"password": "guess"}, headers={"X-Forwarded-For": f"198.51.100.{number}"})
                for number in range(TRIES + 1)
            ]
            assert [answer.status_code for answer in guesses] == [401] * TRIES + [429]
            attacker.cookies.clear()
            assert attacker.get("/", headers={"X-Forwarded-Prefix": "/x"}).headers["location"].startswith("./login")


def test_guesses_count_for_the_address_that_the_proxy_saw(port: int, seen_run: Path) -> None:
    """Whatever the client says before that, and without locking others out."""
    with dashboard_over(seen_run, PASSWORDS) as app, served(app) as url:
        inner = urlsplit(url).port or 0
        with proxy.proxied(inner, proxy.nginx_as_documented, client="203.0.113.7") as one, _browser(one) as guesser:
            codes = [
                guesser.post(
                    f"{one}/login", data={"password": "guess"}, headers={"X-Forwarded-For": f"198.51.100.{number}"}
                ).status_code
                for number in range(TRIES + 1)
            ]
            assert codes == [401] * TRIES + [429]
        with proxy.proxied(inner, proxy.nginx_as_documented, client="203.0.113.8") as two, _browser(two) as other:
            assert other.post(f"{two}/login", data=FORM).status_code == 303
    assert TRIES < ALL_TRIES


def test_without_passwords_a_proxy_shows_it_to_nobody(seen_run: Path) -> None:
    """Everybody would be its admin; and a page that points a name of its own here may forge any header."""
    with dashboard_over(seen_run) as app:
        local = TestClient(app, base_url="http://127.0.0.1:8420", client=("127.0.0.1", 4711))
        assert local.get("/").status_code == 200
        for headers in (
            {"X-Forwarded-Host": "loop.example.org"},
            {"X-Forwarded-For": "203.0.113.7"},
            {"Forwarded": "for=203.0.113.7"},
            {"Host": "evil.example", "X-Forwarded-Host": "localhost"},
        ):
            answer = local.get("/", headers=headers)
            assert answer.status_code == 403, headers
        assert "set a password" in answer.text


def test_the_command_believes_the_proxies_that_it_is_told(seen_run: Path) -> None:
    """As it is started, with the server's own handling of forwarded headers out of the way."""
    for trusted, code in (("127.0.0.0/8", 303), ("", 403), ("10.0.0.0/8", 403)):
        port = free_port()
        more = {"ILLUME_DASHBOARD__ADMIN_PASSWORD": FORM["password"], "ILLUME_DASHBOARD__TRUSTED_PROXIES": trusted}
        command = begin("dashboard", "--port", port, "--run-dir", seen_run, cwd=seen_run.parent, **more)
        with command as process:
            assert process.stderr
            for line in process.stderr:
                if "startup complete" in line:
                    break
            answer = httpx.post(f"http://127.0.0.1:{port}/login", data=FORM, headers=FORWARDED, trust_env=False)
            process.terminate()
            process.communicate(timeout=60)
        assert answer.status_code == code, trusted


def test_networks_are_read_as_people_write_them() -> None:
    assert [str(one) for one in networks_in("10.0.0.1, 192.168.0.0/16,, ::1 ")] == [
        "10.0.0.1/32",
        "192.168.0.0/16",
        "::1/128",
    ]
