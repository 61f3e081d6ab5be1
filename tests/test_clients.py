"""Clients: the operations that this node owes answers for, a batch for each turn."""

from __future__ import annotations

from raft import Batch, Clients, Operation

READ: Operation = ["c1", 1, {"type": "read", "key": "x"}]
WRITE: Operation = ["c2", 1, {"type": "write", "key": "x", "value": 1}]


def batch(clients: Clients, now: float = 0.0) -> Batch:
    """Takes a read and a write; returns their turn's batch."""
    clients.take(READ, is_entry=False)
    clients.take(WRITE, is_entry=True)
    made = clients.leave_turn(now)
    assert made
    return made


def tried(clients: Clients, now: float) -> Batch:
    """Returns a batch that was sent to n0 at once."""
    made = batch(clients, now)
    made.asked, made.sent_at = "n0", now
    return made


def test_the_operations_of_a_turn_are_one_batch_in_their_order() -> None:
    clients = Clients("n1", seq=7)
    for operation in (WRITE, READ, WRITE):
        clients.take(operation, is_entry=operation is WRITE)
    made = clients.leave_turn(3.0)
    assert made == Batch("n1", 8, [READ], [WRITE, WRITE], came_at=3.0)
    assert clients.pending == {8: made}


def test_a_read_by_log_is_among_the_writes() -> None:
    clients = Clients("n1")
    clients.take(READ, is_entry=True)
    made = clients.leave_turn(0.0)
    assert made and (made.reads, made.writes) == ([], [READ])


def test_a_turn_without_operations_has_no_batch() -> None:
    clients = Clients("n1", seq=7)
    assert clients.leave_turn(0.0) is None
    batch(clients)
    assert clients.leave_turn(0.0) is None and clients.seq == 8


def test_no_two_batches_have_the_same_seq_or_share_operations() -> None:
    clients = Clients("n1")
    first, second = batch(clients), batch(clients)
    clients.take(READ, is_entry=False)
    assert (first.seq, second.seq, [*clients.pending]) == (1, 2, [1, 2])
    assert first.reads == second.reads == [READ] and first.reads is not second.reads


def test_all_pending_batches_are_untried_once_when_a_leader_is_found() -> None:
    clients = Clients("n1")
    first, second = tried(clients, 0.0), tried(clients, 0.0)
    assert clients.take_untried() == []
    clients.forget_tries()
    assert clients.take_untried() == [first, second]
    assert first.asked == second.asked == "", "else the next try goes to another node"
    assert clients.take_untried() == []


def test_an_untried_write_may_still_have_happened() -> None:
    clients = Clients("n1")
    tried(clients, 0.0)
    clients.forget_tries()
    clients.take_untried()
    assert clients.expire(9.0, patience=1.0) == [READ]


def test_a_batch_is_retried_when_its_last_try_is_too_long_ago() -> None:
    clients = Clients("n1")
    first, second = tried(clients, 0.0), tried(clients, 0.4)
    assert clients.retry(0.5, after=0.5) == []
    assert clients.retry(0.6, after=0.5) == [first]
    first.sent_at = 0.6
    assert clients.retry(1.0, after=0.5) == [second]


def test_a_batch_that_was_never_sent_is_retried_at_once() -> None:
    clients = Clients("n1")
    made = batch(clients)
    assert clients.retry(0.0, after=0.5) == [made]


def test_a_batch_expires_after_the_patience_and_not_before() -> None:
    clients = Clients("n1")
    batch(clients, now=0.0)
    second = batch(clients, now=0.5)
    assert clients.expire(0.8, patience=0.9) == [] and len(clients.pending) == 2
    assert clients.expire(0.9, patience=0.9) == [READ, WRITE]
    assert clients.pending == {second.seq: second}


def test_an_expired_write_that_was_sent_is_not_refused_since_it_may_still_happen() -> None:
    clients = Clients("n1")
    tried(clients, 0.0)
    assert clients.expire(0.9, patience=0.9) == [READ]
    assert not clients.pending


def test_the_operations_that_a_leader_has_done_are_not_refused() -> None:
    clients = Clients("n1")
    made = tried(clients, 0.0)
    made.reads = []
    assert clients.expire(0.9, patience=0.9) == []


def test_a_finished_batch_is_forgotten_and_an_unknown_one_is_ignored() -> None:
    clients = Clients("n1")
    first, second = tried(clients, 0.0), tried(clients, 0.0)
    clients.done([first.seq, 77])
    clients.done([first.seq])
    assert clients.pending == {second.seq: second}
    assert clients.retry(9.0, after=0.5) == [second]
