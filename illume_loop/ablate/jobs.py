"""Cells in processes of their own, several at a time.

Invariants:
- A child process ends with its parent, however the parent ends. So a study that was killed can be resumed at once, and
  no other process works on the same runs.
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
    """Run `work` on the items in at most `jobs` processes at a time; yield each item when it is done.

    `work` and the items must be picklable. Raises the first error and ends the other processes. Raises IllumeLoopError
    if a process ended without a result.
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
    """Raise the error of a process, if it had one."""
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
    # Ctrl-C reaches every process of the terminal. The child ends silently, and the parent prints the message.
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
