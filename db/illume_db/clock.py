"""The database's clock, as SQL expressions that mean the same on SQLite and on Postgres.

Invariants:

- All times that decide about leases, leadership and waiting come from here, so the hosts' clocks need not agree.
- On Postgres the time is that of the statement. The time at which the transaction began would be too early after a
  wait for a lock.
- On SQLite the time has a resolution of one millisecond.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Double, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from illume_db.types import UtcDateTime


class _TimeFromNow(FunctionElement[datetime]):
    name = "db_time_in"
    type = UtcDateTime()
    inherit_cache = True


class _SecondsSince(FunctionElement[float]):
    name = "db_seconds_since"
    type = Double()
    inherit_cache = True


def db_now() -> ColumnElement[datetime]:
    """Return the current time by the database's clock."""
    return db_time_in(0.0)


def db_time_in(seconds: float) -> ColumnElement[datetime]:
    """Return the time `seconds` from now by the database's clock; negative seconds give a time in the past."""
    return _TimeFromNow(literal(float(seconds), Double()))


def seconds_since(moment: Any) -> ColumnElement[float]:
    """Return the seconds that have passed since the time in a column, by the database's clock."""
    return _SecondsSince(moment)


@compiles(_TimeFromNow, "postgresql")
def _later_on_postgres(element: _TimeFromNow, compiler: SQLCompiler, **options: Any) -> str:
    return f"(clock_timestamp() + make_interval(secs => {compiler.process(element.clauses, **options)}))"


@compiles(_TimeFromNow, "sqlite")
def _later_on_sqlite(element: _TimeFromNow, compiler: SQLCompiler, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    # SQLite compares times as text, so this one has six digits after the point, as the ones that SQLAlchemy writes.
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%+.3f seconds', {seconds}))"


@compiles(_SecondsSince, "postgresql")
def _since_on_postgres(element: _SecondsSince, compiler: SQLCompiler, **options: Any) -> str:
    moment = compiler.process(element.clauses, **options)
    return f"CAST(extract(epoch FROM clock_timestamp() - {moment}) AS DOUBLE PRECISION)"


@compiles(_SecondsSince, "sqlite")
def _since_on_sqlite(element: _SecondsSince, compiler: SQLCompiler, **options: Any) -> str:
    moment = compiler.process(element.clauses, **options)
    return f"((julianday('now') - julianday({moment})) * 86400.0)"
