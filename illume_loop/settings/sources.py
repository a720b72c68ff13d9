"""Loads settings from their sources; an error names the key, its value and the source.

Each source overrides the one before: the defaults (or the settings of the run that is continued), a TOML file,
environment variables `ILLUME_<SECTION>__<KEY>`, and command-line flags. A variable can also name a file that holds the
value or the password of a URL; see environment.py.

Invariants:
- An unknown key is an error in every source, so that a typing mistake never runs for hours with a default.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from illume_loop.environment import environment_values, variable_of
from illume_loop.errors import SettingsError, SettingsFileError
from illume_loop.files import decoded
from illume_loop.redaction import HIDDEN, learn, learn_secret
from illume_loop.settings.tree import SECRETS, URLS, Settings, field_names


def load_settings(
    path: Path | None = None,
    overrides: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    stored: Mapping[str, Mapping[str, object]] | None = None,
    only: Collection[str] = (),
) -> Settings:
    """Load settings from a TOML file, the environment and flags, in rising precedence.

    `overrides` maps dotted keys ("run.seed") to values; a value of None means that the flag was not given. `stored`
    holds the resolved settings of the run that is continued; they replace the defaults. With `only`, the other sections
    keep their defaults, because their checks may need the settings of a run that is not found yet.
    Raises SettingsFileError if the file is missing or not TOML, and SettingsError for unknown keys and values out of
    bounds.
    """
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    environ = os.environ if environ is None else environ
    for key, value, source in _all_values(path, overrides or {}, environ, stored or {}):
        section, _, name = key.partition(".")
        if only and section not in only:
            continue
        merged.setdefault(section, {})[name] = value
        origin[key] = source
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        raise SettingsError(reason="; ".join(_explain(error, origin))) from None
    settings._provenance = origin
    for section, name in URLS:
        learn(getattr(getattr(settings, section), name))
    for section, name in SECRETS:
        learn_secret(getattr(getattr(settings, section), name))
    return settings


def _all_values(
    path: Path | None,
    overrides: Mapping[str, object],
    environ: Mapping[str, str],
    stored: Mapping[str, Mapping[str, object]],
) -> Iterator[tuple[str, object, str]]:
    """Yield (dotted key, value, source) from every source, lowest precedence first."""
    known = set(field_names())
    yield from _checked(_stored_values(stored), known, "the run")
    if path is not None:
        path = config_file(path)
        yield from _checked(_file_values(path), known, str(path))
    for key, text, variable in environment_values(environ, known):
        if key not in known:
            meant = _nearest(key, known)
            hint = f" (did you mean '{variable_of(meant)}'?)" if meant else ""
            raise SettingsError(reason=f"unknown environment variable '{variable}'{hint}")
        yield key, text, variable
    given = ((key, value) for key, value in overrides.items() if value is not None)
    yield from _checked(given, known, "flag")


def _stored_values(stored: Mapping[str, Mapping[str, object]]) -> Iterator[tuple[str, object]]:
    """Yield a run's stored settings without `[runtime]`, secrets, and URLs whose password is hidden."""
    for section, table in stored.items():
        if section != "runtime":
            given = ((name, value) for name, value in table.items() if (section, name) not in SECRETS)
            yield from ((f"{section}.{name}", value) for name, value in given if HIDDEN not in str(value))


def config_file(given: Path) -> Path:
    """Return the settings file that `--config` names: a path, or the name of a shipped file such as `dpo`."""
    return given if given.exists() else shipped_configs().get(str(given), given)


def shipped_configs() -> dict[str, Path]:
    """Return the shipped settings files, by name."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    folder = installed if installed.is_dir() else package.parent / "configs"
    return {file.stem: file for file in sorted(folder.glob("*.toml"))}


def _file_values(path: Path) -> Iterator[tuple[str, object]]:
    try:
        tables = tomllib.loads(decoded(path.read_bytes()).replace("\r\n", "\n"))
    except FileNotFoundError:
        names = ", ".join(shipped_configs())
        raise SettingsFileError(path=path, reason=f"it does not exist, and is none of {names}") from None
    except OSError as error:
        raise SettingsFileError(path=path, reason=error.strerror or str(error)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsFileError(path=path, reason=f"it is not TOML ({error})") from None
    for section, table in tables.items():
        if isinstance(table, dict) and section in Settings.model_fields:
            yield from ((f"{section}.{name}", value) for name, value in table.items())
        else:
            yield section, table


def _checked(values: Iterator[tuple[str, object]], known: set[str], source: str) -> Iterator[tuple[str, object, str]]:
    for key, value in values:
        if key not in known:
            meant = _nearest(key, known)
            hint = f" (did you mean '{meant}'?)" if meant else ""
            raise SettingsError(reason=f"unknown key '{key}' in {source}{hint}")
        if tuple(key.split(".")) in SECRETS:
            variable = variable_of(key)
            raise SettingsError(reason=f"{key} cannot come from {source}; set {variable} or {variable}_FILE instead")
        yield key, value, source


def _nearest(key: str, known: set[str]) -> str | None:
    matches = get_close_matches(key, sorted(known), n=1, cutoff=0.8)
    return matches[0] if matches else None


def _explain(error: ValidationError, origin: Mapping[str, str]) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        key = ".".join(str(step) for step in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if len(problem["loc"]) < 2:  # the message is about several settings and names them itself
            yield message
        else:
            shown = HIDDEN if tuple(problem["loc"]) in URLS + SECRETS else repr(problem["input"])
            yield f"{key} = {shown} ({origin.get(key, 'default')}): {message[:1].lower()}{message[1:]}"
