"""The result of a run in sentences, and the commands that repeat it, from the rows of `rounds ls`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from illume_loop.charts.numbers import gain, interval, number, percent
from illume_loop.models.shipped import SHAPES, SHIPPED
from illume_loop.settings import Settings

NOT_THE_RUNS_OWN = ("store", "cluster", "runtime")
"""The sections about hosts and storage; they do not change what a run computes."""


def summary(rounds: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield sentences on how the rounds ended, what changed, how much was drawn, and how long it took."""
    decided = [row for row in rounds if row.get("decision")]
    if not decided:
        return
    promoted = [row for row in decided if row["decision"] == "promoted"]
    used = promoted[-1]["candidate"] if promoted else decided[0]["parent"]
    yield f"{len(promoted)} of {len(decided)} decided rounds were promoted; the version in use is {used}."
    first, last = decided[0], promoted[-1] if promoted else decided[-1]
    decode = ", each at its best decode" if last.get("decodes") else ""
    yield (
        f"Held-out alignment: {interval(first['heldout']['parent'])} % for {first['parent']} at the first gate, and "
        f"{interval(last['heldout']['candidate'])} % for {last['candidate']} at the gate of round {last['index']}. "
        f"Its gain there, on the same prompts and seeds as its parent{decode}: {gain(last['heldout']['delta'])} points."
    )
    yield (
        f"Understanding {percent(first['understanding']['parent'])} % before and "
        f"{percent(last['understanding']['candidate'])} % after; diversity {number(first['diversity']['parent'])} and "
        f"{number(last['diversity']['candidate'])}."
    )
    aucs = [row["judge_auc"] for row in decided if row["judge_auc"] is not None]
    told = f"; the judge's AUC against the checker was {number(min(aucs))} to {number(max(aucs))}" if aucs else ""
    samples, accepted = (sum(row[name] or 0 for row in rounds) for name in ("samples", "accepted"))
    yield f"{samples:,} samples were drawn and {accepted:,} accepted{told}."
    seconds: dict[str, float] = {}
    for row in rounds:
        for stage, spent in (row.get("seconds") or {}).items():
            seconds[stage] = seconds.get(stage, 0.0) + spent
    if seconds:
        yield f"Work: {', '.join(f'{stage} {spent:,.0f} s' for stage, spent in seconds.items())} (summed over units)."


def commands(settings: Mapping[str, Mapping[str, Any]], num_rounds: int) -> str:
    """Return the settings file and the command that repeat the run on any machine with the same version."""
    text = changed_toml(settings)
    start = f"illume-loop start --run-dir again --rounds {max(1, num_rounds)}"
    return f"# run.toml\n{text}\n# then\n{start} --config run.toml\n" if text else f"{start}\n"


def changed_toml(settings: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a settings file with the settings that differ from the defaults and change what a run computes."""
    defaults = Settings().resolved()
    run = settings.get("run", {})
    if run.get("base") in SHIPPED and not run.get("prompts"):
        defaults["run"]["domain"] = SHAPES  # the value that "auto" took when the run began
    lines: list[str] = []
    for section, values in settings.items():
        changed = {name: value for name, value in values.items() if value != defaults.get(section, {}).get(name, value)}
        # The teacher's key belongs to the host, not to the run, and is stored as `***`.
        changed.pop("key", None)
        if changed and section not in NOT_THE_RUNS_OWN:
            lines += [f"[{section}]", *(f"{name} = {_toml(value)}" for name, value in changed.items())]
    return "".join(f"{line}\n" for line in lines)


def _toml(value: object) -> str:
    """Return a value as TOML; strings, numbers, lists and booleans are written as in JSON."""
    return json.dumps(value, ensure_ascii=False)
