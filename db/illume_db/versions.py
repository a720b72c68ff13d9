"""Model versions: add them, move them from state to state, and read them with their comparisons.

`illume_loop.loop.states` defines the allowed moves; triggers refuse all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, func, select, update
from sqlalchemy.orm import Session, aliased

from illume_db.evaluations import DecodeTrial, best_trial, decode_trials
from illume_db.tables import (
    Evaluation,
    GateDecision,
    ModelVersion,
    Round,
    Run,
)
from illume_db.tables.rounds import TERMINAL_STATES
from illume_db.tables.versions import version_name


def add_version(
    session: Session,
    run_id: int,
    *,
    parent_id: int | None,
    state: str,
    sha256: str,
    num_bytes: int,
    origin: str,
    at: datetime,
) -> ModelVersion:
    """Add a version with the run's next number. Its checkpoint must already be in the artifact store."""
    last = session.scalar(select(func.max(ModelVersion.number)).where(ModelVersion.run_id == run_id))
    version = ModelVersion(
        run_id=run_id,
        number=(last or 0) + 1,
        parent_id=parent_id,
        state=state,
        sha256=sha256,
        num_bytes=num_bytes,
        origin=origin,
        created_at=at,
    )
    session.add(version)
    session.flush()
    return version


def move_version(session: Session, version_id: int, current: str, target: str) -> bool:
    """Move a version from the state `current` to `target`; return False if it has left `current`."""
    change = update(ModelVersion).where(ModelVersion.id == version_id, ModelVersion.state == current)
    return cast("CursorResult[Any]", session.execute(change.values(state=target))).rowcount == 1


def promote_version(session: Session, run_id: int, version_id: int) -> None:
    """Make `version_id` active, after the active version, if any, is retired; two versions are never active at once."""
    active = update(ModelVersion).where(ModelVersion.run_id == run_id, ModelVersion.state == "active")
    session.execute(active.values(state="retired"))
    chosen = update(ModelVersion).where(ModelVersion.run_id == run_id, ModelVersion.id == version_id)
    session.execute(chosen.values(state="active"))


def active_version(session: Session, run_id: int) -> ModelVersion | None:
    """Return the active version, with which the next round draws; None if there is none."""
    return session.scalar(select(ModelVersion).where(ModelVersion.run_id == run_id, ModelVersion.state == "active"))


def base_version(session: Session, run_id: int) -> ModelVersion:
    """Return the run's base, v0001."""
    return session.scalars(select(ModelVersion).where(ModelVersion.run_id == run_id, ModelVersion.number == 1)).one()


def version_of(session: Session, version_id: int) -> ModelVersion:
    """Return a model version by its id."""
    return session.get_one(ModelVersion, version_id)


def models_table(session: Session, run_id: int) -> list[dict[str, Any]]:
    """Return one object per version, v0001 first.

    Keys: name, state, parent, round (index or None), under_trial (True until that round has ended), sha256, num_bytes,
    origin, created_at, heldout (the `headline` of its comparisons; None before the first gate), and best_decode (the
    decode that draws train prompts best, with its share of `prompts` train prompts; None if none was tried).
    """
    query = (
        select(ModelVersion, Round.index, Round.state)
        .outerjoin(Round, Round.candidate_version_id == ModelVersion.id)
        .where(ModelVersion.run_id == run_id)
        .order_by(ModelVersion.number)
    )
    rows = session.execute(query).all()
    names = {version.id: version.name for version, _, _ in rows}
    compared_as = comparisons(session, run_id)
    trials = decode_trials(session, run_id)
    setting = _setting_of(session.scalars(select(Run.settings).where(Run.id == run_id)).one())
    return [
        {
            "name": version.name,
            "state": version.state,
            "parent": names[version.parent_id] if version.parent_id is not None else None,
            "round": round_index,
            "under_trial": round_state is not None and round_state not in TERMINAL_STATES,
            "sha256": version.sha256,
            "num_bytes": version.num_bytes,
            "origin": version.origin,
            "created_at": version.created_at.isoformat(),
            "heldout": headline(compared_as.get(version.name, [])),
            "best_decode": _best_decode(trials.get(version.id, []), setting),
        }
        for version, round_index, round_state in rows
    ]


def _best_decode(trials: Sequence[DecodeTrial], setting: Mapping[str, Any]) -> dict[str, Any] | None:
    if not trials:
        return None
    best = best_trial(trials, setting)
    return {**best.decode, "share": best.value, "prompts": best.num_prompts, "of": len(trials)}


def model_detail(session: Session, run_id: int, name: str) -> dict[str, Any] | None:
    """Return a row of `models_table` with the version's comparisons and evaluations; None if there is no such version.

    An evaluation is the result of one plan. Held-out draws have one evaluation for each look of each round;
    `comparisons` adds up the looks of a round.
    """
    row = next((row for row in models_table(session, run_id) if row["name"] == name), None)
    if row is None:
        return None
    query = (
        select(Evaluation.suite, Evaluation.value, Evaluation.num_items, Evaluation.plan_sha256)
        .join(ModelVersion, ModelVersion.id == Evaluation.model_version_id)
        .where(ModelVersion.run_id == run_id, ModelVersion.number == int(name[1:]))
        .order_by(Evaluation.id)
    )
    evaluations = [
        {"suite": suite, "value": value, "n": n, "plan_sha256": plan}
        for suite, value, n, plan in session.execute(query)
    ]
    return row | {"comparisons": comparisons(session, run_id).get(name, []), "evaluations": evaluations}


def comparisons(session: Session, run_id: int) -> dict[str, list[dict[str, Any]]]:
    """Return the gate's held-out comparisons of each version by name, in the order of rounds.

    Each has the version's share (mean, low, high, n), round, role (parent or candidate), the other version as
    `against`, the candidate's `gain` over its parent, the decision, and the judge and decode if they are known. The
    decode is the version's best one. `at_setting` has share, gain and decode at the run's setting; it is None for a
    decision of an older release, which compared at the run's setting only.
    """
    parent, candidate = aliased(ModelVersion), aliased(ModelVersion)
    query = (
        select(Round.index, parent.number, candidate.number, GateDecision, Run.settings)
        .join(GateDecision, GateDecision.round_id == Round.id)
        .join(parent, parent.id == Round.parent_version_id)
        .join(candidate, candidate.id == Round.candidate_version_id)
        .join(Run, Run.id == Round.run_id)
        .where(Round.run_id == run_id)
        .order_by(Round.index)
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for index, of_parent, of_candidate, decision, settings in session.execute(query):
        numbers = decision.numbers
        heldout, at_setting = numbers.get("heldout") or {}, numbers.get("at_setting")
        compared_by = numbers.get("compared_by") or {"judge": None, **_setting_of(settings)}
        names = {"parent": version_name(of_parent), "candidate": version_name(of_candidate)}
        for role, other in (("parent", "candidate"), ("candidate", "parent")):
            if heldout.get(role):
                found.setdefault(names[role], []).append(
                    {
                        **heldout[role],
                        **compared_by,
                        **(numbers.get("decodes") or {}).get(role, {}),
                        "round": index,
                        "role": role,
                        "against": names[other],
                        "gain": heldout.get("delta"),
                        "decision": decision.decision,
                        "at_setting": at_setting and {**compared_by, **at_setting[role], "gain": at_setting["delta"]},
                    }
                )
    return found


def headline(compared_as: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the comparison that stands for a version: the one with the largest n; None if there is none.

    Among equals, the comparison at the version's own gate comes first, and then the latest one.
    """
    if not compared_as:
        return None
    return dict(max(compared_as, key=lambda one: (one["n"], one["role"] == "candidate", one["round"])))


def _setting_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the decode of the run's setting."""
    gate, sampling = settings.get("gate", {}), settings.get("sampling", {})
    return {
        "guidance_scale": gate.get("guidance_scale"),
        **{name: sampling.get(name) for name in ("temperature", "top_k", "top_p")},
    }


def compared(session: Session, run_id: int, first: str, second: str) -> list[dict[str, Any]]:
    """Return the results of both versions under equal plans, by suite, in the order of measurement.

    Each has suite, n (items in all), and a and b (the versions' shares of those items, or their mean diversity).
    Held-out draws appear only if the two versions met at a gate; see `comparisons` for each version's own.
    """
    one, other = aliased(Evaluation), aliased(Evaluation)
    of_first, of_second = aliased(ModelVersion), aliased(ModelVersion)
    query = (
        select(one.suite, one.num_items, one.value, other.value)
        .join(other, (other.suite == one.suite) & (other.plan_sha256 == one.plan_sha256))
        .join(of_first, of_first.id == one.model_version_id)
        .join(of_second, of_second.id == other.model_version_id)
        .where(
            of_first.run_id == run_id,
            of_second.run_id == run_id,
            of_first.number == int(first[1:]),
            of_second.number == int(second[1:]),
        )
        .order_by(one.id)
    )
    found: dict[str, list[tuple[int, float, float]]] = {}
    for suite, num_items, value, other_value in session.execute(query):
        found.setdefault(suite, []).append((num_items, value, other_value))
    return [_pooled(suite, parts) for suite, parts in found.items()]


def _pooled(suite: str, parts: list[tuple[int, float, float]]) -> dict[str, Any]:
    n = sum(num_items for num_items, _, _ in parts)
    a, b = (sum(part[0] * part[place] for part in parts) / n for place in (1, 2))
    return {"suite": suite, "n": n, "a": a, "b": b}


def checkpoint_digest(session: Session, run_id: int, name: str | None) -> tuple[int, str] | None:
    """Return (number, checkpoint digest) of the version `name`, or of the active one if `name` is None.

    It returns None if there is no such version.
    """
    query = select(ModelVersion.number, ModelVersion.sha256, ModelVersion.state).where(ModelVersion.run_id == run_id)
    for number, sha256, state in session.execute(query):
        if version_name(number) == name or (name is None and state == "active"):
            return number, sha256
    return None
