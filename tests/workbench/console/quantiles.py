"""Computes and formats latencies, for the terminal and for a run's page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..units import MILLISECOND


def quantile(ordered: Sequence[float], part: float) -> float:
    """Returns a quantile of sorted numbers: the smallest that a `part` of them does not exceed."""
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def milliseconds(ns: float) -> str:
    """Formats a time in ms with about three digits."""
    number = ns / MILLISECOND
    if number >= 100:
        return f"{number:,.0f}"
    return f"{number:.3g}" if number >= 1 else f"{number:.2f}"
