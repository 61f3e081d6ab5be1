"""The protocol of a workload: it makes requests, reads the answers, and judges the history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..checkers.linearizable import Analysis
from ..record.edn import Keyword
from ..record.history import Op
from ..verdicts import Results

Body = dict[str, Any]
Next = tuple["Worker", str, Any]  # the next operation: its worker, f and value

# Maelstrom's errors by code: name, and whether the error is definite. After a definite error the
# operation had no effect (doc/protocol.md, "Errors").
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
    """A client thread. After an unknown outcome it gets a new process number."""

    thread: int
    process: int


class Workload(Protocol):
    """A kind of test."""

    name: str
    group: int  # number of client threads that work together
    timeout: float | None  # seconds; None for the default, which depends on the latency
    # Whether a client is used again after an unknown outcome (Jepsen's Reusable). A reused client
    # skips late answers. Otherwise the client is closed, and a late answer is a protocol error.
    reusable: bool
    analyses: dict[Any, Analysis]  # by key; filled by `check`
    reasons: list[str]  # sentences that say why the history is not valid; filled by `check`

    def next(self, free: Sequence[Worker], workers: Sequence[Worker]) -> Next | None:
        """Returns the next operation; None if only busy workers may do it."""

    def request(self, f: str, value: Any) -> Body:
        """Returns the body of a request, without msg_id."""

    def complete(self, f: str, value: Any, reply: Body) -> Any:
        """Returns the value of an ok completion. Raises ValueError for a malformed reply."""

    def check(self, ops: Sequence[Op]) -> Results:
        """Returns the results, with `:valid?`."""


def expect(reply: Body, type: str, keys: set[str]) -> None:
    """Checks that a reply has this type, and no keys but these and the protocol's own.

    Raises ValueError otherwise.
    """
    if reply.get("type") != type:
        raise ValueError(f"its type must be {type!r}, not {reply.get('type')!r}")
    if missing := keys - reply.keys():
        raise ValueError(f"{type} must have {', '.join(sorted(missing))}")
    if extra := reply.keys() - keys - {"type", "msg_id", "in_reply_to"}:
        raise ValueError(f"{type} must not have {', '.join(sorted(extra))}")
    if reply.get("msg_id", 0).__class__ is not int:
        raise ValueError("its msg_id must be an integer")
