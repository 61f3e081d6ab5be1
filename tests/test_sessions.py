"""Sessions: each client's last operation and its answer, so that none takes effect twice (8)."""

from __future__ import annotations

from typing import Any

from node import Body
from raft import Map, Operation, Sessions

READ = {"type": "read", "key": "x"}


def write(value: Any) -> Body:
    return {"type": "write", "key": "x", "value": value}


def cas(old: Any, new: Any) -> Body:
    return {"type": "cas", "key": "x", "from": old, "to": new}


class Replica:
    """A map with its sessions."""

    def __init__(self, sessions: Sessions | None = None) -> None:
        self.sessions, self.map = sessions or Sessions(), Map()

    def apply(self, *operations: Operation) -> list[tuple[str, int, Body]]:
        """Applies one entry with these operations. Returns the answers."""
        self.map, answers = self.sessions.apply(self.map, operations)
        return answers

    @property
    def value(self) -> Any:
        return self.map.map.get("x")


def test_8_operations_are_applied_in_order_and_each_is_answered() -> None:
    replica = Replica()
    assert replica.apply(["c1", 1, write(1)], ["c2", 1, cas(1, 2)], ["c2", 2, READ]) == [
        ("c1", 1, {"type": "write_ok"}),
        ("c2", 1, {"type": "cas_ok"}),
        ("c2", 2, {"type": "read_ok", "value": 2}),
    ]


def test_8_an_operation_that_comes_again_has_no_effect_and_the_same_answer() -> None:
    replica, once = Replica(), ["c1", 5, cas(1, 2)]
    replica.apply(["c1", 4, write(1)])
    first = replica.apply(once)
    replica.apply(["c2", 1, write(1)])
    assert replica.apply(once, once) == [*first, *first] == [("c1", 5, {"type": "cas_ok"})] * 2
    assert replica.value == 1


def test_8_an_error_is_remembered_as_an_answer_too() -> None:
    replica, once = Replica(), ["c1", 1, cas(1, 2)]
    (answer,) = replica.apply(once)
    replica.apply(["c2", 1, write(1)])
    assert replica.apply(once) == [answer] and answer[2]["code"] == 20
    assert replica.value == 1


def test_8_an_operation_older_than_its_clients_last_one_is_ignored() -> None:
    """Such an operation is a late copy: its client has had the answer, or has given up."""
    replica = Replica()
    answers = replica.apply(["c1", 5, write(5)], ["c1", 4, write(4)])
    assert ([msg_id for _, msg_id, _ in answers], replica.value) == ([5], 5)


def test_8_each_client_has_a_session_of_its_own() -> None:
    replica = Replica()
    replica.apply(["c1", 7, write(1)], ["c2", 3, write(2)])
    assert replica.value == 2 and len(replica.sessions) == 2


def test_8_a_read_by_log_is_done_though_it_is_older_than_its_clients_last_write() -> None:
    replica = Replica()
    answers = replica.apply(["c1", 5, write(5)], ["c1", 4, READ], ["c1", 9, READ])
    assert [body for *_, body in answers[1:]] == [{"type": "read_ok", "value": 5}] * 2
    assert replica.apply(["c1", 6, write(6)]) == [("c1", 6, {"type": "write_ok"})]


def test_8_a_read_is_not_remembered_since_its_value_may_be_large() -> None:
    replica = Replica()
    replica.apply(["c1", 1, write(1)], ["c1", 2, READ], ["c2", 1, READ])
    assert replica.sessions.records() == [("c1", 1, {"type": "write_ok"})]


def test_7_sessions_made_of_records_go_on_where_the_others_were() -> None:
    first = Replica()
    first.apply(["c1", 1, write(1)], ["c2", 1, cas(7, 8)])
    second = Replica(Sessions(first.sessions.records()))
    assert second.sessions.records() == first.sessions.records()
    assert second.apply(["c1", 1, write(1)]) == [("c1", 1, {"type": "write_ok"})]
    assert second.value is None


def test_changes_are_the_records_since_the_last_call() -> None:
    replica = Replica()
    replica.apply(["c1", 1, write(1)], ["c2", 1, write(2)])
    assert replica.sessions.changes() == replica.sessions.records()
    replica.apply(["c1", 1, write(1)], ["c3", 1, READ], ["c2", 2, write(3)], ["c2", 3, write(4)])
    assert replica.sessions.changes() == [("c2", 3, {"type": "write_ok"})]
    assert replica.sessions.changes() == []


def test_all_sessions_of_a_snapshot_are_changes() -> None:
    """A storage has none of them when the snapshot comes."""
    records = [("c1", 1, {"type": "write_ok"})]
    assert Sessions(records).changes() == records
