"""`[gate]`: when a candidate replaces its parent."""

from __future__ import annotations

from pydantic import Field

from illume_loop.config.section import Section


class GateSettings(Section):
    """When a candidate replaces its parent."""

    heldout_prompts: int = Field(512, ge=1, le=1_000_000, description="Held-out prompts that both draw, at most.")
    guidance_scale: float = Field(1.25, ge=0.0, le=20.0, description="Guidance at which both models are compared.")
    confidence: float = Field(0.95, gt=0.5, lt=1.0, description="Confidence of every interval.")
    resamples: int = Field(2000, ge=100, le=1_000_000, description="Resamples of the paired bootstrap.")
    min_gain: float = Field(
        0.0, ge=-1.0, le=1.0, description="The lower end of the gain's interval must lie above this share."
    )
    understanding_margin: float = Field(
        0.04,
        ge=0.0,
        le=1.0,
        description="Loss of understanding that has to be excluded; fewer probe_items exclude larger losses only.",
    )
    diversity_ratio: float = Field(0.8, ge=0.0, le=1.0, description="Least diversity, as a share of the base's.")
    probe_items: int = Field(
        1024, ge=1, le=1_000_000, description="Forced choices that measure understanding, and held-out edits."
    )
    drift_margin: float = Field(
        0.0, ge=0.0, le=100.0, description="Largest shift of the judge's calibrated log-odds; 0 does not measure it."
    )
    drift_auc: float = Field(
        0.8, ge=0.0, le=1.0, description="Least AUC of a candidate's judgement against the frozen judge's."
    )
    auto_promote: bool = Field(True, description="Whether a candidate that passes becomes active at once.")
