"""A round may lose a share of its drawings and assessments, and says so; beyond it the round fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from illume_db.rounds_table import round_detail
from illume_loop.errors import RoundFailedError
from illume_loop.loop.context import Toolbox
from illume_loop.loop.run_directory import open_run
from illume_loop.protocols import ImageIds
from tests.support.canned_model import CannedModel, canned_toolbox, load_canned
from tests.support.canned_run import small_settings, start, table

TOOLS = canned_toolbox()


def _failing(size: int) -> Toolbox:
    """A backend that cannot draw a batch of `size` images; of 18 rows by 7, the last unit is one of 4."""

    class Fails(CannedModel):
        def sample(self, prompts: Any, seeds: Any, sampling: Any) -> ImageIds:
            if len(prompts) == size:
                raise RuntimeError("this batch does not fit")
            return super().sample(prompts, seeds, sampling)

    return replace(TOOLS, load_model=lambda path, device: Fails(load_canned(path, device).skill))


def test_a_lost_unit_within_the_tolerance_costs_its_samples_only(tmp_path: Path) -> None:
    settings = small_settings(tmp_path / "base", run__rounds=1, loop__dead_unit_tolerance=0.34)
    start(settings, tmp_path / "run", _failing(4))
    (row,) = table(tmp_path / "run")
    assert (row["decision"], row["samples"], row["dead_units"]) == ("promoted", 14, 1)
    with open_run(tmp_path / "run") as run:
        detail = round_detail(run.session, run.run_id, 1)
    assert detail is not None
    assert (detail["stages"]["sampling"]["done"], detail["stages"]["sampling"]["dead"]) == (2, 1)
    # Rows 14 to 17 were given up: an assessment of some of them judges the rest, one of all of them nothing.
    assert detail["stages"]["assessing"]["done"] == 4
    (dead,) = [unit for unit in detail["units"] if unit["state"] == "dead"]
    assert (dead["key"], dead["attempts"], dead["error"]) == ("sample/14", 3, "RuntimeError: this batch does not fit")


@pytest.mark.parametrize("tolerance", [0.0, 0.33])
def test_beyond_the_tolerance_the_round_fails_with_the_reason(tmp_path: Path, tolerance: float) -> None:
    settings = small_settings(tmp_path / "base", run__rounds=1, loop__dead_unit_tolerance=tolerance)
    with pytest.raises(RoundFailedError, match=r"sample/14 failed 3 times.*this batch does not fit"):
        start(settings, tmp_path / "run", _failing(4))


def test_a_training_is_never_tolerated(tmp_path: Path) -> None:
    def train(*arguments: Any) -> None:
        raise RuntimeError("no")

    settings = small_settings(tmp_path / "base", run__rounds=1, loop__dead_unit_tolerance=0.9)
    with pytest.raises(RoundFailedError, match="train failed 3 times"):
        start(settings, tmp_path / "run", replace(TOOLS, train=train))


def test_a_round_of_many_units_shows_those_that_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("illume_db.rounds_table.MAX_UNITS", 5)
    monkeypatch.setattr("illume_db.rounds_table.MAX_PROMPTS", 2)
    settings = small_settings(tmp_path / "base", run__rounds=1, loop__dead_unit_tolerance=0.34)
    start(settings, tmp_path / "run", _failing(4))
    with open_run(tmp_path / "run") as run:
        detail = round_detail(run.session, run.run_id, 1)
    assert detail is not None
    assert [unit["key"] for unit in detail["units"]] == ["sample/14"]
    assert (len(detail["prompts"]), detail["num_prompts"]) == (2, 6)
