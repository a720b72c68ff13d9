"""The page of a real run on the canned backend: what it shows, and that a lost image does not stop it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from illume_loop.loop.run_directory import open_run
from illume_loop.report.page import CARDS, write_page
from tests.support.canned_run import small_settings, start


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    start(small_settings(folder / "base", gate__heldout_prompts=96), folder / "run")
    return folder / "run"


def _written(run_dir: Path) -> str:
    with open_run(run_dir) as run:
        path = write_page(run.session, run.run_id, run.path, run.images)
    assert path == run_dir / "index.html"
    return path.read_text(encoding="utf-8")


def test_writing_it_again_changes_nothing(run_dir: Path) -> None:
    assert _written(run_dir) == _written(run_dir)


def test_it_shows_rounds_curve_pairs_and_sheets(run_dir: Path) -> None:
    html = _written(run_dir)
    assert html.count("<svg") == 4, "held-out alignment, understanding, diversity, the judge's AUC"
    assert html.count('class="pair"') == 16
    for index in (1, 2):
        assert f"Samples of round {index}" in html
    for title in ("Highest scores", "Lowest scores", "At random"):
        assert html.count(title) == 2
    assert html.index("Samples of round 2") < html.index("Samples of round 1"), "the latest comes first"


def test_the_highest_come_first_one_for_each_prompt(run_dir: Path) -> None:
    sheet = _written(run_dir).split("Highest scores")[1].split("Lowest scores")[0]
    scores = [float(score) for score in re.findall(r"score (-?[\d.]+)", sheet)]
    prompts = re.findall(r"<figcaption><b>(.*?)</b>", sheet)
    assert scores == sorted(scores, reverse=True)
    assert len(prompts) == len(set(prompts)) == min(CARDS, 6)


def test_a_lost_image_leaves_a_gap(run_dir: Path) -> None:
    assert "image not available" not in _written(run_dir)
    for path in sorted((run_dir / "images").rglob("*.png"))[:20]:
        path.write_bytes(b"damaged")
    assert "image not available" in _written(run_dir)
