"""What a study tells whoever watches it. Nothing here is needed to go on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class StudyProgress(Protocol):
    """Hears how a study goes on."""

    def advanced(self, cell: str, what: str, done: int, total: int) -> None:
        """A stage or a measurement of a cell went on."""
        ...

    def finished(self, cell: str, done: int, total: int, seconds: float) -> None:
        """A cell was finished, the `done`th of `total`."""
        ...


@dataclass(frozen=True, slots=True)
class Silent:
    """Nobody watches."""

    def advanced(self, cell: str, what: str, done: int, total: int) -> None:
        """See StudyProgress."""

    def finished(self, cell: str, done: int, total: int, seconds: float) -> None:
        """See StudyProgress."""
