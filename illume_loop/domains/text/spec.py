"""The spec of a prompt, if a person wrote one, and the yes/no questions that follow from it.

The form is GenEval's (Ghosh et al. 2023). `include` lists the things that must be there, each with a number, a color,
and a place relative to an earlier thing. `exclude` lists numbers that must not be reached. A spec may give its
questions itself instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from illume_loop.protocols import CRITERIA, Question

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
PAIRS = ("scissors", "skis", "pants", "glasses", "headphones")
"""Things whose singular has no article; a question asks about a pair of them."""

Word = Annotated[str, Field(min_length=1, max_length=200)]


class _Strict(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class ClassCount(_Strict):
    """A class of which the image must show at least `count`.

    `position` is a relation, and the index of the earlier thing that it relates to.
    """

    name: Word = Field(alias="class")
    count: int = Field(1, ge=1, le=1000)
    color: Word | None = None
    position: tuple[Word, int] | None = None


class Excluded(_Strict):
    """A class of which the image must show fewer than `count`."""

    name: Word = Field(alias="class")
    count: int = Field(ge=1, le=1000)


class SpecQuestion(_Strict):
    """A question that the spec gives itself; yes is the answer for an image that shows the prompt."""

    criterion: str
    question: Word

    @field_validator("criterion")
    @classmethod
    def _criterion_is_known(cls, criterion: str) -> str:
        if criterion not in CRITERIA:
            raise ValueError(f"it is none of {', '.join(CRITERIA)}")
        return criterion


class TextSpec(_Strict):
    """A spec as JSON holds it; `tag` is GenEval's name of the category."""

    tag: str | None = None
    include: tuple[ClassCount, ...] = ()
    exclude: tuple[Excluded, ...] = ()
    questions: tuple[SpecQuestion, ...] = ()

    @model_validator(mode="after")
    def _positions_are_relative_to_earlier_things(self) -> Self:
        for place, thing in enumerate(self.include):
            if thing.position is not None and not 0 <= thing.position[1] < place:
                raise ValueError(f"the position of '{thing.name}' is relative to no earlier thing")
        return self


def spec_of(data: Mapping[str, object]) -> TextSpec:
    """Return a spec from its JSON. Raises ValueError, which says in one clause what is wrong."""
    try:
        return TextSpec.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{place}: {message}" if place else message) from None


def questions_of_spec(data: Mapping[str, object], text: str) -> list[Question]:
    """Return the questions of a spec; none if the spec says nothing.

    They are the spec's own questions if it gives any. Otherwise they ask for each thing about object, count, color,
    attribute and position. `text` is the prompt, whose own plurals are used.
    """
    spec = spec_of(data)
    if spec.questions:
        return [Question(asked.criterion, asked.question) for asked in spec.questions]
    return [question for thing in spec.include for question in _of_thing(thing, spec, text)]


def _of_thing(thing: ClassCount, spec: TextSpec, text: str) -> Iterator[Question]:
    yield Question("object", f"Is there {_one(thing.name)} in the image?")
    at_most = min((other.count - 1 for other in spec.exclude if other.name == thing.name), default=None)
    if thing.count > 1 or at_most is not None:
        yield Question("count", _count_question(thing, at_most, text))
    if thing.color is not None:
        yield Question("color", f"Is anything in the image {thing.color}?")
        whole = f"Is the {thing.name} {thing.color}?" if thing.count == 1 else f"Is each {thing.name} {thing.color}?"
        yield Question("attribute", whole)
    if thing.position is not None:
        relation, target = thing.position
        yield Question("position", f"Is the {thing.name} {relation} the {spec.include[target].name}?")


def _count_question(thing: ClassCount, at_most: int | None, text: str) -> str:
    number = NUMBERS[thing.count] if thing.count < len(NUMBERS) else str(thing.count)
    degree = "exactly" if at_most == thing.count else "at least"
    if thing.count == 1:
        return f"Is there {degree} one {thing.name} in the image?"
    plural = re.search(rf"\b{number}\s+({re.escape(thing.name)}\w*)", text, re.IGNORECASE)
    if plural is None:
        return f"Is the number of objects of this kind in the image {degree} {number}: {thing.name}?"
    return f"Are there {degree} {number} {plural[1]} in the image?"


def _one(name: str) -> str:
    if name in PAIRS:
        return f"a pair of {name}"
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
