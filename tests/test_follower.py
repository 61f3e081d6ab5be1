"""Follower: a leader's view of one follower, and its decisions what to send (section 5.3)."""

from __future__ import annotations

import math
from typing import Any

import pytest

import raft
from raft import Entry, Follower, Log, PersistentMap, Snapshot, Times

TIMEOUT = 0.3
NEAR, FAR = 0.002, 0.1  # round trips, in seconds
WEIGHT = 1000  # of an entry with one empty operation, in bytes
KNOWN = 7  # incarnation


def follower(next_index: int = 1, **fields: Any) -> Follower:
    return Follower(KNOWN, next_index, heard_of=0.0, progress_at=0.0, **fields)


def log(count: int, size: int = 0) -> Log:
    """A log with this number of entries, each with a value of `size` characters."""
    return Log(
        entries=[Entry(1, "n0", n, [["c1", n, {"value": "x" * size}]]) for n in range(count)]
    )


def network(rtt: float = 0.0) -> Times:
    times = Times(2)
    times.follow(rtt, TIMEOUT)
    return times


def sends(
    one: Follower, log: Log, now: float = 0.0, rtt: float = 0.0, is_needed: bool = True
) -> list[int]:
    """The indexes of the entries that the leader sends to this follower now."""
    last = one.last_to_send(log, now, now, network(rtt), is_needed)
    indexes = [*range(one.next_index, last + 1)]
    one.note_entries(len(indexes), now, now)
    return indexes


# Progress


def test_entries_are_sent_ahead_of_their_acknowledgements() -> None:
    one, entries = follower(), log(2)
    assert sends(one, entries) == [1, 2] and sends(one, entries) == []
    entries.append([Entry(1)])
    assert sends(one, entries) == [3] and one.match_index == 0


def test_an_acknowledgement_that_was_overtaken_moves_nothing_back() -> None:
    one = follower(next_index=9)
    one.acknowledged(5, now=1.0)
    one.acknowledged(3, now=2.0)
    assert (one.match_index, one.next_index, one.progress_at) == (5, 9, 1.0)


def test_an_acknowledgement_of_entries_that_are_not_in_flight_skips_them() -> None:
    one = follower(next_index=2)
    one.acknowledged(5, now=1.0)
    assert (one.match_index, one.next_index) == (5, 6)


def test_resend_sends_all_entries_in_flight_again_and_no_others() -> None:
    one, entries = follower(), log(5)
    sends(one, entries)
    one.acknowledged(2, now=0.0)
    one.resend()
    assert sends(one, entries) == [3, 4, 5]


def test_a_step_back_goes_to_the_hint_and_not_by_one() -> None:
    one, entries = follower(next_index=11), log(10)
    one.step_back(3, sent=1.0, stamp=2.0)
    assert sends(one, entries) == [4, 5, 6, 7, 8, 9, 10]


def test_a_step_back_never_goes_behind_the_match() -> None:
    one, entries = follower(next_index=11, match_index=8), log(10)
    one.step_back(3, sent=1.0, stamp=2.0)
    assert sends(one, entries) == [9, 10]


def test_answers_to_messages_from_before_a_step_back_do_not_repeat_it() -> None:
    one = follower(next_index=11)
    one.step_back(3, sent=1.0, stamp=2.0)
    one.step_back(2, sent=2.0, stamp=3.0)
    assert one.next_index == 4
    one.step_back(2, sent=2.1, stamp=3.0)
    assert one.next_index == 3


def test_entries_in_flight_are_overdue_without_progress() -> None:
    one = follower()
    assert not one.is_overdue(9.0, limit=0.5), "nothing is in flight"
    one.note_entries(2, stamp=9.0, now=9.0)
    assert not one.is_overdue(9.5, limit=0.5) and one.is_overdue(9.6, limit=0.5)
    one.acknowledged(1, now=9.6)
    assert not one.is_overdue(10.0, limit=0.5) and one.is_overdue(10.2, limit=0.5)
    one.acknowledged(2, now=10.2)
    assert not one.is_overdue(99.0, limit=0.5)


def test_more_entries_in_flight_do_not_hide_an_overdue_one() -> None:
    one, entries = follower(), log(1)
    sends(one, entries, now=0.1)
    entries.append([Entry(1)])
    sends(one, entries, now=0.2)
    assert one.is_overdue(0.65, limit=0.5)


# Limits: silence, bytes in flight, bytes of a message


def test_a_silent_follower_gets_no_entries_until_it_answers() -> None:
    one, entries = follower(), log(3)
    assert one.is_silent(TIMEOUT, TIMEOUT) and not one.is_silent(TIMEOUT - 0.01, TIMEOUT)
    assert sends(one, entries, now=TIMEOUT) == []
    one.answered(TIMEOUT, sent=0.0, promised=0.0)
    assert sends(one, entries, now=TIMEOUT) == [1, 2, 3]


def test_the_bytes_in_flight_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raft, "WINDOW_BYTES", 4 * WEIGHT)
    monkeypatch.setattr(raft, "CHUNK_BYTES", 2 * WEIGHT)
    one, entries = follower(), log(20)
    assert [sends(one, entries) for _ in range(4)] == [[1, 2], [3, 4], [], []]
    one.acknowledged(1, now=0.0)
    assert sends(one, entries) == [5]


@pytest.mark.parametrize("begin", [0, 8])
def test_the_bound_counts_from_where_sending_began_last(
    monkeypatch: pytest.MonkeyPatch, begin: int
) -> None:
    """An earlier leader sent the entries before, so they are not in flight."""
    monkeypatch.setattr(raft, "WINDOW_BYTES", 2 * WEIGHT)
    one, entries = follower(next_index=21, base=20), log(21)
    assert sends(one, entries) == [21]
    one.step_back(begin, sent=1.0, stamp=2.0)
    assert sends(one, entries) == [begin + 1, begin + 2] and sends(one, entries) == []


def test_a_message_is_bounded_in_bytes() -> None:
    one, entries = follower(), log(60, size=raft.CHUNK_BYTES // 3)
    sizes = [len(sends(one, entries)) for _ in range(60)]
    assert max(sizes) == 2
    weight = entries.bytes_between(0, sum(sizes))
    assert raft.WINDOW_BYTES <= weight < raft.WINDOW_BYTES + raft.CHUNK_BYTES


def test_an_entry_larger_than_a_message_is_sent_alone() -> None:
    one, entries = follower(), log(3, size=2 * raft.CHUNK_BYTES)
    assert [sends(one, entries) for _ in range(3)] == [[1], [2], [3]]


# A near network: appends wait for each other


def test_on_a_near_network_an_append_waits_for_the_answer_to_the_last_one() -> None:
    one, entries = follower(), log(1)
    assert sends(one, entries, now=0.1, rtt=NEAR) == [1], "the first one waits for nothing"
    entries.append([Entry(1), Entry(1)])
    assert sends(one, entries, now=0.1, rtt=NEAR) == []
    one.acknowledged(1, now=0.1005)
    assert sends(one, entries, now=0.1005, rtt=NEAR) == [2, 3]


def test_on_a_near_network_it_waits_for_half_a_round_trip_and_no_longer() -> None:
    """The answer may be lost."""
    one, entries = follower(), log(1)
    sends(one, entries, now=0.1, rtt=NEAR)
    entries.append([Entry(1)])
    assert sends(one, entries, now=0.1 + 0.45 * NEAR, rtt=NEAR) == []
    assert sends(one, entries, now=0.1 + 0.55 * NEAR, rtt=NEAR) == [2]


def test_on_a_near_network_a_follower_not_needed_to_commit_gets_several_writes_at_once() -> None:
    one, entries = follower(match_index=1, next_index=2, entries_stamp=0.1), log(3)
    assert sends(one, entries, now=0.1 + 7 * NEAR, rtt=NEAR, is_needed=False) == []
    assert sends(one, entries, now=0.1 + 9 * NEAR, rtt=NEAR, is_needed=False) == [2, 3]


def test_on_a_near_network_heartbeats_do_not_make_entries_wait_longer() -> None:
    one, entries = follower(), log(1)
    sends(one, entries, now=0.1, rtt=NEAR)
    one.note_entries(0, stamp=0.1 + NEAR, now=0.1 + NEAR)
    entries.append([Entry(1)])
    assert sends(one, entries, now=0.1 + 1.1 * NEAR, rtt=NEAR) == [2]


@pytest.mark.parametrize("is_needed", [True, False])
def test_on_a_far_network_no_entry_waits(is_needed: bool) -> None:
    one, entries = follower(), log(1)
    sends(one, entries, now=0.1, rtt=FAR)
    entries.append([Entry(1)])
    assert sends(one, entries, now=0.1001, rtt=FAR, is_needed=is_needed) == [2]


# Answers


def test_a_message_that_leaves_tells_of_finished_batches_once() -> None:
    one = follower(finished=[5, 6])
    assert one.note_message(1.0) == [5, 6] and one.stamp == 1.0
    assert one.note_message(2.0) == [] and one.stamp == 2.0


def test_an_answer_that_was_overtaken_takes_back_no_promise() -> None:
    one = follower()
    one.answered(5.0, sent=4.0, promised=4.9)
    one.answered(6.0, sent=3.0, promised=3.9)
    assert (one.heard_of, one.acked, one.promised) == (6.0, 4.0, 4.9)


def test_a_follower_that_lacks_an_acknowledged_entry_has_lost_it() -> None:
    one = follower(next_index=6, match_index=5)
    one.note_entries(0, stamp=1.0, now=1.0)  # after entry 5
    one.note_message(1.0)
    assert one.has_lost(4, sent=1.0)
    assert not one.has_lost(5, sent=1.0)
    assert not one.has_lost(4, sent=0.9), "an old answer"


def test_a_follower_that_lacks_entries_in_flight_has_lost_nothing() -> None:
    one = follower(next_index=8, match_index=5)
    one.note_entries(0, stamp=1.0, now=1.0)  # after entry 7, which it has not acknowledged
    one.note_message(1.0)
    assert not one.has_lost(5, sent=1.0)


def test_a_follower_that_was_asked_for_an_earlier_entry_has_lost_nothing() -> None:
    """A node that has started again finds an entry in its log when it is asked for it."""
    one = follower(next_index=4, match_index=5)
    one.note_entries(0, stamp=1.0, now=1.0)  # after entry 3
    one.note_message(1.0)
    assert not one.has_lost(3, sent=1.0) and not one.has_lost(4, sent=1.0)


# Return without memory


def test_of_another_incarnation_nothing_is_known_but_that_it_was_heard() -> None:
    before = follower(
        next_index=9, match_index=8, base=3, acked=5.0, promised=6.0, finished=[1],
        entries_stamp=4.0,
        backed=3.0,
    )  # fmt: skip
    before.heard_of, before.progress_at = 5.0, 4.0
    assert before.restarted(99, lacked=7) == Follower(99, 1, 5.0, 4.0, lacked=7)


def test_a_return_is_appended_once() -> None:
    one = follower().restarted(99, lacked=0)
    assert one.is_back(KNOWN)
    assert one.readmit() == 99
    assert not one.is_back(KNOWN)


def test_no_return_is_appended_of_a_member_or_of_a_follower_not_heard_of() -> None:
    assert not follower().is_back(KNOWN)
    assert not Follower(None, 1, 0.0, 0.0).is_back(KNOWN)


def test_a_return_waits_for_the_entries_that_were_committed_when_it_came() -> None:
    one = follower().restarted(99, lacked=3)
    for match, is_back in ((2, False), (3, True)):
        one.acknowledged(match, now=0.0)
        assert one.is_back(KNOWN) == is_back


# Snapshots (section 7)


@pytest.fixture
def snapshot(monkeypatch: pytest.MonkeyPatch) -> Snapshot:
    """A snapshot up to index 10, of three records; each is a part."""
    monkeypatch.setattr(raft, "CHUNK_BYTES", 500)
    return Snapshot(10, 1, map=PersistentMap((key, key) for key in "abc"))


def answered(one: Follower, sent: float, offset: int, index: int = 10) -> None:
    """An answer says that the follower has this number of records."""
    one.answered(sent, sent, promised=0.0)
    one.note_records(False, index, offset, sent)


def test_7_one_part_is_in_flight_at_a_time(snapshot: Snapshot) -> None:
    one = follower()
    assert one.next_part(1.0, is_silent=False) is None, "there is no snapshot"
    one.begin_snapshot(snapshot)
    assert one.next_part(1.0, is_silent=False) == [("a", "a")]
    assert one.next_part(1.1, is_silent=False) is None
    answered(one, 1.0, offset=1)
    assert one.next_part(1.2, is_silent=False) == [("b", "b")]


def test_7_a_lost_part_is_sent_again_after_the_answer_to_a_later_message(
    snapshot: Snapshot,
) -> None:
    one = follower()
    one.begin_snapshot(snapshot)
    first = one.next_part(1.0, is_silent=False)
    answered(one, 1.5, offset=0)
    assert one.next_part(1.6, is_silent=False) == first


def test_7_an_answer_that_was_overtaken_asks_for_no_part_again(snapshot: Snapshot) -> None:
    one = follower()
    one.begin_snapshot(snapshot)
    answered(one, 2.0, offset=2)
    answered(one, 1.0, offset=1)
    assert one.offset == 2


def test_7_an_answer_about_another_snapshot_says_nothing_of_this_one(snapshot: Snapshot) -> None:
    one = follower()
    one.begin_snapshot(snapshot)
    answered(one, 1.0, offset=2, index=9)
    assert one.offset == 0


def test_7_a_silent_follower_gets_no_part(snapshot: Snapshot) -> None:
    one = follower()
    one.begin_snapshot(snapshot)
    assert one.next_part(1.0, is_silent=True) is None
    assert one.next_part(1.0, is_silent=False) is not None


def test_7_a_snapshot_ends_when_the_follower_needs_entries_only(snapshot: Snapshot) -> None:
    one = follower()
    one.begin_snapshot(snapshot)
    one.note_records(True, 10, 3, sent=1.0)
    assert one.snapshot is None


def test_7_the_next_snapshot_begins_anew(snapshot: Snapshot) -> None:
    one = follower()
    one.begin_snapshot(snapshot)
    one.next_part(1.0, is_silent=False)
    answered(one, 1.0, offset=1)
    one.next_part(2.0, is_silent=False)
    one.begin_snapshot(Snapshot(12, 1, map=snapshot.map))
    assert (one.offset, one.part_stamp) == (0, -math.inf)
    assert one.next_part(2.1, is_silent=False) == [("a", "a")]


def test_7_a_follower_that_is_gone_holds_no_snapshot_and_gets_heartbeats_only(
    snapshot: Snapshot,
) -> None:
    one, entries = follower(), log(20)
    one.begin_snapshot(snapshot)
    one.heartbeats_only(entries.size)
    assert one.snapshot is None and sends(one, entries) == []
