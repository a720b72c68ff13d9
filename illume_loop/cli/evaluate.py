"""`illume-loop eval`: measure a model by a suite."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from illume_loop.cli.estimates import print_estimates
from illume_loop.cli.options import DEFAULT_RUN_DIR, AsJson, Guidance, RunDir, Seed
from illume_loop.cli.output import print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from illume_loop.cli.progress import View
    from illume_loop.judge.referee import Referee
    from illume_loop.protocols import Domain, Sampling, Split, UnifiedModel

BATCH = 256

ITEMS = 512

GENEVAL = "GenEval: "


class Suite(StrEnum):
    """The suite to measure."""

    HELDOUT = "heldout"
    TRAIN = "train"
    UNDERSTANDING = "understanding"
    EDITING = "editing"
    GENEVAL = "geneval"


DRAWN: dict[Suite, Split] = {Suite.HELDOUT: "heldout", Suite.TRAIN: "train"}
"""The suites that draw prompts, with their split."""


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Version of the run, directory, hub id, or shipped name.")
    ],
    suite: Annotated[Suite, typer.Option("--suite", help="Suite to measure.")],
    count: Annotated[
        int | None,
        typer.Option("-n", "--count", min=1, max=100_000, help=f"Number of items. Default: {ITEMS}."),
    ] = None,
    guidance: Guidance = None,
    best: Annotated[
        bool,
        typer.Option(
            "--best",
            help="Draw at MODEL's best decode too, and find it on train prompts. A run's versions know theirs, and are "
            "drawn at it without this option, unless --guidance is given.",
        ),
    ] = False,
    seed: Seed = 0,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", metavar="FILE", help=f"{GENEVAL}its metadata (JSON lines).")
    ] = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help=f"{GENEVAL}folder for the images; it is continued.")
    ] = Path("geneval"),
    samples: Annotated[int, typer.Option("--samples", min=1, max=1000, help=f"{GENEVAL}images per prompt.")] = 4,
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge", metavar="MODEL", help=f"{GENEVAL}model that judges. Default: the run's base, or MODEL."
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option("--results", metavar="FILE", help=f"{GENEVAL}results of its own detector for DIR (JSON lines)."),
    ] = None,
    run_dir: RunDir = DEFAULT_RUN_DIR,
    as_json: AsJson = False,
) -> None:
    """Measure MODEL: the share of its draws, edits or forced choices that are right.

    The domain's checker decides. In a domain without one, the run's base decides, or without a run, MODEL itself.

    Draws are made at the run's setting, and at MODEL's best decode if the run knows it.
    """
    from illume_loop.cli.decodes import find_best, known_best, setting_for
    from illume_loop.cli.geneval import GenEval, evaluate_geneval
    from illume_loop.cli.loading import (
        guidance_for,
        load,
        open_domain_of_suites,
        open_referee,
        warn_of_unknown_words,
    )
    from illume_loop.cli.progress import open_view
    from illume_loop.errors import UsageError

    scale = guidance_for(guidance, run_dir)
    if best and suite not in DRAWN:
        raise UsageError(f"--best is for the suites {' and '.join(DRAWN)}; leave it out with --suite {suite}")
    if suite is Suite.GENEVAL:
        if prompts is None or count is not None:
            raise UsageError("the suite geneval draws all prompts of --prompts FILE; give that, and leave out -n")
        evaluate_geneval(GenEval(model, prompts, out, samples, judge, results, scale, seed, run_dir), as_json)
        return
    domain, items = open_domain_of_suites(run_dir, model), ITEMS if count is None else count
    version, measured = load(model, run_dir)
    if suite in DRAWN:
        warn_of_unknown_words(version, measured, [prompt.text for prompt in domain.prompts(DRAWN[suite], items, seed)])
    judged_by, referee = (None, None) if domain.exact else open_referee(run_dir, domain, model)
    with open_view() as view:
        if suite is Suite.UNDERSTANDING:
            passed, categories = _read(measured, domain, items, seed, scale, run_dir, referee)
        elif suite is Suite.EDITING:
            passed, categories = _edit(measured, domain, items, seed, scale)
        else:
            setting = setting_for(scale, run_dir)
            passed, categories = _draw(measured, domain, suite, items, seed, setting, view, referee)
            found = known_best(version, run_dir) if best or guidance is None else None
            if best and found is None:
                found = find_best(measured, domain, scale, run_dir, view, referee)
            if found is not None:
                at_best, _ = _draw(measured, domain, suite, items, seed, found.sampling, view, referee)
    row = {"suite": suite.value, "model": version, **_estimate(passed), "by_category": {}, "seed": seed}
    if judged_by is not None:
        row["judge"] = judged_by
    row["by_category"] = _by_category(passed, categories)
    if suite in DRAWN:
        row["decode"] = asdict(setting)
        if found is not None:
            by_category = _by_category(at_best, categories)
            row["best"] = {**_estimate(at_best), "by_category": by_category, "decode": found.as_json()}
    (print_json if as_json else print_estimates)(row)


def _by_category(passed: list[bool], categories: list[str]) -> dict[str, Any]:
    """Return the estimate of each category, in order of first appearance."""
    return {
        name: _estimate([right for right, category in zip(passed, categories, strict=True) if category == name])
        for name in dict.fromkeys(categories)
    }


def _draw(
    model: UnifiedModel,
    domain: Domain,
    suite: Suite,
    count: int,
    seed: int,
    sampling: Sampling,
    view: View,
    referee: Referee | None,
) -> tuple[list[bool], list[str]]:
    from illume_loop.evals.suites import draw

    prompts = domain.prompts(DRAWN[suite], count, seed)
    seeds = list(range(seed, seed + count))
    images, _ = draw(model, prompts, seeds, sampling, BATCH, lambda done, total: view.update("drawing", done, total))
    if referee is None:
        verdicts = [domain.check(image, prompt) for image, prompt in zip(images, prompts, strict=True)]
    else:
        verdicts = referee.decide(images, prompts, lambda done, total: view.update("judging", done, total))
    return [verdict.passed for verdict in verdicts], [prompt.category for prompt in prompts]


def _read(
    model: UnifiedModel,
    domain: Domain,
    count: int,
    seed: int,
    guidance: float,
    run_dir: Path,
    referee: Referee | None,
) -> tuple[list[bool], list[str]]:
    from illume_loop.cli.runs import settings_for
    from illume_loop.errors import UsageError
    from illume_loop.evals.suites import understanding
    from illume_loop.loop.gate_plans import guard_plan
    from illume_loop.loop.stages.evaluate import measure

    if referee is None:
        categories = [probe.category for probe in domain.reading_probes(count, seed)]
        if not categories:
            raise UsageError(f"the domain '{domain.name}' has no reading probes; give another --suite, such as heldout")
        return understanding(model, domain, count, seed), categories
    # Measure as the gate's guard does, with another size and seed.
    settings = settings_for(run_dir)
    gate = settings.gate.model_copy(update={"probe_items": count, "guidance_scale": guidance})
    run = settings.run.model_copy(update={"seed": seed})
    plan = guard_plan("understanding", domain, settings.model_copy(update={"gate": gate, "run": run}))
    measured = measure(plan, lambda: model, domain, lambda *_: None, referee)
    return measured.passed, [prompt.category for prompt in plan.prompts]


def _edit(model: UnifiedModel, domain: Domain, count: int, seed: int, guidance: float) -> tuple[list[bool], list[str]]:
    from illume_loop.errors import NoCheckerError, UsageError
    from illume_loop.evals.suites import editing
    from illume_loop.protocols import Sampling

    if not domain.exact:
        raise NoCheckerError(domain=domain.name, what="--suite editing", instead="give another suite")
    probes = domain.edit_probes(count, seed)
    if not probes:
        raise UsageError(f"the domain '{domain.name}' has no edits; give another --suite, such as heldout")
    seeds = list(range(seed, seed + count))
    passed = editing(model, probes, seeds, Sampling(guidance_scale=guidance), BATCH)
    return passed, [probe.category for probe in probes]


def _estimate(passed: Sequence[bool]) -> dict[str, Any]:
    from illume_loop.evals.statistics import wilson_interval

    return asdict(wilson_interval(passed))
