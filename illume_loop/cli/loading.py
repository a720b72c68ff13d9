"""Loads the models, domains, referees and calibrations that commands name."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from illume_loop.cli.options import DEFAULT_RUN_DIR
from illume_loop.cli.output import hint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from illume_loop.judge.calibration import Calibration
    from illume_loop.judge.referee import Referee
    from illume_loop.protocols import Domain, Prompt, UnifiedModel
    from illume_loop.settings import Settings


BASE = "v0001"
"""The first version of every run."""


def open_domain(run_dir: Path, model: str | None = None) -> Domain:
    """Return the domain in which `model` draws.

    A version of the run in `run_dir` draws in the run's domain, with the run's prompts; any other model draws in the
    domain that it was made for. The variable ILLUME_RUN__DOMAIN overrides both.
    Raises NotFoundError, PromptFileError, and HubError if the hub does not answer.
    """
    from illume_loop.cli.runs import settings_for
    from illume_loop.domains import get_domain
    from illume_loop.loop.prompts import domain_for, prompts_in_file

    settings = settings_for(run_dir)
    chosen = settings.provenance["run.domain"] not in ("default", "the run")
    if chosen or (is_run(run_dir) and not (model and _is_outside(model, run_dir))):
        return domain_of_settings(settings, run_dir)
    _, checkpoint = _checkpoint(model, run_dir, settings.run.base)
    return get_domain(domain_for(checkpoint, settings), prompts_in_file(settings))


def open_domain_of_suites(run_dir: Path, model: str | None) -> Domain:
    """Return the domain whose prompts measure a model: the run's if there is one; otherwise as `open_domain` does."""
    return open_domain(run_dir, None if is_run(run_dir) else model)


def domain_of_settings(settings: Settings, run_dir: Path) -> Domain:
    """Return the domain that the settings name, with the prompts of the run in `run_dir` if there is one."""
    from illume_loop.cli.runs import open_run
    from illume_loop.domains import get_domain
    from illume_loop.loop.prompts import domain_of_run, prompts_in_file, with_domain

    settings = with_domain(settings)
    if settings.run.prompts and is_run(run_dir):
        with open_run(run_dir) as run:
            return domain_of_run(run.session, run.run_id, settings)
    return get_domain(settings.run.domain, prompts_in_file(settings))


def parsed(domain: Domain, prompt: str, command: Sequence[str], model: str | None, run_dir: Path) -> Prompt:
    """Parse a user's prompt in the domain.

    Raises PromptOutsideGrammarError, whose hint is the command that accepts the prompt unchanged.
    """
    from illume_loop.errors import PromptOutsideGrammarError

    try:
        return domain.parse(prompt)
    except PromptOutsideGrammarError as error:
        if not prompt.strip():
            raise
        words = ["illume-loop", *command, *(["--model", model] if model else [])]
        words += ["--run-dir", str(run_dir)] if run_dir != DEFAULT_RUN_DIR else []
        hint_ = (
            f"{error.fields['hint']}. The domain '{domain.name}' takes no other prompts; the domain text takes any: "
            f"`ILLUME_RUN__DOMAIN=text {shlex.join(words)}`"
        )
        raise PromptOutsideGrammarError(text=prompt, hint=hint_) from None


def warn_of_unknown_words(name: str, model: UnifiedModel, prompts: Sequence[str]) -> None:
    """Warn on stderr, in one sentence, of words in the prompts that the model has never seen."""
    from illume_loop.models.shipped import unknown_words_message

    sentence = unknown_words_message(name, model, prompts)
    if sentence:
        hint(f"illume-loop: {sentence}")


def open_referee(run_dir: Path, domain: Domain, model: str) -> tuple[str, Referee]:
    """Return (name, referee), the judge of draws in a domain without a checker; its model loads on first use.

    The referee is the base of the run in `run_dir`, or without a run, `model` itself.
    """
    from functools import cache, partial

    from illume_loop.cli.runs import settings_for
    from illume_loop.judge.referee import Referee
    from illume_loop.loop.unit_inputs import derived_seed

    settings = settings_for(run_dir)
    name = BASE if is_run(run_dir) else model
    take = cache(lambda: load(name, run_dir)[1])
    seed_of = partial(derived_seed, "referee", settings.run.seed)
    assess = settings.assess
    return name, Referee(
        domain, take, seed_of, assess.questions, assess.retries, assess.batch_size, load_calibration(run_dir)
    )


def guidance_for(asked: float | None, run_dir: Path) -> float:
    """Return the requested guidance scale, or that of the gate in the run's settings (without a run, the defaults)."""
    from illume_loop.cli.runs import settings_for

    return settings_for(run_dir).gate.guidance_scale if asked is None else asked


def load(name: str | None, run_dir: Path) -> tuple[str, UnifiedModel]:
    """Load a model; return (name, model).

    Without a name, it is the active version of the run in `run_dir`, or without a run, the base.
    Raises NotFoundError, CorruptArtifactError, NotARunDirectoryError.
    """
    shown, _, model = load_named(name, run_dir)
    return shown, model


def load_named(name: str | None, run_dir: Path) -> tuple[str, str, UnifiedModel]:
    """Load a model; return (name, sha256 of the checkpoint, model). See `load`."""
    shown, sha256, take = find_model(name, run_dir)
    return shown, sha256, take()


def find_model(name: str | None, run_dir: Path) -> tuple[str, str, Callable[[], UnifiedModel]]:
    """Find a model; return (name, sha256 of the checkpoint, a function that loads the model). See `load`."""
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
    """Return the calibration of the run in `run_dir`, or without a run, the one in the settings' file.

    Returns None if `assess.calibration` is empty. Raises CalibrationFileError, and UsageError for "auto" without a run.
    """
    from illume_loop.cli.runs import open_run, settings_for
    from illume_loop.errors import UsageError
    from illume_loop.judge.calibration import read_calibration
    from illume_loop.loop.context import calibration_in
    from illume_loop.loop.stages.calibrate import AUTO

    wanted = settings_for(run_dir).assess.calibration
    if not wanted:
        return None
    if is_run(run_dir):
        with open_run(run_dir) as run:
            return calibration_in(run.session, run.run_id)
    if wanted == AUTO:
        raise UsageError("without a run, assess.calibration must name a file; make one with `illume-loop judge fit`")
    return read_calibration(Path(wanted))


def is_run(run_dir: Path) -> bool:
    """Return True if `run_dir` must hold a run: a named directory must, the default one only if it exists."""
    return run_dir != DEFAULT_RUN_DIR or run_dir.exists()


def _checkpoint(name: str | None, run_dir: Path, base: str) -> tuple[str, Path]:
    from illume_loop.models.shipped import base_path

    wanted = base if name is None and not is_run(run_dir) else name
    if wanted is not None and _is_outside(wanted, run_dir):
        return wanted, base_path(wanted)
    return _of_run(wanted, run_dir)


def _is_outside(name: str, run_dir: Path) -> bool:
    """Return True if a name is not a version of the run in `run_dir`."""
    from illume_loop.models.hub import is_hub_id, is_there
    from illume_loop.models.shipped import SHIPPED

    return not is_run(run_dir) or name in SHIPPED or is_there(Path(name) / "config.json") or is_hub_id(name)


def _of_run(name: str | None, run_dir: Path) -> tuple[str, Path]:
    from illume_loop.cli.runs import open_run

    with open_run(run_dir) as run:
        return run.checkpoint(name)
