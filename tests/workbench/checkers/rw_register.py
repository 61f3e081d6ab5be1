"""Checks histories of transactions that read and write registers: Elle's rw-register.

    [[:w 1 5] [:r 2 nil]]    writes 5 to key 1, and reads key 2
    [[:w 1 5] [:r 2 7]]      the same, completed: the read returns 7

A register shows only its last write, so the order of versions is known in part, from two sources:

- Nil is the first version of each key.
- If a transaction reads a version and then writes the key, its write comes later than that version
  (`wfr-keys`: writes follow reads).

Only the first read of a key before the transaction's own writes, and its last write, count: other
transactions can see no more. Values are unique among the writes of a key.

| edge T1 to T2 | when                                                                   |
|---------------|------------------------------------------------------------------------|
| wr            | T1 wrote a value that T2 read                                          |
| ww            | T1 wrote a version, and T2 the next one known                          |
| rw            | T1 read a version, and T2 wrote the next one known                     |

Only committed transactions have edges of these kinds. Anomalies that show without a cycle:

| type            | meaning                                                              |
|-----------------|----------------------------------------------------------------------|
| G1a             | a read shows a write of a failed transaction                         |
| G1b             | a read shows a write that its transaction overwrote                  |
| internal        | a read contradicts the transaction's own reads and writes            |
| lost-update     | transactions read the same version, then all of them write the key   |
| cyclic-versions | the versions of a key have no possible order                         |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final

from ..record.edn import Keyword
from ..record.history import Op
from .cycles import NAMES, RW, WR, WW, Graph, components
from .elle import BUDGET, Analysis, Finding, Findings, Result, data_of, judge, op_data, unknown
from .list_append import intermediate_writes, lost_updates
from .transactions import Transactions, Txn, Unanalysable, shown, transactions

TIMEOUT: Final = "cycle-search-timeout"
SOURCES: Final = ("initial-state", "wfr-keys")

Key = Any
Value = Any
Versions = dict[Key, dict[Value, dict[Value, None]]]
"""For each key and version, the next versions known."""


def check(
    ops: Iterable[Op],
    models: Iterable[str] = ("strict-serializable",),
    budget: int = BUDGET,
) -> Result:
    """Judges a history as Maelstrom does. Raises HistoryError for a model that does not exist.

    Unlike in list-append, a history without any edge is invalid, and a search for cycles that ended
    early does not make the verdict unknown. That becomes a warning
    (maelstrom.workload.txn-rw-register/checker).
    """
    try:
        result = judge(analyse(ops), models, budget)
    except Unanalysable as problem:
        return unknown(f"The history cannot be judged: {problem}.")
    types = [type_ for type_ in result.anomaly_types if type_ != TIMEOUT]
    return replace(
        result,
        valid=not types,
        anomaly_types=types,
        anomalies={type_: result.anomalies[type_] for type_ in types},
        explanations={
            type_: texts for type_, texts in result.explanations.items() if type_ != TIMEOUT
        },
        warnings=result.explanations.get(TIMEOUT, []),
    )


def results(result: Result) -> dict[Keyword, Any]:
    """Returns Maelstrom's map of results, which names the types even if there are none."""
    none: dict[Keyword, Any] = {Keyword("anomaly-types"): [], Keyword("anomalies"): None}
    return result.results() | (none if result.valid is True else {})


def analyse(ops: Iterable[Op]) -> Analysis:
    """Finds the edges of the graph, and all anomalies without a cycle."""
    found = transactions(ops, ("r", "w"))
    _verify(found)
    registers = Registers(found)
    findings: Findings = {
        "G1a": list(_aborted_reads(found)),
        "G1b": list(_intermediate_reads(found)),
        "internal": [finding for txn in found.oks for finding in _internal(txn)],
        "lost-update": lost_updates(found, "w"),
        "cyclic-versions": registers.cyclic,
    }
    graph = Graph(found.possible)
    for before, after, reason in registers.edges():
        # Elle keeps the edge of a transaction that reads its own later write.
        graph.link(before.vertex, after.vertex, reason, loops=reason == WR)
    return Analysis(found, graph, (WR, WW, RW), registers.explain, findings)


def _verify(found: Transactions) -> None:
    """Raises Unanalysable if keys have several types."""
    types = {type(mop.key): mop.key for event in found.events for mop in event.mops}
    if len(types) > 1:
        examples = " and ".join(map(shown, types.values()))
        raise Unanalysable(f"keys have several types, such as {examples}")


def external_reads(txn: Txn) -> dict[Key, Value]:
    """Returns the keys that a transaction read first, with the value."""
    seen: dict[Key, bool] = {}
    reads: dict[Key, Value] = {}
    for mop in txn.mops:
        if mop.key not in seen:
            seen[mop.key] = True
            if mop.f == "r":
                reads[mop.key] = mop.value
    return reads


def external_writes(txn: Txn) -> dict[Key, Value]:
    """Returns the last write to each key."""
    return {mop.key: mop.value for mop in txn.mops if mop.f == "w"}


class Registers:
    """The known versions of each key, and the edges that follow from them."""

    def __init__(self, found: Transactions) -> None:
        self.reads: dict[int, dict[Key, Value]] = {}
        self.writes: dict[int, dict[Key, Value]] = {}
        self.readers: dict[tuple[Key, Value], list[Txn]] = {}
        self.writers: dict[tuple[Key, Value], list[Txn]] = {}
        self.versions: Versions = {}
        later: list[tuple[Key, Value, Value]] = []  # a transaction read the first, wrote the other
        for txn in found.possible.values():
            writes = self.writes[txn.vertex] = external_writes(txn)
            reads = self.reads[txn.vertex] = external_reads(txn) if txn.ok else {}
            for key, value in (*writes.items(), *reads.items()):
                if value is not None:
                    self.versions.setdefault(key, {}).setdefault(None, {})[value] = None
            if not txn.ok:
                continue
            for key, value in writes.items():
                self.writers.setdefault((key, value), []).append(txn)
            for key, value in reads.items():
                self.readers.setdefault((key, value), []).append(txn)
                if value is not None and writes.get(key) is not None:
                    later.append((key, value, writes[key]))
        self._verify()
        self.cyclic: list[Finding] = []
        merged: Versions = {
            key: {value: dict(after) for value, after in graph.items()}
            for key, graph in self.versions.items()
        }
        for key, value, after in later:
            merged.setdefault(key, {}).setdefault(value, {})[after] = None
        for key, graph in merged.items():
            self.cyclic += _cyclic(key, graph)
        if not self.cyclic:
            self.versions = merged

    def _verify(self) -> None:
        """Raises Unanalysable if a value that was read has several writers."""
        for (key, value), writers in self.writers.items():
            if len(writers) > 1 and (key, value) in self.readers:
                raise Unanalysable(
                    f"{len(writers)} transactions wrote {shown(value)} to key {shown(key)}, so a "
                    "read of it does not tell its writer"
                )

    def edges(self) -> Iterator[tuple[Txn, Txn, int]]:
        """Yields all edges with their reason."""
        for version, readers in self.readers.items():
            for writer in self.writers.get(version, ()):
                for reader in readers:
                    yield writer, reader, WR
        for key, graph in self.versions.items():
            for value, next_values in graph.items():
                for after in next_values:
                    for writer in self.writers.get((key, after), ()):
                        for earlier in self.writers.get((key, value), ()):
                            yield earlier, writer, WW
                        for reader in self.readers.get((key, value), ()):
                            yield reader, writer, RW

    def explain(
        self, a: Txn, b: Txn, reason: int, a_name: str, b_name: str
    ) -> tuple[dict[Keyword, Any], str]:
        """Explains an edge from `a` to `b`: returns Elle's data and a sentence."""
        mine = self.reads[a.vertex] if reason == RW else self.writes[a.vertex]
        theirs = self.reads[b.vertex] if reason == WR else self.writes[b.vertex]
        key, value = next(
            (key, value)
            for key, value in mine.items()
            if key in theirs
            and (
                theirs[key] == value
                if reason == WR
                else theirs[key] in self.versions.get(key, {}).get(value, {})
            )
        )
        after = theirs[key]
        name = shown(key)
        a_index = _index(a, "r" if reason == RW else "w", key, value)
        b_index = _index(b, "r" if reason == WR else "w", key, after)
        kind = Keyword(NAMES[reason])
        if reason == WR:
            data = data_of(type=kind, key=key, value=value)
            words = f"{b_name} read {shown(value)} in key {name}, which {a_name} wrote"
            if a is b:
                words = f"{a_name} read {shown(value)} in key {name} before it wrote this value"
        else:
            data = data_of(type=kind, key=key, value=value, value_=after)
            verb = "read" if reason == RW else "wrote"
            words = (
                f"{a_name} {verb} {shown(value)} in key {name}, the version that {b_name} read "
                f"before it wrote {shown(after)}"
            )
            if value is None:
                words = f"{a_name} read key {name} before any write, and {b_name} wrote it"
        return data | data_of(a_mop_index=a_index, b_mop_index=b_index), words


def _index(txn: Txn, f: str, key: Key, value: Value) -> int:
    return next(
        index
        for index, mop in enumerate(txn.mops)
        if (mop.f, mop.key, mop.value) == (f, key, value)
    )


def _cyclic(key: Key, graph: dict[Value, dict[Value, None]]) -> Iterator[Finding]:
    def successors(value: Value) -> Iterable[Value]:
        return graph.get(value, ())

    for component in components(list(graph), successors):
        if len(component) > 1:
            values = sorted(component, key=shown)
            words = (
                f"cyclic-versions: the values {shown(values)} of key {shown(key)} have no possible "
                "order: transactions read each of them and then wrote another one of them."
            )
            sources = list(map(Keyword, SOURCES))
            yield Finding(data_of(key=key, scc=frozenset(component), sources=sources), words)


def _aborted_reads(found: Transactions) -> Iterator[Finding]:
    failed = {(mop.key, mop.value): txn for txn in found.failed for mop in txn.mops if mop.f == "w"}
    for txn in found.oks if failed else ():
        for mop in txn.mops:
            writer = failed.get((mop.key, mop.value)) if mop.f == "r" else None
            if writer is not None:
                words = (
                    f"G1a: T1 read {shown(mop.value)} in key {shown(mop.key)}, which T2 wrote; but "
                    f"T2 failed, so nobody may see it.\n  T1 is {txn}\n  T2 is {writer}"
                )
                yield _read_finding(txn, mop.form, writer, words)


def _intermediate_reads(found: Transactions) -> Iterator[Finding]:
    between = intermediate_writes(found, "w")
    for txn in found.oks if between else ():
        for mop in txn.mops:
            writer = between.get((mop.key, mop.value)) if mop.f == "r" else None
            if writer is not None and writer.op.index != txn.op.index:
                words = (
                    f"G1b: T1 read {shown(mop.value)} in key {shown(mop.key)}, which T2 wrote; but "
                    "T2 then overwrote it itself. T1 saw half of T2."
                    f"\n  T1 is {txn}\n  T2 is {writer}"
                )
                yield _read_finding(txn, mop.form, writer, words)


def _read_finding(txn: Txn, form: list[Any], writer: Txn, words: str) -> Finding:
    data = data_of(op=op_data(txn.op), mop=form, writer=op_data(writer.op))
    return Finding(data, words)


def _internal(txn: Txn) -> Iterator[Finding]:
    """Yields the first read that contradicts the transaction's own reads and writes."""
    state: dict[Key, Value] = {}
    for mop in txn.mops:
        expected = state.get(mop.key)
        if mop.f == "r" and expected is not None and mop.value != expected:
            words = (
                f"internal: T1 read {shown(mop.value)} in key {shown(mop.key)}; but after its own "
                f"earlier reads and writes the value must be {shown(expected)}.\n  T1 is {txn}"
            )
            yield Finding(data_of(op=op_data(txn.op), mop=mop.form, expected=expected), words)
            return
        state[mop.key] = mop.value
