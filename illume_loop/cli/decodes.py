"""The decodes at which `illume-loop eval` draws: the run's setting, and a model's best decode."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from illume_loop.cli.progress import View
    from illume_loop.judge.referee import Referee
    from illume_loop.protocols import Domain, Sampling, UnifiedModel


@dataclass(frozen=True, slots=True)
class BestDecode:
    """A model's best decode, with its share of the train prompts on which it was found."""

    sampling: Sampling
    share: float
    num_prompts: int
    num_tried: int

    def as_json(self) -> dict[str, Any]:
        """Return the fields as `models show --json` has them."""
        tried = {"share": self.share, "prompts": self.num_prompts, "of": self.num_tried}
        return {**asdict(self.sampling), **tried}


def setting_for(guidance: float, run_dir: Path) -> Sampling:
    """Return the decode of the run's setting, with this guidance scale."""
    from illume_loop.cli.runs import settings_for
    from illume_loop.protocols import Sampling

    sampling = settings_for(run_dir).sampling
    return Sampling(guidance, sampling.temperature, sampling.top_k, sampling.top_p)


def known_best(version: str, run_dir: Path) -> BestDecode | None:
    """Return the best decode that the run has found for one of its versions; None if it has found none."""
    from illume_db.versions import models_table
    from illume_loop.cli.loading import is_run
    from illume_loop.cli.runs import open_run
    from illume_loop.protocols import Sampling

    if not is_run(run_dir):
        return None
    with open_run(run_dir) as run:
        found = {row["name"]: row["best_decode"] for row in models_table(run.session, run.run_id)}.get(version)
    if found is None:
        return None
    share, prompts, tried = (found.pop(key) for key in ("share", "prompts", "of"))
    return BestDecode(Sampling(**found), share, prompts, tried)


def find_best(
    model: UnifiedModel, domain: Domain, guidance: float, run_dir: Path, view: View, referee: Referee | None
) -> BestDecode:
    """Try the decodes of the settings' grid on train prompts, as the gate does; return the best one."""
    from illume_db.evaluations import DecodeTrial, best_trial
    from illume_loop.cli.runs import settings_for
    from illume_loop.loop.gate_plans import decode_grid, trial_plan
    from illume_loop.loop.stages.evaluate import measure
    from illume_loop.protocols import Sampling

    settings = settings_for(run_dir)
    plan, grid = trial_plan(domain, settings), decode_grid(settings)
    total = len(grid) * plan.count
    trials = []
    for number, sampling in enumerate(grid):
        told = partial(_advance, view, number * plan.count, total)
        measured = measure(plan.at(sampling), lambda: model, domain, told, referee)
        trials.append(DecodeTrial("", asdict(sampling), measured.value, plan.count))
    best = best_trial(trials, asdict(setting_for(guidance, run_dir)))
    return BestDecode(Sampling(**best.decode), best.value, plan.count, len(grid))


def _advance(view: View, before: int, total: int, done: int, _: int) -> None:
    view.update("trying decodes", before + done, total)
