"""Answers that a model writes: parsed strictly, counted where they are invalid, and asked for again.

Guarantee: what cannot be parsed is never taken for an answer. The first try is greedy; each further one is sampled with
a seed of its own, so that it can differ and yet be drawn again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")
RETRY_TEMPERATURE = 1.0
SeedOf = Callable[..., int]
"""A seed from whatever tells two draws apart."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """A parsed answer, or None where no try was valid; `num_invalid` tries were not."""

    value: T | None
    num_invalid: int


def ask_until_valid(
    write: Callable[[Sequence[int], int], Sequence[str]],
    parse: Callable[[int, str], T],
    count: int,
    retries: int,
) -> list[Answer[T]]:
    """One answer for each of `count` items.

    `write(items, attempt)` writes the answers of some items, attempt 0 being the greedy one; `parse(item, text)` raises
    ValueError for what is invalid.
    """
    values: dict[int, T] = {}
    num_invalid = [0] * count
    for attempt in range(retries + 1):
        open_items = [item for item in range(count) if item not in values]
        if not open_items:
            break
        for item, text in zip(open_items, write(open_items, attempt), strict=True):
            try:
                values[item] = parse(item, text)
            except ValueError:
                num_invalid[item] += 1
    return [Answer(values.get(item), num_invalid[item]) for item in range(count)]


def temperature_of(attempt: int) -> float:
    """Greedy first; the same again would be as invalid as before."""
    return RETRY_TEMPERATURE if attempt else 0.0


def parse_json(text: str) -> Any:
    """Strict JSON, with blanks around its strings taken off: word tokenizers set them. Raises ValueError."""
    return _stripped(json.loads(text, object_pairs_hook=_object, parse_constant=_refuse))


def _stripped(value: Any) -> Any:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list):
        return [_stripped(item) for item in value]
    if isinstance(value, dict):
        return _object([(key.strip(), _stripped(item)) for key, item in value.items()])
    return value


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
