"""The calibration of a run: fixed before its first round, from a file or fitted with the base, kept in the database.

Guarantee: a run has one calibration from its first unit to its last, on every host, whatever becomes of the file. It is
of the run's own base and domain, or it is refused before anything is made.
"""

from __future__ import annotations

import logging
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from db.queries import progress as reads
from db.queries.calibrations import calibration_of_run
from db.sessions import transaction
from db.writes.calibrations import add_calibration
from db.writes.runs import add_event
from illume_loop.artifacts.checkpoints import checkpoint_sha256
from illume_loop.assess.calibration import Calibration, Source, calibration_of, read_calibration
from illume_loop.assess.labelling import calibrate, checker_labels, draw_set, read_set
from illume_loop.config import Settings
from illume_loop.errors import CorruptArtifactError, SettingsError, WrongCalibrationError
from illume_loop.loop.plan import derived_seed
from illume_loop.loop.workbench import Workbench

AUTO = "auto"
AUTO_PROMPTS, AUTO_SAMPLES = 192, 4
"""Draws for which an automatic fit takes some seconds on two cores, and its AUC has an error of about a hundredth."""

log = logging.getLogger(__name__)


def check_calibration(settings: Settings, base: Path) -> None:
    """Refuse a calibration that a new run could not use.

    Raises CalibrationFileError, WrongCalibrationError, and SettingsError for an automatic one where no process has a
    model at hand when a run begins.
    """
    wanted = settings.assess.calibration
    if wanted == AUTO and settings.run.executor == "celery":
        raise SettingsError(
            reason="assess.calibration = 'auto' needs run.executor = 'inline'; fit one with `illume-loop judge fit` "
            "and name its file"
        )
    if wanted and wanted != AUTO:
        _check_source(wanted, read_calibration(Path(wanted)), settings, checkpoint_sha256(base))


def ensure_calibration(bench: Workbench) -> Calibration | None:
    """The run's calibration, stored now where it is not yet; None where the settings ask for none.

    Raises CalibrationFileError, WrongCalibrationError, TooFewLabelsError, CorruptArtifactError.
    """
    settings, wanted = bench.settings, bench.settings.assess.calibration
    found = stored_calibration(bench.engine, bench.run_id)
    if found is not None or not wanted:
        return found
    with transaction(bench.engine) as session:
        base = reads.base_version(session, bench.run_id)
    if wanted == AUTO:
        log.info("fitting the calibration of %s", base.name)
        found = _fitted(bench, base.sha256)
    else:
        found = read_calibration(Path(wanted))
        _check_source(wanted, found, settings, base.sha256)
    content = found.model_dump(mode="json")
    with transaction(bench.engine) as session:
        add_calibration(session, bench.run_id, sha256=found.sha256, content=content, at=bench.clock())
        quality = found.overall.reliability
        told = f"the judge is calibrated ({found.sha256[:12]}): AUC {quality.auc or 0:.3f}, ECE {quality.ece:.3f}"
        add_event(session, bench.run_id, "calibrated", told, at=bench.clock())
    return found


def stored_calibration(engine: Engine, run_id: int) -> Calibration | None:
    """The calibration that a run has in the database; see `calibration_in`."""
    with transaction(engine) as session:
        return calibration_in(session, run_id)


def calibration_in(session: Session, run_id: int) -> Calibration | None:
    """The calibration that a run has; None where it has none.

    Raises CorruptArtifactError where it is not what it was.
    """
    row = calibration_of_run(session, run_id)
    if row is None:
        return None
    found = calibration_of(row.content, f"of run {run_id}")
    if found.sha256 != row.sha256:
        raise CorruptArtifactError(path=f"calibration of run {run_id}", expected=row.sha256, found=found.sha256)
    return found


def _fitted(bench: Workbench, base_sha256: str) -> Calibration:
    """A calibration of the base with the checker's labels, on draws of its own."""
    model, domain = bench.models.take(base_sha256), bench.domain
    seed = derived_seed("calibration", bench.settings.run.seed)
    guidance_scale = bench.settings.sampling.guidance_scale
    shown = draw_set(
        model,
        domain,
        num_prompts=AUTO_PROMPTS,
        samples_per_prompt=AUTO_SAMPLES,
        seed=seed,
        guidance_scale=guidance_scale,
    )
    source = Source(judge=base_sha256, domain=domain.name, labels="checker", seed=seed, guidance_scale=guidance_scale)
    return calibrate(source, domain, shown, read_set(model, domain, shown), checker_labels(domain)(shown))


def _check_source(path: str, calibration: Calibration, settings: Settings, base_sha256: str) -> None:
    for what, found, expected in (
        ("domain", calibration.source.domain, settings.run.domain),
        ("judge", calibration.source.judge, base_sha256),
    ):
        if found != expected:
            raise WrongCalibrationError(path=path, what=what, found=found[:12], expected=expected[:12])
