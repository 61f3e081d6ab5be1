"""Elle's checkers: a history for each anomaly, the real checker's verdicts, and brute force."""

from __future__ import annotations

import csv
import itertools
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from workbench.checkers import consistency, list_append, rw_register
from workbench.checkers.cycles import (
    ANY,
    PROCESS,
    REALTIME,
    RW,
    SHAPES,
    WR,
    WW,
    Budget,
    Out,
    Shape,
    components,
    cyclic_parts,
    find_cycle,
    in_hash_order,
    type_of,
)
from workbench.checkers.elle import Result
from workbench.record import edn
from workbench.record.edn import Keyword
from workbench.record.history import HistoryError, Op, Recorded, histories
from workbench.verdicts import UNKNOWN

WORKLOADS = Path(__file__).resolve().parents[2] / "shared" / "workloads"
CHECKS = {"txn-list-append": list_append.check, "txn-rw-register": rw_register.check}
ALL = "strict-serializable"


def events(*lines: str) -> list[Op]:
    """Events from lines like `0 invoke [[:r 1 nil]]` and `0 ok [[:r 1 [5]]]`."""
    found = []
    for index, line in enumerate(lines):
        process, type, value = line.split(maxsplit=2)
        found.append(Op(int(process), type, "txn", edn.loads(value), index, index))
    return found


def at_once(*txns: str) -> list[Op]:
    """Transactions that all begin before the first one ends, so time orders none of them.

    A transaction may be preceded by `fail` or `info`.
    """
    begun, ended = [], []
    for process, text in enumerate(txns):
        type, value = text.split(maxsplit=1) if text[0] != "[" else ("ok", text)
        begun.append(f"{process} invoke {value}")
        ended.append(f"{process} {type} {value}")
    return events(*begun, *ended)


def one_by_one(*txns: str) -> list[Op]:
    """Transactions that each begin after the previous one ended, such as `0 [[:r 1 nil]]`."""
    return events(
        *(
            line
            for process, value in (txn.split(maxsplit=1) for txn in txns)
            for line in (f"{process} invoke {value}", f"{process} ok {value}")
        )
    )


# For each type: a history that has it, the types reported, the weakest models that are ruled out,
# and a history that differs a little and is valid.

Case = tuple[str, list[Op], str, str, list[Op]]

LISTS: dict[str, Case] = {
    # Key 1 has T1's append before T2's, key 2 the other way round.
    "G0": (
        ALL,
        at_once(
            "[[:append 1 1] [:append 2 1]]",
            "[[:append 1 2] [:append 2 2]]",
            "[[:r 1 [1 2]] [:r 2 [2 1]]]",
        ),
        "G0",
        "read-uncommitted",
        at_once(
            "[[:append 1 1] [:append 2 1]]",
            "[[:append 1 2] [:append 2 2]]",
            "[[:r 1 [1 2]] [:r 2 [1 2]]]",
        ),
    ),
    # Each of two transactions reads the other's append.
    "G1c": (
        ALL,
        at_once("[[:append 1 1] [:r 2 [1]]]", "[[:append 2 1] [:r 1 [1]]]"),
        "G1c",
        "read-committed",
        at_once("[[:append 1 1] [:r 2 [1]]]", "[[:append 2 1] [:r 1 nil]]"),
    ),
    # T2 sees one append of T1, but not the other.
    "G-single-item": (
        ALL,
        at_once("[[:append 1 1] [:append 2 1]]", "[[:r 1 [1]] [:r 2 nil]]"),
        "G-single-item",
        "consistent-view repeatable-read",
        at_once("[[:append 1 1] [:append 2 1]]", "[[:r 1 [1]] [:r 2 [1]]]"),
    ),
    # Long fork: T3 sees T1 without T2, and T4 sees T2 without T1.
    "G-nonadjacent-item": (
        ALL,
        at_once(
            "[[:append 1 1]]",
            "[[:append 2 1]]",
            "[[:r 1 [1]] [:r 2 nil]]",
            "[[:r 1 nil] [:r 2 [1]]]",
        ),
        "G-nonadjacent-item",
        "repeatable-read snapshot-isolation",
        at_once(
            "[[:append 1 1]]",
            "[[:append 2 1]]",
            "[[:r 1 [1]] [:r 2 nil]]",
            "[[:r 1 [1]] [:r 2 [1]]]",
        ),
    ),
    # Write skew: each of two transactions misses the other's append.
    "G2-item": (
        ALL,
        at_once("[[:r 1 nil] [:append 2 1]]", "[[:r 2 nil] [:append 1 1]]"),
        "G2-item",
        "repeatable-read",
        at_once("[[:r 1 nil] [:append 2 1]]", "[[:r 2 [1]] [:append 1 1]]"),
    ),
    # A later transaction does not see a committed append.
    "G-single-item-realtime": (
        ALL,
        one_by_one("0 [[:append 1 1]]", "1 [[:r 1 nil]]"),
        "G-single-item-realtime",
        "strong-snapshot-isolation",
        one_by_one("0 [[:append 1 1]]", "1 [[:r 1 [1]]]"),
    ),
    # A process does not see its own append.
    "G-single-item-process": (
        "strong-session-serializable",
        one_by_one("0 [[:append 1 1]]", "0 [[:r 1 nil]]"),
        "G-single-item-process",
        "strong-session-snapshot-isolation",
        one_by_one("0 [[:append 1 1]]", "1 [[:r 1 nil]]"),
    ),
    # A later append comes first in the list.
    "G0-realtime": (
        ALL,
        one_by_one("0 [[:append 1 1]]", "1 [[:append 1 2]]", "2 [[:r 1 [2 1]]]"),
        "G0-realtime",
        "strong-read-uncommitted",
        one_by_one("0 [[:append 1 1]]", "1 [[:append 1 2]]", "2 [[:r 1 [1 2]]]"),
    ),
    # A transaction reads an append of a later one.
    "G1c-realtime": (
        ALL,
        one_by_one("0 [[:r 1 [1]]]", "1 [[:append 1 1]]"),
        "G1c-realtime",
        "strong-read-committed",
        one_by_one("1 [[:append 1 1]]", "0 [[:r 1 [1]]]"),
    ),
    "G1a": (
        ALL,
        at_once("fail [[:append 1 1]]", "[[:r 1 [1]]]", "[[:append 1 2]]"),
        "G1a",
        "read-committed",
        at_once("info [[:append 1 1]]", "[[:r 1 [1]]]", "[[:append 1 2]]"),
    ),
    "G1b": (
        "read-committed",
        at_once("[[:append 1 1] [:append 1 2]]", "[[:r 1 [1]]]"),
        "G1b",
        "read-committed",
        at_once("[[:append 1 1] [:append 1 2]]", "[[:r 1 [1 2]]]"),
    ),
    "internal": (
        ALL,
        at_once("[[:append 1 1] [:r 1 [2]]]", "[[:append 1 2]]"),
        "internal",
        "read-atomic",
        at_once("[[:append 1 1] [:r 1 [2 1]]]", "[[:append 1 2]]"),
    ),
    "future-read": (
        ALL,
        at_once("[[:r 1 [1]] [:append 1 1]]", "[[:r 1 [1]]]"),
        "future-read",
        "read-committed",
        at_once("[[:r 1 nil] [:append 1 1]]", "[[:r 1 [1]]]"),
    ),
    "duplicate-elements": (
        ALL,
        at_once("[[:append 1 1]]", "[[:r 1 [1 1]]]"),
        "duplicate-elements",
        "read-uncommitted",
        at_once("[[:append 1 1]]", "[[:r 1 [1]]]"),
    ),
    "incompatible-order": (
        ALL,
        at_once("[[:append 1 1]]", "[[:append 1 2]]", "[[:r 1 [1]]]", "[[:r 1 [2 1]]]"),
        "incompatible-order",
        "read-committed",
        at_once("[[:append 1 1]]", "[[:append 1 2]]", "[[:r 1 [2]]]", "[[:r 1 [2 1]]]"),
    ),
    "dirty-update": (
        ALL,
        at_once("fail [[:append 1 1]]", "[[:append 1 2]]", "[[:r 1 [1 2]]]"),
        "G1a dirty-update",
        "read-committed",
        at_once("info [[:append 1 1]]", "[[:append 1 2]]", "[[:r 1 [1 2]]]"),
    ),
    "lost-update": (
        "cursor-stability",
        at_once("[[:r 1 nil] [:append 1 1]]", "[[:r 1 nil] [:append 1 2]]"),
        "lost-update",
        "cursor-stability update-atomic",
        at_once("[[:r 1 nil] [:append 1 1]]", "[[:r 1 [1]] [:append 1 2]]"),
    ),
}

REGISTERS: dict[str, Case] = {
    "G1c": (
        ALL,
        at_once("[[:w 1 1] [:r 2 1]]", "[[:w 2 1] [:r 1 1]]"),
        "G1c",
        "read-committed",
        at_once("[[:w 1 1] [:r 2 1]]", "[[:w 2 1] [:r 1 nil]]"),
    ),
    # T2 sees one write of T1, but not the other: nil is older than any write.
    "G-single-item": (
        ALL,
        at_once("[[:w 1 1] [:w 2 1]]", "[[:r 1 1] [:r 2 nil]]"),
        "G-single-item",
        "consistent-view repeatable-read",
        at_once("[[:w 1 1] [:w 2 1]]", "[[:r 1 1] [:r 2 1]]"),
    ),
    "G2-item": (
        ALL,
        at_once("[[:r 1 nil] [:w 2 1]]", "[[:r 2 nil] [:w 1 1]]"),
        "G2-item",
        "repeatable-read",
        at_once("[[:r 1 nil] [:w 2 1]]", "[[:r 2 1] [:w 1 1]]"),
    ),
    # T2 read 1 and wrote 2, so 2 is the later version; T3 still reads 1.
    "G-single-item-realtime": (
        ALL,
        one_by_one("0 [[:w 1 1]]", "1 [[:r 1 1] [:w 1 2]]", "2 [[:r 1 1]]"),
        "G-single-item-realtime",
        "strong-snapshot-isolation",
        one_by_one("0 [[:w 1 1]]", "1 [[:r 1 1] [:w 1 2]]", "2 [[:r 1 2]]"),
    ),
    "G1a": (
        ALL,
        at_once("fail [[:w 1 1]]", "[[:r 1 1]]", "[[:w 1 2]]", "[[:r 1 2]]"),
        "G1a",
        "read-committed",
        at_once("info [[:w 1 1]]", "[[:r 1 1]]", "[[:w 1 2]]", "[[:r 1 2]]"),
    ),
    "G1b": (
        ALL,
        at_once("[[:w 1 1] [:w 1 2]]", "[[:r 1 1]]", "[[:r 1 2]]"),
        "G1b",
        "read-committed",
        at_once("[[:w 1 1] [:w 1 2]]", "[[:r 1 2]]", "[[:r 1 2]]"),
    ),
    "internal": (
        ALL,
        at_once("[[:w 1 1] [:r 1 2]]", "[[:w 1 2]]", "[[:r 1 2]]"),
        "internal",
        "read-atomic",
        at_once("[[:w 1 1] [:r 1 1]]", "[[:w 1 2]]", "[[:r 1 2]]"),
    ),
    "lost-update": (
        "cursor-stability",
        at_once("[[:w 1 9]]", "[[:r 1 9] [:w 1 1]]", "[[:r 1 9] [:w 1 2]]"),
        "lost-update",
        "cursor-stability update-atomic",
        at_once("[[:w 1 9]]", "[[:r 1 9] [:w 1 1]]", "[[:r 1 1] [:w 1 2]]"),
    ),
    # T1 says that 2 comes after 1, T2 that 1 comes after 2.
    "cyclic-versions": (
        "read-uncommitted",
        at_once("[[:r 1 1] [:w 1 2]]", "[[:r 1 2] [:w 1 1]]"),
        "cyclic-versions",
        "read-uncommitted",
        at_once("[[:r 1 3] [:w 1 2]]", "[[:r 1 2] [:w 1 1]]"),
    ),
}


@pytest.mark.parametrize(
    ("check", "case", "type"),
    [(list_append.check, case, type) for type, case in LISTS.items()]
    + [(rw_register.check, case, type) for type, case in REGISTERS.items()],
    ids=[f"list-append {type}" for type in LISTS] + [f"rw-register {type}" for type in REGISTERS],
)
def test_each_anomaly_is_found_and_explained(
    check: Callable[..., Result], case: Case, type: str
) -> None:
    model, bad, types, weakest, good = case
    result = check(bad, [model])
    assert (result.valid, result.anomaly_types) == (False, types.split())
    assert result.not_ == weakest.split()
    assert "T1" in result.explanations[type][0] or type in ("incompatible-order", "cyclic-versions")
    assert result.explanations[type][0].startswith(type)
    assert check(good, [model]).valid is True


def test_a_cycle_is_a_numbered_list_in_plain_words() -> None:
    result = list_append.check(LISTS["G-single-item"][1])
    assert str(result) == (
        "The history is not strict-serializable: it has G-single-item.\n\n"
        "G-single-item: these 2 transactions have no possible order.\n"
        "  T1 is [[:r 1 [1]] [:r 2 nil]] (process 1, index 3, ok)\n"
        "  T2 is [[:append 1 1] [:append 2 1]] (process 0, index 2, ok)\n"
        "  1. T1 comes before T2, since T1 read key 2 as empty, so before T2 appended 1.\n"
        "  2. T2 comes before T1, since T1 read 1 in key 1, which T2 appended.\n"
        "  So T1 would come before itself, which is impossible."
    )


def test_the_order_of_registers_is_explained_by_reads() -> None:
    result = rw_register.check(REGISTERS["G-single-item-realtime"][1])
    assert "since T1 read 1 in key 1, the version that T2 read before it wrote 2." in str(result)
    result = rw_register.check(REGISTERS["G2-item"][1])
    assert "since T2 read key 1 before any write, and T1 wrote it." in str(result)


def test_the_middle_of_a_long_cycle_is_left_out() -> None:
    txns = [f"0 [[:w {key} 1] [:r {key} 1]]" for key in range(100)]
    result = rw_register.check(one_by_one(*txns, "0 [[:r 0 nil]]"))
    assert result.anomaly_types == ["G-single-item-realtime"]
    (cycle,) = result.anomalies["G-single-item-realtime"]
    assert len(cycle[Keyword("steps")]) == 101
    assert str(result).count("\n  ... 61 more ...\n") == 2
    assert "\n  101. T101 comes before T1, since " in str(result)


def test_the_data_of_a_cycle_have_elles_names() -> None:
    found = list_append.check(LISTS["G-single-item"][1]).results()
    (cycle,) = found[Keyword("anomalies")][Keyword("G-single-item")]
    steps = edn.loads(
        "[{:type :rw, :key 2, :value :elle.list-append/init, :value' 1, :a-mop-index 1, "
        ":b-mop-index 1} {:type :wr, :key 1, :value 1, :a-mop-index 0, :b-mop-index 0}]"
    )
    assert cycle[Keyword("steps")] == steps
    assert [op[Keyword("index")] for op in cycle[Keyword("cycle")]] == [3, 2, 3]
    assert edn.loads(edn.dumps(found)) is not None


def test_a_weaker_model_permits_the_anomaly() -> None:
    skew = LISTS["G2-item"][1]
    assert list_append.check(skew, ["snapshot-isolation"]).valid is True
    assert list_append.check(skew, ["PL-3"]).valid is False


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(HistoryError, match=r"there is no consistency model a,b; there are: .*PL-1"):
        list_append.check([], ["a,b"])


def test_transactions_without_any_relation_are_unknown_for_lists_and_false_for_registers() -> None:
    assert list_append.check(at_once("[[:append 1 1]]")).valid is UNKNOWN
    assert rw_register.check(at_once("[[:w 1 1]]")).valid is False
    assert rw_register.check([]).anomaly_types == ["empty-transaction-graph"]


def test_a_valid_register_history_has_maelstroms_form() -> None:
    result = rw_register.check(at_once("[[:w 1 1]]", "[[:r 1 1]]"))
    assert edn.dumps(rw_register.results(result)) == (
        "{:valid? true, :anomaly-types [], :anomalies nil}"
    )


def test_an_element_that_nobody_appended_is_unknown_with_a_reason() -> None:
    result = list_append.check(at_once("[[:append 1 1]]", "[[:r 1 [1 9]]]"))
    assert result.valid is UNKNOWN
    assert "key 1 shows 9, which no transaction appended" in result.why
    assert rw_register.check(at_once("[[:w 1 1]]", "[[:r 1 9]]", "[[:r 1 1]]")).valid is True


def test_an_element_that_nobody_appended_is_a_warning_beside_an_anomaly() -> None:
    result = list_append.check(at_once("[[:append 1 1]]", '[[:append 1 2] [:r 1 ["2"]]]'))
    assert result.valid is False
    assert result.warnings[0].startswith(
        'A read of key 1 shows "2", which no transaction appended: it was the integer 2, and has '
        "become a string. So"
    )


def test_reads_of_an_unknown_transaction_are_unknown() -> None:
    missed = "[[:r 1 nil] [:append 2 2]]"
    others = ("[[:append 1 1] [:append 2 1]]", "[[:r 2 [1 2]]]")
    assert list_append.check(at_once(missed, *others)).anomaly_types == ["G-single-item"]
    assert list_append.check(at_once(f"info {missed}", *others)).valid is True


def test_after_a_read_the_whole_list_is_known() -> None:
    appends = ("[[:append 1 1]]", "[[:append 1 2]]")
    for reads, wrong in (
        ("[[:r 1 [1]] [:r 1 [2 1]]]", True),
        ("[[:r 1 []] [:r 1 [1]]]", True),
        ("[[:r 1 nil] [:r 1 [1]]]", False),  # nil may mean that nothing is known
        ("[[:r 1 nil] [:append 1 3] [:r 1 [1 3]]]", True),
    ):
        types = list_append.check(at_once(*appends, reads)).anomaly_types
        assert ("internal" in types) is wrong, reads


def test_cyclic_versions_of_a_key_discard_the_order_of_all_keys() -> None:
    stale = ("0 [[:w 2 1]]", "1 [[:r 2 1] [:w 2 2]]", "2 [[:r 2 1]]")
    cyclic = ("3 [[:r 1 1] [:w 1 2]]", "4 [[:r 1 2] [:w 1 1]]")
    types = rw_register.check(one_by_one(*stale, *cyclic)).anomaly_types
    assert "cyclic-versions" in types
    assert "G-single-item-realtime" not in types
    assert "G-single-item-realtime" in rw_register.check(one_by_one(*stale)).anomaly_types


def test_a_register_transaction_that_reads_its_own_later_write_has_an_edge() -> None:
    assert rw_register.check(at_once("[[:r 1 1] [:w 1 1]]")).valid is True  # the graph is not empty
    result = rw_register.check(
        at_once("[[:r 1 1] [:w 1 1] [:r 2 nil]]", "[[:w 2 1] [:r 1 1]]", "[[:r 1 nil] [:r 2 1]]"),
        ["read-committed"],
    )
    assert result.anomaly_types == ["G1c"]
    assert "T1 read 1 in key 1 before it wrote this value" in str(result)


def test_time_relates_a_transaction_to_a_failed_one() -> None:
    history = events(
        "0 invoke [[:append 1 1]]", "0 ok [[:append 1 1]]", "1 invoke [[:r 1 nil]]", "1 fail nil"
    )
    assert list_append.check(history).valid is True
    assert list_append.check(history, ["serializable"]).valid is UNKNOWN


def test_a_type_that_another_one_implies_is_not_reported() -> None:
    both = ("0 [[:append 1 1] [:append 2 1]]", "1 [[:r 1 [1]] [:r 2 nil]]")
    stale = "2 [[:r 2 nil]]"
    assert list_append.check(one_by_one(*both, stale)).anomaly_types == ["G-single-item"]
    assert list_append.check(one_by_one(both[0], stale)).anomaly_types == ["G-single-item-realtime"]


def test_an_edge_with_two_reasons_is_named_after_the_first() -> None:
    # T1 comes before T2 for two reasons: T2 appended after T1's append, and after T1's read.
    result = list_append.check(
        at_once(
            "[[:append 1 1] [:r 1 [1]] [:r 2 [1]]]",
            "[[:append 1 2] [:append 2 1]]",
            "[[:r 1 [1 2]]]",
        )
    )
    assert result.anomaly_types == ["G1c"]
    assert len(result.anomalies["G1c"]) == 1


def test_an_open_transaction_that_was_seen_counts() -> None:
    lines = ("0 invoke [[:append 1 1]]", "1 invoke [[:r 1 nil]]", "1 ok [[:r 1 [1]]]")
    later = ("2 invoke [[:r 1 nil]]", "2 ok [[:r 1 nil]]")
    assert list_append.check(events(*lines)).valid is True
    assert list_append.check(events(*lines, *later)).anomaly_types == ["G-single-item-realtime"]
    again = ("0 invoke [[:append 1 1]]", "0 invoke [[:r 1 nil]]", "0 ok [[:r 1 [1]]]")
    assert list_append.check(events(*again)).valid is True


@pytest.mark.parametrize(
    ("check", "history", "reason"),
    [
        (list_append.check, ["[[:append 1 1]]", "[[:append 1 1]]"], "1 is appended to key 1 more"),
        (list_append.check, ["[[:r 1 5]]"], "the read [:r 1 5] at index 0 is not a list"),
        (list_append.check, ["[[:w 1 5]]"], "known are :r and :append"),
        (list_append.check, ["5"], "the value at index 0 is not a transaction: 5"),
        (rw_register.check, ["[[:w 1 1]]", '[[:w "1" 1]]'], 'several types, such as 1 and "1"'),
        (rw_register.check, ["[[:w 1 1]]", "[[:w 1 1]]", "[[:r 1 1]]"], "2 transactions wrote 1"),
    ],
)
def test_a_history_that_cannot_be_judged_is_unknown_with_a_reason(
    check: Callable[..., Result], history: list[str], reason: str
) -> None:
    texts = [text if text[0] == "[" else f"ok {text}" for text in history]
    result = check(at_once(*texts))
    assert result.valid is UNKNOWN
    assert reason in result.why


def test_values_of_different_types_differ() -> None:
    assert rw_register.check(at_once("[[:w 1 true]]", "[[:w 1 1]]", "[[:r 1 true]]")).valid is True
    internal = at_once("[[:w 1 1] [:r 1 1.0]]", "[[:r 1 1]]")
    assert rw_register.check(internal).anomaly_types == ["internal"]


def test_a_search_beyond_its_budget_says_so() -> None:
    result = list_append.check(simulated(200, "append", split=True), budget=10)
    assert result.valid is False  # other anomalies were found
    assert "ended with its budget" in result.explanations["cycle-search-timeout"][0]


def test_a_search_beyond_its_budget_is_unknown_if_nothing_forbidden_was_found() -> None:
    skew = LISTS["G2-item"][1]  # which snapshot isolation permits
    assert list_append.check(skew, ["snapshot-isolation"]).valid is True
    result = list_append.check(skew, ["snapshot-isolation"], budget=0)
    assert (result.valid, result.anomaly_types) == (UNKNOWN, ["cycle-search-timeout"])
    assert "ended with its budget" in result.why and not result.warnings
    assert list_append.check(skew, ["repeatable-read"], budget=0).valid is False  # a cycle exists


def test_registers_are_valid_if_only_the_budget_ended_as_in_maelstrom() -> None:
    skew = REGISTERS["G2-item"][1]
    result = rw_register.check(skew, ["snapshot-isolation"], budget=0)
    assert (result.valid, result.anomaly_types, result.explanations) == (True, [], {})
    assert "ended with its budget" in result.warnings[0]
    assert rw_register.results(result)[Keyword("anomalies")] is None
    result = rw_register.check(skew, ["repeatable-read"], budget=0)
    assert result.valid is False and result.warnings
    assert "cycle-search-timeout" not in result.anomaly_types
    assert [*result.explanations] == [*result.anomalies] == result.anomaly_types


def simulated(count: int, write: str, split: bool = False, seed: int = 0) -> list[Op]:
    """A history of a store that executes transactions when they end.

    With `split`, it is two stores, and each process uses one of them.
    """
    chance = random.Random(seed)
    stores: list[dict[int, Any]] = [{}, {}]
    written: dict[int, int] = {}
    keys = list(range(10))
    running: dict[int, list[Any]] = {}
    ops: list[Op] = []
    begun = 0
    while begun < count or running:
        process = chance.randrange(10)
        if process not in running:
            if begun == count:
                continue
            begun += 1
            mops = []
            for _ in range(chance.randint(1, 4)):
                place = chance.randrange(10)
                if chance.random() < 0.5:
                    mops.append([Keyword("r"), keys[place], None])
                    continue
                if written.get(keys[place], 0) == 16:
                    keys[place] = max(keys) + 1
                key = keys[place]
                written[key] = written.get(key, 0) + 1
                mops.append([Keyword(write), key, written[key]])
            running[process] = mops
            ops.append(Op(process, "invoke", "txn", mops, len(ops), len(ops)))
            continue
        store = stores[process % 2 if split else 0]
        done = []
        for f, key, value in running.pop(process):
            if f is Keyword("r"):
                value = store.get(key)
            elif write == "append":
                store[key] = [*store.get(key, []), value]
            else:
                store[key] = value
            done.append([f, key, value])
        ops.append(Op(process, "ok", "txn", done, len(ops), len(ops)))
    return ops


@pytest.mark.parametrize("seed", range(20))
def test_a_serial_store_is_valid_and_a_split_one_is_not(seed: int) -> None:
    for check, write in ((list_append.check, "append"), (rw_register.check, "w")):
        assert check(simulated(60, write, seed=seed)).valid is True
        assert check(simulated(60, write, split=True, seed=seed)).valid is False


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("write", ["append", "w"])
def test_ten_thousand_transactions_take_less_than_ten_seconds(write: str, split: bool) -> None:
    history = simulated(10_000, write, split)
    begin = time.process_time()
    result = (list_append.check if write == "append" else rw_register.check)(history)
    assert time.process_time() - begin < 10
    assert result.valid is not split


# The search against brute force


def random_graph(chance: random.Random) -> Out:
    size = chance.randint(2, 6)
    graph: Out = {vertex: {} for vertex in range(size)}
    for _ in range(chance.randint(1, 12)):
        before, after = chance.sample(range(size), 2)
        reason = chance.choice([WW, WR, RW, RW, PROCESS, REALTIME])
        graph[before][after] = graph[before].get(after, 0) | reason
    return graph


def simple_cycles(graph: Out) -> Iterator[list[int]]:
    for length in range(2, len(graph) + 1):
        for cycle in itertools.permutations(graph, length):
            following = (*cycle[1:], cycle[0])
            if all(b in graph[a] for a, b in zip(cycle, following, strict=True)):
                yield list(cycle)


def fits(graph: Out, cycle: list[int], shape: Shape) -> bool:
    """True if each edge can be given one of its reasons so that the cycle has the shape."""
    edges = [graph[a][b] for a, b in zip(cycle, [*cycle[1:], cycle[0]], strict=True)]
    base = shape.type.removesuffix("-process").removesuffix("-realtime")
    extra = PROCESS if "-process" in shape.type else REALTIME if "-realtime" in shape.type else 0
    allowed = {"G0": WW, "G1c": WW | WR}.get(base, WW | WR | RW) | extra
    kinds = [[bit for bit in (WW, WR, RW, extra) if bit and edge & allowed & bit] for edge in edges]
    for reasons in itertools.product(*kinds):
        rw = reasons.count(RW)
        adjacent = (RW, RW) in zip(reasons, [*reasons[1:], reasons[0]], strict=True)
        wanted = {
            "G0": True,
            "G1c": WR in reasons,
            "G-single-item": rw == 1,
            "G-nonadjacent-item": rw > 1 and not adjacent,
            "G2-item": rw > 1,
        }[base]
        if wanted and (not extra or extra in reasons):
            return True
    return False


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("all_paths", [20_000, 0])
def test_the_search_finds_a_cycle_of_a_type_if_there_is_one(
    seed: int, all_paths: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.checkers.cycles.ALL_PATHS", all_paths)
    graph = random_graph(random.Random(seed))
    cycles = list(simple_cycles(graph))
    for shape in SHAPES:
        found = find_cycle(graph, shape, Budget(1_000_000))
        if found is None:
            assert not any(fits(graph, cycle, shape) for cycle in cycles), shape.type
        else:
            assert fits(graph, found, shape), (shape.type, found)


def test_a_cycle_visits_no_transaction_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.checkers.cycles.ALL_PATHS", 0)
    detour: Out = {0: {1: RW}, 1: {0: WW, 2: REALTIME}, 2: {1: WW}}
    longer: Out = {1: {0: WW, 2: REALTIME, 3: REALTIME}, 3: {4: WW}, 4: {5: WW}, 5: {0: WW}}
    shape = next(shape for shape in SHAPES if shape.type == "G-single-item-realtime")
    assert find_cycle(detour, shape, Budget(1000)) is None
    assert find_cycle(detour | longer, shape, Budget(1000)) == [0, 1, 3, 4, 5]


@pytest.mark.parametrize("seed", range(60))
def test_components_are_the_vertices_that_reach_each_other(seed: int) -> None:
    graph = random_graph(random.Random(seed))
    reach = {vertex: {vertex} for vertex in graph}
    for _ in graph:
        for vertex in graph:
            reach[vertex] |= {end for after in graph[vertex] for end in reach[after]}
    expected = {frozenset(w for w in reach[v] if v in reach[w]) for v in graph}
    assert set(map(frozenset, components(graph, lambda vertex: graph[vertex]))) == expected
    cyclic = {frozenset(part) for part in cyclic_parts(graph, ANY)}
    assert cyclic == {component for component in expected if len(component) > 1}


def test_a_long_path_does_not_exhaust_the_stack() -> None:
    length = 50_000
    ring: Out = {vertex: {(vertex + 1) % length: WW} for vertex in range(length)}
    assert [len(part) for part in cyclic_parts(ring, WW)] == [length]


def test_the_edges_of_a_cycle_decide_its_type() -> None:
    assert type_of([WW, WW]) == "G0"
    assert type_of([WW, WR, PROCESS]) == "G1c-process"
    assert type_of([RW, WW]) == "G-single-item"
    assert type_of([RW, WW, RW, REALTIME]) == "G-nonadjacent-item-realtime"
    assert type_of([RW, WW, RW]) == "G2-item"  # the last rw edge is followed by the first


def test_vertices_are_searched_in_the_order_of_elles_hash_maps() -> None:
    assert in_hash_order(range(8)) == [0, 6, 5, 1, 2, 4, 7, 3]
    assert sorted(in_hash_order(range(3000))) == list(range(3000))


def test_models_form_an_order_without_cycles() -> None:
    assert all(model not in consistency.weaker(model) for model in consistency.MODELS)
    assert consistency.forbidden(["strict-serializable"]) >= {shape.type for shape in SHAPES}
    assert consistency.implied("G0-process") == {
        "G0-process", "G1c-process", "G0-realtime", "G1c-realtime"
    }  # fmt: skip


# The verdicts of the real checker


def recorded(folder: Path) -> dict[tuple[str, str], Recorded]:
    """Returns the histories of a folder by the columns `file` and `line` of the verdicts."""
    return {
        (path.name, "" if one.line is None else str(one.line)): one
        for path in folder.glob("*.edn*")
        for one in histories(path)
    }


@pytest.mark.parametrize("workload", CHECKS)
def test_verdicts_are_those_of_the_real_checker(workload: str) -> None:
    folder = WORKLOADS / workload
    if not folder.is_dir():
        pytest.skip("the recorded verdicts are not here")
    with open(folder / "verdicts.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    given = recorded(folder)
    different = []
    compared = 0
    for (name, line), group in itertools.groupby(rows, lambda row: (row["file"], row["line"])):
        history = given[name, line].ops()
        for row in group:
            result = CHECKS[workload](history, [row["model"]])
            if row["error"]:  # the real checker crashed
                assert result.valid in (True, False) or result.why
                continue
            compared += 1
            ours = [edn.dumps(result.valid).lstrip(":"), result.anomaly_types, result.not_]
            real = [row["valid"], row["anomalies"].split(), sorted(row["not"].split())]
            if "cycle-search-timeout" in row["anomalies"]:  # its types depend on the machine
                del ours[1:], real[1:]
            if ours != real:
                different.append((name, line, row["model"], ours, real))
    assert not different
    assert compared > 2500
