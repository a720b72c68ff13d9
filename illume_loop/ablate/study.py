"""Studies: the arms that are compared, the seeds, and the measures.

A study is a TOML file, shipped in `studies/` or written by a user. All of it is checked before the first cell runs:
unknown keys, settings out of bounds, a baseline that is not one of the arms.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from illume_loop.environment import PREFIX
from illume_loop.errors import NotFoundError, StudyError
from illume_loop.settings import Section, Settings, load_settings

if TYPE_CHECKING:
    from illume_loop.pretrain.recipe import Recipe

NAME = r"^[\w.-]{1,48}$"


class Measures(Section):
    """The sizes of the measurements of every model of a study. No gate uses their noise."""

    heldout_prompts: int = Field(512, ge=2, le=100_000, description="Held-out prompts, at each guidance.")
    draws: int = Field(2, ge=1, le=100, description="Draws of each of them.")
    probes: int = Field(512, ge=2, le=100_000, description="Forced choices that measure understanding.")
    diversity_prompts: int = Field(64, ge=1, le=10_000, description="Prompts that are drawn eight times each.")


class Pretrain(Section):
    """The arm's own base, which is pretrained with the cell's seed."""

    recipe: str = Field("shapes-small", min_length=1, description="Recipe of `illume-loop pretrain`.")
    learns: Literal["both", "generation", "understanding"] = Field("both", description="Tasks of its mixes.")
    quantised: Literal["features", "pixels"] = Field("features", description="What its image ids stand for.")


class Arm(Section):
    """An arm of a study: the settings in which it differs, and its own base if it has one."""

    name: str = Field(pattern=NAME)
    note: str = ""
    settings: dict[str, dict[str, Any]] = Field({}, description="Where the arm differs.")
    pretrain: Pretrain | None = None


class Study(Section):
    """A grid of arms and seeds."""

    name: str = Field(pattern=NAME)
    title: str = Field(min_length=1)
    question: str = Field(min_length=1, description="What the study asks, in a sentence or two.")
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    after: tuple[int, ...] = Field(
        (3,), min_length=1, description="Rounds after which a model is measured; 0: the base."
    )
    subject: Literal["active", "candidate"] = Field(
        "active",
        description="Which model is measured: the one in use, or the round's candidate whatever the gate said.",
    )
    baseline: str = Field("", description="The arm with which the others are compared seed by seed; empty: none.")
    settings: dict[str, dict[str, Any]] = Field({}, description="Settings of all arms.")
    measure: Measures = Measures()
    arms: tuple[Arm, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_clear(self) -> Self:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError("two arms have the same name")
        if self.baseline and self.baseline not in names:
            raise ValueError(f"the baseline '{self.baseline}' is no arm")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed is named twice")
        if list(self.after) != sorted(set(self.after)) or self.after[0] < 0:
            raise ValueError("the rounds of `after` must rise from 0 or more")
        if self.subject == "candidate" and self.after[0] == 0:
            raise ValueError("round 0 has no candidate")
        return self

    @property
    def num_rounds(self) -> int:
        """The number of rounds that each cell runs; 0 if only bases are measured."""
        return self.after[-1]


@dataclass(frozen=True, slots=True)
class Cell:
    """One arm with one seed, which is one real run."""

    study: Study
    arm: Arm
    seed: int

    @property
    def key(self) -> str:
        """The name of the cell and of its files."""
        return f"{self.arm.name}-{self.seed}"

    @property
    def settings(self) -> Settings:
        """The settings of the cell's run. Raises SettingsError, and NotFoundError if the base does not exist.

        Only the study's file counts. Of the environment, only the variables of the section `runtime` are used.
        """
        overrides = {
            "run.name": f"{self.study.name}-{self.key}",
            **flat(self.study.settings),
            **flat(self.arm.settings),
            "run.seed": self.seed,
            "run.rounds": max(1, self.study.num_rounds),
            "run.executor": "inline",
        }
        environ = {name: value for name, value in os.environ.items() if name.startswith(f"{PREFIX}RUNTIME__")}
        # Imported here, because it imports the database, which a list of studies does not need.
        from illume_loop.loop.prompts import with_domain

        return with_domain(load_settings(overrides=overrides, environ=environ))

    @property
    def recipe(self) -> Recipe | None:
        """The recipe of the cell's own base, or None. Raises NotFoundError."""
        if self.arm.pretrain is None:
            return None
        # Imported here, because recipes import torch, which a list of studies does not need.
        from illume_loop.pretrain.recipe import RECIPES
        from illume_loop.pretrain.variants import variant

        wanted = self.arm.pretrain
        if wanted.recipe not in RECIPES:
            raise NotFoundError(kind="recipe", name=wanted.recipe)
        return variant(RECIPES[wanted.recipe], seed=self.seed, learns=wanted.learns, quantised=wanted.quantised)


def cells(study: Study, seeds: Sequence[int] = ()) -> list[Cell]:
    """Return the grid's cells, seed by seed, so that the cells that are finished first compare all arms."""
    return [Cell(study, arm, seed) for seed in seeds or study.seeds for arm in study.arms]


def shipped_studies() -> list[Study]:
    """Return the package's studies, sorted by name."""
    folder = files("illume_loop.ablate") / "studies"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return [_parse(name.removesuffix(".toml"), (folder / name).read_bytes()) for name in names]


def load_study(name: str) -> Study:
    """Return a shipped study by its name, or the study of a TOML file.

    Raises NotFoundError, StudyError, SettingsError.
    """
    path = Path(name)
    if path.suffix == ".toml":
        try:
            study = _parse(path.stem, path.read_bytes())
        except OSError as error:
            raise StudyError(name=name, reason=error.strerror or str(error)) from None
    else:
        found = {study.name: study for study in shipped_studies()}
        if name not in found:
            raise NotFoundError(kind="study", name=name)
        study = found[name]
    for cell in cells(study):
        assert cell.settings  # reading the property checks the settings
        assert cell.arm.pretrain is None or cell.recipe
    return study


def _parse(name: str, content: bytes) -> Study:
    try:
        return Study.model_validate({"name": name, **tomllib.loads(content.decode())})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StudyError(name=name, reason=f"it is not TOML ({error})") from None
    except ValidationError as error:
        problems = error.errors(include_url=False)
        told = [f"{'.'.join(map(str, p['loc']))} {p['msg'].removeprefix('Value error, ')}".strip() for p in problems]
        raise StudyError(name=name, reason="; ".join(told)) from None


def flat(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return tables of settings as dotted keys with their values."""
    return {f"{section}.{key}": value for section, table in settings.items() for key, value in table.items()}
