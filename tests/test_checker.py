"""The checker against brute force, against known verdicts, and against its own limits."""

from __future__ import annotations

import csv
import itertools
import random
import tracemalloc
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from histories import simulated, spoilt
from workbench import check as check_command
from workbench.checkers import linearizable
from workbench.checkers.linearizable import (
    BUDGET,
    MISMATCHED,
    Assumptions,
    Register,
    Rule,
    _search,
    check,
    check_history,
    first_values,
)
from workbench.record.edn import Keyword
from workbench.record.history import HistoryError, Op, Operation

VERDICTS = Path(__file__).resolve().parents[2] / "shared" / "histories"


def history(*lines: str) -> list[Op]:
    """Events from lines like `0 invoke write 4`, `0 ok write 4`, `1 fail cas 2,3 22`."""
    events = []
    for index, line in enumerate(lines):
        process, type, f, value, *error = line.split()
        numbers = [None if part == "nil" else int(part) for part in value.split(",")]
        events.append(
            Op(
                int(process),
                type,
                f,
                numbers if f == "cas" else numbers[0],
                index,
                index,
                [int(error[0]), "text"] if error else None,
            )
        )
    return events


def brute_force(ops: list[Op]) -> bool:
    """Tries every order of every choice of unknown operations."""
    register = Register(ops)
    for count in range(len(register.unknown) + 1):
        for chosen in itertools.combinations(register.unknown, count):
            if any(map(is_legal, itertools.permutations([*register.known, *chosen]))):
                return True
    return False


def is_legal(order: Iterable[Rule]) -> bool:
    """Whether one order respects real time and the register."""
    state, latest_start = 0, -1
    for rule in order:
        operation: Operation = rule.operation
        if operation.end_index is not None and operation.end_index < latest_start:
            return False
        if not rule.allows(state):
            return False
        latest_start = max(latest_start, operation.start_index)
        state = state if rule.makes is None else rule.makes
    return True


def test_agrees_with_brute_force_on_2000_small_histories() -> None:
    rng = random.Random(7)
    seen: Counter[str] = Counter()
    for _ in range(2000):
        ops = simulated(rng, rng.randint(3, 6), rng.randint(2, 4), 3, unknown=rng.randint(0, 2))
        if rng.random() < 0.6:
            ops = spoilt(rng, ops)
        expected = brute_force(ops)
        assert check(ops).valid is expected, ops
        seen[f"valid {expected}"] += 1
        seen["unknown operation"] += any(op.type == "info" for op in ops)
        for op in ops:
            if op.type == "fail":
                seen[op.error[0].name] += 1
    assert min(seen["valid True"], seen["valid False"]) > 300, seen
    assert seen["unknown operation"] > 500, seen
    assert min(seen["precondition-failed"], seen["key-does-not-exist"]) > 300, seen


@pytest.mark.skipif(not VERDICTS.is_dir(), reason="the recorded histories are not beside the repo")
def test_agrees_with_the_verdicts_on_recorded_histories() -> None:
    with (VERDICTS / "verdicts.csv").open() as rows:
        for row in csv.DictReader(rows):
            (found,) = check_command.judge(VERDICTS / row["file"])
            assert found.verdict.valid is (row["linearizable"] == "true"), (row["file"], found)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_history_of_20000_operations_with_5_unknown_ones(seed: int) -> None:
    rng = random.Random(seed)
    ops = simulated(rng, 20_000, 10, unknown=5)
    assert check(ops).valid is True
    impossible = [
        Op(99, "invoke", "write", 7, 0, len(ops)),
        Op(99, "ok", "write", 7, 0, len(ops) + 1),
        Op(98, "invoke", "read", None, 0, len(ops) + 2),
        Op(98, "ok", "read", 8, 0, len(ops) + 3),
    ]
    analysis = check(ops + impossible)
    assert analysis.valid is False
    assert analysis.failed is not None and analysis.failed.value == 8


def test_names_the_operation_that_cannot_be_placed_and_says_why() -> None:
    analysis = check(
        history("0 invoke write 2", "0 ok write 2", "1 invoke read nil", "1 ok read 4")
    )
    assert analysis.why == (
        "process 1's read found 4, but the register held 2: written by process 0, "
        "at 0.000 s (index 0); the read was at 0.000 s (index 2)"
    )
    assert [[str(step.operation) for step in path] for path in analysis.final_paths] == [
        ["write 2", "read 4"]
    ]
    last = analysis.final_paths[0][-1]
    assert last.problem == "read found 4, but the register held 2"
    assert [(s.before, s.after) for s in analysis.final_paths[0]] == [("absent", "2"), ("2", "2")]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["0 invoke write 2", "0 ok write 2", "1 invoke read nil", "1 fail read nil 20"],
         "process 1's read found nothing, but key 0 held 2: written by process 0, at 3.000 s "
         "(index 0); the read was at 3.002 s (index 2)"),
        (["0 invoke write 2", "0 ok write 2", "1 invoke cas 2,3", "1 fail cas 2,3 22"],
         "process 1's cas 2 to 3 failed, but key 0 held 2: written by process 0, at 3.000 s "
         "(index 0); the cas was at 3.002 s (index 2)"),
        (["0 invoke write 2", "0 ok write 2", "1 invoke cas 2,3", "1 ok cas 2,3",
          "1 invoke cas 2,4", "1 ok cas 2,4"],
         "process 1's cas 2 to 4 succeeded, but key 0 held 3: written by process 1, at 3.002 s "
         "(index 2); the cas was at 3.004 s (index 4)"),
        (["0 invoke read nil", "0 ok read 1"],
         "process 0's read found 1, but key 0 was absent: nothing was written before; "
         "the read was at 3.000 s (index 0)"),
    ],
)  # fmt: skip
def test_the_sentence_says_what_was_seen_and_who_wrote_what_was_there(
    lines: list[str], why: str
) -> None:
    keyed = [
        replace(op, value=[0, op.value], time=3_000_000_000 + 1_000_000 * op.index)
        for op in history(*lines)
    ]
    assert check_history(keyed)[0].contradiction == why
    untimed = check([replace(op, time=0) for op in history(*lines)])
    assert " s (" not in untimed.why and "; the" in untimed.why


def test_names_all_values_that_the_register_may_hold() -> None:
    analysis = check(
        history(
            "0 invoke write 2",
            "1 invoke write 3",
            "0 ok write 2",
            "1 ok write 3",
            "2 invoke cas 4,5",
            "2 ok cas 4,5",
        )
    )
    assert analysis.why == (
        "process 2's cas 4 to 5 succeeded, but the register held 2: written by process 0, at "
        "0.000 s (index 0), or held 3: written by process 1, at 0.000 s (index 1); "
        "the cas was at 0.000 s (index 4)"
    )
    assert len(analysis.final_paths) == 2


WROTE_NULL = ["0 invoke write nil", "0 ok write nil"]
WROTE_1 = ["0 invoke write 1", "0 ok write 1"]


@pytest.mark.parametrize(
    ("valid", "lines"),
    [
        (True, ["0 invoke read nil", "0 ok read nil"]),
        (True, ["0 invoke read nil", "0 fail read nil 20"]),
        (False, [*WROTE_1, "1 invoke read nil", "1 fail read nil 20"]),
        (True, [*WROTE_1, "1 invoke read nil", "1 fail read nil 11"]),
        (False, [*WROTE_1, "1 invoke cas 2,3", "1 fail cas 2,3 20"]),
        (True, [*WROTE_1, "1 invoke cas 2,3", "1 fail cas 2,3 22"]),
        (False, [*WROTE_1, "1 invoke cas 1,3", "1 fail cas 1,3 22"]),
        (True, [*WROTE_1, "1 invoke cas 1,3", "1 fail cas 1,3"]),
        (True, [*WROTE_1, "1 invoke cas 1,3", "1 fail cas 1,3 11"]),
        (False, [*WROTE_1, "1 invoke write 2", "1 fail write 2 11", "2 invoke read nil",
                 "2 ok read 2"]),
        (True, [*WROTE_1, "1 invoke write 2", "1 info write 2", "2 invoke read nil",
                "2 ok read 1", "2 invoke read nil", "2 ok read 2"]),
        (False, [*WROTE_1, "1 invoke write 2", "1 info write 2", "2 invoke read nil",
                 "2 ok read 2", "2 invoke read nil", "2 ok read 1"]),
        (True, [*WROTE_1, "1 invoke write 2", "2 invoke read nil", "2 ok read 2"]),
        # null is a value to error 20, while a read of nil may mean that there is none.
        (False, [*WROTE_NULL, "1 invoke read nil", "1 fail read nil 20"]),
        (False, [*WROTE_NULL, "1 invoke cas 1,2", "1 fail cas 1,2 20"]),
        (True, [*WROTE_NULL, "1 invoke read nil", "1 ok read nil"]),
        (True, [*WROTE_NULL, "1 invoke cas nil,2", "1 ok cas nil,2"]),
        (False, [*WROTE_NULL, "1 invoke cas nil,2", "1 fail cas nil,2 22"]),
        (True, [*WROTE_NULL, "1 invoke cas 1,2", "1 fail cas 1,2 22"]),
        (False, [*WROTE_1, "1 invoke read nil", "1 ok read nil"]),
        (True, [*WROTE_1, "2 invoke read nil", "2 info read nil", "1 invoke cas 1,2",
                "1 ok cas 1,2"]),
        # An operation that is pending all the time takes effect once.
        (False, ["0 invoke write 1", "1 invoke write 2", "2 invoke read nil", "2 ok read 1",
                 "2 invoke read nil", "2 ok read 2", "2 invoke read nil", "2 ok read 1",
                 "0 ok write 1", "1 ok write 2"]),
        # An error that does not fit the operation says no more than any other.
        (True, [*WROTE_1, "1 invoke read nil", "1 fail read nil 22"]),
        (True, [*WROTE_1, "1 invoke write 2", "1 fail write 2 20"]),
        (True, [*WROTE_1, "1 invoke write 1", "1 fail write 1 22"]),
    ],
)  # fmt: skip
def test_what_each_completion_says(valid: bool, lines: list[str]) -> None:
    assert check(history(*lines)).valid is valid


def test_an_error_that_only_the_bench_uses_makes_a_warning() -> None:
    """Knossos drops failed operations (knossos.history/complete), whatever their error."""
    contradicts = [*WROTE_1, "1 invoke cas 1,3", "1 fail cas 1,3 22"]
    (found,) = check_history(history(*contradicts)).values()
    assert (found.valid, found.warning) == (True, found.contradiction)
    assert found.warning.startswith("process 1's cas 1 to 3 failed, but the register held 1")
    (found,) = check_history(history(*contradicts, "2 invoke read nil", "2 ok read 5")).values()
    assert (found.valid, found.warning) == (False, "")
    (found,) = check_history(history(*WROTE_1)).values()
    assert (found.valid, found.contradiction) == (True, "")


def test_a_cas_that_failed_without_an_error_may_mean_a_mismatch() -> None:
    ops = history(*WROTE_1, "1 invoke cas 1,3", "1 fail cas 1,3")
    assert check(ops).valid is True
    assert check(ops, assumptions=Assumptions(failed_cas=MISMATCHED)).valid is False


def test_a_register_may_start_with_a_value() -> None:
    def valid(initial: object, *lines: str) -> bool | None:
        return check(history(*lines), assumptions=Assumptions(initial)).valid

    read_0 = ["0 invoke read nil", "0 ok read 0"]
    assert valid(0, *read_0) is True
    assert valid(False, *read_0) is False
    assert valid(0, "0 invoke cas 0,1", "0 ok cas 0,1") is True
    assert valid(0, *WROTE_1, *read_0) is False
    assert valid(0, "0 invoke read nil", "0 fail read nil 20") is False
    why = check(history("0 invoke read nil", "0 ok read 1"), assumptions=Assumptions(0)).why
    assert "but the register held 0: its initial value" in why


def test_first_values_are_those_that_no_write_can_have_brought() -> None:
    ops = history(
        "0 invoke read nil", "0 ok read 3", "1 invoke cas 4,5", "2 invoke read nil", "1 ok cas 4,5",
        "2 ok read 6", "3 invoke read nil", "3 ok read 7",
    )  # fmt: skip
    assert first_values(ops) == [3, 4, 6]
    assert first_values(history("0 invoke read nil", "0 ok read nil")) == []


@pytest.mark.parametrize("error", [[], [[]], {"code": 22}, [{"code": 22}], True])
def test_an_error_of_an_unknown_form_says_nothing(error: object) -> None:
    ops = history(*WROTE_1, "1 invoke cas 1,3")
    assert check([*ops, Op(1, "fail", "cas", [1, 3], 3, 3, error)]).valid is True


def test_says_what_the_register_holds_in_the_end_and_who_came_last() -> None:
    assert check([]).final_states == [(None, None)]
    ((state, last),) = check(history(*WROTE_1, "1 invoke read nil", "1 ok read 1")).final_states
    assert (state, str(last)) == (1, "read 1")


def test_each_step_of_a_path_is_there_once() -> None:
    analysis = check(
        history(
            "0 invoke write 1",
            "1 invoke cas 5,6",
            "2 invoke read nil",
            "2 ok read 1",
            "1 fail cas 5,6 22",
            "0 ok write 1",
            "2 invoke read nil",
            "2 ok read 9",
        )
    )
    (path,) = analysis.final_paths
    assert [str(step.operation) for step in path] == ["cas 5 to 6", "write 1", "read 1", "read 9"]


def test_more_than_two_values_are_a_list() -> None:
    writes = [f"{n} {type} write {n}" for type in ("invoke", "ok") for n in (1, 2, 3)]
    analysis = check(history(*writes, "0 invoke read nil", "0 ok read 9"))
    assert analysis.why.startswith(
        "process 0's read found 9, but the register held 1, 2 or 3; the read was at"
    )


def test_values_are_compared_as_in_clojure() -> None:
    def reads(written: object, read: object) -> bool | None:
        return check(
            [
                Op(0, "invoke", "write", written, 0, 0),
                Op(0, "ok", "write", written, 1, 1),
                Op(1, "invoke", "read", None, 2, 2),
                Op(1, "ok", "read", read, 3, 3),
            ]
        ).valid

    assert reads([1, {"a": True}], [1, {"a": True}]) is True
    assert reads(1, 1.0) is False
    assert reads([{"a": 1.0, "b": 2}], [{"b": 2, "a": 1.0}]) is True
    assert reads([{"a": 1.0}], [{"a": 1}]) is False
    assert reads({"a": 0}, {"a": False}) is False
    assert reads(1, True) is False
    assert reads(1.0, True) is False
    assert reads(1, "1") is False
    assert reads([1], [True]) is False


def test_keys_are_judged_one_by_one() -> None:
    def on(key: object, ops: list[Op], process: int) -> list[Op]:
        return [
            replace(op, process=int(op.process) + process, value=[key, op.value])
            for op in ops
        ]

    good = history(*WROTE_1, "1 invoke read nil", "1 ok read 1")
    bad = history(*WROTE_1, "1 invoke read nil", "1 ok read 3")
    analyses = check_history([*on(0, good, 0), *on(1, bad, 10), *on("1", good, 20)])
    assert {key: found.valid for key, found in analyses.items()} == {0: True, 1: False, "1": True}


def test_gives_up_when_the_budget_is_used_up() -> None:
    analysis = check(simulated(random.Random(1), 100, 5), budget=10)
    assert analysis.valid is None
    assert "10 configurations" in analysis.why


def at_once(writes: int) -> list[Op]:
    """Writes and a read of what none of them wrote, all under way at the same time."""
    count = writes + 1
    ops = [Op(n, "invoke", "write", n, 0, n) for n in range(writes)]
    ops.append(Op(writes, "invoke", "read", None, 0, writes))
    ops += [Op(n, "ok", "write", n, 0, count + n) for n in range(writes)]
    return [*ops, Op(writes, "ok", "read", -1, 0, count + writes)]


@pytest.mark.parametrize("deep", [True, False])
def test_the_budget_bounds_the_memory_of_a_search(deep: bool) -> None:
    register = Register(at_once(25))
    tracemalloc.start()
    try:
        assert _search(register, 20_000, deep) is None
        assert tracemalloc.get_traced_memory()[1] < 20_000 * 500
    finally:
        tracemalloc.stop()


def test_what_is_too_wide_for_the_budget_is_not_begun() -> None:
    tracemalloc.start()
    try:
        assert check(at_once(2000), budget=20_000).valid is None
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_a_wide_configuration_counts_more(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = check(at_once(5)).configurations
    monkeypatch.setattr(linearizable, "WIDE", 2)
    assert check(at_once(5)).configurations > narrow


def test_errors_are_known_by_name_and_by_code() -> None:
    for error in (20, [20, "not found"], Keyword("key-does-not-exist"),
                  [Keyword("key-does-not-exist"), "not found"]):  # fmt: skip
        ops = history(*WROTE_1, "1 invoke read nil")
        ops.append(Op(1, "fail", "read", None, 3, 3, error))
        assert check(ops).valid is False, error


def test_a_failure_by_time_out_says_nothing_even_in_the_place_of_the_value() -> None:
    ops = history(*WROTE_1, "1 invoke cas 1,3")
    assert check([*ops, Op(1, "fail", "cas", Keyword("timed-out"), 3, 3)]).valid is True


def test_an_operation_of_another_workload_is_no_register() -> None:
    with pytest.raises(HistoryError, match="echo"):
        check([Op(0, "invoke", "echo", "hello", 0, 0), Op(0, "ok", "echo", "hello", 1, 1)])


def test_both_searches_agree() -> None:
    rng = random.Random(3)
    for _ in range(300):
        ops = spoilt(rng, simulated(rng, 30, 4, 3, unknown=3))
        register = Register(ops)
        verdicts = {
            (found.valid, str(found.failed))
            for deep in (True, False)
            if (found := _search(register, BUDGET, deep))
        }
        assert len(verdicts) == 1, ops
