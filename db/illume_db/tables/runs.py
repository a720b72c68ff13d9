"""Tables of a run: its settings, its events, its prompts, and its teacher's budget and answers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from illume_db.types import Base, BigId, JsonOrNull, Sha256, State, one_of


class Run(Base):
    """One configured loop. `key` is the random name by which a run directory refers to the run.

    The coordinator `leader` leads the run until `leader_expires_at` (the database's clock). Each new leader raises
    `leader_token`, which fences all its writes. `teacher_calls` is the number of calls to a teacher that were spent
    before revision 0011; `TeacherBudget` counts the later ones.
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
    """An entry in a run's log of events; rows are added and never changed."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), index=True)
    round_id: Mapped[int | None] = mapped_column(ForeignKey("rounds.id"))
    at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String(32))
    message: Mapped[str] = mapped_column(Text)


SPLITS = ("train", "heldout", "probe")


class Prompt(Base):
    """A text to draw, or an edit of an image.

    For an edit, the model is given `instruction` and the image `source_sha256` of the artifact store. The new image has
    to show `target`, and `text` is the name of the edit. (id, split) is unique, so that other tables can require a
    split through a foreign key.

    Invariants (triggers):

    - A prompt's run, split, key, text and edit never change.
    - All prompts of one key are in one split. They are wordings of one composition.
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
    """A prompt of a round at its position in drawing order; row i of the round is prompt i // samples_per_prompt."""

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
    """The number of calls to the teacher that a run has paid for, besides those of `Run.teacher_calls`.

    It is not a column of the run, because a coordinator locks the run's row for whole transactions. A run without a
    row here has paid for no such calls.
    """

    __tablename__ = "teacher_budgets"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    num_calls: Mapped[int]


class TeacherAnswer(Base):
    """A paid answer of a teacher that is not in an assessment yet; None if the teacher answered neither yes nor no.

    `reply` is a written assessment, whose row has no `answer`. A row is stored as soon as its answer arrives and
    deleted in the transaction that stores the assessments. A unit that is done again therefore asks no question twice.
    """

    __tablename__ = "teacher_answers"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    image_sha256: Mapped[str] = mapped_column(Sha256, primary_key=True)
    question_sha256: Mapped[str] = mapped_column(Sha256, primary_key=True)
    answer: Mapped[bool | None]
    reply: Mapped[dict[str, Any] | None] = mapped_column(JsonOrNull)
    created_at: Mapped[datetime]
