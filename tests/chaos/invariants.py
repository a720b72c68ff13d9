"""What must hold after a run in which people gave commands, told by what the database holds alone.

No other run is like it, so there is none to compare it with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from illume_db.curation import examples_of
from illume_db.rounds_table import rounds_table
from illume_db.tables import (
    Assessment,
    Event,
    Manifest,
    ModelVersion,
    Prompt,
    Round,
    RoundPrompt,
    Sample,
    StageCount,
    Unit,
)
from illume_loop.domains import get_domain
from illume_loop.loop.canonical import manifest_sha256
from illume_loop.loop.stages.plan import round_prompts
from illume_loop.loop.unit_inputs import sample_seed
from illume_loop.settings import Settings

DECIDED, ENDED_EARLY = ("promoted", "rejected"), ("cancelled", "failed")
TIMED = {"seconds", "created_at", "ended_at"}
CODES = (0, 2, 3, 4)
"""Done, no such round or version, a database that is away, and a conflict: all that a command may end with."""
COMMANDS_OF_EVENTS: Mapping[str, tuple[str, ...]] = {
    "cancelled": ("cancel",),
    "retried": ("retry",),
    "promoted": ("promote", "rollback"),
}


def one_active(session: Session, run_id: int) -> Iterator[str]:
    """Exactly one version is active, and none is under trial."""
    versions = session.scalars(select(ModelVersion).where(ModelVersion.run_id == run_id)).all()
    active = [version.name for version in versions if version.state == "active"]
    if len(active) != 1:
        yield f"{len(active)} versions are active: {active}"


def invariants(
    session: Session,
    run_id: int,
    settings: Settings,
    undisturbed: Mapping[str, Any],
    ordered: Sequence[tuple[str, int]],
) -> Iterator[str]:
    """Yield sentences for all that does not hold."""
    rounds = list(session.scalars(select(Round).where(Round.run_id == run_id).order_by(Round.index)))
    yield from _rounds(rounds, settings)
    for round_ in rounds:
        for violation in (*_samples(session, round_, settings), *_units(session, round_), *_manifest(session, round_)):
            yield f"round {round_.index} ({round_.state}): {violation}"
        yield from _version(session, round_)
    yield from _before_the_first_command(session, run_id, undisturbed)
    yield from _commands(session, run_id, ordered)


def _rounds(rounds: Sequence[Round], settings: Settings) -> Iterator[str]:
    states = [round_.state for round_ in rounds]
    if not set(states) <= {*DECIDED, *ENDED_EARLY}:
        yield f"rounds ended {states}"
    requested = {round_.id for round_ in rounds if round_.retry_requested_at is not None}
    again = {round_.retry_of_id for round_ in rounds if round_.retry_of_id is not None}
    if requested != again:
        yield f"{len(requested)} rounds were to be run again, and {len(again)} were"
    if len(rounds) != settings.run.rounds + len(requested):
        yield f"{len(rounds)} rounds and {len(requested)} run again, of {settings.run.rounds}"
    if [round_.index for round_ in rounds] != list(range(1, len(rounds) + 1)):
        yield "numbers of rounds are missing"


def _samples(session: Session, round_: Round, settings: Settings) -> Iterator[str]:
    """Nothing lost and nothing doubled; of a round that ended early, what is there is what was to be."""
    texts = _texts(session, round_.id)
    if round_.retry_of_id is not None:
        planned = _texts(session, round_.retry_of_id)
    else:
        planned = [prompt.text for prompt in round_prompts(get_domain(settings.run.domain), settings, round_.index)]
    if texts != planned:
        yield "its prompts are not those that were to be drawn"
    query = select(Prompt.text, Sample.sample_index, Sample.seed).join(Prompt, Prompt.id == Sample.prompt_id)
    drawn = Counter((text, index, seed) for text, index, seed in session.execute(query.where(_of(round_))))
    wanted = Counter(
        (text, index, sample_seed(settings.run.seed, round_.index, text, index))
        for text in texts
        for index in range(settings.sampling.samples_per_prompt)
    )
    yield from _difference("samples", drawn, wanted, whole=round_.state in DECIDED)
    if round_.num_samples != drawn.total():
        yield f"it counts {round_.num_samples} samples and has {drawn.total()}"
    query_of_said = select(Prompt.text, Sample.sample_index, Assessment.assessor, Assessment.model_version_id)
    said = query_of_said.join(Sample, Sample.id == Assessment.sample_id).join(Prompt, Prompt.id == Sample.prompt_id)
    judged = Counter((text, index, who) for text, index, who, _ in session.execute(said.where(_of(round_))))
    both = Counter((text, index, who) for text, index, _ in drawn for who in ("checker", "self"))
    yield from _difference("assessments", judged, both, whole=round_.state in DECIDED)


def _of(round_: Round) -> Any:
    return Sample.round_id == round_.id


def _texts(session: Session, round_id: int) -> list[str]:
    query = select(Prompt.text).join(RoundPrompt, RoundPrompt.prompt_id == Prompt.id)
    return list(session.scalars(query.where(RoundPrompt.round_id == round_id).order_by(RoundPrompt.position)))


def _difference(name: str, found: Counter[Any], wanted: Counter[Any], *, whole: bool) -> Iterator[str]:
    missing, extra = wanted - found, found - wanted
    if missing and whole:
        yield f"{missing.total()} {name} are lost"
    if extra:
        yield f"{extra.total()} {name} are too many"


def _units(session: Session, round_: Round) -> Iterator[str]:
    query = select(Unit.kind, Unit.state, func.count()).where(Unit.round_id == round_.id)
    found = {(kind, state): num for kind, state, num in session.execute(query.group_by(Unit.kind, Unit.state))}
    open_ = sum(num for (_, state), num in found.items() if state != "done")
    held = sum(num for (_, state), num in found.items() if state == "leased")
    if held or (open_ and round_.state in DECIDED):
        yield f"{open_} units are not done, {held} of them in hand"
    for counts in session.scalars(select(StageCount).where(StageCount.round_id == round_.id)):
        told = [counts.num_pending, counts.num_leased, counts.num_done, counts.num_dead]
        if told != [found.get((counts.kind, state), 0) for state in ("pending", "leased", "done", "dead")]:
            yield f"its counts of {counts.kind} units are wrong"


def _manifest(session: Session, round_: Round) -> Iterator[str]:
    manifests = list(session.scalars(select(Manifest).where(Manifest.round_id == round_.id)))
    if len(manifests) > 1 or (not manifests and round_.state in DECIDED):
        yield f"{len(manifests)} manifests"
    for manifest in manifests:
        rows = examples_of(session, manifest.id)
        if manifest_sha256(rows) != manifest.sha256 or len(rows) != manifest.num_rows:
            yield "its manifest is not what its hash says"
        own = Counter(row.sample.key for row in rows if row.sample and row.sample.round_index == round_.index)
        if own and max(own.values()) > 2:
            yield "its manifest has a sample more often than to draw and to read"


def _version(session: Session, round_: Round) -> Iterator[str]:
    if round_.candidate_version_id is None:
        if round_.state in DECIDED:
            yield f"round {round_.index} is {round_.state} and has no candidate"
        return
    version = session.get_one(ModelVersion, round_.candidate_version_id)
    if round_.state == "promoted" and version.state not in ("active", "retired"):
        yield f"{version.name} was promoted and is {version.state}"
    if round_.state in ENDED_EARLY and version.state == "candidate":
        yield f"{version.name} is under trial in a round that is {round_.state}"


def _before_the_first_command(session: Session, run_id: int, undisturbed: Mapping[str, Any]) -> Iterator[str]:
    """What had ended before the first command took effect is what it is in a run without commands."""
    of_run, kinds = Event.run_id == run_id, tuple(COMMANDS_OF_EVENTS)
    # By the order of the events, as the clock of a process may be wrong.
    first = session.scalar(select(func.min(Event.id)).where(of_run, Event.kind.in_(kinds)))
    moved = select(Round.index, func.max(Event.id)).join(Round, Round.id == Event.round_id)
    moves = session.execute(moved.where(of_run, Event.kind.in_(("moved", "cancelled"))).group_by(Round.index))
    last_moves: dict[int, int] = {row[0]: row[1] for row in moves}
    for found, expected in zip(rounds_table(session, run_id), undisturbed["rounds"], strict=False):
        if first is not None and last_moves.get(found["index"], first) >= first:
            return
        if any(found[key] != value for key, value in expected.items() if key not in TIMED):
            yield f"round {found['index']} ended before any command, and differs from that of the undisturbed run"


def _commands(session: Session, run_id: int, ordered: Sequence[tuple[str, int]]) -> Iterator[str]:
    """Each command ended as it should, and what it did is in the event log."""
    yield from (f"the command {kind} ended with {code}" for kind, code in ordered if code not in CODES)
    for event_kind, kinds in COMMANDS_OF_EVENTS.items():
        query = select(func.count()).where(Event.run_id == run_id, Event.kind == event_kind)
        num_events = session.scalar(query) or 0
        done = sum(kind in kinds and code == 0 for kind, code in ordered)
        # One whose connection broke at its commit may have been carried out and not know it.
        unsure = sum(kind in kinds and code == 3 for kind, code in ordered)
        if not done <= num_events <= done + unsure:
            yield f"the event log has {num_events} events of the kind {event_kind}, after {done} commands"
