"""A message in hand, whose acknowledgement may fail: then the worker connects anew.

Celery would log that an acknowledgement was lost and go on. With a prefetch of one the worker would then count a
message in hand for ever, never ask Redis for another, and so never notice that its connection is gone. Raised, the
error ends the consumer's connection, and the next one begins with nothing in hand. The message itself does not matter:
its unit is done, and its token is old.
"""

from __future__ import annotations

from typing import Any

from celery.worker.request import Request


class UnitRequest(Request):  # type: ignore[misc]
    """See the module."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # What is named here is what an acknowledgement may fail with unnoticed.
        self._connection_errors = ()
