"""docker-compose files as Compose reads them: several files laid over each other, variables filled in.

Follows the Compose specification as far as our files go: interpolation (`$$`, `${NAME}`, `:-`, `-`, `:?`, `?`), and the
merge of mappings, of `environment`, and of `volumes` by their place in the container; `command`, `entrypoint` and a
health check's `test` are replaced, other sequences are joined.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from tests.support.golden import ROOT

BASE, GPU, HOSTS, S3 = (f"docker-compose{name}.yml" for name in ("", ".gpu", ".hosts", ".s3"))
FILES = (BASE, GPU, HOSTS, S3)
NEEDED = {"STORES_HOST": "10.0.0.1", "ARTIFACTS_URL": "s3://bucket/illume"}
"""What the override files insist on."""

_VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|(?P<plain>\w+)|\{(?P<name>\w+)(?:(?P<sign>:?[-?])(?P<rest>[^}]*))?\})")
_REPLACED = ("command", "entrypoint", "test")


class MissingVariableError(Exception):
    """A variable that the file insists on is not set."""


def compose(*files: str, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The resolved model of these files."""
    merged: dict[str, Any] = {}
    for file in files:
        content = yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))
        used = {name: value for name, value in content.items() if not name.startswith("x-")}
        merged = _merged(merged, _filled(used, environ or {}))
    return merged


def variables(file: str) -> set[str]:
    """Every variable that a file fills in."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    found = {match["plain"] or match["name"] for match in _VARIABLE.finditer(text)}
    passed_through = set(re.findall(r"(?m)^\s+([A-Z][A-Z0-9_]*):\s*$", text))
    return {name for name in found if name} | passed_through


def _filled(value: Any, environ: Mapping[str, str]) -> Any:
    match value:
        case str():
            return _VARIABLE.sub(lambda match: _value(match, environ), value)
        case list():
            return [_filled(item, environ) for item in value]
        case dict():
            filled = {key: _filled(item, environ) for key, item in value.items()}
            # What a variable fills in is text, and Compose reads it as the number that the field takes.
            return {key: int(item) if key == "scale" else item for key, item in filled.items()}
    return value


def _value(match: re.Match[str], environ: Mapping[str, str]) -> str:
    if match["escaped"]:
        return "$"
    name, sign, rest = match["plain"] or match["name"], match["sign"] or "-", match["rest"] or ""
    value = environ.get(name)
    if value is None or (sign.startswith(":") and not value):
        if sign.endswith("?"):
            raise MissingVariableError(f"{name}: {rest}")
        return rest
    return value


def _merged(below: Any, above: Any, key: str = "") -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        joined = {name: _merged(below[name], above[name], name) if name in below else above[name] for name in above}
        return {**below, **joined}
    if isinstance(below, list) and isinstance(above, list) and key not in _REPLACED:
        if key == "volumes":
            return list({_target(volume): volume for volume in below + above}.values())
        return below + [item for item in above if item not in below]
    return above


def _target(volume: str | dict[str, Any]) -> str:
    return str(volume["target"]) if isinstance(volume, dict) else volume.split(":")[1]
