"""`illume-loop model`: build a model from a language model and a vision encoder, and train its image tokenizer."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from illume_loop.cli.options import AsJson
from illume_loop.cli.output import hint, print_fields, print_json

if TYPE_CHECKING:
    from illume_loop.models.illume.sizes import Choices, Size

app = typer.Typer(help="Build a model from parts, and train its image tokenizer.", no_args_is_help=True)


class Distance(StrEnum):
    """The distance that selects the nearest code."""

    L2 = "l2"
    COSINE = "cosine"


class Update(StrEnum):
    """The update rule of a codebook."""

    EMA = "ema"
    SIMVQ = "simvq"


class Precision(StrEnum):
    """The precision of stored weights."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


@app.command("init")
def init(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="New directory for the checkpoint.")],
    llm: Annotated[
        str | None, typer.Option("--llm", metavar="ID", help="Causal language model: a folder or a hub id.")
    ] = None,
    vision: Annotated[
        str | None, typer.Option("--vision", metavar="ID", help="Vision encoder: a folder or a hub id.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="NAME", help="illume-7b or illume-0.5b; other options override its values."),
    ] = None,
    random: Annotated[
        bool, typer.Option("--random", help="Random weights of that size, for a trial without parts.")
    ] = False,
    image_size: Annotated[
        int | None,
        typer.Option("--image-size", metavar="N", min=1, max=4096, help="Pixels per side. Default: the encoder's."),
    ] = None,
    tokens_per_image: Annotated[
        int | None,
        typer.Option("--tokens-per-image", metavar="N", min=1, max=4096, help="Ids per image. Default: 256 at most."),
    ] = None,
    codebook_size: Annotated[
        int | None,
        typer.Option("--codebook-size", metavar="N", min=2, max=1 << 20, help="Number of codes. Default: 16384."),
    ] = None,
    code_dim: Annotated[
        int | None, typer.Option("--code-dim", metavar="N", min=1, max=4096, help="Width of a code. Default: 32.")
    ] = None,
    code_distance: Annotated[
        Distance | None, typer.Option("--code-distance", help="Distance that selects the nearest code. Default: l2.")
    ] = None,
    codebook_update: Annotated[
        Update | None,
        typer.Option(
            "--codebook-update", help="ema: moving averages; simvq: a learned map of random codes. Default: simvq."
        ),
    ] = None,
    dtype: Annotated[
        Precision | None, typer.Option("--dtype", help="Precision of the weights. Default: the language model's.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Seed of all new weights.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Build a model from a language model and a vision encoder; its new weights are untrained."""
    from illume_loop.runtime import prepare
    from illume_loop.settings import RuntimeSettings

    prepare(RuntimeSettings())
    from illume_loop.models.illume.composing import check_free, compose, compose_random, write

    check_free(out)
    sized, llm, vision = _parts(size, llm, vision, random=random)
    asked: dict[str, object] = {
        "image_size": image_size,
        "tokens_per_image": tokens_per_image,
        "codebook_size": codebook_size,
        "code_dim": code_dim,
        "code_distance": code_distance and code_distance.value,
        "codebook_update": codebook_update and codebook_update.value,
    }
    choices = _choices(sized, asked)
    precision = dtype and dtype.value
    if random and sized is not None:
        made = compose_random(sized, choices, seed=seed, dtype=precision)
    else:
        made = compose(llm, vision, choices, seed=seed, dtype=precision)
    about = {"path": str(out), **made.summary(), "size": size, "seed": seed}
    write(made, out, about)
    if as_json:
        print_json(about)
    else:
        print_fields(about)
    hint(f"next: illume-loop model tokenizer {out} PICTURES -o tokenizer   (without it, the model draws noise)")


@app.command("tokenizer")
def tokenizer(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="ILLUME model: a folder or a hub id.")],
    pictures: Annotated[Path, typer.Argument(metavar="PICTURES", help="Folder of JPEG, PNG or WebP files.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for the checkpoints and the model.")],
    steps: Annotated[
        int, typer.Option("--steps", metavar="N", min=1, help="Training steps of the quantiser.")
    ] = 20_000,
    detokenizer_steps: Annotated[
        int, typer.Option("--detokenizer-steps", metavar="N", min=1, help="Training steps of the detokenizer.")
    ] = 20_000,
    batch: Annotated[int, typer.Option("--batch", metavar="N", min=1, max=4096, help="Pictures per step.")] = 64,
    learning_rate: Annotated[
        float,
        typer.Option("--learning-rate", metavar="RATE", min=0.0, max=1.0, help="Peak learning rate of both trainings."),
    ] = 1e-4,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Seed of the order of the pictures.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Train a model's image tokenizer and detokenizer on pictures, or continue a training that was stopped."""
    from dataclasses import asdict

    from illume_loop.cli.exit_codes import INTERRUPTED
    from illume_loop.cli.progress import open_view
    from illume_loop.runtime import prepare
    from illume_loop.settings import RuntimeSettings

    prepare(RuntimeSettings())
    from illume_loop.pretrain.picture_tokenizer import Numbers, train_picture_tokenizer

    numbers = Numbers(steps, detokenizer_steps, batch, learning_rate, seed)
    try:
        with open_view() as view:
            outcome = train_picture_tokenizer(
                model,
                pictures,
                out,
                numbers,
                lambda name, done, total, loss: view.update(name, done, total, f"loss {loss:.3f}"),
            )
    except KeyboardInterrupt:
        hint("\nillume-loop: stopped; the same command continues from the last checkpoint")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json(asdict(outcome))
    else:
        print_fields(asdict(outcome))
    hint(f"next: illume-loop data tokenize FILE... --model {outcome.model} -o tokens")


def _parts(size: str | None, llm: str | None, vision: str | None, *, random: bool) -> tuple[Size | None, str, str]:
    """Return the named size (or None) and the names of both parts. Raises UsageError, NotFoundError."""
    from illume_loop.errors import UsageError
    from illume_loop.models.illume.sizes import named_size

    sized = None if size is None else named_size(size)
    if random and (sized is None or llm is not None or vision is not None):
        raise UsageError("--random needs --size, and takes neither --llm nor --vision")
    if sized is None and (llm is None or vision is None):
        raise UsageError("a model has two parts: give --llm and --vision, or --size")
    return sized, llm or (sized.llm if sized else ""), vision or (sized.vision if sized else "")


def _choices(size: Size | None, asked: dict[str, object]) -> Choices:
    from dataclasses import replace

    from illume_loop.models.illume.sizes import Choices

    given = {name: value for name, value in asked.items() if value is not None}
    return replace(size.choices if size else Choices(), **given)  # type: ignore[arg-type]
