"""Rounds that overlap: what is drawn with which version, how stale it is, and that it is the same every time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import select

from illume_db.rounds import round_at
from illume_db.sessions import transaction
from illume_db.tables import Assessment, ModelVersion, Round, Sample
from illume_db.units import ready_units
from illume_loop.loop.context import RunContext
from illume_loop.loop.coordinator import Coordinator
from illume_loop.loop.executor import lease_and_do_unit
from illume_loop.loop.opening import check_start, open_context
from illume_loop.loop.reconcile import Issue
from illume_loop.loop.run_directory import locked, open_run
from tests.support.canned_model import canned_toolbox
from tests.support.canned_run import Heard, result, small_settings, start, table

TOOLS = canned_toolbox()
OVERLAP = {"run__rounds": 3, "loop__overlap_rounds": 1}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three overlapping rounds; read only."""
    folder = tmp_path_factory.mktemp("overlap")
    start(small_settings(folder / "base", **OVERLAP), folder / "run")
    return folder / "run"


def test_a_round_is_drawn_by_the_version_before_and_gated_against_the_newest(run_dir: Path) -> None:
    rows = table(run_dir)
    assert [row["state"] for row in rows] == ["promoted"] * 3
    found = [(row["staleness"], row["drawn_by"], row["parent"], row["candidate"]) for row in rows]
    assert found == [
        (0, "v0001", "v0001", "v0002"),
        (1, "v0001", "v0002", "v0003"),
        (1, "v0002", "v0003", "v0004"),
    ]


def test_every_sample_tells_its_staleness_and_is_judged_by_the_version_that_drew_it(run_dir: Path) -> None:
    with open_run(run_dir) as run:
        query = (
            select(Round.index, Sample.staleness, Sample.model_version_id == Round.drawing_version_id)
            .join(Round, Round.id == Sample.round_id)
            .order_by(Sample.id)
        )
        drawn = [tuple(row) for row in run.session.execute(query)]
        judged = run.session.execute(
            select(Sample.model_version_id, Assessment.model_version_id)
            .join(Assessment, Assessment.sample_id == Sample.id)
            .where(Assessment.assessor == "self")
        ).all()
    assert sorted(set(drawn)) == [(1, 0, True), (2, 1, True), (3, 1, True)]
    assert len(drawn) == len(judged) == 54
    assert all(drew == judge for drew, judge in judged)


def test_a_candidates_parent_is_the_version_that_it_had_to_beat(run_dir: Path) -> None:
    with open_run(run_dir) as run:
        versions = list(run.session.scalars(select(ModelVersion).order_by(ModelVersion.number)))
    assert [version.parent_id for version in versions] == [None, *(version.id for version in versions[:-1])]


def test_without_overlap_nothing_is_stale(tmp_path: Path, run_dir: Path) -> None:
    start(small_settings(tmp_path / "base", run__rounds=3), tmp_path / "run")
    rows = table(tmp_path / "run")
    assert all(row["staleness"] == 0 and row["drawn_by"] == row["parent"] for row in rows)
    overlapping = table(run_dir)
    assert rows[0]["manifest_sha256"] == overlapping[0]["manifest_sha256"]
    assert rows[1]["manifest_sha256"] != overlapping[1]["manifest_sha256"], "another version drew"


class _Killed(BaseException):
    pass


def test_killed_in_every_training_the_run_is_the_same(tmp_path: Path, run_dir: Path) -> None:
    calls: list[int] = []

    def train(*arguments: Any) -> None:
        calls.append(len(calls))
        if len(calls) % 2:
            raise _Killed
        TOOLS.train(*arguments)

    for _ in range(3):
        with pytest.raises(_Killed):
            start(small_settings(tmp_path / "base", **OVERLAP), tmp_path / "run", replace(TOOLS, train=train))
    start(small_settings(tmp_path / "base", **OVERLAP), tmp_path / "run", replace(TOOLS, train=train))
    assert len(calls) == 6
    assert result(tmp_path / "run") == result(run_dir)


class _AnyOrder:
    """An executor that does whichever unit is due, of either round."""

    def __init__(self, context: RunContext, seed: int) -> None:
        self._context, self._random = context, Random(seed)
        self.keys: list[str] = []

    def issue(self, issues: Sequence[Issue]) -> bool:
        with transaction(self._context.engine) as session:
            rounds = [(round_at(session, self._context.run_id, issue.index).id, issue.kinds) for issue in issues]
            units = [u for id_, kinds in rounds for kind in kinds for u in ready_units(session, id_, kind, 99)]
        unit = self._random.choice(units)
        self.keys.append(f"{unit.round_index}/{unit.kind}")
        lease_and_do_unit(self._context, unit.id, "me", 3, lambda done, total: None)
        return True


@pytest.mark.parametrize("seed", range(4))
def test_in_whatever_order_units_are_done_the_run_is_the_same(tmp_path: Path, run_dir: Path, seed: int) -> None:
    settings = small_settings(tmp_path / "base", **OVERLAP)
    with (
        locked(tmp_path / "run") as directory,
        open_context(settings, check_start(settings, tmp_path / "run"), directory, TOOLS) as context,
    ):
        executor = _AnyOrder(context, seed)
        Coordinator(context, Heard(), 3, executor=executor).run()
    assert executor.keys.index("2/sample") < executor.keys.index("1/evaluate"), "the rounds did overlap"
    found, expected = result(tmp_path / "run"), result(run_dir)
    # The numbers of samples and prompts follow the order in which they were added, nothing else does.
    for part in ("rounds", "models", "evaluations"):
        assert found[part] == expected[part]
    assert sorted(row[3:] for row in found["samples"]) == sorted(row[3:] for row in expected["samples"])


def test_a_rejected_candidate_leaves_the_parent_of_the_next_round(tmp_path: Path) -> None:
    start(small_settings(tmp_path / "base", gate__min_gain=0.9, **OVERLAP), tmp_path / "run")
    rows = table(tmp_path / "run")
    assert [row["decision"] for row in rows] == ["rejected"] * 3
    assert {(row["drawn_by"], row["parent"]) for row in rows} == {("v0001", "v0001")}
    assert [row["manifest_rows"] for row in rows] == sorted({row["manifest_rows"] for row in rows})
