"""The script that Alembic runs for every command; illume_db.migrate opens the connection and the transaction."""

from __future__ import annotations

from alembic import context

import illume_db.tables  # noqa: F401 - registers every table on Base.metadata
from illume_db.types import Base

connection = context.config.attributes["connection"]
if connection.dialect.name == "postgresql":
    # A migration that waits for a lock makes everyone queue behind it: better to fail and be run again.
    connection.exec_driver_sql("SET LOCAL lock_timeout = '10s'")

context.configure(connection=connection, target_metadata=Base.metadata, compare_type=True)
with context.begin_transaction():
    context.run_migrations()
