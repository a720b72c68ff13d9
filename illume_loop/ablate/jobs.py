"""Cells in processes of their own, several at a time.

Guarantee: no such process outlives the one that started it, however that one ends; so a study that was killed can be
continued at once, and nothing works beside it on the same runs.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any, TypeVar

from illume_loop.errors import IllumeLoopError
from illume_loop.telemetry.libraries import silence

Item = TypeVar("Item")


def done_in_processes(work: Callable[[Item], None], items: Sequence[Item], jobs: int) -> Iterator[Item]:
    """Each item when `work` is done with it, at most `jobs` at a time; `work` and items must be picklable.

    Raises the first error, after ending the others; IllumeLoopError where a process ended without a word.
    """
    context = multiprocessing.get_context("spawn")
    waiting = list(items)
    running: dict[Connection, tuple[Item, BaseProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_child, args=(work, waiting[0], theirs), daemon=True)
                process.start()
                theirs.close()
                running[ours] = waiting.pop(0), process
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                item, ended = running.pop(ready)
                _told(ready, ended)
                yield item
    finally:
        for _, left in running.values():
            left.kill()


def _told(connection: Connection, process: BaseProcess) -> None:
    """Raise what the process could not do."""
    try:
        error = connection.recv()
    except EOFError:
        process.join()
        raise IllumeLoopError(f"A process of the study ended with code {process.exitcode}; run it again.") from None
    process.join()
    if error is not None:
        raise error


def _child(work: Callable[[Any], None], item: Any, connection: Connection) -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    silence()
    # Ctrl-C reaches every process of the terminal; the parent says what has to be said.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        work(item)
    except Exception as error:
        known = isinstance(error, IllumeLoopError)
        connection.send(error if known else IllumeLoopError(f"{type(error).__name__}: {error}"))
    else:
        connection.send(None)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "this process was started by one"
    parent.join()
    os._exit(1)
