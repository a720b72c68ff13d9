"""Rows are what their cells say, paired draw by draw; table and plot show every one of them."""

from __future__ import annotations

import json
from random import Random
from xml.etree import ElementTree

import pytest

from illume_loop.ablate.grid import FinishedCell
from illume_loop.ablate.measuring import Measured
from illume_loop.ablate.plot import svg
from illume_loop.ablate.results import results_of, stored_results
from illume_loop.ablate.study import Study
from illume_loop.ablate.table import markdown

STUDY = Study(
    name="s", title="T < U", question="Q?", after=(1, 3), baseline="a", arms=[{"name": "a"}, {"name": "b", "note": "n"}]
)  # type: ignore[arg-type]


def _measured(share: float, *, reads: float = 1.0, diversity: float = 0.5) -> Measured:
    """The first `share` of 100 draws are right."""
    passed = [index < 100 * share for index in range(100)]
    return Measured({"1.5": passed, "1": passed[::-1]}, [index < 50 * reads for index in range(50)], diversity)


def _round(index: int, decision: str, auc: float | None = 0.9) -> dict[str, object]:
    sides = {"parent": 0.9, "candidate": 0.8}
    return {
        "index": index,
        "state": decision,
        "decision": decision,
        "reasons": ["because | so"],
        "judge_auc": auc,
        "heldout": {"delta": {"mean": 0.1, "low": 0.0, "high": 0.2}},
        "understanding": sides,
        "accepted": 3,
        "samples": 9,
    }


def _cell(arm: str, seed: int, share: float, failed: str | None = None, **more: float) -> FinishedCell:
    rounds = [_round(1, "promoted"), _round(2, "rejected", 0.8), _round(3, "promoted", 0.6)]
    if failed:
        return FinishedCell(arm, seed, failed, [], None, {}, {}, 1.0)
    models = {1: _measured(share), 3: _measured(share + 0.1, **more)}
    return FinishedCell(arm, seed, None, rounds, _measured(0.3), {1: "v0002", 3: "v0003"}, models, 1.0)


CELLS = [_cell("a", 0, 0.4), _cell("a", 1, 0.5), _cell("b", 0, 0.6, reads=0.5, diversity=0.4), _cell("b", 1, 0.8)]


def test_rows_are_what_their_cells_say() -> None:
    rows = {(row.arm, row.after): row for row in results_of(STUDY, CELLS).rows}
    assert list(rows) == [("a", 1), ("a", 3), ("b", 1), ("b", 3)]
    row = rows["b", 3]
    assert row.heldout["1.5"].by_seed == pytest.approx((0.7, 0.9))
    assert row.gain is not None
    assert row.gain["1.5"].mean == pytest.approx(0.5)
    assert row.against is not None
    assert row.against["1.5"].mean == pytest.approx(0.25)
    assert row.understanding_gain is not None
    assert row.understanding_gain.mean == pytest.approx(-0.25)
    assert row.diversity.by_seed == pytest.approx((0.8, 1.0))
    assert (row.promoted, row.decided) == (2, 4)
    assert row.judge_auc is not None
    assert row.judge_auc.mean == pytest.approx(0.7)
    assert (rows["b", 1].promoted, rows["b", 1].decided) == (2, 2)
    assert rows["a", 3].against is None


def test_draws_and_seeds_have_intervals_of_their_own() -> None:
    row = results_of(STUDY, CELLS).rows[-1]
    assert row.gain is not None
    gain = row.gain["1.5"]
    assert gain.draws is not None
    assert gain.draws[0] < gain.mean < gain.draws[1]
    # Two seeds, 0.4 and 0.6: t(0.975, 1) = 12.706 times 0.1.
    assert gain.seeds == pytest.approx((0.5 - 1.2706, 0.5 + 1.2706), abs=1e-3)
    alone = results_of(STUDY, CELLS[:1]).rows[0]
    assert alone.gain is not None
    assert alone.gain["1.5"].seeds is None


def test_the_order_in_which_cells_end_does_not_matter() -> None:
    shuffled = Random(0).sample(CELLS, len(CELLS))
    assert json.dumps(results_of(STUDY, shuffled).as_json()) == json.dumps(results_of(STUDY, CELLS).as_json())


def test_an_arm_is_compared_over_the_seeds_that_both_have() -> None:
    results = results_of(STUDY, [_cell("a", 1, 0.5), *CELLS[2:], _cell("a", 0, 0, failed="it broke")])
    row = results.rows[-1]
    assert row.seeds == (0, 1)
    assert row.against is not None
    assert row.against["1.5"].by_seed == pytest.approx((0.3,))
    assert "- **a-0 failed:** it broke" in markdown(results)


def test_the_table_shows_it_all() -> None:
    text = markdown(results_of(STUDY, CELLS))
    assert "illume-loop ablate s --seeds 0,1" in text
    assert "- `b`: n" in text
    line = next(line for line in text.splitlines() if line.startswith("| b | 3 |"))
    assert "+50.0 [+" in line
    assert line.endswith("| 2 of 4 |")
    assert "promoted: because \\| so" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    # The table, the seeds, the gates: a heading and a rule each, and their rows.
    assert len(tables) == (2 + 4) + (2 + 8) + (2 + 12)
    assert all(len(line) <= 120 for line in text.splitlines() if not line.startswith("|"))


@pytest.mark.parametrize("cells", [CELLS, CELLS[:1], []])
def test_the_plot_is_well_formed(cells: list[FinishedCell]) -> None:
    results = results_of(STUDY, cells)
    root = ElementTree.fromstring(svg(results))
    texts = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[0] == "T < U"
    for row in results.rows:
        assert f"{row.arm}, round {row.after}" in texts
    marks = list(root.iter("{http://www.w3.org/2000/svg}g"))
    assert len(marks) == len(results.rows) * (4 if cells else 0)


def test_rows_come_back_from_json_as_they_were() -> None:
    results = results_of(STUDY, CELLS)
    stored = stored_results(json.loads(json.dumps(results.as_json())))
    assert stored.study == STUDY
    assert stored.rows == results.rows
