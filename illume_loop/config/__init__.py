"""Settings: what can be set, within which bounds, and which source gave each value.

Each file holds tables of the TOML file with what belongs to them; settings.py puts them together, and sources.py reads
them. Settings never change once they are loaded.
"""

from illume_loop.config.assess import AssessSettings, TeacherSettings
from illume_loop.config.curate import CurateSettings
from illume_loop.config.dashboard import DashboardSettings
from illume_loop.config.gate import GateSettings
from illume_loop.config.run import AUTO, LoopSettings, RunSettings
from illume_loop.config.runtime import RuntimeSettings
from illume_loop.config.sampling import SamplingSettings
from illume_loop.config.section import Section, bounds
from illume_loop.config.service import ClusterSettings, StoreSettings
from illume_loop.config.settings import Settings, field_names, fields
from illume_loop.config.sources import load_settings
from illume_loop.config.train import TrainSettings

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
