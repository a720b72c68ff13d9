"""Estimates as text, for the terminal and the pages: percent with one decimal, intervals in brackets."""

from __future__ import annotations

from collections.abc import Mapping

MISSING = "-"


def percent(value: float | None) -> str:
    """Format a share in percent with one decimal, without the percent sign."""
    return MISSING if value is None else f"{100 * value:.1f}"


def number(value: float | None) -> str:
    """Format a number with three decimals."""
    return MISSING if value is None else f"{value:.3f}"


def interval(estimate: Mapping[str, float | None] | None) -> str:
    """Format `{"mean", "low", "high"}`, shares of 1, as "41.0 [37.0, 45.0]"."""
    return _interval(estimate, "")


def gain(estimate: Mapping[str, float | None] | None) -> str:
    """Format a difference of shares in points, with its sign: "+6.0 [+3.0, +9.0]"."""
    return _interval(estimate, "+")


def drift(found: Mapping[str, float | None] | None) -> str:
    """Format a candidate's drift as a judge: shift in log-odds and AUC against the frozen judge, "+0.21, 0.962"."""
    shift = (found or {}).get("shift")
    return MISSING if shift is None else f"{shift:+.2f}, {number((found or {}).get('auc'))}"


def decode(found: Mapping[str, float | None]) -> str:
    """Format a decode, such as "guidance 1.25, temperature 1"; neutral top-k and top-p are left out."""
    words = {"guidance_scale": "guidance", "temperature": "temperature", "top_k": "top-k", "top_p": "top-p"}
    neutral = {"top_k": 0, "top_p": 1.0}
    values = ((word, found.get(key), neutral.get(key)) for key, word in words.items())
    return ", ".join(f"{word} {value:g}" for word, value, usual in values if value is not None and value != usual)


def _interval(estimate: Mapping[str, float | None] | None, sign: str) -> str:
    mean, low, high = ((estimate or {}).get(key) for key in ("mean", "low", "high"))
    if mean is None:
        return MISSING
    if low is None or high is None:
        return f"{100 * mean:{sign}.1f}"
    return f"{100 * mean:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"
