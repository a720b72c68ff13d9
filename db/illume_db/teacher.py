"""Calls to a teacher: pay for them, and store the answers until their assessments are stored.

Payments and answers are written in short transactions of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, Executable, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from illume_db.tables import Run, TeacherAnswer, TeacherBudget


def spend_teacher_call(session: Session, run_id: int, max_calls: int) -> bool:
    """Take one call from the run's budget; return False if no call is left.

    The budget is shared by all processes. A call is paid for before it is made, so a process that is killed during the
    call has spent it. The run's row is read without a lock.
    """
    before = select(Run.teacher_calls).where(Run.id == run_id).scalar_subquery()
    spend = (
        update(TeacherBudget)
        .where(TeacherBudget.run_id == run_id, TeacherBudget.num_calls + before < max_calls)
        .values(num_calls=TeacherBudget.num_calls + 1)
        .execution_options(synchronize_session=False)
    )
    if _num_changed(session, spend):
        return True
    first = _insert(session, TeacherBudget).values(run_id=run_id, num_calls=0).on_conflict_do_nothing()
    return bool(_num_changed(session, first) and _num_changed(session, spend))


def keep_teacher_answer(
    session: Session,
    run_id: int,
    image_sha256: str,
    question: str,
    answer: bool | None,
    *,
    at: datetime,
    reply: dict[str, Any] | None = None,
) -> None:
    """Store an answer, or a written `reply`; do nothing if another unit has stored one to the same question already."""
    row = {
        "run_id": run_id,
        "image_sha256": image_sha256,
        "question_sha256": question_sha256(question),
        "answer": answer,
        "reply": reply,
        "created_at": at,
    }
    session.execute(_insert(session, TeacherAnswer).values(row).on_conflict_do_nothing())


def forget_teacher_answers(session: Session, run_id: int, images: Collection[str]) -> None:
    """Delete the answers about images, in the transaction that stores their assessments."""
    session.execute(
        delete(TeacherAnswer).where(TeacherAnswer.run_id == run_id, TeacherAnswer.image_sha256.in_(sorted(images)))
    )


def _insert(session: Session, table: type[TeacherBudget | TeacherAnswer]) -> sqlite.Insert | postgresql.Insert:
    on_postgres = session.get_bind().dialect.name == "postgresql"
    return postgresql.insert(table) if on_postgres else sqlite.insert(table)


def _num_changed(session: Session, change: Executable) -> int:
    return cast("CursorResult[Any]", session.execute(change)).rowcount


def num_teacher_calls(session: Session, run_id: int) -> int:
    """Return how many calls the run has paid for."""
    since = select(TeacherBudget.num_calls).where(TeacherBudget.run_id == run_id)
    return (session.scalar(select(Run.teacher_calls).where(Run.id == run_id)) or 0) + (session.scalar(since) or 0)


def teacher_answers(session: Session, run_id: int, images: Collection[str]) -> Mapping[tuple[str, str], bool | None]:
    """Return the stored answers about images, by (image's sha256, question's sha256)."""
    query = select(TeacherAnswer.image_sha256, TeacherAnswer.question_sha256, TeacherAnswer.answer).where(
        TeacherAnswer.run_id == run_id, TeacherAnswer.image_sha256.in_(sorted(images))
    )
    return {(image, question): answer for image, question, answer in session.execute(query)}


def teacher_replies(session: Session, run_id: int, images: Collection[str]) -> Mapping[tuple[str, str], dict[str, Any]]:
    """Return the stored written replies about images, by (image's sha256, question's sha256)."""
    query = select(TeacherAnswer.image_sha256, TeacherAnswer.question_sha256, TeacherAnswer.reply).where(
        TeacherAnswer.run_id == run_id, TeacherAnswer.image_sha256.in_(sorted(images))
    )
    return {(image, question): reply for image, question, reply in session.execute(query) if reply is not None}


def question_sha256(question: str) -> str:
    """Return the sha256 of a question, under which its answers are stored."""
    return hashlib.sha256(question.encode()).hexdigest()
