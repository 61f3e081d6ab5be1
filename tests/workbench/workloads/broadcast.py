"""broadcast: a node that gets a message spreads it to all nodes.

    {"type": "topology", "topology": {"n0": ["n1"], "n1": ["n0"]}}    {"type": "topology_ok"}
    {"type": "broadcast", "message": 7}                               {"type": "broadcast_ok"}
    {"type": "read"}                                                  {"type": "read_ok",
                                                                       "messages": [5, 7]}

The topology comes once, before the first operation. It suggests neighbours to each node, which a
node may use or not. At the end, every thread reads. Then each acknowledged message must be there.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import count
from typing import Any

from ..checkers import set_full
from ..record.edn import Keyword
from ..record.history import Op
from ..verdicts import Results
from .topology import TOPOLOGIES
from .workload import Body, Final, Next, Once, Plain, Settings, Worker, expect, expect_list


class Broadcast(Plain):
    """Broadcasts the messages 0, 1, 2, ..., and reads as often."""

    name = "broadcast"
    idempotent = frozenset({"read"})
    final: Final | None = Once("read", {Keyword("final?"): True})

    def __init__(self, rng: random.Random, settings: Settings) -> None:
        super().__init__(rng, settings)
        self._messages = count()

    def set_up(self, node_ids: Sequence[str]) -> tuple[str, Any] | None:
        return "topology", TOPOLOGIES[self.settings.topology](node_ids)

    def next(self, free: Sequence[Worker], workers: Sequence[Worker], now: int) -> Next | None:
        worker = self.in_turn(free)
        if self._rng.random() < 0.5:
            return worker, "broadcast", next(self._messages)
        return worker, "read", None

    def request(self, f: str, value: Any) -> Body:
        argument = {"topology": "topology", "broadcast": "message"}.get(f)
        return {"type": f, argument: value} if argument else {"type": f}

    def complete(self, f: str, value: Any, reply: Body) -> Any:
        expect(reply, f"{f}_ok", {"messages"} if f == "read" else set())
        return expect_list(reply, "messages") if f == "read" else value

    def check(self, ops: Sequence[Op]) -> Results:
        return self.judged(set_full.check(ops))
