"""What the store refuses, in its own words; illume_loop translates these at its edge."""

from __future__ import annotations


class StoreError(Exception):
    """The store could not do what was asked."""


class SchemaOutdatedError(StoreError):
    """The database's schema is not the one that this code reads and writes."""

    def __init__(self, found: str | None, expected: str) -> None:
        self.found = found or "none"
        self.expected = expected
        super().__init__(f"schema {self.found} found, {expected} expected")


class FencedOutError(StoreError):
    """The unit's lease was given to another worker, whose fencing token is higher."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        super().__init__(f"lease on unit {unit} lost")
