"""Strict parsing, and asking again."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from illume_loop.judge.critiques import ask_until_valid, parse_json


def test_blanks_around_strings_are_the_tokenizers() -> None:
    assert parse_json('{" object ":{" verdict ":" yes "}," n ":[" a b "]}') == {
        "object": {"verdict": "yes"},
        "n": ["a b"],
    }


@pytest.mark.parametrize(
    "text", ["", "yes", '{"a":1', '{"a":1} and more', '{"a":1,"a":2}', '{"a":1," a":2}', "NaN", '{"a":Infinity}']
)
def test_what_is_not_strict_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_only_what_was_invalid_is_asked_again_and_all_of_it_is_counted() -> None:
    valid_at = [0, 2, 9]
    asked: list[tuple[list[int], int]] = []

    def write(items: Sequence[int], attempt: int) -> list[str]:
        asked.append((list(items), attempt))
        return ["1" if attempt >= valid_at[item] else "one" for item in items]

    answers = ask_until_valid(write, lambda _, text: int(text), 3, retries=3)
    assert asked == [([0, 1, 2], 0), ([1, 2], 1), ([1, 2], 2), ([2], 3)]
    assert [(answer.value, answer.num_invalid) for answer in answers] == [(1, 0), (1, 2), (None, 4)]
