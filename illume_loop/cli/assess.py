"""`illume-loop assess`: judge one image by the model and the checker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from illume_loop.cli.options import DEFAULT_RUN_DIR, AsJson, Model, RunDir
from illume_loop.cli.output import hint, print_fields, print_json


def assess(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="Image file.")],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="Prompt that it should show.")],
    model: Model = None,
    run_dir: RunDir = DEFAULT_RUN_DIR,
    as_json: AsJson = False,
) -> None:
    """Judge IMAGE against PROMPT: print the model's score, answers and critique, and the checker's verdict, if any."""
    from dataclasses import asdict
    from functools import partial

    from illume_loop.cli.assessments import fields_of, shown
    from illume_loop.cli.images import read_image
    from illume_loop.cli.loading import load, load_calibration, open_domain, parsed, warn_of_unknown_words
    from illume_loop.cli.runs import settings_for
    from illume_loop.judge.judge import Judge
    from illume_loop.loop.unit_inputs import derived_seed

    domain = open_domain(run_dir, model)
    wanted = parsed(domain, prompt, ["assess", str(image), prompt], model, run_dir)
    picture = read_image(image)
    calibration = load_calibration(run_dir)
    version, assessor = load(model, run_dir)
    warn_of_unknown_words(version, assessor, [wanted.text])
    settings = settings_for(run_dir)
    judge = Judge.of(settings.assess, domain, partial(derived_seed, "judge", settings.run.seed), calibration)
    opinion, lacking = judge.judge_fully(assessor, picture, wanted)
    verdict = domain.check(picture, wanted) if domain.exact else None
    row = {
        "image": str(image),
        "prompt": prompt,
        "model": version,
        "reading": judge.reading,
        **shown(asdict(opinion)),
        "checker": {"passed": verdict.passed, "failed": list(verdict.failed), "found": list(verdict.found)}
        if verdict is not None
        else None,
    }
    if as_json:
        print_json(row)
    else:
        print_fields(fields_of(row))
    if lacking is not None:
        hint(f"no questions and no critique: {lacking}")
