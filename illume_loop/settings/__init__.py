"""The settings of a run: their names, bounds and defaults, and the source of each value.

`rounds.py`, `train.py`, `grpo.py` and `hosts.py` define the tables of the TOML file, `tree.py` puts the tables
together, and `sources.py` loads them. Settings never change once they are loaded.
"""

from illume_loop.settings.grpo import GrpoSettings
from illume_loop.settings.hosts import ClusterSettings, DashboardSettings, RuntimeSettings, StoreSettings
from illume_loop.settings.rounds import (
    AUTO,
    AssessSettings,
    CurateSettings,
    GateSettings,
    LoopSettings,
    RunSettings,
    SamplingSettings,
    TeacherSettings,
)
from illume_loop.settings.section import Section, bounds
from illume_loop.settings.sources import load_settings
from illume_loop.settings.train import TrainSettings
from illume_loop.settings.tree import Settings, field_names, fields

__all__ = [
    "AUTO",
    "AssessSettings",
    "ClusterSettings",
    "CurateSettings",
    "DashboardSettings",
    "GateSettings",
    "GrpoSettings",
    "LoopSettings",
    "RunSettings",
    "RuntimeSettings",
    "SamplingSettings",
    "Section",
    "Settings",
    "StoreSettings",
    "TeacherSettings",
    "TrainSettings",
    "bounds",
    "field_names",
    "fields",
    "load_settings",
]
