"""Column types that mean the same on SQLite and on Postgres, and the declarative base."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Integer, LargeBinary, MetaData, String
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator

BigId = BigInteger().with_variant(Integer, "sqlite")
"""A 64-bit key. SQLite assigns row ids only to columns that are declared INTEGER."""

Json = JSON().with_variant(JSONB(), "postgresql")

JsonOrNull = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
"""A JSON column that stores None as NULL, not as the JSON value null."""

Sha256 = String(64)

State = String(16)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time. SQLite stores no zone, so times are stored in UTC, and a read adds the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Convert a time to UTC. Raises ValueError for a naive time, whose meaning would depend on the host."""
        if value is not None and value.tzinfo is None:
            raise ValueError("times must carry a zone")
        return value if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Return the stored time as an aware time in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class ImageIdsType(TypeDecorator[NDArray[np.int32]]):
    """Image-token ids of shape (L,), stored as one byte with the width of an id (2 or 4) and little-endian integers.

    Codebooks of up to 32,768 ids take two bytes per id; all codebooks that we know are of that size.
    """

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: NDArray[np.int32] | None, _dialect: Dialect) -> bytes | None:
        """Pack the ids to bytes. Raises ValueError if they are not one-dimensional or if one is negative."""
        return None if value is None else pack_image_ids(value)

    def process_result_value(self, value: bytes | None, _dialect: Dialect) -> NDArray[np.int32] | None:
        """Unpack the stored bytes to int32 ids."""
        return None if value is None else unpack_image_ids(value)


class LogProbsType(TypeDecorator[NDArray[np.float32]]):
    """Log-probabilities of shape (L,), stored as little-endian float32."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: NDArray[np.float32] | None, _dialect: Dialect) -> bytes | None:
        """Pack the numbers to bytes."""
        return None if value is None else value.astype("<f4").tobytes()

    def process_result_value(self, value: bytes | None, _dialect: Dialect) -> NDArray[np.float32] | None:
        """Unpack the stored bytes."""
        return None if value is None else np.frombuffer(value, dtype="<f4").astype(np.float32)


def pack_image_ids(ids_L: NDArray[np.int32]) -> bytes:
    """Return ids as stored bytes; see ImageIdsType. Raises ValueError for other shapes and for negative ids."""
    if ids_L.ndim != 1 or (ids_L < 0).any():
        raise ValueError("image ids must be one-dimensional and not negative")
    width = 2 if ids_L.size == 0 or int(ids_L.max()) < 2**15 else 4
    return bytes([width]) + ids_L.astype(f"<i{width}").tobytes()


def unpack_image_ids(packed: bytes) -> NDArray[np.int32]:
    """Return the int32 ids of stored bytes; the inverse of pack_image_ids."""
    return np.frombuffer(packed[1:], dtype=f"<i{packed[0]}").astype(np.int32)


class Base(DeclarativeBase):
    """The base class of all tables. It names every constraint, so that both databases report a violated one by name."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {dict[str, Any]: Json, list[Any]: Json, datetime: UtcDateTime()}


def one_of(column: str, values: tuple[str, ...]) -> str:
    """Return a CHECK expression that allows only `values` in a column."""
    return f"{column} IN ({', '.join(repr(value) for value in values)})"
