"""What the clients do, and what their answers mean: Maelstrom's workloads lin-kv and echo."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..checkers.linearizable import BUDGET, Analysis, check_history
from ..record.edn import Keyword
from ..record.history import Op, clients

Body = dict[str, Any]
Results = dict[Keyword, Any]
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
PROCESS_LIMIT = 20  # processes that work on a key before it is retired, as in Jepsen's register
VALUES = 5
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
    analyses: dict[Any, Analysis]  # of each key, by `check`

    def next(self, free: Sequence[Worker], workers: Sequence[Worker]) -> Next | None:
        """Who of the free does what next; None if it is the turn of workers that are all busy."""

    def request(self, f: str, value: Any) -> Body:
        """The body of a request, without msg_id."""

    def complete(self, f: str, value: Any, reply: Body) -> Any:
        """The value of an operation that went well. ValueError for a malformed reply."""

    def check(self, ops: Sequence[Op]) -> Results:
        """The results, with `:valid?`."""


class LinKv:
    """A linearizable key-value store: reads, writes and cas on one key after the other.

    2n threads, n being the number of nodes, work on a key. The first half of them only read,
    the others write and cas in the ratio of 1 to 2 (jepsen.tests.linearizable-register).
    """

    name = "lin-kv"
    timeout: float | None = None

    def __init__(self, rng: random.Random, node_count: int) -> None:
        self.group = 2 * node_count
        self.analyses: dict[Any, Analysis] = {}
        self._rng = rng
        self._keys: dict[int, int] = {}  # of each group of threads
        self._processes: dict[int, set[int]] = {}  # that have worked on it
        self._next_key = 0

    def next(self, free: Sequence[Worker], workers: Sequence[Worker]) -> Next | None:
        # Each half has its share of the rate, whether its workers are stuck or not.
        reads = self._reads(self._rng.choice(workers))
        able = [worker for worker in free if self._reads(worker) is reads]
        if not able:
            return None
        worker = self._rng.choice(able)
        key = self._key(worker.thread // self.group, workers)
        if reads:
            return worker, "read", [key, None]
        f = self._rng.choice(["write", "cas", "cas"])
        values = [self._rng.randrange(VALUES) for _ in range(2)]
        return worker, f, [key, values[0] if f == "write" else values]

    def _reads(self, worker: Worker) -> bool:
        return worker.thread % self.group < self.group // 2

    def _key(self, group: int, workers: Sequence[Worker]) -> int:
        """The key that a group works on: a new one when too many processes have touched it."""
        threads = workers[group * self.group : (group + 1) * self.group]
        now = {worker.process for worker in threads}
        seen = self._processes.get(group, set()) | now
        if group not in self._keys or len(seen) > max(PROCESS_LIMIT, self.group):
            self._keys[group] = self._next_key
            self._next_key += 1
            seen = now
        self._processes[group] = seen
        return self._keys[group]

    def request(self, f: str, value: Any) -> Body:
        key, argument = value
        if f == "read":
            return {"type": "read", "key": key}
        if f == "write":
            return {"type": "write", "key": key, "value": argument}
        return {"type": "cas", "key": key, "from": argument[0], "to": argument[1]}

    def complete(self, f: str, value: Any, reply: Body) -> Any:
        expect(reply, f"{f}_ok", {"value"} if f == "read" else set())
        return [value[0], reply["value"]] if f == "read" else value

    def check(self, ops: Sequence[Op]) -> Results:
        self.analyses = check_history(ops, BUDGET)
        return {
            Keyword("valid?"): merge(found.valid for found in self.analyses.values()),
            Keyword("results"): {key: _results(found) for key, found in self.analyses.items()},
            Keyword("failures"): [key for key, a in self.analyses.items() if a.valid is False],
        }


class Echo:
    """Clients send a payload and expect it back."""

    name = "echo"
    group = 1
    timeout: float | None = 5.0

    def __init__(self, rng: random.Random, node_count: int) -> None:
        self.analyses: dict[Any, Analysis] = {}
        self._rng = rng

    def next(self, free: Sequence[Worker], workers: Sequence[Worker]) -> Next | None:
        return self._rng.choice(free), "echo", f"Please echo {self._rng.randrange(128)}"

    def request(self, f: str, value: Any) -> Body:
        return {"type": "echo", "echo": value}

    def complete(self, f: str, value: Any, reply: Body) -> Any:
        expect(reply, "echo_ok", {"echo"})
        return reply["echo"]

    def check(self, ops: Sequence[Op]) -> Results:
        """Each operation must be ok with its own payload: an error and a time-out fail, too."""
        sent: dict[int | str, Any] = {}
        errors = []
        for op in clients(ops):
            if op.type == "invoke":
                sent[op.process] = op.value
            elif op.type != "ok" or op.value != sent[op.process]:
                received = op.value if op.type == "ok" else op.error
                errors.append(
                    ["Expected a message with :echo", sent[op.process], "But received", received]
                )
        return {Keyword("valid?"): not errors, Keyword("errors"): errors}


WORKLOADS: Mapping[str, type[LinKv] | type[Echo]] = {"lin-kv": LinKv, "echo": Echo}


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


def merge(verdicts: Iterable[Any]) -> Any:
    """The verdict on a whole: false if a part is, else unknown if a part is (None or :unknown)."""
    found = list(verdicts)
    if any(verdict is False for verdict in found):
        return False
    return True if all(verdict is True for verdict in found) else Keyword("unknown")


def _results(analysis: Analysis) -> Results:
    """What Maelstrom prints for a key."""
    valid = Keyword("unknown") if analysis.valid is None else analysis.valid
    linearizable: Results = {Keyword("valid?"): valid}
    if analysis.valid is not True:
        linearizable[Keyword("why")] = analysis.why
    if analysis.final_states:
        linearizable[Keyword("configs")] = [
            {
                Keyword("model"): {Keyword("value"): value},
                Keyword("last-op"): last
                and {
                    Keyword("process"): last.process,
                    Keyword("type"): Keyword(last.type),
                    Keyword("f"): Keyword(last.f),
                    Keyword("value"): last.value,
                    Keyword("index"): last.end_index,
                },
                Keyword("pending"): [],
            }
            for value, last in analysis.final_states
        ]
    linearizable[Keyword("final-paths")] = [
        [
            {
                Keyword("op"): {Keyword("process"): step.operation.process,
                                Keyword("f"): Keyword(step.operation.f),
                                Keyword("value"): step.operation.value},
                Keyword("model"): {Keyword("msg"): step.problem}
                if step.problem
                else {Keyword("value"): step.state},
            }
            for step in path
        ]
        for path in analysis.final_paths
    ]  # fmt: skip
    return {
        Keyword("linearizable"): linearizable,
        Keyword("timeline"): {Keyword("valid?"): True},
        Keyword("valid?"): valid,
    }
