"""The table `[grpo]`: how a round of reinforcement learning chooses its prompts, scores its samples and learns."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from illume_loop.settings.section import ADVANCED, Section

SCORERS = ("self", "frozen", "checker")
"""The scorers that `grpo.scorers` can name."""

_SCORER = rf"({'|'.join(SCORERS)})=\d+(\.\d+)?"


class GrpoSettings(Section):
    """The table `[grpo]`, for `train.objective = "grpo"`.

    Group size and decode are those of `[sampling]`; the learning rate, the batches and LoRA are those of `[train]`.
    """

    updates: int = Field(
        25, ge=1, le=9999, description="Updates of the policy in one round.", json_schema_extra=ADVANCED
    )
    prompts_per_update: int = Field(
        32,
        ge=1,
        le=65_536,
        description="Prompts drawn for one update, each sampling.samples_per_prompt times.",
        json_schema_extra=ADVANCED,
    )
    steps_per_update: int = Field(
        1,
        ge=1,
        le=64,
        description="Optimiser steps on the samples of one update; each step uses all of them.",
        json_schema_extra=ADVANCED,
    )
    scorers: str = Field(
        "self=1",
        pattern=rf"^{_SCORER}(,{_SCORER})*$",
        description="Scorers and their weights, separated by commas: self (the version that the round began with), "
        "frozen (the run's base), checker (as a control).",
        json_schema_extra=ADVANCED,
    )
    rollouts: Literal["trainer", "workers"] = Field(
        "trainer",
        description="Who draws and scores the samples of an update: trainer (the process that learns) or workers "
        "(generators and assessors).",
        json_schema_extra=ADVANCED,
    )
    max_staleness: int = Field(
        0,
        ge=0,
        le=64,
        description="Updates by which the policy that draws is behind, so that workers draw while the trainer learns; "
        "above 0 it needs grpo.rollouts = 'workers'.",
        json_schema_extra=ADVANCED,
    )
    advantage: Literal["normalised", "centred"] = Field(
        "normalised",
        description="normalised divides each scorer's rewards by their standard deviation in the group; centred only "
        "subtracts the mean, as Dr. GRPO does.",
        json_schema_extra=ADVANCED,
    )
    shuffled: bool = Field(
        False,
        description="As a control, shuffle the rewards within each group.",
        json_schema_extra=ADVANCED,
    )
    kl: float = Field(
        0.005,
        ge=0.0,
        le=100.0,
        description="Weight of the KL divergence from the run's base; 0 leaves it out.",
        json_schema_extra=ADVANCED,
    )
    clip_low: float = Field(
        0.2,
        gt=0.0,
        lt=1.0,
        description="Ratios of probabilities below 1 minus this are clipped.",
        json_schema_extra=ADVANCED,
    )
    clip_high: float = Field(
        0.28,
        gt=0.0,
        le=10.0,
        description="Ratios of probabilities above 1 plus this are clipped.",
        json_schema_extra=ADVANCED,
    )
    importance_cap: float = Field(
        2.0,
        ge=1.0,
        le=100.0,
        description="Highest importance weight of a token that an older policy drew.",
        json_schema_extra=ADVANCED,
    )
    prompt_floor: float = Field(
        0.25,
        ge=0.0,
        le=1.0,
        description="Share of the choice of prompts that is even; the rest follows how much rewards differed.",
        json_schema_extra=ADVANCED,
    )
    max_entropy_ratio: float = Field(
        1.5,
        gt=1.0,
        le=1000.0,
        description="The round stops if the policy's entropy exceeds that of the run's first update by this factor.",
        json_schema_extra=ADVANCED,
    )

    @property
    def weights(self) -> dict[str, float]:
        """`scorers` as weights by name."""
        parts = (part.split("=") for part in self.scorers.split(","))
        return {name: float(weight) for name, weight in parts}

    @model_validator(mode="after")
    def _scorers_count_once(self) -> Self:
        if len(self.weights) != self.scorers.count("=") or not all(self.weights.values()):
            raise ValueError("grpo.scorers must name each scorer once, with a weight above 0")
        return self

    @model_validator(mode="after")
    def _only_workers_draw_ahead(self) -> Self:
        if self.max_staleness and self.rollouts != "workers":
            raise ValueError("grpo.max_staleness above 0 needs grpo.rollouts = 'workers'")
        return self
