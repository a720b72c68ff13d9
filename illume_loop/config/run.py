"""`[run]` and `[loop]`: what a run is, and how its rounds follow each other."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from illume_loop.config.section import Section

AUTO = "auto"
"""The domain of a run whose base decides it; a run that was started holds the name that this stood for."""


class RunSettings(Section):
    """What the run is."""

    name: str = Field("shapes", pattern=r"^[\w.-]{1,64}$", description="Name of the run, shown in tables and pages.")
    domain: str = Field(
        AUTO,
        pattern=r"^[\w-]{1,64}$",
        description="World that prompts and verdicts come from: shapes, text, or that of a plug-in; auto takes the one "
        "that the base was made for, and text where run.prompts names a file.",
    )
    prompts: str = Field(
        "", description="File of `illume-loop prompts import` whose prompts the run takes; for the domain text."
    )
    base: str = Field("shapes-base", min_length=1, description="Base model: a shipped name, a directory, or a hub id.")
    seed: int = Field(0, ge=0, lt=2**31, description="Every random choice of the run follows from this number.")
    rounds: int = Field(3, ge=1, le=1000, description="Rounds to run before the command ends.")
    preflight: bool = Field(
        True, description="Whether a new run first tries one prompt through every stage, and records nothing of it."
    )
    executor: Literal["inline", "celery"] = Field(
        "inline", description="Where units run: in this process, or on Celery workers (needs Postgres and Redis)."
    )


class LoopSettings(Section):
    """How rounds follow each other."""

    overlap_rounds: int = Field(
        0, ge=0, le=1, description="Rounds whose sampling may begin while an earlier round still trains or is gated."
    )
    dead_unit_tolerance: float = Field(
        0.0, ge=0.0, lt=1.0, description="Share of a stage's units that may be given up before the round fails."
    )
