"""Section 7 of the paper: compaction of the log, and snapshots for followers that lag behind."""

from __future__ import annotations

import math
from typing import Any

import pytest
from test_raft import (
    Scene,
    append,
    appended,
    entry,
    follower,
    forward,
    no_op,
    ready_leader,
    write,
)

import node
import raft
from node import Body

ENTRY = raft.weight([["c1", 1, write(1, "k1")]])
KEPT = 4  # entries


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raft, "KEPT_BYTES", KEPT * ENTRY)
    monkeypatch.setattr(raft, "KEPT_ENTRIES", 0)
    monkeypatch.setattr(raft, "CHUNK_BYTES", 1800)  # three records of a snapshot


def leader_without_its_past() -> Scene:
    """n0 and n1 have 20 committed writes, and n0's log begins after 1. n2 has no entry."""
    scene = ready_leader()
    for value in range(20):
        scene.request(write(value, f"k{value % 5}"))
        scene.acks("n1")
    scene.world.until(lambda: scene.raft.log.start > KEPT)
    scene.raft.leading.followers["n2"].resend()
    return scene


def part(
    data: list[Any], index: int = 10, offset: int = 0, size: int = 2, term: int = 1,
    last_term: int = 1,
) -> Body:  # fmt: skip
    """install_snapshot"""
    return {
        "type": "install_snapshot", "term": term, "last_index": index, "last_term": last_term,
        "members": {}, "size": size, "offset": offset, "data": data,
        "sent": 1.0, "timeout": 0.3, "rtt": 0.0, "done": [],
    }  # fmt: skip


def got(index: int, offset: int, sent: float) -> Body:
    """append_entries_res of a follower that has `offset` records of a snapshot"""
    return {**appended(1, 0, sent), "snapshot": index, "offset": offset}


X, Y = ["x", 1], ["y", 2]


def test_7_parts_taken_in_order_give_the_same_snapshot() -> None:
    sessions = [[f"c{n}", n, {"type": "write_ok"}] for n in range(5)]
    whole = raft.Snapshot(9, 1, {}, sessions, raft.PersistentMap((n, str(n)) for n in range(5)))
    copy, parts = raft.Snapshot(9, 1), 0
    while copy.size < whole.size:
        copy.take([list(record) for record in whole.part(copy.size)])
        parts += 1
    assert (copy.sessions, [*copy.map.items()]) == (sessions, [*whole.map.items()])
    assert parts > 1 and not raft.Snapshot().size, "no two snapshots share their records"


def test_7_a_log_does_not_grow_with_the_number_of_operations() -> None:
    scene = ready_leader()
    for value in range(100):
        scene.request(write(value))
        scene.acks("n1", "n2")
        scene.advance(raft.TICK)
        assert scene.raft.log.size - scene.raft.log.start <= 3 * KEPT
    assert scene.raft.log.size == 101 and scene.value == 99


def test_7_what_is_not_applied_stays_in_the_log() -> None:
    scene = ready_leader()
    for value in range(50):
        scene.request(write(value))
    scene.advance(raft.TICK)
    assert scene.raft.log.start == 0


def test_7_what_is_in_no_checkpoint_stays_in_the_log_and_what_is_forgotten_stays_so() -> None:
    scene = ready_leader()
    assert scene.raft.storage
    scene.raft.storage.index = 20
    for value in range(60):
        scene.request(write(value))
        scene.acks("n1", "n2")
        scene.advance(raft.TICK)
    start = scene.raft.log.start
    assert KEPT < start <= 20
    scene.raft.storage.index = -1  # as if a state had come that could not be stored
    scene.advance(10 * raft.TICK)
    assert (scene.raft.log.start, scene.raft.log.size) == (start, 61)


@pytest.mark.parametrize(("least", "kept"), [(0, 5), (20, 21)])
def test_7_large_entries_are_forgotten_earlier_but_for_some_that_a_follower_may_lack(
    least: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raft, "KEPT_BYTES", 10_000)
    monkeypatch.setattr(raft, "KEPT_ENTRIES", least)
    scene = ready_leader()
    for _ in range(50):
        scene.request(write("x" * 1000))
        scene.acks("n1", "n2")
        scene.advance(raft.TICK)
    assert kept - 4 <= scene.raft.log.size - scene.raft.log.start <= kept


def test_7_of_large_records_only_those_are_encoded_that_go_into_a_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoded = 0

    def counted(value: Any) -> str:
        nonlocal encoded
        encoded += len(text := node.encode(value))
        return text

    monkeypatch.setattr(raft, "CHUNK_BYTES", 100_000)
    monkeypatch.setattr(raft, "encode", counted)
    large = raft.PersistentMap((number, "x" * (raft.CHUNK_BYTES // 3)) for number in range(99))
    state = raft.Snapshot(map=large)
    assert len(state.part(0)) == 2 and encoded <= 2 * raft.CHUNK_BYTES
    assert len(state.part(98)) == 1
    too_large = raft.PersistentMap((number, "x" * raft.CHUNK_BYTES) for number in range(3))
    assert [len(raft.Snapshot(map=too_large).part(offset)) for offset in range(4)] == [1, 1, 1, 0]


def test_7_a_part_may_hold_the_last_sessions_and_all_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raft, "CHUNK_BYTES", 100_000)
    sessions = [[f"c{n}", n, {"type": "write_ok"}] for n in range(3)]
    state = raft.Snapshot(sessions=sessions, map=raft.PersistentMap((n, n) for n in range(5)))
    assert state.part(1) == [*sessions[1:], *state.map.items()]
    assert state.part(4) == [*state.map.items(1)] and len(state.part(0)) == state.size


def test_7_a_follower_that_lacks_what_is_forgotten_gets_the_state_part_by_part() -> None:
    scene = leader_without_its_past()
    other = Scene("n2")
    parts, done = 0, Body()
    while done.get("match") != 21:
        parts += 1
        assert parts <= 2, "it goes round in circles"
        other.says("n0", scene.until_sent("install_snapshot", "n2"))
        (done,) = other.sent("append_entries_res", "n0")
        scene.says("n2", done)
    assert done["success"] and done["match"] == scene.raft.last_applied == 21
    assert parts == 2  # a session and 5 items, 3 at a time
    assert other.raft.state_machine.map.get("k4") == 19
    assert (other.raft.log.start, other.raft.log.size, other.raft.commit_index) == (21, 21, 21)
    scene.request(write("new"))
    assert scene.until_sent("append_entries", "n2")["prev_log_index"] == 21
    assert scene.raft.leading.followers["n2"].snapshot is None


@pytest.mark.parametrize(("lacks", "type"), [(1, "install_snapshot"), (0, "append_entries")])
def test_7_it_gets_the_state_if_it_lacks_but_the_last_of_what_is_forgotten(
    lacks: int, type: str
) -> None:
    scene = leader_without_its_past()
    start = scene.raft.log.start
    scene.says("n2", appended(1, start - lacks, scene.raft.leading.stamp, success=False))
    newest = scene.world.inbox[-1]
    assert (newest["dest"], newest["body"]["type"]) == ("n2", type)
    assert newest["body"].get("data") or newest["body"]["prev_log_index"] == start


def test_7_what_comes_after_a_state_under_way_stays_in_the_log() -> None:
    scene = leader_without_its_past()
    state = scene.until_sent("install_snapshot", "n2")
    for value in range(20):
        scene.request(write(value))
        scene.acks("n1")
    scene.advance(10 * raft.TICK)
    assert scene.raft.last_applied == 41 and scene.raft.log.start <= state["last_index"]


def test_7_a_state_that_nobody_needs_any_more_does_not_keep_the_log() -> None:
    scene = leader_without_its_past()
    log, state = scene.raft.log, scene.until_sent("install_snapshot", "n2")
    enough = state["last_index"] - 1
    scene.says("n2", appended(1, enough, scene.raft.leading.stamp))
    for value in range(30):
        scene.request(write(value))
        scene.says("n1", appended(1, log.size, scene.raft.leading.stamp))
        scene.advance(0.5)  # and is gone
    assert log.size - log.start <= 3 * KEPT


def test_7_a_state_that_holds_entries_of_a_later_term_than_its_leader_s_is_refused() -> None:
    scene = Scene("n1")
    scene.says("n0", {**part([], index=5, size=0, term=2, last_term=3), "msg_id": 1})
    assert (scene.answer(1) or {})["code"] == 12 and scene.raft.log.size == 0


def test_7_meanwhile_the_leader_serves_and_its_snapshot_stays_what_it_was() -> None:
    scene = leader_without_its_past()
    first = scene.until_sent("install_snapshot", "n2")
    msg_id = scene.request(write("later", "k4"))
    scene.acks("n1")
    assert scene.answer(msg_id) == {"type": "write_ok"}
    items: list[Any] = []
    body = first
    while body["offset"] + 3 < body["size"]:
        scene.says("n2", got(body["last_index"], body["offset"] + len(body["data"]), body["sent"]))
        (body,) = scene.sent("install_snapshot", "n2")
        items += [record for record in body["data"] if len(record) == 2]
    assert dict(items)["k4"] == 19 and body["last_index"] == first["last_index"]


def test_7_meanwhile_a_follower_that_passes_operations_on_hears_what_is_done() -> None:
    scene = leader_without_its_past()
    scene.until_sent("install_snapshot", "n2")
    scene.says("n2", forward(1, [["c7", 1, write(7, "k7")]], owner="n2"))
    scene.acks("n1")
    assert scene.until_sent("install_snapshot", "n2")["done"] == [1]
    owner = follower()
    msg_id = owner.request(write(7))
    (sent,) = owner.sent("forward", "n0")
    owner.says("n0", {**part([]), "done": [sent["seq"]]})
    assert not owner.raft.clients.pending and owner.answer(msg_id) is None


def test_7_of_a_lost_part_the_next_heartbeat_asks() -> None:
    scene = leader_without_its_past()
    body = scene.until_sent("install_snapshot", "n2")
    assert body["data"]
    heartbeat = scene.until_sent("install_snapshot", "n2")
    assert not heartbeat["data"]
    scene.says("n2", got(body["last_index"], 0, heartbeat["sent"]))
    (again,) = scene.sent("install_snapshot", "n2")
    assert again["data"] == body["data"]


def test_7_a_follower_that_does_not_answer_gets_heartbeats_only() -> None:
    scene = leader_without_its_past()
    scene.until_sent("install_snapshot", "n2")
    scene.raft.leading.followers["n2"].part_stamp = -math.inf
    scene.raft.leading.followers["n2"].heard_of -= 5.0
    scene.advance(0.3)
    heartbeats = scene.sent("install_snapshot", "n2")
    assert heartbeats and not any(body["data"] for body in heartbeats)


@pytest.mark.parametrize("why", ["it is silent", "the window is full"])
def test_7_nor_do_they_hold_entries_when_the_log_begins_later_than_at_1(
    monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    scene = ready_leader()
    while scene.raft.log.start < 2:
        scene.request(write(1))
        scene.acks(*scene.peers)
        scene.advance(raft.TICK)
    follower = scene.raft.leading.followers["n2"]
    follower.match_index = scene.raft.log.start
    follower.go_on_after(follower.match_index)
    if why == "it is silent":
        follower.heard_of -= 5.0
    else:
        monkeypatch.setattr(raft, "WINDOW_BYTES", 0)
    scene.sent("append_entries", "n2")
    scene.advance(0.5)
    heartbeats = scene.sent("append_entries", "n2")
    assert heartbeats and not any(sent["entries"] for sent in heartbeats)


def test_7_for_a_follower_that_is_gone_nothing_is_kept() -> None:
    scene = leader_without_its_past()
    scene.until_sent("install_snapshot", "n2")
    scene.raft.leading.followers["n2"].heard_of -= 10.0
    for value in range(20):
        scene.request(write(value))
        scene.acks("n1")
        scene.advance(raft.TICK)
    assert scene.raft.log.size - scene.raft.log.start <= 3 * KEPT
    assert scene.sent("append_entries", "n2") and not scene.sent("install_snapshot", "n2")
    scene.says("n2", appended(1, 0, scene.raft.leading.stamp))
    assert scene.until_sent("install_snapshot", "n2")["data"]


def test_7_an_answer_to_what_was_sent_before_a_part_does_not_ask_for_it_again() -> None:
    scene = leader_without_its_past()
    body = scene.until_sent("install_snapshot", "n2")
    heartbeat = scene.until_sent("install_snapshot", "n2")
    scene.says("n2", got(body["last_index"], 3, heartbeat["sent"]))
    (following,) = scene.sent("install_snapshot", "n2")
    assert following["offset"] == 3
    scene.says("n2", got(body["last_index"], 0, body["sent"]))
    assert not scene.sent("install_snapshot", "n2")


def test_7_parts_that_come_twice_or_too_early_change_nothing() -> None:
    scene = follower()
    scene.says("n0", part([Y], offset=1))
    assert scene.sent("append_entries_res")[-1]["offset"] == 0
    scene.says("n0", part([X]), part([X]))
    assert scene.sent("append_entries_res")[-1]["offset"] == 1
    assert scene.raft.commit_index == 0 and scene.value is None
    scene.says("n0", part([Y], offset=1))
    assert scene.raft.commit_index == 10 and scene.value == 1


def test_7_of_a_state_that_was_taken_no_second_copy_is_kept() -> None:
    """A copy would hold a version of the map, and thus a record of each later write."""
    scene = follower()
    scene.says("n0", part([X]), part([Y], offset=1))
    answer = scene.sent("append_entries_res", "n0")[-1]
    assert (answer["match"], answer["snapshot"], answer["offset"]) == (10, 0, 0)


def test_7_a_part_of_a_state_is_not_kept_when_entries_have_come_instead() -> None:
    scene = Scene("n1")
    scene.says("n0", part([X], index=2))
    scene.says("n0", append(1, entries=[entry(1, write(1)), entry(1, write(2))], commit=1))
    scene.advance(raft.TICK)
    assert scene.raft.following.incoming.size == 1, "it may still be quicker"
    scene.says("n0", append(1, prev=(2, 1), commit=2))
    scene.advance(raft.TICK)
    assert scene.raft.following.incoming.size == 0


def test_7_the_entries_after_the_last_included_one_are_kept() -> None:
    scene = follower(entries=[entry(1, n) for n in range(12)])
    scene.says("n0", part([X, Y]))
    assert (scene.raft.log.start, scene.raft.log.size) == (10, 12)
    assert scene.sent("append_entries_res", "n0")[-1]["match"] == 12


def test_7_of_an_append_that_begins_before_a_state_the_rest_is_taken() -> None:
    scene = follower(entries=[entry(1, n) for n in range(1, 13)])
    scene.says("n0", part([X, Y]))
    late = append(1, (5, 1), [entry(1, n) for n in range(6, 15)], commit=14)
    scene.says("n0", late)
    assert (scene.raft.log.start, scene.raft.log.size, scene.value) == (10, 14, 14)


def test_7_a_log_that_has_another_entry_there_is_discarded() -> None:
    scene = follower(entries=[entry(1, n) for n in range(12)])
    scene.says("n2", part([X, Y], term=3, last_term=2))
    assert (scene.raft.log.start, scene.raft.log.size, scene.raft.log.last.term) == (10, 10, 2)


def test_7_a_snapshot_may_take_longer_than_an_election_timeout() -> None:
    scene = follower()
    for offset in range(8):
        scene.says("n0", part([[f"k{offset}", 1]], offset=offset, size=8))
        scene.advance(0.2)
    assert scene.raft.following.leader == "n0" and scene.raft.commit_index == 10


def test_7_a_newer_snapshot_replaces_the_one_under_way_and_an_older_one_does_not() -> None:
    scene = follower()
    scene.says("n0", part([X], index=10))
    scene.says("n0", part([["x", 7]], index=12))
    scene.says("n0", part([Y], index=10, offset=1), part([], index=10, offset=1, size=1))
    assert scene.raft.commit_index == 0
    scene.says("n0", part([Y], index=12, offset=1))
    assert scene.raft.commit_index == 12 and scene.value == 7


def test_7_another_leaders_snapshot_begins_anew() -> None:
    scene = follower()
    scene.says("n0", part([X], index=10))
    scene.says("n2", part([Y], index=10, offset=1, term=2))
    assert scene.raft.commit_index == 0
    assert scene.sent("append_entries_res", "n2")[-1]["offset"] == 0


def test_7_a_node_never_goes_back() -> None:
    scene = follower(entries=[no_op(1), entry(1, 2)], commit=2)
    scene.sent("append_entries_res")
    scene.says("n0", part([["x", "old"]], index=1, size=1))
    assert scene.value == 2 and scene.raft.commit_index == 2
    assert scene.sent("append_entries_res")[-1]["match"] == 2


def test_7_a_leader_of_an_earlier_term_is_refused() -> None:
    scene = follower(term=3)
    scene.sent("append_entries_res")
    scene.says("n0", part([X, Y], term=2))
    assert scene.raft.commit_index == 0
    (refusal,) = scene.sent("append_entries_res")
    assert not refusal["success"] and refusal["term"] == 3


def test_7_the_sessions_are_in_it_so_that_nothing_takes_effect_twice() -> None:
    scene = follower()
    scene.says("n0", part([["c1", 1, {"type": "write_ok"}], X], index=1))
    again = entry(1, write("twice"), 1, "c1")
    scene.says("n0", append(1, (1, 1), [again], commit=2))
    assert scene.raft.last_applied == 2 and scene.value == 1


def test_7_an_answer_that_comes_from_a_follower_of_old_moves_nothing() -> None:
    scene = leader_without_its_past()
    body = scene.until_sent("install_snapshot", "n2")
    scene.says("n2", got(body["last_index"] - 1, 5, body["sent"]))
    assert scene.raft.leading.followers["n2"].offset == 0
    scene.says("n2", appended(1, body["last_index"], body["sent"]))
    assert scene.raft.leading.followers["n2"].snapshot is None
