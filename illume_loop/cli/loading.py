"""Models and domains for the commands that need one: a version of a run, a checkpoint directory, or a shipped base."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from illume_loop.cli.options import DEFAULT_RUN_DIR

if TYPE_CHECKING:
    from collections.abc import Callable

    from illume_loop.assess.calibration import Calibration
    from illume_loop.assess.referee import Referee
    from illume_loop.domains.protocol import Domain
    from illume_loop.models.protocol import UnifiedModel


BASE = "v0001"
"""The first version of every run."""


def open_domain(run_dir: Path) -> Domain:
    """The domain of the run in `run_dir` with its prompts, or of the settings where there is no run.

    Raises NotFoundError, PromptFileError.
    """
    from illume_loop.cli.runs import open_run, settings_for
    from illume_loop.domains import get_domain
    from illume_loop.loop.prompting import domain_of_run, prompts_in_file

    settings = settings_for(run_dir)
    if settings.run.prompts and is_run(run_dir):
        with open_run(run_dir) as run:
            return domain_of_run(run.session, run.run_id, settings)
    return get_domain(settings.run.domain, prompts_in_file(settings))


def open_referee(run_dir: Path, domain: Domain, model: str) -> tuple[str, Referee]:
    """(name, referee): who decides where the domain has no checker, loaded when it is needed.

    It is the base of the run in `run_dir`; where there is no run, the model that is asked for itself.
    """
    from functools import cache, partial

    from illume_loop.assess.referee import Referee
    from illume_loop.cli.runs import settings_for
    from illume_loop.loop.plan import derived_seed

    settings = settings_for(run_dir)
    name = BASE if is_run(run_dir) else model
    take = cache(lambda: load(name, run_dir)[1])
    seed_of = partial(derived_seed, "referee", settings.run.seed)
    assess = settings.assess
    return name, Referee(
        domain, take, seed_of, assess.questions, assess.retries, assess.batch_size, load_calibration(run_dir)
    )


def guidance_for(asked: float | None, run_dir: Path) -> float:
    """The guidance asked for, or the one at which the gate of the run (or of the defaults) compares models."""
    from illume_loop.cli.runs import settings_for

    return settings_for(run_dir).gate.guidance_scale if asked is None else asked


def load(name: str | None, run_dir: Path) -> tuple[str, UnifiedModel]:
    """(name, model). With no name: the active version of the run in `run_dir`, or the base where there is no run.

    Raises NotFoundError, CorruptArtifactError, NotARunDirectoryError.
    """
    shown, _, model = load_named(name, run_dir)
    return shown, model


def load_named(name: str | None, run_dir: Path) -> tuple[str, str, UnifiedModel]:
    """(name, sha256 of the checkpoint, model); see `load`."""
    shown, sha256, take = locate(name, run_dir)
    return shown, sha256, take()


def locate(name: str | None, run_dir: Path) -> tuple[str, str, Callable[[], UnifiedModel]]:
    """(name, sha256 of the checkpoint, what loads the model); see `load`."""
    from illume_loop.artifacts.checkpoints import checkpoint_sha256
    from illume_loop.cli.runs import settings_for
    from illume_loop.errors import NotFoundError

    settings = settings_for(run_dir)
    shown, path = _checkpoint(name, run_dir, settings.run.base)
    if not (path / "config.json").is_file():
        raise NotFoundError(kind="checkpoint", name=str(path))

    def take() -> UnifiedModel:
        from illume_loop.models.registry import load_model
        from illume_loop.runtime import prepare

        prepare(settings.runtime)
        return load_model(path, device=settings.runtime.device, weights=settings.runtime.weights)

    return shown, checkpoint_sha256(path), take


def load_calibration(run_dir: Path) -> Calibration | None:
    """The calibration of the run in `run_dir`, or the settings' file where there is no run; None where none is asked.

    Raises CalibrationFileError, and UsageError for one that is still to be fitted.
    """
    from illume_loop.assess.calibration import read_calibration
    from illume_loop.cli.runs import open_run, settings_for
    from illume_loop.errors import UsageError
    from illume_loop.loop.calibrating import AUTO, calibration_in

    wanted = settings_for(run_dir).assess.calibration
    if not wanted:
        return None
    if is_run(run_dir):
        with open_run(run_dir) as run:
            return calibration_in(run.session, run.run_id)
    if wanted == AUTO:
        raise UsageError("outside of a run, assess.calibration must name a file; make one with `illume-loop judge fit`")
    return read_calibration(Path(wanted))


def is_run(run_dir: Path) -> bool:
    """Whether a run is meant: the default directory may be missing, one that was named may not."""
    return run_dir != DEFAULT_RUN_DIR or run_dir.exists()


def _checkpoint(name: str | None, run_dir: Path, base: str) -> tuple[str, Path]:
    from illume_loop.models.hub import is_hub_id, is_there
    from illume_loop.models.shipped import SHIPPED, base_path

    outside = not is_run(run_dir)
    wanted = base if name is None and outside else name
    if wanted is not None and (
        outside or wanted in SHIPPED or is_there(Path(wanted) / "config.json") or is_hub_id(wanted)
    ):
        return wanted, base_path(wanted)
    return _of_run(wanted, run_dir)


def _of_run(name: str | None, run_dir: Path) -> tuple[str, Path]:
    from illume_loop.cli.runs import open_run

    with open_run(run_dir) as run:
        return run.checkpoint(name)
