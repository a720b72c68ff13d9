"""Prompts, and which of them a round draws."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.types import Base, BigId, Sha256, State, one_of

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
