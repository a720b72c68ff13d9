"""What goes wrong is told in one sentence, and nothing that was done is lost."""

from __future__ import annotations

import errno
import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, update

from illume_db.migrate import downgrade
from illume_db.sessions import open_engine, transaction
from illume_db.tables import Assessment, Unit
from illume_loop.errors import (
    CorruptArtifactError,
    DatabaseOutdatedError,
    MissingExtraError,
    NotARunDirectoryError,
    NotFoundError,
    RoundFailedError,
    RunExistsError,
    RunLockedError,
    SettingsChangedError,
    SettingsError,
    StorageFullError,
    UsageError,
)
from illume_loop.loop.context import Toolbox
from illume_loop.loop.run_directory import database_url, locked, open_run, stored_settings
from illume_loop.protocols import Scores
from tests.support.canned_model import CannedModel, canned_toolbox, load_canned
from tests.support.canned_run import Heard, result, small_settings, start, table

TOOLS = canned_toolbox()


def _failing_train(failures: int, error: Callable[[], Exception]) -> tuple[Toolbox, list[int]]:
    """A backend whose training fails so many times, and then works."""
    calls: list[int] = []

    def train(*arguments: Any) -> None:
        calls.append(len(calls))
        if len(calls) <= failures:
            raise error()
        TOOLS.train(*arguments)

    return replace(TOOLS, train=train), calls


def test_a_unit_is_tried_again(tmp_path: Path) -> None:
    toolbox, calls = _failing_train(2, lambda: RuntimeError("a passing cloud"))
    start(small_settings(tmp_path / "base", run__rounds=1), tmp_path / "run", toolbox)
    start(small_settings(tmp_path / "base", run__rounds=1), tmp_path / "undisturbed")
    assert len(calls) == 3
    assert result(tmp_path / "run") == result(tmp_path / "undisturbed")


def test_a_unit_that_keeps_failing_fails_its_round_and_the_next_start_goes_on(tmp_path: Path) -> None:
    toolbox, calls = _failing_train(3, lambda: RuntimeError("the loss is gone"))
    settings = small_settings(tmp_path / "base")
    with pytest.raises(RoundFailedError, match=r"Round 1 failed: .*train failed 3 times.*the loss is gone"):
        start(settings, tmp_path / "run", toolbox)
    (row,) = table(tmp_path / "run")
    assert (row["state"], row["dead_units"], row["decision"]) == ("failed", 1, None)
    assert "the loss is gone" in row["error"]
    start(settings, tmp_path / "run", toolbox)
    rows = table(tmp_path / "run")
    assert [row["state"] for row in rows] == ["failed", "promoted"]
    assert rows[1]["parent"] == "v0001"
    assert rows[1]["manifest_rows"] > rows[0]["manifest_rows"], "what the failed round accepted stays in the union"
    assert len(calls) == 4


@pytest.mark.parametrize(
    "error",
    [lambda: OSError(errno.ENOSPC, "No space left on device"), lambda: RuntimeError("database or disk is full")],
)
def test_a_full_disk_is_no_attempt(tmp_path: Path, error: Callable[[], Exception]) -> None:
    toolbox, _ = _failing_train(5, error)
    settings = small_settings(tmp_path / "base", run__rounds=1)
    for _ in range(5):
        with pytest.raises(StorageFullError, match="free some and run the same command again"):
            start(settings, tmp_path / "run", toolbox)
    start(settings, tmp_path / "run", toolbox)
    start(settings, tmp_path / "undisturbed")
    assert result(tmp_path / "run") == result(tmp_path / "undisturbed")


def test_a_score_that_is_no_number_is_a_failure_not_a_zero(tmp_path: Path) -> None:
    class Confused(CannedModel):
        def log_likelihood(self, images: Any, texts: Any) -> Scores:
            scores = super().log_likelihood(images, texts)
            scores[0] = np.nan
            return scores

    toolbox = replace(TOOLS, load_model=lambda path, device: Confused(load_canned(path, device).skill))
    start(small_settings(tmp_path / "base", run__rounds=1), tmp_path / "run", toolbox)
    with open_run(tmp_path / "run") as run:
        failed = run.session.scalars(select(Assessment).where(Assessment.state == "failed")).all()
        assert [(said.assessor, said.score, said.error) for said in failed] == [
            ("self", None, "the model's score was nan")
        ] * 4


def test_nothing_accepted_fails_the_round(tmp_path: Path) -> None:
    with pytest.raises(RoundFailedError, match="no sample was accepted"):
        start(small_settings(tmp_path / "base", curate__margin=99.0), tmp_path / "run")
    assert table(tmp_path / "run")[0]["state"] == "failed"


def test_a_damaged_checkpoint_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    settings = small_settings(tmp_path / "base", run__rounds=1)
    start(settings, tmp_path / "run")
    with open_run(tmp_path / "run") as run:
        _, folder = run.checkpoint()
    before = (folder / "config.json").read_bytes()
    (folder / "config.json").write_bytes(before.replace(b"skill", b"skull"))
    with pytest.raises(CorruptArtifactError, match=r"config\.json is damaged"):
        start(settings, tmp_path / "run", rounds=2)
    with open_run(tmp_path / "run") as run, pytest.raises(CorruptArtifactError):
        run.checkpoint()
    (folder / "config.json").write_bytes(before)
    start(settings, tmp_path / "run", rounds=2)
    start(settings, tmp_path / "undisturbed", rounds=2)
    assert result(tmp_path / "run") == result(tmp_path / "undisturbed")


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    start(small_settings(tmp_path / "base", run__rounds=1), tmp_path / "run")
    changed = small_settings(tmp_path / "base", train__epochs=5, curate__margin=0.5, runtime__max_attempts=9)
    with pytest.raises(SettingsChangedError, match=r"\(curate\.margin, train\.epochs\)"):
        start(changed, tmp_path / "run")
    harmless = small_settings(tmp_path / "base", run__name="other", runtime__max_attempts=9, run__rounds=2)
    start(harmless, tmp_path / "run")


def _hold(path: Path, held: Any, done: Any) -> None:
    with locked(path):
        held.set()
        done.wait(60)


def test_a_second_start_on_a_directory_is_refused(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "run", held, done))
    holder.start()
    assert held.wait(60)
    settings = small_settings(tmp_path / "base", run__rounds=1)
    with pytest.raises(RunLockedError, match=rf"pid {holder.pid}\)"):
        start(settings, tmp_path / "run")
    done.set()
    holder.join(60)
    start(settings, tmp_path / "run")


def test_a_fresh_start_never_touches_a_run(tmp_path: Path) -> None:
    settings = small_settings(tmp_path / "base", run__rounds=1)
    start(settings, tmp_path / "run", fresh=True)
    before = result(tmp_path / "run")
    with pytest.raises(RunExistsError, match="never deletes"):
        start(settings, tmp_path / "run", fresh=True)
    assert result(tmp_path / "run") == before


def test_other_directories_are_left_alone(tmp_path: Path) -> None:
    settings = small_settings(tmp_path / "base")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").touch()
    with pytest.raises(UsageError, match="holds other files"):
        start(settings, tmp_path / "thesis")
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["thesis.tex"]
    with pytest.raises(UsageError, match="is a file"):
        start(settings, tmp_path / "thesis" / "thesis.tex")


def test_a_start_that_cannot_begin_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        start(small_settings(tmp_path / "base", run__base="nowhere"), tmp_path / "run")
    with pytest.raises(UsageError, match="ask for fewer"):
        start(small_settings(tmp_path / "base", gate__heldout_prompts=900_000), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    start(small_settings(tmp_path / "base", run__rounds=1), tmp_path / "run", fresh=True)
    stored = stored_settings(tmp_path / "run")
    assert stored is not None
    assert stored["run"]["rounds"] == 1


@pytest.mark.parametrize("content", [None, "", "{}", "[]", "not json"])
def test_a_directory_without_a_run_cannot_be_read(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(NotARunDirectoryError, match="is not a run directory"), open_run(tmp_path):
        pass


def test_a_database_of_another_schema_is_told(tmp_path: Path) -> None:
    start(small_settings(tmp_path / "base", run__rounds=1), tmp_path / "run")
    downgrade(database_url(tmp_path / "run"), "base")
    with pytest.raises(DatabaseOutdatedError, match="db upgrade"), open_run(tmp_path / "run"):
        pass


@pytest.mark.parametrize(("url", "error"), [("nofs://x", SettingsError), ("s3://bucket/x", MissingExtraError)])
def test_a_store_of_another_kind_is_told(tmp_path: Path, url: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=url):
        start(small_settings(tmp_path / "base", store__artifacts_url=url), tmp_path / "run")


def test_a_lease_lost_meanwhile_drops_the_result(tmp_path: Path) -> None:
    """Someone else takes the unit while it is trained here: nothing of it may be written."""
    from illume_loop.errors import LostLeaseError

    url = f"sqlite:///{tmp_path / 'run' / 'loop.sqlite'}"

    def train(*arguments: Any) -> None:
        engine = open_engine(url)
        with transaction(engine) as session:
            session.execute(update(Unit).where(Unit.state == "leased").values(fencing_token=Unit.fencing_token + 1))
        engine.dispose()
        TOOLS.train(*arguments)

    settings = small_settings(tmp_path / "base", run__rounds=1)
    with pytest.raises(LostLeaseError, match="train"):
        start(settings, tmp_path / "run", replace(TOOLS, train=train))
    assert table(tmp_path / "run")[0]["candidate"] is None
    start(settings, tmp_path / "run")
    assert table(tmp_path / "run")[0]["candidate"] == "v0002"


def test_reading_works_while_a_run_is_held(tmp_path: Path) -> None:
    class Reader(Heard):
        def advanced(self, event: Any) -> None:
            super().advanced(event)
            table(tmp_path / "run")

    from illume_loop.start import start_run

    heard = Reader()
    settings = small_settings(tmp_path / "base", run__rounds=1)
    start_run(settings, tmp_path / "run", progress=heard, toolbox=TOOLS)
    assert len(heard.stages) > 10
