"""A small run of reinforcement learning on a real model, and what must be equal between two runs of it.

    python -m tests.support.updates BASE FOLDER SEED KILLS [STALENESS]

runs it undisturbed, then once more with that many kills by SIGKILL at points that the seed chooses (see
`tests.support.killer`), and prints both results as lines of JSON. With STALENESS, samples and assessments are units of
their own, and the policy that draws is behind by that many updates.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import select

# The processes that are killed are forked, so what is imported here need not be imported again by each of them.
import illume_loop.models.illume.backend
import illume_loop.train.grpo  # noqa: F401
from illume_db.tables import Rollout, Round, UpdateGroup
from illume_db.updates import updates_table
from illume_loop.loop.run_directory import open_run
from illume_loop.settings import Settings
from tests.support import killer
from tests.support.canned_run import result, small_settings

SMALL_UPDATES: dict[str, object] = {
    "run.domain": "shapes",
    "sampling.prompts_per_round": 12,
    "sampling.samples_per_prompt": 4,
    "sampling.guidance_scale": 1.5,
    "sampling.temperature": 0.7,
    "train.objective": "grpo",
    "train.learning_rate": 1e-3,
    "train.report_to": "none",
    "grpo.updates": 3,
    "grpo.prompts_per_update": 3,
    "gate.heldout_prompts": 8,
    "gate.probe_items": 4,
    "gate.understanding_margin": 1.0,
    "gate.diversity_ratio": 0.0,
}
"""Settings of a run of two rounds that are both promoted."""


def update_settings(base: Path, **values: object) -> Settings:
    """Settings of a small run from a base that exists; `run__seed=1` sets run.seed."""
    changed = {name.replace("__", "."): value for name, value in values.items()}
    return small_settings(base, **SMALL_UPDATES | changed)


def update_result(run_dir: Path, **store: str) -> dict[str, Any]:
    """All of a run that must not depend on where it was killed, updates and rollouts included.

    `store` says where the run's data lies, if that is not in its directory; see `tests.support.canned_run.result`.
    """
    found = result(run_dir, **store)
    with open_run(run_dir, **store) as run:
        rounds = run.session.execute(select(Round.index, Round.id).where(Round.run_id == run.run_id)).all()
        found["updates"] = [
            [index, {key: value for key, value in row.items() if key not in ("seconds", "created_at")}]
            for index, id_ in rounds
            for row in updates_table(run.session, id_)
        ]
        groups = select(UpdateGroup).order_by(UpdateGroup.round_id, UpdateGroup.update_index, UpdateGroup.position)
        found["groups"] = [[one.prompt_id, one.num_scored, one.spreads] for one in run.session.scalars(groups)]
        rollouts = select(Rollout).order_by(Rollout.sample_id)
        found["rollouts"] = [
            [one.sample_id, one.update_index, one.position, one.log_probs.tobytes().hex(), one.advantage]
            for one in run.session.scalars(rollouts)
        ]
    return found


def by_workers(staleness: int) -> dict[str, object]:
    """The settings by which samples and assessments of updates are units of their own, in two batches an update."""
    return {
        "grpo__rollouts": "workers",
        "grpo__max_staleness": staleness,
        "sampling__batch_size": 8,
        "assess__batch_size": 6,
    }


def main(base: Path, folder: Path, seed: str, num_kills: int, staleness: int | None = None) -> None:
    """See the module."""
    settings = update_settings(base, **({} if staleness is None else by_workers(staleness)))
    random = Random(seed)
    num_points = killer.points_passed(settings, folder / "undisturbed")
    _print(0, folder / "undisturbed")
    kills = 0
    while kills < num_kills and killer.killed(settings, folder / "killed", random.randint(5, num_points // 2)):
        kills += 1
    if kills == num_kills:
        assert not killer.killed(settings, folder / "killed", killer.NEVER)
    _print(kills, folder / "killed")


def _print(num_kills: int, run_dir: Path) -> None:
    print(json.dumps({"kills": num_kills, "result": update_result(run_dir)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), *map(int, sys.argv[5:]))
