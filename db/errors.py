"""What the store refuses, in its own words; illume_loop translates these at its edge."""

from __future__ import annotations


class FencedOutError(Exception):
    """The unit's lease was given to another worker, whose fencing token is higher."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        super().__init__(f"lease on unit {unit} lost")
