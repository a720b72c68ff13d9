"""Critiques: what the judge writes of an image, criterion by criterion, and one sentence of analysis.

    {"object": {"verdict": "yes", "evidence": "a circle and a ring"}, ..., "analysis": "it shows a red circle"}

Guarantee: the verdicts are those of the judge's log-odds. They are not hoped for but set: the model writes each
evidence after the verdict that was read from it, and at the end the analysis after all of them. The whole is parsed
strictly; what is invalid is counted and written again, and after the last try there is no critique.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from illume_loop.assess import instructions
from illume_loop.assess.answers import Answer, SeedOf, ask_until_valid, parse_json, temperature_of
from illume_loop.protocols import CRITERIA, NO, YES, Question, UnifiedModel

Critique = dict[str, Any]
ANALYSIS = "analysis"
EVIDENCE_TOKENS = 24
ANALYSIS_TOKENS = 64


def verdicts_of(questions: Sequence[Question], log_odds: Sequence[float]) -> dict[str, bool]:
    """Criterion to verdict, in the order of CRITERIA: yes where every question of it is more probably yes than no."""
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
    """A critique of each image that agrees with its verdicts. `keys` tell the images apart, in whatever batch."""

    def write(items: Sequence[int], attempt: int) -> list[str]:
        seeds = [seed_of("critique", prompts[item], keys[item], attempt) for item in items]
        chosen = [images[item] for item in items], [prompts[item] for item in items]
        return _write(model, *chosen, [verdicts[item] for item in items], temperature_of(attempt), seeds)

    return ask_until_valid(write, lambda item, text: parse_critique(text, verdicts[item]), len(images), retries)


def parse_critique(text: str, verdicts: Mapping[str, bool]) -> Critique:
    """A critique with exactly these verdicts. Raises ValueError for anything else."""
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
    """One pass for each criterion, and one for the analysis; a row that is already broken is written no further."""
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
        [instructions.critique(prompts[row]) for row in rows],
        forced=[begun[row] for row in rows],
        temperature=temperature,
        seeds=[seeds[row] for row in rows],
        max_tokens=max_tokens,
    )


def _next_string(text: str, begun: str) -> str:
    """What was written after `begun` up to the end of that string; empty, which is invalid, where it has no end.

    Found by counting quotation marks, since the text contains `begun` with other blanks than it was given with.
    """
    pieces = text.split('"')
    place = begun.count('"')
    return pieces[place].strip() if len(pieces) > place + 1 else ""


def _says_something(value: object) -> bool:
    return isinstance(value, str) and value != ""
