"""The headline of a model version as text: its share of right held-out draws, the judge, and the decode."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from illume_db.versions import headline as largest
from illume_loop.charts.numbers import decode, gain, interval, number
from illume_loop.evals.statistics import wilson_interval

NOT_COMPARED = "not compared at a gate yet"


def judged_by(found: Mapping[str, Any]) -> str:
    """Return judge and decode as text: "checker, guidance 1.25, temperature 1"."""
    return ", ".join(part for part in (found.get("judge"), decode(found)) if part)


def share_of(found: Mapping[str, Any] | None) -> str | None:
    """Return the share in percent with interval and number of draws; None if the version has no comparison."""
    return f"{interval(found)} of {found['n']}" if found else None


def headline(found: Mapping[str, Any] | None) -> str:
    """Return the whole headline as one line, without a full stop."""
    if not found:
        return NOT_COMPARED
    line = f"{share_of(found)} held-out draws right, in percent ({judged_by(found)}; round {found['round']}"
    change = f"gain {gain(found['gain'])} over {found['against']}"
    return line + (f", {change})" if found["role"] == "candidate" else f", as the parent of {found['against']})")


def comparison(found: Mapping[str, Any]) -> str:
    """Return one comparison of a version as one line."""
    change = gain(found["gain"])
    role = (
        f"candidate, gain {change} over {found['against']}"
        if found["role"] == "candidate"
        else f"parent of {found['against']}, whose gain was {change}"
    )
    return f"round {found['round']}: {share_of(found)} ({role}; {found['decision']}; {judged_by(found)})"


def guard(found: Mapping[str, Any]) -> str:
    """Return a guard's result as text: a share with its interval, or the diversity, and the number of items."""
    if found["suite"] == "diversity":
        return f"{number(found['value'])} of {found['n']} prompts"
    num_right = round(found["value"] * found["n"])
    measured = wilson_interval([True] * num_right + [False] * (found["n"] - num_right))
    return f"{interval({'mean': measured.mean, 'low': measured.low, 'high': measured.high})} of {measured.n}"


def compared(
    of_first: Sequence[Mapping[str, Any]], of_second: Sequence[Mapping[str, Any]], second: str
) -> dict[str, Any] | None:
    """Compare two versions by their held-out shares; return both shares and their difference.

    If the two met at a gate, the result is their largest comparison, and the difference is paired. Otherwise it takes
    each version's headline; those draws had different seeds, so the interval of the difference is wider and `paired`
    is False. Returns None if one of the versions was never compared.
    """
    met = [one for one in of_first if one["against"] == second]
    if met:
        first = max(met, key=lambda one: (one["n"], one["round"]))
        other = next(one for one in of_second if one["round"] == first["round"])
        sign = 1 if first["role"] == "parent" else -1
        ends = sorted(sign * first["gain"][end] for end in ("low", "high"))
        difference = {"mean": sign * first["gain"]["mean"], "low": ends[0], "high": ends[1]}
        return {"first": first, "second": other, "difference": difference, "paired": True}
    one, two = largest(of_first), largest(of_second)
    if one is None or two is None:
        return None
    return {"first": one, "second": two, "difference": _difference(one, two), "paired": False}


def _difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, float]:
    """Return the difference of two independent shares; its interval is built from theirs (Newcombe 1998, method 10)."""
    mean = second["mean"] - first["mean"]
    below = math.hypot(second["mean"] - second["low"], first["high"] - first["mean"])
    above = math.hypot(second["high"] - second["mean"], first["mean"] - first["low"])
    return {"mean": mean, "low": mean - below, "high": mean + above}
