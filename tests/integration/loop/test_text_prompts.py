"""Runs over prompts that people bring: no checker anywhere, and the run's base decides at the gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import func, select

from illume_db.sessions import open_engine, transaction
from illume_db.tables import Assessment, Evaluation, EvaluationItem, Example, Prompt
from illume_loop.domains.shapes import checker
from illume_loop.domains.shapes.domain import ShapesDomain
from illume_loop.domains.shapes.grammar import parse
from illume_loop.domains.text.keys import key_of
from illume_loop.domains.text.prompt_set import PromptSet, merged, write_prompt_set
from illume_loop.errors import RoundFailedError, UsageError
from illume_loop.judge.calibration import probability_of
from illume_loop.loop.run_directory import database_url, open_run
from illume_loop.protocols import Prompt as Wanted
from illume_loop.protocols import Scores
from illume_loop.settings import Settings, load_settings
from illume_workers.contexts import RunContexts
from tests.support.canned_model import CannedModel, canned_toolbox, load_canned
from tests.support.canned_run import result, small_settings, start, table

TOOLS = canned_toolbox()
SIZES = {"train": 20, "heldout": 30, "probe": 6}


def _spec(text: str) -> dict[str, object]:
    """GenEval's metadata of a shapes prompt of one part; nothing for others, about which the model asks itself."""
    (part, *more) = parse(text).parts
    if more or part.count > 1:
        return {}
    return {"tag": "x", "include": [{"class": part.shape, "count": 1} | ({"color": part.color} if part.color else {})]}


def _prompts(path: Path) -> Path:
    found = PromptSet()
    for split, count in SIZES.items():
        prompts = ShapesDomain().prompts(split, count, 0)  # type: ignore[arg-type]
        new = [Wanted(p.text, p.category, key_of(p.text), _spec(p.text)) for p in prompts]
        found = merged(found, split, new).prompts  # type: ignore[arg-type]
    write_prompt_set(path, found)
    return path


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return _prompts(tmp_path / "prompts.jsonl")


def _settings(prompts: Path, **values: object) -> Settings:
    of_text = {"run__domain": "text", "run__prompts": str(prompts), "assess__reading": "yes-no-difference"}
    return small_settings(prompts.parent / "base", **of_text | values)


def test_a_run_goes_on_without_its_file_and_without_any_checker(prompts: Path, tmp_path: Path) -> None:
    settings = _settings(prompts, curate__min_score=0.6)
    with pytest.raises(KeyboardInterrupt):
        start(settings, tmp_path / "run", replace(TOOLS, train=_interrupted))
    prompts.unlink()
    start(settings, tmp_path / "run")

    first, second = table(tmp_path / "run")
    assert (first["decision"], first["judge_auc"], second["decision"]) == ("promoted", None, "promoted")
    assert first["heldout"]["candidate"]["mean"] > first["heldout"]["parent"]["mean"]
    assert first["understanding"]["parent"] > 0.5, "it tells its right pictures apart; of its wrong ones it guesses"
    with open_run(tmp_path / "run") as run:
        assert set(run.session.scalars(select(Assessment.assessor).distinct())) == {"self"}
        query = select(Prompt.split, func.count()).group_by(Prompt.split)
        assert dict(run.session.execute(query).all()) == SIZES
        assert set(run.session.scalars(select(Example.kind).distinct())) == {"draw", "read"}
        asked = run.session.scalars(select(Assessment.details)).all()
    questions = {row["question"] for details in asked for row in details["questions"]}
    assert any(question.startswith("Is there a") for question in questions), "from the spec"
    assert any(question.startswith("is there a") for question in questions), "self-asked"


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_the_same_run_ends_the_same(prompts: Path, tmp_path: Path) -> None:
    settings = _settings(prompts, run__rounds=1)
    for name in ("a", "b"):
        start(settings, tmp_path / name)
    assert result(tmp_path / "a") == result(tmp_path / "b")


def test_the_base_decides_whatever_the_candidate_says(prompts: Path, tmp_path: Path) -> None:
    """Each stored outcome is what an exact checker, which the run never had, says of the kept image."""
    start(_settings(prompts, run__rounds=1), tmp_path / "run", replace(TOOLS, load_model=_mild_when_trained))
    with open_run(tmp_path / "run") as run:
        query = (
            select(Prompt.text, EvaluationItem.passed, EvaluationItem.image_sha256)
            .join(EvaluationItem, EvaluationItem.prompt_id == Prompt.id)
            .join(Evaluation, Evaluation.id == EvaluationItem.evaluation_id)
            .where(Evaluation.suite == "heldout")
        )
        rows = run.session.execute(query).all()
        assert len(rows) == 2 * 24
        for text, passed, sha256 in rows:
            assert passed == checker.check(run.images.read(sha256), parse(text)).passed, text


def _mild_when_trained(path: Path, device: str) -> CannedModel:
    model = load_canned(path, device)
    return model if model.skill == 0.4 else _Mild(model.skill)


class _Mild(CannedModel):
    def yes_no_log_odds(self, images: Sequence[Image.Image], questions: Sequence[Sequence[str]]) -> list[Scores]:
        return [np.full(len(of_image), 9.0) for of_image in questions]


class _Untaught(CannedModel):
    def yes_no_log_odds(self, images: Sequence[Image.Image], questions: Sequence[Sequence[str]]) -> list[Scores]:
        raise UsageError("the model's vocabulary has no word 'yes'")


class _Blank(CannedModel):
    """No number for what is asked after the candidate is there."""

    def yes_no_log_odds(self, images: Sequence[Image.Image], questions: Sequence[Sequence[str]]) -> list[Scores]:
        return [np.full(len(of_image), np.nan) for of_image in questions]


def test_a_base_that_cannot_decide_is_told_before_there_is_a_run(prompts: Path, tmp_path: Path) -> None:
    untaught = replace(TOOLS, load_model=lambda path, device: _Untaught(0.4))
    settings = _settings(prompts, assess__reading="prompt-likelihood", run__preflight=True)
    with pytest.raises(
        UsageError, match=r"the base decides at the gate by answering questions, and .*base cannot: the"
    ):
        start(settings, tmp_path / "run", untaught)
    start(settings, tmp_path / "run")


def test_an_image_without_a_number_is_never_taken_for_wrong(prompts: Path, tmp_path: Path) -> None:
    blank = replace(TOOLS, load_model=lambda path, device: _Blank(0.4))
    with pytest.raises(RoundFailedError, match="NoVerdictError: The judge gave no number for an image of"):
        start(_settings(prompts, assess__reading="prompt-likelihood"), tmp_path / "run", blank)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"assess__assessor": "checker"}, "assess.assessor = 'checker' needs; set it to self, frozen or teacher"),
        ({"assess__calibration": "auto"}, "fit one with `illume-loop judge fit --labels teacher`"),
        ({"gate__heldout_prompts": 31}, "has 30 prompts in the split 'heldout', 31 were asked for"),
        ({"sampling__prompts_per_round": 21}, "has 20 prompts in the split 'train', 21 were asked for"),
        ({"run__prompts": ""}, "has 0 prompts in the split 'train'"),
        ({"run__domain": "shapes"}, "with run.prompts, set run.domain = 'text'"),
        ({"run__prompts": "absent.jsonl"}, "Cannot read prompts from absent.jsonl"),
    ],
)
def test_what_cannot_be_met_is_refused_at_once(
    prompts: Path, tmp_path: Path, values: dict[str, object], told: str
) -> None:
    with pytest.raises(UsageError) as caught:
        start(_settings(prompts, **values), tmp_path / "run")
    assert told in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_score_below_the_least_is_never_accepted(prompts: Path, tmp_path: Path) -> None:
    settings = _settings(prompts, run__rounds=1, curate__min_score=0.999, curate__drop_lowest=0.0)
    start(_settings(prompts, run__rounds=1, curate__drop_lowest=0.0), tmp_path / "any")
    assert table(tmp_path / "any")[0]["accepted"] == 12
    with pytest.raises(RoundFailedError, match=r"lower curate\.margin or curate\.min_score"):
        start(settings, tmp_path / "none")
    assert 2 * probability_of(6.0) - 1 < 0.999, "6 is the canned judge's largest log-odds"


def test_a_worker_on_another_host_has_the_prompts_from_the_database(prompts: Path, tmp_path: Path) -> None:
    start(_settings(prompts, run__rounds=1), tmp_path / "run")
    prompts.unlink()
    engine = open_engine(database_url(tmp_path / "run"))
    own = load_settings(None, {"store.artifacts_url": str(tmp_path / "run")}, environ={})
    contexts = RunContexts(
        engine, own, TOOLS, device="cpu", cache=tmp_path / "c", scratch=tmp_path / "s", on_load=lambda _: None
    )
    with transaction(engine) as session:
        run_id = session.scalars(select(Prompt.run_id)).first()
    assert run_id is not None
    context = contexts.of_run(run_id)
    engine.dispose()
    assert len(context.domain.prompts("probe", SIZES["probe"], 0)) == SIZES["probe"]
    assert context.plans.looks(1)[0].judge == "frozen"
