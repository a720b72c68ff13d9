"""Writes a model version as a Hugging Face checkpoint with a model card.

The files are verified copies of the stored checkpoint, so `from_pretrained` reads them. The janus backend needs only
transformers; for the illume backend, import `illume_loop.models.illume` first, which registers its classes.

Invariants:
- The folder appears complete or not at all.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from illume_db.runs import run_row
from illume_db.tables.versions import GUARDED
from illume_db.versions import model_detail
from illume_loop.artifacts.checkpoints import MANIFEST, checkpoint_sha256
from illume_loop.errors import NotFoundError, UsageError
from illume_loop.files import output_folder, raising_storage_full
from illume_loop.loop.run_directory import OpenRun
from illume_loop.report.headline import at_setting, best_decode, differs_at_setting, guard, headline

CARD = "README.md"
OURS = ("illume",)
"""The model types whose classes this package defines; transformers or a plug-in defines all others."""


def export_model(run: OpenRun, name: str, folder: Path) -> Path:
    """Write a version to a new folder and return the folder; a folder that already holds this version stays.

    Raises NotFoundError, UsageError if the folder holds something else, CorruptArtifactError, and StorageFullError.
    """
    row = model_detail(run.session, run.run_id, name)
    if row is None:
        raise NotFoundError(kind="model version", name=name)
    _, source = run.checkpoint(name)
    new = folder.with_name(f".{folder.name}.{uuid4().hex}")
    with raising_storage_full(folder):
        output_folder(folder.parent)
        try:
            shutil.copytree(source, new, ignore=shutil.ignore_patterns(MANIFEST))
            if not (new / CARD).exists():
                (new / CARD).write_text(_card(run, row, _config(new)), encoding="utf-8")
            if folder.exists():
                return _same(folder, new)
            new.rename(folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return folder


def _same(folder: Path, new: Path) -> Path:
    """Return `folder` if it holds the same files as `new`, or replace it if it is empty. Raises UsageError."""
    if not folder.is_dir() or any(folder.iterdir()):
        if folder.is_dir() and checkpoint_sha256(folder) == checkpoint_sha256(new):
            return folder
        raise UsageError(f"{folder} holds something else; name a new directory with -o")
    new.replace(folder)
    return folder


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    return config


def _card(run: OpenRun, row: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    of_run = run_row(run.session, run.run_id)
    return "\n".join(_lines(of_run, row, config)) + "\n"


def _lines(of_run: Mapping[str, Any], row: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    model_type = str(config.get("model_type", ""))
    yield from ("---", "library_name: transformers", "tags: [illume-loop, any-to-any]", "---", "")
    yield from (f"# {of_run['name']} {row['name']}", "")
    yield f"A model version that illume-loop made: {row['origin']}; its state in the run was `{row['state']}`."
    yield from ("", f"- run `{of_run['key']}`, seed {of_run['seed']}, base `{of_run['settings']['run']['base']}`")
    yield f"- parent {row['parent'] or 'none'}, round {row['round'] if row['round'] is not None else 'none'}"
    yield f"- checkpoint sha256 `{row['sha256']}`"
    if "dtype" in config:
        yield f"- weights in {config['dtype']}, as trained or imported; `from_pretrained(dtype=...)` casts them"
    yield from ("", f"Held-out: {headline(row['heldout'])}.")
    if row["heldout"] and differs_at_setting(row["heldout"]):
        yield from ("", f"The same comparison: {at_setting(row['heldout'])}.")
    if row["best_decode"]:
        yield from ("", f"Best decode: {best_decode(row['best_decode'])}.")
    guards = [found for found in row["evaluations"] if found["suite"] in GUARDED]
    if guards:
        yield from ("", "| suite | value; a share is in percent with its interval |", "| --- | --- |")
        yield from (f"| {found['suite']} | {guard(found)} |" for found in guards)
    yield from ("", "```python")
    if model_type in OURS:
        yield f"import illume_loop.models.{model_type}  # registers its classes (pip install illume-loop)"
        yield "from transformers import AutoImageProcessor, AutoModelForCausalLM, AutoProcessor"
        yield from ("", 'model = AutoModelForCausalLM.from_pretrained("PATH")')
    else:
        yield "from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor"
        yield from ("", 'model = AutoModelForImageTextToText.from_pretrained("PATH")')
    yield 'processor = AutoProcessor.from_pretrained("PATH")'
    yield "# The model was trained on images that Pillow resized; torchvision would resize them differently."
    yield from ('processor.image_processor = AutoImageProcessor.from_pretrained("PATH", backend="pil")', "```")
