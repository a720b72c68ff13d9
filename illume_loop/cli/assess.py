"""`illume-loop assess`: what the model and the checker say of one image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from illume_loop.cli.options import DEFAULT_RUN_DIR, AsJson, Model, RunDir
from illume_loop.cli.output import print_fields, print_json


def assess(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="Image file.")],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What it should show.")],
    model: Model = None,
    run_dir: RunDir = DEFAULT_RUN_DIR,
    as_json: AsJson = False,
) -> None:
    """Score IMAGE against PROMPT: the model's log-likelihood of the prompt, and the checker's verdict."""
    from illume_loop.assess.readings import score_batch
    from illume_loop.cli.images import read_image
    from illume_loop.cli.loading import load, open_domain
    from illume_loop.cli.runs import settings_for

    domain = open_domain(run_dir)
    wanted = domain.parse(prompt)
    picture = read_image(image)
    version, assessor = load(model, run_dir)
    used = settings_for(run_dir).assess.reading
    [score] = score_batch(assessor, [picture], [prompt], used)
    verdict = domain.check(picture, wanted)
    row = {
        "image": str(image),
        "prompt": prompt,
        "model": version,
        "reading": used,
        "score": score,
        "checker": {"passed": verdict.passed, "failed": list(verdict.failed), "found": list(verdict.found)},
    }
    if as_json:
        print_json(row)
    else:
        print_fields(row)
