"""A new run tries one prompt through every stage first: what would fail after hours is told at once, and nothing else
of the run is changed by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from illume_loop.domains import get_domain
from illume_loop.domains.shapes.domain import ShapesDomain
from illume_loop.errors import PreflightError, TeacherError, UsageError
from illume_loop.loop.context import Toolbox, default_toolbox
from illume_loop.loop.opening import check_start
from illume_loop.loop.preflight import Preflight
from illume_loop.models.janus.backend import JanusBackend
from illume_loop.models.shipped import shipped_base
from illume_loop.protocols import ImageIds, Question, Sampling, Scores, TrainingRow
from illume_loop.settings import Settings
from tests.support.canned_model import CannedModel, canned_toolbox, load_canned
from tests.support.canned_run import result, small_settings, start, table
from tests.support.stub_teacher import knows, stub_teacher
from tests.support.tiny_janus import save_tiny_janus

TOOLS = canned_toolbox()


def _settings(folder: Path, **values: object) -> Settings:
    return small_settings(folder / "base", run__rounds=1, run__preflight=True, **values)


def _tools(kind: type[CannedModel]) -> Toolbox:
    return replace(TOOLS, load_model=lambda path, device: kind(load_canned(path, device).skill))


def test_a_run_is_the_same_with_and_without(tmp_path: Path) -> None:
    settings = _settings(tmp_path, assess__reading="yes-no", sampling__minimal_pairs=0.5)
    told: list[str] = []
    start(settings, tmp_path / "tried", tell=told.append)
    start(
        small_settings(tmp_path / "base", run__rounds=1, assess__reading="yes-no", sampling__minimal_pairs=0.5),
        tmp_path / "not",
    )
    assert result(tmp_path / "tried") == result(tmp_path / "not")
    assert len(told) == 1
    assert "trying one prompt" in told[0]


def test_it_is_done_once(tmp_path: Path) -> None:
    told: list[str] = []
    start(_settings(tmp_path), tmp_path / "run", tell=told.append)
    assert len(told) == 1
    start(_settings(tmp_path), tmp_path / "run", rounds=2, tell=told.append)
    assert len(told) == 1, "the second round is of a run that was tried"


class _NoDraws(CannedModel):
    def sample(self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> ImageIds:
        raise RuntimeError("CUDA out of memory")


class _NoReading(CannedModel):
    def log_likelihood(self, images: Any, texts: Any) -> Scores:
        return super().log_likelihood(images, texts) * float("nan")


class _NoEncoder(CannedModel):
    def encode(self, images: Sequence[Image.Image]) -> ImageIds:
        raise UsageError("this model has no image tokenizer")


class _NoRows(CannedModel):
    def try_rows(self, rows: Sequence[TrainingRow], settings: object) -> None:
        raise ValueError(f"{len(rows)} rows are too many")


class _NoEdits(CannedModel):
    def edit(self, *_: Any) -> ImageIds:
        raise UsageError("it draws from text alone")


class _NoCritiques(CannedModel):
    def instruct(self, images: Any, instructions: Sequence[str], **more: Any) -> list[str]:
        return ["..."] * len(instructions)


CRITIQUES = {"assess__critiques": True, "train__objective": "assess-sft"}


@pytest.mark.parametrize(
    ("kind", "values", "told"),
    [
        (_NoDraws, {}, "drawing cannot work: RuntimeError: CUDA out of memory"),
        (_NoReading, {}, "judging cannot work: the judge could not score an image of"),
        (_NoEncoder, {"curate__caption_share": 0.0}, "training cannot work: this model has no image tokenizer."),
        (_NoRows, {}, "training cannot work: ValueError: "),
        (_NoEdits, {"sampling__edit_share": 0.5}, "drawing cannot work: it draws from text alone"),
        (_NoCritiques, CRITIQUES, "judging cannot work: train.objective = 'assess-sft' learns from critiques"),
        (_NoCritiques, {"assess__reading": "written-score"}, "the model wrote '...' and not a grade from 1 to 5"),
    ],
)
def test_a_stage_that_cannot_work_is_named_before_there_is_a_run(
    tmp_path: Path, kind: type[CannedModel], values: dict[str, object], told: str
) -> None:
    with pytest.raises(PreflightError) as caught:
        start(_settings(tmp_path, **values), tmp_path / "run", _tools(kind))
    assert told in str(caught.value)
    assert "--no-preflight" in str(caught.value)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("part", "made", "told"),
    [
        ("check", lambda *_: 1 / 0, "judging cannot work: ZeroDivisionError"),
        ("split_of", lambda *_: "heldout", "curation cannot work: The manifest of round 1 is refused"),
        ("reading_probes", lambda *_: [None], "the gate cannot work: AttributeError"),
        ("questions", lambda *_: [Question("object", 3)], "judging cannot work: "),  # type: ignore[arg-type]
    ],
)
def test_a_part_of_a_domain_that_does_not_work_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, made: Any, told: str
) -> None:
    monkeypatch.setattr(ShapesDomain, part, lambda self, *arguments: made(*arguments))
    with pytest.raises(PreflightError) as caught:
        start(_settings(tmp_path, assess__reading="yes-no"), tmp_path / "run")
    assert told in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("objective", ["sft", "dpo", "assess-sft"])
def test_every_stage_of_a_shipped_base_is_tried(tmp_path: Path, objective: str) -> None:
    values: dict[str, object] = {"run__base": "shapes-instruct", "train__objective": objective}
    values |= {"assess__critiques": True} if objective == "assess-sft" else {}
    values |= {"sampling__edit_share": 0.5} if objective == "sft" else {}
    settings = small_settings(tmp_path / "base", runtime__device="cpu", assess__calibration="auto", **values)
    model = default_toolbox().load_model(shipped_base("shapes-instruct"), "cpu")
    preflight = Preflight(settings, ShapesDomain(), model)
    assert preflight.run() == []
    kinds = {row.kind for row in preflight.rows}
    assert kinds == {"sft": {"draw", "edit", "read"}, "dpo": {"pair", "draw", "read"}}.get(
        objective, {"draw", "read", "assess", "correct"}
    )


def test_a_janus_with_free_prompts_is_asked_about_whole_prompts(tmp_path: Path) -> None:
    """It writes no list of questions, so each prompt is one question; what it cannot do at all is told at once."""
    (tmp_path / "prompts.jsonl").write_text(
        "".join(
            f'{{"prompt": "{text}", "split": "{split}"}}\n'
            for split, texts in (("train", ("a cat", "a dog")), ("heldout", ("a cup", "a spoon")))
            for text in texts
        )
    )
    values = {
        "run.base": str(save_tiny_janus(tmp_path / "janus")),
        "run.domain": "text",
        "run.prompts": str(tmp_path / "prompts.jsonl"),
        "assess.reading": "yes-no-difference",
        "sampling.prompts_per_round": 2,
        "gate.heldout_prompts": 2,
        "train.lora_rank": 4,
        "runtime.device": "cpu",
    }
    settings = small_settings(tmp_path / "canned", **{name.replace(".", "__"): value for name, value in values.items()})
    demands = check_start(settings, tmp_path / "run")
    model = JanusBackend.load(tmp_path / "janus", "cpu")
    preflight = Preflight(settings, get_domain("text", demands.prompts), model)
    assert preflight.run() == []
    (tried,) = preflight.tried
    assert [[row["criterion"] for row in opinion.details["questions"]] for opinion in tried.opinions] == [["whole"]] * 2

    edits = settings.model_copy(update={"sampling": settings.sampling.model_copy(update={"edit_share": 0.5})})
    with pytest.raises(PreflightError, match="drawing cannot work: the domain 'text' has no edits"):
        Preflight(edits, get_domain("text", demands.prompts), model).run()


def test_a_teacher_is_asked_one_question_beforehand(tmp_path: Path) -> None:
    values: dict[str, object] = {"assess__assessor": "teacher", "teacher__model": "any", "teacher__retries": 0}
    with pytest.raises(TeacherError, match="did not answer"):
        start(_settings(tmp_path, **values, teacher__url="http://127.0.0.1:9/v1"), tmp_path / "run")
    with stub_teacher(lambda *_: "maybe") as teacher, pytest.raises(PreflightError, match="said neither yes nor no"):
        start(_settings(tmp_path, **values, teacher__url=teacher.url), tmp_path / "run")
    assert len(teacher.requests) == 1
    assert not (tmp_path / "run").exists()
    with stub_teacher(knows) as teacher:
        start(_settings(tmp_path, **values, teacher__url=teacher.url), tmp_path / "run")
    (row,) = table(tmp_path / "run")
    assert (row["samples"], row["dead_units"], row["error"]) == (18, 0, None)
