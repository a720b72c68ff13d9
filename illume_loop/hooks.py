"""The hook by which long work shows progress, whoever waits for it.

Lower layers (engine, models, artifacts, training) call it after each piece of work that is finished and know nothing
of leases. A worker passes one that renews its lease; the default does nothing.
"""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[], object]
"""Called without arguments, from any thread, after a batch, a block of a file or a stage of a load.

It may raise to end work that nobody wants any more.
"""


def ignore() -> None:
    """Do nothing: nobody waits."""
