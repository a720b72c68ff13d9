"""What a run has asked its teacher."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import Run, TeacherAnswer, TeacherBudget


def num_teacher_calls(session: Session, run_id: int) -> int:
    """Return how many calls the run has paid for."""
    since = select(TeacherBudget.num_calls).where(TeacherBudget.run_id == run_id)
    return (session.scalar(select(Run.teacher_calls).where(Run.id == run_id)) or 0) + (session.scalar(since) or 0)


def teacher_answers(session: Session, run_id: int, images: Collection[str]) -> Mapping[tuple[str, str], bool | None]:
    """Return the kept answers about images, by (image's sha256, question's sha256)."""
    query = select(TeacherAnswer.image_sha256, TeacherAnswer.question_sha256, TeacherAnswer.answer).where(
        TeacherAnswer.run_id == run_id, TeacherAnswer.image_sha256.in_(sorted(images))
    )
    return {(image, question): answer for image, question, answer in session.execute(query)}


def question_sha256(question: str) -> str:
    """Return the name under which the answers to a question are kept."""
    return hashlib.sha256(question.encode()).hexdigest()
