"""unique-ids: nodes generate ids, of any type. No id may be generated twice.

    {"type": "generate"}    {"type": "generate_ok", "id": "n0-17"}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..checkers import unique_ids
from ..record.history import Op
from ..verdicts import Results
from .workload import Body, Next, Plain, Worker, expect


class UniqueIds(Plain):
    """Asks for ids, and expects no id twice."""

    name = "unique-ids"
    reusable = True

    def next(self, free: Sequence[Worker], workers: Sequence[Worker], now: int) -> Next | None:
        return self.in_turn(free), "generate", None

    def request(self, f: str, value: Any) -> Body:
        return {"type": "generate"}

    def complete(self, f: str, value: Any, reply: Body) -> Any:
        expect(reply, "generate_ok", {"id"})
        return reply["id"]

    def check(self, ops: Sequence[Op]) -> Results:
        return self.judged(unique_ids.check(ops))
