"""A report of a real run: one page that stands alone, readable plots, and settings that repeat the run."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from illume_db.runs import run_row
from illume_loop.charts.strokes import COLOURS
from illume_loop.cli import report
from illume_loop.errors import NotARunDirectoryError, UsageError
from illume_loop.loop.run_directory import open_run
from illume_loop.settings import load_settings
from tests.support.canned_run import small_settings, start

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mailed")
    start(small_settings(folder / "base", run__name="mailed", run__seed=5), folder / "run")
    return folder / "run"


def test_the_report_stands_alone_and_says_what_the_run_came_to(run_dir: Path, tmp_path: Path, capsys: Captured) -> None:
    report.report(run_dir, tmp_path / "out")
    written = [Path(line) for line in capsys.readouterr().out.split()]
    assert [path.name for path in written] == [
        "report.html",
        "heldout.png",
        "understanding.png",
        "diversity.png",
        "judge_auc.png",
        "run.toml",
    ]
    html = written[0].read_text(encoding="utf-8")
    for text in ("decided rounds were promoted", "samples were drawn and", "torch 2.", "Repeat this run", "--rounds 2"):
        assert text in html
    assert html.count("<svg") == 4
    assert "http" not in html.replace("http://www.w3.org", "")
    again = html
    report.report(run_dir, tmp_path / "out")
    assert written[0].read_text(encoding="utf-8") == again


def test_the_plots_show_every_mark(run_dir: Path, tmp_path: Path) -> None:
    report.report(run_dir, tmp_path)
    with Image.open(tmp_path / "heldout.png") as image:
        assert image.size == (1440, 712)
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20) or []}
    assert tuple(bytes.fromhex(COLOURS["parent"][1:])) in colours, "the inside of a dot"


def test_its_settings_are_those_of_the_run(run_dir: Path, tmp_path: Path) -> None:
    report.report(run_dir, tmp_path)
    settings = load_settings(tmp_path / "run.toml", environ={})
    with open_run(run_dir) as run:
        stored = run_row(run.session, run.run_id)["settings"]
    assert settings.resolved() == stored
    assert settings.run.seed == 5


def test_what_is_no_study_is_refused(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no results of a study"):
        report.report(run_dir, tmp_path / "out", [tmp_path])
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_to_is_refused(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("not yours")
    with pytest.raises(UsageError, match=r"cannot write to .*letter: File exists"):
        report.report(run_dir, tmp_path / "letter")


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotARunDirectoryError):
        report.report(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
