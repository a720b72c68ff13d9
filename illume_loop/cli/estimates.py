"""The table of estimates with their intervals."""

from __future__ import annotations

from typing import Any

from illume_loop.cli.output import print_table


def print_estimates(row: dict[str, Any]) -> None:
    """Print a table with the estimate over all items, and of each category."""
    from illume_loop.charts.numbers import interval

    cells = [["all", str(row["n"]), interval(row)]]
    cells.extend([name, str(part["n"]), interval(part)] for name, part in row["by_category"].items())
    by = f", judged by {row['judge']}" if row.get("judge") else ""
    print_table(f"{row['suite']} of {row['model']}, seed {row['seed']}{by}", ("category", "n", "right, %"), cells)
