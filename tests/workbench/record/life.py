"""The cluster's life: what each node was when, by the lines in which the nodes themselves tell it.

raft.py says each change of role or term in a line of a regular form on stderr. It has no time in
it, so the bench notes when it heard the line, and keeps it in life.edn. Who was killed or paused
meanwhile, the history tells.
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
MOST = 2_000  # lines of a node that are kept
LENGTH = 500  # characters of a line that are kept
LARGEST = 50_000_000  # bytes of a life.edn that is read
FORM = re.compile(r"(\S+) term ([0-9]{1,18}): ((follower|candidate|leader)(?:(?: of |, ).*)?)")
ROLES = ("follower", "candidate", "leader")
DOWN, PAUSED, SILENT = "down", "paused", "silent"
CHANGES = ("killed", "started", "paused", "resumed")


class Line(NamedTuple):
    """A line in which a node says what it is, and when that was heard, in ns."""

    time: int
    node: str
    text: str


class Told(NamedTuple):
    """What a line tells: `said` is the role and why it has it."""

    term: int
    role: str
    said: str


class Ear:
    """Keeps the lines that are of the regular form: so many of a node, and so much of each."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._kept: Counter[str] = Counter()
        self._last: dict[str, Told] = {}

    def hear(self, time: int, node: str, text: str) -> None:
        """A node has written this line to its stderr, whatever it is."""
        if self._kept[node] < MOST and text.startswith(f"{node} term "):
            line = Line(time, node, shorten(text, LENGTH))
            if found := told(line):
                self._kept[node] += 1
                self.lines.append(line)
                self._last[node] = found
                if self._kept[node] == MOST:  # what it will be is not heard any more
                    self.forget(node)

    def forget(self, node: str) -> None:
        """The node was killed: it is not any more what it said that it is."""
        self._last.pop(node, None)

    def leader(self) -> tuple[str, int] | None:
        """Who leads, and in which term, by what each node said last; None if nobody.

        One that is cut off may not know of its successor, whose term is later.
        """
        terms = {node: last.term for node, last in self._last.items() if last.role == "leader"}
        return max(terms.items(), key=lambda item: item[1], default=None)


def told(line: Line) -> Told | None:
    """What the line tells; None if it is not of the form, or of another node."""
    found = FORM.fullmatch(line.text)
    if not found or found[1] != line.node:
        return None
    return Told(int(found[2]), found[4], found[3])


def to_edn(lines: Iterable[Line], folder: Path) -> str:
    """The text of life.edn. The run's own folder, which is another each time, is {run} in it."""
    return "".join(
        edn.dumps([time, node, text.replace(str(folder), "{run}")]) + "\n"
        for time, node, text in lines
    )


def read(folder: Path) -> list[Line]:
    """The lines of a run's life.edn. OSError if it cannot be read, ValueError if it is none."""
    path = folder / NAME
    if path.stat().st_size > LARGEST:
        raise ValueError("it is too large")
    lines = []
    for number, text in enumerate(path.read_text("utf-8").split("\n"), 1):
        if not text:
            continue
        form = edn.loads(text)
        if not (isinstance(form, list) and [type(item) for item in form] == [int, str, str]):
            raise ValueError(f"line {number} is no [time node line]")
        line = Line(*form)
        if not told(line) or abs(line.time) >= 2**63:
            raise ValueError(f"line {number} does not say what a node is when")
        lines.append(line)
    return lines


# What a node was


@dataclass(frozen=True)
class Span:
    """What a node was for a while: `state` is a role, DOWN, PAUSED or SILENT. Times are in ns.

    `said` are the words of its last line; they, and the term, are as old as `since`.
    """

    node: str
    start: int
    end: int
    state: str
    term: int | None
    said: str
    since: int


class _Event(NamedTuple):
    time: int
    rank: int  # of what happens at one moment: a new process speaks after it was started
    what: str | Line


def spans(
    lines: Sequence[Line], events: Iterable[Op], nodes: Iterable[str], until: int
) -> list[Span]:
    """What each of the nodes was from the beginning of the run until its end, in that order."""
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
    """When which node was killed, started, paused or resumed, as the nemesis notes it."""
    for op in events:
        if op.process == "nemesis" and isinstance(op.value, dict):
            for node, what in op.value.items():
                if isinstance(what, Keyword) and what.name in CHANGES and isinstance(node, str):
                    yield op.time, node, what.name


def _with_late_kills(events: list[_Event]) -> list[_Event]:
    """A simulated kill may strike a while after it was asked for: who speaks is not dead yet."""
    moved = []
    last: int | None = None  # words before the next start
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
            if state != PAUSED:  # what a stopped process has written before is read meanwhile
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
