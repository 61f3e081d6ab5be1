"""Checks histories of transactions that append to lists and read them: Elle's list-append.

    [[:append 1 5] [:r 2 nil]]      appends 5 to the list of key 1, and reads that of key 2
    [[:append 1 5] [:r 2 [7 8]]]    the same, completed: the read shows 7, then 8

A read shows all appends to its key, in their order. The longest read of a key thus is the order of
its versions, and each append has a predecessor: the element before it in that order. An append that
no read shows comes after all elements of the order.

| edge T1 to T2 | when                                                                      |
|---------------|---------------------------------------------------------------------------|
| ww            | T1 appended the predecessor of an element that T2 appended                |
| wr            | T1 appended the last element of a read in T2                              |
| rw            | T1 read the list up to the predecessor of an element that T2 appended     |

Anomalies that show without a cycle:

| type               | meaning                                                              |
|--------------------|----------------------------------------------------------------------|
| G1a                | a read shows an append of a failed transaction                       |
| G1b                | a read ends between two appends of another transaction               |
| internal           | a read contradicts the transaction's own reads and appends           |
| future-read        | a transaction reads an element before it appends this element        |
| duplicate-elements | a read shows an element twice                                        |
| incompatible-order | two reads of a key: neither is the beginning of the other            |
| dirty-update       | a committed append follows one of a failed transaction               |
| lost-update        | transactions read the same list, then all of them append to it       |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, Final

from ..record.edn import Keyword, Symbol
from ..record.history import Op
from .cycles import RW, WR, WW, Graph, in_list_order
from .elle import BUDGET, Analysis, Finding, Findings, Result, data_of, judge, op_data, unknown
from .transactions import Mop, Transactions, Txn, Unanalysable, shown, transactions
from .verdict import mistyped

INITIAL: Final = object()
"""Stands for the empty list before the first append."""

Key = Any
Element = Any


def check(
    ops: Iterable[Op],
    models: Iterable[str] = ("strict-serializable",),
    budget: int = BUDGET,
) -> Result:
    """Judges a history. Raises HistoryError for a consistency model that does not exist."""
    try:
        return judge(analyse(ops), models, budget)
    except Unanalysable as problem:
        return unknown(f"The history cannot be judged: {problem}.")


def analyse(ops: Iterable[Op]) -> Analysis:
    """Finds the edges of the graph, and all anomalies without a cycle."""
    found = transactions(ops, ("r", "append"))
    _verify(found)
    _adopt(found)
    orders = Orders(found)
    findings: Findings = {
        "G1a": list(_aborted_reads(found)),
        "G1b": list(_intermediate_reads(found)),
        "internal": [finding for txn in found.oks for finding in _internal(txn)],
        "future-read": [finding for txn in found.oks for finding in _future_read(txn)],
        "duplicate-elements": list(_duplicates(found)),
        "incompatible-order": list(orders.incompatible()),
        "dirty-update": list(_dirty_updates(found, orders)),
        "lost-update": lost_updates(found, "append"),
    }
    graph = Graph(found.possible)
    for txn in found.possible.values():
        for mop in txn.mops:
            for before, reason in orders.before(txn, mop):
                graph.link(before.vertex, txn.vertex, reason)
    return Analysis(found, graph, (WW, WR, RW), orders.explain, findings, _unwritten(found, orders))


def _verify(found: Transactions) -> None:
    """Raises Unanalysable if a read is not a list, or an element is appended twice."""
    appended: set[tuple[Key, Element]] = set()
    for event in found.events:
        for mop in event.mops:
            if mop.f == "r":
                if not (mop.value is None or isinstance(mop.value, tuple)):
                    raise Unanalysable(
                        f"the read {shown(mop.form)} at index {event.op.index} is not a list"
                    )
            elif event.op.type == "invoke":
                if (mop.key, mop.value) in appended:
                    raise Unanalysable(
                        f"{shown(mop.value)} is appended to key {shown(mop.key)} more than once, "
                        f"the last time at index {event.op.index}; so its place says nothing"
                    )
                appended.add((mop.key, mop.value))


def _adopt(found: Transactions) -> None:
    """Takes an open transaction as info if a read shows one of its appends.

    A history that was cut off has open transactions. Elle cannot judge it.
    """
    seen = {
        (mop.key, element)
        for txn in found.oks
        for mop in txn.mops
        if mop.f == "r"
        for element in mop.value or ()
    }
    for event in found.open:
        if any(mop.f == "append" and (mop.key, mop.value) in seen for mop in event.mops):
            op = Op(
                event.op.process, "info", event.op.f, event.op.value, event.op.time, event.op.index
            )
            found.begin[op.index] = op
            found.possible[op.index] = Txn(op, event.mops)


class Orders:
    """The order of versions of each key, and the edges that follow from it."""

    def __init__(self, found: Transactions) -> None:
        self.writer: dict[tuple[Key, Element], Txn] = {}  # who appended an element
        self.readers: dict[tuple[Key, Any], list[Txn]] = {}  # who read up to an element
        self.reads: dict[Key, list[tuple[Element, ...]]] = {}  # distinct reads, by length
        appends: dict[Key, list[Element]] = {}
        distinct: dict[Key, dict[tuple[Element, ...], None]] = {}
        for txn in found.possible.values():
            for mop in txn.mops:
                if mop.f == "append":
                    self.writer[mop.key, mop.value] = txn
                    appends.setdefault(mop.key, []).append(mop.value)
                elif mop.value:
                    distinct.setdefault(mop.key, {})[mop.value] = None
                    self.readers.setdefault((mop.key, mop.value[-1]), []).append(txn)
                elif txn.ok:
                    self.readers.setdefault((mop.key, INITIAL), []).append(txn)
        for key, elements in appends.items():
            if len(elements) == 1:
                self.reads[key] = [tuple(elements)]
        for key, reads in distinct.items():
            by_length = sorted(reads, key=len)
            if any(len(a) == len(b) for a, b in pairwise(by_length)):
                # These reads contradict each other. Which one counts as the longest is arbitrary.
                by_length = sorted(in_list_order(reads), key=len)
            self.reads[key] = by_length
        self.order: dict[Key, list[Element]] = {
            key: list(dict.fromkeys(reads[-1])) for key, reads in self.reads.items()
        }
        self.position: dict[Key, dict[Element, int]] = {
            key: {element: position for position, element in enumerate(order)}
            for key, order in self.order.items()
        }

    def predecessor(self, key: Key, element: Element) -> Any:
        """Returns the element before an element, or INITIAL."""
        order = self.order.get(key, [])
        position = self.position.get(key, {}).get(element, len(order))
        return order[position - 1] if position else INITIAL

    def before(self, txn: Txn, mop: Mop) -> Iterator[tuple[Txn, int]]:
        """Yields the other transactions before a micro-operation, with the reason."""
        if mop.f == "r":
            if mop.value:
                writer = self.writer.get((mop.key, mop.value[-1]))
                if writer is not None and writer is not txn:
                    yield writer, WR
            return
        previous = self.predecessor(mop.key, mop.value)
        if previous is not INITIAL:
            writer = self.writer.get((mop.key, previous))
            if writer is not None and writer is not txn:
                yield writer, WW
        for reader in self.readers.get((mop.key, previous), ()):
            if reader is not txn:
                yield reader, RW

    def explain(
        self, a: Txn, b: Txn, reason: int, a_name: str, b_name: str
    ) -> tuple[dict[Keyword, Any], str]:
        """Explains an edge from `a` to `b`: returns Elle's data and a sentence."""
        b_index, mop = next(
            (index, mop) for index, mop in enumerate(b.mops) if (a, reason) in self.before(b, mop)
        )
        key = shown(mop.key)
        if reason == WR:
            last = mop.value[-1]
            where = [m.f == "append" and (m.key, m.value) == (mop.key, last) for m in a.mops]
            data = data_of(type=Keyword("wr"), key=mop.key, value=last)
            words = f"{b_name} read {shown(last)} in key {key}, which {a_name} appended"
        else:
            previous = self.predecessor(mop.key, mop.value)
            value = Keyword("elle.list-append/init") if previous is INITIAL else previous
            kind = Keyword("ww" if reason == WW else "rw")
            data = data_of(type=kind, key=mop.key, value=value, value_=mop.value)
            appended = f"{b_name} appended {shown(mop.value)}"
            if reason == WW:
                where = [
                    m.f == "append" and (m.key, m.value) == (mop.key, previous) for m in a.mops
                ]
                words = f"{a_name} appended {shown(previous)} to key {key}, and {appended} after it"
            else:
                where = [m.f == "r" and m.key == mop.key and _ends(m, previous) for m in a.mops]
                saw = "as empty" if previous is INITIAL else f"up to {shown(previous)}"
                words = f"{a_name} read key {key} {saw}, so before {appended}"
            if mop.value not in self.position.get(mop.key, {}):
                words += " (no read shows this append, so it comes after all that are read)"
        data |= data_of(a_mop_index=where.index(True), b_mop_index=b_index)
        return data, words

    def incompatible(self) -> Iterator[Finding]:
        """Yields a pair of reads for each key whose reads are not versions of one list."""
        for key, reads in self.reads.items():
            for shorter, longer in pairwise(reads):
                if longer[: len(shorter)] != shorter:
                    words = (
                        f"incompatible-order: one transaction read {shown(shorter)} in key "
                        f"{shown(key)}, another one {shown(longer)}. Neither is the beginning of "
                        "the other, so they are no versions of one list."
                    )
                    yield Finding(data_of(key=key, values=[list(shorter), list(longer)]), words)
                    break


def _ends(mop: Mop, element: Any) -> bool:
    return bool(mop.value[-1] == element) if mop.value else element is INITIAL


def _reads(found: Transactions) -> Iterator[tuple[Txn, Mop]]:
    """Yields the reads of committed transactions that show at least one element."""
    return ((txn, mop) for txn in found.oks for mop in txn.mops if mop.f == "r" and mop.value)


def _aborted_reads(found: Transactions) -> Iterator[Finding]:
    failed = {
        (mop.key, mop.value): txn for txn in found.failed for mop in txn.mops if mop.f == "append"
    }
    for txn, mop in _reads(found) if failed else ():
        for element in mop.value:
            writer = failed.get((mop.key, element))
            if writer is not None:
                words = (
                    f"G1a: T1 read {shown(element)} in key {shown(mop.key)}, which T2 appended; "
                    f"but T2 failed, so nobody may see it.\n  T1 is {txn}\n  T2 is {writer}"
                )
                yield _read_finding(txn, mop, words, writer, element)


def _intermediate_reads(found: Transactions) -> Iterator[Finding]:
    between = intermediate_writes(found, "append")
    for txn, mop in _reads(found) if between else ():
        element = mop.value[-1]
        writer = between.get((mop.key, element))
        if writer is not None and writer.op.index != txn.op.index:
            words = (
                f"G1b: T1 read key {shown(mop.key)} up to {shown(element)}, which T2 appended; but "
                "T2 then appended more to it. T1 saw half of T2."
                f"\n  T1 is {txn}\n  T2 is {writer}"
            )
            yield _read_finding(txn, mop, words, writer, element)


def _read_finding(txn: Txn, mop: Mop, words: str, writer: Txn | None, element: Element) -> Finding:
    data = data_of(op=op_data(txn.op), mop=mop.form)
    if writer is not None:
        data |= data_of(writer=op_data(writer.op))
    return Finding(data | data_of(element=element), words)


def _internal(txn: Txn) -> Iterator[Finding]:
    """Yields the first read that contradicts the transaction's own reads and appends."""
    # For each key: is the whole list known, or only its end? And the list, or None for nil.
    state: dict[Key, tuple[bool, tuple[Element, ...] | None]] = {}
    for mop in txn.mops:
        whole, value = state.get(mop.key, (False, None))
        known = mop.key in state
        if mop.f == "append":
            state[mop.key] = whole or (known and value is None), (*(value or ()), mop.value)
            continue
        read = mop.value or ()
        if value is not None and (
            mop.value != value if whole else read[max(0, len(read) - len(value)) :] != value
        ):
            expected = list(value) if whole else [Symbol("..."), *value]
            words = (
                f"internal: T1 read {shown(mop.value)} in key {shown(mop.key)}; but after its own "
                f"earlier reads and appends the list must be {shown(expected)}.\n  T1 is {txn}"
            )
            yield Finding(data_of(op=op_data(txn.op), mop=mop.form, expected=expected), words)
            return
        state[mop.key] = True, mop.value


def _future_read(txn: Txn) -> Iterator[Finding]:
    """Yields the first read of an element that the transaction appends later."""
    seen: dict[tuple[Key, Element], Mop] = {}
    for mop in txn.mops:
        if mop.f == "r":
            for element in mop.value or ():
                seen.setdefault((mop.key, element), mop)
        elif (mop.key, mop.value) in seen:
            words = (
                f"future-read: T1 read {shown(mop.value)} in key {shown(mop.key)} before it "
                f"appended this element.\n  T1 is {txn}"
            )
            yield _read_finding(txn, seen[mop.key, mop.value], words, None, mop.value)
            return


def _duplicates(found: Transactions) -> Iterator[Finding]:
    for txn, mop in _reads(found):
        if len(set(mop.value)) < len(mop.value):
            twice = {element: n for element, n in Counter(mop.value).items() if n > 1}
            words = (
                f"duplicate-elements: T1 read {shown(mop.value)} in key {shown(mop.key)}; but each "
                f"element is appended once.\n  T1 is {txn}"
            )
            yield Finding(data_of(op=op_data(txn.op), mop=mop.form, duplicates=twice), words)


def _dirty_updates(found: Transactions, orders: Orders) -> Iterator[Finding]:
    """Yields each committed append that follows one of a failed transaction.

    Transactions of unknown outcome between the two are skipped.
    """
    if not found.failed:
        return
    writers = {
        (mop.key, mop.value): txn
        for txn in (*found.possible.values(), *found.failed)
        for mop in txn.mops
        if mop.f == "append"
    }
    for key, order in orders.order.items():
        failed: Txn | None = None
        since: list[Element] = []
        for element in order:
            writer = writers.get((key, element))
            if writer is None:
                continue
            since.append(element)
            if writer.op.type == "fail":
                if failed is None:
                    failed, since = writer, [element]
            elif writer.ok:
                if failed is not None:
                    words = (
                        f"dirty-update: in key {shown(key)}, T2 appended {shown(element)} after "
                        f"an append of T1, {shown(since[0])}; but T1 failed, so its append must "
                        f"not be in the list.\n  T1 is {failed}\n  T2 is {writer}"
                    )
                    txns = [op_data(failed.op), Symbol("..."), op_data(writer.op)]
                    yield Finding(data_of(key=key, values=since, txns=txns), words)
                failed, since = None, []


def _unwritten(found: Transactions, orders: Orders) -> str:
    """Returns a sentence on an element that no transaction appended; "" if there is none."""
    appended = {
        (mop.key, mop.value) for txn in found.events for mop in txn.mops if mop.f == "append"
    }
    for key, order in orders.order.items():
        for element in order:
            if (key, element) not in appended:
                slip = mistyped(element, appended, key)
                return (
                    f"A read of key {shown(key)} shows {shown(element)}, which no transaction "
                    f"appended{slip}. So the order of the other appends is not certain."
                )
    return ""


# For both checkers


def intermediate_writes(found: Transactions, write: str) -> dict[tuple[Key, Any], Txn]:
    """Returns the writes that their own transaction followed by another one to the same key."""
    between: dict[tuple[Key, Any], Txn] = {}
    for event in found.events:
        last: dict[Key, Any] = {}
        for mop in event.mops:
            if mop.f == write:
                if mop.key in last:
                    between[mop.key, last[mop.key]] = event
                last[mop.key] = mop.value
    return between


def lost_updates(found: Transactions, write: str) -> list[Finding]:
    """Returns the sets of transactions that read the same version of a key, and then wrote it."""
    updates: dict[tuple[Key, Any], list[Txn]] = {}
    for txn in found.oks:
        read: dict[Key, Any] = {}
        written: set[Key] = set()
        for mop in txn.mops:
            if mop.f != write:
                read.setdefault(mop.key, mop.value)
            elif mop.key in read and mop.key not in written:
                written.add(mop.key)
                updates.setdefault((mop.key, read[mop.key]), []).append(txn)
    findings = []
    for (key, value), txns in updates.items():
        if len(txns) > 1:
            lines = [
                f"lost-update: these {len(txns)} transactions read {shown(value)} in key "
                f"{shown(key)}, and then wrote the key. Each but one overlooked another's write."
            ]
            lines += [f"  T{number} is {txn}" for number, txn in enumerate(txns, 1)]
            value = list(value) if isinstance(value, tuple) else value
            data = data_of(key=key, value=value, txns=[op_data(txn.op) for txn in txns])
            findings.append(Finding(data, "\n".join(lines)))
    return findings
