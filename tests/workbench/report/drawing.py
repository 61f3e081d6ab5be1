"""What all drawings of a run have in common: its faults, and operations in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape

from ..record import edn
from ..record.history import Op, Operation, shorten
from ..units import MILLISECOND

COLOURS = {"ok": "#6DB6FE", "info": "#FFAA26", "fail": "#FEB5DA"}
NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def faults(nemesis: Sequence[Op]) -> Iterator[list[Op]]:
    """The events of each fault: `start-X`, and the `stop-X` after it where there is one.

    Jepsen notes each twice: what is wanted, and what was done.
    """
    under_way: dict[str, list[Op]] = {}
    for op in nemesis:
        kind = op.f.partition("-")[2]
        events = under_way.setdefault(kind, [])
        if events and stops(events[-1]) and not stops(op):
            yield events
            events = under_way[kind] = []
        if events or not stops(op):
            events.append(op)
    yield from filter(None, under_way.values())


def stops(op: Op) -> bool:
    return op.f.startswith("stop")


def by_number(process: int | str) -> tuple[int, str]:
    """Sorts processes: those with a name come first."""
    return (process, "") if isinstance(process, int) else (-1, process)


def describe(op: Operation) -> str:
    """`write 2`, `cas 2→3`; and values that have a key as they are: `write [0 2]`."""
    if op.f == "cas" and not isinstance(op.value[1], list):
        return "cas {}→{}".format(*map(edn.dumps, op.value))
    return f"{op.f} {edn.dumps(op.value)}"


def details(op: Operation) -> str:
    """All that is known of an operation, in a few lines."""
    lines = [
        f"process {op.process}: {shorten(describe(op), 500)}",
        f"{op.type}, invoked at {op.start / MILLISECOND:,.3f} ms (index {op.start_index})",
    ]
    if op.end is not None:
        lines.append(f"completed at {op.end / MILLISECOND:,.3f} ms (index {op.end_index})")
        lines.append(f"took {(op.end - op.start) / MILLISECOND:,.3f} ms")
    if op.error is not None:
        lines.append(f"error: {shorten(edn.dumps(op.error), 500)}")
    return "\n".join(lines)


def markup(text: str) -> str:
    """The text for HTML or XML; what XML has no place for becomes a replacement character."""
    return escape(NO_XML.sub("\ufffd", text))
