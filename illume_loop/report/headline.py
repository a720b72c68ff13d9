"""The numbers of model versions as text: headlines, comparisons, best decodes, and the closing line of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from illume_db.versions import headline as largest
from illume_loop.charts.numbers import decode, gain, interval, number, percent
from illume_loop.evals.statistics import wilson_interval

NOT_COMPARED = "not compared at a gate yet"

EARLY_LOOK = (
    "An early look at the gate asks for more certainty than the last one, so the interval of its gain is wider: all "
    "looks together are wrong as rarely as one."
)
"""The sentence that stands near the gain of an early look."""

DECODE = ("guidance_scale", "temperature", "top_k", "top_p")


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


def has_early_look(rounds: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the gate decided one of these rounds before all held-out prompts were drawn."""
    return any(row["looks"] and row["looks"]["prompts"] < row["looks"]["of"] for row in rounds)


def differs_at_setting(found: Mapping[str, Any]) -> bool:
    """Return whether a comparison of a version was made at another decode than the run's setting as well."""
    told = found["at_setting"]
    return bool(told) and any(told[key] != found[key] for key in DECODE)


def at_setting(found: Mapping[str, Any]) -> str:
    """Return a version's comparison at the run's setting as text, without a full stop."""
    told = found["at_setting"]
    return f"{share_of(told)} at the run's setting ({decode(told)}), gain {gain(told['gain'])}, which did not decide"


def best_decode(found: Mapping[str, Any] | None) -> str:
    """Return a version's best decode as text; it was found on train prompts."""
    if not found:
        return "not tried"
    share = f"{percent(found['share'])} % of {found['prompts']} train prompts right"
    return f"{decode(found)} ({share}, the best of {found['of']})"


def closing(found: Mapping[str, Any]) -> str:
    """Return the closing comparison of a run as one line."""
    base, active = found["base"], found["active"]
    if base == active:
        return f"At the end: {base}, the base, is still the active version."
    heldout, best_of = found["heldout"], found["best_of"]
    of_base, of_active = (
        f"{name} at its best decode ({decode(found['decodes'][role])}) draws {interval(heldout[role])} %"
        for name, role in ((base, "base"), (active, "active"))
    )
    way = best_of["share_of_way"]
    far = (
        f"its own best of {best_of['samples']} is no better than one of its draws"
        if way is None
        else f"{way:.2f} of the way from one draw of {base} ({percent(best_of['one'])} %) to its own best of "
        f"{best_of['samples']} ({percent(best_of['best'])} %, {best_of['prompts']} prompts)"
    )
    return (
        f"At the end, on {heldout['base']['n']} held-out prompts: {of_base} right and {of_active}: "
        f"{gain(heldout['delta'])} points, {far}."
    )


def last_closing(rounds: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the closing line of a run from its rows of `rounds ls`; None if it was not measured."""
    found = [row["closing"] for row in rounds if row["closing"]]
    return closing(found[-1]) if found else None


def comparison(found: Mapping[str, Any]) -> str:
    """Return one comparison of a version as one line."""
    change = gain(found["gain"])
    role = (
        f"candidate, gain {change} over {found['against']}"
        if found["role"] == "candidate"
        else f"parent of {found['against']}, whose gain was {change}"
    )
    line = f"round {found['round']}: {share_of(found)} ({role}; {found['decision']}; {judged_by(found)})"
    return f"{line}; {at_setting(found)}" if differs_at_setting(found) else line


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
