"""Checks that a register is linearizable: Wing and Gong's search, with Lowe's memoization.

A history is linearizable if its operations have an order with two properties. Each operation takes
effect at one moment between its invocation and its completion. Each read returns the value that a
single register holds at that moment (J. Wing and C. Gong, Testing and verifying concurrent objects,
1993). The search builds such an order step by step, and backtracks where no step is possible. A
*configuration* is the set of operations placed so far and the register's value. The search never
visits a configuration twice (G. Lowe, Testing for linearizability, 2017).

Facts that follow from a completion:

| completion              | read of v                | write of v, cas of a to b            |
|-------------------------|--------------------------|--------------------------------------|
| ok                      | the register held v      | it took effect (the register held a) |
| fail, error 20          | the key was absent       | cas: the key was absent              |
| fail, error 22          | nothing                  | cas: the register did not hold a     |
| fail, any other error   | nothing                  | it never took effect                 |
| fail without an error   | nothing                  | the same; see `Assumptions`          |
| info, or no completion  | nothing                  | it may take effect later, or never   |

Knossos, the checker of the real Maelstrom, drops all failed operations (knossos.history/complete),
and allows any read of nil (knossos.model/cas-register). So a contradiction that needs error 20 or
22, or a read of nil, is only a warning here.

Null and absent are two states, and only absent explains error 20. A read of nil, or a cas from nil,
fits both states, because stores without error 20 return nil for an absent key. Values are compared
as in Clojure: 1, 1.0 and true are three values.

The search is fast enough because configurations are small and few. Known operations (those with a
completion) are numbered by completion. A configuration is (level, mask, state, used). All known
operations below `level` are placed, and so are the ones from `level` on whose bit is set in `mask`.
The mask has about as many bits as there are processes. `used` is the bit mask of the unknown
operations that are placed. Two rules prune the search, and neither can lose an order:

- An operation that only observes (a read, a failed cas) is placed as soon as it is possible.
- Of two configurations that differ only in `used`, the search drops the one that used more. The
  other can reach every order that the dropped one can. Unknown operations with the same effect are
  used in the order of their invocation.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import heappop, heappush
from typing import Any

from ..record import edn
from ..record.history import HistoryError, Op, Operation, by_key, operations, shorten
from ..units import SECOND
from .clojure import identity

BUDGET = 1_200_000  # configurations kept in memory; each takes some 400 bytes
WIDE = 1024  # each WIDE bits of its masks make a configuration count once more
PATHS_KEPT = 10
STEPS_KEPT = 8
SHOWN = 60  # characters shown of a value

ABSENT = 0  # the state of a register that was never written
NULL = 1
NOT_FOUND = {20, "key-does-not-exist"}
MISMATCH = {22, "precondition-failed"}


NOTHING = "nothing"
MISMATCHED = "mismatch"


@dataclass(frozen=True, slots=True)
class Assumptions:
    """Facts about a register that its history does not state."""

    initial: Any = None  # the value before the first write; None for an absent key
    # Meaning of a failed cas without an error. NOTHING: it had no effect. MISMATCHED: in addition,
    # the register did not hold the expected value. Then a read of nil says that it held none.
    failed_cas: str = NOTHING
    strict: bool = True  # whether errors 20 and 22 and reads of nil say something


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of a tried order."""

    operation: Operation
    state: Any  # the register's value after the step; None if nil or absent
    before: str  # the register's state before the step, as text
    after: str  # the register's state after the step, as text
    problem: str = ""  # why the step is impossible; "" if it is possible


@dataclass(frozen=True)
class Analysis:
    """The verdict on one key.

    An invalid history has `failed` and `final_paths`, a valid one has `final_states`.
    """

    valid: bool | None  # None if the budget ran out
    why: str
    configurations: int  # number of configurations that the search kept
    failed: Operation | None = None  # the operation that no order can place
    # The last steps of the longest orders. The last step of each path is the impossible one.
    final_paths: list[list[Step]] = field(default_factory=list)
    # The register's value at the end, and the last operation.
    final_states: list[tuple[Any, Operation | None]] = field(default_factory=list)
    # Says how an error 20 or 22 or a read of nil contradicts an otherwise valid history, or "".
    warning: str = ""

    @property
    def contradiction(self) -> str:
        """Says how the answers contradict each other, even if only by an error; "" if not."""
        return self.why if self.valid is False else self.warning


@dataclass(slots=True)
class Rule:
    """An operation's precondition on the register's state, and its effect."""

    operation: Operation
    needs: frozenset[int] | None  # states in which it can take effect; None for any
    makes: int | None  # state after it; None if it only observes
    negated: bool = False  # it can take effect in all states except `needs`

    def allows(self, state: int) -> bool:
        """Tells whether the operation can take effect in this state."""
        return self.needs is None or (state in self.needs) is not self.negated


class Register:
    """The rules of a history's operations. The register's states are numbered."""

    def __init__(
        self,
        ops: Sequence[Op],
        name: str = "the register",
        assumptions: Assumptions = Assumptions(),
    ) -> None:
        self.name = name
        self.assumptions = assumptions
        self._mismatched = assumptions.failed_cas == MISMATCHED
        self.timed = bool(ops) and ops[-1].time > 0
        self._numbers: dict[Hashable, int] = {None: NULL}
        self.values: list[Any] = [None, None]
        initial = assumptions.initial
        self.initial = ABSENT if initial is None else self._state(initial)
        self.known: list[Rule] = []  # operations with a completion, ordered by completion
        self.unknown: list[Rule] = []  # operations without one, ordered by invocation
        for operation in operations(ops):
            rule = self._rule(operation)
            if rule and operation.end_index is not None:
                self.known.append(rule)
            elif rule:
                self.unknown.append(rule)
        self.known.sort(key=lambda rule: rule.operation.end_index or 0)
        starts = [rule.operation.start_index for rule in self.known]
        completions = [rule.operation.end_index or 0 for rule in self.known]
        # For each level L: the known operations from L on that can be placed while L is not.
        # `choices` is their total number. `unknown_until[L]` of the unknown ones can be placed.
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
        """Returns the states in which a client may see this value."""
        return frozenset([ABSENT, NULL] if value is None else [self._state(value)])

    def _rule(self, operation: Operation) -> Rule | None:
        """Returns an operation's rule by the table above; None if nothing follows from it."""
        f, value, type = operation.f, operation.value, operation.type
        if f not in ("read", "write", "cas"):
            raise HistoryError(
                f"cannot check :{f}; a register has only :read, :write and :cas. Name the workload "
                "of another history, for example: maelstrom check -w g-set"
            )
        if type == "fail":
            return self._failed(operation)
        if f == "write":
            return Rule(operation, None, self._state(value))
        if f == "cas":
            old, new = value
            return Rule(operation, self._seen(old), self._state(new))
        if f == "read" and type == "ok":
            if value is None and not (self.assumptions.strict or self._mismatched):
                return None
            return Rule(operation, self._seen(value), None)
        return None

    def _failed(self, operation: Operation) -> Rule | None:
        error, told = _code(operation.error), self.assumptions.strict
        if operation.f in ("read", "cas") and told and error in NOT_FOUND:
            return Rule(operation, frozenset([ABSENT]), None)
        if operation.f != "cas":
            return None
        if error is None:
            told, error = self._mismatched, 22
        if told and error in MISMATCH:
            return Rule(operation, self._seen(operation.value[0]), None, negated=True)
        return None

    def impossible(self, rule: Rule, held: str) -> str:
        """Says how an operation contradicts the register's state."""
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
        """Describes a state: `held 2` or `was absent`."""
        return "was absent" if state == ABSENT else f"held {self.show(state)}"

    def origin(self, link: Link) -> str:
        """Names the last operation of a tried order that changed the register, and its time."""
        step: Link | None = link
        while step:
            step, rules, _ = step
            for rule in reversed(rules):
                if rule.makes is not None:
                    operation = rule.operation
                    return f"written by process {operation.process}, {self.when(operation)}"
        return "nothing was written before" if self.initial == ABSENT else "its initial value"

    def when(self, operation: Operation) -> str:
        """Gives the time of an operation's invocation, if the history has times, and its index."""
        index = f"index {operation.start_index}"
        return f"at {operation.start / SECOND:.3f} s ({index})" if self.timed else f"at {index}"

    def show(self, state: int) -> str:
        """Shows a state as text, shortened."""
        return "absent" if state == ABSENT else shorten(edn.dumps(self.values[state]), SHOWN)


def _code(error: Any) -> str | int | None:
    """Returns the name or the number of an error: 22 for `[22 "text"]`; "" for other forms."""
    if isinstance(error, list | tuple) and error:
        error = error[0]
    if isinstance(error, edn.Keyword):
        error = error.name
    return error if isinstance(error, str | int | None) else ""


# A link of a tried order: the previous link, the rules placed in this one, the state after it.
Link = tuple["Link | None", list[Rule], int]
Configuration = tuple[int, int, int, int, Link]  # level, mask, state, used; its order


def check(
    ops: Sequence[Op],
    budget: int = BUDGET,
    name: str = "the register",
    assumptions: Assumptions = Assumptions(),
) -> Analysis:
    """Searches for a linearizable order of the events of one key.

    The events' values must not contain the key. `name` stands for the register in the verdict.
    The verdict is unknown after `budget` configurations. Raises HistoryError for events other than
    those of a cas register.

    A short depth-first search finds the order of most valid histories. If it fails, a breadth-first
    search follows, which exhausts invalid histories soonest.
    """
    register = Register(ops, name, assumptions)
    share = min(budget, 50_000 + 2 * len(register.known))
    found = None
    if register.choices <= 10 * budget:
        found = _search(register, share, deep=True) or _search(register, budget - share, deep=False)
    return found or Analysis(
        None,
        f"{name} has no verdict: too many operations were concurrent for the budget of {budget:,} "
        "configurations; a larger `maelstrom check --budget` tries more, and takes more memory",
        budget,
    )


def _search(register: Register, budget: int, deep: bool) -> Analysis | None:
    """Returns the verdict; None if the budget runs out.

    The breadth-first search visits configurations with fewer placed operations first. Among equals
    it visits those with fewer unknown operations first. So it rarely visits a configuration that a
    later one dominates.
    """
    known, unknowns = register.known, len(register.unknown)
    candidates = register.candidates()
    end = len(known)
    states = len(register.values)
    # For each level, maps (mask, state) to the masks of used unknown operations. Configurations
    # are entered when found, not when visited, so the budget also bounds the queue.
    found: list[dict[int, tuple[int, ...]]] = [{} for _ in range(end + 1)]
    configurations = 0
    deepest = 0
    dead_ends: dict[int, Link] = {}  # configurations of the deepest level, by state
    # Configurations to visit: (priority, tie-break, configuration, its order). The lowest comes
    # first, and of equals the last one pushed. In a depth-first search all priorities are equal.
    queue: list[tuple[int, int, int, int, int, int, Link]] = []
    steps: Iterable[Configuration] = [
        (0, 0, register.initial, 0, (None, [], register.initial))
    ]
    while True:
        for level, mask, state, used, link in steps:
            # Places observing operations at once. Each completed level may allow more of them.
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

            # Lowe's memoization. A configuration whose `used` contains an earlier one's is dropped.
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
    """Yields the configurations that follow by placing one operation that changes the register.

    A depth-first search visits the last one first. So unknown operations come first, then known
    ones in reverse order of completion.
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
    """Builds the verdict on a history in which `failed` contradicts every reached state."""
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
    """Lists, for each level, the operations from there on invoked before the level's completion."""
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
            # An observing operation leaves the state as it is.
            before = register.show(previous[2]) if rule.makes is not None and previous else after
            steps.append(Step(rule.operation, register.values[state], before, after))
        link = previous
    return steps[:STEPS_KEPT][::-1]


def check_history(
    ops: Sequence[Op], budget: int = BUDGET, assumptions: Assumptions = Assumptions()
) -> dict[Any, Analysis]:
    """Checks each key of a history. A single register has the key None.

    If only errors 20 and 22 and reads of nil contradict a key's other answers, the key is valid,
    with a warning.
    """
    return {
        key: _check_key(
            events, budget, "the register" if key is None else f"key {edn.dumps(key)}", assumptions
        )
        for key, events in by_key(ops).items()
    }


def _check_key(
    ops: Sequence[Op], budget: int, name: str, assumptions: Assumptions
) -> Analysis:
    strict = check(ops, budget, name, assumptions)
    if strict.valid is not False or not any(map(_is_ignored, ops)):
        return strict
    lenient = check(ops, budget, name, replace(assumptions, strict=False))
    return strict if lenient.valid is False else replace(lenient, warning=strict.why)


def _is_ignored(op: Op) -> bool:
    """Tells whether a completion says something about the register that Knossos ignores."""
    if op.type == "fail":
        return _code(op.error) in NOT_FOUND | MISMATCH
    return op.type == "ok" and op.f == "read" and op.value is None


def first_values(ops: Sequence[Op]) -> list[Any]:
    """Returns the values that a register may have held before its first write.

    An ok operation saw each of them, and began before the first ok write or cas was complete.
    """
    found: dict[str, Any] = {}
    for events in by_key(ops).values():
        known = [operation for operation in operations(events) if operation.type == "ok"]
        writes = [operation.end_index or 0 for operation in known if operation.f != "read"]
        for operation in known:
            if not writes or operation.start_index < min(writes):
                seen = operation.value[0] if operation.f == "cas" else operation.value
                if operation.f != "write" and seen is not None:
                    found.setdefault(edn.dumps(seen, sort_keys=True), seen)
    return list(found.values())
