"""A round's training that was cut off: rows name its checkpoints, damaged ones are passed over, or all given up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from illume_db.sessions import open_engine, transaction
from illume_db.tables import Event, TrainingCheckpoint, Unit
from illume_loop.errors import LostLeaseError, NoIntactCheckpointError
from illume_loop.loop.context import Toolbox
from illume_loop.loop.run_directory import database_url, open_run
from illume_loop.train.keeping import CHECKPOINT_PLAN
from tests.support.canned_model import canned_toolbox
from tests.support.canned_run import result, small_settings, start

TOOLS = canned_toolbox()


class Cut(BaseException):
    """Ends a training as a kill does: nothing tidies up."""


def _toolbox(found: list[list[int]], cut_after: int | None) -> Toolbox:
    """A training that keeps a checkpoint after each of three steps; it notes those that it could go on from."""

    def train(*arguments: Any) -> None:
        keeping = CHECKPOINT_PLAN.get()
        assert keeping is not None
        found.append([checkpoint.step for checkpoint in keeping.kept])
        for step in range(keeping.kept[0].step + 1 if keeping.kept else 1, 4):
            folder = keeping.folder / f"checkpoint-{step}"
            folder.mkdir(parents=True)
            (folder / "optimizer.pt").write_bytes(bytes(100 + step))
            keeping.keep(step, folder)
            if step == cut_after:
                # Half-written when the kill comes: it lies there and has no row.
                (keeping.folder / f"checkpoint-{step + 1}").mkdir()
                raise Cut
        TOOLS.train(*arguments)

    return replace(TOOLS, train=train)


def _rows(run_dir: Path) -> list[TrainingCheckpoint]:
    with open_run(run_dir) as run:
        return list(run.session.scalars(select(TrainingCheckpoint).order_by(TrainingCheckpoint.step)))


@pytest.fixture
def cut(tmp_path: Path) -> Callable[..., Any]:
    """A run whose first training was cut off after three steps; call it to go on."""
    settings = small_settings(tmp_path / "base", run__rounds=1)
    with pytest.raises(Cut):
        start(settings, tmp_path / "run", _toolbox([], 3))

    def go_on(found: list[list[int]], **more: Any) -> None:
        start(settings, tmp_path / "run", _toolbox(found, None), **more)

    return go_on


def test_it_goes_on_from_the_newest_row_and_leaves_nothing_behind(cut: Callable[..., Any], tmp_path: Path) -> None:
    rows = _rows(tmp_path / "run")
    assert [(row.step, row.state) for row in rows] == [(1, "dropped"), (2, "kept"), (3, "kept")]
    assert not Path(rows[0].folder).exists(), "the newest two are kept"
    found: list[list[int]] = []
    cut(found)
    assert found == [[3, 2]]
    assert {row.state for row in _rows(tmp_path / "run")} == {"dropped"}
    assert not list((tmp_path / "run").rglob("optimizer.pt"))
    start(small_settings(tmp_path / "base", run__rounds=1), tmp_path / "undisturbed")
    assert result(tmp_path / "run") == result(tmp_path / "undisturbed")


def test_a_truncated_one_is_named_and_the_one_before_is_used(cut: Callable[..., Any], tmp_path: Path) -> None:
    newest = Path(_rows(tmp_path / "run")[-1].folder) / "optimizer.pt"
    newest.write_bytes(newest.read_bytes()[:7])
    found: list[list[int]] = []
    cut(found)
    assert found == [[2]]
    with open_run(tmp_path / "run") as run:
        (told,) = run.session.scalars(select(Event.message).where(Event.kind == "damaged"))
    assert told.startswith(f"checkpoint of step 3 of a training is passed over: {newest} is damaged")


def test_with_none_left_it_refuses_until_the_training_is_to_begin_anew(cut: Callable[..., Any], tmp_path: Path) -> None:
    files = [Path(row.folder) / "optimizer.pt" for row in _rows(tmp_path / "run")[1:]]
    for file in files:
        file.unlink()
    found: list[list[int]] = []
    for _ in range(2):
        with pytest.raises(NoIntactCheckpointError, match="start --fresh-training") as refused:
            cut(found)
        assert refused.value.exit_code == 3
        assert all(str(file) in str(refused.value) for file in files)
    cut(found, fresh_training=True)
    assert found == [[]], "nothing was trained before, and then from the beginning"


def test_a_worker_that_lost_its_unit_registers_nothing(tmp_path: Path) -> None:
    def train(*_: Any) -> None:
        engine = open_engine(database_url(tmp_path / "run"))
        with transaction(engine) as session:
            session.execute(update(Unit).where(Unit.kind == "train").values(fencing_token=Unit.fencing_token + 1))
        engine.dispose()
        keeping = CHECKPOINT_PLAN.get()
        assert keeping is not None
        (keeping.folder / "checkpoint-1").mkdir(parents=True)
        keeping.keep(1, keeping.folder / "checkpoint-1")

    with pytest.raises(LostLeaseError):
        start(small_settings(tmp_path / "base", run__rounds=1), tmp_path / "run", replace(TOOLS, train=train))
    assert _rows(tmp_path / "run") == []
