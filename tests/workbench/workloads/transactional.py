"""The requests, replies and warnings that both workloads of transactions share."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from ..checkers.elle import Result, unknown
from ..checkers.transactions import shown
from ..checkers.verdict import Verdict, at
from ..record import edn
from ..record.edn import Keyword
from ..record.history import HistoryError, Op, clients
from ..verdicts import UNKNOWN, Results
from .txn import Transactions
from .workload import Body, Next, Plain, Settings, Worker, expect, expect_list

READ = Keyword("r")


class Transactional(Plain):
    """Sends transactions: lists of reads and writes, each `[f key value]`.

    The value of an ok operation is the transaction in the reply. Like Maelstrom, the checker does
    not compare it with the request. A difference is a warning.
    """

    reusable = True
    name: str
    write: ClassVar[str]  # the f of a write
    read: ClassVar[str]  # a read in a reply, for an error text

    def __init__(self, rng: random.Random, settings: Settings) -> None:
        super().__init__(rng, settings)
        self._transactions = Transactions(rng, settings)

    def next(self, free: Sequence[Worker], workers: Sequence[Worker], now: int) -> Next | None:
        txn = [[Keyword(f), key, value] for f, key, value in self._transactions.draw(self.write)]
        return self.in_turn(free), "txn", txn

    def request(self, f: str, value: Any) -> Body:
        return {"type": "txn", "txn": [[f.name, key, value] for f, key, value in value]}

    def complete(self, f: str, value: Any, reply: Body) -> Any:
        expect(reply, "txn_ok", {"txn"})
        return [self._micro_op(form) for form in expect_list(reply, "txn") or ()]

    def _micro_op(self, form: Any) -> list[Any]:
        """Returns a micro-operation of a reply as in a history. Raises ValueError otherwise."""
        if isinstance(form, list) and len(form) == 3:
            f, key, value = form
            if f == self.write or (f == "r" and self.may_read(value)):
                return [Keyword(f), key, value]
        raise ValueError(
            f'each part of its txn must be {self.read} or ["{self.write}", key, value], '
            f"not {shown(form)}"
        )

    def may_read(self, value: Any) -> bool:
        """Returns whether a reply may have this value in a read."""
        raise NotImplementedError

    def check(self, ops: Sequence[Op]) -> Results:
        try:
            self.transactions = self.judge(ops)
        except HistoryError as error:  # there is no such consistency model
            self.transactions = unknown(f"The history cannot be judged: {error}")
        result = self.transactions
        why = [] if result.valid is True else [result.why, *sorted(_examples(result), key=len)]
        warnings = [*result.warnings, *_changed(ops)]
        valid = None if result.valid is UNKNOWN else result.valid
        return self.judged(Verdict(valid, self.results(result), why, warnings))

    def judge(self, ops: Sequence[Op]) -> Result:
        """Judges a history. Raises HistoryError for a consistency model that does not exist."""
        raise NotImplementedError

    def results(self, result: Result) -> Results:
        """Returns the map that Maelstrom prints under :workload."""
        return result.results()


def _examples(result: Result) -> Iterator[str]:
    """Yields the first explanation of each type of anomaly, and the number of the others."""
    for type_, texts in result.explanations.items():
        more = len(result.anomalies[type_]) - 1
        yield texts[0] + (f"\n  And {more:,} more of the type {type_}." if more else "")


def _changed(ops: Sequence[Op]) -> Iterator[str]:
    """Yields a sentence on the first reply with a transaction other than that of its request."""
    asked: dict[int | str, Op] = {}
    count = 0
    changed: list[tuple[Op, Op]] = []
    for op in clients(ops):
        if op.type == "invoke":
            asked[op.process] = op
        elif op.type == "ok":
            count += 1
            if _without_results(asked[op.process]) != _without_results(op):
                changed.append((asked[op.process], op))
    if changed:
        request, reply = changed[0]
        yield (
            f"Process {reply.process} asked for {shown(request.value)}, but the reply "
            f"{at(reply)} is about {shown(reply.value)}. A reply must have the reads and writes of "
            f"its request. The verdict is about the replies, as in Maelstrom "
            f"(such replies: {len(changed):,} of {count:,})."
        )


def _without_results(op: Op) -> str:
    """Returns a transaction's text without the values of its reads."""
    if not isinstance(op.value, list):
        return edn.dumps(op.value)
    forms = [
        form[:2] if isinstance(form, list) and form[:1] == [READ] else form for form in op.value
    ]
    return edn.dumps(forms, sort_keys=True)
