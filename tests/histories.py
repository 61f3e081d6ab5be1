"""Makes histories of a register for tests. They are linearizable, unless `spoilt` changes them."""

from __future__ import annotations

import random
from dataclasses import replace

from workbench.record.edn import Keyword
from workbench.record.history import Op

MISMATCH = [Keyword("precondition-failed"), "expected something else"]
NOT_FOUND = [Keyword("key-does-not-exist"), "not found"]


def simulated(
    rng: random.Random, count: int, processes: int, values: int = 5, unknown: int = 0
) -> list[Op]:
    """Makes a linearizable history of `count` operations, by processes that are always busy.

    `unknown` of the writes and cas end without an answer. Half of those, at random, never take
    effect.
    """
    state: int | None = None
    events: list[Op] = []
    # Each process's pending operation: f, argument, and its completion (None before its effect).
    busy: dict[int, tuple[str, object, Op | None]] = {}
    names = list(range(processes))
    invoked = 0
    lost_at = set(rng.sample(range(count // 4, count), unknown)) if unknown else set()
    doomed: set[int] = set()

    def event(process: int, type: str, f: str, value: object, error: object = None) -> Op:
        return Op(process, type, f, value, len(events), len(events), error)

    while invoked < count or busy:
        process = rng.choice(names if invoked < count else sorted(busy))
        if process not in busy:
            f = rng.choice(["read", "write", "cas"])
            if invoked in lost_at:
                f = rng.choice(["write", "cas"])
                doomed.add(process)
            argument: object = None
            if f == "write":
                argument = rng.randrange(values)
            elif f == "cas":
                argument = [rng.randrange(values), rng.randrange(values)]
            busy[process] = (f, argument, None)
            events.append(event(process, "invoke", f, argument))
            invoked += 1
            continue
        f, argument, completion = busy[process]
        if completion is None:
            type, value, error = "ok", argument, None
            happens = process not in doomed or rng.random() < 0.5
            if f == "read":
                value = state
            elif f == "write":
                state = argument if happens else state  # type: ignore[assignment]
            elif state is None:
                type, error = "fail", NOT_FOUND
            elif state != argument[0]:  # type: ignore[index]
                type, error = "fail", MISMATCH
            elif happens:
                state = argument[1]  # type: ignore[index]
            busy[process] = (f, argument, event(process, type, f, value, error))
            continue
        del busy[process]
        if process in doomed:
            doomed.discard(process)
            completion = event(process, "info", f, argument, Keyword("net-timeout"))
            names[names.index(process)] = max(names) + 1
        events.append(replace(completion, time=len(events), index=len(events)))
    return events


def spoilt(rng: random.Random, events: list[Op], after: float = 0.0) -> list[Op]:
    """Changes the value of one ok read, in the part of the history after the fraction `after`."""
    reads = [
        op for op in events if (op.type, op.f) == ("ok", "read") and op.index >= after * len(events)
    ]
    if not reads:
        return events
    victim = rng.choice(reads)
    changed = (victim.value or 0) + rng.randrange(1, 5)
    return [replace(op, value=changed % 5) if op is victim else op for op in events]
