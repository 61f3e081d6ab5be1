"""Checks that added elements appear in reads and stay there, for broadcast and g-set.

Jepsen calls this checker set-full. It judges each element by three events. Only ok reads count, and
only those that ended after the element's add was invoked.

- known: the add's acknowledgement, or the end of the first read that shows the element, whichever
  comes first.
- last present: of the reads that show the element, the one invoked last.
- last absent: of the reads that do not show it, the one invoked last.

| outcome    | condition                                                                  |
|------------|----------------------------------------------------------------------------|
| stable     | last present exists, and was invoked after last absent                     |
| lost       | last absent was invoked after last present and after the element was known |
| never-read | neither: no read can tell                                                  |

A stable element is stale if a read invoked after it was known lacked it. Its latency is the time
from known to last absent, and 0 ms is not stale. A history with a lost element is invalid. Without
a stable element it is unknown, otherwise it is valid.

Jepsen's checker overlooks two faults: an element twice in one read, and an element that nobody has
added. Both are warnings here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from ..record.edn import Keyword
from ..record.history import HistoryError, Op, clients, to_map
from ..units import MILLISECOND
from ..verdicts import Results
from .clojure import identity, in_order
from .verdict import Verdict, at, limited, mistyped, results, show

QUANTILES = (0, 0.5, 0.95, 0.99, 1)
WORST_KEPT = 8


@dataclass(slots=True)
class Element:
    """An added element, and the events that decide its outcome."""

    value: Any
    add: Op  # the invocation of its add
    known: Op | None = None  # completion that first proves it
    last_present: Op | None = None  # invocation of the last read that shows it
    last_absent: Op | None = None  # invocation of the last read that lacks it

    @property
    def outcome(self) -> str:
        """`stable`, `lost` or `never-read`."""
        present, absent = self.last_present, self.last_absent
        if present and (absent is None or absent.index < present.index):
            return "stable"
        after_present = absent and (present is None or present.index < absent.index)
        if self.known and absent and after_present and self.known.index < absent.index:
            return "lost"
        return "never-read"

    def latency(self, last: Op | None) -> int:
        """Returns the ms from the time it was known to just after `last`; 0 without `last`."""
        if last is None or self.known is None:
            return 0
        return max(0, last.time + 1 - self.known.time) // MILLISECOND

    def to_map(self) -> Results:
        """Returns its entry in `:worst-stale`."""
        outcome = self.outcome
        entries = {
            "element": self.value,
            "outcome": Keyword(outcome),
            "stable-latency": self.latency(self.last_absent) if outcome == "stable" else None,
            "lost-latency": self.latency(self.last_present) if outcome == "lost" else None,
            "known": to_map(self.known) if self.known else None,
            "last-absent": to_map(self.last_absent) if self.last_absent else None,
        }
        return {Keyword(name): item for name, item in entries.items()}


@dataclass(frozen=True, slots=True)
class Read:
    """An ok read: its invocation and its completion."""

    begun: Op
    ended: Op

    def shown(self) -> set[Hashable]:
        """Returns the identities of the elements it shows. Nil shows none."""
        return set(_identities(self.ended))


def check(ops: Sequence[Op]) -> Verdict:
    """Judges a history of broadcast or g-set."""
    elements, reads, warnings = _follow(ops)
    _find_last(elements, reads)
    ordered = in_order(elements.values(), key=lambda element: element.value)
    outcomes = {element.add.index: element.outcome for element in ordered}

    def having(outcome: str) -> list[Element]:
        return [element for element in ordered if outcomes[element.add.index] == outcome]

    stable, lost, never_read = having("stable"), having("lost"), having("never-read")
    stale = [element for element in stable if element.latency(element.last_absent) > 0]
    by_latency = sorted(stale, key=lambda element: element.latency(element.last_absent))
    entries: dict[str, Any] = {
        "attempt-count": len(ordered),
        "stable-count": len(stable),
        "lost-count": len(lost),
        "lost": [element.value for element in lost],
        "never-read-count": len(never_read),
        "never-read": [element.value for element in never_read],
        "stale-count": len(stale),
        "stale": [element.value for element in stale],
        "worst-stale": [element.to_map() for element in by_latency[::-1][:WORST_KEPT]],
        "duplicated-count": 0,  # Jepsen's checker never finds any; see `warnings`
        "duplicated": {},
    }
    if stable:
        latencies = [element.latency(element.last_absent) for element in stable]
        entries["stable-latencies"] = _quantiles(latencies)
    if lost:
        entries["lost-latencies"] = _quantiles(
            [element.latency(element.last_present) for element in lost]
        )
    valid = False if lost else True if stable else None
    return Verdict(valid, results(valid, entries), _why(valid, ordered, lost, reads), warnings)


def _follow(ops: Sequence[Op]) -> tuple[dict[Hashable, Element], list[Read], list[str]]:
    """Returns the elements with their `known`, the ok reads by completion, and the warnings."""
    elements: dict[Hashable, Element] = {}
    unknown: set[Hashable] = set()  # elements without a `known`
    pending: dict[int | str, Op] = {}  # by process
    reads: list[Read] = []
    duplicates: list[str] = []
    foreign: dict[Hashable, tuple[Any, Op]] = {}  # elements shown before their add, or without one
    for op in clients(ops):
        if op.type == "invoke":
            pending[op.process] = op
            if op.f in ("add", "broadcast"):
                elements[identity(op.value)] = Element(op.value, op)
                unknown.add(identity(op.value))
            continue
        begun = pending.pop(op.process, None)
        if op.type != "ok":
            continue
        if begun is None or begun.f != op.f:
            raise HistoryError(
                f"process {op.process} completes a {op.f} (index {op.index}) that it did not invoke"
            )
        proven: set[Hashable] = set()
        if op.f in ("add", "broadcast"):
            proven = {identity(op.value)} & unknown
        elif op.f == "read":
            shown = _identities(op)
            distinct = set(shown)
            proven = distinct & unknown
            for name in sorted(distinct - elements.keys() - foreign.keys(), key=shown.index):
                foreign[name] = op.value[shown.index(name)], op
            if len(distinct) < len(shown):
                duplicates.append(_duplicates(op, shown))
            reads.append(Read(begun, op))
        for name in proven:
            elements[name].known = op
        unknown -= proven
    warnings = limited(duplicates)
    warnings += limited([_foreign(*shown, name, elements) for name, shown in foreign.items()])
    return elements, reads, warnings


def _find_last(elements: dict[Hashable, Element], reads: list[Read]) -> None:
    """Sets each element's last_present and last_absent.

    The reads are visited from the one invoked last, so the first find counts. An element leaves a
    search when it is found, or when no read that is left can count for it. So most reads cost a
    few operations on whole sets.
    """
    order = sorted(reads, key=lambda read: read.begun.index)
    last_end = list(accumulate((read.ended.index for read in order), max))
    by_add = sorted(elements, key=lambda name: elements[name].add.index)
    no_present, no_absent = set(by_add), set(by_add)
    for read, end in zip(reversed(order), reversed(last_end), strict=True):
        while by_add and elements[by_add[-1]].add.index > end:
            name = by_add.pop()
            no_present.discard(name)
            no_absent.discard(name)
        shown = read.shown()
        present = {n for n in no_present & shown if elements[n].add.index < read.ended.index}
        absent = {n for n in no_absent - shown if elements[n].add.index < read.ended.index}
        for name in present:
            elements[name].last_present = read.begun
        for name in absent:
            elements[name].last_absent = read.begun
        no_present -= present
        no_absent -= absent


def _identities(op: Op) -> list[Hashable]:
    """Returns the identities of the elements that a read shows, in their order."""
    value = [] if op.value is None else op.value
    if not isinstance(value, list):
        raise HistoryError(f"the read at index {op.index} must be a list, not {show(value)}")
    simple = set(map(type, value)) <= {int, str}  # the usual case, and the fast one
    return list(value) if simple else [identity(element) for element in value]


def _quantiles(latencies: list[int]) -> dict[Any, Any]:
    """Returns the latency at each of the quantiles, in ms."""
    ordered = sorted(latencies)
    last = len(ordered) - 1
    return {point: ordered[min(last, int(len(ordered) * point))] for point in QUANTILES}


def _duplicates(op: Op, shown: list[Hashable]) -> str:
    name, count = Counter(shown).most_common(1)[0]
    value = op.value[shown.index(name)]
    return f"Process {op.process}'s read {at(op)} shows element {show(value)} at {count} places."


def _foreign(value: Any, op: Op, name: Hashable, elements: dict[Hashable, Element]) -> str:
    later = elements.get(name)
    why = f"nobody has added it{mistyped(value, elements)}"
    if later:
        why = f"its add only began {at(later.add)}"
    return f"Process {op.process}'s read {at(op)} shows element {show(value)}, but {why}."


def _why(
    valid: bool | None, elements: list[Element], lost: list[Element], reads: list[Read]
) -> list[str]:
    if valid is None and not elements:
        return ["No element was added, so there is nothing to judge."]
    if valid is None and not reads:
        return ["No read succeeded, so it is unknown whether the elements were kept."]
    if valid is None:
        return ["No added element was ever read, and none is known to be lost."]
    ended = {read.begun.index: read.ended for read in reads}
    return limited([_lost(element, ended) for element in lost])


def _lost(element: Element, ended: dict[int, Op]) -> str:
    """Tells how an element was lost."""
    known, absent, present = element.known, element.last_absent, element.last_present
    assert known and absent
    add = element.add.f
    if known.f == "read":
        proof = f"process {known.process} read it {at(known)}"
    else:
        proof = f"process {known.process}'s {add} was acknowledged {at(known)}"
    if present is None:
        seen = "no read has ever shown it"
    else:
        seen = f"the last read to show it, process {present.process}'s, began {at(present)}"
    end = ended[absent.index]
    missing = f"process {end.process}'s read, begun {at(absent)} and ended {at(end)}, lacks it"
    return f"Element {show(element.value)} is lost: {proof}, but {missing}, and {seen}."
