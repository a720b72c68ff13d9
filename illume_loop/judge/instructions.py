"""What a model is asked for in words, the same in pretraining and in assessing.

An instruction stands between the image and the answer (or alone, where no image is needed). Answers that are JSON are
parsed strictly by who asked.
"""

from __future__ import annotations

import json

GRADES = ("1", "2", "3", "4", "5")


def rate(prompt: str) -> str:
    """Answered with one of GRADES: the written score, which the literature knows as a bad reward."""
    return f"how well does it show {prompt} ?"


def ask(prompt: str) -> str:
    """Answered, without an image, with a JSON list of yes/no questions."""
    return f"what to ask about {prompt} ?"


def critique(prompt: str) -> str:
    """Answered with a JSON object: criterion to {"verdict", "evidence"}, and "analysis", one sentence."""
    return f"assess {prompt} :"


def json_answer(value: object) -> str:
    """JSON as an answer holds it, without blanks: what stage 3 teaches and what a training row repeats are alike."""
    return json.dumps(value, separators=(",", ":"))
