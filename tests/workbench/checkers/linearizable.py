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
| fail, error 20          | the key was absent       | cas: the key was absent              |
| fail, error 22, or none | nothing                  | cas: the register did not hold a     |
| fail, any other error   | nothing                  | it never took effect                 |
| info, or none           | nothing                  | it may take effect later, or never   |

To error 20 null and absent are two states. A read of nil, or a cas from nil, fits both: in
histories of stores without that error, nil says absent. Values are compared as JSON, as raft.py
does: 1 is 1.0, and not true.

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
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from typing import Any

from ..record import edn
from ..record.history import HistoryError, Op, Operation, by_key, operations, shorten
from ..units import SECOND

BUDGET = 1_200_000  # configurations kept in memory, of some 400 bytes
WIDE = 1024  # bits of a configuration's masks that count as another configuration
PATHS_KEPT = 10
STEPS_KEPT = 8
SHOWN = 60  # characters of a value

ABSENT = 0  # the state of a register that was never written
NULL = 1
NOT_FOUND = {20, "key-does-not-exist"}
MISMATCH = {22, "precondition-failed"}


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of a tried order, and the register's value after it (None: nil or absent).

    `before` and `after` are the register's states for people. `problem` says why the step is
    impossible; it is empty for one that is possible.
    """

    operation: Operation
    state: Any
    before: str
    after: str
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

    `needs` are the states before, None for any; `negated` turns them into all others. `makes`
    is the state after, None for what only observes.
    """

    operation: Operation
    needs: frozenset[int] | None
    makes: int | None
    negated: bool = False

    def allows(self, state: int) -> bool:
        """Whether the operation can take effect on this state."""
        return self.needs is None or (state in self.needs) is not self.negated


class Register:
    """The rules of a history's operations, and the states that they speak of by number."""

    def __init__(self, ops: Sequence[Op], name: str = "the register") -> None:
        self.name = name
        self.timed = bool(ops) and ops[-1].time > 0
        self._numbers: dict[Hashable, int] = {None: NULL}
        self.values: list[Any] = [None, None]
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
        # placed (all in all, `choices`), and how many of the unknown operations can.
        self.candidates = partial(_candidates, starts, completions)
        in_order = sorted(starts)
        self.choices = sum(
            bisect(in_order, completion) - level for level, completion in enumerate(completions)
        )
        invoked = [rule.operation.start_index for rule in self.unknown]
        self.unknown_until = [bisect(invoked, completion) for completion in completions]

    def _state(self, value: Any) -> int:
        number = self._numbers.setdefault(identity(value), len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number

    def _seen(self, value: Any) -> frozenset[int]:
        """The states in which a client may see this value."""
        return frozenset([ABSENT, NULL] if value is None else [self._state(value)])

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
            return Rule(operation, self._seen(old), self._state(new))
        if f == "read" and type == "ok":
            return Rule(operation, self._seen(value), None)
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
            return Rule(operation, frozenset([ABSENT]), None)
        if operation.f == "cas" and (error in MISMATCH or error is None):
            return Rule(operation, self._seen(operation.value[0]), None, negated=True)
        return None

    def impossible(self, rule: Rule, held: str) -> str:
        """Says that an operation does not fit what the register held."""
        operation = rule.operation
        if rule.negated:
            saw = f"{operation} failed"
        elif operation.type == "fail":
            saw = f"{operation.f} found nothing"
        elif operation.f == "read":
            saw = f"read found {shorten(edn.dumps(operation.value), SHOWN)}"
        else:
            saw = f"{operation} succeeded"
        return f"{saw}, but {self.name} {held}"

    def held(self, state: int) -> str:
        """`held 2`, or that there was nothing."""
        return "was absent" if state == ABSENT else f"held {self.show(state)}"

    def origin(self, link: Link) -> str:
        """Who wrote what the register holds at the end of a tried order, and when."""
        step: Link | None = link
        while step:
            step, rules, _ = step
            for rule in reversed(rules):
                if rule.makes is not None:
                    operation = rule.operation
                    return f"written by process {operation.process}, {self.when(operation)}"
        return "nothing was written before"

    def when(self, operation: Operation) -> str:
        """The moment of an operation's invocation, by the history's clock and index."""
        index = f"index {operation.start_index}"
        return f"at {operation.start / SECOND:.3f} s ({index})" if self.timed else f"at {index}"

    def show(self, state: int) -> str:
        """A state as messages have it, short."""
        return "absent" if state == ABSENT else shorten(edn.dumps(self.values[state]), SHOWN)


# raft.py has an `identity` of its own. They stay independent: a mistake in a shared one would
# mislead the store and its judge alike, and nobody would see it.
def identity(value: Any) -> Hashable:
    """Equal for two values exactly when they are the same JSON; to Python 1 == True."""
    if isinstance(value, bool):
        return (bool, value)
    if isinstance(value, list | tuple):
        return tuple(map(identity, value))
    if isinstance(value, set | frozenset):
        return frozenset(map(identity, value))
    if isinstance(value, dict):
        return (dict, frozenset((identity(key), identity(item)) for key, item in value.items()))
    return value  # type: ignore[no-any-return]


# A step on the way: the one before it, the rules placed by it, the state after it.
Link = tuple["Link | None", list[Rule], int]
Configuration = tuple[int, int, int, int, Link]  # level, mask, state, used; how it came about


def check(ops: Sequence[Op], budget: int = BUDGET, name: str = "the register") -> Analysis:
    """Searches an order for the events of one key, whose values are without the key.

    Gives up, with an unknown verdict, after `budget` configurations. HistoryError for events
    that are none of a cas register. `name` is what the verdict calls the register. First a short
    search in depth, which finds the order of most valid histories; then one in breadth, which
    exhausts the invalid ones soonest.
    """
    register = Register(ops, name)
    share = min(budget, 50_000 + 2 * len(register.known))
    found = None
    if register.choices <= 10 * budget:
        found = _search(register, share, deep=True) or _search(register, budget - share, deep=False)
    return found or Analysis(
        None,
        f"{name} has no verdict: too much happened at once for the budget of {budget:,} "
        "configurations; `maelstrom check --budget` allows for more, and takes more memory",
        budget,
    )


def _search(register: Register, budget: int, deep: bool) -> Analysis | None:
    """The verdict, or None where the budget runs out.

    In breadth, a configuration is visited after all those with fewer operations done or, for as
    many, fewer unknown ones used: so hardly one is visited that a later one makes superfluous.
    """
    known, unknowns = register.known, len(register.unknown)
    candidates = register.candidates()
    end = len(known)
    states = len(register.values)
    # By level and configuration, the ways to have used unknown operations. What is found is
    # entered at once, and not only when visited: so the budget bounds what waits, too.
    found: list[dict[int, tuple[int, ...]]] = [{} for _ in range(end + 1)]
    configurations = 0
    deepest = 0
    dead_ends: dict[int, Link] = {}  # at the deepest level, by state
    # What is to be visited: (priority, tie-break, configuration, how it came about). The lowest
    # comes first, and of equals the last one pushed: all are equal in a search in depth.
    queue: list[tuple[int, int, int, int, int, int, Link]] = []
    steps: Iterable[Configuration] = [(0, 0, ABSENT, 0, (None, [], ABSENT))]
    while True:
        for level, mask, state, used, link in steps:
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
                final = [(register.values[state], last)]
                why = f"{len(known) + unknowns} operations"
                return Analysis(True, why, configurations, final_states=final)

            # Lowe's memoization; `used` is pruned by dominance.
            memo = mask * states + state
            before = found[level].get(memo, ())
            if any(earlier & used == earlier for earlier in before):
                continue
            configurations += 1 + (mask.bit_length() + used.bit_length()) // WIDE
            if configurations > budget:
                return None
            found[level][memo] = (*(other for other in before if other & used != used), used)
            done = level + mask.bit_count()
            priority = 0 if deep else done * (unknowns + 1) + used.bit_count()
            heappush(queue, (priority, -configurations, level, mask, state, used, link))

        if not queue:
            break
        _, _, level, mask, state, used, link = heappop(queue)
        if level > deepest:
            deepest = level
            dead_ends.clear()
        if level == deepest:
            dead_ends.setdefault(state, link)

        steps = _steps(register, candidates[level], (level, mask, state, used, link))

    return _invalid(register, known[deepest], dead_ends, configurations)


def _steps(
    register: Register, candidates: list[int], configuration: Configuration
) -> Iterator[Configuration]:
    """What a configuration becomes by one more operation that makes a state.

    In a search in depth the last one is visited first: so the unknown ones come first, then the
    known ones, the first to complete last.
    """
    level, mask, state, used, link = configuration
    tried: set[tuple[frozenset[int] | None, int]] = set()
    for number in range(register.unknown_until[level]):
        rule = register.unknown[number]
        if used >> number & 1 or rule.makes is None or (rule.needs, rule.makes) in tried:
            continue
        tried.add((rule.needs, rule.makes))
        if rule.makes != state and rule.allows(state):
            yield level, mask, rule.makes, used | 1 << number, (link, [rule], rule.makes)
    for number in reversed(candidates):
        rule = register.known[number]
        bit = 1 << (number - level)
        if rule.makes is not None and not mask & bit and rule.allows(state):
            after_level, after_mask = level, mask | bit
            while after_mask & 1:
                after_mask >>= 1
                after_level += 1
            yield after_level, after_mask, rule.makes, used, (link, [rule], rule.makes)


def _invalid(
    register: Register, failed: Rule, dead_ends: dict[int, Link], configurations: int
) -> Analysis:
    """The verdict on a history in which `failed` fits none of the states that were reached."""
    operation = failed.operation
    ends = sorted(dead_ends.items(), key=lambda end: register.show(end[0]))[:PATHS_KEPT]
    held = [f"{register.held(state)}: {register.origin(link)}" for state, link in ends[:2]]
    if len(ends) == 2:
        held[1] = f"or {held[1]}"
    elif len(ends) > 2:
        shown = [register.show(state) for state, _ in ends]
        held = [f"held {', '.join(shown[:-1])} or {shown[-1]}"]
    why = register.impossible(failed, ", ".join(held))
    paths = []
    for state, link in ends:
        text = register.show(state)
        problem = register.impossible(failed, register.held(state))
        impossible = Step(operation, register.values[state], text, text, problem)
        paths.append([*_last_steps(register, link), impossible])
    return Analysis(
        False,
        f"process {operation.process}'s {why}; the {operation.f} was {register.when(operation)}",
        configurations,
        failed=operation,
        final_paths=paths,
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
        after = register.show(state)
        for rule in reversed(rules):
            # What only observes found the state as it is; what made it, the one before.
            before = register.show(previous[2]) if rule.makes is not None and previous else after
            steps.append(Step(rule.operation, register.values[state], before, after))
        link = previous
    return steps[:STEPS_KEPT][::-1]


def check_history(ops: Sequence[Op], budget: int = BUDGET) -> dict[Any, Analysis]:
    """Judges each key of a history; a single register has the key None."""
    return {
        key: check(events, budget, "the register" if key is None else f"key {edn.dumps(key)}")
        for key, events in by_key(ops).items()
    }
