"""The base class of all tables of settings, and the checks that several tables share."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

_SIGNS = (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"), ("min_length", "length >="), ("pattern", "matches"))

ADVANCED: JsonDict = {"advanced": True}
"""The mark of a setting that few runs need; the reference lists these settings in its second part."""


class Section(BaseModel):
    """A table of the TOML file: frozen, without unknown keys; each key has bounds, a default and a description."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False, str_strip_whitespace=True
    )


def bounds(field: FieldInfo) -> str:
    """Describe the values that a setting accepts: ">= 1, <= 1000", "one of base, parent", "true or false", "text"."""
    if get_origin(field.annotation) is Literal:
        choices = get_args(field.annotation)
        return f"one of {', '.join(choices)}" if len(choices) > 1 else str(choices[0])
    if field.annotation is bool:
        return "true or false"
    limits = ((sign, getattr(item, name, None)) for item in field.metadata for name, sign in _SIGNS)
    return ", ".join(f"{sign} {limit}" for sign, limit in limits if limit is not None) or "text"


def checked_url(url: str) -> str:
    """Return the URL. Raises ValueError if it is ambiguous: a driver might print part of its password as a host."""
    try:
        parts = urlsplit(url)
        whole = parts.netloc.count("@") < 2 and (not parts.netloc or parts.port != 0)
    except ValueError:
        whole = False
    if not whole:
        raise ValueError(
            "it is ambiguous; use a port of 1 to 65535, and percent-encode the password or put it in a *_PASSWORD_FILE"
        )
    return url
