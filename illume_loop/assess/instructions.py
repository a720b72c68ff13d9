"""What a model is asked for in words, the same in pretraining and in assessing.

An instruction stands between the image and the answer (or alone, where no image is needed). Answers that are JSON are
parsed strictly by who asked.
"""

from __future__ import annotations

YES, NO = "yes", "no"
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
