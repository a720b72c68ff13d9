"""The written answers of a model: critiques by criterion, and how answers are parsed and asked for again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from PIL import Image

from illume_loop.judge.instructions import critique
from illume_loop.protocols import CRITERIA, NO, YES, Question, UnifiedModel

T = TypeVar("T")

RETRY_TEMPERATURE = 1.0

SeedOf = Callable[..., int]
"""A function that returns a seed from all that tells two draws apart."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """A parsed answer, None if no try was valid; `num_invalid` counts the invalid tries."""

    value: T | None
    num_invalid: int


def ask_until_valid(
    write: Callable[[Sequence[int], int], Sequence[str]],
    parse: Callable[[int, str], T],
    count: int,
    retries: int,
) -> list[Answer[T]]:
    """Return one answer for each of `count` items; ask again, up to `retries` times, for those that are invalid.

    `write(items, attempt)` writes the answers of some items; attempt 0 is the greedy one. `parse(item, text)` raises
    ValueError if the text is invalid.
    """
    values: dict[int, T] = {}
    num_invalid = [0] * count
    for attempt in range(retries + 1):
        open_items = [item for item in range(count) if item not in values]
        if not open_items:
            break
        for item, text in zip(open_items, write(open_items, attempt), strict=True):
            try:
                values[item] = parse(item, text)
            except ValueError:
                num_invalid[item] += 1
    return [Answer(values.get(item), num_invalid[item]) for item in range(count)]


def temperature_of(attempt: int) -> float:
    """Return the temperature of an attempt: 0 for the first one, RETRY_TEMPERATURE for the others.

    A second greedy attempt would be as invalid as the first.
    """
    return RETRY_TEMPERATURE if attempt else 0.0


def parse_json(text: str) -> Any:
    """Parse strict JSON, and strip the blanks that word tokenizers put around its strings. Raises ValueError."""
    return _stripped(json.loads(text, object_pairs_hook=unique_keys, parse_constant=refuse_constant))


def _stripped(value: Any) -> Any:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list):
        return [_stripped(item) for item in value]
    if isinstance(value, dict):
        return unique_keys([(key.strip(), _stripped(item)) for key, item in value.items()])
    return value


def unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object of these pairs. Raises ValueError if a key stands there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands there twice")
    return found


def refuse_constant(constant: str) -> Any:
    """Raise ValueError for NaN and the infinities, which Python's parser would take."""
    raise ValueError(f"{constant} is not JSON")


Critique = dict[str, Any]

ANALYSIS = "analysis"

EVIDENCE_TOKENS = 24

ANALYSIS_TOKENS = 64


def verdicts_of(questions: Sequence[Question], log_odds: Sequence[float]) -> dict[str, bool]:
    """Return the verdict on each criterion, in the order of CRITERIA.

    It is yes if every question of the criterion is more probably yes than no.
    """
    said: dict[str, bool] = {}
    for question, value in zip(questions, log_odds, strict=True):
        said[question.criterion] = said.get(question.criterion, True) and value > 0
    return {criterion: said[criterion] for criterion in CRITERIA if criterion in said}


def write_critiques(
    model: UnifiedModel,
    images: Sequence[Image.Image],
    prompts: Sequence[str],
    verdicts: Sequence[Mapping[str, bool]],
    *,
    retries: int,
    seed_of: SeedOf,
    keys: Sequence[object],
) -> list[Answer[Critique]]:
    """Write a critique of each image that agrees with its verdicts.

    `keys` tell the images apart in any batch; the seeds of retries are made from them.
    """

    def write(items: Sequence[int], attempt: int) -> list[str]:
        seeds = [seed_of("critique", prompts[item], keys[item], attempt) for item in items]
        chosen = [images[item] for item in items], [prompts[item] for item in items]
        return _write(model, *chosen, [verdicts[item] for item in items], temperature_of(attempt), seeds)

    return ask_until_valid(write, lambda item, text: parse_critique(text, verdicts[item]), len(images), retries)


def parse_critique(text: str, verdicts: Mapping[str, bool]) -> Critique:
    """Parse a critique with exactly these verdicts. Raises ValueError for anything else."""
    found = parse_json(text)
    if not isinstance(found, dict) or set(found) != {*verdicts, ANALYSIS}:
        raise ValueError("it does not tell of each criterion, and of nothing else")
    for criterion, verdict in verdicts.items():
        told = found[criterion]
        if not isinstance(told, dict) or set(told) != {"verdict", "evidence"}:
            raise ValueError(f"{criterion} has no verdict with evidence")
        if told["verdict"] != (YES if verdict else NO) or not _says_something(told["evidence"]):
            raise ValueError(f"{criterion} has another verdict, or no evidence")
    if not _says_something(found[ANALYSIS]):
        raise ValueError("there is no analysis")
    return {key: found[key] for key in (*verdicts, ANALYSIS)}


def _write(
    model: UnifiedModel,
    images: Sequence[Image.Image],
    prompts: Sequence[str],
    verdicts: Sequence[Mapping[str, bool]],
    temperature: float,
    seeds: Sequence[int],
) -> list[str]:
    """Write each criterion in a pass of its own, and the analysis in a last one.

    Evidence that does not end within its tokens becomes empty, which makes the critique invalid.
    """
    begun = ["{"] * len(images)
    for position in range(max((len(of_image) for of_image in verdicts), default=0)):
        rows = [row for row, of_image in enumerate(verdicts) if position < len(of_image)]
        for row in rows:
            criterion, verdict = list(verdicts[row].items())[position]
            begun[row] += f'"{criterion}":{{"verdict":"{YES if verdict else NO}","evidence":"'
        written = _go_on(model, images, prompts, begun, rows, temperature, seeds, EVIDENCE_TOKENS)
        for row, text in zip(rows, written, strict=True):
            begun[row] += json.dumps(_next_string(text, begun[row]))[1:-1] + '"},'
    begun = [f'{text}"{ANALYSIS}":"' for text in begun]
    return _go_on(model, images, prompts, begun, range(len(images)), temperature, seeds, ANALYSIS_TOKENS)


def _go_on(
    model: UnifiedModel,
    images: Sequence[Image.Image],
    prompts: Sequence[str],
    begun: Sequence[str],
    rows: Sequence[int],
    temperature: float,
    seeds: Sequence[int],
    max_tokens: int,
) -> list[str]:
    return model.instruct(
        [images[row] for row in rows],
        [critique(prompts[row]) for row in rows],
        forced=[begun[row] for row in rows],
        temperature=temperature,
        seeds=[seeds[row] for row in rows],
        max_tokens=max_tokens,
    )


def _next_string(text: str, begun: str) -> str:
    """Return what was written after `begun` up to the end of that string; empty, which is invalid, if it has no end.

    It is found by counting quotation marks, because the text contains `begun` with other blanks than it was given with.
    """
    pieces = text.split('"')
    place = begun.count('"')
    return pieces[place].strip() if len(pieces) > place + 1 else ""


def _says_something(value: object) -> bool:
    return isinstance(value, str) and value != ""
