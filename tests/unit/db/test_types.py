"""Column types give back what they were given."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from sqlalchemy.dialects import sqlite

from illume_db.types import UtcDateTime, pack_image_ids, unpack_image_ids

DIALECT = sqlite.dialect()


@pytest.mark.parametrize(("ids", "num_bytes"), [([0, 5, 32_767], 7), ([0, 32_768], 9), ([2**31 - 1], 5), ([], 1)])
def test_image_ids_round_trip_in_as_few_bytes_as_fit(ids: list[int], num_bytes: int) -> None:
    packed = pack_image_ids(np.array(ids, dtype=np.int32))
    assert len(packed) == num_bytes
    unpacked = unpack_image_ids(packed)
    assert unpacked.dtype == np.int32
    assert unpacked.tolist() == ids


def test_image_ids_are_little_endian() -> None:
    assert pack_image_ids(np.array([258], dtype=np.int32)) == b"\x02\x02\x01"


@pytest.mark.parametrize("ids", [[[1, 2]], [-1]])
def test_other_arrays_are_refused(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="one-dimensional"):
        pack_image_ids(np.array(ids, dtype=np.int32))


def test_times_come_back_in_utc() -> None:
    column = UtcDateTime()
    local = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    stored = column.process_bind_param(local, DIALECT)
    assert stored is not None
    assert column.process_result_value(stored.replace(tzinfo=None), DIALECT) == datetime(2026, 1, 1, 10, tzinfo=UTC)


def test_times_without_a_zone_are_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        UtcDateTime().process_bind_param(datetime(2026, 1, 1), DIALECT)
