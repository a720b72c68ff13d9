"""Work in processes: all of it, a few at a time, and the first error ends the rest."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from illume_loop.ablate.jobs import done_in_processes
from illume_loop.errors import IllumeLoopError, SettingsError


def _note(folder: Path, item: int) -> None:
    (folder / str(item)).write_text(str(os.getpid()))


def _break(item: int) -> None:
    if item == 1:
        raise SettingsError(reason="of item 1")
    if item == 2:
        raise ZeroDivisionError("of item 2")
    if item == 3:
        os._exit(7)


def test_every_item_has_a_process_of_its_own(tmp_path: Path) -> None:
    assert sorted(done_in_processes(partial(_note, tmp_path), [3, 1, 2], 2)) == [1, 2, 3]
    pids = {path.read_text() for path in tmp_path.iterdir()}
    assert len(pids) == 3
    assert str(os.getpid()) not in pids


@pytest.mark.parametrize(
    ("item", "kind", "said"),
    [
        (1, SettingsError, "of item 1"),
        (2, IllumeLoopError, "ZeroDivisionError: of item 2"),
        (3, IllumeLoopError, "ended with code 7"),
    ],
)
def test_what_goes_wrong_is_told(item: int, kind: type[IllumeLoopError], said: str) -> None:
    with pytest.raises(kind, match=said):
        list(done_in_processes(_break, [0, item], 1))
