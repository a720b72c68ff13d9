"""`illume-loop sample`: draw images for one prompt."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from illume_loop.cli.options import DEFAULT_RUN_DIR, AsJson, Guidance, Model, RunDir, Seed
from illume_loop.cli.output import hint, print_json, say

BATCH = 64


def sample(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="Prompt to draw, for example 'a red circle'.")],
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=10_000, help="Images to draw.")] = 1,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for the PNG files.")] = Path(),
    model: Model = None,
    guidance: Guidance = None,
    seed: Seed = 0,
    run_dir: RunDir = DEFAULT_RUN_DIR,
    as_json: AsJson = False,
) -> None:
    """Draw PROMPT, write each image as a PNG, and print the checker's verdict, if any."""
    from illume_loop.cli.decodes import setting_for
    from illume_loop.cli.loading import guidance_for, load, open_domain, parsed, warn_of_unknown_words
    from illume_loop.files import output_folder

    domain = open_domain(run_dir, model)
    wanted = parsed(domain, prompt, ["sample", prompt], model, run_dir)
    output_folder(out)
    version, drawer = load(model, run_dir)
    warn_of_unknown_words(version, drawer, [wanted.text])
    decode = setting_for(guidance_for(guidance, run_dir), run_dir)
    seeds = list(range(seed, seed + count))
    rows: list[dict[str, Any]] = []
    for start in range(0, count, BATCH):
        chunk = seeds[start : start + BATCH]
        drawn = drawer.decode(drawer.sample([wanted.text] * len(chunk), chunk, decode))
        for image, image_seed in zip(drawn, chunk, strict=True):
            path = out / f"{_slug(prompt)}-{image_seed}.png"
            image.save(path)
            verdict = domain.check(image, wanted) if domain.exact else None
            passed, failed = (verdict.passed, verdict.failed) if verdict is not None else (None, ())
            rows.append({"path": str(path), "seed": image_seed, "passed": passed, "failed": failed})
    if as_json:
        used = {"guidance_scale": decode.guidance_scale, "temperature": decode.temperature}
        print_json({"prompt": prompt, "model": version, **used, "images": rows})
        return
    for row in rows:
        say(f"{row['path']}  {_said(row)}".rstrip())
    hint(f'next: illume-loop assess {rows[0]["path"]} "{prompt}"')


def _said(row: dict[str, Any]) -> str:
    """Return the checker's verdict as text; empty without a checker."""
    if row["passed"] is None:
        return ""
    return "right" if row["passed"] else f"wrong: {', '.join(row['failed'])}"


def _slug(prompt: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60] or "image"
