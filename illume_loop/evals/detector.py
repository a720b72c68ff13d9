"""The results of GenEval's own detector, and how far a judge agrees with them.

The detector is Mask2Former with CLIP (evaluate_images.py of GenEval's repository).

Invariants:
- A file of results has each image of the folder once and no other image; any other file is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from illume_loop.errors import DetectorResultsError
from illume_loop.evals.geneval import Folder, Key
from illume_loop.evals.statistics import auc
from illume_loop.files import decoded

_NAME = re.compile(r"(?:^|/)(\d+)/samples/(\d+)\.png$")


def read_results(path: Path, folder: Folder) -> dict[Key, bool]:
    """Read the detector's verdict on each image, True for a right one. Raises DetectorResultsError."""
    try:
        lines = decoded(path.read_bytes()).split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DetectorResultsError(place=path, reason=reason) from None
    known = set(folder.keys)
    found: dict[Key, bool] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                key, correct = _result(line, folder, known)
                if key in found:
                    raise ValueError(f"it is the second one of {folder.name(key)}")
            except ValueError as error:
                raise DetectorResultsError(place=f"{path}, line {number}", reason=str(error)) from None
            found[key] = correct
    missing = [key for key in folder.keys if key not in found]
    if missing:
        reason = f"it lacks {len(missing)} of {len(known)} images, first {folder.name(missing[0])}"
        raise DetectorResultsError(place=path, reason=reason)
    return found


def agreement(rows: Mapping[Key, Mapping[str, Any]], detector: Mapping[Key, bool]) -> dict[str, Any]:
    """Return how far a judge agrees with the detector: `n` images, `share` of the same verdict, and `auc`.

    `auc` says how well the judge's score separates the images that the detector calls right from the others. It is None
    if the detector gives all images the same verdict.
    """
    same = sum(rows[key]["correct"] == right for key, right in detector.items())
    area = auc([rows[key]["score"] for key in detector], list(detector.values()))
    return {"n": len(detector), "share": same / len(detector), "auc": area}


def _result(line: str, folder: Folder, known: set[Key]) -> tuple[Key, bool]:
    """Return the image of a line and its verdict. Raises ValueError if the line is not a valid result."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON ({error.msg})") from None
    name = _NAME.search(str(row.get("filename"))) if isinstance(row, dict) else None
    if name is None:
        raise ValueError("its 'filename' is no .../00000/samples/00000.png")
    key = int(name[1]), int(name[2])
    if key not in known:
        raise ValueError(f"{folder.name(key)} is none of the folder's images")
    if row.get("prompt", folder.prompts[key[0]].text) != folder.prompts[key[0]].text:
        raise ValueError(f"it is of another prompt than {folder.name(key)}")
    if not isinstance(row.get("correct"), bool):
        raise ValueError("its 'correct' is neither true nor false")
    return key, row["correct"]
