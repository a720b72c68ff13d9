"""A study is checked whole before anything runs, and is what its file says."""

from __future__ import annotations

from pathlib import Path

import pytest

from illume_loop.ablate.study import Cell, cells, load_study, shipped_studies
from illume_loop.domains import get_domain
from illume_loop.errors import NotFoundError, SettingsError, StudyError
from illume_loop.loop.gate_plans import gate_plans
from illume_loop.loop.stages.plan import round_prompts
from illume_loop.models.shipped import SHIPPED

SMALL = """
title = "t"
question = "q"
baseline = "a"
after = [1, 2]
[[arms]]
name = "a"
[[arms]]
name = "b"
[arms.settings.train]
epochs = 2
"""


def _file(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", [study.name for study in shipped_studies()])
def test_every_shipped_study_can_run(name: str) -> None:
    study = load_study(name)
    assert study.seeds == (0, 1, 2)
    for cell in cells(study, [0]):
        settings = cell.settings
        domain = get_domain(settings.run.domain)
        assert round_prompts(domain, settings, max(1, study.num_rounds))
        assert gate_plans(domain, settings).looks(1)
        assert settings.run.base in SHIPPED
    ways = {str((cell.settings.resolved() | {"run": None}, cell.arm.pretrain)) for cell in cells(study, [0])}
    assert len(ways) == len(study.arms)


def test_the_grid_goes_seed_by_seed(tmp_path: Path) -> None:
    study = load_study(_file(tmp_path, SMALL))
    assert [cell.key for cell in cells(study, [5, 3])] == ["a-5", "b-5", "a-3", "b-3"]
    settings = cells(study)[1].settings
    assert (settings.train.epochs, settings.run.rounds, settings.run.seed) == (2, 2, 0)
    assert settings.run.name == "mine-b-0"


def test_the_environment_counts_for_the_machine_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ILLUME_TRAIN__EPOCHS", "7")
    monkeypatch.setenv("ILLUME_RUNTIME__THREADS", "3")
    settings = cells(load_study(_file(tmp_path, SMALL)))[0].settings
    assert (settings.train.epochs, settings.runtime.threads) == (4, 3)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("title", "titel"), "titel Extra inputs"),
        (('baseline = "a"', 'baseline = "c"'), "the baseline 'c' is no arm"),
        (('name = "b"', 'name = "a"'), "two arms have the same name"),
        (("[1, 2]", "[2, 1]"), "must rise"),
        (('name = "b"', 'name = "b/c"'), "arms.1.name"),
        (("[1, 2]", '[0, 2]\nsubject = "candidate"'), "round 0 has no candidate"),
        (("[1, 2]", "[1, 2]\nseeds = [1, 1]"), "a seed is named twice"),
        (("title", "= title"), "it is not TOML"),
    ],
)
def test_a_wrong_study_is_refused_and_named(tmp_path: Path, change: tuple[str, str], named: str) -> None:
    with pytest.raises(StudyError, match="The study mine is not valid") as caught:
        load_study(_file(tmp_path, SMALL.replace(*change, 1)))
    assert named in str(caught.value)


@pytest.mark.parametrize(
    "change", [("epochs", "epoks"), ("epochs = 2", "epochs = 0"), ("settings.train", "settings.trane")]
)
def test_wrong_settings_are_refused_before_anything_runs(tmp_path: Path, change: tuple[str, str]) -> None:
    with pytest.raises(SettingsError, match="not valid"):
        load_study(_file(tmp_path, SMALL.replace(*change)))


def test_a_recipe_that_nothing_has(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no recipe 'clouds'"):
        load_study(_file(tmp_path, SMALL + '[arms.pretrain]\nrecipe = "clouds"\n'))


def test_a_name_that_nothing_has() -> None:
    with pytest.raises(NotFoundError, match="no study 'objektive'"):
        load_study("objektive")


def test_cells_name_their_files() -> None:
    study = shipped_studies()[0]
    assert Cell(study, study.arms[0], 4).key == f"{study.arms[0].name}-4"
