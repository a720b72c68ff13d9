"""The whole loop on a small random Janus: mechanics, not quality. It judges itself, trains LoRA, and is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sqlalchemy import select
from transformers import JanusForConditionalGeneration

from illume_db.tables import Assessment, Sample
from illume_db.versions import models_table
from illume_loop.artifacts.images import ImageStore
from illume_loop.files import Root
from illume_loop.loop.context import default_toolbox
from illume_loop.loop.run_directory import open_run
from illume_loop.settings import load_settings
from tests.support.canned_run import SMALL, start, table
from tests.support.tiny_janus import IMAGE_SIZE, TOKENS, save_tiny_janus

JANUS = {
    "run.name": "janus",
    "run.domain": "shapes",
    "run.rounds": 1,
    "sampling.guidance_scale": 2.0,
    "gate.guidance_scale": 2.0,
    "gate.guidances": "2",
    "gate.heldout_prompts": 12,
    "gate.min_gain": 0.0,
    "assess.reading": "yes-no",
    "train.lora_rank": 4,
    "train.batch_size": 8,
    "runtime.device": "cpu",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(base, a finished run of one round); read only."""
    folder = tmp_path_factory.mktemp("janus")
    base = save_tiny_janus(folder / "base")
    settings = load_settings(None, SMALL | JANUS | {"run.base": str(base)}, environ={})
    _, heard = start(settings, folder / "run", toolbox=default_toolbox())
    assert [(index, state) for index, state, _ in heard.ended] == [(1, "rejected")]
    return base, folder / "run"


def test_a_candidate_is_trained_and_refused(folders: tuple[Path, Path]) -> None:
    [row] = table(folders[1])
    assert (row["parent"], row["candidate"], row["decision"]) == ("v0001", "v0002", "rejected")
    assert (row["samples"], row["dead_units"], row["error"]) == (18, 0, None)
    assert row["accepted"] > 0
    assert row["reasons"][0].startswith("heldout gain ")
    assert row["heldout"]["parent"]["n"] == row["heldout"]["candidate"]["n"] == 12


def test_its_samples_are_pictures_that_it_read_itself(folders: tuple[Path, Path]) -> None:
    with open_run(folders[1]) as run:
        samples = run.session.scalars(select(Sample)).all()
        judged = run.session.scalars(select(Assessment).where(Assessment.assessor == "self")).all()
        assert {len(sample.image_ids) for sample in samples} == {TOKENS}
        assert [assessment.state for assessment in judged] == ["ok"] * len(samples)
        assert len({assessment.score for assessment in judged}) > len(samples) / 2
        image = ImageStore(Root(str(folders[1]))).read(samples[0].image_sha256)
    assert isinstance(image, Image.Image)
    assert image.size == (IMAGE_SIZE, IMAGE_SIZE)


def test_the_candidate_is_the_base_with_other_projections_in_the_published_layout(folders: tuple[Path, Path]) -> None:
    base, run_dir = folders
    with open_run(run_dir) as run:
        versions = {version["name"]: version for version in models_table(run.session, run.run_id)}
    assert (versions["v0001"]["state"], versions["v0002"]["state"]) == ("active", "rejected")
    candidate = run_dir / "checkpoints" / versions["v0002"]["sha256"]
    before, after = (load_file(path / "model.safetensors") for path in (base, candidate))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if "language_model" in name and name.endswith("_proj.weight")}
    assert isinstance(JanusForConditionalGeneration.from_pretrained(candidate), JanusForConditionalGeneration)
