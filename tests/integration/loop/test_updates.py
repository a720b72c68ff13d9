"""Rounds of reinforcement learning: their rows, kills at any point, and rewards that must not count."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sqlalchemy import func, select

from illume_db.samples import lineage
from illume_db.tables import Assessment, PendingRollout, Rollout, Sample, TrainingCheckpoint, UpdateGroup
from illume_db.updates import policies_of, updates_table
from illume_loop.domains import get_domain
from illume_loop.errors import RoundFailedError
from illume_loop.loop.context import Toolbox, default_toolbox
from illume_loop.loop.forecast import forecast, measured_speed
from illume_loop.loop.run_directory import open_run
from illume_loop.protocols import Scores, UnifiedModel
from tests.support.canned_run import start, table
from tests.support.sharp_base import sharpened, small_recipe
from tests.support.updates import by_workers, update_result, update_settings

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("base")
    sharpened(small_recipe(), folder / "making").save(folder / "base")
    return folder / "base"


def rows_of(run_dir: Path) -> list[dict[str, Any]]:
    with open_run(run_dir) as run:
        return [row for round_id in (1, 2) for row in updates_table(run.session, round_id)]


def test_a_kill_anywhere_changes_nothing_not_even_a_bit_of_the_weights(base: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.support.updates", str(base), str(tmp_path), "seed 1", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    undisturbed, killed = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    assert killed["kills"] == 3
    assert [round_["state"] for round_ in undisturbed["result"]["rounds"]] == ["promoted", "promoted"]
    assert len(undisturbed["result"]["updates"]) == 2 * 3
    assert len({sha256 for _, _, sha256 in undisturbed["result"]["models"]}) == 3
    assert killed["result"] == undisturbed["result"]


def test_a_kill_anywhere_changes_nothing_where_workers_draw_and_score(base: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.support.updates", str(base), str(tmp_path), "seed 2", "3", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    undisturbed, killed = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    assert killed["kills"] == 3
    staleness = [row["staleness"] for _, row in undisturbed["result"]["updates"]]
    assert staleness == [0, 1, 1, 0, 1, 1]
    assert killed["result"] == undisturbed["result"]


def test_workers_draw_and_score_what_the_trainer_would(base: Path, tmp_path: Path) -> None:
    batches = {"sampling__batch_size": 12, "assess__batch_size": 12}
    start(update_settings(base, **batches), tmp_path / "trainer", default_toolbox())
    start(update_settings(base, grpo__rollouts="workers", **batches), tmp_path / "workers", default_toolbox())
    alone, together = update_result(tmp_path / "trainer"), update_result(tmp_path / "workers")
    assert together["models"] == alone["models"]
    assert together["samples"] == alone["samples"]
    assert together["rollouts"] == alone["rollouts"]
    assert together["groups"] == alone["groups"]
    for row in rows_of(tmp_path / "workers"):
        assert set(row["seconds"]) == {"draw", "score", "learn", "store"}
    with open_run(tmp_path / "workers") as run:
        assert run.session.scalar(select(func.count()).select_from(PendingRollout)) == 0
        published = {index: policies_of(run.session, index) for index in (1, 2)}
        stored = {path.parent.name for path in (tmp_path / "workers" / "checkpoints").glob("*/weights.safetensors")}
    # The first round's last policy stays, because the second round began with it.
    assert stored == {published[1][3], published[2][3]}


def test_a_policy_that_draws_is_behind_by_no_more_than_the_bound(base: Path, tmp_path: Path) -> None:
    settings = update_settings(base, run__rounds=1, grpo__updates=5, train__lora_rank=2, **by_workers(2))
    start(settings, tmp_path / "run", default_toolbox())
    rows = rows_of(tmp_path / "run")
    assert [row["staleness"] for row in rows] == [0, 1, 2, 2, 2]
    assert rows[0]["gap"] < 1e-4 < min(row["gap"] for row in rows[1:])
    with open_run(tmp_path / "run") as run:
        by_round = select(Sample.sample_index, Sample.staleness).order_by(Sample.sample_index)
        assert {(index // 4, behind) for index, behind in run.session.execute(by_round)} == {
            (0, 0),
            (1, 1),
            (2, 2),
            (3, 2),
            (4, 2),
        }


def test_an_update_stores_samples_rewards_and_its_measurements(base: Path, tmp_path: Path) -> None:
    settings = update_settings(base, run__rounds=1, train__report_to="tensorboard")
    outcome, _ = start(settings, tmp_path / "run", default_toolbox())
    assert outcome is not None
    with open_run(tmp_path / "run") as run:
        assert run.session.scalar(select(func.count()).select_from(Sample)) == 3 * 3 * 4
        assert run.session.scalar(select(func.count()).select_from(Rollout)) == 3 * 3 * 4
        assert run.session.scalar(select(func.count()).select_from(UpdateGroup)) == 3 * 3
        by_assessor = select(Assessment.assessor, func.count()).group_by(Assessment.assessor)
        assert dict(run.session.execute(by_assessor).all()) == {"self": 36, "checker": 36}
        kept = run.session.scalars(select(TrainingCheckpoint).where(TrainingCheckpoint.state == "kept")).all()
        assert [row.step for row in kept] == [3]
        learned = select(Rollout.sample_id, Rollout.update_index).where(Rollout.advantage.is_not(None))
        sample_id, index = run.session.execute(learned.limit(1)).one()
        told = lineage(run.session, run.run_id, sample_id)
        assert told is not None
        assert told["to"] == [
            {"round": 1, "manifest_sha256": None, "model": "v0002", "kinds": [f"update {index}"]},
        ]
    [tracked] = (tmp_path / "run" / "trackers").glob("*/round-1-updates")
    events = b"".join(path.read_bytes() for path in tracked.iterdir())
    assert (events.count(b"drawn_right"), events.count(b"PNG")) == (3, 2)
    for index, row in enumerate(rows_of(tmp_path / "run"), start=1):
        assert row["index"] == index
        assert row["gap"] < 1e-4
        assert row["num_samples"] == 12
        assert row["staleness"] == 0
        assert set(row["seconds"]) == {"draw", "score", "learn", "store"}
        assert row["kl"] >= 0
    assert table(tmp_path / "run")[0]["state"] == "promoted"


def test_a_forecast_measures_how_fast_an_update_learns(base: Path) -> None:
    settings = update_settings(base, run__rounds=1)
    domain = get_domain("shapes")
    speed = measured_speed(settings, domain, base, default_toolbox())
    told = forecast(settings, domain, base, base, 0, speed)
    assert told["in_all"]["training_steps_at_most"] == 3
    assert told["time"]["by_stage"]["training"] == pytest.approx(3 * (speed.step or 0.0), abs=0.06)
    assert speed.step


def test_without_its_saved_states_a_policy_is_learned_anew_to_the_same_weights(base: Path, tmp_path: Path) -> None:
    start(update_settings(base, run__rounds=2), tmp_path / "whole", default_toolbox())
    start(update_settings(base, run__rounds=1), tmp_path / "lost", default_toolbox())
    for file in (tmp_path / "lost" / "training").rglob("state.safetensors"):
        file.write_bytes(b"damaged")
    start(update_settings(base, run__rounds=2), tmp_path / "lost", default_toolbox())
    assert update_result(tmp_path / "lost") == update_result(tmp_path / "whole")


def toolbox_with(values: Sequence[float]) -> Toolbox:
    """The real backend, whose reading of an image is replaced: every image gets one of `values` in turn."""
    real = default_toolbox()

    def load(path: Path, device: str) -> UnifiedModel:
        model = real.load_model(path, device)

        def log_likelihood(images: Sequence[Image.Image], texts: Sequence[str]) -> Scores:
            del texts
            return np.resize(np.array(values), len(images))

        model.log_likelihood = log_likelihood  # type: ignore[method-assign]
        return model

    return Toolbox(load, real.train)


def checkpoint(tmp_path: Path, sha256: str) -> Path:
    """The folder of a version of the run in `tmp_path`/run."""
    return tmp_path / "run" / "checkpoints" / sha256


def test_equal_rewards_teach_nothing(base: Path, tmp_path: Path) -> None:
    settings = update_settings(base, run__rounds=1)
    start(settings, tmp_path / "run", toolbox_with([-3.0]))
    for row in rows_of(tmp_path / "run"):
        assert (row["num_learned"], row["num_without_variance"], row["grad_norm"]) == (0, 3, 0.0)
    _, candidate = update_result(tmp_path / "run")["models"]
    before, after = (load_file(folder / "model.safetensors") for folder in (base, checkpoint(tmp_path, candidate[2])))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_reward_that_is_not_a_number_never_counts(base: Path, tmp_path: Path) -> None:
    settings = update_settings(base, run__rounds=1, grpo__updates=1, assess__batch_size=64)
    start(settings, tmp_path / "run", toolbox_with([float("nan"), -1.0, -2.0, -4.0]))
    (row,) = rows_of(tmp_path / "run")
    assert (row["num_samples"], row["num_learned"]) == (12, 9)
    assert row["rewards"]["self"] == pytest.approx(-7 / 3)
    with open_run(tmp_path / "run") as run:
        failed = select(Rollout.advantage).join(Assessment, Assessment.sample_id == Rollout.sample_id)
        assert run.session.scalars(failed.where(Assessment.state == "failed")).all() == [None] * 3


def test_a_policy_whose_entropy_runs_away_stops_the_round_and_says_so(base: Path, tmp_path: Path) -> None:
    """The policy hardly moves here; its entropy differs by prompt, and the bound is so low that this exceeds it."""
    settings = update_settings(
        base, run__rounds=1, train__learning_rate=1e-6, grpo__updates=8, grpo__max_entropy_ratio=1.001
    )
    with pytest.raises(RoundFailedError, match=r"entropy ran away: .* lower train\.learning_rate"):
        start(settings, tmp_path / "run", default_toolbox())
    (row,) = table(tmp_path / "run")
    assert row["state"] == "failed"
    assert row["candidate"] is None
    (told, *_) = row["reasons"]
    entropies = [update["entropy"] for update in rows_of(tmp_path / "run")]
    assert f"at update {len(entropies) + 1}, more than 1.001 times" in told
    assert max(entropies) <= 1.001 * entropies[0], "the update that was stopped is not stored, nor learned from"
