"""The database's own clock, in expressions that mean the same on SQLite and on Postgres.

Guarantee: every time that decides who may do what (leases, leadership, waiting) is taken here, so the clocks of the
hosts need not agree. On Postgres it is the time of the statement, not that of the transaction's begin, because a
transaction may have waited for a lock. SQLite counts milliseconds.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Double, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from illume_db.types import UtcDateTime


class _Later(FunctionElement[datetime]):
    name = "db_later"
    type = UtcDateTime()
    inherit_cache = True


class _SecondsSince(FunctionElement[float]):
    name = "db_seconds_since"
    type = Double()
    inherit_cache = True


def db_now() -> ColumnElement[datetime]:
    """The time by the database's clock."""
    return db_later(0.0)


def db_later(seconds: float) -> ColumnElement[datetime]:
    """The time `seconds` from now by the database's clock; negative for the past."""
    return _Later(literal(float(seconds), Double()))


def seconds_since(moment: Any) -> ColumnElement[float]:
    """How many seconds ago the time in a column was, by the database's clock."""
    return _SecondsSince(moment)


@compiles(_Later, "postgresql")
def _later_on_postgres(element: _Later, compiler: SQLCompiler, **options: Any) -> str:
    return f"(clock_timestamp() + make_interval(secs => {compiler.process(element.clauses, **options)}))"


@compiles(_Later, "sqlite")
def _later_on_sqlite(element: _Later, compiler: SQLCompiler, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    # Six digits, as SQLAlchemy writes times: they are compared as text.
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%+.3f seconds', {seconds}))"


@compiles(_SecondsSince, "postgresql")
def _since_on_postgres(element: _SecondsSince, compiler: SQLCompiler, **options: Any) -> str:
    moment = compiler.process(element.clauses, **options)
    return f"CAST(extract(epoch FROM clock_timestamp() - {moment}) AS DOUBLE PRECISION)"


@compiles(_SecondsSince, "sqlite")
def _since_on_sqlite(element: _SecondsSince, compiler: SQLCompiler, **options: Any) -> str:
    moment = compiler.process(element.clauses, **options)
    return f"((julianday('now') - julianday({moment})) * 86400.0)"
