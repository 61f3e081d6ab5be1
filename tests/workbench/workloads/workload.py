"""The protocol of a workload: it makes requests, reads the answers, and judges the history."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from ..checkers.elle import Result
from ..checkers.linearizable import BUDGET, Analysis, Assumptions
from ..checkers.verdict import Verdict
from ..record.edn import Keyword
from ..record.history import Op
from ..verdicts import Results

Body = dict[str, Any]
Extras = dict[Keyword, Any]  # further entries of both events of an operation
# The next operation: its worker, f, value, and perhaps extras.
Next = tuple["Worker", str, Any] | tuple["Worker", str, Any, Extras]
# An operation's requests. It yields each body without msg_id, receives the reply if that is no
# error, and returns the value of the ok completion. It raises ValueError for a malformed reply, and
# Crashed.
Conversation = Generator[Body, Body, Any]

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
INDETERMINATE = "indeterminate: "  # start of the error of an operation whose client threw


@dataclass(frozen=True)
class Settings:
    """The options of a test or of `check` that change what a workload does.

    Defaults are Maelstrom's.
    """

    node_count: int = 1
    topology: str = "grid"
    key_count: int = 10  # keys that transactions use at a time
    max_txn_length: int = 4  # micro-operations of a transaction
    max_writes_per_key: int = 16  # after so many writes another key takes the key's place
    consistency_models: tuple[str, ...] = ("strict-serializable",)
    budget: int = BUDGET  # configurations that the check of lin-kv visits for each key
    # Facts about the registers of lin-kv.
    assumptions: Assumptions = field(default_factory=Assumptions)


@dataclass
class Worker:
    """A client thread. After an unknown outcome it gets a new process number."""

    thread: int
    process: int


class Crashed(Exception):
    """Raised by a conversation to end its operation with an unknown outcome, and its client."""


class Step(NamedTuple):
    """An operation that a thread does after recovery."""

    f: str
    value: Any = None
    extras: Extras | None = None
    delay: int = 0  # ns since the completion of the thread's previous step


Ending = Generator[Step, Op, None]  # the steps of a thread; it receives each step's completion


class Final(Protocol):
    """The final phase, when the nodes have recovered. The threads begin it at the same time."""

    def steps(self) -> Ending:
        """Yields the steps of one thread."""


@dataclass(frozen=True)
class Once:
    """A final phase in which each thread does one operation without an argument."""

    f: str
    extras: Extras | None = None

    def steps(self) -> Ending:
        yield Step(self.f, None, self.extras)


class Workload(Protocol):
    """A kind of test."""

    name: str
    group: int  # number of client threads that work together
    timeout: float | None  # seconds; None for the default, which depends on the latency
    # Whether a client is used again after an unknown outcome (Jepsen's Reusable). A reused client
    # skips late answers. Otherwise its thread's next operation closes it and opens a new client,
    # and from then on a late answer is a protocol error.
    reusable: bool
    idempotent: frozenset[str]  # operations that fail, and are not unknown, without a reply
    # Whether the client catches errors. Otherwise each error, even a definite one, makes the
    # outcome unknown (`:info`).
    catches: bool
    final: Final | None  # None to stop at the time limit
    analyses: dict[Any, Analysis]  # by key; filled by `check`
    # The judgement of transactions, with explanations and cycles; filled by `check`. None for other
    # workloads.
    transactions: Result | None
    reasons: list[str]  # sentences that say why the history is not valid; filled by `check`
    warnings: list[str]  # sentences on faults that do not change the verdict; filled by `check`

    def set_up(self, node_ids: Sequence[str]) -> tuple[str, Any] | None:
        """Returns f and value of the request to each node before the first operation, if any."""

    def open(self) -> Any:
        """Returns the state of a new client. Conversations of this client may change it."""

    def next(self, free: Sequence[Worker], workers: Sequence[Worker], now: int) -> Next | None:
        """Returns the next operation; None if only busy workers may do it.

        `now` is in ns since the start of the run.
        """

    def converse(self, f: str, value: Any, extras: Extras | None, state: Any) -> Conversation:
        """Carries out an operation of a client with this state."""

    def check(self, ops: Sequence[Op]) -> Results:
        """Returns the results, with `:valid?`."""


class Usual:
    """The usual properties of a workload: independent threads, which wait 5 s for a reply."""

    group = 1
    timeout: float | None = 5.0
    reusable = False
    idempotent: frozenset[str] = frozenset()
    catches = True
    final: Final | None = None

    def __init__(self, rng: random.Random, settings: Settings) -> None:
        self.settings = settings
        self.analyses: dict[Any, Analysis] = {}
        self.transactions: Result | None = None
        self.reasons: list[str] = []
        self.warnings: list[str] = []
        self._rng = rng
        self._turn = 0  # the thread after the last one that started an operation

    def set_up(self, node_ids: Sequence[str]) -> tuple[str, Any] | None:
        return None

    def open(self) -> Any:
        return None

    def in_turn(self, free: Sequence[Worker]) -> Worker:
        """Returns the free worker whose turn it is."""
        worker = next((worker for worker in free if worker.thread >= self._turn), free[0])
        self._turn = worker.thread + 1
        return worker

    def judged(self, verdict: Verdict) -> Results:
        """Keeps the sentences of a verdict, and returns its results with these sentences."""
        self.reasons, self.warnings = verdict.why, verdict.warnings
        said = {"why": verdict.why, "warnings": verdict.warnings}
        return verdict.results | {Keyword(name): text for name, text in said.items() if text}


class Plain(Usual, ABC):
    """A workload whose operations are one request each. Its clients have no state."""

    @abstractmethod
    def request(self, f: str, value: Any) -> Body:
        """Returns the body of a request, without msg_id."""

    @abstractmethod
    def complete(self, f: str, value: Any, reply: Body) -> Any:
        """Returns the value of an ok completion. Raises ValueError for a malformed reply."""

    def converse(self, f: str, value: Any, extras: Extras | None, state: Any) -> Conversation:
        reply = yield self.request(f, value)
        return self.complete(f, value, reply)


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


def expect_list(reply: Body, key: str) -> list[Any] | None:
    """Returns a list in a reply. Null is allowed, as in Maelstrom. Raises ValueError otherwise."""
    value = reply[key]
    if value is not None and not isinstance(value, list):
        raise ValueError(f"its {key} must be a list")
    return value


def expect_integer(reply: Body, key: str) -> int:
    """Returns an integer in a reply. Raises ValueError otherwise."""
    value = reply[key]
    if type(value) is not int:  # true and 1.0 are no integers
        raise ValueError(f"its {key} must be an integer")
    return value
