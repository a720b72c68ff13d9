"""What must hold after a run, however it was disturbed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from illume_db.rounds_table import rounds_table
from illume_db.tables import Assessment, Evaluation, Manifest, ModelVersion, Prompt, Round, Sample, Unit
from illume_loop.domains import get_domain
from illume_loop.loop.stages.plan import round_prompts
from illume_loop.loop.unit_inputs import sample_seed
from illume_loop.settings import Settings
from tests.chaos.invariants import invariants, one_active

TIMED = {"seconds", "created_at", "ended_at", "units", "workers"}
"""What may differ between two runs: when and how long, and by whom."""


def outcome(session: Session, run_id: int) -> dict[str, Any]:
    """All of a run that must not depend on what went wrong in it: by natural keys, no row ids, no times."""
    rounds = [{key: value for key, value in row.items() if key not in TIMED} for row in rounds_table(session, run_id)]
    samples = session.execute(
        select(
            Round.index,
            Prompt.text,
            Sample.sample_index,
            Sample.seed,
            Sample.image_sha256,
            ModelVersion.number,
            Sample.staleness,
        )
        .join(Round, Round.id == Sample.round_id)
        .join(Prompt, Prompt.id == Sample.prompt_id)
        .join(ModelVersion, ModelVersion.id == Sample.model_version_id)
        .where(Round.run_id == run_id)
        .order_by(Round.index, Prompt.text, Sample.sample_index)
    )
    assessments = session.execute(
        select(
            Round.index,
            Prompt.text,
            Sample.sample_index,
            Assessment.assessor,
            ModelVersion.number,
            Assessment.state,
            Assessment.score,
        )
        .join(Sample, Sample.id == Assessment.sample_id)
        .join(Round, Round.id == Sample.round_id)
        .join(Prompt, Prompt.id == Sample.prompt_id)
        .outerjoin(ModelVersion, ModelVersion.id == Assessment.model_version_id)
        .where(Round.run_id == run_id)
        .order_by(Round.index, Prompt.text, Sample.sample_index, Assessment.assessor, ModelVersion.number)
    )
    evaluations = session.execute(
        select(ModelVersion.number, Evaluation.suite, Evaluation.plan_sha256, Evaluation.value)
        .join(ModelVersion, ModelVersion.id == Evaluation.model_version_id)
        .where(ModelVersion.run_id == run_id)
        .order_by(ModelVersion.number, Evaluation.suite, Evaluation.plan_sha256)
    )
    models = session.execute(
        select(ModelVersion.number, ModelVersion.state, ModelVersion.sha256)
        .where(ModelVersion.run_id == run_id)
        .order_by(ModelVersion.number)
    )
    manifests = session.execute(
        select(Round.index, Manifest.sha256)
        .join(Round, Round.id == Manifest.round_id)
        .where(Round.run_id == run_id)
        .order_by(Round.index)
    )
    parts = {"samples": samples, "assessments": assessments, "evaluations": evaluations, "models": models}
    lists = {name: [list(row) for row in rows] for name, rows in (parts | {"manifests": manifests}).items()}
    return {"rounds": rounds, **lists}


def violations(
    session: Session,
    run_id: int,
    settings: Settings,
    undisturbed: dict[str, Any],
    ordered: Sequence[tuple[str, int]] = (),
) -> Iterator[str]:
    """Yield sentences for all that does not hold: lost, doubled, unexpected or different rows, unfinished rounds.

    A run in which people gave commands is like no other; see `tests.chaos.invariants` for what must hold of it.
    """
    yield from one_active(session, run_id)
    if ordered:
        yield from invariants(session, run_id, settings, undisturbed, ordered)
        return
    found = outcome(session, run_id)
    states = [row["state"] for row in found["rounds"]]
    if len(states) != settings.run.rounds or not set(states) <= {"promoted", "rejected"}:
        yield f"rounds ended {states}"
    drawn = Counter((index, text, sample, seed) for index, text, sample, seed, *_ in found["samples"])
    wanted = Counter(_expected(settings))
    yield from _difference("samples", drawn, wanted)
    doubled = [key for key, times in drawn.items() if times > 1]
    if doubled:
        yield f"{len(doubled)} samples are there more than once"
    judged = Counter((index, text, sample, assessor) for index, text, sample, assessor, *_ in found["assessments"])
    both = Counter((*key[:3], assessor) for key in wanted for assessor in ("checker", "self"))
    yield from _difference("assessments", judged, both)
    for name, rows in undisturbed.items():
        if found[name] != rows:
            yield f"{name} differ from those of the undisturbed run"
    unfinished = session.scalar(
        select(func.count())
        .select_from(Unit)
        .join(Round, Round.id == Unit.round_id)
        .where(Round.run_id == run_id, Unit.state != "done")
    )
    if unfinished:
        yield f"{unfinished} units are not done"


def _expected(settings: Settings) -> Iterator[tuple[int, str, int, int]]:
    """The sample set that the settings ask for, from the plan alone."""
    domain = get_domain(settings.run.domain)
    for index in range(1, settings.run.rounds + 1):
        for prompt in round_prompts(domain, settings, index):
            for sample in range(settings.sampling.samples_per_prompt):
                yield index, prompt.text, sample, sample_seed(settings.run.seed, index, prompt.text, sample)


def _difference(name: str, found: Counter[Any], wanted: Counter[Any]) -> Iterator[str]:
    missing, extra = wanted - found, found - wanted
    if missing:
        yield f"{missing.total()} {name} are lost"
    if extra:
        yield f"{extra.total()} {name} are too many"
