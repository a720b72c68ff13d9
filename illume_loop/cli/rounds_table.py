"""The table of rounds in the terminal, with one line for the parent and one for the candidate of each round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from illume_loop.cli.output import print_table, say

COLUMNS = (
    "round",
    "model",
    "held-out",
    "gain",
    "judge\nAUC",
    "diversity",
    "under-\nstanding",
    "accepted",
    "decision",
)
OPTIONAL = {"editing": "editing", "judge_drift": "drift,\nAUC"}
"""The columns that appear only if a round has a value for them."""


def print_rounds(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the table of rounds, then the reasons of each round's decision and the closing comparison."""
    from illume_loop.report.headline import EARLY_LOOK, has_early_look, last_closing

    more = [column for column in OPTIONAL if any(row[column] for row in rows)]
    columns = (*COLUMNS[:-2], *(OPTIONAL[column] for column in more), *COLUMNS[-2:])
    at_best = "; held-out: each model at its best decode" if any(row["decodes"] for row in rows) else ""
    title = f"rounds (shares in percent, with intervals{at_best})"
    print_table(title, columns, (cells for row in rows for cells in cells_of(row, more)))
    for row in rows:
        if row["reasons"]:
            say(f"round {row['index']} {row['decision'] or row['state']}: {'; '.join(row['reasons'])}")
    if has_early_look(rows):
        say(EARLY_LOOK)
    closing = last_closing(rows)
    if closing is not None:
        say(closing)


def cells_of(row: Mapping[str, Any], more: Sequence[str] = ()) -> Iterator[Sequence[str | None]]:
    """Yield a round's two lines in a table with COLUMNS; the optional columns in `more` come before the last two."""
    from illume_loop.charts.numbers import gain, interval, number, percent

    heldout, diversity, understanding = row["heldout"], row["diversity"], row["understanding"]
    yield (
        str(row["index"]),
        row["parent"],
        interval(heldout["parent"]),
        "",
        number(row["judge_auc"]),
        number(diversity["parent"]),
        percent(understanding["parent"]),
        *(_optional(row, column, "parent") for column in more),
        f"{row['accepted']} of {row['samples']}",
        "",
    )
    yield (
        "",
        f"→ {row['candidate']}" if row["candidate"] else "",
        interval(heldout["candidate"]),
        gain(heldout["delta"]),
        "",
        number(diversity["candidate"]),
        percent(understanding["candidate"]),
        *(_optional(row, column, "candidate") for column in more),
        "",
        row["decision"] or row["state"],
    )


def update_sentence(update: Mapping[str, Any]) -> str:
    """Return the measurements of an update of reinforcement learning in words."""
    parts = [
        f"mean reward of {name} " + ("none, as every score failed" if mean is None else f"{mean:.3f}")
        for name, mean in update["rewards"].items()
    ]
    if update["checked"] is not None:
        parts.append(f"{100 * update['checked']:.1f} % right by the checker")
    parts.append(f"entropy {update['entropy']:.3f} nats per image token")
    if update["kl"] is not None:
        parts.append(f"KL from the base {update['kl']:.4f}")
    parts.append(f"{update['num_without_variance']} of {update['num_groups']} groups without variance")
    if update["num_with_too_few"]:
        parts.append(f"{update['num_with_too_few']} groups with too few scores")
    return f"update {update['index']}: {', '.join(parts)}, {sum(update['seconds'].values()):.1f} s"


def _optional(row: Mapping[str, Any], column: str, side: str) -> str:
    from illume_loop.charts.numbers import drift, interval

    found = row[column]
    if found is None:
        return ""
    if column == "editing":
        return interval(found[side])
    return drift(found) if side == "candidate" else ""
