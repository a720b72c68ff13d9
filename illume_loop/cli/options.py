"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_RUN_DIR = Path("illume-run")

RunDir = Annotated[Path, typer.Option("--run-dir", metavar="DIR", help="Directory of the run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings file (TOML), or the name of a shipped one such as dpo."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="Seed of every random choice.")]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="MODEL", help="Version of the run, directory, hub id, or shipped name."),
]
Guidance = Annotated[
    float | None,
    typer.Option(
        "--guidance", metavar="G", min=0.0, max=20.0, help="Guidance scale; 1 turns it off. Default: the gate's."
    ),
]
