"""`[curate]`: which samples become training rows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from illume_loop.config.section import Section


class CurateSettings(Section):
    """Which samples become training rows."""

    keep_per_prompt: int = Field(4, ge=1, le=256, description="Best samples of a prompt that may be kept.")
    drop_lowest: float = Field(
        0.3, ge=0.0, lt=1.0, description="Share of the kept samples of each category, worst first, left out."
    )
    category_share: float = Field(
        1.0, gt=0.0, le=1.0, description="Largest share of a round's accepted samples that may be of one category."
    )
    margin: float = Field(
        0.0, ge=0.0, le=1e6, description="Least gap in score between the worst kept and the best rejected, in nats."
    )
    min_score: float = Field(
        -1e6, ge=-1e6, le=1e6, description="Samples that score less are never accepted, however few do better."
    )
    real_rows: int = Field(
        1024, ge=0, le=1_000_000, description="Replayed pairs of the base's own pretraining, where the domain has any."
    )
    self_captions: bool = Field(False, description="Whether accepted samples are also rows to read (image to text).")
    caption_share: float = Field(
        1.0,
        ge=0.0,
        le=1.0,
        description="Share of replayed pairs to read; the rest are to draw, wrong captions and all.",
    )
    duplicate_share: float = Field(
        1.0,
        gt=0.0,
        le=1.0,
        description="An accepted image is dropped when more than this share of its ids is that of a better one.",
    )
    pair_margin: float = Field(
        1.0, gt=0.0, le=1e6, description="Least gap in score between the two images of a preference pair."
    )
    pairs_per_prompt: int = Field(2, ge=1, le=65_536, description="Preference pairs of a prompt that may be made.")
    assessment_rows: int = Field(
        512,
        ge=1,
        le=1_000_000,
        description="Assessments that a round adds for assess-sft, half of them of bad images with a correction.",
    )
    assessments: Literal["own", "shuffled", "other-image"] = Field(
        "own", description="What is said of an image: its own critique, or a control (any row's; another image's)."
    )
    reviews: int = Field(
        0, ge=0, le=1_000_000, description="Samples that people must have reviewed before a round is curated."
    )
