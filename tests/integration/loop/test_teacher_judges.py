"""A run that a teacher judges: a real HTTP server, the run's budget, silence and babble."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import func, select

from illume_db.samples import sample_detail, samples_page
from illume_db.tables import Assessment, TeacherAnswer
from illume_db.teacher import num_teacher_calls
from illume_loop.cli.assessments import fields_of
from illume_loop.errors import TeacherBudgetError, TeacherError, TeacherRefusedError, TeacherUnclearError
from illume_loop.loop.run_directory import open_run
from illume_loop.settings import Settings
from tests.support.canned_run import small_settings, start, table
from tests.support.stub_teacher import Reply, Status, knows, stub_teacher


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def _settings(tmp_path: Path, url: str, **values: object) -> Settings:
    asked = {"teacher__url": url, "teacher__model": "seer", "teacher__retries": 0, "run__rounds": 1}
    return small_settings(tmp_path / "base", assess__assessor="teacher", **asked | values)


def _run(tmp_path: Path, reply: Reply, **values: object) -> int:
    """Run it; how many calls the server got."""
    with stub_teacher(reply) as stub:
        start(_settings(tmp_path, stub.url, **values), tmp_path / "run")
    return len(stub.requests)


def _spent(run_dir: Path) -> int:
    with open_run(run_dir) as run:
        return num_teacher_calls(run.session, run.run_id)


def _assessments(run_dir: Path) -> list[Any]:
    with open_run(run_dir) as run:
        query = select(Assessment.state, Assessment.score, Assessment.error).where(Assessment.assessor == "teacher")
        return list(run.session.execute(query))


def test_a_teacher_that_knows_judges_as_the_checker_does(tmp_path: Path) -> None:
    calls = _run(tmp_path, knows)
    (row,) = table(tmp_path / "run")
    assert row["judge_auc"] == 1.0
    assert _spent(tmp_path / "run") == calls
    with open_run(tmp_path / "run") as run:
        samples = samples_page(run.session, run.run_id, limit=100)
        assert all((sample["score"] == 1.0) == sample["passed"] for sample in samples)
        assert {sample["passed"] for sample in samples if sample["accepted"]} == {True}
        detail = sample_detail(run.session, run.run_id, next(s["id"] for s in samples if not s["passed"]))
        count = run.session.scalar(select(func.count()).where(Assessment.assessor == "self"))
    assert count == 0, "the model itself is not asked"
    assert detail is not None
    [by_teacher] = [told for told in detail["assessments"] if told["assessor"] == "teacher"]
    assert by_teacher["failed"]
    shown = fields_of(by_teacher)["questions"]
    assert any(answer.startswith("no (") for answer in shown.values())


def test_the_budget_is_the_runs_and_not_the_commands(tmp_path: Path) -> None:
    """The second start may not spend it again, and a raised budget goes on where the run stopped."""
    with stub_teacher(knows) as stub:
        for _ in range(2):
            with pytest.raises(TeacherBudgetError, match="40 calls"):
                start(_settings(tmp_path, stub.url, teacher__max_calls=40), tmp_path / "run")
            assert len(stub.requests) == 40
        start(_settings(tmp_path, stub.url, teacher__max_calls=10_000), tmp_path / "run")
        assert _spent(tmp_path / "run") == len(stub.requests)
    assert table(tmp_path / "run")[0]["decision"] is not None


@pytest.mark.parametrize(("status", "error"), [(500, TeacherError), (401, TeacherRefusedError)])
def test_a_teacher_that_is_away_stops_the_run_and_the_same_command_continues(
    tmp_path: Path, status: int, error: type[Exception]
) -> None:
    def reply(number: int, image: Image.Image, question: str) -> object:
        return Status(status) if number > 30 else knows(number, image, question)

    with pytest.raises(error):
        _run(tmp_path, reply)
    assert table(tmp_path / "run")[0]["state"] in ("sampling", "assessing"), "nothing was counted against the unit"
    _run(tmp_path, knows)
    _run(tmp_path / "whole", knows)
    rows = table(tmp_path / "run"), table(tmp_path / "whole" / "run")
    assert rows[0][0]["manifest_sha256"] == rows[1][0]["manifest_sha256"]


def test_no_question_that_was_answered_is_asked_again(tmp_path: Path) -> None:
    """The endpoint fails in the middle of a unit, which is done again from its beginning."""
    answered = Counter[tuple[bytes, str]]()

    def reply(number: int, image: Image.Image, question: str) -> object:
        if number in (7, 30):
            return Status(500)
        answered[image.tobytes(), question] += 1
        return "well" if "anything" in question else knows(number, image, question)

    with stub_teacher(reply) as stub:
        settings = _settings(tmp_path, stub.url, teacher__parallel=1)
        for _ in range(2):
            with pytest.raises(TeacherError):
                start(settings, tmp_path / "run")
        with open_run(tmp_path / "run") as run:
            assert run.session.scalar(select(func.count()).select_from(TeacherAnswer)), "paid for, and kept"
        start(settings, tmp_path / "run")
        assert _spent(tmp_path / "run") == len(stub.requests)
    assert set(answered.values()) == {1}
    with open_run(tmp_path / "run") as run:
        assert run.session.scalar(select(func.count()).select_from(TeacherAnswer)) == 0


def test_babble_on_a_third_of_the_calls_is_contained_and_told(tmp_path: Path) -> None:
    calls = Counter[str]()

    def reply(_: int, image: Image.Image, question: str) -> str:
        calls[question] += 1
        return "well" if "anything" in question else knows(0, image, question)

    _run(tmp_path, reply, sampling__prompts_per_round=12)
    states = Counter(state for state, *_ in _assessments(tmp_path / "run"))
    assert states["failed"] > 0
    assert states["ok"] > 0
    for state, score, error in _assessments(tmp_path / "run"):
        assert (state == "failed") == (score is None)
        assert state == "ok" or "neither yes nor no" in error
    (row,) = table(tmp_path / "run")
    assert row["decision"] is not None


def test_a_teacher_that_only_babbles_stops_the_run_until_it_answers(tmp_path: Path) -> None:
    with pytest.raises(TeacherUnclearError, match=r"the last time it said: well, well"):
        _run(tmp_path, lambda *_: "well, well")
    assert _run(tmp_path, knows) > 0, "what was unclear is asked again"
