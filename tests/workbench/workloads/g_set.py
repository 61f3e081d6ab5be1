"""g-set: a set that only grows.

    {"type": "add", "element": 7}    {"type": "add_ok"}
    {"type": "read"}                 {"type": "read_ok", "value": [5, 7]}

At the end, every thread reads. Then each acknowledged element must be there. Any error or time-out,
even of a read, has an unknown outcome.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import count
from typing import Any

from ..checkers import set_full
from ..record.history import Op
from ..verdicts import Results
from .workload import Body, Final, Next, Once, Plain, Settings, Worker, expect, expect_list


class GSet(Plain):
    """Adds the elements 0, 1, 2, ..., and reads as often."""

    name = "g-set"
    catches = False
    final: Final | None = Once("read")

    def __init__(self, rng: random.Random, settings: Settings) -> None:
        super().__init__(rng, settings)
        self._elements = count()

    def next(self, free: Sequence[Worker], workers: Sequence[Worker], now: int) -> Next | None:
        worker = self.in_turn(free)
        if self._rng.random() < 0.5:
            return worker, "add", next(self._elements)
        return worker, "read", None

    def request(self, f: str, value: Any) -> Body:
        return {"type": "add", "element": value} if f == "add" else {"type": "read"}

    def complete(self, f: str, value: Any, reply: Body) -> Any:
        expect(reply, f"{f}_ok", {"value"} if f == "read" else set())
        return expect_list(reply, "value") if f == "read" else value

    def check(self, ops: Sequence[Op]) -> Results:
        return self.judged(set_full.check(ops))
