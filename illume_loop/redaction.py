"""Passwords out of whatever is shown or logged: URLs lose theirs, and texts lose every secret that was learned.

Guarantee: a password that settings brought in never leaves this process through `redact`, neither as it is nor
percent-encoded, nor inside a URL that nobody announced. What people type elsewhere (a prompt, a path) is not touched.
"""

from __future__ import annotations

import logging
import re
from urllib.parse import quote, quote_plus, unquote, urlsplit

HIDDEN = "***"
_SECRET_PARAMETER = re.compile(r"([?&][\w.-]*(?:password|passwd|secret|token)[\w.-]*=)[^&#\s'\"]+", re.IGNORECASE)
_URL_IN_TEXT = re.compile(r"\b[a-zA-Z][\w+.-]*://[^\s'\"<>]+")
_LEAST_LENGTH = 4
"""A shorter password would blank out half of every sentence, and protects nothing."""

_learned: set[str] = set()


def url_without_password(url: str) -> str:
    """The URL with `***` for its password and for every parameter that is named like one."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    # A password that nobody encoded may hold any character, so it is taken to end at the last @ of all: rather too
    # much is hidden of a strange URL than too little.
    credentials, at, place = rest.rpartition("@")
    user, _, password = credentials.partition(":")
    shown = f"{user}:{HIDDEN}@{place}" if at and password else rest
    return scheme + separator + _SECRET_PARAMETER.sub(rf"\g<1>{HIDDEN}", shown)


def url_with_password(url: str, password: str) -> str:
    """The URL with this password in the place of its own, whatever characters it has."""
    parts = urlsplit(url)
    _, _, place = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{quote(parts.username or '', safe='')}:{quote(password, safe='')}@{place}").geturl()


def learn(url: str) -> None:
    """Remember the password of a URL, so that `redact` hides it in any text."""
    try:
        password = urlsplit(url).password
    except ValueError:
        return
    if password:
        _learn(password, unquote(password))


def learn_secret(secret: str) -> None:
    """Remember a secret that stands for itself, so that `redact` hides it in any text."""
    _learn(secret, secret)


def _learn(written: str, plain: str) -> None:
    if len(written) >= _LEAST_LENGTH:
        _learned.update({written, plain, quote(plain, safe=""), quote_plus(plain)})


def redact(text: str) -> str:
    """The text without passwords."""
    text = _URL_IN_TEXT.sub(lambda match: url_without_password(match.group()), text)
    for password in sorted(_learned, key=len, reverse=True):
        text = text.replace(password, HIDDEN)
    return text


class RedactingFormatter(logging.Formatter):
    """A log format whose lines, tracebacks included, hold no password."""

    def format(self, record: logging.LogRecord) -> str:
        """The finished line."""
        return redact(super().format(record))
