"""A worker's contexts: one for each run whose units it does. They share a cache that holds one model at a time.

The settings that affect a result come from the run's row. The locations of the stores, the times to wait and the device
come from the worker's own settings.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from illume_db.runs import run_of
from illume_db.sessions import transaction
from illume_loop.artifacts.checkpoints import CheckpointStore
from illume_loop.artifacts.images import ImageStore
from illume_loop.files import Root
from illume_loop.hooks import OnProgress, ignore
from illume_loop.loop.context import ModelCache, RunContext, Toolbox
from illume_loop.loop.gate_plans import gate_plans
from illume_loop.loop.prompts import domain_of_run
from illume_loop.settings import Settings, load_settings

OWN_SECTIONS = ("store", "cluster", "runtime")

MOST_FRESH_IMAGES = 4096
"""The most images that a worker keeps in memory from a drawing to its assessment. A worker that only draws would
otherwise keep all of them."""


class RunContexts:
    """The contexts of a worker, by run."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        toolbox: Toolbox,
        *,
        device: str,
        cache: Path,
        scratch: Path,
        on_load: Callable[[str], None],
        on_progress: OnProgress = ignore,
    ) -> None:
        """Open the stores.

        `on_load` is called with the sha256 of each loaded checkpoint, and `on_progress` after each piece of work.
        """
        root = Root(settings.store.artifacts_url)
        self._engine, self._settings, self._toolbox, self._scratch = engine, settings, toolbox, scratch
        self._on_progress = on_progress
        self._images = ImageStore(root, on_progress)
        cached = cache / "checkpoints"
        self._checkpoints = CheckpointStore(root, cached, always_cache=True, on_progress=on_progress)
        self._shelf = ModelCache(
            self._checkpoints, toolbox, device, capacity=1, on_load=on_load, on_progress=on_progress
        )
        self._contexts: dict[int, tuple[dict[str, Any], RunContext]] = {}

    def of_run(self, run_id: int) -> RunContext:
        """Return the context of a run; make a new one if the stored settings of the run have changed."""
        with transaction(self._engine) as session:
            run = run_of(session, run_id)
            stored, run_key = run.settings, run.key
        if run_id not in self._contexts or self._contexts[run_id][0] != stored:
            self._contexts[run_id] = stored, self._make(run_id, run_key, stored)
        return self._contexts[run_id][1]

    def tidy(self) -> None:
        """Drop the oldest images above the limit, which no assessment used. Call it between two units."""
        for _, context in self._contexts.values():
            fresh = context.fresh_images
            for name in list(fresh)[: max(0, len(fresh) - MOST_FRESH_IMAGES)]:
                del fresh[name]

    def _make(self, run_id: int, run_key: str, stored: dict[str, Any]) -> RunContext:
        settings = merged(self._settings, stored)
        with transaction(self._engine) as session:
            domain = domain_of_run(session, run_id, settings)
        return RunContext(
            engine=self._engine,
            run_id=run_id,
            run_key=run_key,
            settings=settings,
            domain=domain,
            plans=gate_plans(domain, settings),
            images=self._images,
            checkpoints=self._checkpoints,
            models=self._shelf,
            toolbox=self._toolbox,
            scratch=self._scratch,
            on_progress=self._on_progress,
        )


def merged(own: Settings, stored: dict[str, dict[str, object]]) -> Settings:
    """Return a run's stored settings, with this process's own stores, cluster and runtime settings."""
    of_run = load_settings(stored=stored, environ={})
    # The teacher's key is not stored with the run: each host has its own.
    teacher = of_run.teacher.model_copy(update={"key": own.teacher.key})
    return of_run.model_copy(update={section: getattr(own, section) for section in OWN_SECTIONS} | {"teacher": teacher})
