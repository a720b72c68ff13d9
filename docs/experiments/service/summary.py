"""Sums up a table of chaos seeds for README.md in this folder.

python docs/experiments/service/summary.py docs/experiments/service/chaos.tsv
"""

from __future__ import annotations

import csv
import statistics
import sys
from collections import Counter
from pathlib import Path

RESULTS = ("held", "failed", "broken")


def main(table: Path) -> None:
    """See the module."""
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    results = Counter(row["result"] for row in rows)
    seconds = [float(row["seconds"]) for row in rows]
    num_faults = sum(len(_kinds(row["faults fired"])) for row in rows)
    print(f"{len(rows)} seeds: " + ", ".join(f"{results[result]} {result}" for result in RESULTS))
    median = statistics.median(seconds)
    print(f"{num_faults} faults took place; {median:.1f} s a seed (median), {max(seconds):.1f} s at most")
    print("\n| fault | took place | held | failed | broken |\n|---|---|---|---|---|")
    kinds = sorted({kind for row in rows for kind in _kinds(row["faults planned"])})
    for kind in kinds:
        of_kind = Counter(row["result"] for row in rows if kind in _kinds(row["faults fired"]))
        print(f"| {kind} | {of_kind.total()} | {' | '.join(str(of_kind[result]) for result in RESULTS)} |")
    given = Counter(command for row in rows for command in _kinds(row.get("commands given") or ""))
    if given:
        print("\n| command: exit code | times |\n|---|---|")
        for command, times in sorted(given.items()):
            print(f"| {command} | {times} |")


def _kinds(cell: str) -> list[str]:
    return [kind for kind in cell.split(", ") if kind]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
