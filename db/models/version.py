"""Model versions: immutable checkpoints with a parent."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from db.types import Base, BigId, Sha256, State, one_of

VERSION_STATES = ("candidate", "active", "rejected", "retired")


class ModelVersion(Base):
    """A checkpoint named by number (v0001 is the run's base) and by the digest of its files."""

    __tablename__ = "model_versions"
    __table_args__ = (
        UniqueConstraint("run_id", "number"),
        CheckConstraint(one_of("state", VERSION_STATES), name="state_known"),
        Index(
            "uq_model_versions_one_active",
            "run_id",
            unique=True,
            sqlite_where=text("state = 'active'"),
            postgresql_where=text("state = 'active'"),
        ),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    number: Mapped[int]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))
    state: Mapped[str] = mapped_column(State)
    sha256: Mapped[str] = mapped_column(Sha256)
    num_bytes: Mapped[int] = mapped_column(BigId)
    origin: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]

    @property
    def name(self) -> str:
        """The version's name in tables and on the command line: v0001, v0002, ..."""
        return version_name(self.number)


def version_name(number: int) -> str:
    """v0001 for 1."""
    return f"v{number:04d}"
