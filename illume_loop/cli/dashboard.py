"""`illume-loop dashboard`: serve pages that show runs, collect reviews, promote and roll back."""

from __future__ import annotations

from typing import Annotated

import typer

from illume_loop.cli.options import DEFAULT_RUN_DIR, RunDir
from illume_loop.cli.output import hint


def dashboard(
    run_dir: RunDir = DEFAULT_RUN_DIR,
    host: Annotated[
        str,
        typer.Option(
            "--host", metavar="ADDRESS", help="Address to listen on. For other machines to reach it, set a password."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="PORT", min=1, max=65_535, help="Port to listen on.")] = 8420,
) -> None:
    """Serve a dashboard of the runs in DIR's database: progress, images, judge, models, reviews."""
    import logging

    from illume_loop.cli.exit_codes import ERROR_OPTIONS
    from illume_loop.cli.runs import settings_for
    from illume_loop.dashboard.server import serve
    from illume_loop.telemetry.libraries import log_to
    from illume_loop.telemetry.logs import formatter

    ERROR_OPTIONS.run_dir = run_dir
    settings = settings_for(run_dir)
    lines = logging.StreamHandler()
    lines.setFormatter(formatter(settings.runtime.log_format))
    log_to(lines, settings.runtime.log_level)
    serve(settings, run_dir, host, port, lambda url: hint(f"illume-loop: dashboard at {url} (stop with Ctrl-C)"))
