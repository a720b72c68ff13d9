"""Forecast a start: its plan, the disk that it fills, and the time that it takes on this machine.

The counts are those of the plan. They are upper limits if a stage may end early: curation may accept fewer samples, and
the gate may stop at its first look. The times come from one small batch that is drawn, judged and trained on here.
Nothing of it is kept. Its candidate is written to the system's folder for temporary files and deleted at once.
"""

from __future__ import annotations

import io
import math
import shutil
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from illume_loop.judge.judge import Judge
from illume_loop.loop.context import Toolbox
from illume_loop.loop.gate_plans import DIVERSITY_SAMPLES, KEPT_DRAWS, GatePlans, gate_plans
from illume_loop.loop.stages.assess import judging_models
from illume_loop.loop.stages.plan import round_prompts, units_of_round
from illume_loop.loop.unit_inputs import decode_of, derived_seed
from illume_loop.protocols import Domain, DrawRow, PairRow, TrainingRow
from illume_loop.settings import Settings

MEASURED = 32
"""The largest measured batch, in images. A batch of the settings' size may take minutes."""
STEPS = 3
"""The steps of the measured training. The first one is not timed, because the training has to start up before it."""


@dataclass(frozen=True, slots=True)
class Speed:
    """The measured speed of this machine.

    `draw` and `judge` are seconds per image, and `step` is seconds per training step; None was not measured.
    `image_bytes` is the size of an image in the store.
    """

    draw: float
    judge: float | None
    step: float | None
    image_bytes: float


def forecast(
    settings: Settings, domain: Domain, base: Path | None, run_dir: Path, ended: int, speed: Speed | str
) -> dict[str, Any]:
    """Return the forecast of a start as JSON.

    `ended` rounds are over. `base` is None if it is not on this machine. `speed` is the reason if nothing was measured.
    """
    plans = gate_plans(domain, settings)
    left = max(0, settings.run.rounds - ended)
    per_round = _per_round(settings, plans)
    rows = [_rows_at_most(settings, index) for index in range(ended + 1, settings.run.rounds + 1)]
    steps = [_steps(settings, count) for count in rows]
    draws = left * per_round["gate_draws_at_most"]
    draws += _draws_of_version(plans) if not ended else 0
    draws += _closing_draws(plans) if left and settings.gate.closing else 0
    found: dict[str, Any] = {
        "run_dir": str(run_dir),
        "base": settings.run.base,
        "domain": settings.run.domain,
        "executor": settings.run.executor,
        "rounds": {"in_all": settings.run.rounds, "ended": ended, "left": left},
        "each_round": per_round,
        "in_all": {
            "samples": left * per_round["samples"],
            "rows_of_last_manifest_at_most": rows[-1] if rows else 0,
            "training_steps_at_most": sum(steps),
            "gate_draws_at_most": draws,
        },
    }
    images = found["in_all"]["samples"] + left * min(2 * KEPT_DRAWS, per_round["gate_draws_at_most"])
    # A saved policy has its weights and two moments of each; three of them are kept at once.
    copies = left + 1 + (3 * 3 if settings.train.learns_from_rewards else 0)
    found["disk"] = _disk(base, run_dir, copies, images, speed)
    found["time"] = _time(speed, found["in_all"]["samples"], draws, sum(steps))
    return found


def measured_speed(settings: Settings, domain: Domain, base: Path, tools: Toolbox) -> Speed:
    """Measure how fast this machine draws, judges and trains, by one batch of each. Raises the errors of these."""
    model = tools.load_model(base, settings.runtime.device)
    sampling = settings.sampling
    prompts = [prompt for prompt in round_prompts(domain, settings, 1) if not prompt.is_edit]
    count = min(MEASURED, sampling.batch_size, len(prompts))
    prompts = prompts[:count]
    decode = decode_of(sampling)
    seeds = [derived_seed("forecast", i) for i in range(count)]
    texts = [prompt.text for prompt in prompts]
    model.decode(model.sample(texts[:1], seeds[:1], decode))  # warm up: work that is done once is not timed
    began = time.monotonic()
    ids_BL = model.sample(texts, seeds, decode)
    images = model.decode(ids_BL)
    draw = (time.monotonic() - began) / count
    judged = None
    if any(judging_models(settings.assess)) and not settings.assess.calibration:
        judge = Judge.of(settings.assess, domain, partial(derived_seed, "forecast"))
        began = time.monotonic()
        judge.judge(model, images, prompts, seeds)
        judged = (time.monotonic() - began) / count
    sizes = [_png_bytes(image) for image in images]
    rows = [DrawRow(text, ids_L) for text, ids_L in zip(texts, ids_BL, strict=True)]
    del model
    return Speed(draw, judged, _seconds_of_step(settings, rows, base, tools), sum(sizes) / count)


def _seconds_of_step(settings: Settings, rows: list[DrawRow], base: Path, tools: Toolbox) -> float | None:
    """Return the seconds of a training step; None if trainings run on Ray."""
    if settings.train.backend == "ray":
        return None
    if settings.train.learns_from_rewards:
        return _seconds_of_update_step(settings, rows, base)
    count = STEPS * settings.train.batch_size
    many: list[TrainingRow] = [rows[place % len(rows)] for place in range(count)]
    if settings.train.learns_from_pairs:
        others = [rows[(place + 1) % len(rows)].image_ids for place in range(count)]
        many = [
            PairRow(rows[place % len(rows)].prompt, rows[place % len(rows)].image_ids, other)
            for place, other in enumerate(others)
        ]
    quick = settings.train.model_copy(update={"epochs": 1, "report_to": "none"})
    ticks: list[float] = []
    with tempfile.TemporaryDirectory(prefix="illume-forecast-") as scratch:
        tools.train(base, many, Path(scratch) / "out", quick, 0, lambda *_: ticks.append(time.monotonic()))
    return (ticks[-1] - ticks[0]) / (len(ticks) - 1) if len(ticks) > 1 else None


def _seconds_of_update_step(settings: Settings, rows: list[DrawRow], base: Path) -> float:
    """Return the seconds of an optimiser step of an update, from the learning of one small batch."""
    from illume_loop.train.grpo import Policy, Rollout

    sampling, grpo = settings.sampling, settings.grpo
    policy = Policy(base, settings.train, grpo, decode_of(sampling), 0)
    rollouts = [
        Rollout(row.prompt, row.image_ids, np.zeros(len(row.image_ids), dtype=np.float32), float((-1) ** place))
        for place, row in enumerate(rows)
    ]
    policy.learn(rollouts[:1])  # warm up: the first step loads what the KL divergence is measured from
    began = time.monotonic()
    policy.learn(rollouts)
    seconds_of_image = (time.monotonic() - began) / len(rollouts)
    return seconds_of_image * grpo.prompts_per_update * sampling.samples_per_prompt / grpo.steps_per_update


def _per_round(settings: Settings, plans: GatePlans) -> dict[str, Any]:
    sampling = settings.sampling
    units = units_of_round(settings)
    prompts = sampling.prompts_per_round
    if settings.train.learns_from_rewards:
        prompts = settings.grpo.updates * settings.grpo.prompts_per_update
    counts = {kind: sum(unit.kind == kind for unit in units) for kind in ("sample", "assess", "train")}
    return {
        "prompts": prompts,
        "samples": prompts * sampling.samples_per_prompt,
        "units": counts | {"train": counts["train"] or 1},
        "gate_draws_at_most": 2 * _num_decodes(plans) * settings.gate.heldout_prompts + _draws_of_version(plans),
    }


def _num_decodes(plans: GatePlans) -> int:
    """Return at how many decodes a version draws the held-out prompts: the run's setting, and its best decode."""
    return 1 if plans.grid == (plans.setting,) else 2


def _closing_draws(plans: GatePlans) -> int:
    return 2 * plans.closing.count + sum(plan.count for plan in plans.best_of)


def _draws_of_version(plans: GatePlans) -> int:
    """Return the number of images that one version draws once: those of the guards, and trials of decodes.

    Reading probes of a domain need no draws.
    """
    num = sum(trial.count for trial in plans.trials)
    for suite, plan in plans.guards.items():
        num += len(plan.prompts) * (DIVERSITY_SAMPLES if suite == "diversity" else 1)
    return num


def _rows_at_most(settings: Settings, index: int) -> int:
    """Return the largest number of rows that a round's manifest may have. It holds all that was accepted so far."""
    if settings.train.learns_from_rewards:
        return 0
    sampling, curate = settings.sampling, settings.curate
    kept = sampling.prompts_per_round * min(curate.keep_per_prompt, sampling.samples_per_prompt)
    accepted = (kept - int(curate.drop_lowest * kept)) * index
    rows = accepted * (2 if curate.self_captions else 1)
    if settings.train.learns_from_pairs:
        rows += sampling.prompts_per_round * curate.pairs_per_prompt * index
    if settings.train.learns_assessments:
        rows += curate.assessment_rows * index
    return rows + curate.real_rows


def _steps(settings: Settings, num_rows: int) -> int:
    """Return the optimiser steps of a round, with at most this many rows in its manifest."""
    if settings.train.learns_from_rewards:
        return settings.grpo.updates * settings.grpo.steps_per_update
    return settings.train.epochs * math.ceil(num_rows / settings.train.batch_size)


def _disk(base: Path | None, run_dir: Path, copies: int, num_images: int, speed: Speed | str) -> dict[str, Any]:
    size = None if base is None else sum(file.stat().st_size for file in base.rglob("*") if file.is_file())
    checkpoints = None if size is None else size * copies
    images = None if isinstance(speed, str) else round(speed.image_bytes * num_images)
    here = next(folder for folder in (run_dir.absolute(), *run_dir.absolute().parents) if folder.exists())
    return {
        "images_bytes": images,
        "checkpoints_bytes": checkpoints,
        "free_bytes": shutil.disk_usage(here).free,
    }


def _time(speed: Speed | str, num_samples: int, num_draws: int, num_steps: int) -> dict[str, Any]:
    if isinstance(speed, str):
        return {"seconds": None, "why": speed}
    parts = {
        "drawing": speed.draw * num_samples,
        "judging": None if speed.judge is None else speed.judge * num_samples,
        "training": None if speed.step is None else speed.step * num_steps,
        "gate": speed.draw * num_draws,
    }
    known = {name: round(seconds, 1) for name, seconds in parts.items() if seconds is not None}
    unknown = [name for name in parts if name not in known]
    why = f"not measured: {', '.join(unknown)}" if unknown else ""
    return {"seconds": round(sum(known.values()), 1), "by_stage": known, "why": why}


def _png_bytes(image: Any) -> int:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.tell()
