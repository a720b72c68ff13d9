"""GenEval's folder: drawn once, continued wherever it was stopped, judged, and compared with the detector's results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from illume_loop.domains.shapes import checker
from illume_loop.domains.shapes.grammar import parse
from illume_loop.domains.text.domain import TextDomain
from illume_loop.domains.text.formats import Source, read_prompts
from illume_loop.domains.text.prompt_set import PromptSet
from illume_loop.errors import DetectorResultsError, OtherEvaluationError
from illume_loop.evals.detector import agreement, read_results
from illume_loop.evals.geneval import Folder, draw_missing, estimates, judge_missing, open_folder
from illume_loop.judge.referee import Decision, Referee
from illume_loop.loop.unit_inputs import derived_seed
from illume_loop.protocols import ImageIds, Prompt, Sampling
from tests.support.canned_model import CannedModel

METADATA = [
    {"tag": "colors", "include": [{"class": "circle", "count": 1, "color": "red"}], "prompt": "a red circle"},
    {
        "tag": "counting",
        "include": [{"class": "ring", "count": 3}],
        "exclude": [{"class": "ring", "count": 4}],
        "prompt": "a picture of three rings",
    },
    {
        "tag": "position",
        "include": [{"class": "cross", "count": 1}, {"class": "square", "count": 1, "position": ["above", 0]}],
        "prompt": "a square above a cross",
    },
]
MADE_BY: dict[str, object] = {"model": "abc", "seed": 0}
SEED_OF = partial(derived_seed, "geneval", 0)


def _prompts(tmp_path: Path) -> list[Prompt]:
    path = tmp_path / "metadata.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in METADATA))
    return [prompt for _, prompt in read_prompts(Source(path, "geneval"))]


def _folder(tmp_path: Path, **made_by: object) -> Folder:
    return open_folder(tmp_path / "out", _prompts(tmp_path), 4, MADE_BY | made_by)


def _referee(skill: float = 0.6) -> Referee:
    return Referee(TextDomain(PromptSet()), lambda: CannedModel(skill), lambda *_: 0)


def _draw(folder: Folder, model: CannedModel, batch_size: int = 5) -> None:
    draw_missing(folder, model, SEED_OF, Sampling(), batch_size)


class _Killed(CannedModel):
    """Dies in its second batch."""

    batches = 0

    def sample(self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> ImageIds:
        self.batches += 1
        if self.batches == 2:
            raise KeyboardInterrupt
        return super().sample(prompts, seeds, sampling)


def _images(folder: Folder) -> dict[str, bytes]:
    return {path.relative_to(folder.path).as_posix(): path.read_bytes() for path in folder.path.rglob("*.png")}


def test_it_is_drawn_as_the_detector_reads_it_and_continued(tmp_path: Path) -> None:
    whole = open_folder(tmp_path / "whole", _prompts(tmp_path), 4, MADE_BY)
    _draw(whole, CannedModel(0.6), 12)
    assert sorted(_images(whole))[:5] == [
        "00000/samples/00000.png",
        "00000/samples/00001.png",
        "00000/samples/00002.png",
        "00000/samples/00003.png",
        "00001/samples/00000.png",
    ]
    for index, metadata in enumerate(METADATA):
        assert json.loads((whole.path / f"{index:05}" / "metadata.jsonl").read_text()) == metadata

    with pytest.raises(KeyboardInterrupt):
        _draw(_folder(tmp_path), _Killed(0.6))
    continued = _folder(tmp_path)
    assert len(_images(continued)) == 5
    heard: list[tuple[int, int]] = []
    draw_missing(continued, CannedModel(0.6), SEED_OF, Sampling(), 3, lambda *done: heard.append(done))
    assert _images(continued) == _images(whole), "whatever the batch"
    assert heard == [(8, 12), (11, 12), (12, 12)]


def test_a_folder_is_of_one_evaluation(tmp_path: Path) -> None:
    _folder(tmp_path)
    with pytest.raises(OtherEvaluationError, match="it differs in seed"):
        _folder(tmp_path, seed=1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(OtherEvaluationError, match=r"it has no evaluation\.json"):
        open_folder(tmp_path / "other", _prompts(tmp_path), 4, MADE_BY)


def test_each_image_is_judged_once_by_the_questions_of_its_metadata(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    _draw(folder, CannedModel(0.6))
    judged: list[int] = []

    def decide(images: Sequence[Image.Image], prompts: Sequence[Prompt]) -> list[Decision]:
        judged.append(len(images))
        if len(judged) == 2:
            raise KeyboardInterrupt
        return _referee().decisions(images, prompts)

    with pytest.raises(KeyboardInterrupt):
        judge_missing(folder, "j", decide, 5)
    path = folder.path / "scores-j.jsonl"
    path.write_bytes(path.read_bytes() + b'{"filename": "00001/samp')
    rows = judge_missing(folder, "j", decide, 5)
    assert judged == [5, 5, 5, 2], "what a kill tore in half is judged anew, and nothing else"
    assert judge_missing(folder, "j", decide, 5) == rows
    assert len(path.read_text().splitlines()) == 12
    for (index, _), row in rows.items():
        image = Image.open(folder.path / row["filename"]).convert("RGB")
        # The metadata asks for what must be there, and says nothing of other things.
        shown = checker.check(image, parse(METADATA[index]["prompt"])).passed  # type: ignore[arg-type]
        assert row["correct"] or not shown
        assert row["tag"] == METADATA[index]["tag"]
        assert json.loads(row["metadata"]) == METADATA[index]
        answers = json.loads(row["details"])
        assert row["correct"] == all(answer["log_odds"] > 0 for answer in answers)
        assert row["score"] == min(answer["log_odds"] for answer in answers)
    assert {row["correct"] for row in rows.values()} == {True, False}


def _results(folder: Folder, correct: bool = True, **changed: Any) -> list[dict[str, Any]]:
    return [
        {"filename": f"some/where/{folder.name(key)}", "prompt": folder.prompts[key[0]].text, "correct": correct}
        | changed
        for key in folder.keys
    ]


def _write(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_detectors_results_are_read_and_compared(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    _draw(folder, CannedModel(0.6))
    rows = judge_missing(folder, "j", _referee().decisions, 8)
    told = [{**row, "filename": f"/x/{row['filename']}", "score": None} for row in rows.values()]
    found = read_results(_write(tmp_path / "r.jsonl", told[::-1]), folder)
    assert found == {key: row["correct"] for key, row in rows.items()}, "our rows have the detector's keys"
    assert agreement(rows, found) == {"n": 12, "share": 1.0, "auc": 1.0}
    everything = dict.fromkeys(folder.keys, True)
    assert agreement(rows, everything)["auc"] is None

    table = estimates(folder, found)
    assert list(table["by_category"]) == ["colors", "counting", "position"]
    parts = [part["mean"] for part in table["by_category"].values()]
    assert table["mean"] == pytest.approx(sum(parts) / 3), "GenEval's score is the mean over categories"
    assert table["low"] < table["mean"] < table["high"]
    assert table["n"] == 12


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: rows[:-2], "it lacks 2 of 12 images, first 00002/samples/00002.png"),
        (lambda rows: [*rows, rows[0]], "line 13: it is the second one of 00000/samples/00000.png"),
        (lambda rows: [*rows, rows[0] | {"filename": "00009/samples/00000.png"}], "is none of the folder's images"),
        (lambda rows: [rows[0] | {"prompt": "a dog"}], "line 1: it is of another prompt than 00000/samples/00000.png"),
        (lambda rows: [rows[0] | {"correct": "yes"}], "line 1: its 'correct' is neither true nor false"),
        (lambda rows: [{"correct": True}], r"line 1: its 'filename' is no .../00000/samples/00000.png"),
        (lambda rows: [[1]], "line 1: its 'filename' is no"),
    ],
)
def test_results_that_are_not_of_the_folder_are_refused(tmp_path: Path, change: Any, told: str) -> None:
    folder = _folder(tmp_path)
    path = _write(tmp_path / "r.jsonl", change(_results(folder)))
    with pytest.raises(DetectorResultsError) as caught:
        read_results(path, folder)
    assert told in str(caught.value)


def test_results_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    with pytest.raises(DetectorResultsError, match="No such file"):
        read_results(tmp_path / "absent", folder)
    (tmp_path / "r").write_text("{\n")
    with pytest.raises(DetectorResultsError, match="line 1: it is no JSON"):
        read_results(tmp_path / "r", folder)
