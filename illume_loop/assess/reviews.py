"""The assessor `human`: what a review may say of an image, and which labels follow from it.

An image agrees with its prompt or does not; beside that, people may say so of single criteria. From a criterion that an
image lacks it does not follow which of several questions about it failed, so those answers stay unknown.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Mapping, Sequence

from illume_loop.assess.labelling import Label
from illume_loop.errors import UsageError
from illume_loop.protocols import Question

MOST_NAME = 64
WORDS = {"agree": True, "disagree": False}


def reviewer_name(given: str | None) -> str:
    """The name under which a review is kept: the one given, or that of this system's user.

    Raises UsageError for one that is empty, too long or not printable.
    """
    try:
        name = (getpass.getuser() if given is None else given).strip()
    except (KeyError, OSError):
        name = "somebody"
    if not 0 < len(name) <= MOST_NAME or not name.isprintable():
        raise UsageError(f"a reviewer's name has 1 to {MOST_NAME} printable characters")
    return name


def criteria_in(decided: Iterable[str], questions: Sequence[Question], *, agrees: bool) -> dict[str, bool]:
    """Criteria as people write them ("color=disagree"), for the questions of a prompt.

    Raises UsageError for what cannot be read, for a criterion that the prompt does not ask for or that is decided
    twice, and for an image that agrees as a whole and lacks a criterion.
    """
    known = list(dict.fromkeys(question.criterion for question in questions))
    criteria: dict[str, bool] = {}
    for text in decided:
        name, _, word = text.partition("=")
        if word not in WORDS:
            raise UsageError(f"cannot read the criterion '{text}'; write for example color=disagree")
        if name not in known:
            raise UsageError(f"the prompt does not ask about '{name}'; its criteria are {', '.join(known) or 'none'}")
        if name in criteria:
            raise UsageError(f"the criterion '{name}' is decided twice; leave one of them out")
        criteria[name] = WORDS[word]
    if agrees and not all(criteria.values()):
        raise UsageError("an image that agrees with its prompt lacks no criterion; give --disagree")
    return criteria


def review_label(agrees: bool, criteria: Mapping[str, bool], questions: Sequence[Question]) -> Label:
    """The label that a review gives to an image, with the answers that follow from it."""
    names = [question.criterion for question in questions]

    def answer(name: str) -> bool | None:
        if agrees or criteria.get(name):
            return True
        return False if name in criteria and names.count(name) == 1 else None

    return Label(agrees, [answer(name) for name in names])
