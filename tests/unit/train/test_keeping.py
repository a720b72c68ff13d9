"""A training that is killed goes on from its last whole checkpoint and takes the steps that it would have taken."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from illume_loop.errors import CorruptArtifactError
from illume_loop.protocols import TrainingRow
from illume_loop.settings import TrainSettings
from illume_loop.train.candidates import train_candidate
from illume_loop.train.keeping import from_first_intact
from tests.support.shared_training import Register, train_kept


def _killed_at(
    step: int, base: Path, rows: list[TrainingRow], tmp_path: Path, settings: TrainSettings, attempt: str
) -> None:
    """The same in a child that SIGKILL ends in the middle of the training."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        train_kept(
            base, rows, tmp_path, settings, lambda done, _: done < step or os.kill(os.getpid(), signal.SIGKILL), attempt
        )
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("objective", ["sft", "dpo"])
@pytest.mark.parametrize("lora_rank", [0, 4])
def test_five_steps_and_a_kill_and_five_more_are_ten(
    base: Path,
    likely_rows: list[TrainingRow],
    preference_rows: list[TrainingRow],
    tmp_path: Path,
    lora_rank: int,
    objective: str,
) -> None:
    rows = likely_rows if objective == "sft" else preference_rows
    settings = TrainSettings(
        objective=objective, batch_size=4, epochs=3, learning_rate=1e-3, lora_rank=lora_rank, text_dropout=0.2
    )
    whole = train_candidate(base, rows, tmp_path / "whole", settings, 5, lambda *_: None)
    _killed_at(6, base, rows, tmp_path, settings, "first")
    kept = Register(tmp_path / "register").kept()
    assert [checkpoint.step for checkpoint in kept] == [5, 4, 3, 2, 1], "the sixth step was not kept"

    heard: list[int] = []
    rest = train_kept(base, rows, tmp_path, settings, lambda done, _: heard.append(done), "second")
    assert [done for done in heard if done] == [*range(6, whole.steps + 1), whole.steps], (
        "five steps are not taken again"
    )
    assert rest.losses == whole.losses, "bit for bit: one process, one machine"
    assert rest.mean_loss == whole.mean_loss
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "out"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_truncated_checkpoint_is_named_and_the_one_before_it_is_used(tmp_path: Path) -> None:
    register = Register(tmp_path / "register")
    for step in (1, 2, 3):
        (tmp_path / str(step)).mkdir()
        (tmp_path / str(step) / "optimizer.pt").write_bytes(bytes(100 + step))
        register.keep(step, tmp_path / str(step))
    newest = tmp_path / "3" / "optimizer.pt"
    newest.write_bytes(newest.read_bytes()[:50])
    heard: list[CorruptArtifactError] = []
    kept = from_first_intact(register.kept(), lambda _, error: heard.append(error))
    assert [checkpoint.step for checkpoint in kept] == [2, 1]
    (sentence,) = [str(error) for error in heard]
    assert sentence.startswith(f"{newest} is damaged: expected 103 bytes, found 50 bytes;")
    (tmp_path / "2" / "optimizer.pt").unlink()
    (tmp_path / "1" / "optimizer.pt").write_bytes(b"x" * 101)
    assert list(from_first_intact(register.kept(), lambda _, error: heard.append(error))) == []
    assert len(heard) == 4
