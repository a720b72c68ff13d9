"""Sources as people have them, drawn by the shapes renderer: WebDataset tar, `datasets` parquet, LLaVA's JSON lines.

Each has a few rows that cannot be used; BAD says which reasons, as they are counted.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import datasets
from PIL import Image
from webdataset.writer import TarWriter

from illume_loop.domains.shapes.domain import ShapesDomain
from illume_loop.domains.shapes.edits import apply, random_edit
from illume_loop.domains.shapes.render import draw, place
from illume_loop.pretrain.scenes import random_spec

BAD = {
    "pairs.tar": Counter({"unreadable image": 1, "no caption": 1, "unknown layout": 1}),
    "pairs.parquet": Counter({"no image": 1, "no caption": 1}),
    "llava.jsonl": Counter(
        {"not JSON": 1, "image not found": 1, "image outside of the folder": 1, "unknown layout": 1}
    ),
    "edits.parquet": Counter({"no instruction": 1}),
    "texts.jsonl": Counter({"too long": 1}),
}


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    """An image file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def write_sources(folder: Path, num_pairs: int = 12) -> dict[str, Path]:
    """Sources by name: pairs.tar, pairs.parquet, llava.jsonl (and its images), edits.parquet, texts.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [(pair.image, pair.caption) for pair in ShapesDomain().real_pairs(2 * num_pairs, 0)]
    return {
        "pairs.tar": _tar(folder / "pairs.tar", pairs[:num_pairs]),
        "pairs.parquet": _parquet(folder / "pairs.parquet", pairs[num_pairs:]),
        "llava.jsonl": _llava(folder / "llava.jsonl", pairs[:6]),
        "edits.parquet": _edits(folder / "edits.parquet", 6),
        "texts.jsonl": _texts(folder / "texts.jsonl", [caption for _, caption in pairs[:6]]),
    }


def _tar(path: Path, pairs: list[tuple[Image.Image, str]]) -> Path:
    with TarWriter(str(path), encoder=False) as tar:
        for number, (image, caption) in enumerate(pairs):
            kind = ("png", "jpg", "webp")[number % 3]
            picture = encoded(image, {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[kind])
            told = {"txt": caption.encode()} if number % 2 else {"json": json.dumps({"caption": caption}).encode()}
            tar.write({"__key__": f"{number:06d}", kind: picture, **told})
        tar.write({"__key__": "cut-off", "png": encoded(pairs[0][0])[:60], "txt": b"a red circle"})
        tar.write({"__key__": "unsaid", "png": encoded(pairs[0][0])})
        tar.write({"__key__": "other", "mp3": b"not for us"})
    return path


def _parquet(path: Path, pairs: list[tuple[Image.Image, str]]) -> Path:
    rows: list[dict[str, Any]] = [{"image": image, "caption": caption} for image, caption in pairs]
    rows += [{"image": None, "caption": "a red circle"}, {"image": pairs[0][0], "caption": "  "}]
    features = datasets.Features(image=datasets.Image(), caption=datasets.Value("string"))
    datasets.Dataset.from_list(rows, features=features).to_parquet(path)
    return path


def _llava(path: Path, pairs: list[tuple[Image.Image, str]]) -> Path:
    (path.parent / "images").mkdir(exist_ok=True)
    rows: list[dict[str, Any]] = []
    for number, (image, caption) in enumerate(pairs):
        name = f"images/{number}.png"
        # The first one is large enough to be read in slices.
        image = image.resize((96, 48)) if number == 0 else image
        image.save(path.parent / name)
        asked = [{"from": "human", "value": "<image>\nis it a circle ?"}, {"from": "gpt", "value": caption}]
        again = [{"from": "human", "value": "is it red ?"}, {"from": "gpt", "value": "yes"}]
        rows.append({"id": f"r{number}", "image": name, "conversations": asked + again * (number % 2)})
    good = rows[0]
    text = [{"from": "human", "value": "is it red ?"}, {"from": "gpt", "value": "no"}]
    rows += [
        {"id": "text", "conversations": text},
        {**good, "id": "lost", "image": "images/none.png"},
        {**good, "id": "outside", "image": "../../etc/passwd.png"},
        {**good, "id": "one-sided", "conversations": good["conversations"][:1]},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{not json\n")
    return path


def _edits(path: Path, num_rows: int) -> Path:
    rows: list[dict[str, Any]] = []
    for number in range(50):
        rng = Random(number)
        layout = place(random_spec(rng), rng)
        edit = random_edit(layout, rng)
        if edit is not None:
            rows.append(
                {"source_image": draw(layout), "edit_prompt": edit.text, "edited_image": draw(apply(edit, layout))}
            )
    rows = [*rows[:num_rows], rows[num_rows] | {"edit_prompt": None}]
    pictures = {name: datasets.Image() for name in ("source_image", "edited_image")}
    features = datasets.Features(**pictures, edit_prompt=datasets.Value("string"))
    datasets.Dataset.from_list(rows, features=features).to_parquet(path)
    return path


def _texts(path: Path, texts: list[str]) -> Path:
    rows = [{"text": text} for text in [*texts, "a red circle " * 200]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
