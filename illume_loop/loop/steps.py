"""What each step of the reconciler does to the database. Every function works inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy.orm import Session

from illume_db.curation import (
    SampleRow,
    accepted_before,
    assessments_before,
    critiques_of_round,
    num_drawn_again,
    pairs_before,
    samples_of_round,
    scored_by,
    scores_of_round,
    unsolved_prompts,
)
from illume_db.evaluations import StoredEvaluation, find_evaluation
from illume_db.judging import Fared, controls, drift_of_round, fared
from illume_db.manifests import ExampleRow, add_manifest
from illume_db.prompts import ensure_prompts, prompt_ids_of
from illume_db.reviews import HumanVerdict, verdicts_of_people
from illume_db.rounds import add_decision, add_round, move_round, open_rounds, round_at, waiting_retries
from illume_db.runs import add_event
from illume_db.samples import verdicts
from illume_db.tables import Round
from illume_db.units import NewUnit, add_units, begin_waiting, first_dead
from illume_db.versions import base_version, version_of
from illume_loop.assess.drift import JudgeDrift
from illume_loop.config import Settings
from illume_loop.errors import HeldOutError, IllegalTransitionError, InconsistentRunError, UnitDeadError
from illume_loop.evals.statistics import auc
from illume_loop.loop.calibrating import calibrating_units
from illume_loop.loop.curate import shuffled
from illume_loop.loop.dialogues import assessment_rows, contradicted
from illume_loop.loop.gate import Judgement, Measured, judge
from illume_loop.loop.manifest import check_splits, manifest_rows, manifest_sha256, new_examples
from illume_loop.loop.measures import DRIFT_SAMPLES, EDITING, UNDERSTANDING
from illume_loop.loop.plan import derived_seed, round_plan, sampling_units
from illume_loop.loop.preflight import preflight_units
from illume_loop.loop.promotion import active_of, candidate_of, conclude, end_trial, settle
from illume_loop.loop.prompts import new_prompts, prompt_of
from illume_loop.loop.reconcile import Change, Curate, Decide, GiveUp, Move, PlanGate, PlanRound
from illume_loop.loop.selection import overruled, select
from illume_loop.loop.states import RoundState, transition
from illume_loop.loop.units import real_seed
from illume_loop.loop.workbench import Workbench

LEAST_CONTROL_AUC = 0.6
"""A judge that works is far above it even where few images are right: the questions of a foreign prompt fit less."""
LEAST_CONTROLS = 30


def carry_out(bench: Workbench, session: Session, step: Change) -> None:
    """Take a step that only changes the database."""
    if isinstance(step, PlanRound):
        plan_round(bench, session, step.index)
        return
    round_ = round_at(session, bench.run_id, step.index)
    match step:
        case Move(target=target):
            move(bench, session, round_, target)
        case Curate(plan_next=plan_next):
            goes_on = curate(bench, session, round_)
            if goes_on and plan_next:
                plan_round(bench, session, round_.index + 1)
        case PlanGate():
            plan_gate(bench, session, round_)
        case Decide():
            decide(bench, session, round_)
        case GiveUp(kind=kind):
            give_up(bench, session, round_, kind)


def plan_round(bench: Workbench, session: Session, index: int) -> None:
    """Begin a round: the version that is active now draws, its prompts and units are fixed from here on.

    A round that a person wants to be run again comes first; the new round draws its prompts.
    """
    settings = bench.settings
    parent = active_of(session, bench.run_id)
    staleness = len(open_rounds(session, bench.run_id))
    again = next(iter(waiting_retries(session, bench.run_id)), None)
    if again is not None:
        prompt_ids = prompt_ids_of(session, again.id)
        about = f"; it draws the prompts of round {again.index} again ({again.state})"
    else:
        prompt_ids, about = _new_prompt_ids(bench, session, index)
    round_ = add_round(
        session,
        bench.run_id,
        index,
        parent_version_id=parent.id,
        prompt_ids=prompt_ids,
        at=bench.clock(),
        staleness=staleness,
        retry_of_id=None if again is None else again.id,
    )
    before = preflight_units(settings, session, bench.run_id) + calibrating_units(settings, session, bench.run_id)
    add_units(session, round_.id, before + sampling_units(settings.sampling, settings.assess.batch_size))
    _note(bench, session, round_, "planned", f"round {index} planned, drawing with {parent.name}{about}")


def _new_prompt_ids(bench: Workbench, session: Session, index: int) -> tuple[list[int], str]:
    """Return the ids of the prompts that come next in the run, and what is to be said of them."""
    settings = bench.settings
    unsolved = unsolved_prompts(session, bench.run_id) if settings.sampling.replay_share else []
    plan = round_plan(bench.domain, settings, index, [prompt_of(prompt) for prompt in unsolved])
    prompts = new_prompts("train", plan.prompts, bench.domain, bench.images)
    about = ""
    if plan.num_replayed or plan.num_pairs:
        about = f"; {plan.num_replayed} prompts again, {plan.num_pairs} minimal pairs"
    return ensure_prompts(session, bench.run_id, prompts), about


def move(bench: Workbench, session: Session, round_: Round, target: RoundState, **values: Any) -> None:
    """Move a round. Raises IllegalTransitionError, also where someone else has moved it.

    When all of its samples are assessed, the version that is active then is what its candidate has to beat.
    """
    if target == RoundState.CURATING:
        values["parent_version_id"] = active_of(session, bench.run_id).id
    step = transition(RoundState(round_.state), target, bench.clock())
    if not move_round(session, round_.id, step.current, step.target, ended_at=step.ended_at, **values):
        raise IllegalTransitionError(kind="round", current=round_.state, target=target.value)
    if target == RoundState.SAMPLING:
        # Workers that are sent what has waited for long, and do not get it, take themselves for deaf.
        begin_waiting(session, round_.id)
    if target == RoundState.FAILED and round_.candidate_version_id is not None:
        end_trial(session, candidate_of(session, round_))
    _note(bench, session, round_, "moved", f"round {round_.index} is {target.value}")


def give_up(bench: Workbench, session: Session, round_: Round, kind: str) -> None:
    """Fail a round because of its dead units of a kind."""
    unit = first_dead(session, round_.id, kind)
    if unit is None:
        raise InconsistentRunError(what=f"round {round_.index} counts dead units of the kind {kind} and has none")
    error = UnitDeadError(unit=unit.key, attempts=unit.attempts, reason=(unit.error or "").removesuffix("."))
    move(bench, session, round_, RoundState.FAILED, error=str(error))


def curate(bench: Workbench, session: Session, round_: Round) -> bool:
    """Accept samples, write the manifest over all that was ever accepted, and plan the training.

    False where there is nothing to learn from, so that the round failed.
    """
    settings = bench.settings
    how = fared(session, round_.id, scored_by(settings.assess.assessor))
    objection = _objection_to_judge(bench, session, round_, how)
    if objection is not None:
        move(bench, session, round_, RoundState.FAILED, error=objection)
        return False
    samples = samples_of_round(session, round_.id)
    scores = _scores(bench, session, round_, samples)
    people = verdicts_of_people(session, bench.run_id)
    earlier = [
        sample for sample in accepted_before(session, bench.run_id, round_.index) if not _found_wrong(people, sample)
    ]
    reviewed = {sample.key: people[sample.sample_id].agrees for sample in samples if sample.sample_id in people}
    selection = select(samples, scores, earlier, settings, reviewed)
    union = earlier + selection.accepted
    values = {"num_accepted": len(selection.accepted), "judge_auc": _judge_auc(session, round_, samples, scores)}
    counts, preferences = selection.counts | how.counts, selection.preferences
    if settings.sampling.replay_share:
        counts = counts | {"drawn_again": num_drawn_again(session, round_)}
    if settings.train.learns_from_pairs:
        earlier_pairs = [pair for pair in pairs_before(session, bench.run_id, round_.index) if _stands(people, *pair)]
        counts = counts | {"earlier_pairs": len(earlier_pairs)}
        preferences = earlier_pairs + preferences
    assessments: list[ExampleRow] = []
    if settings.train.learns_assessments:
        final = overruled(scores, reviewed, settings)
        assessments, of_assessments = _assessments(bench, session, round_, samples, selection.accepted, final, people)
        counts = counts | of_assessments
    lacking = _lacking(settings, counts, union=union, preferences=preferences, assessments=assessments)
    if lacking is not None:
        move(bench, session, round_, RoundState.FAILED, error=lacking, **values)
        return False
    pairs = bench.domain.real_pairs(settings.curate.real_rows, real_seed(settings.run.seed, round_.index))
    rows = manifest_rows(union, pairs, settings.curate, preferences, assessments)
    try:
        check_splits(rows, bench.domain.split_of, round_.index)
    except HeldOutError as error:
        move(bench, session, round_, RoundState.FAILED, error=str(error), **values)
        return False
    add_manifest(session, round_.id, manifest_sha256(rows), new_examples(rows), at=bench.clock(), counts=counts)
    add_units(session, round_.id, [NewUnit("train", "train", {})])
    move(bench, session, round_, RoundState.TRAINING, **values)
    return True


def _lacking(
    settings: Settings,
    counts: Mapping[str, int],
    *,
    union: Sequence[object],
    preferences: Sequence[object],
    assessments: Sequence[object],
) -> str | None:
    """What a round lacks of what its objective learns from, and what would bring it; None where nothing is lacking."""
    if not union:
        return (
            "no sample was accepted in this or an earlier round; lower curate.margin or curate.min_score, or raise "
            "samples_per_prompt"
        )
    if settings.train.learns_from_pairs and not preferences:
        return (
            f"no clean pair in this or an earlier round ({counts['ambiguous']} ambiguous, {counts['ties']} ties); "
            "lower curate.pair_margin or raise samples_per_prompt"
        )
    if settings.train.learns_assessments and not assessments:
        return (
            f"no assessment of this or an earlier round can be learned ({counts['not_critiqued']} samples without a "
            f"critique, {counts['contradicted']} whose critique contradicts the score); see `samples show`"
        )
    return None


def plan_gate(bench: Workbench, session: Session, round_: Round) -> None:
    """Plan the gate's first look."""
    plan_look(bench, session, round_, 0)
    move(bench, session, round_, RoundState.GATING)


def plan_look(bench: Workbench, session: Session, round_: Round, look: int) -> None:
    """Plan what is not stored yet of a look's held-out draws by parent and candidate, and of the guards.

    The base is measured by the guards only, unless it is the parent. The candidate's drift as a judge is a guard too.
    """
    candidate = candidate_of(session, round_)
    compared = {round_.parent_version_id, candidate.id}
    units = []
    # Version by version, so that a worker with room for one model loads each of them once.
    for version_id in sorted(compared | {base_version(session, bench.run_id).id}):
        name = version_of(session, version_id).name
        for suite in ("heldout", *bench.plans.guards) if version_id in compared else bench.plans.guards:
            plan = bench.plans.of(suite, round_.index, look)
            if find_evaluation(session, version_id, suite, plan.sha256) is None:
                part = f"{suite}-{look + 1}" if suite == "heldout" else suite
                payload = {"suite": suite, "version_id": version_id, "look": look}
                units.append(NewUnit("evaluate", f"evaluate/{part}/{name}", payload, num_items=plan.count))
    if bench.settings.gate.drift_margin and look == 0 and drift_of_round(session, round_.id) is None:
        payload = {"suite": "drift", "version_id": candidate.id, "look": look}
        num_items = min(DRIFT_SAMPLES, round_.num_samples)
        units.append(NewUnit("evaluate", f"evaluate/drift/{candidate.name}", payload, num_items=num_items))
    add_units(session, round_.id, units)


def decide(bench: Workbench, session: Session, round_: Round) -> None:
    """Promote or reject the candidate, with reasons; where it is not clear yet, plan the next look instead."""
    candidate = candidate_of(session, round_)
    looks = _looks(bench, session, round_)
    # A round that an older release brought to the gate has no look yet.
    judgement = _judgement(bench, session, round_, looks) if looks else None
    if judgement is None:
        plan_look(bench, session, round_, len(looks))
        _note(bench, session, round_, "looked", f"round {round_.index}: not clear after {len(looks)} looks at the gate")
        return
    conclusion = conclude(
        session, bench.run_id, round_, passed=judgement.passed, auto_promote=bench.settings.gate.auto_promote
    )
    reasons = [*judgement.reasons, *conclusion.reasons]
    numbers = judgement.numbers | {"compared_by": bench.plans.compared_by(round_.index)}
    add_decision(
        session, round_.id, decision=conclusion.target.value, reasons=reasons, numbers=numbers, at=bench.clock()
    )
    move(bench, session, round_, conclusion.target)
    settle(session, candidate, conclusion, passed=judgement.passed)
    for reason in conclusion.reasons:
        _note(bench, session, round_, "decided", f"round {round_.index}: {reason}")


def _scores(
    bench: Workbench, session: Session, round_: Round, samples: Sequence[SampleRow]
) -> dict[tuple[int, int], float]:
    """Scores of the configured assessor by natural key; those of the control `shuffled` are the self's, dealt anew."""
    assessor = bench.settings.assess.assessor
    by_id = scores_of_round(session, round_.id, scored_by(assessor))
    scores = {(s.position, s.sample_index): by_id[s.sample_id] for s in samples if s.sample_id in by_id}
    if assessor == "shuffled":
        return shuffled(scores, derived_seed("shuffle", bench.settings.run.seed, round_.index))
    return scores


def _assessments(
    bench: Workbench,
    session: Session,
    round_: Round,
    samples: Sequence[SampleRow],
    accepted: Sequence[SampleRow],
    scores: Mapping[tuple[int, int], float],
    people: Mapping[int, HumanVerdict],
) -> tuple[list[ExampleRow], dict[str, int]]:
    """The rows of assessments of earlier rounds and of this one, and what became of this one's.

    A critique that people contradict is not learned from, as the words of its evidence would be wrong.
    """
    settings = bench.settings
    critiques = critiques_of_round(session, round_.id, scored_by(settings.assess.assessor))
    kept = {
        id_: critique
        for id_, critique in critiques.items()
        if id_ not in people or not contradicted(critique, people[id_].agrees, people[id_].criteria)
    }
    overruled_counts = {"critiques_overruled": len(critiques) - len(kept)} if len(kept) < len(critiques) else {}
    seed = derived_seed("assessments", settings.run.seed, round_.index)
    new, counts = assessment_rows(samples, accepted, scores, kept, settings.curate, seed)
    earlier = [
        row
        for row in assessments_before(session, bench.run_id, round_.index)
        if row.sample is None or _stands(people, row.sample, row.rejected)
    ]
    return earlier + new, counts | overruled_counts | {"earlier_assessments": len(earlier)}


def _found_wrong(people: Mapping[int, HumanVerdict], sample: SampleRow) -> bool:
    return sample.sample_id in people and not people[sample.sample_id].agrees


def _stands(people: Mapping[int, HumanVerdict], better: SampleRow, worse: SampleRow | None) -> bool:
    """Whether nobody has found since that the better image is wrong, or the worse one right."""
    says_right = worse is not None and worse.sample_id in people and people[worse.sample_id].agrees
    return not _found_wrong(people, better) and not says_right


def _judge_auc(
    session: Session, round_: Round, samples: Sequence[SampleRow], scores: dict[tuple[int, int], float]
) -> float | None:
    """How well the assessor's scores tell the samples that the checker passes from the others."""
    passed = verdicts(session, round_.id)
    judged = [s for s in samples if s.sample_id in passed and (s.position, s.sample_index) in scores]
    return auc([scores[s.position, s.sample_index] for s in judged], [passed[s.sample_id] for s in judged])


def _objection_to_judge(bench: Workbench, session: Session, round_: Round, how: Fared) -> str | None:
    """Why nothing can be curated by this judge: it has no scores, or they tell nothing. None where they can be used."""
    assessor = scored_by(bench.settings.assess.assessor)
    if how.num_failed:
        of = how.num_ok + how.num_abstained + how.num_failed
        failed = f"the judge '{assessor}' could not score {how.num_failed} of {of} samples ({how.error})"
        _note(bench, session, round_, "judged", f"round {round_.index}: {failed}")
        if not how.num_ok:
            return failed
    asked = controls(session, round_.id, assessor)
    found = auc([value for pair in asked for value in pair], [True, False] * len(asked))
    if len(asked) < LEAST_CONTROLS or found is None or found >= LEAST_CONTROL_AUC:
        return None
    return (
        f"the judge '{assessor}' says yes to the questions of other prompts as readily as to an image's own "
        f"(AUC {found:.2f} over {len(asked)} images, below {LEAST_CONTROL_AUC}); judge by another reading or assessor"
    )


def _looks(bench: Workbench, session: Session, round_: Round) -> list[tuple[StoredEvaluation, StoredEvaluation]]:
    """The held-out draws of parent and candidate, look by look, as far as both are stored."""
    candidate_id = candidate_of(session, round_).id
    found = []
    for plan in bench.plans.looks(round_.index):
        parent = find_evaluation(session, round_.parent_version_id, "heldout", plan.sha256)
        candidate = find_evaluation(session, candidate_id, "heldout", plan.sha256)
        if parent is None or candidate is None:
            break
        found.append((parent, candidate))
    return found


def _judgement(
    bench: Workbench, session: Session, round_: Round, looks: Sequence[tuple[StoredEvaluation, StoredEvaluation]]
) -> Judgement | None:
    before = [passed for parent, _ in looks for passed in parent.passed]
    after = [passed for _, candidate in looks for passed in candidate.passed]
    found = drift_of_round(session, round_.id)
    drift = JudgeDrift(found.num_samples, found.shift, found.auc, found.num_failed) if found else None
    candidate = _measured(bench, session, candidate_of(session, round_).id, after)
    return judge(
        _measured(bench, session, base_version(session, bench.run_id).id, []),
        _measured(bench, session, round_.parent_version_id, before),
        replace(candidate, drift=drift),
        bench.settings.gate,
        derived_seed("gate", bench.settings.run.seed, round_.index),
    )


def _measured(bench: Workbench, session: Session, version_id: int, heldout: Sequence[bool]) -> Measured:
    found = {}
    for suite, plan in bench.plans.guards.items():
        evaluation = find_evaluation(session, version_id, suite, plan.sha256)
        if evaluation is None:
            name = version_of(session, version_id).name
            raise InconsistentRunError(what=f"the units that evaluate {name} are done, and {suite} was not measured")
        found[suite] = evaluation
    read, edited = (found[suite].passed if suite in found else [] for suite in (UNDERSTANDING, EDITING))
    return Measured(heldout, read, found["diversity"].value, editing=edited)


def _note(bench: Workbench, session: Session, round_: Round, kind: str, message: str) -> None:
    add_event(session, bench.run_id, kind, message, at=bench.clock(), round_id=round_.id)
