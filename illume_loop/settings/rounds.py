"""Settings of what a round does: prompts, sampling, judging, curation and the gate."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from illume_loop.settings.section import ADVANCED, Section, checked_url

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
        True,
        description="Whether a new run first tries one prompt through every stage, and records nothing of it.",
        json_schema_extra=ADVANCED,
    )
    executor: Literal["inline", "celery"] = Field(
        "inline", description="Where units run: in this process, or on Celery workers (needs Postgres and Redis)."
    )


class LoopSettings(Section):
    """How rounds follow each other."""

    overlap_rounds: int = Field(
        0,
        ge=0,
        le=1,
        description="Rounds whose sampling may begin while an earlier round still trains or is gated.",
        json_schema_extra=ADVANCED,
    )
    dead_unit_tolerance: float = Field(
        0.0,
        ge=0.0,
        lt=1.0,
        description="Share of a stage's units that may be given up before the round fails.",
        json_schema_extra=ADVANCED,
    )


class SamplingSettings(Section):
    """How training samples are drawn."""

    prompts_per_round: int = Field(1536, ge=1, le=1_000_000, description="Train prompts drawn in each round.")
    samples_per_prompt: int = Field(8, ge=1, le=256, description="Images drawn for each prompt of a round.")
    edit_share: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="Share of a round's prompts that are edits of a source image.",
        json_schema_extra=ADVANCED,
    )
    minimal_pairs: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="Share of a round's prompts that come in pairs which differ in one attribute.",
        json_schema_extra=ADVANCED,
    )
    replay_share: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="Largest share of a round's prompts that were drawn before and never accepted.",
        json_schema_extra=ADVANCED,
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
        3,
        ge=0,
        le=100,
        description="Further tries, sampled, where a written answer is no valid JSON.",
        json_schema_extra=ADVANCED,
    )
    critiques: bool = Field(False, description="Whether the judge writes a critique of each sample; takes a while.")
    also_frozen: bool = Field(False, description="Whether the run's base judges each sample too, for the record.")
    batch_size: int = Field(256, ge=1, le=16_384, description="Samples assessed together in one unit.")
    calibration: str = Field(
        "", description="File of `illume-loop judge fit`, or auto to fit one at the start; empty is no calibration."
    )
    abstain_band: float = Field(
        0.0,
        ge=0.0,
        lt=0.5,
        description="The judge abstains where its probability is less than this away from a half.",
        json_schema_extra=ADVANCED,
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
    timeout_s: float = Field(
        30.0, gt=0.0, le=3600, description="Seconds that one call may be silent.", json_schema_extra=ADVANCED
    )
    retries: int = Field(
        3,
        ge=0,
        le=100,
        description="Further calls after one that failed or was no yes and no no.",
        json_schema_extra=ADVANCED,
    )
    max_calls: int = Field(10_000, ge=1, le=2**31 - 1, description="Calls in all, retries too, for one run or fit.")
    parallel: int = Field(
        4, ge=1, le=256, description="Calls under way at once, in each process.", json_schema_extra=ADVANCED
    )

    @field_validator("url")
    @classmethod
    def _url_is_one(cls, url: str) -> str:
        if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
            raise ValueError("it must begin with http:// or https:// and a host")
        if "@" in urlsplit(url).netloc:
            raise ValueError("it must hold no password; give ILLUME_TEACHER__KEY")
        return checked_url(url)


class CurateSettings(Section):
    """Which samples become training rows."""

    keep_per_prompt: int = Field(4, ge=1, le=256, description="Best samples of a prompt that may be kept.")
    drop_lowest: float = Field(
        0.3, ge=0.0, lt=1.0, description="Share of the kept samples of each category, worst first, left out."
    )
    category_share: float = Field(
        1.0,
        gt=0.0,
        le=1.0,
        description="Largest share of a round's accepted samples that may be of one category.",
        json_schema_extra=ADVANCED,
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
        json_schema_extra=ADVANCED,
    )
    pair_margin: float = Field(
        1.0,
        gt=0.0,
        le=1e6,
        description="Least gap in score between the two images of a preference pair.",
        json_schema_extra=ADVANCED,
    )
    pairs_per_prompt: int = Field(
        2, ge=1, le=65_536, description="Preference pairs of a prompt that may be made.", json_schema_extra=ADVANCED
    )
    assessment_rows: int = Field(
        512,
        ge=1,
        le=1_000_000,
        description="Assessments that a round adds for assess-sft, half of them of bad images with a correction.",
        json_schema_extra=ADVANCED,
    )
    assessments: Literal["own", "shuffled", "other-image"] = Field(
        "own",
        description="What is said of an image: its own critique, or a control (any row's; another image's).",
        json_schema_extra=ADVANCED,
    )
    reviews: int = Field(
        0, ge=0, le=1_000_000, description="Samples that people must have reviewed before a round is curated."
    )


class GateSettings(Section):
    """When a candidate replaces its parent."""

    heldout_prompts: int = Field(512, ge=1, le=1_000_000, description="Held-out prompts that both draw, at most.")
    guidance_scale: float = Field(1.25, ge=0.0, le=20.0, description="Guidance at which both models are compared.")
    confidence: float = Field(0.95, gt=0.5, lt=1.0, description="Confidence of every interval.")
    resamples: int = Field(
        2000, ge=100, le=1_000_000, description="Resamples of the paired bootstrap.", json_schema_extra=ADVANCED
    )
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
        1024,
        ge=1,
        le=1_000_000,
        description="Forced choices that measure understanding, and held-out edits.",
        json_schema_extra=ADVANCED,
    )
    drift_margin: float = Field(
        0.0,
        ge=0.0,
        le=100.0,
        description="Largest shift of the judge's calibrated log-odds; 0 does not measure it.",
        json_schema_extra=ADVANCED,
    )
    drift_auc: float = Field(
        0.8,
        ge=0.0,
        le=1.0,
        description="Least AUC of a candidate's judgement against the frozen judge's.",
        json_schema_extra=ADVANCED,
    )
    auto_promote: bool = Field(True, description="Whether a candidate that passes becomes active at once.")
