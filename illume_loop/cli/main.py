"""The command `illume-loop`, with all its subcommands.

Invariants:
- `import illume_loop.cli` and `--help` load neither torch nor SQLAlchemy nor pydantic; each command imports what it
  needs when it runs.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import Annotated

import typer

from illume_loop import __version__
from illume_loop.cli import (
    ablate,
    assess,
    bench,
    config,
    dashboard,
    data,
    database,
    doctor,
    exit_codes,
    judge,
    model,
    models,
    pretrain,
    prompts,
    report,
    reviews,
    rounds,
    sample,
    samples,
    start,
    terminal,
    worker,
)
from illume_loop.cli.evaluate import evaluate
from illume_loop.telemetry import libraries

app = typer.Typer(
    name="illume-loop",
    help="A loop in which a unified multimodal model judges its own images and trains on its judgement.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"]},
    pretty_exceptions_enable=False,
)
app.command("start")(start.start)
app.add_typer(rounds.app, name="rounds")
app.add_typer(samples.app, name="samples")
app.add_typer(reviews.app, name="reviews")
app.add_typer(models.app, name="models")
app.add_typer(model.app, name="model")
app.add_typer(prompts.app, name="prompts")
app.command("sample")(sample.sample)
app.command("assess")(assess.assess)
app.command("eval")(evaluate)
app.add_typer(judge.app, name="judge")
app.add_typer(data.app, name="data")
app.command("pretrain")(pretrain.pretrain)
app.command("ablate")(ablate.ablate)
app.command("report")(report.report)
app.command("bench")(bench.bench)
app.command("worker")(worker.worker)
app.add_typer(worker.app, name="workers")
app.command("dashboard")(dashboard.dashboard)
app.add_typer(config.app, name="config")
app.add_typer(database.app, name="db")
app.command("doctor")(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an unexpected error.")] = False,
    _: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    exit_codes.ERROR_OPTIONS.debug = debug


def main() -> None:
    """Run the command line and exit with its code."""
    terminal.ready()
    libraries.silence(lambda: exit_codes.ERROR_OPTIONS.debug)
    code = exit_codes.run_app(app)
    if code == exit_codes.INTERRUPTED:
        # Threads may still run native code; a normal exit of the interpreter would then abort the process.
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # the stream may be closed
                stream.flush()
        os._exit(code)
    sys.exit(code)
