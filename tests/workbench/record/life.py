"""The nodes' roles over time, from the lines that the nodes print on stderr.

raft.py prints a line in a regular form for each change of role or term. The line has no time, so
the bench stores it in life.edn with the time at which it read the line. Kills and pauses are taken
from the history.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from . import edn
from .edn import Keyword
from .history import Op, shorten

NAME = "life.edn"
MOST = 2_000  # lines kept of each node
LENGTH = 500  # characters kept of a line
LARGEST = 50_000_000  # largest life.edn that is read, in bytes
FORM = re.compile(r"(\S+) term ([0-9]{1,18}): ((follower|candidate|leader)(?:(?: of |, ).*)?)")
ROLES = ("follower", "candidate", "leader")
DOWN, PAUSED, SILENT = "down", "paused", "silent"
# Keywords of the nemesis. A wiped node starts without its files.
CHANGES = {name: name for name in ("killed", "started", "paused", "resumed")} | {"wiped": "started"}


class Line(NamedTuple):
    """A line in which a node states its role."""

    time: int  # ns; when the bench read the line
    node: str
    text: str


class Told(NamedTuple):
    """The parts of a Line."""

    term: int
    role: str
    said: str  # the role and its reason


class Ear:
    """Keeps the stderr lines of the regular form, MOST of each node, each cut to LENGTH."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._kept: Counter[str] = Counter()
        self._last: dict[str, Told] = {}

    def hear(self, time: int, node: str, text: str) -> None:
        """Takes any line of a node's stderr."""
        if self._kept[node] < MOST and text.startswith(f"{node} term "):
            line = Line(time, node, shorten(text, LENGTH))
            if found := told(line):
                self._kept[node] += 1
                self.lines.append(line)
                self._last[node] = found
                if self._kept[node] == MOST:  # its later roles are not recorded
                    self.forget(node)

    def forget(self, node: str) -> None:
        """Forgets a node's role, because it was killed."""
        self._last.pop(node, None)

    def leader(self) -> tuple[str, int] | None:
        """Returns the leader and its term; None if there is none.

        Of several leaders it returns that of the latest term: an old leader that is cut off may not
        know its successor.
        """
        terms = {node: last.term for node, last in self._last.items() if last.role == "leader"}
        return max(terms.items(), key=lambda item: item[1], default=None)


def told(line: Line) -> Told | None:
    """Parses a line; None if it does not have the regular form, or names another node."""
    found = FORM.fullmatch(line.text)
    if not found or found[1] != line.node:
        return None
    return Told(int(found[2]), found[4], found[3])


def to_edn(lines: Iterable[Line], folder: Path) -> str:
    """Writes the text of life.edn. The path of the run's folder is replaced by {run}."""
    return "".join(
        edn.dumps([time, node, text.replace(str(folder), "{run}")]) + "\n"
        for time, node, text in lines
    )


def read(folder: Path) -> list[Line]:
    """Reads a run's life.edn. Raises OSError if it cannot be read, ValueError if it is faulty."""
    path = folder / NAME
    if path.stat().st_size > LARGEST:
        raise ValueError(f"it is larger than {LARGEST:,} bytes")
    lines = []
    for number, text in enumerate(path.read_text("utf-8").split("\n"), 1):
        if not text:
            continue
        form = edn.loads(text)
        if not (isinstance(form, list) and [type(item) for item in form] == [int, str, str]):
            raise ValueError(f"line {number} is not [time node line]")
        line = Line(*form)
        if not told(line) or abs(line.time) >= 2**63:
            raise ValueError(f"line {number} does not state a node's role")
        lines.append(line)
    return lines


# Spans of time in a state


@dataclass(frozen=True)
class Span:
    """A span of time during which a node's state, term and last line stayed the same."""

    node: str
    start: int  # ns
    end: int  # ns
    state: str  # a role, DOWN, PAUSED or SILENT
    term: int | None  # None before the node's first line
    said: str  # the role and reason in its last line
    since: int  # ns; the time of that line


class _Event(NamedTuple):
    time: int
    rank: int  # order of events at the same time: a node starts before it prints a line
    what: str | Line


def spans(
    lines: Sequence[Line], events: Iterable[Op], nodes: Iterable[str], until: int
) -> list[Span]:
    """Lists each node's spans, node by node, from the beginning of the run until its end."""
    changes = list(_changes(events))
    found: list[Span] = []
    for node in nodes:
        own = [_Event(line.time, 1, line) for line in lines if line.node == node]
        own += [_Event(time, 0, what) for time, name, what in changes if name == node]
        found += _of_node(node, _with_late_kills(sorted(own, key=_order)), until)
    return found


def _order(event: _Event) -> tuple[int, int]:
    return event.time, event.rank


def _changes(events: Iterable[Op]) -> Iterator[tuple[int, str, str]]:
    """Yields (time, node, change) for each kill, start, pause and resume of the nemesis."""
    for op in events:
        if op.process == "nemesis" and isinstance(op.value, dict):
            for node, what in op.value.items():
                if isinstance(what, Keyword) and what.name in CHANGES and isinstance(node, str):
                    yield op.time, node, CHANGES[what.name]


def _with_late_kills(events: list[_Event]) -> list[_Event]:
    """Moves a kill behind the last line of its process: a simulated kill may strike late."""
    moved = []
    last: int | None = None  # time of the last line before the next start
    for event in reversed(events):
        if isinstance(event.what, Line):
            last = event.time if last is None else last
        elif event.what == "started":
            last = None
        elif event.what == "killed" and last is not None:
            event, last = _Event(max(last, event.time), 2, event.what), None
        moved.append(event)
    return sorted(reversed(moved), key=_order)


def _of_node(node: str, events: Sequence[_Event], until: int) -> Iterator[Span]:
    begin = min([0, *(event.time for event in events[:1])])
    line: Line | None = None
    count = 0
    state = role = SILENT
    for time, _, what in events:
        if time >= until:
            break
        before = state, line
        if isinstance(what, Line):
            count += 1
            found = told(what)
            assert found
            role = SILENT if count >= MOST else found.role
            line = what
            if state != PAUSED:  # lines printed before the pause may be read during it
                state = role
        elif what == "killed":
            state = DOWN
        elif what == "started":
            state = role = SILENT
            line = None
        elif what == "paused" and state != DOWN:
            state = PAUSED
        elif what == "resumed" and state == PAUSED:
            state = role
        if (state, line) != before:
            if time > begin:
                yield _span(node, begin, time, *before)
            begin = time
    if begin < until:
        yield _span(node, begin, until, state, line)


def _span(node: str, begin: int, end: int, state: str, line: Line | None) -> Span:
    found = told(line) if line else None
    if not line or not found:
        return Span(node, begin, end, state, None, "", begin)
    return Span(node, begin, end, state, found.term, found.said, line.time)
