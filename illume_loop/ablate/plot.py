"""The plot of a study: a line for each arm and round, a panel for each measure."""

from __future__ import annotations

from collections.abc import Iterator

from illume_loop.ablate.results import Results
from illume_loop.charts.forest import COLORS, Panel, forest_plot


def svg(results: Results) -> str:
    """Return the plot as SVG text. It has no lines if no cell succeeded."""
    several = len(results.study.after) > 1
    labels = [f"{row.arm}, round {row.after}" if several else row.arm for row in results.rows]
    color_of_arm = {arm.name: COLORS[index % len(COLORS)] for index, arm in enumerate(results.study.arms)}
    colors = [color_of_arm[row.arm] for row in results.rows]
    return forest_plot(results.study.title, labels, colors, list(_panels(results)))


def _panels(results: Results) -> Iterator[Panel]:
    rows = results.rows
    trains = results.study.num_rounds > 0
    for guidance in rows[0].heldout if rows else ():
        if trains:
            gains = [(row.gain or {}).get(guidance) for row in rows]
            yield Panel(f"gain, guidance {guidance}, points", gains, 0.0)
        else:
            yield Panel(f"held-out, guidance {guidance}, %", [row.heldout[guidance] for row in rows], None)
    yield Panel("reads, %", [row.understanding for row in rows], None)
    heading = "diversity, share of the base's" if trains else "diversity"
    diversity = [row.diversity if row.gain or not trains else None for row in rows]
    yield Panel(heading, diversity, 1.0 if trains else None, 1.0)
