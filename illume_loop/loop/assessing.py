"""The models that judge a round's samples: which ones the settings name, and the assessments that they give.

Guarantee: the same image is judged the same, whatever batch or worker it lands in; where two assessors are one model
(the base in the first round is both `self` and `frozen`), it judges once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from PIL import Image

from db.models import ModelVersion
from db.queries.progress import DrawnRow, PromptRow
from db.writes.samples import NewAssessment
from illume_loop.assess.judging import Judge, Opinion
from illume_loop.config import AssessSettings
from illume_loop.domains.protocol import Prompt
from illume_loop.loop.plan import derived_seed, sample_seed
from illume_loop.loop.workbench import Workbench


def model_assessments(
    bench: Workbench,
    round_index: int,
    version: ModelVersion,
    base: ModelVersion,
    drawn: Sequence[DrawnRow],
    images: Sequence[Image.Image],
    foreign: Mapping[int, PromptRow],
) -> list[NewAssessment]:
    """What each judging model says of each sample; `version` drew them, `base` is the run's.

    Of each prompt's first sample the judge is also asked the questions of a foreign prompt, those by position.
    """
    seed = bench.settings.run.seed
    judge = Judge.of(bench.settings.assess, bench.domain, partial(derived_seed, "judge", seed), bench.calibration)
    prompts = [_prompt(row.prompt) for row in drawn]
    firsts = [i for i, row in enumerate(drawn) if row.sample_index == 0]
    strangers = {i: _prompt(foreign[drawn[i].prompt.position]) for i in firsts}
    controlled = [i for i, stranger in strangers.items() if judge.asks and stranger.key != drawn[i].prompt.key]
    keys = [sample_seed(seed, round_index, row.prompt.text, row.sample_index) for row in drawn]
    opinions: dict[int, list[Opinion]] = {}
    assessments = []
    for assessor in judging_models(bench.settings.assess):
        by = base if assessor == "frozen" else version
        if by.id not in opinions:
            model = bench.models.take(by.sha256)
            opinions[by.id] = judge.judge(model, images, prompts, keys)
            asked = [images[i] for i in controlled], [strangers[i] for i in controlled]
            for i, value in zip(controlled, judge.control(model, *asked) if controlled else (), strict=True):
                opinions[by.id][i].details["control"] = value
        assessments += [
            _assessment(row.sample_id, assessor, by.id, opinion)
            for row, opinion in zip(drawn, opinions[by.id], strict=True)
        ]
    return assessments


def judging_models(settings: AssessSettings) -> Iterator[str]:
    """The assessors among the settings' that are models of the run."""
    if settings.assessor in ("self", "shuffled"):
        yield "self"
    if settings.assessor == "frozen" or settings.also_frozen:
        yield "frozen"


def _prompt(row: PromptRow) -> Prompt:
    return Prompt(row.text, row.category, row.key, row.spec)


def _assessment(sample_id: int, assessor: str, version_id: int, opinion: Opinion) -> NewAssessment:
    return NewAssessment(
        sample_id,
        assessor,
        opinion.state,
        opinion.score,
        version_id,
        opinion.failed_criteria,
        opinion.error,
        opinion.details,
        opinion.critique,
        opinion.probability,
    )
