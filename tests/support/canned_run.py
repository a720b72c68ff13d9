"""A run on the canned backend that ends within a second, and what must be equal between two runs of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from illume_db.rounds_table import rounds_table
from illume_db.tables import Assessment, Evaluation, Round, Sample
from illume_db.versions import models_table
from illume_loop.loop.context import Toolbox
from illume_loop.loop.coordinator import StageProgress
from illume_loop.loop.prompts import with_domain
from illume_loop.loop.run_directory import open_run
from illume_loop.settings import Settings, load_settings
from illume_loop.start import RunOutcome, start_run
from tests.support.canned_model import canned_toolbox, save_canned

SMALL: dict[str, object] = {
    "run.rounds": 2,
    "run.preflight": False,
    "sampling.prompts_per_round": 6,
    "sampling.samples_per_prompt": 3,
    "sampling.guidance_scale": 1.0,
    "sampling.temperature": 1.0,
    "sampling.batch_size": 7,
    "assess.batch_size": 5,
    "curate.keep_per_prompt": 2,
    "curate.drop_lowest": 0.3,
    "curate.margin": 0.0,
    "curate.self_captions": True,
    "curate.real_rows": 6,
    "curate.caption_share": 0.5,
    "train.epochs": 1,
    "gate.heldout_prompts": 24,
    "gate.probe_items": 12,
    "gate.guidance_scale": 1.0,
    "gate.guidances": "1",
    "gate.temperatures": "1",
    "gate.closing": False,
    "gate.resamples": 100,
    "gate.min_gain": -0.5,
}


@dataclass
class Heard:
    """Remembers all that a run told."""

    stages: list[StageProgress] = field(default_factory=list)
    ended: list[tuple[int, str, list[str]]] = field(default_factory=list)

    def advanced(self, event: StageProgress) -> None:
        self.stages.append(event)

    def round_ended(self, index: int, state: str, reasons: Sequence[str]) -> None:
        self.ended.append((index, state, list(reasons)))


def small_settings(base: Path, **values: object) -> Settings:
    """Settings of a small run from a canned base, made here; `run__seed=1` sets run.seed."""
    if not base.exists():
        save_canned(base, 0.4)
    changed = {name.replace("__", "."): value for name, value in values.items()}
    return with_domain(load_settings(None, SMALL | {"run.base": str(base)} | changed, environ={}))


def start(settings: Settings, run_dir: Path, toolbox: Toolbox | None = None, **more: Any) -> tuple[RunOutcome, Heard]:
    """Run the loop on the canned backend."""
    heard = Heard()
    outcome = start_run(settings, run_dir, progress=heard, toolbox=toolbox or canned_toolbox(), **more)
    return outcome, heard


def table(run_dir: Path) -> list[dict[str, Any]]:
    """The rounds of a run."""
    with open_run(run_dir) as run:
        return rounds_table(run.session, run.run_id)


def result(run_dir: Path, **stores: str) -> dict[str, Any]:
    """All of a run that must not depend on where it was killed: no times, no attempts."""
    with open_run(run_dir, **stores) as run:
        rounds = rounds_table(run.session, run.run_id)
        samples = run.session.execute(
            select(Round.index, Sample.prompt_id, Sample.sample_index, Sample.seed, Sample.image_sha256)
            .join(Round, Round.id == Sample.round_id)
            .order_by(Round.index, Sample.prompt_id, Sample.sample_index)
        )
        assessments = run.session.execute(
            select(Assessment.sample_id, Assessment.assessor, Assessment.score).order_by(
                Assessment.sample_id, Assessment.assessor
            )
        )
        evaluations = run.session.execute(
            select(Evaluation.model_version_id, Evaluation.suite, Evaluation.value).order_by(
                Evaluation.model_version_id, Evaluation.suite, Evaluation.plan_sha256
            )
        )
        timed = {"seconds", "created_at", "ended_at"}
        return {
            "rounds": [{key: value for key, value in row.items() if key not in timed} for row in rounds],
            "samples": [list(row) for row in samples],
            "assessments": [list(row) for row in assessments],
            "evaluations": [list(row) for row in evaluations],
            "models": [(row["name"], row["state"], row["sha256"]) for row in models_table(run.session, run.run_id)],
        }
