"""Bad input gets one clear sentence on stderr, the right exit code, and nothing on stdout; nothing is lost."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from os import geteuid
from pathlib import Path

import pytest
from PIL import Image

from tests.acceptance.conftest import Finished
from tests.support.process import Ended, read_json, run, tiny_config


def _refused(ended: Ended, code: int, *words: str) -> None:
    assert ended.code == code, (ended.code, ended.err)
    [sentence] = ended.sentences
    for word in words:
        assert word in sentence
    assert ended.out == ""
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("start", "--config", "absent.toml"), 2, ("absent.toml", "does not exist")),
        (("start", "--config", "unknown.toml"), 2, ("unknown key 'run.sede'", "run.seed")),
        (("start", "--config", "bounds.toml"), 2, ("run.rounds = 0", "greater than or equal to 1")),
        (("start", "--config", "base.toml"), 2, ("no-such-model",)),
        (("start", "--rounds", "0"), 2, ("run.rounds",)),
        (("start", "--executor", "teleport"), 2, ("run.executor", "inline")),
        (("start", "--run-dir", "unknown.toml"), 2, ("unknown.toml is a file", "--run-dir")),
        (("start", "--run-dir", "/proc/nowhere"), 2, ("cannot write to /proc/nowhere", "another directory")),
        (("start", "--run-dir", "other"), 2, ("other holds other files", "--run-dir")),
        (("rounds", "watch"), 2, ("illume-run", "not a run directory")),
        (("dashboard",), 2, ("illume-run", "not a run directory")),
        (("dashboard", "--host", "0.0.0.0"), 2, ("ILLUME_DASHBOARD__ADMIN_PASSWORD", "--host")),
        (("report", "other", "-o", "mail"), 2, ("other", "not a run directory")),
        (("samples", "export", "-o", "data"), 2, ("illume-run", "not a run directory")),
        (("rounds", "ls"), 2, ("illume-run", "not a run directory")),
        (("rounds", "ls", "--run-dir", "other"), 2, ("other", "not a run directory")),
        (("samples", "show", "1", "--run-dir", "other"), 2, ("other", "not a run directory")),
        (("models", "ls", "--run-dir", "unknown.toml"), 2, ("unknown.toml", "not a run directory")),
        (("db", "upgrade", "--run-dir", "other"), 2, ("other", "not a run directory")),
        (("sample", "a purple elephant"), 2, ("a purple elephant", "elephant")),
        (("sample", "a red circle", "-o", "unknown.toml"), 2, ("cannot write to unknown.toml", "File exists")),
        (("sample", ""), 2, ("Cannot read the prompt",)),
        (("sample", "a red circle", "--model", "v0009"), 2, ("v0009",)),
        (("assess", "absent.png", "a red circle"), 2, ("absent.png", "does not exist")),
        (("assess", "broken.png", "a red circle"), 2, ("broken.png", "as an image")),
        (("assess", "good.png", "a red dog"), 2, ("dog",)),
        (("eval", "absent", "--suite", "heldout"), 2, ("absent",)),
        (("eval", "shapes-base", "--suite", "nonsense"), 2, ("nonsense", "heldout")),
        (("eval", "shapes-base", "--suite", "heldout", "-n", "99999"), 2, ("99999",)),
        (("judge", "show", "absent.json"), 2, ("absent.json", "No such file")),
        (("judge", "show", "bounds.toml"), 2, ("bounds.toml", "as a calibration")),
        (("judge", "show"), 2, ("illume-run", "not a run directory")),
        (("judge", "fit", "-o", "c.json", "--labels", "teacher"), 2, ("teacher.url", "ILLUME_TEACHER__KEY")),
        (("judge", "fit", "-o", "c.json", "--labels", "human"), 2, ("illume-run", "not a run directory")),
        (("judge", "fit", "-o", "c.json", "--prompts", "99999"), 2, ("99999",)),
        (("judge", "fit"), 2, ("--out",)),
        (("reviews", "add", "1", "--agree"), 2, ("illume-run", "not a run directory")),
        (("reviews", "add", "1"), 2, ("--agree",)),
        (("reviews", "ls", "--run-dir", "other"), 2, ("other", "not a run directory")),
        (("pretrain", "--recipe", "nonsense", "-o", "base"), 2, ("nonsense",)),
        (("nonsense",), 2, ("nonsense",)),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) and value and isinstance(value[0], str) else None,
)
def test_usage(tmp_path: Path, args: tuple[str, ...], code: int, words: tuple[str, ...]) -> None:
    (tmp_path / "unknown.toml").write_text("[run]\nsede = 1\n")
    (tmp_path / "bounds.toml").write_text("[run]\nrounds = 0\n")
    (tmp_path / "base.toml").write_text('[run]\nbase = "no-such-model"\n')
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("not yours")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    Image.new("RGB", (64, 64)).save(tmp_path / "good.png")
    before = sorted(tmp_path.rglob("*"))

    _refused(run(*args, cwd=tmp_path), code, *words)

    assert sorted(tmp_path.rglob("*")) == before, "a refused command leaves nothing behind"


@pytest.mark.parametrize("command", [("start",), ("rounds", "ls"), ("config", "check"), ("sample", "a ring")])
def test_an_unknown_variable(tmp_path: Path, command: tuple[str, ...]) -> None:
    _refused(
        run(*command, cwd=tmp_path, ILLUME_RUN__SEDE="1"), 2, "ILLUME_RUN__SEDE", "did you mean 'ILLUME_RUN__SEED'"
    )


@pytest.mark.parametrize(
    ("noun", "name"), [("rounds", "9"), ("samples", "999999"), ("models", "v0099")], ids=["rounds", "samples", "models"]
)
def test_what_is_not_there(finished: Finished, noun: str, name: str) -> None:
    _refused(run(noun, "show", name, cwd=finished.folder), 2, name)


def _weights(finished: Finished) -> list[Path]:
    return sorted(finished.run_dir.rglob("*.safetensors"))


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_corrupt_checkpoint_is_named(copied: Finished, damage: str) -> None:
    versions = [row["name"] for row in read_json("models", "ls", cwd=copied.folder)]
    for weights in _weights(copied):
        data = bytearray(weights.read_bytes())
        data[len(data) // 2] ^= 0xFF
        if damage == "gone":
            weights.unlink()
        else:
            weights.write_bytes(data if damage == "flip" else data[: len(data) // 2])
    _refused(run("sample", "a red circle", "--model", versions[-1], cwd=copied.folder), 3, ".safetensors")


def test_a_corrupt_checkpoint_outside_of_a_run(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{")
    _refused(run("eval", "model", "--suite", "heldout", cwd=tmp_path), 3, "model")


def test_a_damaged_database_is_unhealthy(copied: Finished) -> None:
    database = copied.run_dir / "loop.sqlite"
    database.write_bytes(b"this is no database" * 100)
    _refused(run("rounds", "ls", cwd=copied.folder), 3, "illume-run", "file is not a database")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own that a tiny run does not fit on."""
    if geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", mount], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip("this container may not mount")
    yield mount
    subprocess.run(["umount", mount], check=True)


def test_a_full_disk_loses_nothing(finished: Finished, small_disk: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    _refused(run("start", "--config", config, cwd=small_disk), 3, "No space left", "continues")

    subprocess.run(["mount", "-o", "remount,size=400m", small_disk], check=True)
    ended = run("start", "--config", config, cwd=small_disk)

    assert ended.code == 0, ended.err
    keys = ("manifest_sha256", "heldout", "decision")
    rows, whole = (read_json("rounds", "ls", cwd=folder) for folder in (small_disk, finished.folder))
    assert [[row[key] for key in keys] for row in rows] == [[row[key] for key in keys] for row in whole]
