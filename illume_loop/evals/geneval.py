"""GenEval (arXiv 2310.11513): its prompts drawn into the folder that its own detector reads, judged, and tabled.

    DIR/evaluation.json                  what was drawn: model, prompts, seed, guidance, images a prompt
    DIR/00000/metadata.jsonl             the prompt's metadata, as GenEval's file has it
    DIR/00000/samples/00000.png          its images
    DIR/scores-<judge>.jsonl             one line an image, with the keys of the detector's results

Guarantee: it can be killed at any moment and continued by the same call. What is there is drawn and judged no second
time, an image has the same noise whatever batch it lands in, and a folder holds the images of one evaluation only.
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
"""(index of the prompt, index of its image)."""
SeedOf = Callable[[str, int], int]
"""The seed of the image of a prompt, by its text and the image's index."""
Decide = Callable[[Sequence[Image.Image], Sequence[Prompt]], Sequence[Decision]]


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder of one evaluation."""

    path: Path
    prompts: Sequence[Prompt]
    num_images: int

    @property
    def keys(self) -> list[Key]:
        """All images, in order."""
        return [(index, image) for index in range(len(self.prompts)) for image in range(self.num_images)]

    def name(self, key: Key) -> str:
        """The name of an image below the folder."""
        return f"{key[0]:05}/samples/{key[1]:05}.png"

    def file(self, key: Key) -> Path:
        """Where an image is, or will be."""
        return self.path / self.name(key)


def open_folder(path: Path, prompts: Sequence[Prompt], num_images: int, made_by: Mapping[str, object]) -> Folder:
    """The folder of an evaluation, begun or continued; `made_by` is JSON, all that its images depend on.

    Raises OtherEvaluationError where the folder holds the images of another evaluation, or other things.
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
    """A prompt's metadata as GenEval's own file has it."""
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
    """Whether every image is there."""
    return all(folder.file(key).exists() for key in folder.keys)


def judge_missing(
    folder: Folder, judge: str, decide: Decide, batch_size: int, on_items: OnItems = lambda *_: None
) -> dict[Key, dict[str, Any]]:
    """The rows of all images by `judge`, a name for a file; those that are there already are not judged again."""
    path = folder.path / f"scores-{judge}.jsonl"
    rows = _rows_so_far(path, folder)
    missing = [key for key in folder.keys if key not in rows]
    # What a kill tore in half is cut off, so that the next line is one.
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
    """GenEval's score, the mean over categories, with its interval, and each category's share of right images.

    The intervals allow for images of one prompt being alike.
    """
    clusters: dict[str, list[list[bool]]] = {}
    for index, prompt in enumerate(folder.prompts):
        outcomes = [correct[index, image] for image in range(folder.num_images)]
        clusters.setdefault(prompt.category, []).append(outcomes)
    parts: dict[str, Interval] = {name: clustered_interval(outcomes) for name, outcomes in clusters.items()}
    by_category = {name: asdict(part) for name, part in parts.items()}
    return {**asdict(mean_of(list(parts.values()))), "by_category": by_category}


def _row(folder: Folder, key: Key, prompt: Prompt, decision: Decision) -> dict[str, Any]:
    """With the keys of the detector's results, so that whatever reads those reads these."""
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
