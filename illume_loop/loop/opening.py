"""Open a run to work on it: migrate the database, import the base, add the run's row or check its settings."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from illume_db.leases import take_back_leases
from illume_db.manifests import drop_checkpoints_of_run
from illume_db.migrate import upgrade
from illume_db.rounds import latest_round, num_retries
from illume_db.runs import add_event, add_run, find_run, leader_of
from illume_db.sessions import open_engine, transaction
from illume_db.tables import Run
from illume_db.versions import add_version, checkpoint_digest
from illume_loop.artifacts.checkpoints import Checkpoint, CheckpointStore
from illume_loop.domains import get_domain
from illume_loop.domains.text.prompt_set import PromptSet
from illume_loop.errors import (
    InconsistentRunError,
    MissingExtraError,
    NoCheckerError,
    OtherStoreError,
    RunLockedError,
    SettingsChangedError,
)
from illume_loop.loop.context import ModelCache, RunContext, Toolbox, utc_now
from illume_loop.loop.gate_plans import gate_plans
from illume_loop.loop.promotion import repair
from illume_loop.loop.prompts import domain_of_run, keep_prompts, prompts_in_file
from illume_loop.loop.run_directory import (
    RunDirectory,
    mark,
    open_stores,
    run_database_url,
    stored_settings,
)
from illume_loop.loop.stages.calibrate import AUTO, check_calibration, keep_calibration_of_file
from illume_loop.loop.stages.plan import round_prompts
from illume_loop.models.shipped import base_path
from illume_loop.protocols import Domain
from illume_loop.settings import Settings, TrainSettings
from illume_loop.telemetry.observing import check_telemetry
from illume_loop.train.trackers import check_tracker

MAY_CHANGE = (
    "run.name",
    "run.rounds",
    "run.executor",
    "run.preflight",
    "train.report_to",
    "store.",
    "cluster.",
    "runtime.",
    "train.ray_address",
    "train.worker_resources",
    "teacher.url",
    "teacher.key",
    "teacher.timeout_s",
    "teacher.retries",
    "teacher.max_calls",
    "teacher.parallel",
    "dashboard.",
    "curate.reviews",
    "gate.closing",
)
"""The settings that may change in a run, because they do not change what is computed.

Of the teacher they are all settings but `teacher.model`. `curate.reviews` may change so that a round that waits for
reviews can continue. `gate.closing` measures versions that are decided already."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StartInputs:
    """The inputs of a new run, checked before anything is made."""

    prompts: PromptSet
    """The prompts of the file that the settings name."""


def check_start(settings: Settings, run_dir: Path) -> StartInputs:
    """Refuse settings that cannot be met, before the run has a directory.

    An existing run is only checked for missing packages, because it met the other demands when it was made. Raises
    NotFoundError for a domain or base that does not exist, PromptFileError, NoCheckerError, UsageError for too few
    prompts, for a calibration that is invalid or of another base, and for a tracker that is not installed,
    MissingExtraError for packages that the settings need.
    """
    check_telemetry(settings.runtime)
    if settings.run.executor == "inline":
        # With workers, the packages have to be on their hosts and not here.
        check_tracker(settings.train.report_to)
        _check_ray(settings.train)
    if stored_settings(run_dir, settings.store.database_url) is not None:
        return StartInputs(PromptSet())
    prompts = prompts_in_file(settings)
    domain = get_domain(settings.run.domain, prompts)
    _check_judges(settings, domain)
    round_prompts(domain, settings, 1)
    gate_plans(domain, settings)
    check_calibration(settings, base_path(settings.run.base))
    return StartInputs(prompts)


def _check_judges(settings: Settings, domain: Domain) -> None:
    if domain.exact:
        return
    if settings.assess.assessor == "checker":
        instead = "set it to self, frozen or teacher"
        raise NoCheckerError(domain=domain.name, what="assess.assessor = 'checker'", instead=instead)
    if settings.assess.calibration == AUTO:
        instead = "fit one with `illume-loop judge fit --labels teacher` or `--labels human`, and name its file"
        raise NoCheckerError(domain=domain.name, what="assess.calibration = 'auto'", instead=instead)


def _check_ray(settings: TrainSettings) -> None:
    """Raise MissingExtraError if trainings are to run on Ray and it is not installed."""
    if settings.backend == "ray" and not (find_spec("ray") and find_spec("deepspeed")):
        raise MissingExtraError(feature="train.backend = 'ray'", extra="cluster")


@contextmanager
def open_context(
    settings: Settings, demands: StartInputs, directory: RunDirectory, toolbox: Toolbox, fresh_training: bool = False
) -> Iterator[RunContext]:
    """Open everything that the units of a run need; make the run if it is new.

    With `fresh_training`, no training continues from its checkpoints. Leases that a dead predecessor left are taken
    back. This is safe because the directory's lock is held.
    """
    is_new = stored_settings(directory.path, settings.store.database_url) is None
    url = run_database_url(directory.path, settings.store.database_url)
    upgrade(url)
    engine = open_engine(url)
    try:
        images, checkpoints = open_stores(directory.path, settings.store.artifacts_url)
        if is_new:
            base = checkpoints.publish(base_path(settings.run.base))
            # The key is written first, so that a start that is killed before it adds the row begins again with it.
            mark(directory, url, begun=False)
            run_id = _begin_run(engine, settings, directory.key, base, demands.prompts)
        else:
            run_id, settings = _continue_run(engine, settings, directory, checkpoints)
        mark(directory, url, begun=True)
        if fresh_training:
            _forget_trainings(engine, run_id)
        with transaction(engine) as session:
            domain = domain_of_run(session, run_id, settings)
        context = RunContext(
            engine=engine,
            run_id=run_id,
            run_key=directory.key,
            settings=settings,
            domain=domain,
            plans=gate_plans(domain, settings),
            images=images,
            checkpoints=checkpoints,
            models=ModelCache(checkpoints, toolbox, settings.runtime.device),
            toolbox=toolbox,
            scratch=directory.scratch,
        )
        keep_calibration_of_file(context)
        yield context
    finally:
        engine.dispose()


def changed_settings(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the dotted names of the settings that differ and must not change in a run.

    A setting that an older release did not know counts as its default, so a run of that release can be continued.
    """
    old, new = _flat(Settings().resolved()) | _flat(before), _flat(after)
    return sorted(
        name for name in old.keys() | new.keys() if old.get(name) != new.get(name) and not name.startswith(MAY_CHANGE)
    )


def _begin_run(engine: Engine, settings: Settings, key: str, base: Checkpoint, prompts: PromptSet) -> int:
    """Add the run with its base and its prompts; return its id."""
    with transaction(engine) as session:
        run = add_run(
            session,
            key=key,
            name=settings.run.name,
            seed=settings.run.seed,
            settings=settings.resolved(),
            at=utc_now(),
        )
        add_version(
            session,
            run.id,
            parent_id=None,
            state="active",
            sha256=base.sha256,
            num_bytes=base.num_bytes,
            origin=settings.run.base,
            at=utc_now(),
        )
        keep_prompts(session, run.id, prompts)
        add_event(session, run.id, "started", f"run started from {settings.run.base}", at=utc_now())
        return run.id


def _continue_run(
    engine: Engine, settings: Settings, directory: RunDirectory, checkpoints: CheckpointStore
) -> tuple[int, Settings]:
    """Store the settings in the run's row; return the run's id, and the settings that hold from now on.

    Raises SettingsChangedError, OtherStoreError, RunLockedError.
    """
    with transaction(engine) as session:
        run = find_run(session, directory.key)
        if run is None:
            raise InconsistentRunError(what=f"the row of the run in {directory.path} is gone since it was read")
        changed = changed_settings(run.settings, settings.resolved())
        if changed:
            raise SettingsChangedError(path=directory.path, names=", ".join(changed))
        _check_store(session, run, settings, directory.path, checkpoints)
        _take_over(session, run, directory.path, settings.run.executor)
        latest = latest_round(session, run.id)
        # A round that repeats another one does not count as one of those that were asked for.
        num_rounds = 0 if latest is None else latest.index - num_retries(session, run.id)
        if num_rounds > settings.run.rounds:
            settings = settings.with_rounds(num_rounds)
        # Workers read from the row where the teacher and Ray are, what the teacher may cost, and which tracker is used.
        told = _told_changes(run.settings, settings.resolved())
        run.settings, run.name = settings.resolved(), settings.run.name
        if told:
            add_event(session, run.id, "settings", f"settings changed: {told}", at=utc_now())
        return run.id, settings


def _check_store(session: Session, run: Run, settings: Settings, path: Path, checkpoints: CheckpointStore) -> None:
    """Refuse an artifact store other than the run's, unless it has a copy of the active version."""
    before, now = run.settings["store"]["artifacts_url"], settings.resolved()["store"]["artifacts_url"]
    if before == now:
        return
    active = checkpoint_digest(session, run.id, None)
    if active is not None and not checkpoints.has(active[1]):
        raise OtherStoreError(path=path, store=before or path, opened=now or path)


def _told_changes(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Return the settings that differ, with both values.

    Runtime settings are left out, because they differ between machines.
    """
    old, new = _flat(Settings().resolved()) | _flat(before), _flat(after)
    names = [name for name in new if old.get(name) != new[name] and not name.startswith("runtime.")]
    return ", ".join(f"{name} from {old.get(name)!r} to {new[name]!r}" for name in names)


def _take_over(session: Session, run: Run, path: Path, executor: str) -> None:
    leader = leader_of(session, run.id)
    if executor == "inline" and leader is not None:
        raise RunLockedError(path=path, pid=f"{leader}, which coordinates workers")
    num_units = take_back_leases(session, run.id, of_workers=executor == "inline")
    add_event(session, run.id, "resumed", f"run resumed, {num_units} units taken back", at=utc_now())
    repaired = repair(session, run.id)
    if repaired is not None:
        log.warning("%s", repaired)


def _forget_trainings(engine: Engine, run_id: int) -> None:
    with transaction(engine) as session:
        count = drop_checkpoints_of_run(session, run_id)
        add_event(session, run_id, "fresh training", f"{count} checkpoints of trainings given up", at=utc_now())


def _flat(settings: dict[str, Any]) -> dict[str, object]:
    return {f"{section}.{name}": value for section, values in settings.items() for name, value in values.items()}
