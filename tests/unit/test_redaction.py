"""No password leaves through what is shown or logged."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import make_url

from illume_loop import redaction
from illume_loop.redaction import RedactingFormatter, learn, redact, url_with_password, url_without_password


@pytest.fixture(autouse=True)
def _nothing_learned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(redaction, "_learned", set())
    return iter([None])


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg://me:secret@db:5432/x", "postgresql+psycopg://me:***@db:5432/x"),
        ("redis://:secret@redis:6379/0", "redis://:***@redis:6379/0"),
        ("redis://:se/c@r?e#t@redis:6379/0", "redis://:***@redis:6379/0"),
        ("postgresql://me@db/x?password=secret&sslmode=require", "postgresql://me@db/x?password=***&sslmode=require"),
        ("rediss://h:1/0?ssl_cert_reqs=required", "rediss://h:1/0?ssl_cert_reqs=required"),
        ("s3://bucket/folder", "s3://bucket/folder"),
        ("s3://key:secret@bucket", "s3://key:***@bucket"),
        ("sqlite:////data/loop.sqlite", "sqlite:////data/loop.sqlite"),
        ("postgresql://me@db/x", "postgresql://me@db/x"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert url_without_password(url) == shown


@given(st.text(min_size=1).filter(lambda text: text.isprintable()))
def test_any_password_survives_the_url(password: str) -> None:
    """The parsers of the libraries that use the URL get the password back, and nobody else sees it."""
    url = url_with_password("postgresql+psycopg://me@db:5432/x?sslmode=require", password)
    assert make_url(url).password == password
    assert make_url(url).host == urlsplit(url).hostname == "db"
    assert url_without_password(url) == "postgresql+psycopg://me:***@db:5432/x?sslmode=require"


def test_a_password_replaces_the_one_before() -> None:
    assert url_with_password("redis://:old@[::1]:6379/0", "new") == "redis://:new@[::1]:6379/0"


def test_a_learned_password_is_hidden_wherever_it_stands() -> None:
    learn(url_with_password("redis://:@redis:6379/0", "p@ss w/rd"))
    for password in ("p@ss w/rd", quote("p@ss w/rd", safe=""), "p%40ss+w%2Frd"):
        assert redact(f"wrong password {password}.") == "wrong password ***."


def test_the_url_of_a_stranger_is_hidden_too() -> None:
    assert redact("cannot reach 'redis://:x@h:1/0', retrying") == "cannot reach 'redis://:***@h:1/0', retrying"


def test_a_very_short_password_does_not_blank_out_the_text() -> None:
    learn("redis://:a@redis:6379/0")
    assert redact("a sample") == "a sample"


def test_a_logged_traceback_holds_no_password() -> None:
    learn("redis://:hunter22@redis:6379/0")
    try:
        raise ConnectionError("redis said no to hunter22")
    except ConnectionError as error:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "tried %s", ("hunter22",), None)
        record.exc_info = (type(error), error, error.__traceback__)
    line = RedactingFormatter("%(message)s").format(record)
    assert "hunter22" not in line
    assert "tried ***" in line
    assert "redis said no to ***" in line
