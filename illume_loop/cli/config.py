"""`illume-loop config`: show the settings with their sources, or check them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from illume_loop.cli.options import AsJson, Config
from illume_loop.cli.output import hint, print_json, print_table

if TYPE_CHECKING:
    from illume_loop.settings import Settings

app = typer.Typer(help="Show or check the settings.", no_args_is_help=True)


@app.command("show")
def show(config: Config = None, as_json: AsJson = False) -> None:
    """Show every setting with its value, source, bounds and description."""
    from illume_loop.settings import load_settings

    rows = settings_rows(load_settings(config))
    if as_json:
        print_json(rows)
        return
    cells = [(row["key"], str(row["value"]), row["source"], row["bounds"], row["description"]) for row in rows]
    print_table("settings", ("key", "value", "source", "bounds", "description"), cells)


@app.command("check")
def check(config: Config = None) -> None:
    """Check a settings file and the environment; exit 0 if both are valid."""
    from illume_loop.domains import get_domain
    from illume_loop.loop.prompts import prompts_in_file, with_domain
    from illume_loop.models.hub import is_fetched
    from illume_loop.settings import AUTO, load_settings

    settings = load_settings(config)
    prompts = prompts_in_file(settings)
    if settings.run.domain == AUTO and not is_fetched(settings.run.base):
        hint(f"{settings.run.base} decides run.domain; `illume-loop start` downloads it from the hub")
    else:
        get_domain(with_domain(settings).run.domain, prompts)
    hint("the settings are valid; next: `illume-loop start" + (f" --config {config}`" if config else "`"))


def settings_rows(settings: Settings) -> list[dict[str, Any]]:
    """Return every setting as {key, value, source, bounds, description, advanced}."""
    from illume_loop.settings import bounds, fields
    from illume_loop.settings.section import ADVANCED

    resolved = settings.resolved()
    rows = []
    for key, section, attribute in fields():
        table, name = key.split(".")
        field = section.model_fields[attribute]
        rows.append(
            {
                "key": key,
                "value": resolved[table][name],
                "source": settings.provenance[key],
                "bounds": bounds(field),
                "description": field.description,
                "advanced": field.json_schema_extra == ADVANCED,
            }
        )
    return rows
