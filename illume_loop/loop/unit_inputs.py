"""Types of the unit functions, and the rows of a round that a unit covers."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.orm import Session

from illume_db.leases import Lease
from illume_db.prompts import PromptRow, prompts_at

Effect = Callable[[Session], None]

OnItems = Callable[[int, int], None]


def rows_of_unit(session: Session, lease: Lease, samples_per_prompt: int) -> list[tuple[PromptRow, int]]:
    """(prompt, sample index) of the rows that a unit covers."""
    first, stop = lease.first_row, lease.stop_row
    position = first // samples_per_prompt
    prompts = prompts_at(session, lease.round_id, position, -(-stop // samples_per_prompt))
    return [(prompts[row // samples_per_prompt - position], row % samples_per_prompt) for row in range(first, stop)]
