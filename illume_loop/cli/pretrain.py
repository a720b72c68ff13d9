"""`illume-loop pretrain`: make a base model from nothing, or another detokenizer for one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from illume_loop.cli.output import hint


def pretrain(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder of the checkpoints and the model.")],
    recipe: Annotated[str, typer.Option("--recipe", metavar="NAME", help="Recipe to follow.")] = "shapes",
    stage: Annotated[
        list[str] | None, typer.Option("--stage", metavar="NAME", help="Only this stage; may be repeated.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option("--from", metavar="MODEL", help="Model that gets another detokenizer, by a recipe of one."),
    ] = None,
) -> None:
    """Train a base model, or another detokenizer onto one; or continue where it was stopped."""
    from illume_loop.cli.ending import INTERRUPTED
    from illume_loop.cli.progress import open_view
    from illume_loop.config import RuntimeSettings
    from illume_loop.runtime import prepare

    prepare(RuntimeSettings())
    from illume_loop.pretrain.recipe import run_recipe

    try:
        with open_view() as view:
            model = run_recipe(
                recipe,
                out,
                stage,
                lambda name, done, total, loss: view.update(name, done, total, f"loss {loss:.3f}"),
                base,
            )
    except KeyboardInterrupt:
        hint("\nillume-loop: stopped; the same command continues from the last checkpoint")
        raise typer.Exit(INTERRUPTED) from None
    print(model)
    hint(f'next: illume-loop eval {model} --suite heldout   or   illume-loop sample "a red circle" --model {model}')
