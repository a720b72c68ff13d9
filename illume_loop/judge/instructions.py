"""The instructions that ask a model for words, the same in pretraining and in assessing.

An instruction stands between the image and the answer, or alone if no image is needed. The caller parses an answer that
is JSON strictly.
"""

from __future__ import annotations

import json

GRADES = ("1", "2", "3", "4", "5")


def rate(prompt: str) -> str:
    """Return the instruction that is answered with one of GRADES.

    This written score is known in the literature as a bad reward.
    """
    return f"how well does it show {prompt} ?"


def ask(prompt: str) -> str:
    """Return the instruction that is answered, without an image, with a JSON list of yes/no questions."""
    return f"what to ask about {prompt} ?"


def critique(prompt: str) -> str:
    """Return the instruction that is answered with a critique.

    It is a JSON object: criterion to {"verdict", "evidence"}, and "analysis", one sentence.
    """
    return f"assess {prompt} :"


def correction(prompt: str) -> str:
    """Return the user's request that follows the critique of a bad image; it is answered with the corrected image."""
    return f"make it show {prompt}"


def json_answer(value: object) -> str:
    """Return a value as the JSON of an answer, without blanks.

    Stage 3 of the pretraining teaches this form, and training rows repeat it.
    """
    return json.dumps(value, separators=(",", ":"))
