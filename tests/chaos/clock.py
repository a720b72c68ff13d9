"""A clock that is wrong: what Python code of this process takes for the time is shifted, as on a host without NTP.

Installed when this module is imported, before the modules that take `datetime` by name. `time.monotonic` is left alone,
as it is on such a host.
"""

from __future__ import annotations

import datetime as _datetime
import time as _time
from typing import Any, Self

_shift_s = 0.0
_true_time, _true_time_ns, _true_datetime = _time.time, _time.time_ns, _datetime.datetime


def shift(seconds: float) -> None:
    """Set the clock of this process wrong by `seconds`."""
    global _shift_s
    _shift_s = seconds


class _Meta(type(_datetime.datetime)):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _true_datetime)


class ShiftedDatetime(_datetime.datetime, metaclass=_Meta):
    """`datetime.datetime`, but for what the time is."""

    @classmethod
    def now(cls, tz: Any = None) -> Self:
        return cls.fromtimestamp(_time.time(), tz)

    @classmethod
    def utcnow(cls) -> Self:
        return cls.fromtimestamp(_time.time(), _datetime.UTC).replace(tzinfo=None)


def _install() -> None:
    _time.time = lambda: _true_time() + _shift_s
    _time.time_ns = lambda: _true_time_ns() + int(_shift_s * 1e9)
    _datetime.datetime = ShiftedDatetime


_install()
