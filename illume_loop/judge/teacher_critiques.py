"""The written assessments of a teacher: what it is asked, and how its reply becomes a critique.

ILLUME's assessments came from a stronger model, which scored an image by criterion and wrote an analysis. The paper
prints neither the question nor the scale; these are ours.

Invariants:
- A reply that is not exactly the JSON that was asked for is never a critique.
- No text of a critique holds a mark that a model could take for one of its special tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from illume_loop.files import storable
from illume_loop.judge.critiques import ANALYSIS, Critique, refuse_constant, unique_keys
from illume_loop.judge.dialect import Ask
from illume_loop.judge.replies import objects_in, said_in
from illume_loop.protocols import CRITERIA, NO, YES, Domain, Prompt

PAPERS_CRITERIA = ("object", "count", "color", "position")
"""The criteria of the paper, for a prompt whose domain names none."""

SCORES = range(1, 6)

RIGHT_FROM = 4
"""The least score of a criterion that an image fulfils."""

MOST_EVIDENCE, MOST_ANALYSIS = 200, 600
"""The most characters. A reply with a longer text is asked for again, because a cut text would teach to stop early."""

TOKENS_INDEX = 2
"""The first token limit of a reply, as an index into `dialect.TOKENS`; a critique in JSON has up to 500 tokens."""

WANTED = "the JSON of an assessment"

MEANINGS = {
    "object": "every object that the prompt names is there",
    "count": "there are as many of each as the prompt says, and nothing else",
    "color": "the colors of the prompt are there",
    "attribute": "each object has the color and the attributes that the prompt gives it",
    "position": "the objects stand to each other as the prompt says",
}

INSTRUCTION = (
    "You assess whether an image shows what its prompt asks for. Answer with one JSON object and nothing else. It has "
    'each of the given criteria as a key, with {"score": S, "evidence": "what the image shows, in at most ten words"}, '
    'and the key "analysis" with one sentence on what is right and what is wrong. S is a whole number: 5 if the image '
    "is entirely as the prompt says, or the prompt says nothing of that criterion; 4 if it is right with a small flaw; "
    "3 if it is partly wrong; 2 if it is mostly wrong; 1 if it is entirely wrong."
)

_MARK = re.compile(r"<[^<>\s]+>")

_STRICT = json.JSONDecoder(object_pairs_hook=unique_keys, parse_constant=refuse_constant)


def criteria_of(domain: Domain, prompt: Prompt) -> tuple[str, ...]:
    """Return the criteria of a prompt's questions, in the order of CRITERIA; the paper's if it has no questions."""
    asked = {question.criterion for question in domain.questions(prompt)}
    return tuple(criterion for criterion in CRITERIA if criterion in asked) or PAPERS_CRITERIA


def critique_asked(prompt: str, criteria: Sequence[str]) -> Ask[Critique]:
    """Return what is asked about an image that was drawn for a prompt."""
    meant = "\n".join(f"- {criterion}: {MEANINGS[criterion]}" for criterion in criteria)
    text = f"The prompt: {prompt}\n\nThe criteria:\n{meant}"
    schema = _schema(criteria)
    return Ask("assessment", WANTED, INSTRUCTION, text, schema, TOKENS_INDEX, lambda said: read(said, criteria))


def read(said: str | None, criteria: Sequence[str]) -> Critique | None:
    """Return the critique in a reply; None if the reply is not the JSON that was asked for.

    Each criterion has its score, the verdict that follows from it, and the evidence. Thoughts, fences and words around
    the JSON are no fault.
    """
    plain = None if said is None else said_in(said)
    found = [] if plain is None else list(objects_in(plain, _STRICT))
    if len(found) != 1 or set(found[0]) != {*criteria, ANALYSIS}:
        return None
    told = {criterion: _criterion(found[0][criterion]) for criterion in criteria}
    analysis = _text(found[0][ANALYSIS], MOST_ANALYSIS)
    if analysis is None or not all(told.values()):
        return None
    return {**told, ANALYSIS: analysis}


def right_criteria(critique: Critique) -> dict[str, bool]:
    """Return whether each criterion of a critique is fulfilled, in the order of CRITERIA."""
    return {name: critique[name]["verdict"] == YES for name in CRITERIA if name in critique}


def _criterion(told: object) -> dict[str, Any] | None:
    if not isinstance(told, dict) or set(told) != {"score", "evidence"}:
        return None
    score, evidence = told["score"], _text(told["evidence"], MOST_EVIDENCE)
    if type(score) is not int or score not in SCORES or evidence is None:
        return None
    return {"verdict": YES if score >= RIGHT_FROM else NO, "score": score, "evidence": evidence}


def _text(value: object, most: int) -> str | None:
    """Return a text on one line; None if it is empty, too long, or holds a mark of a special token."""
    if not isinstance(value, str):
        return None
    text = " ".join(storable(value).replace("\0", " ").split())
    return text if 0 < len(text) <= most and not _MARK.search(text) else None


def _schema(criteria: Sequence[str]) -> dict[str, Any]:
    text = {"type": "string"}
    of_each = _object_schema({"score": {"type": "integer", "enum": list(SCORES)}, "evidence": text})
    return _object_schema({**dict.fromkeys(criteria, of_each), ANALYSIS: text})


def _object_schema(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
