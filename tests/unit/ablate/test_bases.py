"""Arms with bases of their own: pretrained once each, what is alike shared, measured without a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from illume_loop.ablate.running import run_study
from illume_loop.ablate.study import Study
from illume_loop.pretrain import recipe as recipes
from illume_loop.pretrain.recipe import Recipe

STUDY = Study.model_validate(
    {
        "name": "bases",
        "title": "t",
        "question": "q",
        "seeds": [0],
        "after": [0],
        "baseline": "both",
        "measure": {"heldout_prompts": 2, "draws": 1, "probes": 2, "diversity_prompts": 1},
        "arms": [
            {"name": "both", "pretrain": {"recipe": "tiny"}},
            {"name": "reads", "pretrain": {"recipe": "tiny", "learns": "understanding"}},
            {"name": "pixels", "pretrain": {"recipe": "tiny", "quantised": "pixels"}},
        ],
    }
)


class Heard:
    """Remembers which stages were trained for which cell."""

    def __init__(self) -> None:
        self.told: dict[str, set[str]] = {}

    def advanced(self, cell: str, what: str, done: int, total: int) -> None:
        if what.startswith("pretraining, "):
            self.told.setdefault(cell, set()).add(what.removeprefix("pretraining, "))

    def finished(self, cell: str, done: int, total: int, seconds: float) -> None: ...


@pytest.fixture
def tiny(tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "RECIPES", {"tiny": replace(tiny_recipe, name="tiny", language_batch=16)})


@pytest.mark.usefixtures("tiny")
def test_bases_are_measured_without_a_run(tmp_path: Path) -> None:
    heard = Heard()
    results = run_study(STUDY, tmp_path / "out", progress=heard)
    visual, language = {"encoder", "tokenizer", "detokenizer", "corpus"}, {"text", "stage1", "stage2", "stage3"}
    # The visual stages of `both` serve `reads` too; a quantiser of pixels needs its own.
    assert heard.told == {"both-0": visual | language, "reads-0": language, "pixels-0": visual | language}
    assert [(row.arm, row.after, row.gain) for row in results.rows] == [
        ("both", 0, None),
        ("reads", 0, None),
        ("pixels", 0, None),
    ]
    assert results.rows[1].understanding_against is not None
    assert not (tmp_path / "out" / "runs").exists()
    table = (tmp_path / "out" / "table.md").read_text()
    assert "pretrain.quantised = pixels" in table
    assert "judge AUC" not in table

    again = Heard()
    assert run_study(STUDY, tmp_path / "out", progress=again).as_json() == results.as_json()
    assert again.told == {}
