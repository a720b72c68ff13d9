"""Settings: what can be set, within which bounds, and which source gave each value.

Each file holds tables of the TOML file with what belongs to them; tree.py puts them together, and sources.py reads
them. Settings never change once they are loaded.
"""

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
