"""The progress hook: long work calls it after each finished piece.

The engine, the models, the artifacts and the trainers call it and know nothing of leases. A worker passes a hook that
reports the progress to its heartbeat, which then renews the lease. The default does nothing.
"""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[], object]
"""A function that is called without arguments, from any thread, after a batch, a block of a file or a stage of a load.

It may raise to end work that is no longer wanted.
"""


def ignore() -> None:
    """Do nothing; this is the default hook."""
