"""`illume-loop start` in an empty folder runs the loop to its end and shows what came of it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.acceptance.conftest import Finished
from tests.support.process import begin, read_json, run, tiny_config


def test_it_ends_with_a_table_and_a_page(finished: Finished) -> None:
    out = finished.ended.out
    assert re.search(r"round +model +held-out +gain +AUC +diversity +standing +accepted +decision", out)
    assert len(re.findall(r"(?m)^ *[12] +v\d{4} .*\n +→ v\d{4} .*(?:promoted|rejected) *$", out)) == 2
    assert len(re.findall(r"(?m)^round [12] (?:promoted|rejected): heldout gain", out)) == 2
    [page] = re.findall(r"(?m)^page: (.+)$", out)
    html = (finished.folder / page).read_text(encoding="utf-8")
    assert "Samples of round 2" in html
    assert html.count("data:image/png;base64,") > 20


def test_progress_goes_to_stderr_as_plain_lines(finished: Finished) -> None:
    lines = finished.ended.err
    for stage in ("sampling", "assessing", "training", "gating"):
        assert re.search(rf"(?m)^round 1/2 {stage}: (\d+)/\1", lines), f"no line says that {stage} is done"
    assert "\x1b" not in lines
    assert "Warning" not in lines
    assert "Traceback" not in lines


def test_starting_a_finished_run_again_changes_nothing(finished: Finished) -> None:
    before = read_json("rounds", "ls", cwd=finished.folder)
    again = run("start", "--config", finished.config, cwd=finished.folder)
    assert again.code == 0, again.err
    assert read_json("rounds", "ls", cwd=finished.folder) == before


def test_continuing_needs_no_settings_file(finished: Finished) -> None:
    again = run("start", cwd=finished.folder)
    assert again.code == 0, again.err
    assert "page: " in again.out


def test_fresh_never_deletes(finished: Finished) -> None:
    before = sorted(path for path in finished.run_dir.rglob("*") if path.suffix in (".png", ".safetensors"))
    ended = run("start", "--fresh", "--config", finished.config, cwd=finished.folder)
    assert ended.code == 4
    assert len(ended.sentences) == 1
    assert "--run-dir" in ended.sentences[0]
    assert before == sorted(path for path in finished.run_dir.rglob("*") if path.suffix in (".png", ".safetensors"))


def test_other_settings_are_a_conflict(finished: Finished) -> None:
    ended = run("start", "--config", finished.config, "--seed", "5", cwd=finished.folder)
    assert ended.code == 4
    [sentence] = ended.sentences
    assert "run.seed" in sentence


def test_two_processes_do_not_share_a_run(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    with begin("start", "--config", config, cwd=tmp_path) as first:
        assert first.stderr is not None
        for line in first.stderr:
            if line.startswith("round 1/2 sampling"):
                break
        second = run("start", "--config", config, cwd=tmp_path)
        first.kill()
    assert second.code == 4
    [sentence] = second.sentences
    assert str(first.pid) in sentence
