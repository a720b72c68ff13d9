"""What the database itself refuses, on both databases, whatever the program does."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, delete, insert, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from illume_db.manifests import NewExample, add_manifest
from illume_db.prompts import PromptRow, ensure_prompts
from illume_db.rounds import add_decision, add_round, move_round
from illume_db.runs import add_run
from illume_db.samples import NewAssessment, NewSample, add_assessments, add_samples
from illume_db.sessions import transaction
from illume_db.tables import Assessment, Example, Manifest, ModelVersion, Prompt, Round, RoundPrompt, Sample, Unit
from illume_db.versions import add_version, promote_version

NOW = datetime(2026, 1, 1, tzinfo=UTC)
IDS = np.array([1, 2], dtype=np.int32)
RUN, BASE, ROUND = 1, 1, 1
TRAIN, OTHER, HELDOUT, PROBE = 1, 2, 3, 4


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    """A run with a base, four prompts, a round that draws the first two, one sample of the first."""
    with transaction(engine) as session:
        add_run(session, key="k", name="n", seed=0, settings={}, at=NOW)
        _add_version(session, "active")
        splits = ("train", "train", "heldout", "probe")
        ensure_prompts(
            session, RUN, [PromptRow(split, f"key {i}", "c", f"t {i}", {}) for i, split in enumerate(splits)]
        )
        add_round(session, RUN, 1, parent_version_id=BASE, prompt_ids=[TRAIN, OTHER], at=NOW)
        add_samples(session, ROUND, BASE, [_sample(TRAIN, 0)], at=NOW)
        yield session


def _add_version(session: Session, state: str) -> ModelVersion:
    return add_version(session, RUN, parent_id=None, state=state, sha256="0" * 64, num_bytes=1, origin="o", at=NOW)


def _sample(prompt_id: int, index: int) -> NewSample:
    return NewSample(prompt_id, index, 7, IDS, "0" * 64)


def _refuses(session: Session, statement: Any, match: str) -> None:
    with pytest.raises(DBAPIError, match=match), session.begin_nested():
        session.execute(statement)


@pytest.mark.parametrize("state", ["promoted", "rejected", "failed", "cancelled"])
def test_terminal_states_are_final(session: Session, state: str) -> None:
    assert move_round(session, ROUND, "planned", state, error="why")
    for target in ("planned", "gating", "promoted", "rejected", "failed", "cancelled"):
        if target != state:
            _refuses(session, text(f"UPDATE rounds SET state = '{target}' WHERE id = 1"), "terminal_state_is_final")
    session.execute(update(Round).values(num_accepted=3))


def test_a_round_moves_only_from_where_it_is(session: Session) -> None:
    assert not move_round(session, ROUND, "gating", "promoted")
    assert move_round(session, ROUND, "planned", "sampling")
    assert not move_round(session, ROUND, "planned", "sampling")


@pytest.mark.parametrize("values", [{"state": "asleep"}, {"state": "failed"}])
def test_rounds_have_known_states_and_failures_have_reasons(session: Session, values: dict[str, str]) -> None:
    _refuses(session, update(Round).values(**values), "state_known|failed_says_why")


def test_a_round_names_the_version_that_draws(session: Session) -> None:
    _refuses(session, text("UPDATE rounds SET drawing_version_id = NULL"), "rounds_keep_their_drawing_version")
    row = {"run_id": RUN, "index": 2, "state": "planned", "parent_version_id": BASE, "created_at": NOW}
    _refuses(session, insert(Round).values(**row), "rounds_name_their_drawing_version")
    _refuses(session, insert(Round).values(**row, drawing_version_id=99), r"(?i)foreign key")


@pytest.mark.parametrize(("prompt_id", "split"), [(HELDOUT, "heldout"), (PROBE, "probe")])
def test_other_splits_never_get_into_a_round_or_a_manifest(session: Session, prompt_id: int, split: str) -> None:
    """Neither under their own split nor under a lie; and a prompt cannot change its split afterwards."""
    for claimed in (split, "train"):
        row = {"round_id": ROUND, "position": 9, "prompt_id": prompt_id, "split": claimed}
        _refuses(session, insert(RoundPrompt).values(**row), r"(?i)only_train|foreign key")
        manifest = add_manifest(session, _another_round(session), "0" * 64, [], at=NOW)
        row = {"manifest_id": manifest.id, "position": 0, "kind": "draw", "text": "t 0", "split": claimed}
        row |= {"sample_id": 1, "prompt_id": prompt_id, "ids_sha256": "0" * 64}
        _refuses(session, insert(Example).values(**row), r"(?i)only_train|foreign key|worded_as_their_prompt")
    _refuses(session, update(Prompt).where(Prompt.id == TRAIN).values(split=split), "prompts_stay_what_they_are")


@pytest.mark.parametrize("held_out", ["t 2", "t 3"])
def test_texts_of_other_splits_never_get_into_a_manifest(session: Session, held_out: str) -> None:
    """Neither in the place of the words of a train prompt, nor as the caption of a replayed pair."""
    rows = [(NewExample("read", held_out, real_index=0), "examples_have_no_text_held_out")]
    rows += [
        (NewExample("draw", text, 1, TRAIN, "0" * 64), "worded_as_their_prompt|no_text_held_out")
        for text in (held_out, "t 1", "T 0", "")
    ]
    for example, reason in rows:
        with pytest.raises(IntegrityError, match=reason), session.begin_nested():
            add_manifest(session, ROUND, "0" * 64, [example], at=NOW)
    add_manifest(session, ROUND, "0" * 64, [NewExample("read", "t 1", real_index=0)], at=NOW)


@pytest.mark.parametrize("split", ["heldout", "probe"])
def test_nothing_is_held_out_that_was_learned_or_is_a_wording_of_a_train_prompt(session: Session, split: str) -> None:
    add_manifest(session, ROUND, "0" * 64, [NewExample("read", "a caption", real_index=0)], at=NOW)
    for key, words, reason in (
        ("key 9", "a caption", "prompts_held_out_were_not_learned"),
        ("key 0", "another wording", "prompts_of_one_key_have_one_split"),
    ):
        with pytest.raises(IntegrityError, match=reason), session.begin_nested():
            ensure_prompts(session, RUN, [PromptRow(split, key, "c", words, {})])
    for values in ({"text": "t 9"}, {"key": "key 9"}):
        _refuses(session, update(Prompt).where(Prompt.id == HELDOUT).values(**values), "prompts_stay_what_they_are")
    ensure_prompts(session, RUN, [PromptRow("train", "key 0", "c", "another wording", {})])
    another = add_run(session, key="other", name="n", seed=0, settings={}, at=NOW).id
    assert ensure_prompts(session, another, [PromptRow(split, "key 0", "c", "a caption", {})]), "runs are by themselves"


def test_an_assessment_has_its_answer_and_a_correction_two_images(session: Session) -> None:
    add_samples(session, ROUND, BASE, [_sample(TRAIN, 1)], at=NOW)
    one = NewExample("assess", "t 0", 1, TRAIN, "0" * 64, answer="{}")
    two = replace(one, kind="correct", rejected_id=2, rejected_sha256="0" * 64)
    refused = [
        (replace(one, answer=None), "assessments_answer"),
        (replace(one, kind="draw"), "assessments_answer"),
        (replace(two, answer=None), "assessments_answer"),
        (replace(two, kind="pair"), "assessments_answer"),
        (replace(two, rejected_id=None, rejected_sha256=None), "pair_has_two"),
        (replace(two, kind="assess"), "pair_has_two"),
        (NewExample("assess", "t 0", real_index=0, answer="{}"), "assessments_answer"),
    ]
    for example, reason in refused:
        with pytest.raises(IntegrityError, match=reason), session.begin_nested():
            add_manifest(session, ROUND, "0" * 64, [example], at=NOW)
    add_manifest(session, ROUND, "0" * 64, [one, two], at=NOW)
    assert [row.answer for row in session.query(Example)] == ["{}", "{}"]


def test_an_example_is_of_its_samples_prompt(session: Session) -> None:
    example = NewExample("draw", "t 1", 1, OTHER, "0" * 64)
    with pytest.raises(IntegrityError, match=r"(?i)foreign key"), session.begin_nested():
        add_manifest(session, ROUND, "0" * 64, [example], at=NOW)


@pytest.mark.parametrize(
    "example",
    [NewExample("draw", "t"), NewExample("draw", "t 0", 1, TRAIN, "0" * 64, 5), NewExample("draw", "t 0", 1, TRAIN)],
)
def test_an_example_is_a_sample_or_real(session: Session, example: NewExample) -> None:
    with pytest.raises(IntegrityError, match="sample_or_real"), session.begin_nested():
        add_manifest(session, ROUND, "0" * 64, [example], at=NOW)


@pytest.mark.parametrize(("prompt_id", "split"), [(HELDOUT, "heldout"), (PROBE, "probe")])
def test_other_splits_are_on_no_side_of_a_pair(session: Session, prompt_id: int, split: str) -> None:
    """Not even where samples of such a prompt had got into the database past every check, by hand."""
    add_samples(session, ROUND, BASE, [_sample(TRAIN, 1)], at=NOW)
    manifest = add_manifest(session, ROUND, "0" * 64, [], at=NOW)
    row = {"manifest_id": manifest.id, "position": 0, "kind": "pair", "text": "t 0", "sample_id": 1, "rejected_id": 2}
    row |= {"ids_sha256": "0" * 64, "rejected_sha256": "0" * 64, "prompt_id": prompt_id}
    for claimed in (split, "train"):
        _refuses(session, insert(Example).values(**row, split=claimed), r"(?i)only_train|foreign key|worded_as")


def test_a_pair_is_of_two_samples_of_one_train_prompt(session: Session) -> None:
    add_samples(session, ROUND, BASE, [_sample(TRAIN, 1), _sample(OTHER, 0)], at=NOW)
    pair = NewExample("pair", "t 0", 1, TRAIN, "0" * 64, rejected_id=2, rejected_sha256="0" * 64)
    refused = [
        (replace(pair, rejected_id=3), r"(?i)foreign key"),
        (replace(pair, rejected_id=99), r"(?i)foreign key"),
        (replace(pair, prompt_id=OTHER, text="t 1"), r"(?i)foreign key"),
        (replace(pair, rejected_id=1), "pair_of_different"),
        (replace(pair, rejected_id=None), "pair_has_two"),
        (replace(pair, rejected_sha256=None), "pair_has_two"),
        (replace(pair, rejected_id=None, rejected_sha256=None), "pair_has_two"),
        (replace(pair, kind="draw"), "pair_has_two"),
        (replace(pair, kind="three"), "kind_known"),
        (replace(pair, sample_id=None, prompt_id=None, ids_sha256=None, real_index=0), "pair_has_two"),
    ]
    for example, reason in refused:
        with pytest.raises(IntegrityError, match=reason), session.begin_nested():
            add_manifest(session, ROUND, "0" * 64, [example], at=NOW)
    add_manifest(session, ROUND, "0" * 64, [pair], at=NOW, counts={"pairs": 1})
    assert session.query(Manifest).one().counts == {"pairs": 1}
    _refuses(session, update(Example).values(rejected_id=3), "examples_are_immutable")


def test_a_manifest_never_changes(session: Session) -> None:
    add_manifest(session, ROUND, "0" * 64, [NewExample("read", "t", real_index=0)], at=NOW)
    _refuses(session, update(Manifest).values(sha256="1" * 64), "manifests_are_immutable")
    _refuses(session, update(Example).values(text="other"), "examples_are_immutable")
    _refuses(session, delete(Example), "examples_are_kept")


def test_a_decision_never_changes(session: Session) -> None:
    add_decision(session, ROUND, decision="rejected", reasons=["r"], numbers={}, at=NOW)
    _refuses(session, text("UPDATE gate_decisions SET decision = 'promoted'"), "gate_decisions_are_immutable")


def test_a_sample_has_one_natural_key(session: Session) -> None:
    with pytest.raises(IntegrityError, match=r"(?i)unique"), session.begin_nested():
        add_samples(session, ROUND, BASE, [_sample(TRAIN, 0)], at=NOW)
    add_samples(session, ROUND, BASE, [_sample(TRAIN, 1), _sample(OTHER, 0)], at=NOW)
    assert session.get_one(Round, ROUND).num_samples == 3
    assert session.get_one(Sample, 1).image_ids.tolist() == IDS.tolist()


@pytest.mark.parametrize(("assessor", "version_id"), [("self", BASE), ("checker", None)])
def test_an_assessor_speaks_once(session: Session, assessor: str, version_id: int | None) -> None:
    assessment = NewAssessment(1, assessor, "ok", 0.5, version_id)
    add_assessments(session, [assessment])
    with pytest.raises(IntegrityError, match=r"(?i)unique"), session.begin_nested():
        add_assessments(session, [assessment])


@pytest.mark.parametrize(("state", "score"), [("failed", 0.0), ("abstained", 0.0), ("ok", None)])
def test_only_what_was_assessed_has_a_score(session: Session, state: str, score: float | None) -> None:
    with pytest.raises(IntegrityError, match="only_ok_is_scored"), session.begin_nested():
        add_assessments(session, [NewAssessment(1, "self", state, score, BASE)])
    add_assessments(session, [NewAssessment(1, "self", "failed", None, BASE, error="why")])
    assert session.query(Assessment).one().score is None


def test_one_version_is_active(session: Session) -> None:
    with pytest.raises(IntegrityError, match=r"(?i)unique"), session.begin_nested():
        _add_version(session, "active")
    second = _add_version(session, "candidate")
    assert (second.number, second.name) == (2, "v0002")
    promote_version(session, RUN, second.id)
    states = session.query(ModelVersion.number, ModelVersion.state).order_by(ModelVersion.number).all()
    assert [tuple(row) for row in states] == [(1, "retired"), (2, "active")]


def test_a_text_belongs_to_one_split(session: Session) -> None:
    assert ensure_prompts(session, RUN, [PromptRow("train", "key 0", "c", "t 0", {})] * 2) == [TRAIN, TRAIN]
    with pytest.raises(IntegrityError, match=r"(?i)unique"), session.begin_nested():
        ensure_prompts(session, RUN, [PromptRow("heldout", "key 9", "c", "t 0", {})])


@pytest.mark.parametrize("values", [{"state": "leased"}, {"state": "dead"}, {"kind": "dream"}])
def test_units_say_who_holds_them_and_why_they_died(session: Session, values: dict[str, str]) -> None:
    row = {"round_id": ROUND, "kind": "train", "key": "train", "payload": {}} | values
    _refuses(session, insert(Unit).values(**row), "leased_has_owner|dead_says_why|kind_known")


def _another_round(session: Session) -> int:
    index = session.query(Round).count() + 1
    return add_round(session, RUN, index, parent_version_id=BASE, prompt_ids=[TRAIN], at=NOW).id


def test_prompts_may_be_added_by_several_at_once(engine: Engine) -> None:
    """Units that measure two versions add the same held-out prompts; the second waits for the first and takes them."""
    with transaction(engine) as session:
        add_run(session, key="k", name="n", seed=0, settings={}, at=NOW)
    prompts = [PromptRow("heldout", f"key {i}", "c", f"t {i}", {}) for i in range(50)]

    def add(_: int) -> list[int]:
        with transaction(engine) as session:
            return ensure_prompts(session, RUN, prompts)

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(add, range(8))
    assert len(set(first)) == 50
    assert all(ids == first for ids in others)
