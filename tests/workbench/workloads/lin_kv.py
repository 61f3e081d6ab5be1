"""lin-kv: a linearizable key-value store.

    {"type": "read", "key": 0}                       {"type": "read_ok", "value": 3}
    {"type": "write", "key": 0, "value": 3}          {"type": "write_ok"}
    {"type": "cas", "key": 0, "from": 3, "to": 4}    {"type": "cas_ok"}

Error 20 means that the key does not exist. Error 22 means that a cas found another value. Both
mean that nothing was changed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from ..checkers.linearizable import Analysis, check_history
from ..record.edn import Keyword
from ..record.history import Op
from ..verdicts import UNKNOWN, VALID, Results, merge
from .workload import Body, Next, Plain, Settings, Worker, expect

PROCESS_LIMIT = 20  # a key is retired after so many processes, as in Jepsen's register test
VALUES = 5


class LinKv(Plain):
    """Generates reads, writes and cas, on one key after the other.

    With n nodes, a group of 2n threads works on each key. The first half of a group only reads.
    The other half writes and does cas, in the ratio of 1 to 2
    (jepsen.tests.linearizable-register).
    """

    name = "lin-kv"
    timeout: float | None = None
    reusable = True
    idempotent = frozenset({"read"})

    def __init__(self, rng: random.Random, settings: Settings) -> None:
        super().__init__(rng, settings)
        self.group = 2 * settings.node_count
        self._keys: dict[int, int] = {}  # by group of threads: its current key
        self._processes: dict[int, set[int]] = {}  # by group: processes that used its current key
        self._next_key = 0

    def next(self, free: Sequence[Worker], workers: Sequence[Worker], now: int) -> Next | None:
        # Each half keeps its share of the rate, even if its workers are all busy.
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
        """Returns a group's key. Replaces the key when too many processes have used it."""
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
        self.analyses = check_history(ops, self.settings.budget, self.settings.assumptions)
        self.warnings = [
            f"{found.warning}. The real Maelstrom's checker ignores errors 20 and 22, "
            "and reads of nil"
            for found in self.analyses.values()
            if found.warning
        ]
        return {
            VALID: merge(found.valid for found in self.analyses.values()),
            Keyword("results"): {key: _results(found) for key, found in self.analyses.items()},
            Keyword("failures"): [key for key, a in self.analyses.items() if a.valid is False],
            **({Keyword("warnings"): self.warnings} if self.warnings else {}),
        }


def _results(analysis: Analysis) -> Results:
    """Builds the results of a key as Maelstrom prints them."""
    valid = UNKNOWN if analysis.valid is None else analysis.valid
    linearizable: Results = {VALID: valid}
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
        Keyword("timeline"): {VALID: True},
        VALID: valid,
    }
