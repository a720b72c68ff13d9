"""`illume-loop eval`: measure one model by one suite."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from illume_loop.cli.options import DEFAULT_RUN_DIR, AsJson, Guidance, RunDir, Seed
from illume_loop.cli.output import print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from illume_loop.cli.progress import View
    from illume_loop.domains.protocol import Domain
    from illume_loop.models.protocol import UnifiedModel

BATCH = 256


class Suite(StrEnum):
    """What can be measured."""

    HELDOUT = "heldout"
    TRAIN = "train"
    UNDERSTANDING = "understanding"
    EDITING = "editing"


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Version of the run, directory, hub id, or shipped name.")
    ],
    suite: Annotated[Suite, typer.Option("--suite", help="What to measure.")],
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=100_000, help="Items to measure it on.")] = 512,
    guidance: Guidance = None,
    seed: Seed = 0,
    run_dir: RunDir = DEFAULT_RUN_DIR,
    as_json: AsJson = False,
) -> None:
    """Measure MODEL: the share of draws or edits that the checker accepts, or of forced choices that it reads right."""
    from illume_loop.cli.loading import guidance_for, load, open_domain
    from illume_loop.cli.progress import open_view

    domain = open_domain(run_dir)
    version, measured = load(model, run_dir)
    with open_view() as view:
        if suite is Suite.UNDERSTANDING:
            passed, categories = _read(measured, domain, count, seed)
        elif suite is Suite.EDITING:
            passed, categories = _edit(measured, domain, count, seed, guidance_for(guidance, run_dir))
        else:
            passed, categories = _draw(measured, domain, suite, count, seed, guidance_for(guidance, run_dir), view)
    row = {"suite": suite.value, "model": version, **_estimate(passed), "by_category": {}, "seed": seed}
    for category in dict.fromkeys(categories):
        row["by_category"][category] = _estimate([p for p, c in zip(passed, categories, strict=True) if c == category])
    if as_json:
        print_json(row)
        return
    _print(row)


def _draw(
    model: UnifiedModel, domain: Domain, suite: Suite, count: int, seed: int, guidance: float, view: View
) -> tuple[list[bool], list[str]]:
    from illume_loop.evals.suites import alignment
    from illume_loop.models.protocol import Sampling

    prompts = domain.prompts("heldout" if suite is Suite.HELDOUT else "train", count, seed)
    seeds = list(range(seed, seed + count))
    drawn = alignment(
        model,
        domain,
        prompts,
        seeds,
        Sampling(guidance_scale=guidance),
        BATCH,
        lambda done, total: view.update("drawing", done, total),
    )
    return drawn.passed, [prompt.category for prompt in prompts]


def _read(model: UnifiedModel, domain: Domain, count: int, seed: int) -> tuple[list[bool], list[str]]:
    from illume_loop.evals.suites import understanding

    categories = [probe.category for probe in domain.reading_probes(count, seed)]
    return understanding(model, domain, count, seed), categories


def _edit(model: UnifiedModel, domain: Domain, count: int, seed: int, guidance: float) -> tuple[list[bool], list[str]]:
    from illume_loop.evals.suites import editing
    from illume_loop.models.protocol import Sampling

    probes = domain.edit_probes(count, seed)
    seeds = list(range(seed, seed + count))
    passed = editing(model, probes, seeds, Sampling(guidance_scale=guidance), BATCH)
    return passed, [probe.category for probe in probes]


def _estimate(passed: Sequence[bool]) -> dict[str, Any]:
    from illume_loop.evals.statistics import wilson_interval

    return asdict(wilson_interval(passed))


def _print(row: dict[str, Any]) -> None:
    from illume_loop.report.numbers import interval

    cells = [["all", str(row["n"]), interval(row)]]
    cells.extend([name, str(part["n"]), interval(part)] for name, part in row["by_category"].items())
    print_table(f"{row['suite']} of {row['model']}, seed {row['seed']}", ("category", "n", "right, %"), cells)
