"""Read settings from environment variables, and from files that variables name, as secrets of a container are.

    ILLUME_<SECTION>__<KEY>                 the value
    ILLUME_<SECTION>__<KEY>_FILE            a file that holds the value
    ILLUME_<SECTION>__<KEY>_PASSWORD_FILE   a file that holds the password of the URL that the value is

Invariants:

- The content of a file is never part of an error. Only its path is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from pathlib import Path

from illume_loop.errors import SettingsError
from illume_loop.redaction import url_with_password

PREFIX = "ILLUME_"
_FILE = "_file"
_PASSWORD_FILE = "_password_file"


def variable_of(key: str) -> str:
    """Return the variable that sets a dotted key."""
    return PREFIX + key.replace(".", "__").upper()


def environment_values(environ: Mapping[str, str], known: Set[str]) -> Iterator[tuple[str, str, str]]:
    """Yield (dotted key, value, variable) of every variable with our prefix, also if the key is not `known`.

    Raises SettingsError for a file that cannot be read, for a key that is set both ways, and for the password of a URL
    that the environment does not set.
    """
    given = {_key(variable): variable for variable in environ if variable.startswith(PREFIX)}
    values = {key: (environ[variable], variable) for key, variable in given.items()}
    for key, variable in given.items():
        named = key.removesuffix(_FILE)
        if key not in known and key.endswith(_FILE) and named in known:
            if named in values:
                raise SettingsError(reason=f"{values[named][1]} and {variable} are both set; leave one of them out")
            values[named] = (_content(variable, environ[variable]), variable)
            del values[key]
    for key, variable in given.items():
        named = key.removesuffix(_PASSWORD_FILE)
        if key.endswith(_PASSWORD_FILE) and named in known and named.endswith("_url"):
            if named not in values:
                raise SettingsError(reason=f"{variable} needs {variable_of(named)}, the URL that the password is for")
            url, source = values[named]
            values[named] = (url_with_password(url, _content(variable, environ[variable])), source)
            del values[key]
    yield from ((key, value, variable) for key, (value, variable) in values.items())


def _key(variable: str) -> str:
    return variable.removeprefix(PREFIX).lower().replace("__", ".", 1)


def _content(variable: str, path: str) -> str:
    try:
        content = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingsError(reason=f"{variable} names {path}, which cannot be read ({reason})") from None
    if not content:
        raise SettingsError(reason=f"{variable} names {path}, which is empty")
    return content
