"""`models export`: a folder that `from_pretrained` loads, without us where the backend is transformers' own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoProcessor, JanusConfig, JanusForConditionalGeneration

import illume_loop.models.illume
from illume_db.migrate import upgrade
from illume_db.runs import add_run
from illume_db.sessions import open_engine, transaction
from illume_db.urls import sqlite_url
from illume_db.versions import add_version, model_detail
from illume_loop.artifacts.checkpoints import checkpoint_sha256
from illume_loop.cli import models
from illume_loop.errors import NotFoundError, UsageError
from illume_loop.loop.context import utc_now
from illume_loop.loop.run_directory import DATABASE, locked, mark, open_run, open_stores
from illume_loop.models.shipped import shipped_base
from illume_loop.report.headline import headline
from illume_loop.settings import load_settings
from tests.support.canned_run import small_settings, start


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("canned")
    start(small_settings(folder / "base", run__rounds=1), folder / "run")
    return folder / "run"


def _run_of(checkpoint: Path, folder: Path) -> Path:
    """A run whose base is this checkpoint, and which has done nothing yet."""
    settings = load_settings(environ={}).resolved()
    with locked(folder) as directory:
        url = sqlite_url(folder / DATABASE)
        upgrade(url)
        base = open_stores(folder)[1].publish(checkpoint)
        mark(directory, url, begun=True)
        engine = open_engine(url)
        with transaction(engine) as session:
            run = add_run(session, key=directory.key, name="janus", seed=0, settings=settings, at=utc_now())
            version = {"sha256": base.sha256, "num_bytes": base.num_bytes, "origin": str(checkpoint), "at": utc_now()}
            add_version(session, run.id, parent_id=None, state="active", **version)
        engine.dispose()
    return folder


def test_the_files_are_the_checkpoint_and_a_card(run_dir: Path, tmp_path: Path) -> None:
    models.export("v0002", tmp_path / "out", run_dir)
    with open_run(run_dir) as run:
        _, source = run.checkpoint("v0002")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"config.json", "README.md"}
    assert (tmp_path / "out" / "config.json").read_bytes() == (source / "config.json").read_bytes()
    card = (tmp_path / "out" / "README.md").read_text()
    assert source.name in card
    assert "| understanding |" in card
    with open_run(run_dir) as run:
        row = model_detail(run.session, run.run_id, "v0002")
    assert row is not None
    assert f"Held-out: {headline(row['heldout'])}." in card
    assert "(checker, guidance 1, temperature 1; round 1, gain " in card
    assert "| heldout |" not in card, "one headline, not each look by itself"
    assert 'backend="pil"' in card
    digest = checkpoint_sha256(tmp_path / "out")
    models.export("v0002", tmp_path / "out", run_dir)
    assert checkpoint_sha256(tmp_path / "out") == digest
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_other_folders_and_versions_are_refused(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="v0009"):
        models.export("v0009", tmp_path / "out", run_dir)
    models.export("v0001", tmp_path / "out", run_dir)
    with pytest.raises(UsageError, match="holds something else"):
        models.export("v0002", tmp_path / "out", run_dir)
    (tmp_path / "empty").mkdir()
    models.export("v0002", tmp_path / "empty", run_dir)
    assert (tmp_path / "empty" / "config.json").exists()


def test_an_illume_model_loads_as_it_was(tmp_path: Path) -> None:
    assert illume_loop.models.illume is not None, "importing it registers the classes"
    run_dir = _run_of(shipped_base(), tmp_path / "run")
    models.export("v0001", tmp_path / "out", run_dir)
    before, after = (AutoModelForCausalLM.from_pretrained(path) for path in (shipped_base(), tmp_path / "out"))
    for name, weights in before.state_dict().items():
        assert torch.equal(weights, after.state_dict()[name]), name
    words = AutoProcessor.from_pretrained(tmp_path / "out").tokenizer("a red circle").input_ids
    assert words == AutoProcessor.from_pretrained(shipped_base()).tokenizer("a red circle").input_ids


def test_a_janus_model_loads_without_us(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = JanusConfig(
        text_config={"model_type": "llama", "vocab_size": 64, **sizes},
        vision_config={**sizes, "image_size": 32, "patch_size": 16, "projection_dim": 16},
        vq_config={
            "embed_dim": 8, "num_embeddings": 32, "projection_dim": 16, "num_patches": 4, "base_channels": 32,
            "channel_multiplier": [1, 1], "num_res_blocks": 1, "image_token_embed_dim": 16, "latent_channels": 32,
        },
    )  # fmt: skip
    torch.manual_seed(0)
    JanusForConditionalGeneration(config).save_pretrained(tmp_path / "janus")
    models.export("v0001", tmp_path / "out", _run_of(tmp_path / "janus", tmp_path / "run"))
    assert "illume_loop.models" not in (tmp_path / "out" / "README.md").read_text()
    code = (
        "import sys; sys.modules['illume_loop'] = None\n"
        "from transformers import AutoModelForImageTextToText as Auto\n"
        "one, two = (Auto.from_pretrained(path).state_dict() for path in sys.argv[1:])\n"
        "assert one.keys() == two.keys() and all((one[name] == two[name]).all() for name in one)\n"
    )
    command = [sys.executable, "-c", code, tmp_path / "janus", tmp_path / "out"]
    subprocess.run(command, check=True, cwd=tmp_path, timeout=280)
