"""`rounds watch` on a run of the canned backend: what it shows while the run goes on, and when it ends."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from illume_loop.cli import images, samples, watch
from illume_loop.cli.watch import Board, JsonLines, PlainLines, Snapshot, take_snapshot
from illume_loop.loop.run_directory import OpenRun, open_run
from tests.support.canned_model import save_canned
from tests.support.canned_run import small_settings, start
from tests.support.plugged import plugged
from tests.support.process import begin, tiny_config

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watched")
    start(small_settings(folder / "base"), folder / "run")
    return folder / "run"


def _under_way(run: OpenRun) -> Snapshot:
    """The run as it was while its last round was gated."""
    snapshot = take_snapshot(run)
    last = {**snapshot.rounds[-1], "state": "gating", "decision": None, "reasons": []}
    return replace(snapshot, rounds=[*snapshot.rounds[:-1], last], stages={"sampling": (18, 18), "gating": (7, 48)})


def test_a_run_that_is_over_is_told_and_left(run_dir: Path, capsys: Captured) -> None:
    watch.watch(run_dir)
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in out] == [["round", "1"], ["round", "2"]]
    watch.watch(run_dir, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["round"], told["decision"]) == (2, told["state"])


def test_what_goes_on_is_told_once(run_dir: Path, capsys: Captured) -> None:
    plain, lines = PlainLines(), JsonLines()
    with open_run(run_dir) as run:
        snapshot = _under_way(run)
        assert not snapshot.is_over
        for view in (plain, plain, lines, lines):
            view.show(snapshot)
    out = capsys.readouterr().out.splitlines()
    assert len([line for line in out if line.startswith("round 2/2 gating: 7/48")]) == 1
    [told] = [json.loads(line) for line in out if line.startswith("{")]
    assert told["stages"]["gating"][0] == 7


def test_the_board_has_rounds_bars_and_the_events(run_dir: Path) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=160, height=60)
    with open_run(run_dir) as run, Board(console, run) as board:
        board.show(_under_way(run))
    shown = out.getvalue()
    for text in ("v0001", "round 2/2 gating", "7/48", "round 2 is"):
        assert text in shown, text


def test_a_terminal_that_can_gets_the_pictures_of_a_round(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from textual_image import _terminal
    from textual_image.renderable.sixel import Image as Sixel

    monkeypatch.setattr(images, "_renderable", lambda: Sixel)
    monkeypatch.setattr(_terminal.get_cell_size, "_result", _terminal.CellSize(10, 20), raising=False)
    out = io.StringIO()
    with open_run(run_dir) as run, Board(Console(file=out, force_terminal=True, width=160), run) as board:
        board.show(take_snapshot(run))
    assert out.getvalue().count("\x1bP") == 1, "one Sixel image, of the last round"
    assert "v0002 above" in out.getvalue()


def test_elsewhere_a_sample_has_the_path_of_its_image(run_dir: Path, capsys: Captured) -> None:
    samples.show(1, run_dir)
    path = Path(capsys.readouterr().out.splitlines()[0])
    with Image.open(path) as image:
        assert image.size == (48, 48)


def test_a_run_is_watched_from_another_process(tmp_path: Path) -> None:
    environ = plugged(ILLUME_RUN__BASE=str(save_canned(tmp_path / "base", 0.4)))
    config = tiny_config(tmp_path)
    with begin("start", "--config", config, "--run-dir", "r", cwd=tmp_path, **environ) as run:
        assert run.stderr is not None
        next(line for line in run.stderr if "sampling" in line)
        with begin("rounds", "watch", "--run-dir", "r", "--every", "0.1", cwd=tmp_path, **environ) as watching:
            out, err = watching.communicate(timeout=200)
        run.communicate()
    assert (run.returncode, watching.returncode) == (0, 0), err
    ended = [line for line in out.splitlines() if line.startswith(("round 1 ", "round 2 "))]
    assert len(ended) == 2
