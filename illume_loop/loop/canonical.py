"""The canonical lines of a manifest, their hash, and the check that no row is held out. Pure.

A line names a sample by its natural key (round, prompt, sample index) and by the hash of its image-token ids. A line
holds no id of the database, no path and no time. So equal runs have equal lines and equal hashes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from illume_db.curation import ExampleRow
from illume_loop.errors import HeldOutError
from illume_loop.protocols import Split


def check_splits(rows: Sequence[ExampleRow], split_of: Callable[[str], Split | None], round_index: int) -> None:
    """Raise HeldOutError if the domain counts a row to a split other than `train`; the error names the first one.

    The database also refuses held-out prompts, but it knows only their texts. The domain knows every wording of every
    composition, even of those that were never drawn.
    """
    splits = [(row.text, split_of(row.text)) for row in rows]
    strangers = [(text, split) for text, split in splits if split not in ("train", None)]
    if strangers:
        text, split = strangers[0]
        raise HeldOutError(index=round_index, count=len(strangers), text=text, split=split)


def manifest_sha256(rows: Sequence[ExampleRow]) -> str:
    """Return the hash over the canonical JSON lines of all rows, in order."""
    digest = hashlib.sha256()
    for row in rows:
        line = json.dumps(_canonical(row), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def ids_sha256(image_ids_L: NDArray[np.int32]) -> str:
    """Return the hash of image-token ids. It does not depend on the integer width that they are stored in."""
    return hashlib.sha256(image_ids_L.astype("<i4").tobytes()).hexdigest()


def _canonical(row: ExampleRow) -> dict[str, object]:
    line: dict[str, object] = {"kind": row.kind, "text": row.text}
    if row.sample is None:
        return line | {"real": row.real_index}
    sample, rejected = row.sample, row.rejected
    line |= {
        "round": sample.round_index,
        "prompt": sample.prompt.key,
        "sample": sample.sample_index,
        "ids_sha256": ids_sha256(sample.image_ids),
    }
    if row.kind == "edit":
        line["source_sha256"] = sample.prompt.source_sha256
    if row.answer is not None:
        line["answer"] = row.answer
    if rejected is None:
        return line
    return line | {
        "rejected_round": rejected.round_index,
        "rejected_sample": rejected.sample_index,
        "rejected_sha256": ids_sha256(rejected.image_ids),
    }
