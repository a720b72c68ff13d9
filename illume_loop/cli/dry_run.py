"""`illume-loop start --dry-run`: a forecast of the run's work, disk use and time. It writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from illume_loop.cli.output import hint, print_fields, print_json

if TYPE_CHECKING:
    from illume_loop.loop.forecast import Speed
    from illume_loop.protocols import Domain
    from illume_loop.settings import Settings


def show_forecast(settings: Settings, run_dir: Path, *, fresh: bool, as_json: bool) -> None:
    """Print the forecast of a start. Raises the same errors as a start raises before it writes anything."""
    from illume_loop.domains import get_domain
    from illume_loop.loop.forecast import forecast
    from illume_loop.loop.opening import check_start
    from illume_loop.loop.prompts import prompts_in_file, with_domain
    from illume_loop.loop.run_directory import check_path
    from illume_loop.models.hub import is_at_hand
    from illume_loop.models.shipped import base_path

    check_path(run_dir, fresh=fresh)
    here = is_at_hand(settings.run.base)
    if here:
        settings = with_domain(settings, run_dir)
        check_start(settings, run_dir)
    elif settings.run.domain == "auto":
        settings = settings.model_copy(update={"run": settings.run.model_copy(update={"domain": "text"})})
    ended, domain = _run_so_far(run_dir, settings)
    domain = domain or get_domain(settings.run.domain, prompts_in_file(settings))
    base = base_path(settings.run.base) if here else None
    found = forecast(settings, domain, base, run_dir, ended, _speed(settings, domain, base))
    if as_json:
        print_json(found)
        return
    print_fields(_for_people(found))
    hint("next: run the same command without --dry-run (nothing was written)")


def _run_so_far(run_dir: Path, settings: Settings) -> tuple[int, Domain | None]:
    """Return the number of ended rounds of the run in the directory, and its domain; (0, None) without a run."""
    from illume_db.rounds_table import rounds_table
    from illume_loop.loop.prompts import domain_of_run
    from illume_loop.loop.run_directory import open_run, stored_settings
    from illume_loop.loop.states import RoundState

    if stored_settings(run_dir, settings.store.database_url) is None:
        return 0, None
    with open_run(run_dir, database_url=settings.store.database_url) as run:
        rounds = rounds_table(run.session, run.run_id)
        ended = sum(RoundState(row["state"]).is_terminal for row in rounds)
        return ended, domain_of_run(run.session, run.run_id, settings)


def _speed(settings: Settings, domain: Domain, base: Path | None) -> Speed | str:
    """Return the measured speed of this machine, or the reason why it is not known."""
    from illume_loop.loop.context import default_toolbox
    from illume_loop.loop.forecast import measured_speed
    from illume_loop.runtime import prepare

    if settings.run.executor != "inline":
        return "not known: workers on other machines do the work"
    if base is None:
        return f"not known: {settings.run.base} is not on this machine yet, and a dry run downloads nothing"
    prepare(settings.runtime)
    hint("measuring this machine with one small batch")
    try:
        return measured_speed(settings, domain, base, default_toolbox(settings.runtime.weights))
    except Exception as error:  # show the plan even if the measurement fails
        return f"not known: the measurement failed with {type(error).__name__}: {error}"


def _for_people(found: dict[str, Any]) -> dict[str, Any]:
    """Return the forecast for people: sizes and times with units, names without underscores."""
    disk = {name: "not known" if value is None else _size(value) for name, value in found["disk"].items()}
    told = found["time"]
    times = {"in_all": _duration(told["seconds"])} if told["seconds"] is not None else {}
    times |= {name: _duration(seconds) for name, seconds in told.get("by_stage", {}).items()}
    times |= {"note": told["why"]} if told["why"] else {}
    shown: dict[str, Any] = found | {"disk": {key.removesuffix("_bytes"): value for key, value in disk.items()}}
    return {key.replace("_", " "): _spaced(value) for key, value in (shown | {"time": times}).items()}


def _spaced(value: Any) -> Any:
    if not isinstance(value, dict):
        return f"{value:,}" if isinstance(value, int) else value
    return {key.replace("_", " "): _spaced(inner) for key, inner in value.items()}


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
