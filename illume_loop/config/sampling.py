"""`[sampling]`: what a round draws, and how."""

from __future__ import annotations

from pydantic import Field

from illume_loop.config.section import Section


class SamplingSettings(Section):
    """How training samples are drawn."""

    prompts_per_round: int = Field(1536, ge=1, le=1_000_000, description="Train prompts drawn in each round.")
    samples_per_prompt: int = Field(8, ge=1, le=256, description="Images drawn for each prompt of a round.")
    edit_share: float = Field(
        0.0, ge=0.0, le=1.0, description="Share of a round's prompts that are edits of a source image."
    )
    minimal_pairs: float = Field(
        0.0, ge=0.0, le=1.0, description="Share of a round's prompts that come in pairs which differ in one attribute."
    )
    replay_share: float = Field(
        0.0, ge=0.0, le=1.0, description="Largest share of a round's prompts that were drawn before and never accepted."
    )
    guidance_scale: float = Field(
        1.0, ge=0.0, le=20.0, description="Classifier-free guidance; 1 is none. Guided training samples compound."
    )
    temperature: float = Field(1.0, gt=0.0, le=10.0, description="Divides the logits of image tokens.")
    top_k: int = Field(0, ge=0, le=65_536, description="Most likely image tokens kept at each position; 0 keeps all.")
    top_p: float = Field(
        1.0, gt=0.0, le=1.0, description="Most likely image tokens kept up to this share of probability; 1 keeps all."
    )
    batch_size: int = Field(256, ge=1, le=16_384, description="Images drawn together in one unit.")

    @property
    def num_edits(self) -> int:
        """How many of a round's prompts are edits."""
        return round(self.edit_share * self.prompts_per_round)
