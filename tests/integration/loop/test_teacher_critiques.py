"""Assessments that a teacher writes become the loop's dialogues: a real HTTP server, bad replies, budget, restarts."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image
from sqlalchemy import func, select

from illume_db.curation import examples_of
from illume_db.samples import sample_detail
from illume_db.tables import Assessment, Event, Manifest, Sample, TeacherAnswer
from illume_db.teacher import num_teacher_calls
from illume_loop.cli.assessments import fields_of
from illume_loop.data.store import Tokenised
from illume_loop.data.tokenizer import open_tokenizer
from illume_loop.data.tokenizing import TokenizeRequest, tokenize
from illume_loop.errors import PreflightError, SettingsError, TeacherBudgetError, TeacherError
from illume_loop.exports import writing
from illume_loop.judge.instructions import correction, critique
from illume_loop.loop.context import default_toolbox
from illume_loop.loop.run_directory import open_run
from illume_loop.loop.stages.dialogues import finds_fault
from illume_loop.models.shipped import base_path
from illume_loop.protocols import TrainFunction
from illume_loop.settings import Settings
from tests.support.canned_run import small_settings, start, table
from tests.support.stub_teacher import Reply, Status, knows_and_writes, stub_teacher, writes

NUM_SAMPLES = 18
VALUES: dict[str, Any] = {
    "run__rounds": 1,
    "assess__critiques": True,
    "assess__critiques_by": "teacher",
    "curate__assessment_rows": 12,
    "train__objective": "assess-sft",
    "teacher__model": "seer",
}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def _settings(tmp_path: Path, url: str, **values: object) -> Settings:
    return small_settings(tmp_path / "base", teacher__url=url, **VALUES | values)


def _run(tmp_path: Path, reply: Reply, **values: object) -> int:
    """Run it; how many calls the server got."""
    with stub_teacher(reply) as stub:
        start(_settings(tmp_path, stub.url, **values), tmp_path / "run")
    return len(stub.requests)


def _written(run_dir: Path) -> list[Assessment]:
    with open_run(run_dir) as run:
        return list(run.session.scalars(select(Assessment).where(Assessment.assessor == "teacher")))


def _once_bad(number: int, image: Image.Image, asked: str) -> str:
    """JSON that is cut in the middle for every third call."""
    said = writes(number, image, asked)
    return said[: len(said) // 2] if number % 3 == 0 else said


def test_what_the_teacher_wrote_is_stored_with_its_source_and_learned(tmp_path: Path) -> None:
    calls = _run(tmp_path, _once_bad, teacher__parallel=1)
    rows = _written(tmp_path / "run")
    assert len(rows) == NUM_SAMPLES
    num_invalid = sum(row.details.get("invalid_critiques", 0) for row in rows)
    assert num_invalid == calls // 3 > 0
    assert calls == NUM_SAMPLES + num_invalid
    for row in rows:
        assert (row.state, row.details["critique_by"]) == ("ok", "seer")
        assert row.critique is not None
        scores = [told["score"] for name, told in row.critique.items() if name != "analysis"]
        assert row.score == sum(score >= 4 for score in scores) / len(scores)
        assert (row.score != 1.0) == finds_fault(row.critique) == bool(row.failed_criteria)
    (told,) = table(tmp_path / "run")
    assert (told["curation"]["teacher_invalid"], told["curation"]["teacher_unwritten"]) == (num_invalid, 0)
    by_sample = {row.sample_id: row.critique for row in rows}
    with open_run(tmp_path / "run") as run:
        assert num_teacher_calls(run.session, run.run_id) == calls
        examples = examples_of(run.session, run.session.scalars(select(Manifest.id)).one())
        of_model = select(func.count()).where(Assessment.assessor == "self", Assessment.critique.is_not(None))
        assert run.session.scalar(of_model) == 0
        detail = sample_detail(run.session, run.run_id, rows[0].sample_id)
    assert detail is not None
    [shown] = [fields_of(one)["critique"] for one in detail["assessments"] if one["assessor"] == "teacher"]
    assert re.match(r"(yes \(5|no \(2) of 5\): ", shown["object"])
    kinds = Counter(example.kind for example in examples)
    assert kinds["assess"] > 0 < kinds["correct"]
    for example in examples:
        assessed = example.rejected or example.sample
        if example.answer is not None and assessed is not None:
            assert json.loads(example.answer) == by_sample[assessed.sample_id]
            assert list(json.loads(example.answer)["object"]) == ["verdict", "score", "evidence"]


def test_an_assessment_that_cannot_be_read_is_told_and_never_a_value(tmp_path: Path) -> None:
    unreadable = Counter[bool]()

    def counted(number: int, image: Image.Image, asked: str) -> str:
        said = "It looks fine." if "circle" in asked.split("\n")[0] else writes(number, image, asked)
        unreadable[said.startswith("It")] += 1
        return said

    _run(tmp_path, counted, teacher__retries=1)
    failed = [row for row in _written(tmp_path / "run") if row.state == "failed"]
    assert 0 < len(failed) < NUM_SAMPLES
    assert {(row.score, row.critique) for row in failed} == {(None, None)}
    assert {row.error for row in failed} == {"the teacher wrote no valid assessment in 2 replies"}
    (told,) = table(tmp_path / "run")
    counts = told["curation"]
    assert (counts["teacher_invalid"], counts["teacher_unwritten"]) == (unreadable[True], len(failed))
    line = f"round 1: the teacher wrote no valid assessment of {len(failed)} of {NUM_SAMPLES} samples"
    with open_run(tmp_path / "run") as run:
        assert line in run.session.scalars(select(Event.message)).all()


def test_budget_and_restart_ask_nothing_twice(tmp_path: Path) -> None:
    """The budget ends in the middle of a unit, then the endpoint goes away, and nothing that was paid for is lost."""
    answered = Counter[tuple[bytes, str]]()

    def reply(number: int, image: Image.Image, asked: str) -> object:
        if number == 10:
            return Status(500)
        said = writes(number, image, asked)
        answered[image.tobytes(), asked] += 1
        return said

    with stub_teacher(reply) as stub:
        more = {"teacher__parallel": 1, "teacher__retries": 0}
        with pytest.raises(TeacherBudgetError, match="7 calls"):
            start(_settings(tmp_path, stub.url, teacher__max_calls=7, **more), tmp_path / "run")
        assert len(stub.requests) == 7
        with open_run(tmp_path / "run") as run:
            assert run.session.scalar(select(func.count()).where(TeacherAnswer.reply.is_not(None)))
        for _ in range(2):
            settings = _settings(tmp_path, stub.url, **more)
            if len(stub.requests) == 7:
                with pytest.raises(TeacherError):
                    start(settings, tmp_path / "run")
            else:
                start(settings, tmp_path / "run")
        assert len(stub.requests) == NUM_SAMPLES + 1, "one call failed"
    assert set(answered.values()) == {1}
    with open_run(tmp_path / "run") as run:
        assert run.session.scalar(select(func.count()).select_from(TeacherAnswer)) == 0
        assert num_teacher_calls(run.session, run.run_id) == NUM_SAMPLES + 1
    _run(tmp_path / "whole", writes)
    shas = [table(path / "run")[0]["manifest_sha256"] for path in (tmp_path, tmp_path / "whole")]
    assert shas[0] == shas[1]


def test_a_teacher_that_judges_may_write_as_well(tmp_path: Path) -> None:
    calls = _run(tmp_path, knows_and_writes, assess__assessor="teacher")
    rows = _written(tmp_path / "run")
    assert len(rows) == NUM_SAMPLES
    assert calls == sum(len(row.details["questions"]) for row in rows) + len(rows)
    assert all(row.score is not None and row.critique is not None for row in rows)
    assert all((row.score == 1.0) is not finds_fault(row.critique or {}) for row in rows)
    (told,) = table(tmp_path / "run")
    assert told["curation"]["assessed"] > 0
    assert told["curation"]["contradicted"] == 0


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"teacher__model": ""}, r"assess.critiques_by = 'teacher' needs teacher.url"),
        ({"assess__critiques": False}, "needs assess.critiques"),
        ({"assess__assessor": "checker", "curate__pair_margin": 1.5}, "pair_margin cannot exceed 1"),
        ({"assess__assessor": "checker", "assess__critiques_by": "judge"}, r"critiques_by = 'teacher'"),
    ],
)
def test_settings_that_lack_a_writer_are_refused(tmp_path: Path, values: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        _settings(tmp_path, "http://127.0.0.1:1/v1", **values)


def test_a_teacher_that_writes_no_json_is_told_before_the_run(tmp_path: Path) -> None:
    with stub_teacher(lambda *_: "fine") as stub, pytest.raises(PreflightError, match="wrote no valid assessment"):
        start(_settings(tmp_path, stub.url, run__preflight=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_of_two_turns_is_exported_and_tokenised_to_the_same_ids(tmp_path: Path) -> None:
    """Corrections of a shipped base reach pretraining as they were drawn. Nothing is trained, to be quick."""
    values = {"run__base": "shapes-instruct", "runtime__device": "cpu", "curate__pair_margin": 0.01}
    few = {"gate__heldout_prompts": 4, "gate__probe_items": 4}

    def copied(base: Path, *arguments: Any) -> None:
        shutil.copytree(base, arguments[1])

    with stub_teacher(writes) as stub:
        settings = _settings(tmp_path, stub.url, **values, **few)
        start(settings, tmp_path / "run", replace(default_toolbox(), train=cast(TrainFunction, copied)))
    with open_run(tmp_path / "run") as run:
        writing.export(run, writing.ExportRequest("parquet", ("vision-sft",)), tmp_path / "data")
        manifest = run.session.scalars(select(Manifest.id)).one()
        examples = [
            row for row in examples_of(run.session, manifest) if row.sample and row.kind in ("assess", "correct")
        ]
        drawn = {row.id: row.image_ids.tolist() for row in run.session.scalars(select(Sample))}
    backend = open_tokenizer(base_path("shapes-instruct"), "cpu")
    outcome = tokenize(TokenizeRequest([tmp_path / "data"]), backend, "shapes-instruct", tmp_path / "tokens")
    assert not outcome.tally.left_out
    data = Tokenised(tmp_path / "tokens")
    found = [row for row in map(data.__getitem__, range(len(data))) if len(row.turns[0].text) > len("<image>")]
    assert Counter(row.kind for row in examples)["correct"] > 0
    for row, example in zip(found, examples, strict=True):
        assert example.sample is not None
        asked = f"<image> {critique(example.text)}"
        assert [turn.text for turn in row.turns[:2]] == [asked, example.answer]
        if example.kind == "correct":
            assert [turn.text for turn in row.turns[2:]] == [correction(example.text), "<image>"]
            assert row.ids == (drawn[example.sample.sample_id],)
        else:
            assert (len(row.turns), row.ids) == (2, ())
