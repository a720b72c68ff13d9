"""Assessments in the output of `assess` and `samples show`: the same JSON keys, and lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def shown(opinion: Mapping[str, Any]) -> dict[str, Any]:
    """Return an opinion with the keys of an assessment in `illume_db.samples`."""
    details = opinion["details"]
    return {
        "state": opinion["state"],
        "score": opinion["score"],
        "failed": opinion["failed_criteria"],
        "error": opinion["error"],
        "probability": opinion["probability"],
        "readings": details["readings"],
        "questions": details.get("questions", []),
        "critique": opinion["critique"],
    }


def fields_of(assessment: Mapping[str, Any]) -> dict[str, Any]:
    """Return an assessment for people: a line per question and per criterion of the critique, without empty fields."""
    fields = {key: value for key, value in assessment.items() if value not in (None, [], {})}
    if "questions" in fields:
        fields["questions"] = {row["question"]: _answer(row) for row in fields["questions"]}
    if "critique" in fields:
        fields["critique"] = {
            key: told if isinstance(told, str) else _criterion(told) for key, told in fields["critique"].items()
        }
    return fields


def _criterion(told: Mapping[str, Any]) -> str:
    score = f" ({told['score']} of 5)" if "score" in told else ""
    return f"{told['verdict']}{score}: {told['evidence']}"


def _answer(row: Mapping[str, Any]) -> str:
    if "answer" in row:
        said = {True: "yes", False: "no", None: "neither yes nor no"}[row["answer"]]
        return f"{said} ({row['criterion']})"
    if row["log_odds"] is None:
        return f"no number ({row['criterion']})"
    calibrated = row.get("probability")
    probability = f", probability {calibrated:.2f}" if calibrated is not None else ""
    return (
        f"{'yes' if row['log_odds'] > 0 else 'no'} ({row['criterion']}, log-odds {row['log_odds']:+.2f}{probability})"
    )
