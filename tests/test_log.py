"""Log: the sequence of entries that all nodes agree on (sections 5.3 and 7)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

import raft
from raft import Entry, Log, Operation


def log(*terms: int) -> Log:
    """A log with entries of these terms, from index 1 on; all of them are stable."""
    filled = Log(entries=map(Entry, terms))
    filled.mark_stable()
    return filled


def terms(log: Log) -> list[int]:
    """The terms of the sentinel and of all entries."""
    return [log[index].term for index in range(log.start, log.size + 1)]


def test_an_empty_log_has_a_sentinel_of_term_0() -> None:
    assert (Log().size, Log().last, Log()[0]) == (0, Entry(0), Entry(0))


def test_indexes_begin_at_1_and_append_adds_at_the_end() -> None:
    filled = log(1, 1)
    filled.append([Entry(3)])
    assert (filled.size, filled[3], filled.last) == (3, Entry(3), Entry(3))
    assert filled.from_index(2, 4) == [Entry(1), Entry(3)]
    assert filled.from_index(2, 3) == [Entry(1)] and filled.from_index(4, 4) == []


def test_an_entry_without_operations_names_no_member() -> None:
    assert Entry(1).members == {}
    assert Entry(1, operations=[["n0", 5, {}], ["n1", 6, {}]]).members == {"n0": 5, "n1": 6}


def test_5_3_truncate_removes_an_entry_in_conflict_and_all_that_follow() -> None:
    cut = log(1, 1, 2, 2)
    cut.truncate(2)
    assert (terms(cut), cut.size) == ([0, 1, 1], 2)
    cut.append([Entry(3)])
    assert terms(cut) == [0, 1, 1, 3]


def test_an_entry_is_stable_only_once_it_is_marked() -> None:
    grown = log(1, 1, 1)
    grown.append([Entry(1)])
    assert (grown.stable, grown.size) == (3, 4)
    grown.mark_stable()
    assert grown.stable == 4


def test_an_entry_in_the_place_of_a_stable_one_is_not_stable() -> None:
    cut = log(1, 1, 1)
    cut.truncate(1)
    cut.append([Entry(2), Entry(2)])
    assert (cut.stable, cut.size) == (1, 3)


def test_truncate_leaves_unstable_entries_unstable() -> None:
    grown = log(1)
    grown.append([Entry(1), Entry(1)])
    grown.truncate(2)
    assert (grown.stable, grown.size) == (1, 2)


def test_7_compact_forgets_the_entries_up_to_an_index_and_keeps_its_term() -> None:
    cut = log(1, 2, 3, 3)
    cut.compact(2, 2)
    assert (cut.start, cut.size, cut.stable, terms(cut)) == (2, 4, 4, [2, 3, 3])
    assert cut.from_index(3, 5) == [Entry(3), Entry(3)]
    cut.compact(4, 3)
    assert (cut.start, cut.size, terms(cut)) == (4, 4, [3])


def test_7_compact_forgets_all_entries_of_a_log_with_another_entry_there() -> None:
    for index, term in ((2, 5), (9, 5)):
        other = log(1, 2, 3, 3)
        other.compact(index, term)
        assert (other.start, other.size, other.stable) == (index, index, index)
        assert terms(other) == [5] and other.bytes_between(0, index) == 0


def test_7_compact_takes_unstable_entries_for_stable_since_a_snapshot_has_them() -> None:
    grown = log(1)
    grown.append([Entry(1), Entry(1)])
    grown.compact(2, 1)
    assert (grown.stable, grown.size) == (2, 3)


def test_a_log_may_begin_after_forgotten_entries() -> None:
    rest = Log(7, 3, [Entry(4)])
    assert (rest.start, rest.stable, rest.size, terms(rest)) == (7, 7, 8, [3, 4])


def test_each_entry_is_weighed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    weighed: list[int] = []
    log = Log()

    def weight(operations: Sequence[Operation]) -> int:
        ((_, size, _),) = operations
        weighed.append(size)
        return int(size)

    monkeypatch.setattr(raft, "weight", weight)

    def append(*sizes: int) -> None:
        log.append(Entry(1, operations=[["c1", size, {}]]) for size in sizes)

    append(1, 20, 300)
    assert log.bytes_between(1, 3) == 320
    log.compact(2, 1)
    append(4000)
    assert log.bytes_between(2, 4) == 4300 and weighed == [1, 20, 300, 4000]
    log.truncate(3)
    append(50000)
    assert log.bytes_between(3, 4) == 50000 and log.bytes_between(2, 4) == 50300
    log.compact(3, 2)  # another leader's log: all entries are forgotten
    append(6, 70)
    assert log.bytes_between(3, 5) == 76 and log.bytes_between(4, 5) == 70
    assert log.bytes_between(1, 5) == 76  # forgotten entries weigh nothing


def test_the_weight_of_an_entry_counts_its_operations_and_their_strings() -> None:
    small = [["c1", 1, {"type": "write", "key": 1, "value": 2}]]
    large = [["c1", 1, {"type": "write", "key": 1, "value": "x" * 1000}]]
    listed = [["c1", 1, {"type": "write", "key": 1, "value": [1, 2, 3]}]]
    assert raft.weight([]) == raft.OPERATION_BYTES
    assert raft.weight(small) == 2 * raft.OPERATION_BYTES + len("write")
    assert raft.weight(large) - raft.weight(small) == 1000
    assert raft.weight(listed) - raft.weight(small) == len("[1,2,3]")
