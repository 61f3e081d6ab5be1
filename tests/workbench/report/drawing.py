"""Shared by all drawings of a run: pairing of fault events, and operations as text."""

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
    """Yields the events of each fault: its `start-X` events, and its `stop-X` events, if any.

    Jepsen records each event twice: the request, and its result.
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
    """Returns a sort key for processes: names first, then numbers."""
    return (process, "") if isinstance(process, int) else (-1, process)


def describe(op: Operation) -> str:
    """Returns `write 2` or `cas 2→3`; for a value with a key, `write [0 2]`."""
    if op.f == "cas" and not isinstance(op.value[1], list):
        return "cas {}→{}".format(*map(edn.dumps, op.value))
    return f"{op.f} {edn.dumps(op.value)}"


def details(op: Operation) -> str:
    """Describes an operation in full, in a few lines."""
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
    """Escapes a text for HTML or XML. Replaces the characters that XML does not allow."""
    return escape(NO_XML.sub("\ufffd", text))
