"""The settings of a round: prompts, sampling, judging, curation and the gate."""

from __future__ import annotations

from itertools import product
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator

from illume_loop.settings.section import ADVANCED, Section, checked_url

AUTO = "auto"
"""The value of `run.domain` that lets the base choose the domain; starting a run replaces it with the chosen name."""


class RunSettings(Section):
    """The table `[run]`: the run's name, domain, base, seed and executor."""

    name: str = Field("shapes", pattern=r"^[\w.-]{1,64}$", description="Name of the run, shown in tables and pages.")
    domain: str = Field(
        AUTO,
        pattern=r"^[\w-]{1,64}$",
        description="Source of prompts and verdicts: shapes, text, or a plug-in's domain; auto takes text if "
        "run.prompts names a file, and otherwise the domain that the base was made for.",
    )
    prompts: str = Field("", description="Prompt file from `illume-loop prompts import`; for the domain text.")
    base: str = Field("shapes-base", min_length=1, description="Base model: a shipped name, a directory, or a hub id.")
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of every random choice in the run.")
    rounds: int = Field(3, ge=1, le=1000, description="Rounds of the run in all.")
    preflight: bool = Field(
        True,
        description="Try one prompt through every stage before a new run starts; the trial is not recorded.",
        json_schema_extra=ADVANCED,
    )
    executor: Literal["inline", "celery"] = Field(
        "inline", description="Where units run: in this process, or on Celery workers (needs Postgres and Redis)."
    )


class LoopSettings(Section):
    """The table `[loop]`: how rounds overlap and when they fail."""

    overlap_rounds: int = Field(
        0,
        ge=0,
        le=1,
        description="Rounds that may start sampling while an earlier round still trains or is at the gate.",
        json_schema_extra=ADVANCED,
    )
    dead_unit_tolerance: float = Field(
        0.0,
        ge=0.0,
        lt=1.0,
        description="Share of a stage's units that may be dead before the round fails.",
        json_schema_extra=ADVANCED,
    )


class SamplingSettings(Section):
    """The table `[sampling]`: how training samples are drawn."""

    prompts_per_round: int = Field(512, ge=1, le=1_000_000, description="Train prompts drawn in each round.")
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
        description="Share of a round's prompts that come as pairs, where the two differ in one attribute.",
        json_schema_extra=ADVANCED,
    )
    replay_share: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="Maximum share of a round's prompts that are retries of prompts without an accepted sample.",
        json_schema_extra=ADVANCED,
    )
    guidance_scale: float = Field(
        1.25,
        ge=0.0,
        le=20.0,
        description="Classifier-free guidance; 1 turns it off. Training on guided samples adds up over rounds.",
    )
    temperature: float = Field(0.7, gt=0.0, le=10.0, description="Divisor of the image-token logits.")
    top_k: int = Field(0, ge=0, le=65_536, description="Sample only from the k likeliest image tokens; 0 means all.")
    top_p: float = Field(
        1.0,
        gt=0.0,
        le=1.0,
        description="Sample only from the likeliest image tokens that together reach this probability; 1 means all.",
    )
    batch_size: int = Field(256, ge=1, le=16_384, description="Images drawn together in one unit.")

    @property
    def num_edits(self) -> int:
        """The number of a round's prompts that are edits."""
        return round(self.edit_share * self.prompts_per_round)


class AssessSettings(Section):
    """The table `[assess]`: who judges the samples, and how."""

    assessor: Literal["self", "frozen", "teacher", "checker", "shuffled"] = Field(
        "self",
        description="Judge of the samples: the model itself, the run's base (frozen), or a teacher; for controls, the "
        "checker, or the model's own scores shuffled.",
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
        description="How a judge scores a sample: log p(prompt | image); the same minus log p(prompt); the mean or the "
        "minimum of the yes log-odds over the prompt's questions; the mean of p(yes) - p(no); all of these in one "
        "calibration; or a written grade (known to work badly).",
    )
    questions: Literal["spec", "self"] = Field(
        "spec",
        description="Where questions come from: spec takes them from the prompt's spec, or from the model if a prompt "
        "has none; self always lets the model write them.",
    )
    retries: int = Field(
        3,
        ge=0,
        le=100,
        description="Further sampled attempts if a written answer is not valid JSON.",
        json_schema_extra=ADVANCED,
    )
    critiques: bool = Field(False, description="Have a critique of each sample written; this is slow.")
    critiques_by: Literal["judge", "teacher"] = Field(
        "judge",
        description="Writer of the critiques: the judge itself, or the teacher, in one call for each sample and with a "
        "score from 1 to 5 for each criterion.",
    )
    also_frozen: bool = Field(False, description="Also let the run's base judge each sample, for the record.")
    batch_size: int = Field(256, ge=1, le=16_384, description="Samples assessed together in one unit.")
    calibration: str = Field(
        "", description="File from `illume-loop judge fit`; auto fits one at the start; empty means no calibration."
    )
    abstain_band: float = Field(
        0.0,
        ge=0.0,
        lt=0.5,
        description="The judge abstains if its probability is closer to 0.5 than this.",
        json_schema_extra=ADVANCED,
    )

    @property
    def says_yes_or_no(self) -> bool:
        """True if a score is the share of questions that the assessor finds right, from 0 to 1."""
        return self.assessor in ("checker", "teacher")

    @property
    def judge_writes(self) -> bool:
        """True if the judge writes a critique of each sample."""
        return self.critiques and self.critiques_by == "judge"

    @property
    def teacher_writes(self) -> bool:
        """True if the teacher writes a critique of each sample."""
        return self.critiques and self.critiques_by == "teacher"

    @property
    def asks_teacher(self) -> bool:
        """True if the teacher judges the samples or writes their critiques."""
        return self.assessor == "teacher" or self.teacher_writes


class TeacherSettings(Section):
    """The table `[teacher]`: a vision-language model behind an OpenAI-compatible endpoint, the assessor `teacher`."""

    url: str = Field(
        "", description="Endpoint, such as https://host/v1, with or without /chat/completions; empty means no teacher."
    )
    model: str = Field("", max_length=256, description="Model name to request from the endpoint.")
    key: str = Field(
        "", repr=False, description="Bearer key; set it by ILLUME_TEACHER__KEY or ILLUME_TEACHER__KEY_FILE only."
    )
    timeout_s: float = Field(
        30.0, gt=0.0, le=3600, description="Seconds without data after which a call fails.", json_schema_extra=ADVANCED
    )
    retries: int = Field(
        3,
        ge=0,
        le=100,
        description="Further calls after one that failed, answered neither yes nor no, or wrote no valid assessment.",
        json_schema_extra=ADVANCED,
    )
    max_calls: int = Field(
        10_000, ge=1, le=2**31 - 1, description="Maximum calls, retries included, for one run or fit."
    )
    parallel: int = Field(4, ge=1, le=256, description="Concurrent calls in each process.", json_schema_extra=ADVANCED)

    @field_validator("url")
    @classmethod
    def _url_is_one(cls, url: str) -> str:
        if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
            raise ValueError("it must begin with http:// or https:// and a host")
        if "@" in urlsplit(url).netloc:
            raise ValueError("it must hold no password; give ILLUME_TEACHER__KEY")
        return checked_url(url)


class CurateSettings(Section):
    """The table `[curate]`: which samples become training rows."""

    keep_per_prompt: int = Field(3, ge=1, le=256, description="Maximum samples kept per prompt, best first.")
    drop_lowest: float = Field(
        0.3, ge=0.0, lt=1.0, description="Share of the kept samples that is dropped in each category, worst first."
    )
    category_share: float = Field(
        1.0,
        gt=0.0,
        le=1.0,
        description="Maximum share of a round's accepted samples that may come from one category.",
        json_schema_extra=ADVANCED,
    )
    margin: float = Field(
        0.0,
        ge=0.0,
        le=1e6,
        description="Minimum score gap between a prompt's worst kept and best rejected sample, in nats.",
    )
    min_score: float = Field(-1e6, ge=-1e6, le=1e6, description="Samples with a lower score are never accepted.")
    real_rows: int = Field(
        512, ge=0, le=1_000_000, description="Pairs to replay from the base's pretraining, if the domain has any."
    )
    self_captions: bool = Field(False, description="Also train on accepted samples as image-to-text rows.")
    caption_share: float = Field(
        1.0,
        ge=0.0,
        le=1.0,
        description="Share of replayed pairs used as image-to-text rows; the rest are text-to-image rows, even if a "
        "caption is wrong.",
    )
    duplicate_share: float = Field(
        1.0,
        gt=0.0,
        le=1.0,
        description="Drop an accepted image if more than this share of its ids matches a better one.",
        json_schema_extra=ADVANCED,
    )
    pair_margin: float = Field(
        1.0,
        gt=0.0,
        le=1e6,
        description="Minimum score gap between the two images of a preference pair.",
        json_schema_extra=ADVANCED,
    )
    pairs_per_prompt: int = Field(
        2, ge=1, le=65_536, description="Maximum preference pairs per prompt.", json_schema_extra=ADVANCED
    )
    assessment_rows: int = Field(
        512,
        ge=1,
        le=1_000_000,
        description="Assessment rows that a round adds for assess-sft; half of them correct a bad image.",
        json_schema_extra=ADVANCED,
    )
    assessments: Literal["own", "shuffled", "other-image"] = Field(
        "own",
        description="Critique that a row holds: its own image's; for controls, any row's, or that of another image of "
        "its prompt.",
        json_schema_extra=ADVANCED,
    )
    reviews: int = Field(
        0, ge=0, le=1_000_000, description="Samples that people must review before a round is curated."
    )


_NUMBERS = r"^(\d+(\.\d+)?(,\d+(\.\d+)?)*)?$"
"""Numbers that are separated by commas, without blanks; there may be none."""


class GateSettings(Section):
    """The table `[gate]`: when a candidate replaces its parent."""

    heldout_prompts: int = Field(512, ge=1, le=1_000_000, description="Maximum held-out prompts that both models draw.")
    guidance_scale: float = Field(
        1.25,
        ge=0.0,
        le=20.0,
        description="Guidance scale of the run's setting, at which both models draw as well; its temperature, top-k "
        "and top-p are those of [sampling].",
    )
    guidances: str = Field(
        "1,1.25,1.5",
        pattern=_NUMBERS,
        description="Guidance scales to try for each model's best decode, separated by commas; empty: guidance_scale "
        "alone.",
        json_schema_extra=ADVANCED,
    )
    temperatures: str = Field(
        "1,0.7,0.5",
        pattern=_NUMBERS,
        description="Temperatures to try for each model's best decode, separated by commas; empty: that of [sampling] "
        "alone. With one guidance scale and one temperature nothing is tried.",
        json_schema_extra=ADVANCED,
    )
    decode_prompts: int = Field(
        128,
        ge=1,
        le=1_000_000,
        description="Train prompts that a model draws at each decode that is tried.",
        json_schema_extra=ADVANCED,
    )
    closing: bool = Field(
        True,
        description="After the last round, compare the base and the active version, each at its best decode, on all "
        "held-out prompts, and measure the base's own best of 8 draws.",
        json_schema_extra=ADVANCED,
    )
    confidence: float = Field(0.95, gt=0.5, lt=1.0, description="Confidence of every interval.")
    resamples: int = Field(
        2000, ge=100, le=1_000_000, description="Resamples of the paired bootstrap.", json_schema_extra=ADVANCED
    )
    min_gain: float = Field(
        0.0, ge=-1.0, le=1.0, description="The lower end of the gain's interval must exceed this share."
    )
    understanding_margin: float = Field(
        0.04,
        ge=0.0,
        le=1.0,
        description="Maximum loss of understanding that the test must rule out; a small one needs many probe_items.",
    )
    diversity_ratio: float = Field(0.8, ge=0.0, le=1.0, description="Minimum diversity, as a share of the base's.")
    probe_items: int = Field(
        1024,
        ge=1,
        le=1_000_000,
        description="Number of forced choices that measure understanding, and of held-out edits.",
        json_schema_extra=ADVANCED,
    )
    drift_margin: float = Field(
        0.0,
        ge=0.0,
        le=100.0,
        description="Maximum shift of the judge's calibrated log-odds; 0 skips this measurement.",
        json_schema_extra=ADVANCED,
    )
    drift_auc: float = Field(
        0.8,
        ge=0.0,
        le=1.0,
        description="Minimum AUC of the candidate's judgement against the frozen judge's.",
        json_schema_extra=ADVANCED,
    )
    auto_promote: bool = Field(True, description="Promote a candidate that passes, without asking a person.")

    @field_validator("guidances", "temperatures")
    @classmethod
    def _values_are_usable(cls, text: str, info: ValidationInfo) -> str:
        values = _numbers(text)
        if len(set(values)) < len(values):
            raise ValueError("it names a value twice")
        if info.field_name == "guidances" and max(values, default=0) > 20:
            raise ValueError("a guidance scale is from 0 to 20")
        if info.field_name == "temperatures" and not all(0 < value <= 10 for value in values):
            raise ValueError("a temperature is above 0 and at most 10")
        return text

    def decode_grid(self, temperature: float) -> tuple[tuple[float, float], ...]:
        """Return the decodes to try, as pairs of guidance scale and temperature.

        `temperature` is that of [sampling].
        """
        guidances = _numbers(self.guidances) or (self.guidance_scale,)
        return tuple(product(guidances, _numbers(self.temperatures) or (temperature,)))


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(",") if part)
