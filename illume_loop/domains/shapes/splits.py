"""The split of each composition of the shapes world.

Invariants:
- A composition belongs to exactly one split, by the order of a hash of its key within its category. So every category
  has compositions in every split.
"""

from __future__ import annotations

import hashlib
from functools import cache

from illume_loop.domains.shapes.spec import Category, Spec, all_specs
from illume_loop.protocols import Split

HELDOUT_SHARE = 0.3
PROBE_SHARE = 0.1


def split_of(spec: Spec) -> Split:
    """Return the one split that a composition belongs to."""
    return _split_by_key(spec.category)[spec.key]


@cache
def specs_of(category: Category, split: Split) -> tuple[Spec, ...]:
    """Return the specs of a category that are in one split, in a fixed order."""
    return tuple(spec for spec in all_specs(category) if split_of(spec) == split)


@cache
def _split_by_key(category: Category) -> dict[str, Split]:
    keys = sorted({spec.key for spec in all_specs(category)}, key=lambda key: hashlib.sha256(key.encode()).digest())
    num_heldout = max(1, round(HELDOUT_SHARE * len(keys)))
    num_probe = max(1, round(PROBE_SHARE * len(keys)))

    def split(rank: int) -> Split:
        return "heldout" if rank < num_heldout else "probe" if rank < num_heldout + num_probe else "train"

    return {key: split(rank) for rank, key in enumerate(keys)}
