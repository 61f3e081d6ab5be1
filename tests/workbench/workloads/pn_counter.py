"""pn-counter: a counter that can be increased and decreased.

    {"type": "add", "delta": -3}    {"type": "add_ok"}
    {"type": "read"}                {"type": "read_ok", "value": 12}

At the end, every thread reads. Only these reads are judged: each must find the sum of all
acknowledged adds, and possibly some of those with an unknown outcome. Any error or time-out, even
of a read, has an unknown outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..checkers import counter
from ..record.edn import Keyword
from ..record.history import Op
from ..verdicts import Results
from .workload import Body, Final, Next, Once, Plain, Worker, expect, expect_integer

LEAST, MOST = -5, 4  # smallest and largest number to add


class PnCounter(Plain):
    """Adds numbers from LEAST to MOST, and reads as often."""

    name = "pn-counter"
    catches = False
    final: Final | None = Once("read", {Keyword("final?"): True})

    def next(self, free: Sequence[Worker], workers: Sequence[Worker], now: int) -> Next | None:
        f, value = self.draw()
        return self.in_turn(free), f, value

    def draw(self) -> tuple[str, int | None]:
        """Draws f and value of an operation."""
        if self._rng.random() < 0.5:
            return "add", self._rng.randint(LEAST, MOST)
        return "read", None

    def request(self, f: str, value: Any) -> Body:
        return {"type": "add", "delta": value} if f == "add" else {"type": "read"}

    def complete(self, f: str, value: Any, reply: Body) -> Any:
        expect(reply, f"{f}_ok", {"value"} if f == "read" else set())
        return expect_integer(reply, "value") if f == "read" else value

    def check(self, ops: Sequence[Op]) -> Results:
        return self.judged(counter.check(ops))
