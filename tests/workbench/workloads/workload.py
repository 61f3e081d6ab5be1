"""What a workload is: requests of clients, what the answers to them mean, and a verdict on both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..checkers.linearizable import Analysis
from ..record.edn import Keyword
from ..record.history import Op
from ..verdicts import Results

Body = dict[str, Any]
Next = tuple["Worker", str, Any]  # who does what: f and value

# Maelstrom's errors: doc/protocol.md, "Errors". A definite one says that nothing happened.
ERRORS: Mapping[int, tuple[str, bool]] = {
    0: ("timeout", False),
    1: ("node-not-found", True),
    10: ("not-supported", True),
    11: ("temporarily-unavailable", True),
    12: ("malformed-request", True),
    13: ("crash", False),
    14: ("abort", True),
    20: ("key-does-not-exist", True),
    21: ("key-already-exists", True),
    22: ("precondition-failed", True),
    30: ("txn-conflict", True),
}
NET_TIMEOUT = Keyword("net-timeout")


@dataclass
class Worker:
    """A client thread. Its process has a new number after an operation without an outcome."""

    thread: int
    process: int


class Workload(Protocol):
    """A kind of test. `group` is the number of client threads that go together."""

    name: str
    group: int
    timeout: float | None  # seconds; None for the default, which depends on the latency
    # Whether a client goes on after an operation with an unknown outcome (Jepsen's Reusable): then
    # late answers are skipped. Else it is closed, and a late answer is to nobody.
    reusable: bool
    analyses: dict[Any, Analysis]  # of each key, by `check`

    def next(self, free: Sequence[Worker], workers: Sequence[Worker]) -> Next | None:
        """Who of the free does what next; None if it is the turn of workers that are all busy."""

    def request(self, f: str, value: Any) -> Body:
        """The body of a request, without msg_id."""

    def complete(self, f: str, value: Any, reply: Body) -> Any:
        """The value of an operation that went well. ValueError for a malformed reply."""

    def check(self, ops: Sequence[Op]) -> Results:
        """The results, with `:valid?`."""


def expect(reply: Body, type: str, keys: set[str]) -> None:
    """ValueError unless a reply has this type and exactly these keys besides the protocol's."""
    if reply.get("type") != type:
        raise ValueError(f"its type must be {type!r}, not {reply.get('type')!r}")
    if missing := keys - reply.keys():
        raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    if extra := reply.keys() - keys - {"type", "msg_id", "in_reply_to"}:
        raise ValueError(f"{type} has no {', '.join(sorted(extra))}")
    if reply.get("msg_id", 0).__class__ is not int:
        raise ValueError("its msg_id must be an integer")
