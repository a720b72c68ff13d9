"""All settings of a run, and the checks that involve several tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import PrivateAttr, model_validator

from illume_loop.redaction import HIDDEN, url_without_password
from illume_loop.settings.grpo import GrpoSettings
from illume_loop.settings.hosts import ClusterSettings, DashboardSettings, RuntimeSettings, StoreSettings
from illume_loop.settings.rounds import (
    AssessSettings,
    CurateSettings,
    GateSettings,
    LoopSettings,
    RunSettings,
    SamplingSettings,
    TeacherSettings,
)
from illume_loop.settings.section import Section
from illume_loop.settings.train import TrainSettings

URLS = (("store", "database_url"), ("store", "artifacts_url"), ("cluster", "redis_url"))
"""The settings that may hold a password."""

SECRETS = (
    ("teacher", "key"),
    ("dashboard", "reader_password"),
    ("dashboard", "reviewer_password"),
    ("dashboard", "admin_password"),
)
"""The settings that are secrets: only a variable or its *_FILE sets them, and the database never holds them."""


class Settings(Section):
    """All settings of a run, one attribute per table."""

    run: RunSettings = RunSettings()
    loop: LoopSettings = LoopSettings()
    sampling: SamplingSettings = SamplingSettings()
    assess: AssessSettings = AssessSettings()
    teacher: TeacherSettings = TeacherSettings()
    curate: CurateSettings = CurateSettings()
    train: TrainSettings = TrainSettings()
    grpo: GrpoSettings = GrpoSettings()
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
        if self.assess.judge_writes and self.assess.says_yes_or_no and not self.assess.also_frozen:
            raise ValueError(
                "assess.critiques needs a model as judge; set assess.assessor or assess.also_frozen, or "
                "assess.critiques_by = 'teacher'"
            )
        return self

    @model_validator(mode="after")
    def _pairs_can_be_clean(self) -> Self:
        if self.train.learns_from_pairs and self.sampling.samples_per_prompt < 2:
            raise ValueError(
                f"train.objective = '{self.train.objective}' needs sampling.samples_per_prompt of 2 or more"
            )
        compares = self.train.learns_from_pairs or self.train.learns_assessments
        if compares and self.assess.says_yes_or_no and self.curate.pair_margin > 1.0:
            raise ValueError(
                f"curate.pair_margin cannot exceed 1 with the {self.assess.assessor}, whose scores are from 0 to 1"
            )
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
        if self.assess.asks_teacher and not (self.teacher.url and self.teacher.model):
            name = "assessor" if self.assess.assessor == "teacher" else "critiques_by"
            raise ValueError(f"assess.{name} = 'teacher' needs teacher.url and teacher.model")
        return self

    @model_validator(mode="after")
    def _assessments_are_written(self) -> Self:
        if self.train.learns_assessments and not self.assess.critiques:
            raise ValueError("train.objective = 'assess-sft' needs assess.critiques")
        if self.train.learns_assessments and self.assess.says_yes_or_no and not self.assess.teacher_writes:
            raise ValueError(
                "train.objective = 'assess-sft' needs an assess.assessor that writes critiques, or "
                "assess.critiques_by = 'teacher'"
            )
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
    def _weights_that_are_spread_are_fitted_at_one(self) -> Self:
        if self.train.strategy == "zero3" and self.fitting.image_temperature != 1.0:
            raise ValueError("train.strategy = 'zero3' needs train.image_temperature = 1")
        return self

    @model_validator(mode="after")
    def _grpo_has_what_it_needs(self) -> Self:
        if not self.train.learns_from_rewards:
            return self
        needed = {
            "train.backend = 'local'": self.train.backend == "local",
            "loop.overlap_rounds = 0": self.loop.overlap_rounds == 0,
            "sampling.samples_per_prompt of 2 or more": self.sampling.samples_per_prompt >= 2,
            "sampling.top_k = 0": self.sampling.top_k == 0,
            "sampling.top_p = 1": self.sampling.top_p == 1.0,
            "sampling.edit_share = 0": self.sampling.edit_share == 0.0,
            "sampling.replay_share = 0, as grpo.prompt_floor chooses among prompts": self.sampling.replay_share == 0.0,
            "sampling.prompts_per_round of grpo.prompts_per_update or more": self.sampling.prompts_per_round
            >= self.grpo.prompts_per_update,
            "assess.assessor = 'self', and its scorers in grpo.scorers": self.assess.assessor == "self",
            "assess.critiques = false": not self.assess.critiques,
            "assess.also_frozen = false; name frozen in grpo.scorers": not self.assess.also_frozen,
            "curate.reviews = 0": self.curate.reviews == 0,
            "gate.drift_margin = 0": self.gate.drift_margin == 0.0,
        }
        for what, has in needed.items():
            if not has:
                raise ValueError(f"train.objective = 'grpo' needs {what}")
        return self

    @property
    def fitting(self) -> TrainSettings:
        """The table `[train]`, with the temperature at which image ids are fitted if it is that of `[sampling]`."""
        temperature = self.train.image_temperature or self.sampling.temperature
        return self.train.model_copy(update={"image_temperature": temperature})

    @property
    def provenance(self) -> Mapping[str, str]:
        """The source of each value by dotted key: `default`, `the run`, a file's path, a variable's name, or `flag`."""
        return {key: self._provenance.get(key, "default") for key in field_names()}

    def with_rounds(self, rounds: int | None) -> Self:
        """Return the settings with another `run.rounds`; None changes nothing."""
        if rounds is None:
            return self
        return self.model_copy(update={"run": self.run.model_copy(update={"rounds": rounds})})

    def resolved(self) -> dict[str, Any]:
        """Return every setting as JSON, keyed as in the TOML file; secrets and passwords in URLs are `***`."""
        data = self.model_dump(mode="json", by_alias=True)
        for section, key in URLS:
            data[section][key] = url_without_password(data[section][key])
        for section, key in SECRETS:
            data[section][key] = HIDDEN if data[section][key] else ""
        return data


def fields() -> Iterator[tuple[str, type[Section], str]]:
    """Yield every setting as (dotted key, section class, attribute name), in the order of this file."""
    for section, info in Settings.model_fields.items():
        section_class = info.annotation
        assert isinstance(section_class, type)
        assert issubclass(section_class, Section)
        for attribute, field in section_class.model_fields.items():
            yield f"{section}.{field.alias or attribute}", section_class, attribute


def field_names() -> list[str]:
    """Return the dotted key of every setting."""
    return [key for key, _, _ in fields()]
