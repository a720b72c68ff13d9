"""Hide passwords in everything that is shown or logged: those of URLs, and every secret that was learned.

Invariants:

- A password that settings brought in never passes `redact`: not as it is, not percent-encoded, and not inside a URL
  that was not learned.
- Text that people type elsewhere (a prompt, a path) is not changed.
"""

from __future__ import annotations

import logging
import re
from urllib.parse import quote, quote_plus, unquote, urlsplit

HIDDEN = "***"
_SECRET_PARAMETER = re.compile(r"([?&][\w.-]*(?:password|passwd|secret|token)[\w.-]*=)[^&#\s'\"]+", re.IGNORECASE)
_URL_IN_TEXT = re.compile(r"\b[a-zA-Z][\w+.-]*://[^\s'\"<>]+")
_LEAST_LENGTH = 4
"""The least length of a password to hide. A shorter one would hide half of every sentence, and protects nothing."""

_learned: set[str] = set()


def url_without_password(url: str) -> str:
    """Return the URL with `***` in place of its password and of every parameter that is named like one."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    # A password that is not percent-encoded may contain any character, so it is taken to end at the last @. That hides
    # too much of a strange URL rather than too little.
    credentials, at, place = rest.rpartition("@")
    user, _, password = credentials.partition(":")
    shown = f"{user}:{HIDDEN}@{place}" if at and password else rest
    return scheme + separator + _SECRET_PARAMETER.sub(rf"\g<1>{HIDDEN}", shown)


def url_with_password(url: str, password: str) -> str:
    """Return the URL with this password in place of its own. The password may contain any character."""
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
    """Remember a secret that is not part of a URL, so that `redact` hides it in any text."""
    _learn(secret, secret)


def _learn(written: str, plain: str) -> None:
    if len(written) >= _LEAST_LENGTH:
        _learned.update({written, plain, quote(plain, safe=""), quote_plus(plain)})


def redact(text: str) -> str:
    """Return the text without passwords."""
    text = _URL_IN_TEXT.sub(lambda match: url_without_password(match.group()), text)
    for password in sorted(_learned, key=len, reverse=True):
        text = text.replace(password, HIDDEN)
    return text


class RedactingFormatter(logging.Formatter):
    """A log formatter whose lines and tracebacks contain no password."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the finished line."""
        return redact(super().format(record))
