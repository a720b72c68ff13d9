"""GenEval (arXiv 2310.11513): draw its prompts into the folder that its own detector reads, and judge the images.

    DIR/evaluation.json                  the evaluation: model, prompts, seed, guidance, images per prompt
    DIR/00000/metadata.jsonl             the prompt's metadata, as in GenEval's file
    DIR/00000/samples/00000.png          the prompt's images
    DIR/scores-<judge>.jsonl             one line per image, with the keys of the detector's results

Invariants:
- An evaluation can be killed at any moment and continued by the same call. Existing images are not drawn again, and
  existing rows are not judged again.
- An image has the same noise in any batch.
- A folder holds the images of one evaluation only.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from illume_loop.errors import OtherEvaluationError
from illume_loop.evals.statistics import Interval, clustered_interval, mean_of
from illume_loop.evals.suites import OnItems
from illume_loop.files import write_atomically
from illume_loop.protocols import Decision, Prompt, Sampling, UnifiedModel

MARKER = "evaluation.json"
Key = tuple[int, int]
"""The position of an image: (index of the prompt, index of the image)."""
SeedOf = Callable[[str, int], int]
"""A function that returns the seed of an image from the prompt's text and the image's index."""
Decide = Callable[[Sequence[Image.Image], Sequence[Prompt]], Sequence[Decision]]


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder of one evaluation."""

    path: Path
    prompts: Sequence[Prompt]
    num_images: int

    @property
    def keys(self) -> list[Key]:
        """The keys of all images, in order."""
        return [(index, image) for index in range(len(self.prompts)) for image in range(self.num_images)]

    def name(self, key: Key) -> str:
        """Return the name of an image below the folder."""
        return f"{key[0]:05}/samples/{key[1]:05}.png"

    def file(self, key: Key) -> Path:
        """Return the path of an image, which may not be drawn yet."""
        return self.path / self.name(key)


def open_folder(path: Path, prompts: Sequence[Prompt], num_images: int, made_by: Mapping[str, object]) -> Folder:
    """Begin or continue the folder of an evaluation.

    `made_by` is JSON: all else that the images depend on. Raises OtherEvaluationError if the folder holds the images of
    another evaluation, or other things.
    """
    marker = path / MARKER
    wanted = {"format": 1, "images": num_images, "prompts": [prompt.text for prompt in prompts], **made_by}
    if marker.exists():
        found = json.loads(marker.read_bytes())
        other = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        if other:
            raise OtherEvaluationError(path=path, names=f"it differs in {', '.join(other)}")
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise OtherEvaluationError(path=path, names=f"it has no {MARKER}")
    else:
        write_atomically(marker, json.dumps(wanted, indent=1).encode())
    for index, prompt in enumerate(prompts):
        metadata = path / f"{index:05}" / "metadata.jsonl"
        if not metadata.exists():
            write_atomically(metadata, f"{json.dumps(metadata_of(prompt))}\n".encode())
    return Folder(path, prompts, num_images)


def metadata_of(prompt: Prompt) -> dict[str, object]:
    """Return a prompt's metadata as in GenEval's own file."""
    return {**prompt.spec, "prompt": prompt.text}


def draw_missing(
    folder: Folder,
    model: UnifiedModel,
    seed_of: SeedOf,
    sampling: Sampling,
    batch_size: int,
    on_items: OnItems = lambda *_: None,
) -> None:
    """Draw the images that the folder lacks."""
    missing = [key for key in folder.keys if not folder.file(key).exists()]
    done = len(folder.keys) - len(missing)
    for start in range(0, len(missing), batch_size):
        keys = missing[start : start + batch_size]
        texts = [folder.prompts[index].text for index, _ in keys]
        seeds = [seed_of(text, image) for text, (_, image) in zip(texts, keys, strict=True)]
        for key, image in zip(keys, model.decode(model.sample(texts, seeds, sampling)), strict=True):
            buffer = io.BytesIO()
            image.save(buffer, format="PNG")
            write_atomically(folder.file(key), buffer.getvalue())
        done += len(keys)
        on_items(done, len(folder.keys))


def is_drawn(folder: Folder) -> bool:
    """Return True if every image is drawn."""
    return all(folder.file(key).exists() for key in folder.keys)


def judge_missing(
    folder: Folder, judge: str, decide: Decide, batch_size: int, on_items: OnItems = lambda *_: None
) -> dict[Key, dict[str, Any]]:
    """Judge the images that have no row yet, and return the rows of all images.

    The rows are kept in `scores-<judge>.jsonl`.
    """
    path = folder.path / f"scores-{judge}.jsonl"
    rows = _rows_so_far(path, folder)
    missing = [key for key in folder.keys if key not in rows]
    # A kill may have left half a line at the end. It is dropped, so that the next row starts a line of its own.
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows.values()).encode())
    for start in range(0, len(missing), batch_size):
        keys = missing[start : start + batch_size]
        prompts = [folder.prompts[index] for index, _ in keys]
        images = [Image.open(folder.file(key)).convert("RGB") for key in keys]
        new = {
            key: _row(folder, key, prompt, decision)
            for key, prompt, decision in zip(keys, prompts, decide(images, prompts), strict=True)
        }
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in new.values())
        rows |= new
        on_items(len(rows), len(folder.keys))
    return rows


def estimates(folder: Folder, correct: Mapping[Key, bool]) -> dict[str, Any]:
    """Return GenEval's score, the mean over categories, with its interval, and each category's share of right images.

    The intervals allow for the likeness of images of one prompt.
    """
    clusters: dict[str, list[list[bool]]] = {}
    for index, prompt in enumerate(folder.prompts):
        outcomes = [correct[index, image] for image in range(folder.num_images)]
        clusters.setdefault(prompt.category, []).append(outcomes)
    parts: dict[str, Interval] = {name: clustered_interval(outcomes) for name, outcomes in clusters.items()}
    by_category = {name: asdict(part) for name, part in parts.items()}
    return {**asdict(mean_of(list(parts.values()))), "by_category": by_category}


def _row(folder: Folder, key: Key, prompt: Prompt, decision: Decision) -> dict[str, Any]:
    """Return the row of an image, with the keys of the detector's results, so that their readers can read it."""
    answers = [
        {"criterion": question.criterion, "question": question.text, "log_odds": value}
        for question, value in zip(decision.questions, decision.log_odds, strict=True)
    ]
    return {
        "filename": folder.name(key),
        "tag": prompt.category,
        "prompt": prompt.text,
        "correct": decision.verdict.passed,
        "reason": ", ".join(decision.verdict.failed),
        "metadata": json.dumps(metadata_of(prompt)),
        "details": json.dumps(answers),
        "score": min(decision.log_odds),
    }


def _rows_so_far(path: Path, folder: Folder) -> dict[Key, dict[str, Any]]:
    if not path.exists():
        return {}
    keys = {folder.name(key): key for key in folder.keys}
    rows = {}
    for line in path.read_bytes().decode(errors="replace").split("\n"):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and row.get("filename") in keys:
            rows[keys[row["filename"]]] = row
    return rows
