"""The calibration of a run: read from a file or fitted with the base, and kept in the database.

Invariants:

- A run has one calibration from its first assessment to its last, on every host. Later changes of the file do not
  matter.
- A calibration that is not of the run's own base and domain is refused before anything is made.
- A unit of the first round fits an automatic calibration before the round draws anything. The result follows from the
  settings and the base, on any worker.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from sqlalchemy.orm import Session

from illume_db.judging import add_calibration, calibration_of_run
from illume_db.runs import add_event
from illume_db.sessions import transaction
from illume_db.units import NewUnit
from illume_db.versions import base_version
from illume_loop.artifacts.checkpoints import checkpoint_sha256
from illume_loop.errors import WrongCalibrationError
from illume_loop.judge.calibration import Calibration, Source, read_calibration
from illume_loop.judge.fitting import OnItems, calibrate, checker_labels, draw_set, read_set
from illume_loop.loop.context import RunContext, stored_calibration
from illume_loop.loop.unit_inputs import derived_seed
from illume_loop.settings import Settings

AUTO = "auto"
CALIBRATION = "calibration"
"""The suite of the unit that fits the calibration."""

AUTO_PROMPTS, AUTO_SAMPLES = 192, 4
"""The draws of an automatic fit. It takes some seconds on two cores, and the error of its AUC is about 0.01."""


def check_calibration(settings: Settings, base: Path) -> None:
    """Refuse a calibration that a new run could not use. Raises CalibrationFileError, WrongCalibrationError."""
    wanted = settings.assess.calibration
    if wanted and wanted != AUTO:
        _check_source(wanted, read_calibration(Path(wanted)), settings, checkpoint_sha256(base))


def keep_calibration_of_file(context: RunContext) -> None:
    """Store the calibration of the file that the settings name, if they name one and the run has none yet.

    Raises CalibrationFileError, WrongCalibrationError.
    """
    wanted = context.settings.assess.calibration
    if wanted in ("", AUTO) or stored_calibration(context.engine, context.run_id) is not None:
        return
    with transaction(context.engine) as session:
        base = base_version(session, context.run_id)
    found = read_calibration(Path(wanted))
    _check_source(wanted, found, context.settings, base.sha256)
    with transaction(context.engine) as session:
        _add(session, context.run_id, found, context.clock())


def calibrating_units(settings: Settings, session: Session, run_id: int) -> list[NewUnit]:
    """Return the unit that fits a run's calibration, if the settings ask for one and the run has none yet."""
    if settings.assess.calibration != AUTO or calibration_of_run(session, run_id) is not None:
        return []
    # The unit has no items, because they would count among the items of the gate.
    return [NewUnit("evaluate", "evaluate/calibration", {"suite": CALIBRATION})]


def fit_calibration_of_run(context: RunContext, on_items: OnItems) -> Callable[[Session], None]:
    """Fit the base's calibration with the checker's labels, and return the function that stores it.

    The images are drawn for the fit alone. Raises TooFewLabelsError.
    """
    with transaction(context.engine) as session:
        base = base_version(session, context.run_id)
    model, domain, settings = context.models.take(base.sha256), context.domain, context.settings
    seed = derived_seed("calibration", settings.run.seed)
    guidance_scale = settings.sampling.guidance_scale
    count = AUTO_PROMPTS * AUTO_SAMPLES
    shown = draw_set(
        model,
        domain,
        num_prompts=AUTO_PROMPTS,
        samples_per_prompt=AUTO_SAMPLES,
        seed=seed,
        guidance_scale=guidance_scale,
        batch_size=settings.sampling.batch_size,
        on_items=lambda done, _: on_items(done, 2 * count),
    )
    reading = read_set(
        model, domain, shown, lambda done, _: on_items(count + done, 2 * count), settings.assess.batch_size
    )
    source = Source(judge=base.sha256, domain=domain.name, labels="checker", seed=seed, guidance_scale=guidance_scale)
    labels = checker_labels(domain, context.on_progress)(shown)
    found = calibrate(source, domain, shown, reading, labels)
    context.on_progress()
    return lambda session: _add(session, context.run_id, found, context.clock())


def _add(session: Session, run_id: int, calibration: Calibration, at: datetime) -> None:
    add_calibration(session, run_id, sha256=calibration.sha256, content=calibration.model_dump(mode="json"), at=at)
    quality = calibration.overall.reliability
    told = f"the judge is calibrated ({calibration.sha256[:12]}): AUC {quality.auc or 0:.3f}, ECE {quality.ece:.3f}"
    add_event(session, run_id, "calibrated", told, at=at)


def _check_source(path: str, calibration: Calibration, settings: Settings, base_sha256: str) -> None:
    for what, found, expected in (
        ("domain", calibration.source.domain, settings.run.domain),
        ("judge", calibration.source.judge, base_sha256),
    ):
        if found != expected:
            raise WrongCalibrationError(path=path, what=what, found=found[:12], expected=expected[:12])
