"""The tables, one subject a file."""

from __future__ import annotations

from db.models.calibration import Calibration, Drift
from db.models.evaluation import Evaluation, EvaluationItem
from db.models.manifest import Example, Manifest
from db.models.prompt import Prompt, RoundPrompt
from db.models.review import Review
from db.models.round import GateDecision, Round
from db.models.run import Event, Run
from db.models.sample import Assessment, Sample
from db.models.teacher import TeacherAnswer, TeacherBudget
from db.models.training import TrainingCheckpoint
from db.models.unit import StageCount, Unit
from db.models.version import ModelVersion
from db.models.worker import Worker

__all__ = [
    "Assessment",
    "Calibration",
    "Drift",
    "Evaluation",
    "EvaluationItem",
    "Event",
    "Example",
    "GateDecision",
    "Manifest",
    "ModelVersion",
    "Prompt",
    "Review",
    "Round",
    "RoundPrompt",
    "Run",
    "Sample",
    "StageCount",
    "TeacherAnswer",
    "TeacherBudget",
    "TrainingCheckpoint",
    "Unit",
    "Worker",
]
