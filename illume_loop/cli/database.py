"""`illume-loop db`: upgrade and check the schema of the database."""

from __future__ import annotations

import typer

from illume_loop.cli.options import DEFAULT_RUN_DIR, AsJson, RunDir
from illume_loop.cli.output import hint, print_json

app = typer.Typer(help="Upgrade or check the schema of the database.", no_args_is_help=True)


@app.command("upgrade")
def upgrade(run_dir: RunDir = DEFAULT_RUN_DIR) -> None:
    """Upgrade the database to this version's schema: the database of store.database_url, or else of the run."""
    from illume_db.migrate import current, head
    from illume_db.migrate import upgrade as run_migrations
    from illume_loop.cli.runs import database_for

    # A database server is migrated before the first run, from a host that may never have a run directory.
    url = database_for(run_dir)
    before = current(url)
    run_migrations(url)
    print(f"schema {head()}" + (" (already there)" if before == head() else f" (was {before or 'empty'})"))


@app.command("check")
def check(run_dir: RunDir = DEFAULT_RUN_DIR, as_json: AsJson = False) -> None:
    """Check that the database has this version's schema; exit 3 if it does not."""
    from illume_db.migrate import current, drift, head
    from illume_loop.cli.runs import database_for
    from illume_loop.errors import DatabaseDriftError, DatabaseOutdatedError

    url = database_for(run_dir)
    found, expected = current(url), head()
    differences = drift(url) if found == expected else []
    if as_json:
        ok = found == expected and not differences
        print_json({"found": found, "expected": expected, "drift": differences, "ok": ok})
    if found != expected:
        raise DatabaseOutdatedError(found=found or "(none)", expected=expected)
    if differences:
        raise DatabaseDriftError(found=found, drift=", ".join(differences))
    if not as_json:
        hint(f"the database is at schema {found}, as this version expects")
