"""The transactions of a history, as the checkers of elle.py read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from ..record import edn
from ..record.edn import Keyword, Symbol
from ..record.history import Op, clients, shorten

SHOWN: Final = 120
"""Characters shown of a value."""


@dataclass(frozen=True, slots=True)
class Mop:
    """A micro-operation of a transaction: a read, a write or an append."""

    f: str  # "r", "w" or "append"
    key: Any  # can be hashed
    value: Any  # can be hashed; None for an unknown result, and for a read of nothing
    form: list[Any]  # as in the history


@dataclass(frozen=True, slots=True, eq=False)
class Txn:
    """A transaction: the completion of an operation."""

    op: Op
    mops: tuple[Mop, ...]

    @property
    def vertex(self) -> int:
        """Returns the vertex in the graph: the index of the completion."""
        return self.op.index

    @property
    def ok(self) -> bool:
        """True if the transaction committed, so its reads are known."""
        return self.op.type == "ok"

    def __str__(self) -> str:
        text = shorten(edn.dumps(self.op.value), SHOWN)
        return f"{text} (process {self.op.process}, index {self.op.index}, {self.op.type})"


class Unanalysable(ValueError):
    """A history cannot be judged. The text says why."""


def hashable(value: Any) -> Any:
    """Returns a value that can be hashed, and equals another only if their EDN does: in Python 1
    equals True and 1.0."""
    if value is None or type(value) in (int, str) or isinstance(value, (Keyword, Symbol)):
        return value
    return Symbol(edn.dumps(value, sort_keys=True))


def mops_of(op: Op, known: Iterable[str]) -> tuple[Mop, ...]:
    """Splits the value of an operation. Raises Unanalysable for other micro-operations."""
    if not isinstance(op.value, (list, tuple)):
        raise Unanalysable(f"the value at index {op.index} is not a transaction: {shown(op.value)}")
    mops = []
    for form in op.value:
        f = str(getattr(form[0], "name", form[0])) if isinstance(form, (list, tuple)) else ""
        if f not in known or len(form) != 3:
            raise Unanalysable(
                f"the transaction at index {op.index} has the micro-operation {shown(form)}; "
                f"known are {' and '.join(f':{name}' for name in known)}, with a key and a value"
            )
        value = form[2]
        if f == "r" and isinstance(value, (list, tuple)):
            value = tuple(map(hashable, value))
        else:
            value = hashable(value)
        mops.append(Mop(f, hashable(form[1]), value, form))
    return tuple(mops)


def shown(value: Any) -> str:
    """Returns a short text of a value, as EDN."""
    if isinstance(value, tuple):
        value = list(value)
    return shorten(edn.dumps(value), SHOWN)


@dataclass(frozen=True)
class Transactions:
    """The transactions of a history."""

    events: list[Txn]  # all events of clients, invocations too
    possible: dict[int, Txn]  # ok and info completions by index, which is the vertex
    failed: list[Txn]
    open: list[Txn]  # invocations without a completion
    begin: dict[int, Op]  # vertex to the invocation

    @property
    def oks(self) -> Iterator[Txn]:
        """Yields the committed transactions."""
        return (txn for txn in self.possible.values() if txn.ok)


def transactions(ops: Iterable[Op], known: Iterable[str]) -> Transactions:
    """Reads the transactions of a history. Raises Unanalysable if it holds anything else."""
    found = Transactions([], {}, [], [], {})
    under_way: dict[int | str, Txn] = {}
    for op in clients(ops):
        begun = under_way.pop(op.process, None)
        # In a log, the error of a transaction may stand in the place of its value.
        lost = begun and op.type in ("fail", "info") and not isinstance(op.value, (list, tuple))
        event = Txn(op, begun.mops if begun and lost else mops_of(op, known))
        found.events.append(event)
        if op.type == "invoke":
            if begun:
                found.open.append(begun)
            under_way[op.process] = event
            continue
        if op.type == "fail":
            found.failed.append(event)
            continue
        found.possible[op.index] = event
        found.begin[op.index] = begun.op if begun else op
    found.open.extend(under_way.values())
    return found
