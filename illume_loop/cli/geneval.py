"""`illume-loop eval --suite geneval`: draw GenEval's prompts, and judge them by a model and by GenEval's detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from illume_loop.cli.output import hint, print_json, say

if TYPE_CHECKING:
    from illume_loop.cli.progress import View
    from illume_loop.evals.geneval import Folder, Key

JUDGE_BATCH = 64
"""The number of images judged together; each has up to six questions."""


@dataclass(frozen=True, slots=True)
class GenEval:
    """The arguments of a GenEval evaluation."""

    model: str
    prompts: Path
    out: Path
    samples: int
    judge: str | None
    results: Path | None
    guidance: float
    seed: int
    run_dir: Path


def evaluate_geneval(asked: GenEval, as_json: bool) -> None:
    """Draw the prompts, judge the images, and print the result.

    Raises PromptFileError, OtherEvaluationError, DetectorResultsError, and the errors of `loading.load`.
    """
    from illume_loop.cli.estimates import print_estimates
    from illume_loop.cli.loading import BASE, is_run
    from illume_loop.cli.progress import open_view
    from illume_loop.evals.detector import agreement, read_results
    from illume_loop.evals.geneval import estimates

    judged_by = asked.judge or (BASE if is_run(asked.run_dir) else asked.model)
    with open_view() as view:
        version, folder = _drawn(asked, view)
        detector = read_results(asked.results, folder) if asked.results else None
        judged_by, rows = _judged(asked, judged_by, folder, view)
    row: dict[str, Any] = {"suite": "geneval", "model": version, **estimates(folder, _correct(rows))}
    row |= {"seed": asked.seed, "guidance_scale": asked.guidance, "judge": judged_by, "out": str(asked.out)}
    row["detector"] = row["agreement"] = None
    if detector is not None:
        row |= {"detector": estimates(folder, detector), "agreement": agreement(rows, detector)}
    if as_json:
        print_json(row)
        return
    print_estimates(row)
    if detector is not None:
        print_estimates(row | row["detector"] | {"judge": "GenEval's detector"})
        _print_agreement(row)
    else:
        hint(f"next: run GenEval's evaluate_images.py on {asked.out}, then this command again with --results FILE")


def _drawn(asked: GenEval, view: View) -> tuple[str, Folder]:
    """Draw the missing images; return (name of the version, folder with all its images)."""
    from dataclasses import asdict

    from illume_loop.cli.loading import find_model
    from illume_loop.cli.runs import settings_for
    from illume_loop.domains.text.formats import Source, read_prompts
    from illume_loop.evals.geneval import draw_missing, is_drawn, open_folder
    from illume_loop.loop.unit_inputs import derived_seed
    from illume_loop.protocols import Sampling

    prompts = [prompt for _, prompt in read_prompts(Source(asked.prompts, "geneval"))]
    version, checkpoint, load = find_model(asked.model, asked.run_dir)
    sampling = Sampling(guidance_scale=asked.guidance)
    made_by = {"model": checkpoint, "seed": asked.seed, "sampling": asdict(sampling)}
    folder = open_folder(asked.out, prompts, asked.samples, made_by)
    if not is_drawn(folder):
        draw_missing(
            folder,
            load(),
            partial(derived_seed, "geneval", asked.seed),
            sampling,
            settings_for(asked.run_dir).sampling.batch_size,
            lambda done, total: view.update("drawing", done, total),
        )
    return version, folder


def _judged(asked: GenEval, judge: str, folder: Folder, view: View) -> tuple[str, Mapping[Key, Mapping[str, Any]]]:
    """Judge the images that have no judgement yet; return (name of the judge, a row for each image)."""
    from functools import cache

    from illume_loop.cli.loading import find_model
    from illume_loop.domains.text.domain import TextDomain
    from illume_loop.domains.text.prompt_set import PromptSet
    from illume_loop.evals.geneval import judge_missing
    from illume_loop.judge.referee import Referee
    from illume_loop.loop.unit_inputs import derived_seed

    name, checkpoint, load = find_model(judge, asked.run_dir)
    take: Any = cache(load)
    referee = Referee(TextDomain(PromptSet()), take, partial(derived_seed, "geneval judge", asked.seed))
    rows = judge_missing(
        folder,
        checkpoint[:12],
        referee.decisions,
        JUDGE_BATCH,
        lambda done, total: view.update("judging", done, total),
    )
    return name, rows


def _correct(rows: Mapping[Key, Mapping[str, Any]]) -> dict[Key, bool]:
    return {key: row["correct"] for key, row in rows.items()}


def _print_agreement(row: Mapping[str, Any]) -> None:
    from illume_loop.charts.numbers import number, percent

    found = row["agreement"]
    say(
        f"{row['judge']} and the detector agree on {percent(found['share'])} % of {found['n']} images; "
        f"AUC of the judge's score {number(found['auc']) or '-'}"
    )
