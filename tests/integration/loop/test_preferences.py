"""A run that learns from pairs, on the canned backend: what its manifests hold, and that it repeats as `sft` does."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from illume_db.curation import examples_of
from illume_db.rounds_table import round_detail
from illume_db.samples import lineage, samples_page
from illume_db.tables import Assessment, Example, Manifest, Prompt
from illume_loop.errors import RoundFailedError
from illume_loop.loop.canonical import manifest_sha256
from illume_loop.loop.run_directory import open_run
from tests.support.canned_run import result, small_settings, start, table
from tests.support.process import read_json
from tests.support.process import run as illume_loop

ROUNDS = 3


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with `dpo`; read only."""
    folder = tmp_path_factory.mktemp("run")
    start(small_settings(folder / "base", run__rounds=ROUNDS, train__objective="dpo"), folder / "run")
    return folder / "run"


def _scores(run: Any) -> dict[int, float]:
    query = select(Assessment.sample_id, Assessment.score).where(Assessment.assessor == "self")
    return dict(map(tuple, run.session.execute(query)))


def test_a_manifest_holds_the_union_of_all_pairs_and_of_all_that_was_accepted(run_dir: Path) -> None:
    accepted = pairs = 0
    with open_run(run_dir) as run:
        scores = _scores(run)
        for manifest, row in zip(
            run.session.scalars(select(Manifest).order_by(Manifest.id)), table(run_dir), strict=True
        ):
            counts = row["curation"]
            of_judge = {"judge_abstained", "judge_failed", "judge_invalid"}
            of_pairs = {"pairs", "over_limit", "ambiguous", "ties", "earlier_pairs"}
            assert counts.keys() == {"near_duplicates"} | of_judge | of_pairs
            assert counts["earlier_pairs"] == pairs
            accepted += row["accepted"]
            pairs += counts["pairs"]
            examples = examples_of(run.session, manifest.id)
            kinds = Counter((example.kind, example.sample is None) for example in examples)
            chosen = {example.sample.sample_id for example in examples if example.rejected and example.sample}
            drawn = {e.sample.sample_id for e in examples if e.kind == "draw" and e.sample}
            assert kinds["pair", False] == pairs > 0
            assert not chosen & drawn
            assert len(chosen | drawn) == kinds["read", False] == accepted
            assert kinds["read", True] == kinds["draw", True] == 3
            assert manifest_sha256(examples) == manifest.sha256 == row["manifest_sha256"]
            for example in examples:
                if example.rejected is not None and example.sample is not None:
                    assert example.sample.prompt.text == example.rejected.prompt.text == example.text
                    assert scores[example.sample.sample_id] - scores[example.rejected.sample_id] >= 1.0


def test_no_other_split_is_on_any_side(run_dir: Path) -> None:
    with open_run(run_dir) as run:
        splits = run.session.scalars(select(Prompt.split).join(Example, Example.prompt_id == Prompt.id))
        assert set(splits) == {"train"}


def test_rounds_show_tells_the_counts(run_dir: Path) -> None:
    with open_run(run_dir) as run:
        detail = round_detail(run.session, run.run_id, 1)
    assert detail is not None
    show = ("rounds", "show", 1, "--run-dir", run_dir)
    assert read_json(*show, cwd=run_dir)["curation"] == detail["curation"]
    shown = illume_loop(*show, cwd=run_dir)
    for name, number in detail["curation"].items():
        assert any(line.split() == [name, str(number)] for line in shown.out.splitlines()), name


def test_a_rejected_sample_knows_where_it_went_and_was_not_accepted(run_dir: Path) -> None:
    with open_run(run_dir) as run:
        pair = run.session.scalars(select(Example).where(Example.kind == "pair")).first()
        assert pair is not None
        assert pair.sample_id is not None
        assert pair.rejected_id is not None
        chosen, rejected = (lineage(run.session, run.run_id, id_) for id_ in (pair.sample_id, pair.rejected_id))
        accepted = {row["id"] for row in samples_page(run.session, run.run_id, accepted=True, limit=1000)}
    assert chosen is not None
    assert rejected is not None
    assert chosen["to"][0]["kinds"] == ["pair", "read"]
    assert rejected["to"][0]["kinds"] == ["rejected"]
    assert pair.sample_id in accepted
    assert pair.rejected_id not in accepted


def test_the_same_seed_gives_the_same_run_whatever_the_batches(tmp_path: Path, run_dir: Path) -> None:
    settings = small_settings(tmp_path / "base", run__rounds=ROUNDS, train__objective="dpo")
    start(settings, tmp_path / "same")
    assert result(tmp_path / "same") == result(run_dir)
    batches = {"sampling__batch_size": 100, "assess__batch_size": 2}
    start(small_settings(tmp_path / "base", run__rounds=1, train__objective="dpo", **batches), tmp_path / "batches")
    assert table(tmp_path / "batches")[0]["manifest_sha256"] == table(run_dir)[0]["manifest_sha256"]


def test_the_same_run_on_postgres(tmp_path: Path, run_dir: Path, postgres_url: str) -> None:
    settings = small_settings(
        tmp_path / "base", run__rounds=ROUNDS, train__objective="dpo", store__database_url=postgres_url
    )
    start(settings, tmp_path / "run")
    assert result(tmp_path / "run", database_url=postgres_url) == result(run_dir)


def test_dpo_and_kto_learn_from_the_same_manifest_and_sft_from_another(tmp_path: Path, run_dir: Path) -> None:
    for objective in ("kto", "sft"):
        settings = small_settings(tmp_path / "base", run__rounds=1, train__objective=objective)
        start(settings, tmp_path / objective)
    sha256 = {name: table(tmp_path / name)[0]["manifest_sha256"] for name in ("kto", "sft")}
    assert sha256["kto"] == table(run_dir)[0]["manifest_sha256"] != sha256["sft"]
    assert table(tmp_path / "sft")[0]["curation"] == {
        "near_duplicates": 0,
        "judge_abstained": 0,
        "judge_failed": 0,
        "judge_invalid": 0,
    }


def test_the_checker_pairs_right_with_wrong(tmp_path: Path) -> None:
    values = {"assess__assessor": "checker", "curate__drop_lowest": 0.0, "train__objective": "dpo"}
    start(small_settings(tmp_path / "base", **values), tmp_path / "run")
    with open_run(tmp_path / "run") as run:
        passed = {
            sample_id: score == 1.0
            for sample_id, score in run.session.execute(select(Assessment.sample_id, Assessment.score))
        }
        pairs = list(run.session.scalars(select(Example).where(Example.kind == "pair")))
    assert pairs
    for pair in pairs:
        assert (passed[pair.sample_id or 0], passed[pair.rejected_id or 0]) == (True, False)


def test_a_round_without_a_clean_pair_fails_and_says_what_there_was(tmp_path: Path) -> None:
    settings = small_settings(tmp_path / "base", run__rounds=1, train__objective="dpo", curate__pair_margin=99.0)
    with pytest.raises(RoundFailedError, match=r"no clean pair .*\(\d+ ambiguous, 0 ties\); lower curate.pair_margin"):
        start(settings, tmp_path / "run")
    (row,) = table(tmp_path / "run")
    assert row["state"] == "failed"
    assert row["accepted"] > 0
    assert row["curation"] is None


def test_near_duplicates_are_dropped_and_counted(tmp_path: Path, run_dir: Path) -> None:
    """Canned images of one composition share the first of eight ids, and hardly any other."""
    settings = small_settings(
        tmp_path / "base", run__rounds=1, train__objective="dpo", curate__duplicate_share=0.1, curate__drop_lowest=0.0
    )
    start(settings, tmp_path / "run")
    (row,) = table(tmp_path / "run")
    assert row["curation"]["near_duplicates"] > 0
    with open_run(tmp_path / "run") as run:
        accepted = samples_page(run.session, run.run_id, accepted=True, limit=1000)
    assert len(accepted) == row["accepted"] <= 12 - row["curation"]["near_duplicates"]
