"""What curation hands on to the manifest of its round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from illume_db.curation import SampleRow
from illume_db.reviews import HumanVerdict

Preference = tuple[SampleRow, SampleRow]
"""Two samples of one prompt: the chosen one and the rejected one."""


@dataclass(slots=True)
class Curated:
    """The outcome of a round's curation, before anything of it is stored."""

    samples: list[SampleRow]
    """All of the round."""
    accepted: list[SampleRow]
    """Those of `samples` that this round accepted."""
    earlier: list[SampleRow]
    """Samples that earlier rounds accepted."""
    preferences: list[Preference]
    """Of earlier rounds and of this one."""
    scores: Mapping[tuple[int, int], float]
    """By (prompt position, sample index); people's verdicts have overruled the judge's."""
    people: Mapping[int, HumanVerdict]
    """Verdicts of people by sample id."""
    counts: dict[str, int]
    """Stored with the manifest and shown by `rounds show`."""
    values: dict[str, Any]
    """Columns of the round that change when it moves on."""
