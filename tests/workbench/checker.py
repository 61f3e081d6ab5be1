"""Is a register linearizable? Wing and Gong's search, with Lowe's memoization.

A history is linearizable if there is an order of its operations in which each one takes effect
at one moment between its invocation and its completion, and each reads what a single register
would hold then (J. Wing and C. Gong, Testing and verifying concurrent objects, 1993). The search
builds such an order step by step, and goes back where no step is possible. It never looks at a
*configuration* twice: the set of operations that are done, and the register's value (G. Lowe,
Testing for linearizability, 2017).

What an operation says:

| completion              | read of v                | write of v, cas of a to b            |
|-------------------------|--------------------------|--------------------------------------|
| ok                      | the register held v      | it took effect (the register held a) |
| fail, error 20          | there was no value       | cas: there was no value              |
| fail, error 22, or none | nothing                  | cas: the register did not hold a     |
| fail, any other error   | nothing                  | it never took effect                 |
| info, or none           | nothing                  | it may take effect later, or never   |

Why it is fast enough. Operations with a known end are numbered by their completion, and a
configuration is (level, mask, state, used): all operations below `level` are done, and beyond it
those in the bit mask, which is as short as the number of processes; `used` is the mask of unknown
operations that were made to happen. Two rules prune, and neither can lose an order:

- what only observes (a read, a failed cas) is placed at once where it is possible;
- of two configurations alike but for `used`, the one that has used less can do all that the
  other can. Unknown operations that do the same are used in the order of their invocation.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from . import edn
from .history import HistoryError, Op, Operation, by_key, operations

BUDGET = 1_200_000  # configurations: about a minute and 300 MiB
PATHS_KEPT = 10
STEPS_KEPT = 8

ABSENT = 0  # the state of a register that was never written; other states count from 1
NOT_FOUND = {20, "key-does-not-exist"}
MISMATCH = {22, "precondition-failed"}


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of a tried order, and the register's value after it (None: absent).

    `problem` says why the step is impossible; it is empty for one that is possible.
    """

    operation: Operation
    state: Any
    problem: str = ""


@dataclass(frozen=True)
class Analysis:
    """What the search has found out about one key. `valid` is None where the budget ran out.

    `final_paths` are, for an invalid history, the last steps of the orders that came furthest,
    each ended by the step that is impossible; `failed` is the operation that cannot be placed.
    `final_states` are, for a valid one, the register's value at the end and the last operation.
    """

    valid: bool | None
    why: str
    configurations: int
    failed: Operation | None = None
    final_paths: list[list[Step]] = field(default_factory=list)
    final_states: list[tuple[Any, Operation | None]] = field(default_factory=list)


@dataclass(slots=True)
class Rule:
    """What an operation demands of the register's state, and what it makes of it.

    `needs` is the state before, None for any; `negated` turns it into any other state. `makes`
    is the state after, None for what only observes.
    """

    operation: Operation
    needs: int | None
    makes: int | None
    negated: bool = False

    def allows(self, state: int) -> bool:
        """Whether the operation can take effect on this state."""
        return self.needs is None or (self.needs == state) is not self.negated


class Register:
    """The rules of a history's operations, and the states that they speak of by number."""

    def __init__(self, ops: Sequence[Op]) -> None:
        self._numbers: dict[str, int] = {edn.dumps(None): ABSENT}
        self.values: list[Any] = [None]
        self.known: list[Rule] = []  # by completion
        self.unknown: list[Rule] = []  # by invocation
        for operation in operations(ops):
            rule = self._rule(operation)
            if rule and operation.end_index is not None:
                self.known.append(rule)
            elif rule:
                self.unknown.append(rule)
        self.known.sort(key=lambda rule: rule.operation.end_index or 0)
        starts = [rule.operation.start_index for rule in self.known]
        completions = [rule.operation.end_index or 0 for rule in self.known]
        # While operation L is the first that is not done: the numbers from L on that can be
        # placed, and how many of the unknown operations can.
        self.candidates = _candidates(starts, completions)
        invoked = [rule.operation.start_index for rule in self.unknown]
        self.unknown_until = [bisect(invoked, completion) for completion in completions]

    def _state(self, value: Any) -> int:
        text = edn.dumps(value, sort_keys=True)
        number = self._numbers.setdefault(text, len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number

    def _rule(self, operation: Operation) -> Rule | None:
        """What the table above says; None for an operation that says nothing."""
        f, value, type = operation.f, operation.value, operation.type
        if f not in ("read", "write", "cas"):
            raise HistoryError(f"cannot judge :{f}: only read, write and cas of a register")
        if type == "fail":
            return self._failed(operation)
        if f == "write":
            return Rule(operation, None, self._state(value))
        if f == "cas":
            old, new = value
            return Rule(operation, self._state(old), self._state(new))
        if f == "read" and type == "ok":
            return Rule(operation, self._state(value), None)
        return None

    def _failed(self, operation: Operation) -> Rule | None:
        error = operation.error
        if isinstance(error, list | tuple) and error:
            error = error[0]
        if isinstance(error, edn.Keyword):
            error = error.name
        if not isinstance(error, str | int | None) or operation.f not in ("read", "cas"):
            return None
        if error in NOT_FOUND:
            return Rule(operation, ABSENT, None)
        if operation.f == "cas" and (error in MISMATCH or error is None):
            return Rule(operation, self._state(operation.value[0]), None, negated=True)
        return None

    def impossible(self, rule: Rule, states: set[int]) -> str:
        """Says why an operation cannot take effect on any of these states."""
        held = " or ".join(sorted(self.show(state) for state in states - {ABSENT}))
        has = f"the register holds {held}" if held else "the register is absent"
        if held and ABSENT in states:
            has += " or is absent"
        if rule.negated:
            why = f"{rule.operation} cannot fail"
        elif rule.operation.type == "fail":
            why = f"{rule.operation.f} cannot find the key absent"
        else:
            why = f"cannot {rule.operation}"
        return f"{why}: {has}"

    def show(self, state: int) -> str:
        """A state as messages have it, short."""
        text = edn.dumps(self.values[state])
        return text if len(text) <= 60 else text[:60] + "..."


# A configuration on the way, with the one before it and the rules placed between the two.
Link = tuple["Link | None", list[Rule], int]


def check(ops: Sequence[Op], budget: int = BUDGET) -> Analysis:
    """Searches an order for the events of one key, whose values are without the key.

    Gives up, with an unknown verdict, after `budget` configurations. HistoryError for events
    that are none of a cas register. First a short search in depth, which finds the order of
    most valid histories; then one in breadth, which exhausts the invalid ones soonest.
    """
    register = Register(ops)
    share = min(budget, 50_000 + 2 * len(register.known))
    return (
        _search(register, share, deep=True)
        or _search(register, budget - share, deep=False)
        or Analysis(
            None,
            f"no verdict within the budget of {budget:,} configurations; --budget allows for more",
            budget,
        )
    )


def _search(register: Register, budget: int, deep: bool) -> Analysis | None:
    """The verdict, or None where the budget runs out.

    In breadth, a configuration is visited after all those with fewer operations done or, for as
    many, fewer unknown ones used: so none is visited that a later one makes superfluous.
    """
    known, unknown = register.known, register.unknown
    candidates, unknown_until = register.candidates, register.unknown_until
    end = len(known)
    states = len(register.values)
    visited: list[dict[int, tuple[int, ...]]] = [{} for _ in range(end + 1)]
    configurations = 0
    deepest = 0
    dead_ends: dict[int, Link] = {}  # at the deepest level, by state
    # What is to be visited: (priority, tie-break, configuration, how it came about). The lowest
    # comes first, and of equals the last one pushed: all are equal in a search in depth.
    queue: list[tuple[int, int, int, int, int, int, Link]] = []
    queue.append((0, 0, 0, 0, ABSENT, 0, (None, [], ABSENT)))
    pushed = 0
    while queue:
        _, _, level, mask, state, used, link = heappop(queue)

        # What only observes is placed at once; as levels pass, more becomes possible.
        placed: list[Rule] = []
        looking = True
        while looking and level < end:
            looking = False
            for number in candidates[level]:
                bit = 1 << (number - level)
                rule = known[number]
                if rule.makes is None and not mask & bit and rule.allows(state):
                    mask |= bit
                    placed.append(rule)
            while mask & 1:
                mask >>= 1
                level += 1
                looking = True
        if placed:
            link = (link, placed, state)
        if level == end:
            last = link[1][-1].operation if link[1] else None
            value = register.values[state]
            why = f"{len(known) + len(unknown)} operations"
            return Analysis(True, why, configurations, final_states=[(value, last)])

        # Lowe's memoization; `used` is pruned by dominance.
        seen = visited[level]
        memo = mask * states + state
        before = seen.get(memo, ())
        if any(earlier & used == earlier for earlier in before):
            continue
        if configurations == budget:
            return None
        configurations += 1
        seen[memo] = (*(earlier for earlier in before if earlier & used != used), used)
        if level > deepest:
            deepest = level
            dead_ends.clear()
        if level == deepest:
            dead_ends.setdefault(state, link)

        # In a search in depth the last one pushed is visited first: so the unknown ones are
        # pushed first, then the known ones, the first to complete last.
        steps: list[tuple[int, int, int, int, Link]] = []
        tried: set[tuple[int | None, int]] = set()
        for number in range(unknown_until[level]):
            rule = unknown[number]
            if used >> number & 1 or rule.makes is None or (rule.needs, rule.makes) in tried:
                continue
            tried.add((rule.needs, rule.makes))
            if rule.makes != state and rule.allows(state):
                after = (link, [rule], rule.makes)
                steps.append((level, mask, rule.makes, used | 1 << number, after))
        for number in reversed(candidates[level]):
            rule = known[number]
            bit = 1 << (number - level)
            if rule.makes is not None and not mask & bit and rule.allows(state):
                after_level, after_mask = level, mask | bit
                while after_mask & 1:
                    after_mask >>= 1
                    after_level += 1
                after = (link, [rule], rule.makes)
                steps.append((after_level, after_mask, rule.makes, used, after))
        for step in steps:
            pushed += 1
            done = step[0] + step[1].bit_count()
            priority = 0 if deep else done * (len(unknown) + 1) + step[3].bit_count()
            heappush(queue, (priority, -pushed, *step))

    failed = known[deepest]
    operation = failed.operation
    problem = register.impossible(failed, set(dead_ends))
    return Analysis(
        False,
        f"{problem} (process {operation.process}, index {operation.start_index})",
        configurations,
        failed=operation,
        final_paths=[
            [
                *_last_steps(register, link),
                Step(operation, register.values[state], register.impossible(failed, {state})),
            ]
            for state, link in list(dead_ends.items())[:PATHS_KEPT]
        ],
    )


def _candidates(starts: list[int], completions: list[int]) -> list[list[int]]:
    """For each level the numbers from there on that were invoked before its completion."""
    by_start = sorted(range(len(starts)), key=starts.__getitem__)
    candidates: list[list[int]] = []
    open_numbers: set[int] = set()
    position = 0
    for level, completion in enumerate(completions):
        while position < len(by_start) and starts[by_start[position]] < completion:
            open_numbers.add(by_start[position])
            position += 1
        candidates.append(sorted(open_numbers))
        open_numbers.discard(level)
    return candidates


def _last_steps(register: Register, link: Link | None) -> list[Step]:
    steps: list[Step] = []
    while link is not None and len(steps) < STEPS_KEPT:
        previous, rules, state = link
        steps += [Step(rule.operation, register.values[state]) for rule in reversed(rules)]
        link = previous
    return steps[:STEPS_KEPT][::-1]


def check_history(ops: Sequence[Op], budget: int = BUDGET) -> dict[Any, Analysis]:
    """Judges each key of a history; a single register has the key None."""
    return {key: check(events, budget) for key, events in by_key(ops).items()}
