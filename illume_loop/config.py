"""Settings: what can be set, within which bounds, and which source gave each value.

Sources, each overriding the one before: the defaults here (or the settings of the run that is continued), a TOML file,
environment variables `ILLUME_<SECTION>__<KEY>`, flags of the command line. A key that nothing here knows is an error in
every source, so a typing mistake never runs for hours with a default. Settings never change once they are loaded.
Variables may also name files that hold the value, or the password of a URL: environment.py.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args, get_origin
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from illume_loop.environment import environment_values, variable_of
from illume_loop.errors import SettingsError, SettingsFileError
from illume_loop.redaction import HIDDEN, learn, learn_secret, url_without_password

LEAST_PASSWORD = 12
_SIGNS = (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"), ("min_length", "length >="), ("pattern", "matches"))


class Section(BaseModel):
    """One table of the TOML file."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False, str_strip_whitespace=True
    )


class RunSettings(Section):
    """What the run is."""

    name: str = Field("shapes", pattern=r"^[\w.-]{1,64}$", description="Name of the run, shown in tables and pages.")
    domain: str = Field("shapes", pattern=r"^[\w-]{1,64}$", description="World that prompts and verdicts come from.")
    prompts: str = Field(
        "", description="File of `illume-loop prompts import` whose prompts the run takes; for the domain text."
    )
    base: str = Field("shapes-base", min_length=1, description="Base model: a shipped name, a directory, or a hub id.")
    seed: int = Field(0, ge=0, lt=2**31, description="Every random choice of the run follows from this number.")
    rounds: int = Field(3, ge=1, le=1000, description="Rounds to run before the command ends.")
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

    url: str = Field("", description="Endpoint up to its version, such as https://host/v1; empty is no teacher.")
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
        return _checked_url(url)


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


_SAVING = "(bf16|checkpointing|packing|labelled-logits|block-logits)"


class TrainSettings(Section):
    """How a candidate is trained."""

    objective: Literal["sft", "assess-sft", "dpo", "kto"] = Field(
        "sft",
        description="Loss: next-token cross-entropy on what was accepted, the same with assessments in the mix, or "
        "preferences by DPO or KTO.",
    )
    beta: float = Field(
        0.1, gt=0.0, le=100.0, description="DPO and KTO: how dear it is to leave the model that training starts from."
    )
    sft_weight: float = Field(
        1.0, ge=0.0, le=100.0, description="DPO and KTO: weight of the cross-entropy that anchors the preferences."
    )
    learning_rate: float = Field(5e-4, gt=0.0, le=1.0, description="Peak learning rate.")
    epochs: int = Field(
        1, ge=1, le=1000, description="Passes over the manifest; more than one sharpens whatever is there."
    )
    batch_size: int = Field(64, ge=1, le=16_384, description="Rows in one optimiser step.")
    warmup_ratio: float = Field(0.1, ge=0.0, le=1.0, description="Share of the steps in which the rate rises.")
    lora_rank: int = Field(0, ge=0, le=1024, description="Rank of LoRA adapters; 0 trains every weight.")
    text_dropout: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="Share of drawing rows whose prompt is dropped, as pretraining does for guidance.",
    )
    report_to: Literal["auto", "none", "tensorboard", "wandb", "mlflow"] = Field(
        "auto", description="Tracker that hears of each training step; auto is TensorBoard where it is installed."
    )
    from_: Literal["base", "parent"] = Field(
        "base", alias="from", description="Where training starts; from the parent, later rounds forget earlier ones."
    )
    savings: str = Field(
        "",
        pattern=rf"^({_SAVING}(,{_SAVING})*)?$",
        description="What training saves, with commas: bf16 (on GPUs), checkpointing, packing, labelled-logits, "
        "block-logits.",
    )
    backend: Literal["local", "ray"] = Field("local", description="Where a training runs: in this process, or on Ray.")
    ray_address: str = Field(
        "", description="Ray cluster, such as ray-head:6379 or auto; empty starts one on this machine."
    )
    workers: int = Field(1, ge=1, le=4096, description="Ray workers of a training; each takes its share of a step.")
    worker_resources: str = Field(
        "CPU=1",
        pattern=r"^[A-Za-z][\w.:-]*=\d+(\.\d+)?(,[A-Za-z][\w.:-]*=\d+(\.\d+)?)*$",
        description="What Ray sets aside for each worker, such as CPU=8,GPU=1.",
    )
    strategy: Literal["ddp", "zero2", "zero3"] = Field(
        "ddp", description="How Ray workers share a model: whole copies, or DeepSpeed's stages of ZeRO."
    )

    @property
    def saves(self) -> frozenset[str]:
        """The single `savings`."""
        return frozenset(self.savings.split(",")) - {""}

    @property
    def num_processes(self) -> int:
        """Processes that share a step."""
        return self.workers if self.backend == "ray" else 1

    @property
    def resources(self) -> dict[str, float]:
        """`worker_resources` by name."""
        parts = (part.split("=") for part in self.worker_resources.split(","))
        return {name: float(amount) for name, amount in parts}

    @property
    def learns_from_pairs(self) -> bool:
        """Whether the objective needs preferences, with a better and a worse side."""
        return self.objective in ("dpo", "kto")

    @property
    def learns_assessments(self) -> bool:
        """Whether the objective needs critiques, one turn and two."""
        return self.objective == "assess-sft"


class GateSettings(Section):
    """When a candidate replaces its parent."""

    heldout_prompts: int = Field(512, ge=1, le=1_000_000, description="Held-out prompts that both draw, at most.")
    guidance_scale: float = Field(1.25, ge=0.0, le=20.0, description="Guidance at which both models are compared.")
    confidence: float = Field(0.95, gt=0.5, lt=1.0, description="Confidence of every interval.")
    resamples: int = Field(2000, ge=100, le=1_000_000, description="Resamples of the paired bootstrap.")
    min_gain: float = Field(
        0.0, ge=-1.0, le=1.0, description="The lower end of the gain's interval must lie above this share."
    )
    understanding_margin: float = Field(0.02, ge=0.0, le=1.0, description="Largest loss of understanding allowed.")
    diversity_ratio: float = Field(0.8, ge=0.0, le=1.0, description="Least diversity, as a share of the base's.")
    probe_items: int = Field(
        256, ge=1, le=1_000_000, description="Forced choices that measure understanding, and held-out edits."
    )
    drift_margin: float = Field(
        0.0, ge=0.0, le=100.0, description="Largest shift of the judge's calibrated log-odds; 0 does not measure it."
    )
    drift_auc: float = Field(
        0.8, ge=0.0, le=1.0, description="Least AUC of a candidate's judgement against the frozen judge's."
    )
    auto_promote: bool = Field(True, description="Whether a candidate that passes becomes active at once.")


class StoreSettings(Section):
    """Where rows and files are kept."""

    database_url: str = Field(
        "", repr=False, description="SQLAlchemy URL of the database; empty is SQLite in the run directory."
    )
    artifacts_url: str = Field(
        "", repr=False, description="fsspec URL of images and checkpoints; empty is the run directory."
    )

    @field_validator("database_url")
    @classmethod
    def _database_url_is_one(cls, url: str) -> str:
        return _checked_url(url)


class ClusterSettings(Section):
    """How coordinator and workers find each other and how long they wait; only `executor = "celery"` uses it."""

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0", repr=False, description="Redis that carries messages; rediss:// for TLS."
    )
    lease_s: float = Field(120.0, gt=0.0, le=86_400, description="Seconds that a lease lasts without progress.")
    heartbeat_s: float = Field(5.0, gt=0.0, le=3600, description="Seconds between two heartbeats.")
    stall_after_s: float = Field(
        600.0, gt=0.0, le=86_400, description="Seconds without progress after which a busy worker ends itself."
    )
    drain_deadline_s: float = Field(
        60.0,
        ge=0.0,
        le=86_400,
        description="Seconds that a stopping worker has to finish its unit before it hands it back.",
    )
    visibility_timeout_s: int = Field(
        3600, ge=1, le=604_800, description="Seconds after which Redis delivers an unacknowledged message again."
    )
    poll_s: float = Field(0.5, gt=0.0, le=60.0, description="Longest seconds between two looks of the coordinator.")
    reissue_after_s: float = Field(
        30.0, gt=0.0, le=86_400, description="Seconds after which a unit that nobody took is sent again."
    )
    stage_deadline_s: float = Field(
        3600.0, gt=0.0, le=604_800, description="Seconds without any progress after which the coordinator gives up."
    )
    leader_lease_s: float = Field(
        15.0, gt=0.0, le=3600, description="Seconds after which a standby takes over from a silent coordinator."
    )
    reconnect_s: float = Field(
        60.0, gt=0.0, le=86_400, description="Seconds for which an unreachable Postgres or Redis is tried again."
    )
    units_per_worker: int = Field(2, ge=1, le=1000, description="Units sent out for each live worker, at most.")
    cache_dir: str = Field("", description="Checkpoints pulled to this host; empty is illume-loop in the user's cache.")

    @field_validator("redis_url")
    @classmethod
    def _redis_url_is_one(cls, url: str) -> str:
        if urlsplit(url).scheme not in ("redis", "rediss"):
            raise ValueError("it must begin with redis:// or rediss://")
        if any(not name.startswith("ssl_") for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)):
            raise ValueError("its parameters may only be those of TLS (ssl_...)")
        return _checked_url(url)


class DashboardSettings(Section):
    """Who may do what on `illume-loop dashboard`; each password is that of a role, and empty is none."""

    reader_password: str = Field(
        "", repr=False, description="Lets people look; only from its variable or a file that it names (..._FILE)."
    )
    reviewer_password: str = Field(
        "", repr=False, description="Lets people look and review; from its variable or file only."
    )
    admin_password: str = Field(
        "", repr=False, description="Lets people promote and roll back too; from its variable or file only."
    )

    @field_validator("reader_password", "reviewer_password", "admin_password")
    @classmethod
    def _password_is_long(cls, password: str) -> str:
        if password and len(password) < LEAST_PASSWORD:
            raise ValueError(f"it must have {LEAST_PASSWORD} characters at least")
        return password


class RuntimeSettings(Section):
    """How this machine is used. Only `threads` and `device` touch results, in the last bits of floating-point sums."""

    threads: int = Field(0, ge=0, le=4096, description="CPU threads; 0 is one for each core, or OMP_NUM_THREADS.")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N.")
    max_attempts: int = Field(3, ge=1, le=100, description="Attempts at a unit before it is given up.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least severe line logged.")
    log_format: Literal["text", "json"] = Field("text", description="Lines of text, or JSON with run, round and unit.")
    metrics_address: str = Field(
        "",
        pattern=r"^([\w.-]+:[1-9]\d{0,4})?$",
        description="host:port at which Prometheus reads metrics, or the first free port above; empty is none.",
    )
    traces_url: str = Field(
        "",
        pattern=r"^(https?://[^\s@]+)?$",
        description="OTLP endpoint for OpenTelemetry traces, such as http://host:4318; empty is none.",
    )


_URLS = (("store", "database_url"), ("store", "artifacts_url"), ("cluster", "redis_url"))
"""The settings that may hold a password."""
_SECRETS = (
    ("teacher", "key"),
    ("dashboard", "reader_password"),
    ("dashboard", "reviewer_password"),
    ("dashboard", "admin_password"),
)
"""The settings that are a secret as a whole: never in a file that is shared, a flag, or the database."""


class Settings(Section):
    """All settings of a run."""

    run: RunSettings = RunSettings()
    loop: LoopSettings = LoopSettings()
    sampling: SamplingSettings = SamplingSettings()
    assess: AssessSettings = AssessSettings()
    teacher: TeacherSettings = TeacherSettings()
    curate: CurateSettings = CurateSettings()
    train: TrainSettings = TrainSettings()
    gate: GateSettings = GateSettings()
    store: StoreSettings = StoreSettings()
    cluster: ClusterSettings = ClusterSettings()
    dashboard: DashboardSettings = DashboardSettings()
    runtime: RuntimeSettings = RuntimeSettings()

    _provenance: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _best_of_n_has_a_choice(self) -> Self:
        if self.curate.keep_per_prompt > self.sampling.samples_per_prompt:
            raise ValueError("curate.keep_per_prompt cannot exceed sampling.samples_per_prompt")
        return self

    @model_validator(mode="after")
    def _critiques_have_a_writer(self) -> Self:
        if self.assess.critiques and self.assess.says_yes_or_no and not self.assess.also_frozen:
            raise ValueError("assess.critiques needs a model that judges; set assess.assessor or assess.also_frozen")
        return self

    @model_validator(mode="after")
    def _pairs_can_be_clean(self) -> Self:
        if self.train.learns_from_pairs and self.sampling.samples_per_prompt < 2:
            raise ValueError(
                f"train.objective = '{self.train.objective}' needs sampling.samples_per_prompt of 2 or more"
            )
        if self.train.learns_from_pairs and self.assess.says_yes_or_no and self.curate.pair_margin > 1.0:
            raise ValueError(
                f"curate.pair_margin cannot exceed 1 with the {self.assess.assessor}, whose scores are 0 to 1"
            )
        return self

    @model_validator(mode="after")
    def _trainings_can_be_shared(self) -> Self:
        train = self.train
        if train.backend == "local" and (train.workers > 1 or train.strategy != "ddp"):
            raise ValueError("train.workers above 1 and train.strategy need train.backend = 'ray'")
        if train.batch_size % train.num_processes:
            raise ValueError(f"train.batch_size must be a multiple of train.workers, {train.workers}")
        if train.learns_from_pairs and train.strategy != "ddp":
            raise ValueError(f"train.objective = '{train.objective}' needs train.strategy = 'ddp'")
        return self

    @model_validator(mode="after")
    def _savings_go_together(self) -> Self:
        logits = self.train.saves & {"labelled-logits", "block-logits"}
        if len(logits) == 2:
            raise ValueError("train.savings can hold one of labelled-logits and block-logits")
        if self.train.learns_from_pairs and self.train.saves & {"packing", "block-logits", "labelled-logits"}:
            raise ValueError(f"train.objective = '{self.train.objective}' can save only by bf16 and checkpointing")
        if logits and self.train.strategy == "zero3":
            raise ValueError("train.strategy = 'zero3' keeps TRL's own logits; leave them out of train.savings")
        return self

    @model_validator(mode="after")
    def _edits_can_be_learned(self) -> Self:
        if self.sampling.edit_share and self.train.learns_from_pairs:
            raise ValueError(
                f"train.objective = '{self.train.objective}' learns from no edits; set sampling.edit_share to 0 or "
                "train.objective to 'sft'"
            )
        return self

    @model_validator(mode="after")
    def _a_teacher_that_judges_is_there(self) -> Self:
        if self.assess.assessor == "teacher" and not (self.teacher.url and self.teacher.model):
            raise ValueError("assess.assessor = 'teacher' needs teacher.url and teacher.model")
        return self

    @model_validator(mode="after")
    def _assessments_are_written(self) -> Self:
        if self.train.learns_assessments and not self.assess.critiques:
            raise ValueError("train.objective = 'assess-sft' needs assess.critiques")
        if self.train.learns_assessments and self.assess.says_yes_or_no:
            raise ValueError("train.objective = 'assess-sft' needs an assess.assessor that writes critiques")
        return self

    @model_validator(mode="after")
    def _what_needs_a_calibration_has_one(self) -> Self:
        asking = {
            "gate.drift_margin above 0": self.gate.drift_margin > 0,
            "assess.abstain_band above 0": self.assess.abstain_band > 0,
            "assess.reading = 'combined'": self.assess.reading == "combined",
        }
        for what, asks in asking.items():
            if asks and not self.assess.calibration:
                raise ValueError(f"{what} needs assess.calibration")
        return self

    @model_validator(mode="after")
    def _each_password_is_of_one_role(self) -> Self:
        given = [password for password in self.dashboard.model_dump().values() if password]
        if len(set(given)) < len(given):
            raise ValueError("two roles of [dashboard] have the same password; give each its own")
        return self

    @property
    def provenance(self) -> Mapping[str, str]:
        """Dotted key to the source of its value: `default`, `the run`, a file's path, a variable's name, or `flag`."""
        return {key: self._provenance.get(key, "default") for key in field_names()}

    def resolved(self) -> dict[str, Any]:
        """Every setting as JSON, keyed as in the TOML file; a key, and a password in a URL, is shown as `***`."""
        data = self.model_dump(mode="json", by_alias=True)
        for section, key in _URLS:
            data[section][key] = url_without_password(data[section][key])
        for section, key in _SECRETS:
            data[section][key] = HIDDEN if data[section][key] else ""
        return data


def load_settings(
    path: Path | None = None,
    overrides: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    stored: Mapping[str, Mapping[str, object]] | None = None,
) -> Settings:
    """Settings from a TOML file, the environment and flags, in rising precedence.

    `overrides` maps dotted keys ("run.seed") to values; a value of None means that the flag was not given. `stored`
    are the resolved settings of a run to be continued, in the place of the defaults. Raises SettingsFileError for a
    file that is missing or not TOML, SettingsError for unknown keys and values out of bounds.
    """
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    environ = os.environ if environ is None else environ
    for key, value, source in _all_values(path, overrides or {}, environ, stored or {}):
        section, _, name = key.partition(".")
        merged.setdefault(section, {})[name] = value
        origin[key] = source
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        raise SettingsError(reason="; ".join(_explain(error, origin))) from None
    settings._provenance = origin
    for section, name in _URLS:
        learn(getattr(getattr(settings, section), name))
    for section, name in _SECRETS:
        learn_secret(getattr(getattr(settings, section), name))
    return settings


def fields() -> Iterator[tuple[str, type[Section], str]]:
    """Every setting as (dotted key, section class, attribute name), in the order of this file."""
    for section, info in Settings.model_fields.items():
        section_class = info.annotation
        assert isinstance(section_class, type)
        assert issubclass(section_class, Section)
        for attribute, field in section_class.model_fields.items():
            yield f"{section}.{field.alias or attribute}", section_class, attribute


def field_names() -> list[str]:
    """The dotted key of every setting."""
    return [key for key, _, _ in fields()]


def bounds(field: FieldInfo) -> str:
    """What a setting may be, in words: ">= 1, <= 1000", "one of base, parent", "true or false", "text"."""
    if get_origin(field.annotation) is Literal:
        choices = get_args(field.annotation)
        return f"one of {', '.join(choices)}" if len(choices) > 1 else str(choices[0])
    if field.annotation is bool:
        return "true or false"
    limits = ((sign, getattr(item, name, None)) for item in field.metadata for name, sign in _SIGNS)
    return ", ".join(f"{sign} {limit}" for sign, limit in limits if limit is not None) or "text"


def _all_values(
    path: Path | None,
    overrides: Mapping[str, object],
    environ: Mapping[str, str],
    stored: Mapping[str, Mapping[str, object]],
) -> Iterator[tuple[str, object, str]]:
    """(dotted key, value, source) of every source, lowest precedence first."""
    known = set(field_names())
    yield from _checked(_stored_values(stored), known, "the run")
    if path is not None:
        yield from _checked(_file_values(path), known, str(path))
    for key, text, variable in environment_values(environ, known):
        if key not in known:
            meant = _nearest(key, known)
            hint = f" (did you mean '{variable_of(meant)}'?)" if meant else ""
            raise SettingsError(reason=f"unknown environment variable '{variable}'{hint}")
        yield key, text, variable
    given = ((key, value) for key, value in overrides.items() if value is not None)
    yield from _checked(given, known, "flag")


def _stored_values(stored: Mapping[str, Mapping[str, object]]) -> Iterator[tuple[str, object]]:
    """What a run keeps of its settings: not how a machine is used, no secret, no URL whose password was left out."""
    for section, table in stored.items():
        if section != "runtime":
            given = ((name, value) for name, value in table.items() if (section, name) not in _SECRETS)
            yield from ((f"{section}.{name}", value) for name, value in given if HIDDEN not in str(value))


def _file_values(path: Path) -> Iterator[tuple[str, object]]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsFileError(path=path, reason="it does not exist") from None
    except OSError as error:
        raise SettingsFileError(path=path, reason=error.strerror or str(error)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsFileError(path=path, reason=f"it is not TOML ({error})") from None
    for section, table in tables.items():
        if isinstance(table, dict) and section in Settings.model_fields:
            yield from ((f"{section}.{name}", value) for name, value in table.items())
        else:
            yield section, table


def _checked(values: Iterator[tuple[str, object]], known: set[str], source: str) -> Iterator[tuple[str, object, str]]:
    for key, value in values:
        if key not in known:
            meant = _nearest(key, known)
            hint = f" (did you mean '{meant}'?)" if meant else ""
            raise SettingsError(reason=f"unknown key '{key}' in {source}{hint}")
        if tuple(key.split(".")) in _SECRETS:
            variable = variable_of(key)
            raise SettingsError(reason=f"{key} may come from {variable} or {variable}_FILE only, and not from {source}")
        yield key, value, source


def _nearest(key: str, known: set[str]) -> str | None:
    matches = get_close_matches(key, sorted(known), n=1, cutoff=0.8)
    return matches[0] if matches else None


def _explain(error: ValidationError, origin: Mapping[str, str]) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        key = ".".join(str(step) for step in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if not key:
            yield message
        else:
            shown = HIDDEN if tuple(problem["loc"]) in _URLS + _SECRETS else repr(problem["input"])
            yield f"{key} = {shown} ({origin.get(key, 'default')}): {message[:1].lower()}{message[1:]}"


def _checked_url(url: str) -> str:
    """The URL, if its parts can be told apart; drivers would print the rest of a password as a host or a port."""
    try:
        parts = urlsplit(url)
        whole = parts.netloc.count("@") < 2 and (not parts.netloc or parts.port != 0)
    except ValueError:
        whole = False
    if not whole:
        raise ValueError("its parts cannot be told apart; percent-encode the password, or give it by a *_PASSWORD_FILE")
    return url
