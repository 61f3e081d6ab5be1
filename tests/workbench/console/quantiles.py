"""Latencies in figures: the same on the terminal as on the page of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..units import MILLISECOND


def quantile(ordered: Sequence[float], part: float) -> float:
    """The smallest of the numbers that this part of them does not exceed."""
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def milliseconds(ns: float) -> str:
    """A time in ms, as exact as it matters."""
    number = ns / MILLISECOND
    if number >= 100:
        return f"{number:,.0f}"
    return f"{number:.3g}" if number >= 1 else f"{number:.2f}"
