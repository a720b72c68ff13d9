"""`illume-loop pretrain`: train a base model, from nothing or on your data, or a new detokenizer for one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from illume_loop.cli.output import hint, say

if TYPE_CHECKING:
    from illume_loop.cli.progress import View


def pretrain(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for the checkpoints and the model.")],
    recipe: Annotated[
        str,
        typer.Option("--recipe", metavar="NAME", help="A shipped recipe, or a TOML file with stages."),
    ] = "shapes",
    stage: Annotated[
        list[str] | None, typer.Option("--stage", metavar="NAME", help="Only this stage; repeatable.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--from",
            "--model",
            metavar="MODEL",
            help="Model to train by stages on tokenised data, or to give a new detokenizer.",
        ),
    ] = None,
) -> None:
    """Train a base model, or a new detokenizer for one; or continue a training that was stopped."""
    from illume_loop.cli.exit_codes import INTERRUPTED
    from illume_loop.cli.progress import open_view
    from illume_loop.runtime import prepare
    from illume_loop.settings import RuntimeSettings

    prepare(RuntimeSettings())
    from illume_loop.pretrain.staged_recipe import is_staged

    follow = _by_stages if is_staged(recipe) else _on_shapes
    try:
        with open_view() as view:
            model = follow(recipe, base, out, stage or [], view)
    except KeyboardInterrupt:
        hint("\nillume-loop: stopped; the same command continues from the last checkpoint")
        raise typer.Exit(INTERRUPTED) from None
    say(model)
    hint(f'next: illume-loop eval {model} --suite heldout   or   illume-loop sample "a red circle" --model {model}')


def _on_shapes(recipe: str, base: str | None, out: Path, stages: list[str], view: View) -> Path:
    from illume_loop.pretrain.pretraining import run_recipe

    def on_progress(name: str, done: int, total: int, loss: float) -> None:
        view.update(name, done, total, f"loss {loss:.3f}")

    return run_recipe(recipe, out, stages or None, on_progress, base)


def _by_stages(recipe: str, base: str | None, out: Path, stages: list[str], view: View) -> Path:
    from illume_loop.errors import UsageError
    from illume_loop.models.shipped import base_path
    from illume_loop.pretrain.staged import run_stages
    from illume_loop.pretrain.staged_recipe import load_recipe

    if base is None:
        raise UsageError(f"the recipe {recipe} trains an existing model; name one with --model")
    return run_stages(load_recipe(recipe), base_path(base), out, stages, view.update)
