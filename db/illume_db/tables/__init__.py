"""All tables of the database, one file for each subject."""

from __future__ import annotations

from illume_db.tables.manifests import Example, Manifest, TrainingCheckpoint
from illume_db.tables.rounds import GateDecision, Round
from illume_db.tables.runs import Event, Prompt, RoundPrompt, Run, TeacherAnswer, TeacherBudget
from illume_db.tables.samples import Assessment, Review, Sample
from illume_db.tables.units import StageCount, Unit, Worker
from illume_db.tables.updates import PendingRollout, Rollout, Update, UpdateGroup
from illume_db.tables.versions import Calibration, Drift, Evaluation, EvaluationItem, ModelVersion

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
    "PendingRollout",
    "Prompt",
    "Review",
    "Rollout",
    "Round",
    "RoundPrompt",
    "Run",
    "Sample",
    "StageCount",
    "TeacherAnswer",
    "TeacherBudget",
    "TrainingCheckpoint",
    "Unit",
    "Update",
    "UpdateGroup",
    "Worker",
]
