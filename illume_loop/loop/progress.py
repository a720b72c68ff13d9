"""What the loop tells whoever watches it. Nothing here is needed to go on: the database is the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StageProgress:
    """`done` of `total` items of one stage of a round are finished."""

    round_index: int
    num_rounds: int
    stage: str
    done: int
    total: int


class Progress(Protocol):
    """Hears how a run goes on."""

    def advanced(self, event: StageProgress) -> None:
        """A stage went on."""
        ...

    def round_ended(self, index: int, state: str, reasons: Sequence[str]) -> None:
        """A round reached a terminal state."""
        ...
