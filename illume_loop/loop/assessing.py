"""Opinions and verdicts as assessments for the database."""

from __future__ import annotations

from PIL import Image

from illume_db.samples import NewAssessment
from illume_loop.judge.judge import Opinion
from illume_loop.protocols import Domain, Prompt


def assessment_of(sample_id: int, assessor: str, version_id: int, opinion: Opinion) -> NewAssessment:
    """Return a model's opinion on a sample as an assessment."""
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


def checked(domain: Domain, sample_id: int, prompt: Prompt, image: Image.Image) -> NewAssessment:
    """Return the verdict of the domain's checker on a sample as an assessment. Raises NoCheckerError."""
    verdict = domain.check(image, prompt)
    score = 1.0 if verdict.passed else 0.0
    return NewAssessment(sample_id, "checker", "ok", score, failed_criteria=list(verdict.failed))
