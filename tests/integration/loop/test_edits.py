"""A run with edits, on the canned backend: what it draws, learns and measures, and where each edit came from."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from illume_db.curation import examples_of
from illume_db.judging import next_prompts
from illume_db.samples import lineage, sample_detail
from illume_db.sessions import transaction
from illume_db.tables import Assessment, Evaluation, EvaluationItem, Example, Prompt, Sample
from illume_loop.cli.rounds_table import print_rounds
from illume_loop.domains import get_domain
from illume_loop.errors import SettingsError
from illume_loop.loop.canonical import manifest_sha256
from illume_loop.loop.prompts import prompt_of
from illume_loop.loop.run_directory import open_run
from illume_loop.loop.stages.train import training_rows
from illume_loop.protocols import DrawRow, EditRow, ReadRow
from tests.support.canned_run import result, small_settings, start, table

DOMAIN = get_domain("shapes")
VALUES: dict[str, Any] = {
    "run__rounds": 2,
    "sampling__prompts_per_round": 12,
    "sampling__edit_share": 0.5,
    "assess__reading": "yes-no-minimum",
}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; read only."""
    folder = tmp_path_factory.mktemp("run")
    start(small_settings(folder / "base", **VALUES), folder / "run")
    return folder / "run"


def test_half_of_a_rounds_prompts_are_edits_and_are_judged_by_their_targets(run_dir: Path) -> None:
    with open_run(run_dir) as run:
        found = run.session.execute(
            select(Prompt, Sample, Assessment)
            .join(Sample, Sample.prompt_id == Prompt.id)
            .join(Assessment, Assessment.sample_id == Sample.id)
            .where(Prompt.instruction.is_not(None))
        ).all()
        assert len(found) == 2 * 6 * 3 * 2
        for stored, sample, assessment in found:
            prompt, image = prompt_of(stored), run.images.read(sample.image_sha256)
            assert run.images.read(stored.source_sha256) == DOMAIN.source(prompt)
            if assessment.assessor == "checker":
                assert assessment.score == DOMAIN.check(image, prompt).passed
            else:
                questions = [row["question"] for row in assessment.details["questions"]]
                assert questions == [question.text for question in DOMAIN.questions(prompt.claim)]
                assert (assessment.score > 0) == DOMAIN.check(image, prompt.claim).passed
        right = [assessment.score for _, _, assessment in found if assessment.assessor == "checker"]
        assert 0.2 < sum(right) / len(right) < 0.8


def test_accepted_edits_are_rows_of_their_own_that_train(run_dir: Path) -> None:
    with open_run(run_dir) as run:
        for row in table(run_dir):
            examples = examples_of(run.session, row["index"])
            kinds = Counter(example.kind for example in examples)
            assert kinds["edit"] > 3
            assert kinds["draw"] > 3
            assert manifest_sha256(examples) == row["manifest_sha256"]
        edits = [example for example in examples if example.kind == "edit"]
        captions = [example for example in examples if example.kind == "read" and example.sample is not None]
        rows = training_rows([*edits, *captions], [], lambda _: pytest.fail("no real image"), run.images.read)
        for example, trained in zip([*edits, *captions], rows, strict=True):
            assert example.sample is not None
            if isinstance(trained, EditRow):
                prompt = run.session.get_one(Prompt, example.sample.prompt.id)
                assert (trained.instruction, trained.image) == (prompt.instruction, DOMAIN.source(prompt_of(prompt)))
                assert trained.image_ids.tolist() == example.sample.image_ids.tolist()
            else:
                assert isinstance(trained, ReadRow)
                assert ": " not in trained.caption
    assert not any(isinstance(trained, DrawRow) for trained in rows)


def test_the_gate_measures_held_out_edits_of_parent_and_candidate(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = table(run_dir)
    for row in rows:
        assert row["editing"].keys() == {"parent", "candidate", "delta"}
        assert row["editing"]["parent"]["n"] == 12
    assert rows[0]["editing"]["candidate"] == rows[1]["editing"]["parent"]
    with open_run(run_dir) as run:
        items = run.session.execute(
            select(Prompt.split, Prompt.instruction)
            .select_from(Evaluation)
            .join(EvaluationItem, EvaluationItem.evaluation_id == Evaluation.id)
            .join(Prompt, Prompt.id == EvaluationItem.prompt_id)
            .where(Evaluation.suite == "editing")
        ).all()
    assert len(items) == 3 * 12
    assert all(split == "heldout" and instruction for split, instruction in items)
    print_rounds(rows)
    assert "editing" in capsys.readouterr().out
    assert "editing, %" in (run_dir / "index.html").read_text()


def test_an_edited_sample_is_traced_to_its_source(run_dir: Path) -> None:
    with open_run(run_dir) as run:
        learned = run.session.scalars(select(Example.sample_id).where(Example.kind == "edit")).first()
        assert learned is not None
        traced = lineage(run.session, run.run_id, learned)
        drawn = run.session.scalars(select(Example.sample_id).where(Example.kind == "draw")).first()
        assert drawn is not None
        plain = sample_detail(run.session, run.run_id, drawn)
        assert traced is not None
        assert plain is not None
        edit = traced["from"]["edit"]
        assert traced["from"]["prompt"].startswith(f"{edit['instruction']}: ")
        assert run.images.read(edit["source_sha256"])
    assert traced["to"][0]["kinds"] == ["edit", "read"]
    assert plain["edit"] is None


def test_the_same_run_on_postgres_and_with_other_batches(tmp_path: Path, run_dir: Path, postgres_url: str) -> None:
    other = {"store__database_url": postgres_url, "sampling__batch_size": 100, "assess__batch_size": 2}
    start(small_settings(tmp_path / "base", **VALUES, **other), tmp_path / "run")
    manifests = [
        [row["manifest_sha256"] for row in result(path, **store)["rounds"]]
        for path, store in ((run_dir, {}), (tmp_path / "run", {"database_url": postgres_url}))
    ]
    assert manifests[0] == manifests[1]


def test_the_database_takes_edits_for_edits_only(run_dir: Path, tmp_path: Path) -> None:
    start(small_settings(tmp_path / "base", **VALUES | {"run__rounds": 1}), tmp_path / "run")
    changes = (
        "UPDATE prompts SET instruction = 'make it blue' WHERE instruction IS NOT NULL",
        "UPDATE prompts SET target = NULL WHERE instruction IS NOT NULL",
        "INSERT INTO examples SELECT manifest_id, position + 1000, 'draw', text, split, sample_id, prompt_id, "
        "ids_sha256, real_index, rejected_id, rejected_sha256, answer FROM examples WHERE kind = 'edit'",
        "INSERT INTO examples SELECT manifest_id, position + 1000, 'edit', text, split, sample_id, prompt_id, "
        "ids_sha256, real_index, rejected_id, rejected_sha256, answer FROM examples "
        "WHERE kind = 'draw' AND sample_id IS NOT NULL",
    )
    with open_run(tmp_path / "run", writing=True) as run:
        engine = run.session.get_bind().engine
    for change in changes:
        with pytest.raises(DBAPIError, match="edit"), transaction(engine) as session:
            session.execute(text(change))


@pytest.mark.parametrize("objective", ["dpo", "kto"])
def test_preferences_between_edits_are_refused(tmp_path: Path, objective: str) -> None:
    with pytest.raises(SettingsError, match="learns from no edits; set"):
        small_settings(tmp_path / "base", **VALUES, train__objective=objective)


def test_replayed_edits_are_edits_again(tmp_path: Path) -> None:
    values = VALUES | {"sampling__replay_share": 1.0, "sampling__minimal_pairs": 1.0, "curate__drop_lowest": 0.6}
    start(small_settings(tmp_path / "base", **values), tmp_path / "run")
    with open_run(tmp_path / "run") as run:
        neighbours = next_prompts(run.session, 2, range(12))
    edits = [prompt for prompt in neighbours.values() if prompt.source_sha256]
    assert len(edits) == 6
    assert all(prompt.instruction and prompt.target for prompt in edits)
