"""Summarizes a run in a short table: counts and latencies of each kind of operation."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from ..record.edn import Keyword
from ..record.history import Op, clients, completions
from ..verdicts import Results
from .quantiles import milliseconds, quantile

HEADS = ("", "operations", "ok", "failed", "unknown", "median", "p95", "max")
COUNTS = tuple(map(Keyword, ("count", "ok-count", "fail-count", "info-count")))
PARTS = (0.5, 0.95, 1)  # quantiles of the latencies: median, p95, max


def summary(history: Sequence[Op], found: Results) -> list[str]:
    """Returns the lines of the table; none if no operation completed.

    The counts are those in the results. Operations that were in flight at the end count as unknown.
    """
    stats, kinds = found[Keyword("stats")], found[Keyword("stats")][Keyword("by-f")]
    if not kinds or not stats[COUNTS[0]]:
        return []
    took: dict[str, list[int]] = defaultdict(list)
    for op, time in completions(history):
        if op.type == "ok":
            took[op.f].append(time)
    open_ops = Counter(op.f for op in clients(history) if op.type == "invoke")
    for f, counts in kinds.items():
        open_ops[f.name] = max(0, open_ops[f.name] - counts[COUNTS[0]])
    rows = [_row(f.name, counts, open_ops[f.name], took[f.name]) for f, counts in kinds.items()]
    if len(rows) > 1:
        times = [time for times in took.values() for time in times]
        rows.append(_row("all", stats, open_ops.total(), times))
    share = found[Keyword("availability")][Keyword("ok-fraction")]
    messages = found[Keyword("net")][Keyword("servers")][Keyword("msgs-per-op")]
    return [
        *_aligned([HEADS, *rows]),
        f"{share:.1%} of the operations were ok. The latencies are of ok operations, in ms.",
        f"{messages:.2f} messages between servers for an operation.",
    ]


def _row(name: str, counts: Results, in_flight: int, took: list[int]) -> list[str]:
    took.sort()
    count, ok, failed, unknown = (counts[key] for key in COUNTS)
    numbers = (count + in_flight, ok, failed, unknown + in_flight)
    latencies = [milliseconds(quantile(took, part)) if took else "-" for part in PARTS]
    return [name, *(f"{number:,}" for number in numbers), *latencies]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligns names to the left and numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in rows
    ]
