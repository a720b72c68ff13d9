"""The progress reports of a study. They do not affect its results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class StudyProgress(Protocol):
    """The hooks that a study calls to report its progress."""

    def advanced(self, cell: str, what: str, done: int, total: int) -> None:
        """Report that `done` of `total` items of a cell's stage or measurement are done."""
        ...

    def finished(self, cell: str, done: int, total: int, seconds: float) -> None:
        """Report a finished cell; `done` of `total` cells are finished."""
        ...


@dataclass(frozen=True, slots=True)
class Silent:
    """Hooks that do nothing."""

    def advanced(self, cell: str, what: str, done: int, total: int) -> None:
        """See StudyProgress."""

    def finished(self, cell: str, done: int, total: int, seconds: float) -> None:
        """See StudyProgress."""
