"""Store: transactions on a map, by `apply`, as they are replicated, and as the clients see them."""

from __future__ import annotations

from typing import Any

import pytest
from in_process import World

from node import Body
from raft import MAX_NESTING, Map, Raft, Sessions, Store, only_reads


def txn(*micro_operations: list[Any]) -> Body:
    return {"type": "txn", "txn": list(micro_operations)}


def r(key: Any) -> list[Any]:
    return ["r", key, None]


def w(key: Any, value: Any) -> list[Any]:
    return ["w", key, value]


def append(key: Any, element: Any) -> list[Any]:
    return ["append", key, element]


def run(*ops: Body) -> list[Any]:
    """The responses to operations, one applied after the other: a txn's result, or the response."""
    state: Map = Store()
    responses = []
    for op in ops:
        state, response = state.apply(op)
        responses.append(response["txn"] if response["type"] == "txn_ok" else response)
    return responses


def test_the_answer_is_the_transaction_with_what_it_read() -> None:
    assert run(txn(append(1, 2), w(3, 4)), txn(r(1), r(3), append(1, 5), r(1))) == [
        [append(1, 2), w(3, 4)],
        [["r", 1, [2]], ["r", 3, 4], append(1, 5), ["r", 1, [2, 5]]],
    ]


def test_a_key_that_does_not_exist_reads_as_null() -> None:
    assert run(txn(r(1)), txn()) == [[r(1)], []]


def test_reads_of_a_transaction_see_its_own_writes_before_them_alone() -> None:
    assert run(txn(r(1), w(1, 2), r(1), w(1, 3), r(1))) == [
        [r(1), w(1, 2), ["r", 1, 2], w(1, 3), ["r", 1, 3]]
    ]


def test_an_append_begins_a_list_where_there_is_none_or_null() -> None:
    assert run(txn(w(1, None), append(1, 2), append(2, 3), r(1), r(2)))[0][3:] == [
        ["r", 1, [2]],
        ["r", 2, [3]],
    ]


def test_a_write_and_a_transaction_share_the_map() -> None:
    assert run({"type": "write", "key": 1, "value": [2]}, txn(append(1, 3)))[1] == [append(1, 3)]
    assert run(txn(w(1, 2)), {"type": "cas", "key": 1, "from": 2, "to": 3}, txn(r(1)))[1:] == [
        {"type": "cas_ok"},
        [["r", 1, 3]],
    ]


def test_keys_of_different_json_are_different() -> None:
    assert run(txn(w(1, "a"), w(True, "b"), w("1", "c"), w([1], "d"), r(1), r([1])))[0][4:] == [
        ["r", 1, "a"],
        ["r", [1], "d"],
    ]


def deep(nesting: int) -> Any:
    value: Any = 0
    for _ in range(nesting):
        value = [value]
    return value


MALFORMED: list[Body] = [
    {"type": "txn"},
    {"type": "txn", "txn": {"r": 1}},
    txn(w(1, 9), ["r", 1]),
    txn(w(1, 9), ["r", 1, None, None]),
    txn(w(1, 9), ["inc", 1, 2]),
    txn(w(1, 9), [["w"], 1, 2]),
    {"type": "txn", "txn": [w(1, 9), "w12"]},
    txn(w(1, 9), w(2, deep(MAX_NESTING + 1))),
]
WRONG = [
    *((op, 12) for op in MALFORMED),
    (txn(w(1, 9), append(2, deep(MAX_NESTING))), 12),
    (txn(w(1, 9), r({1: 2})), 12),
    (txn(w(2, 9), append(1, 3)), 22),
    (txn(w(2, 9), append(2, 3)), 22),
]


@pytest.mark.parametrize("op, code", WRONG)
def test_a_transaction_that_cannot_be_done_changes_nothing(op: Body, code: int) -> None:
    before, _ = Store().apply(txn(w(1, 2)))
    after, response = before.apply(op)
    assert (response["type"], response["code"]) == ("error", code)
    assert after is before
    assert before.apply(txn(r(1), r(2)))[1]["txn"] == [["r", 1, 2], r(2)]


def test_an_append_to_no_list_says_what_is_there() -> None:
    assert run(txn(w(1, "a"), append(1, 2)))[0]["text"] == "expected a list, but had a"


def test_an_older_store_keeps_its_lists() -> None:
    older, _ = Store().apply(txn(append(1, 2)))
    read = older.apply(txn(r(1)))[1]["txn"][0][2]
    newer, _ = older.apply(txn(append(1, 3), w(4, 5)))
    assert read == [2]
    assert older.apply(txn(r(1), r(4)))[1]["txn"] == [["r", 1, [2]], r(4)]
    assert newer.apply(txn(r(1), r(4)))[1]["txn"] == [["r", 1, [2, 3]], ["r", 4, 5]]


def test_a_transaction_that_fails_costs_no_copy_of_the_map() -> None:
    state, _ = Store().apply(txn(w(1, 2)))
    state.apply(txn(w(3, 4), append(1, 5)))
    assert state.map._newer is None  # it is still the newest version


def test_only_reads() -> None:
    assert only_reads({"type": "read", "key": 1}) and only_reads(txn(r(1), r(2)))
    assert only_reads(txn())
    assert not only_reads(txn(r(1), w(1, 2))) and not only_reads(txn(append(1, 2)))
    assert not only_reads({"type": "cas", "key": 1, "from": 2, "to": 3})


def test_8_a_transaction_that_comes_again_has_no_effect_and_the_same_answer() -> None:
    sessions, state = Sessions(), Store()
    once = ["c1", 1, txn(r(1), append(1, 2))]
    after, (first,) = sessions.apply(state, [once])
    after, _ = sessions.apply(after, [["c2", 1, txn(append(1, 3))]])
    after, (again,) = sessions.apply(after, [once])
    assert first == again == ("c1", 1, {"type": "txn_ok", "txn": [r(1), append(1, 2)]})
    assert after.apply(txn(r(1)))[1]["txn"] == [["r", 1, [2, 3]]]


def test_8_a_transaction_that_only_reads_is_no_sessions_last_operation() -> None:
    sessions = Sessions()
    sessions.apply(Store(), [["c1", 1, txn(r(1))]])
    assert not sessions.records()


def cluster(reads: str = "lease") -> tuple[World, dict[str, Raft]]:
    """Three nodes that are led by n0."""
    world = World()
    names = ("n0", "n1", "n2")
    rafts = {name: world.add(name, lambda node: Raft(node, reads)) for name in names}
    world.init()
    world.until(lambda: len(world.ready) == len(names))
    return world, rafts


@pytest.mark.parametrize("node_id", ["n0", "n1"])
def test_every_node_takes_transactions(node_id: str) -> None:
    world, _ = cluster()
    asked = [world.request(node_id, txn(r(1), append(1, element))) for element in (7, 8)]
    world.advance(1)
    assert [world.answer(msg_id) for msg_id in asked] == [
        {"type": "txn_ok", "txn": [r(1), append(1, 7)]},
        {"type": "txn_ok", "txn": [["r", 1, [7]], append(1, 8)]},
    ]


@pytest.mark.parametrize("reads, entries", [("lease", 0), ("index", 0), ("log", 1)])
def test_a_transaction_that_only_reads_goes_the_way_of_reads(reads: str, entries: int) -> None:
    world, rafts = cluster(reads)
    before = rafts["n0"].log.size
    asked = world.request("n1", txn(r(1)))
    world.advance(1)
    assert world.answer(asked) == {"type": "txn_ok", "txn": [r(1)]}
    assert rafts["n0"].log.size - before == entries


@pytest.mark.parametrize("op", MALFORMED)
def test_a_malformed_transaction_is_refused_before_the_log(op: Body) -> None:
    world, rafts = cluster()
    before = rafts["n0"].log.size
    assert world.call("n1", op)["code"] == 12
    world.advance(1)
    assert rafts["n0"].log.size == before


@pytest.mark.parametrize("reads", ["lease", "index"])
def test_6_4_a_leader_that_is_cut_off_answers_no_transaction(reads: str) -> None:
    world, rafts = cluster(reads)
    world.lost = lambda message: "n0" in (message["src"], message["dest"])
    world.until(lambda: rafts["n1"].role == "leader" or rafts["n2"].role == "leader")
    new = next(name for name, raft in rafts.items() if name != "n0" and raft.role == "leader")
    done = world.request(new, txn(append(1, 2)))
    world.until(lambda: world.answer(done))
    asked = world.request("n0", txn(r(1)))
    world.advance(5)
    answer = world.answer(asked)
    assert answer and answer["code"] == 11
