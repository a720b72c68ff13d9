"""Recipes for a user's own data: the stages, the learning rates of their parts, and their mixes of tasks.

A recipe is a TOML file, shipped in `recipes/` or written by a user. All of it is checked before training: unknown keys,
values out of bounds, sources that are named but not defined.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from illume_loop.errors import MixError, NoSuchChoiceError
from illume_loop.settings import Section, TrainSettings, load_settings

NAME = r"^[\w.-]{1,48}$"


class MixPart(Section):
    """A part of a mix: a task on the rows of a source."""

    task: Literal["caption", "text-to-image", "reconstruct", "text", "instruct", "assess", "edit"]
    source: str = Field(min_length=1, description="Name of one of the recipe's sources.")
    weight: float = Field(gt=0.0, le=1e6, description="Its share of the rows, among the weights of the mix.")


class LearningRates(Section):
    """Peak learning rates of the parts that a stage trains; 0 leaves a part as it is."""

    adapter: float = Field(0.0, ge=0.0, le=1.0, description="From the encoder's features to the language model.")
    vision_rows: float = Field(
        0.0, ge=0.0, le=1.0, description="Rows of image ids in embedding and head, and no other."
    )
    language: float = Field(0.0, ge=0.0, le=1.0, description="The language model with embedding and head.")
    encoder: float = Field(0.0, ge=0.0, le=1.0, description="The encoder that reads; a copy, as ids must not move.")

    @model_validator(mode="after")
    def _one_thing_once(self) -> Self:
        if self.vision_rows and self.language:
            raise ValueError("vision_rows are part of language, so only one of the two has a rate")
        if not any((self.adapter, self.vision_rows, self.language, self.encoder)):
            raise ValueError("nothing has a rate, so nothing would be trained")
        return self


class Stage(Section):
    """A stage of a recipe."""

    name: str = Field(pattern=NAME)
    steps: int = Field(ge=1, le=10_000_000)
    batch: int = Field(ge=1, le=1_000_000, description="Rows of a step, over all processes.")
    rates: LearningRates
    mix: tuple[MixPart, ...] = Field(min_length=1)
    max_slices: int = Field(1, ge=1, le=9, description="Slices of an image that is read, beside its overview.")
    warmup_ratio: float = Field(0.03, ge=0.0, le=1.0, description="Share of the steps in which the rates rise.")
    text_dropout: float = Field(
        0.1, ge=0.0, le=1.0, description="Share of rows to draw or edit that lose their text, for guidance."
    )


class StagedRecipe(Section):
    """A recipe of stages."""

    name: str = Field(pattern=NAME)
    title: str = Field(min_length=1)
    seed: int = Field(0, ge=0, le=2**31 - 1)
    rows_at_once: int = Field(
        8, ge=1, description="Rows of one pass of a process; a step is as many passes as it takes."
    )
    loaders: int = Field(0, ge=0, le=256, description="Processes that read rows ahead, for each process that trains.")
    keep_every_seconds: float = Field(600.0, ge=0.0, description="Training that a kill may cost.")
    sources: dict[str, Path] = Field(min_length=1, description="Folders of tokenised data, by name.")
    train: dict[str, Any] = Field({}, description="Settings of [train] that say how and on what it runs.")
    stages: tuple[Stage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_clear(self) -> Self:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError("two stages have the same name")
        for stage in self.stages:
            for part in stage.mix:
                if part.source not in self.sources:
                    raise ValueError(f"{stage.name} has rows of '{part.source}', which is none of the sources")
        return self

    def settings(self) -> TrainSettings:
        """Return the training settings: the recipe's table [train], overridden by the environment.

        Raises SettingsError.
        """
        return load_settings(stored={"train": self.train}).train

    def of_names(self, names: Sequence[str]) -> list[Stage]:
        """Return the named stages in the recipe's order, or all if none is named. Raises NoSuchChoiceError."""
        for name in names:
            if name not in {stage.name for stage in self.stages}:
                raise NoSuchChoiceError(kind="stage", name=name, choices=", ".join(stage.name for stage in self.stages))
        return [stage for stage in self.stages if not names or stage.name in names]


def shipped_recipes() -> list[str]:
    """Return the names of the package's recipes."""
    folder = files(__package__) / "recipes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def is_staged(name: str) -> bool:
    """Return True if the name is a recipe of stages: a TOML file or a shipped one."""
    return Path(name).suffix == ".toml" or name in shipped_recipes()


def load_recipe(name: str) -> StagedRecipe:
    """Return a shipped recipe by its name, or the recipe of a TOML file. Raises NoSuchChoiceError, MixError.

    The paths of its sources are relative to the current directory.
    """
    if Path(name).suffix == ".toml":
        try:
            return _parse(Path(name).stem, Path(name).read_bytes())
        except OSError as error:
            raise MixError(name=name, reason=error.strerror or str(error)) from None
    if name not in shipped_recipes():
        raise NoSuchChoiceError(kind="recipe", name=name, choices=", ".join([*shipped_recipes(), "FILE.toml"]))
    return _parse(name, (files(__package__) / "recipes" / f"{name}.toml").read_bytes())


def _parse(name: str, content: bytes) -> StagedRecipe:
    try:
        return StagedRecipe.model_validate({"name": name, **tomllib.loads(content.decode())})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MixError(name=name, reason=f"it is not TOML ({error})") from None
    except ValidationError as error:
        problems = error.errors(include_url=False)
        told = [f"{'.'.join(map(str, p['loc']))} {p['msg'].removeprefix('Value error, ')}".strip() for p in problems]
        raise MixError(name=name, reason="; ".join(told)) from None
