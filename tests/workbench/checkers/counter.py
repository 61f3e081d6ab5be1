"""Checks the final reads of a counter, for g-counter and pn-counter.

A counter is eventually consistent, so only ok reads marked `:final? true` are judged. Each must be
the sum of all acknowledged adds, plus any subset of the adds with an unknown outcome (`:info`).
Failed adds and adds without a completion count for nothing. A history without final reads is valid.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..record.history import HistoryError, Op, to_map
from .verdict import Verdict, at, limited, results, show

MAX_RUNS = 100_000
"""Largest number of runs of acceptable values. Adds of very different sizes double it each time."""

Run = tuple[int, int]  # the least and the greatest of consecutive acceptable values


def check(ops: Sequence[Op]) -> Verdict:
    """Judges a history of g-counter or pn-counter."""
    definite = sum(_delta(op) for op in ops if (op.f, op.type) == ("add", "ok"))
    possible = [_delta(op) for op in ops if (op.f, op.type) == ("add", "info")]
    reads = [op for op in ops if op.extra("final?") and op.type == "ok"]
    acceptable = _acceptable(definite, possible)
    found = [op.value for op in reads]
    if acceptable is None:
        entries = {"errors": None, "final-reads": found, "acceptable": None}
        text = (
            f"The {len(possible)} adds with an unknown outcome allow more than {MAX_RUNS:,} "
            "separate values, too many to list."
        )
        return Verdict(None, results(None, entries), [text])
    errors = [op for op in reads if not _accepts(acceptable, op.value)]
    entries = {
        "errors": [to_map(op) for op in errors] or None,
        "final-reads": found,
        "acceptable": [list(run) for run in acceptable],
    }
    valid = not errors
    sums = f"The acknowledged adds sum to {definite}"
    if possible:
        count = "1 add" if len(possible) == 1 else f"{len(possible)} adds"
        sums += f", and {count} with an unknown outcome may count too: {_words(acceptable)}"
    why = [
        f"Process {op.process}'s final read {at(op)} found {show(op.value)}. {sums}."
        for op in errors
    ]
    warnings = [] if reads else ["No final read succeeded, so nothing was judged."]
    return Verdict(valid, results(valid, entries), limited(why), warnings)


def _delta(op: Op) -> int:
    if not isinstance(op.value, int) or isinstance(op.value, bool):
        raise HistoryError(f"the add at index {op.index} must add an integer, not {show(op.value)}")
    return op.value


def _acceptable(definite: int, possible: list[int]) -> list[Run] | None:
    """Returns the acceptable values as maximal runs, in order; None if there are too many runs."""
    runs = [(definite, definite)]
    for delta in possible:
        merged: list[Run] = []
        for low, high in sorted([*runs, *((low + delta, high + delta) for low, high in runs)]):
            if merged and low <= merged[-1][1] + 1:
                merged[-1] = merged[-1][0], max(merged[-1][1], high)
            else:
                merged.append((low, high))
        runs = merged
        if len(runs) > MAX_RUNS:
            return None
    return runs


def _accepts(acceptable: list[Run], value: object) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole and any(low <= value <= high for low, high in acceptable)  # type: ignore[operator]


def _words(acceptable: list[Run]) -> str:
    words = [str(low) if low == high else f"{low} to {high}" for low, high in acceptable[:5]]
    if len(acceptable) > 5:
        return f"{', '.join(words)}, ..."
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
