"""Roles, sessions and guessing, with a clock of the test's own."""

from __future__ import annotations

import pytest

from illume_loop.dashboard.access import (
    ALL_TRIES,
    SESSION_S,
    TRIES,
    TRIES_S,
    Access,
    Guesses,
    Role,
    check_reachable,
    is_loopback,
    passwords_of,
)
from illume_loop.errors import SettingsError, UsageError
from illume_loop.settings import DashboardSettings, load_settings


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_this_machine_needs_no_password(host: str) -> None:
    assert is_loopback(host)
    check_reachable(host, {})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "", "localhost.evil.example"])
def test_an_address_that_others_reach_is_refused_without_a_password(host: str) -> None:
    with pytest.raises(UsageError, match="ILLUME_DASHBOARD__ADMIN_PASSWORD"):
        check_reachable(host, {})
    check_reachable(host, {Role.READER: "something-long"})


def test_each_password_opens_its_role_and_nothing_else_opens_any() -> None:
    settings = DashboardSettings(reader_password="r" * 12, admin_password="a" * 12)
    access = Access(passwords_of(settings), "ann")
    assert [access.role_of(text) for text in ("r" * 12, "a" * 12, "", "r" * 11, "ä", "\ud800")] == [
        Role.READER,
        Role.ADMIN,
        *[None] * 4,
    ]
    assert access.visitor(None) is None
    assert access.visitor("made up") is None


def test_a_session_ends_by_itself_and_by_logging_out() -> None:
    clock = Clock()
    access = Access({Role.READER: "r" * 12}, "ann", clock)
    token, visitor = access.begin("bob", Role.READER)
    other, _ = access.begin("eve", Role.READER)
    assert access.visitor(token) == visitor
    assert visitor.csrf != token
    access.end(other)
    assert access.visitor(other) is None
    clock.now += SESSION_S
    assert access.visitor(token) is None


def test_passwords_are_long_differ_and_are_in_no_file(tmp_path: object) -> None:
    for values, reason in (
        ({"ILLUME_DASHBOARD__ADMIN_PASSWORD": "short"}, "12 characters"),
        (
            {"ILLUME_DASHBOARD__ADMIN_PASSWORD": "same-for-both", "ILLUME_DASHBOARD__READER_PASSWORD": "same-for-both"},
            "same password",
        ),
    ):
        with pytest.raises(SettingsError, match=reason) as refused:
            load_settings(environ=values)
        assert all(value not in str(refused.value) for value in values.values())
    with pytest.raises(SettingsError, match="set ILLUME_DASHBOARD__ADMIN_PASSWORD"):
        load_settings(None, {"dashboard.admin_password": "a-long-password"}, environ={})
    settings = load_settings(environ={"ILLUME_DASHBOARD__ADMIN_PASSWORD": "a-long-password"})
    assert settings.resolved()["dashboard"]["admin_password"] == "***"


def test_guessing_is_slowed_down_by_address_and_over_all() -> None:
    clock = Clock()
    guesses = Guesses(clock)
    for _ in range(TRIES):
        assert guesses.wait_s("a") == 0
        guesses.wrong("a")
        clock.now += 1
    assert guesses.wait_s("a") == TRIES_S - TRIES
    assert guesses.wait_s("b") == 0
    clock.now += TRIES_S - TRIES
    assert guesses.wait_s("a") == 0
    for number in range(ALL_TRIES):
        guesses.wrong(str(number))
    assert guesses.wait_s("somebody else") > 0
