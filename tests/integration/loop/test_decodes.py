"""Each version's best decode is found once, and the gate compares each version at its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import func, select

from illume_db.evaluations import decode_trials
from illume_db.rounds_table import round_detail
from illume_db.tables import Evaluation, ModelVersion, Unit
from illume_db.versions import comparisons, models_table
from illume_loop.loop.context import Toolbox
from illume_loop.loop.run_directory import open_run
from illume_loop.protocols import ImageIds, Sampling
from tests.support.canned_model import CannedModel, load_canned, train_canned
from tests.support.canned_run import small_settings, start, table

TUNED = {
    "gate__guidances": "1,2",
    "gate__temperatures": "1,0.5",
    "gate__decode_prompts": 40,
    "gate__closing": True,
    "gate__heldout_prompts": 48,
}


BASE = 0.4
"""The skill of the base of `small_settings`."""


class DecodedModel(CannedModel):
    """A canned model whose base is best at guidance 2, and a trained one at guidance 1; all are at temperature 0.5."""

    def sample(self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> ImageIds:
        best_guidance = 2.0 if self.skill == BASE else 1.0
        better = 0.2 * (sampling.guidance_scale == best_guidance) + 0.1 * (sampling.temperature == 0.5)
        return CannedModel(self.skill + better).sample(prompts, seeds, sampling)


def toolbox() -> Toolbox:
    return Toolbox(lambda path, device: DecodedModel(load_canned(path, device).skill), train_canned)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two rounds; read only."""
    folder = tmp_path_factory.mktemp("run")
    start(small_settings(folder / "base", **TUNED), folder / "run", toolbox())
    return folder / "run"


def _units(run_dir: Path, index: int) -> Iterator[str]:
    with open_run(run_dir) as run:
        detail = round_detail(run.session, run.run_id, index)
        assert detail is not None
        yield from (unit["key"].removeprefix("evaluate/") for unit in detail["units"] if unit["kind"] == "evaluate")


def test_a_version_is_tuned_once(run_dir: Path) -> None:
    trials = [[key for key in _units(run_dir, index) if key.startswith("decode-")] for index in (1, 2)]
    assert trials[0] == [f"decode-{number}/{name}" for name in ("v0001", "v0002") for number in (1, 2, 3, 4)]
    assert trials[1] == [f"decode-{number}/v0003" for number in (1, 2, 3, 4)]


def test_the_gate_compares_each_at_its_best_and_both_at_the_setting(run_dir: Path) -> None:
    row = table(run_dir)[0]
    assert row["decodes"]["parent"] == {"guidance_scale": 2.0, "temperature": 0.5, "top_k": 0, "top_p": 1.0}
    assert row["decodes"]["candidate"] == {"guidance_scale": 1.0, "temperature": 0.5, "top_k": 0, "top_p": 1.0}
    gain, at_setting = row["heldout"]["delta"]["mean"], row["at_setting"]["delta"]["mean"]
    assert at_setting - gain == pytest.approx(0.0, abs=0.15)
    assert row["heldout"]["parent"]["mean"] - row["at_setting"]["parent"]["mean"] == pytest.approx(0.3, abs=0.12)
    assert row["reasons"][0].startswith(f"heldout gain {100 * gain:+.1f} [")
    assert row["reasons"][0].endswith(
        " with each at its best decode (parent: guidance 2, temperature 0.5; candidate: guidance 1, temperature 0.5)"
    )
    assert row["reasons"][1].startswith(
        f"with both at the run's setting (guidance 1, temperature 1) {100 * at_setting:+.1f} ["
    )
    assert row["reasons"][1].endswith("], which does not decide")


def test_a_version_tells_its_best_decode_and_both_comparisons(run_dir: Path) -> None:
    with open_run(run_dir) as run:
        base, trained, _ = models_table(run.session, run.run_id)
        of_base = comparisons(run.session, run.run_id)["v0001"][0]
    assert base["best_decode"] == {
        "guidance_scale": 2.0,
        "temperature": 0.5,
        "top_k": 0,
        "top_p": 1.0,
        "share": pytest.approx(0.7, abs=0.2),
        "prompts": 40,
        "of": 4,
    }
    assert trained["best_decode"]["guidance_scale"] == 1.0
    assert (of_base["guidance_scale"], of_base["temperature"]) == (2.0, 0.5)
    told = of_base["at_setting"]
    assert (told["guidance_scale"], told["temperature"], told["n"]) == (1.0, 1.0, of_base["n"])


def test_no_trial_draws_a_held_out_prompt(run_dir: Path) -> None:
    with open_run(run_dir) as run:
        items = run.session.scalar(
            select(func.count()).select_from(Evaluation).where(Evaluation.suite == "decode", Evaluation.num_items != 40)
        )
        found = decode_trials(run.session, run.run_id)
        names = dict(run.session.execute(select(ModelVersion.id, ModelVersion.number)).all())
    assert items == 0
    assert {names[version]: len(trials) for version, trials in found.items()} == {1: 4, 2: 4, 3: 4}


def test_the_run_ends_with_the_closing_comparison(run_dir: Path) -> None:
    rows = table(run_dir)
    assert rows[0]["closing"] is None
    closing = rows[1]["closing"]
    assert (closing["base"], closing["active"], closing["judge"]) == ("v0001", rows[1]["candidate"], "checker")
    heldout, best_of = closing["heldout"], closing["best_of"]
    assert heldout["base"]["n"] == heldout["active"]["n"] == 48
    assert heldout["delta"]["mean"] == pytest.approx(heldout["active"]["mean"] - heldout["base"]["mean"])
    assert (best_of["samples"], best_of["prompts"]) == (8, 48)
    assert best_of["one"] == pytest.approx(0.7, abs=0.06)
    assert best_of["best"] > 0.97
    assert best_of["share_of_way"] == pytest.approx(heldout["delta"]["mean"] / (best_of["best"] - best_of["one"]))
    assert sum(key.startswith("best-of-8-") for key in _units(run_dir, 2)) == 1


def test_a_second_start_measures_nothing(run_dir: Path) -> None:
    with open_run(run_dir) as run:
        before = run.session.scalar(select(func.count()).select_from(Unit))
        settings = small_settings(run_dir.parent / "base", **TUNED)
    start(settings, run_dir, toolbox())
    with open_run(run_dir) as run:
        assert run.session.scalar(select(func.count()).select_from(Unit)) == before
