"""The docstring is the message; errors survive pickling; the exit codes are those of the contract."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from string import Formatter

import pytest

from illume_loop import errors
from illume_loop.errors import ConflictError, IllumeLoopError, RunLockedError, UnhealthyError, UsageError


def _tree(kind: type[IllumeLoopError]) -> Iterator[type[IllumeLoopError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


TREE = [kind for kind in _tree(IllumeLoopError) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", TREE)
def test_the_docstring_is_the_message(kind: type[IllumeLoopError]) -> None:
    assert kind.__doc__
    template = " ".join(kind.__doc__.split())
    fields = {name: f"<{name}>" for _, name, _, _ in Formatter().parse(template) if name}

    message = str(kind(**fields))

    assert message == template.format(**fields)
    assert message.endswith(".")


@pytest.mark.parametrize("kind", TREE)
def test_errors_survive_pickling(kind: type[IllumeLoopError]) -> None:
    for error in (kind(path="a", reason="b"), kind("plain {words}")):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is kind
        assert str(copy) == str(error)
        assert copy.fields == error.fields


@pytest.mark.parametrize("kind", TREE)
def test_exit_codes_follow_the_branch(kind: type[IllumeLoopError]) -> None:
    branches = {UsageError: 2, UnhealthyError: 3, ConflictError: 4}
    expected = next((code for branch, code in branches.items() if issubclass(kind, branch)), 1)
    assert kind.exit_code == expected


def test_a_field_left_out_does_not_hide_the_error() -> None:
    assert "(pid (unknown))" in str(RunLockedError(path="here"))


def test_braces_in_a_field_are_kept() -> None:
    assert "{weird}" in str(errors.NotFoundError(kind="model", name="{weird}"))
