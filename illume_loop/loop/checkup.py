"""The checks of `illume-loop doctor`, with what to do about each problem. They change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from illume_db.rounds import round_of_candidate, waiting_retries
from illume_db.rounds_table import rounds_table
from illume_db.tables import ModelVersion
from illume_db.versions import active_version
from illume_loop.errors import IllumeLoopError
from illume_loop.loop.promotion import open_trial
from illume_loop.loop.run_directory import OpenRun
from illume_loop.loop.states import RoundState, VersionState

OK, NOTE, BAD = "ok", "note", "bad"
"""The states of a finding. A note is worth knowing; a bad finding keeps the run from continuing as it should."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `todo` is empty if there is nothing to do."""

    name: str
    state: str
    found: str
    todo: str = ""


def missing_database(path: Path) -> Finding:
    """Return the finding that the run's own database is missing."""
    todo = "restore the file from a copy; where the run used another database, set store.database_url to it"
    return Finding("database", BAD, f"{path} is missing", todo)


def check_schema(found: str | None, expected: str, run_dir: Path) -> list[Finding]:
    """Check that the database has the schema of this version, without which nothing else can be read."""
    reached = Finding("database", OK, "answers")
    if found == expected:
        return [reached, Finding("schema", OK, expected)]
    told = f"{found or 'none'}, this version needs {expected}"
    return [reached, Finding("schema", BAD, told, f"run `illume-loop db upgrade --run-dir {run_dir}`")]


def check_run(run: OpenRun) -> list[Finding]:
    """Check the run's versions, the active version's checkpoint, and its rounds."""
    return [_active(run), _checkpoint(run), *_trials(run), *_rounds(run)]


def _active(run: OpenRun) -> Finding:
    states = select(ModelVersion).where(ModelVersion.run_id == run.run_id, ModelVersion.state == VersionState.ACTIVE)
    active = list(run.session.scalars(states))
    if len(active) == 1:
        return Finding("active version", OK, active[0].name)
    todo = (
        f"run `illume-loop doctor --repair --run-dir {run.path}`, or choose one with "
        f"`illume-loop models promote NAME --run-dir {run.path}`"
    )
    return Finding("active version", BAD, ", ".join(version.name for version in active) or "none", todo)


def _checkpoint(run: OpenRun) -> Finding:
    name = "checkpoint of the active version"
    if active_version(run.session, run.run_id) is None:
        return Finding(name, NOTE, "not checked, no version is active")
    try:
        version, _ = run.checkpoint()
    except IllumeLoopError as error:
        todo = (
            f"restore the files from a copy, or make an intact version active with "
            f"`illume-loop models promote NAME --run-dir {run.path}`"
        )
        return Finding(name, BAD, str(error), todo)
    return Finding(name, OK, f"{version} is whole")


def _trials(run: OpenRun) -> Iterator[Finding]:
    candidates = select(ModelVersion).where(
        ModelVersion.run_id == run.run_id, ModelVersion.state == VersionState.CANDIDATE
    )
    for version in run.session.scalars(candidates):
        trial = open_trial(run.session, version)
        if trial is not None:
            yield Finding("trial", OK, f"{version.name} is under trial in round {trial.index}")
            continue
        round_ = round_of_candidate(run.session, version.id)
        where = f"round {round_.index}, {round_.state}" if round_ is not None else "no round"
        todo = f"make it active with `illume-loop models promote {version.name} --run-dir {run.path}`, or leave it"
        yield Finding("trial", NOTE, f"{version.name} waits for a decision by hand ({where})", todo)


def _rounds(run: OpenRun) -> Iterator[Finding]:
    rows = rounds_table(run.session, run.run_id)
    retried = {row["retry_of"] for row in rows} | {
        waiting.index for waiting in waiting_retries(run.session, run.run_id)
    }
    healthy = True
    for row in rows:
        index, over = row["index"], RoundState(row["state"]).is_terminal
        if row["dead_units"] and not over:
            healthy = False
            todo = f"see why with `illume-loop rounds show {index} --run-dir {run.path}`"
            yield Finding("units", NOTE, f"round {index} has {row['dead_units']} dead units", todo)
        if row["state"] == RoundState.FAILED and index not in retried:
            healthy = False
            dead = f" with {row['dead_units']} dead units" if row["dead_units"] else ""
            todo = f"run it again with `illume-loop rounds retry {index} --run-dir {run.path}`, or go on without it"
            yield Finding("round", NOTE, f"round {index} failed{dead}: {row['error']}", todo)
    if healthy:
        yield Finding("rounds", OK, f"{len(rows)} rounds, none failed")
