"""Finds cycles in the dependencies of transactions, and says what they mean: Elle's method.

Transactions are serializable if they have an order in which each one sees the effects of those
before it. A history proves that a transaction comes before another in five ways, which are the
edges of a graph:

| edge     | T1 comes before T2 because                                          |
|----------|---------------------------------------------------------------------|
| ww       | T2 overwrote (or appended after) a version that T1 wrote            |
| wr       | T2 read a version that T1 wrote                                     |
| rw       | T2 overwrote (or appended after) a version that T1 read             |
| process  | one process ran T1, then T2                                         |
| realtime | T1 ended before T2 began                                            |

A cycle is a contradiction: each of its transactions would have to come before itself. The edges of
a cycle decide its type, and so the consistency models that it rules out (A. Adya, Weak consistency,
1999). `-process` or `-realtime` is added to a type if the cycle needs such an edge.

| type              | edges of the cycle                                        |
|-------------------|-----------------------------------------------------------|
| G0                | ww only                                                   |
| G1c               | ww, and at least one wr                                   |
| G-single-item     | exactly one rw                                            |
| G-nonadjacent-item| several rw, never two in a row                            |
| G2-item           | several rw, two of them in a row                          |

list_append.py and rw_register.py find the edges, and the anomalies that show without a cycle. This
file follows Elle 0.2.2, which Maelstrom uses (https://github.com/jepsen-io/elle), also where Elle
makes a choice: which cycle is an example of a type, and the type of an edge with several reasons.
cycles.py searches for the cycles, transactions.py reads the history, and consistency.py holds the
models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ..record.edn import Keyword
from ..record.history import Op
from ..verdicts import UNKNOWN
from . import consistency
from .cycles import (
    ANY,
    EXISTENCE,
    NAMES,
    PROCESS,
    REALTIME,
    SHAPES,
    Budget,
    Graph,
    Out,
    any_cycle,
    cyclic_models,
    cyclic_parts,
    find_cycle,
    type_of,
)
from .transactions import Transactions, Txn, shown

BUDGET: Final = 3_000_000
"""Steps of the search for cycles, for the whole history: some 5 s."""
EXPLAINED: Final = 8
"""Anomalies of each type that are explained in words."""

STEPS_SHOWN: Final = 40
"""Transactions and steps shown of a cycle; the middle of a longer one is left out."""


# Edges that hold for all kinds of transactions


def link_processes(graph: Graph, found: Transactions) -> None:
    """Links the consecutive committed transactions of each process."""
    last: dict[int | str, int] = {}
    for txn in found.oks:
        if txn.op.process in last:
            graph.link(last[txn.op.process], txn.vertex, PROCESS)
        last[txn.op.process] = txn.vertex


def link_realtime(graph: Graph, found: Transactions) -> None:
    """Links each committed transaction to those that began after its end.

    Links that follow from others are left out: an ended transaction is dropped from `ended` when
    one that began after it ends too. Failed and open transactions have no vertex. An edge to one
    cannot be part of a cycle, but makes the graph not empty.
    """
    vertex_of = {begin.index: vertex for vertex, begin in found.begin.items()}
    ended: dict[int, None] = {}  # a set in order of insertion
    before: dict[int, list[int]] = {}
    for event in found.events:
        if event.op.type == "invoke":
            vertex = vertex_of.get(event.op.index, -1)
            if vertex < 0:
                graph.empty = graph.empty and not ended
                continue
            before[vertex] = list(ended)
            for earlier in ended:
                graph.link(earlier, vertex, REALTIME)
        elif event.op.type == "ok":
            vertex = event.vertex
            for earlier in before.get(vertex, ()):
                ended.pop(earlier, None)
            ended[vertex] = None


# Findings and their meaning


@dataclass(frozen=True, slots=True)
class Step:
    """An edge of a cycle, from a transaction to the next one."""

    kind: str  # ww, wr, rw, process or realtime
    words: str  # why the next transaction comes later; names both, such as T1 and T2
    before: int | None = None  # place of the micro-operation in the transaction; None for none
    after: int | None = None  # the same in the next transaction


@dataclass(frozen=True, slots=True)
class Cycle:
    """Transactions T1, T2, ... that have no possible order."""

    txns: list[Txn]
    steps: list[Step]  # one from each transaction; the last one leads back to T1


@dataclass(frozen=True, slots=True)
class Finding:
    """An anomaly."""

    data: Any  # as in Elle's results
    words: str  # for people
    cycle: Cycle | None = None  # None for an anomaly without one


Findings = dict[str, list[Finding]]


@dataclass(frozen=True)
class Result:
    """The verdict on a history."""

    valid: Any  # True, False or UNKNOWN
    why: str  # a sentence for people
    anomaly_types: list[str] = field(default_factory=list)  # the reported types
    anomalies: dict[str, Any] = field(default_factory=dict)  # type to Elle's data
    not_: list[str] = field(default_factory=list)  # the weakest models that are ruled out
    also_not: list[str] = field(default_factory=list)  # all other models that are ruled out
    explanations: dict[str, list[str]] = field(default_factory=dict)  # type to texts for people
    cycles: dict[str, list[Cycle]] = field(default_factory=dict)  # type to the explained cycles
    warnings: list[str] = field(default_factory=list)  # sentences on the limits of the verdict

    def results(self) -> dict[Keyword, Any]:
        """Returns Elle's map of results."""
        if self.valid is True and not self.anomaly_types:
            return {Keyword("valid?"): True}
        found: dict[Keyword, Any] = {Keyword("valid?"): self.valid}
        if self.anomaly_types:
            found[Keyword("anomaly-types")] = list(map(Keyword, self.anomaly_types))
            found[Keyword("anomalies")] = {
                Keyword(type_): data for type_, data in self.anomalies.items()
            }
            found[Keyword("not")] = frozenset(map(Keyword, self.not_))
            found[Keyword("also-not")] = frozenset(map(Keyword, self.also_not))
        if self.valid is UNKNOWN:
            found[Keyword("error")] = self.why
        return found

    def __str__(self) -> str:
        """Returns the verdict and each explanation, as paragraphs."""
        texts = [text for found in self.explanations.values() for text in found]
        return "\n\n".join([self.why, *texts])


def unknown(why: str) -> Result:
    """Returns the result of a history that cannot be judged."""
    return Result(UNKNOWN, why)


def op_data(op: Op) -> dict[Keyword, Any]:
    """Returns an event as Elle writes it in results."""
    data = {
        Keyword("index"): op.index,
        Keyword("time"): op.time,
        Keyword("type"): Keyword(op.type),
        Keyword("process"): Keyword(op.process) if isinstance(op.process, str) else op.process,
        Keyword("f"): Keyword(op.f),
        Keyword("value"): op.value,
    }
    if op.error is not None:
        data[Keyword("error")] = op.error
    return data


def data_of(**entries: Any) -> dict[Keyword, Any]:
    """Returns a map with keywords as keys. `value_` stands for `:value'`, and `-` for `_`."""
    return {
        Keyword(f"{name[:-1]}'" if name.endswith("_") else name.replace("_", "-")): entry
        for name, entry in entries.items()
    }


Explain = Callable[[Txn, Txn, int, str, str], tuple[dict[Keyword, Any], str]]
"""Explains an edge: takes two transactions, the reason (WW, WR or RW) and two names; returns Elle's
data and a sentence."""


@dataclass(frozen=True)
class Analysis:
    """A checker's findings in a history before the search for cycles."""

    found: Transactions
    graph: Graph  # without edges of processes and time
    labels: tuple[int, ...]  # reasons in order: an edge is named after its first one
    explain: Explain
    findings: Findings  # anomalies that show without a cycle
    doubt: str = ""  # why the history is not valid even without an anomaly; "" if it is


def judge(analysis: Analysis, models: Iterable[str], budget: int = BUDGET) -> Result:
    """Searches for cycles, and returns the verdict. Raises HistoryError for an unknown model."""
    models = list(models)
    bad = consistency.forbidden(models)
    graph = analysis.graph
    if any(type_.endswith("-realtime") for type_ in bad):
        link_realtime(graph, analysis.found)
    elif any(type_.endswith("-process") for type_ in bad):
        link_processes(graph, analysis.found)
    findings = {type_: found for type_, found in analysis.findings.items() if found}
    if graph.empty:
        words = "No transaction depends on another one, so there is nothing to judge."
        findings["empty-transaction-graph"] = [Finding(True, words)]
    for cycle in _cycles(analysis, Budget(budget)):
        findings.setdefault(cycle[0], []).append(cycle[1])
    reported = _without_redundant(
        {type_ for type_ in findings if type_ in bad | consistency.UNKNOWN_TYPES}
    )
    types = sorted(reported)
    forbidden = [type_ for type_ in types if type_ in bad]
    unclear = analysis.doubt or " ".join(
        findings[type_][0].words for type_ in types if type_ in consistency.UNKNOWN_TYPES
    )
    wanted = " and ".join(models)
    if forbidden:
        valid, why = False, f"The history is not {wanted}: it has {', '.join(forbidden)}."
    elif unclear:
        valid, why = UNKNOWN, unclear
    else:
        return Result(True, f"No anomaly shows that the history is not {wanted}.")
    weakest, stronger = consistency.ruled_out(findings)
    return Result(
        valid,
        why,
        types,
        {
            type_: True
            if type_ == "empty-transaction-graph"
            else [finding.data for finding in findings[type_]]
            for type_ in types
        },
        weakest,
        stronger,
        {
            type_: list(dict.fromkeys(finding.words for finding in findings[type_]))[:EXPLAINED]
            for type_ in types
            if type_ != "empty-transaction-graph"
        },
        {
            type_: cycles
            for type_ in types
            if (cycles := [found.cycle for found in findings[type_] if found.cycle][:EXPLAINED])
        },
        [analysis.doubt] if forbidden and analysis.doubt else [],
    )


def _without_redundant(types: set[str]) -> set[str]:
    """Drops the mere existence of a cycle where another anomaly rules out the same model."""
    shown = {type_ for type_ in types if not type_.endswith("-cycle-exists")}
    models = consistency.impossible(shown)
    return types - {f"{name}-cycle-exists" for name, model, *_ in EXISTENCE if model in models}


def _cycles(analysis: Analysis, budget: Budget) -> Iterator[tuple[str, Finding]]:
    """Yields the anomalies of each component: one example for each type of cycle."""
    for part in cyclic_parts(analysis.graph.out, ANY, loops=False):
        existing = cyclic_models(part)
        for model, vertices in existing.items():
            yield _existence(model, vertices)
        ruled_out = consistency.with_stronger(existing)
        # A model without a cycle among its edges forbids no type that can be found.
        skip = consistency.forbidden(model for _, model, *_ in EXISTENCE if model not in ruled_out)
        try:
            for shape in SHAPES:
                if shape.type in skip:
                    continue
                cycle = find_cycle(part, shape, budget)
                if cycle is None:
                    continue
                type_ = type_of(label(analysis, part, cycle))
                if type_ == shape.type or not shape.strict:
                    yield type_, explain_cycle(analysis, part, cycle)
                    skip |= consistency.implied(shape.type)
        except TimeoutError:
            words = (
                f"{len(part)} transactions form a tangle of cycles. The search for the types of "
                f"these cycles ended with its budget, before {shape.type}."
            )
            data = data_of(
                type=Keyword("cycle-search-timeout"),
                anomaly_spec_type=Keyword(shape.type),
                scc_size=len(part),
            )
            yield "cycle-search-timeout", Finding(data, words)
            cycle = any_cycle(part)
            yield type_of(label(analysis, part, cycle)), explain_cycle(analysis, part, cycle)


def label(analysis: Analysis, part: Out, cycle: Sequence[int]) -> list[int]:
    """Returns the reason after which each edge of a cycle is named."""
    labels = (*analysis.labels, PROCESS, REALTIME)
    edges = zip(cycle, [*cycle[1:], cycle[0]], strict=True)
    return [
        next(reason for reason in labels if part[before][after] & reason) for before, after in edges
    ]


def explain_cycle(analysis: Analysis, part: Out, cycle: Sequence[int]) -> Finding:
    """Returns Elle's data on a cycle, and a numbered list of its steps."""
    reasons = label(analysis, part, cycle)
    type_ = type_of(reasons)
    txns = [analysis.found.possible[vertex] for vertex in cycle]
    who = f"these {len(txns)} transactions have" if len(txns) > 1 else "this transaction has"
    names = [f"  T{number} is {txn}" for number, txn in enumerate(txns, 1)]
    lines = []
    all_data: list[dict[Keyword, Any]] = []
    steps: list[Step] = []
    for number, reason in enumerate(reasons):
        follow = (number + 1) % len(txns)
        a, b = txns[number], txns[follow]
        a_name, b_name = f"T{number + 1}", f"T{follow + 1}"
        if reason == PROCESS:
            data = data_of(type=Keyword("process"), process=a.op.process)
            words = f"process {a.op.process} ran {a_name} before {b_name}"
        elif reason == REALTIME:
            begin = analysis.found.begin[b.vertex]
            data = data_of(type=Keyword("realtime"), a_=op_data(a.op), b=op_data(begin))
            words = (
                f"{a_name} ended (index {a.op.index}) before {b_name} began (index {begin.index})"
            )
        else:
            data, words = analysis.explain(a, b, reason, a_name, b_name)
        all_data.append(data)
        places = (data.get(Keyword(f"{side}-mop-index")) for side in "ab")
        steps.append(Step(NAMES[reason], words, *places))
        lines.append(f"  {number + 1}. {a_name} comes before {b_name}, since {words}.")
    ops = [op_data(txn.op) for txn in txns]
    words = "\n".join(
        [
            f"{type_}: {who} no possible order.",
            *_without_middle(names),
            *_without_middle(lines),
            "  So T1 would come before itself, which is impossible.",
        ]
    )
    data = data_of(cycle=[*ops, ops[0]], steps=all_data, type=Keyword(type_))
    return Finding(data, words, Cycle(txns, steps))


def _without_middle(lines: list[str]) -> list[str]:
    if len(lines) <= STEPS_SHOWN:
        return lines
    half = STEPS_SHOWN // 2
    return [*lines[:half], f"  ... {len(lines) - 2 * half} more ...", *lines[-half:]]


def _existence(model: str, vertices: list[int]) -> tuple[str, Finding]:
    name, mask, extended = next(
        (name, mask, extended) for name, other, mask, extended in EXISTENCE if other == model
    )
    type_ = f"{name}-cycle-exists"
    kinds = [NAMES[reason] for reason in NAMES if mask & reason]
    after = ", each of which an rw edge may follow," if extended else ""
    words = (
        f"{type_}: the edges {' '.join(kinds)}{after} form a cycle among the transactions with "
        f"the indices {shown(vertices)}. So the history is not {model}."
    )
    union = [Keyword("union"), *map(Keyword, kinds)]
    data = data_of(
        type=Keyword(type_),
        subgraph=[Keyword("extension"), union, Keyword("rw")] if extended else union,
        scc_size=len(vertices),
        scc=frozenset(vertices),
    )
    data[Keyword("not")] = Keyword(model)
    return type_, Finding(data, words)
