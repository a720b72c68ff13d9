"""A study runs real cells, is killed and continued to the same bytes, and refuses to mix what cannot be compared."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.canned_study import FAILING_ARM, canned_study
from tests.support.plugged import plugged
from tests.support.process import Ended, begin, read_json, run

FILES = ("results.json", "table.md", "plot.svg")


def _ablate(folder: Path, *arguments: object) -> Ended:
    return run("ablate", *arguments, cwd=folder, **plugged())


def _results(folder: Path, out: str = "out") -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / out / "results.json").read_text())
    return results


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study and its results in `out`, never disturbed."""
    folder = tmp_path_factory.mktemp("study")
    ended = _ablate(folder, canned_study(folder), "-o", "out")
    assert ended.code == 0, ended.err
    assert ended.out == (folder / "out" / "table.md").read_text()
    return folder


def test_the_checker_is_the_better_judge(finished: Path) -> None:
    rows = {(row["arm"], row["after"]): row for row in _results(finished)["rows"]}
    assert set(rows) == {(arm, after) for arm in ("self", "checker") for after in (1, 2)}
    checker = rows["checker", 2]
    assert checker["gain"]["1.25"]["draws"][0] > 0
    assert checker["against"]["1.25"]["mean"] > 0
    assert rows["self", 2]["against"] is None
    assert checker["seeds"] == [0, 1]
    assert checker["decided"] == 2


def test_the_numbers_are_those_of_the_runs(finished: Path) -> None:
    cell = next(c for c in _results(finished)["cells"] if (c["arm"], c["seed"]) == ("checker", 1))
    rounds = read_json("rounds", "ls", "--run-dir", "out/runs/checker-1", cwd=finished)
    assert [row["manifest_sha256"] for row in cell["rounds"]] == [row["manifest_sha256"] for row in rounds]
    assert cell["versions"]["2"] == "v0003"


@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_and_continued_it_ends_with_the_same_bytes(finished: Path, tmp_path: Path, jobs: int) -> None:
    study = finished / "judges.toml"
    for _ in range(3 - jobs):
        with begin("ablate", study, "-o", "out", "--jobs", jobs, cwd=tmp_path, **plugged()) as process:
            assert process.stderr is not None
            next(line for line in process.stderr if " finished in " in line)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").iterdir()}
    assert 1 <= len(kept) < 4

    ended = _ablate(tmp_path, study, "-o", "out", "--jobs", jobs)

    assert ended.code == 0, ended.err
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == (finished / "out" / name).read_bytes(), name


def test_a_cell_that_fails_is_a_result(finished: Path, tmp_path: Path) -> None:
    ended = _ablate(tmp_path, canned_study(tmp_path, FAILING_ARM), "--seeds", "0")
    assert ended.code == 1
    assert len(ended.sentences) == 1
    assert (
        "1 of 3 cells failed, and the table says why; first too-strict-0: no sample was accepted" in ended.sentences[0]
    )
    results = _results(tmp_path, "ablate-judges")
    assert {row["arm"] for row in results["rows"]} == {"self", "checker"}
    assert "too-strict-0 failed" in (tmp_path / "ablate-judges" / "table.md").read_text()

    again = _ablate(tmp_path, tmp_path / "judges.toml", "--seeds", "0")
    assert again.code == 1
    assert _results(tmp_path, "ablate-judges") == results


def test_other_settings_are_refused_and_named(finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "judges.toml"
    changed = (finished / "judges.toml").read_text().replace("samples_per_prompt = 3", "samples_per_prompt = 4")
    path.write_text(changed.replace("draws = 2", "draws = 3"))
    ended = _ablate(tmp_path, path, "-o", finished / "out")
    assert ended.code == 4
    assert "the cell self-0 of this study as it was before (sampling.samples_per_prompt, measure)" in ended.err


def test_two_cannot_work_on_a_study(finished: Path, tmp_path: Path) -> None:
    study = finished / "judges.toml"
    with begin("ablate", study, "-o", "out", cwd=tmp_path, **plugged()) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if "sampling" in line)
        process.send_signal(signal.SIGSTOP)  # on a busy host it would be done before the second one has looked
        second = _ablate(tmp_path, study, "-o", "out")
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        said = process.stderr.read()
    assert second.code == 4
    assert f"Another process (pid {process.pid}) is working in out" in second.err
    assert process.returncode == 130
    assert "the same command continues" in said


def test_its_processes_end_with_it(finished: Path, tmp_path: Path) -> None:
    study = finished / "judges.toml"
    with begin("ablate", study, "-o", "out", "--jobs", 2, cwd=tmp_path, **plugged()) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if " finished in " in line)
        process.send_signal(signal.SIGKILL)
        process.stderr.read()  # the processes inherit this pipe: it ends when the last of them does


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nothing",), 2, "There is no study 'nothing'"),
        (("absent.toml",), 2, "The study absent.toml is not valid: No such file"),
        (("judges.toml", "--seeds", "0,x"), 2, "--seeds 0,x is not a list of numbers"),
        (("judges.toml", "--seeds", "1,1"), 2, "names a seed twice"),
        (("judges.toml", "-o", "."), 2, "holds other things than a study"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    canned_study(tmp_path)
    ended = _ablate(tmp_path, *arguments)
    assert ended.code == code
    assert said in ended.err
    assert len(ended.sentences) == 1


def test_the_shipped_ones_are_listed(tmp_path: Path) -> None:
    names = [study["name"] for study in read_json("ablate", "ls", cwd=tmp_path)]
    assert names == sorted(names)
    assert {"objective", "rounds", "guards"} <= set(names)


def test_the_report_of_a_cell_has_the_table_of_its_study(finished: Path, tmp_path: Path) -> None:
    ended = run("report", finished / "out" / "runs" / "checker-1", "-o", "mail", cwd=tmp_path, **plugged())
    assert ended.code == 0, ended.err
    html = (tmp_path / "mail" / "report.html").read_text(encoding="utf-8")
    lines = [line for line in (finished / "out" / "table.md").read_text().splitlines() if line.startswith("| ")]
    for cell in lines[0].strip("| ").split(" | "):
        assert f"<th>{cell}</th>" in html
    for cell in lines[1].strip("| ").split(" | "):
        assert f"<td>{cell}</td>" in html
    assert 'src="data:image/svg+xml;base64,' in html
