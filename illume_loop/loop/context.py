"""The context of a run: the stores, the domain, the loaded models and the functions that its units use."""

from __future__ import annotations

import gc
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from illume_db.judging import calibration_of_run
from illume_db.sessions import transaction
from illume_loop.artifacts.checkpoints import CheckpointStore
from illume_loop.artifacts.images import ImageStore
from illume_loop.errors import CorruptArtifactError, InconsistentRunError
from illume_loop.hooks import OnProgress, ignore
from illume_loop.judge.calibration import Calibration, calibration_of
from illume_loop.loop.gate_plans import GatePlans
from illume_loop.models.registry import STORED, call_load, load_model
from illume_loop.protocols import Domain, TrainFunction, UnifiedModel
from illume_loop.settings import Settings
from illume_loop.train.candidates import train_candidate

if TYPE_CHECKING:
    from illume_loop.train.grpo import Policy

LOADED_MODELS = 2
"""The number of models kept loaded. The gate compares two."""


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The functions of a backend."""

    load_model: Callable[..., UnifiedModel]
    """Called with (path, device), and with `on_progress` if it takes one; see `call_load`."""
    train: TrainFunction


def default_toolbox(weights: str = STORED) -> Toolbox:
    """Return the functions of the backend that a checkpoint's type names; `weights` is the setting of that name.

    torch is imported only when a backend that uses it is loaded.
    """

    def load(path: Path, device: str, on_progress: OnProgress = ignore) -> UnifiedModel:
        return load_model(path, device=device, weights=weights, on_progress=on_progress)

    return Toolbox(load, train_candidate)


class ModelCache:
    """A cache of the models used last, by the digest of their verified checkpoints."""

    def __init__(
        self,
        checkpoints: CheckpointStore,
        toolbox: Toolbox,
        device: str,
        *,
        capacity: int = LOADED_MODELS,
        on_load: Callable[[str], None] | None = None,
        on_progress: OnProgress = ignore,
    ) -> None:
        """Make an empty cache for at most `capacity` models.

        `on_load` is called with the sha256 of each checkpoint that was loaded. The loaded models call `on_progress`
        while they work.
        """
        self._on_progress = on_progress
        self._capacity = capacity
        self._on_load = on_load
        self._checkpoints = checkpoints
        self._toolbox = toolbox
        self._device = device
        self._loaded: OrderedDict[str, UnifiedModel] = OrderedDict()

    def take(self, sha256: str) -> UnifiedModel:
        """Return the model of a checkpoint; load it if it is not in the cache. Raises CorruptArtifactError."""
        if sha256 not in self._loaded:
            path = self._checkpoints.local_path(sha256)
            # The oldest model is dropped before the new one is loaded, as the device may not have room for one more.
            while len(self._loaded) >= self._capacity:
                self._loaded.popitem(last=False)
                _give_memory_back()
            self._loaded[sha256] = call_load(self._toolbox.load_model, path, self._device, self._on_progress)
            self._on_progress()
            if self._on_load is not None:
                self._on_load(sha256)
        self._loaded.move_to_end(sha256)
        return self._loaded[sha256]


def _give_memory_back() -> None:
    """Release the device memory of a dropped model. Its blocks would stay reserved in the sizes that it used."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass(frozen=True, slots=True)
class LivePolicy:
    """A policy in memory whose state is exactly that of the saved state in `folder`.

    `sha256` names its weights in the artifact store, if they were published for workers.
    """

    folder: str
    policy: Policy
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class DrawingPolicy:
    """A policy in memory that only draws, with the names of its base and of its weights in the artifact store."""

    base_sha256: str
    sha256: str
    policy: Policy


def utc_now() -> datetime:
    """Return the current time in UTC, with its zone."""
    return datetime.now(UTC)


@dataclass(slots=True)
class RunContext:
    """The objects that the units of one run share in this process."""

    engine: Engine
    run_id: int
    run_key: str
    settings: Settings
    domain: Domain
    plans: GatePlans
    images: ImageStore
    checkpoints: CheckpointStore
    models: ModelCache
    toolbox: Toolbox
    scratch: Path
    clock: Callable[[], datetime] = utc_now
    on_progress: OnProgress = ignore
    """Called after each piece of a unit's work that is smaller than an item, such as one check of an image."""
    fresh_images: dict[str, Image.Image] = field(default_factory=dict)
    """Images drawn here and not assessed yet, by sha256. An image that is missing here is read from the store."""
    live_policy: LivePolicy | None = None
    """The policy as the last update here left it, so that the next update need not load its state."""
    drawing_policy: DrawingPolicy | None = None
    """The policy that drew here last, so that the next unit need not load it."""
    _calibration: Calibration | None = field(default=None, init=False)

    @property
    def calibration(self) -> Calibration | None:
        """The judge's calibration; None if the settings ask for none. Raises CorruptArtifactError."""
        if self._calibration is None and self.settings.assess.calibration:
            self._calibration = stored_calibration(self.engine, self.run_id)
            if self._calibration is None:
                raise InconsistentRunError(what="the run judges by a calibration and has none")
        return self._calibration

    @property
    def database_url(self) -> str:
        """The URL of the run's database, with its password."""
        return self.engine.url.render_as_string(hide_password=False)

    @property
    def trackers(self) -> Path:
        """The folder that trackers of trainings write to, unless their own variables name another place."""
        return self.scratch.parent / "trackers" / self.run_key[:8]

    def take_image(self, sha256: str) -> Image.Image:
        """Return a sample's image: the fresh one if this process just drew it, else the one in the store."""
        if sha256 in self.fresh_images:
            return self.fresh_images.pop(sha256)
        return self.images.read(sha256)


def stored_calibration(engine: Engine, run_id: int) -> Calibration | None:
    """Return the calibration of a run from the database; see `calibration_in`."""
    with transaction(engine) as session:
        return calibration_in(session, run_id)


def calibration_in(session: Session, run_id: int) -> Calibration | None:
    """Return the calibration of a run; None if it has none.

    Raises CorruptArtifactError if it does not match its hash.
    """
    row = calibration_of_run(session, run_id)
    if row is None:
        return None
    found = calibration_of(row.content, f"of run {run_id}")
    if found.sha256 != row.sha256:
        raise CorruptArtifactError(path=f"calibration of run {run_id}", expected=row.sha256, found=found.sha256)
    return found
