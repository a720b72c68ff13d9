"""Tables of a run: its settings, its events, its prompts, and what it asked its teacher."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from illume_db.types import Base, BigId, Sha256, State, one_of


class Run(Base):
    """One configured loop. `key` is the random name by which a run directory knows its row.

    The coordinator `leader` acts for it until `leader_expires_at` (the database's clock); each new one raises
    `leader_token`, with which all that it writes is fenced. `teacher_calls` is how many calls to a teacher were
    spent before revision 0011; since then `TeacherBudget` counts them.
    """

    __tablename__ = "runs"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    key: Mapped[str] = mapped_column(String(32), unique=True)
    name: Mapped[str] = mapped_column(String(64))
    seed: Mapped[int] = mapped_column(BigId)
    settings: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    leader: Mapped[str | None] = mapped_column(String(128))
    leader_token: Mapped[int] = mapped_column(BigId, default=0, server_default="0")
    leader_expires_at: Mapped[datetime | None]
    teacher_calls: Mapped[int] = mapped_column(BigId, default=0, server_default="0")


class Event(Base):
    """One line of a run's diary; rows are only ever added."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), index=True)
    round_id: Mapped[int | None] = mapped_column(ForeignKey("rounds.id"))
    at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String(32))
    message: Mapped[str] = mapped_column(Text)


SPLITS = ("train", "heldout", "probe")


class Prompt(Base):
    """A text to draw. (id, split) is unique so that other tables can demand a split through a foreign key.

    Or an edit: then a model is told `instruction` beside the image `source_sha256` of the artifact store, what it makes
    of it has to show `target`, and `text` is the name of all that.

    Triggers keep a prompt what it is, and all prompts of one key (wordings of one composition) in one split.
    """

    __tablename__ = "prompts"
    __table_args__ = (
        CheckConstraint(one_of("split", SPLITS), name="split_known"),
        CheckConstraint(
            "(instruction IS NULL) = (target IS NULL) AND (instruction IS NULL) = (source_sha256 IS NULL)",
            name="edits_are_whole",
        ),
        UniqueConstraint("run_id", "text"),
        UniqueConstraint("id", "split"),
        Index("ix_prompts_run_id_key", "run_id", "key"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    split: Mapped[str] = mapped_column(State)
    key: Mapped[str] = mapped_column(String(256))
    category: Mapped[str] = mapped_column(String(64))
    text: Mapped[str] = mapped_column(Text)
    spec: Mapped[dict[str, Any]]
    instruction: Mapped[str | None] = mapped_column(Text)
    target: Mapped[str | None] = mapped_column(Text)
    source_sha256: Mapped[str | None] = mapped_column(Sha256)


class RoundPrompt(Base):
    """The prompts of a round in drawing order: row i of the round is prompt i // samples_per_prompt."""

    __tablename__ = "round_prompts"
    __table_args__ = (
        ForeignKeyConstraint(["prompt_id", "split"], ["prompts.id", "prompts.split"]),
        CheckConstraint("split = 'train'", name="only_train"),
        UniqueConstraint("round_id", "prompt_id"),
    )

    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    prompt_id: Mapped[int] = mapped_column(BigId)
    split: Mapped[str] = mapped_column(State, default="train")


class TeacherBudget(Base):
    """Number of calls to the teacher that a run has paid for, besides those of `Run.teacher_calls`.

    It has a row of its own because a coordinator holds the run's row for whole transactions. A run without one has made
    no calls.
    """

    __tablename__ = "teacher_budgets"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    num_calls: Mapped[int]


class TeacherAnswer(Base):
    """An answer that is paid for and belongs to no assessment yet; None where the teacher said neither yes nor no.

    It is stored as soon as it is there and deleted in the transaction that stores the assessments, so a unit that is
    done again asks nothing twice.
    """

    __tablename__ = "teacher_answers"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    image_sha256: Mapped[str] = mapped_column(Sha256, primary_key=True)
    question_sha256: Mapped[str] = mapped_column(Sha256, primary_key=True)
    answer: Mapped[bool | None]
    created_at: Mapped[datetime]
