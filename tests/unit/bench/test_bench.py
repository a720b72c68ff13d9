"""Benchmarks on a tiny model: both ways give the same, rows say what they are, and a wrong engine is not timed."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from illume_loop.bench.assessing import Reading, bench_assess
from illume_loop.bench.measuring import Limits, compare, peak_memory_mib
from illume_loop.bench.rounds import bench_round
from illume_loop.bench.sampling import Drawing, bench_growth, bench_sampling
from illume_loop.bench.sizes import SIZES, random_janus
from illume_loop.cli.main import app
from illume_loop.errors import EngineDiffersError
from illume_loop.runtime import prepare
from illume_loop.settings import RuntimeSettings

TINY = SIZES["tiny"]


@pytest.fixture(scope="module")
def drawing() -> Drawing:
    return Drawing.of(TINY, "cpu", 3, 7)


def test_greedy_ids_are_those_of_transformers(drawing: Drawing) -> None:
    assert torch.equal(drawing.ours(0.0), drawing.transformers(0.0))
    assert drawing.ours().shape == drawing.transformers().shape == (3, 16)


def test_readings_are_those_of_transformers(drawing: Drawing) -> None:
    reading = Reading.of(TINY, drawing.model, 2, 3)
    ours, theirs = reading.ours(), reading.transformers()
    assert ours.shape == (2, 4)
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=1e-3)
    assert (ours.std(dim=0) > 1e-4).all(), "readings depend on the image"


def test_what_differs_is_not_timed(drawing: Drawing, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: Drawing, temperature: float = 1.0, num_ids: int | None = None) -> Tensor:
        return torch.zeros(3, num_ids or 16, dtype=torch.long)

    monkeypatch.setattr(Drawing, "ours", wrong)
    with pytest.raises(EngineDiffersError, match="draw differently"):
        drawing.warm_up()


def test_every_benchmark_gives_a_row_for_each_number_of_threads() -> None:
    common = {"batch": 2, "repeats": 1, "threads": [1]}
    found = [
        *bench_sampling(TINY, "cpu", prompt_ids=7, **common),
        *bench_assess(TINY, "cpu", num_questions=2, **common),
        *bench_round(TINY, "cpu", prompt_ids=7, num_questions=2, **common),
    ]
    assert [threads for _, threads, _ in found] == [1, 1, 1]
    for row, _, limits in found:
        assert "1 thread" in row.setting
        assert limits.bytes_per_second > 1e8
        assert limits.flops_per_second > 1e8
        assert row.ratio is not None
        assert row.reference is not None
        assert row.limit_share is not None
        assert all(math.isfinite(value) for value in (row.ours, row.reference, row.ratio, row.limit_share))


def test_a_ratio_is_ours_over_the_reference() -> None:
    spin = lambda count: lambda: sum(range(count))  # noqa: E731 - a work of a known length
    found = compare(spin(100_000), spin(1_000_000), 5)
    assert found.ratio > 3
    assert found.ours < found.reference


def test_growth_says_what_memory_was_predicted() -> None:
    rows = list(bench_growth(TINY, "cpu", prompt_ids=7, num_threads=1))
    assert [row.setting for row in rows if "batch 4" in row.setting] == ["batch 4, 16 ids"]
    by_name = {row.setting: row for row in rows}
    predicted = [by_name[f"batch {batch}, 16 ids"].predicted_mib for batch in (1, 8)]
    assert predicted[1] == pytest.approx(8 * (predicted[0] or 0))


def test_memory_that_earlier_work_gave_back_is_counted_again() -> None:
    prepare(RuntimeSettings())  # which has freed memory kept
    found = [peak_memory_mib(lambda: torch.ones(16, 2**20), "cpu") for _ in range(3)]
    assert [value for value in found if value is not None] == pytest.approx([64.0] * len(found), rel=0.2)


def test_the_least_time_is_the_slower_of_both() -> None:
    limits = Limits(bytes_per_second=10.0, flops_per_second=100.0)
    assert limits.least_seconds(20.0, 50.0) == 2.0
    assert limits.least_seconds(20.0, 500.0) == 5.0


def test_the_command_prints_the_contract() -> None:
    ran = CliRunner().invoke(
        app, ["bench", "assess", "--size", "tiny", "--batch", "1", "--repeats", "1", "--threads", "1", "--json"]
    )
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)
    assert found.keys() == {"name", "rows", "machine"}
    assert found["rows"][0].keys() >= {"setting", "ours", "reference", "ratio", "limit_share"}
    assert found["machine"]["limits"]["1"]["gb_per_s"] > 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--threads", "many"], "--threads many is not a list of numbers"),
        (["--size", "huge"], "unknown size huge; choose one of tiny"),
        (["--ids", "17", "--size", "tiny"], "17 ids make no square image"),
        (["--grow"], "--grow works with sampling only"),
    ],
)
def test_what_cannot_be_measured_is_named(arguments: list[str], sentence: str) -> None:
    ran = CliRunner().invoke(app, ["bench", "round", *arguments])
    assert sentence in str(ran.exception)


def test_random_weights_are_far_from_uniform() -> None:
    model = random_janus(TINY, "cpu")
    with torch.inference_mode():
        probabilities = model.model.generation_head(torch.randn(4, TINY.hidden)).softmax(-1)
    assert float(probabilities.max()) > 2 / TINY.codebook
