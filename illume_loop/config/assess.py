"""`[assess]` and `[teacher]`: who judges the samples, and how."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from illume_loop.config.section import Section, checked_url


class AssessSettings(Section):
    """Who judges the samples, and how."""

    assessor: Literal["self", "frozen", "teacher", "checker", "shuffled"] = Field(
        "self",
        description="Judge: the model itself, the run's base, a teacher, or a control (the checker; its own scores "
        "shuffled).",
    )
    reading: Literal[
        "prompt-likelihood",
        "pointwise-information",
        "yes-no",
        "yes-no-minimum",
        "yes-no-difference",
        "combined",
        "written-score",
    ] = Field(
        "prompt-likelihood",
        description="What the score is: log p(prompt | image), the same without what the prompt says by itself, the "
        "mean or least log-odds of yes over the prompt's questions, the mean of p(yes) - p(no), all calibrated "
        "together, or a written grade (the bad example).",
    )
    questions: Literal["spec", "self"] = Field(
        "spec",
        description="Where questions come from: the prompt's spec (asked by the model where there is none), or self.",
    )
    retries: int = Field(
        3, ge=0, le=100, description="Further tries, sampled, where a written answer is no valid JSON."
    )
    critiques: bool = Field(False, description="Whether the judge writes a critique of each sample; takes a while.")
    also_frozen: bool = Field(False, description="Whether the run's base judges each sample too, for the record.")
    batch_size: int = Field(256, ge=1, le=16_384, description="Samples assessed together in one unit.")
    calibration: str = Field(
        "", description="File of `illume-loop judge fit`, or auto to fit one at the start; empty is no calibration."
    )
    abstain_band: float = Field(
        0.0, ge=0.0, lt=0.5, description="The judge abstains where its probability is less than this away from a half."
    )

    @property
    def says_yes_or_no(self) -> bool:
        """Whether the scores are shares of what an assessor finds right, and 1 is wholly right."""
        return self.assessor in ("checker", "teacher")


class TeacherSettings(Section):
    """The assessor `teacher`: a vision-language model behind an OpenAI-compatible endpoint."""

    url: str = Field(
        "", description="Endpoint, such as https://host/v1, with or without /chat/completions; empty is no teacher."
    )
    model: str = Field("", max_length=256, description="Model that the endpoint is asked for.")
    key: str = Field(
        "", repr=False, description="Bearer key; only from ILLUME_TEACHER__KEY or a file that it names (..._FILE)."
    )
    timeout_s: float = Field(30.0, gt=0.0, le=3600, description="Seconds that one call may be silent.")
    retries: int = Field(3, ge=0, le=100, description="Further calls after one that failed or was no yes and no no.")
    max_calls: int = Field(10_000, ge=1, le=2**31 - 1, description="Calls in all, retries too, for one run or fit.")
    parallel: int = Field(4, ge=1, le=256, description="Calls under way at once, in each process.")

    @field_validator("url")
    @classmethod
    def _url_is_one(cls, url: str) -> str:
        if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
            raise ValueError("it must begin with http:// or https:// and a host")
        if "@" in urlsplit(url).netloc:
            raise ValueError("it must hold no password; give ILLUME_TEACHER__KEY")
        return checked_url(url)
