"""At most a unit's id and a token come out of a message, whatever went in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from illume_workers.messages import LARGEST, BadMessageError, UnitMessage, parse


@given(st.integers(1, LARGEST), st.integers(0, LARGEST))
def test_what_is_sent_arrives(unit_id: int, token: int) -> None:
    message = UnitMessage(unit_id, token)
    assert parse((), message.payload()) == message


STRANGE: list[Any] = [
    {},
    {"unit_id": 1},
    {"unit_id": 1, "token": 0, "model": "m"},
    {"unit_id": "1", "token": 0},
    {"unit_id": 1.0, "token": 0},
    {"unit_id": True, "token": 0},
    {"unit_id": 1, "token": False},
    {"unit_id": 0, "token": 0},
    {"unit_id": 1, "token": -1},
    {"unit_id": LARGEST + 1, "token": 0},
    {"unit_id": [1], "token": 0},
    None,
    [1, 0],
]


@pytest.mark.parametrize("payload", STRANGE, ids=repr)
def test_anything_else_is_refused(payload: Any) -> None:
    with pytest.raises(BadMessageError):
        parse((), payload)


def test_positional_arguments_are_refused() -> None:
    with pytest.raises(BadMessageError):
        parse((1, 0), {"unit_id": 1, "token": 0})


@given(st.dictionaries(st.text() | st.sampled_from(["unit_id", "token"]), st.integers() | st.booleans() | st.none()))
def test_nothing_else_ever_raises(payload: dict[str, object]) -> None:
    try:
        message = parse((), payload)
    except BadMessageError:
        return
    assert message.payload() == payload
