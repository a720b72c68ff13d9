"""The table of estimates with their intervals."""

from __future__ import annotations

from typing import Any

from illume_loop.cli.output import print_table, say


def print_estimates(row: dict[str, Any]) -> None:
    """Print a table with the estimate over all items and of each category, at each decode that was measured."""
    from illume_loop.charts.numbers import decode, interval
    from illume_loop.report.headline import best_decode

    best = row.get("best")
    columns = ("category", "n", "right, %", *(["at the best\ndecode, %"] if best else []))
    parts = {"all": row, **row["by_category"]}
    of_best = {"all": best, **best["by_category"]} if best else {}
    cells = [
        [name, str(part["n"]), interval(part), *([interval(of_best[name])] if best else [])]
        for name, part in parts.items()
    ]
    by = f", judged by {row['judge']}" if row.get("judge") else ""
    at = f", at {decode(row['decode'])}" if row.get("decode") else ""
    print_table(f"{row['suite']} of {row['model']}, seed {row['seed']}{at}{by}", columns, cells)
    if best:
        say(f"best decode: {best_decode(best['decode'])}")
