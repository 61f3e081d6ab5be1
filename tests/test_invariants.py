"""The invariants that a simulation watches: each one sees what it is for, and nothing else.

Nodes are mere data here. Whether real ones break them with a rule taken out is seen by
test_simulation.py and the mutants.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from workbench.simulation.loop import VirtualLoop
from workbench.simulation.raft_invariants import Invariants
from workbench.units import SECOND

from node import Body, encode
from raft import Entry, Log, Map


class World:
    """Three nodes as the invariants see them, without machines: a test sets what they hold."""

    def __init__(
        self, durable: bool = True, nodes: int = 3
    ) -> None:
        self.storage = SimpleNamespace(durable=durable)
        self.names = [f"n{number}" for number in range(nodes)]
        self.told: list[str] = []
        self.loop = VirtualLoop()
        self.invariants = Invariants(self.loop, 1, self.told.append)
        self.machines: dict[str, Any] = {}
        for name in self.names:
            self.machines[name] = SimpleNamespace(node_id=name, torn=0, wiped=0)
            self.start(name)

    def start(self, name: str) -> None:
        """A new program with nothing in its memory, not even its name."""
        node = SimpleNamespace(node_id="", node_ids=self.names)
        raft = SimpleNamespace(
            node=node, term=0, voted_for=None, role="follower", commit_index=0, last_applied=0,
            log=Log(), state_machine=Map(), storage=self.storage,
        )  # fmt: skip
        node.server = raft
        self.machines[name].node = node
        self.turn(name)

    def turn(
        self, name: str, entries: list[Entry] | None = None, stable: int | None = None,
        lines: Iterable[Body] = (), **state: Any,
    ) -> None:  # fmt: skip
        """After it all of the node's log and state is as given; it knows its name.

        All entries are on its disk, or so many as are given. `lines` are messages that leave.
        """
        machine = self.machines[name]
        raft = machine.node.server
        if entries is not None:
            machine.node.node_id = name
            kept = 0  # those that stay are the same objects, as in a program
            while kept < min(raft.log.size, len(entries)) and raft.log[kept + 1] == entries[kept]:
                kept += 1
            raft.log.truncate(kept)
            raft.log.append(entries[kept:])
        raft.log.stable = raft.log.size if stable is None else stable
        vars(raft).update(state)
        self.invariants.turned(machine, [encode(line).encode() for line in lines])

    def ask(self, client: str, msg_id: int, type: str = "read") -> None:
        """A client's request arrives at a node; of which is all the same."""
        body = {"type": type, "key": "x", "msg_id": msg_id}
        self.invariants.arrived(self.machines["n0"], {"src": client, "body": body})

    def tells(self, *words: str) -> bool:
        """Whether just one property is broken, and it is told with these words."""
        return len(self.told) == 1 and all(word in self.told[0] for word in words)


def entries(*terms: int) -> list[Entry]:
    return [Entry(term) for term in terms]


# Figure 3


def test_election_safety_one_leader_in_a_term() -> None:
    world = World()
    world.turn("n0", [], term=1, role="leader")
    world.turn("n1", [], term=2, role="leader")
    world.turn("n0", [], term=1, role="follower")
    world.turn("n0", [], term=3, role="leader")
    assert not world.told
    world.turn("n2", [], term=2, role="leader")
    assert world.tells("election safety: n1 and n2 both led term 2 (--seed 1, at 0.000000 s)")


def test_a_leader_only_appends() -> None:
    world = World()
    world.turn("n0", entries(1, 1), term=1, role="leader")
    world.turn("n0", entries(1, 1, 1))
    assert not world.told
    world.turn("n0", entries(1, 1))
    assert world.tells("leader append-only: n0 took entry 3, Entry(term=1")


def test_a_follower_may_drop_what_is_not_committed_and_no_more() -> None:
    world = World()
    world.turn("n1", entries(1), term=1)
    world.turn("n0", entries(1, 1), term=1, commit_index=1)
    world.turn("n0", entries(1, 2), term=2)
    world.turn("n1", entries(1, 2), term=2)
    world.turn("n0", commit_index=2)
    assert not world.told
    world = World()
    world.turn("n1", entries(1), term=1)
    world.turn("n0", entries(1, 1), term=1, commit_index=1)
    world.turn("n0", entries(1, 2), term=2)
    assert not world.told
    world.turn("n0", entries(2, 2))
    assert world.tells("committed entries stay: n0 took entry 1, Entry(term=1")


def test_log_matching_of_the_same_index_and_term_there_is_one_entry() -> None:
    world = World()
    world.turn("n0", [Entry(1, "n0", 7)])
    world.turn("n1", [Entry(1, "n0", 7)])
    assert not world.told
    world.turn("n2", [Entry(1, "n0", 8)])
    assert world.tells("log matching: entry 1 is Entry(term=1", "for n0, and", "for n2")


def test_log_matching_and_all_before_it_is_the_same() -> None:
    world = World()
    world.turn("n0", entries(1, 3))
    world.turn("n1", entries(2, 3))
    assert world.tells("log matching: entry 2 is", "after term 1 for n0", "after term 2 for n1")


def committed(*terms: int) -> World:
    """n0 and n1 have entries of these terms, and n0 takes all of them for committed."""
    world = World()
    world.turn("n1", entries(*terms))
    world.turn("n0", entries(*terms), commit_index=len(terms))
    assert not world.told
    return world


def test_leader_completeness_who_is_elected_has_what_is_committed() -> None:
    world = committed(1, 1)
    world.turn("n1", entries(1, 1, 1), term=2, role="leader")
    assert not world.told
    world.turn("n2", entries(1), term=3, role="leader")
    assert world.tells("leader completeness: n2 leads term 3 and has nothing at 2, where Entry(")


def test_leader_completeness_what_is_committed_later_it_has_too() -> None:
    world = World()
    world.turn("n2", entries(2), term=2, role="leader")
    world.turn("n1", entries(1))
    world.turn("n0", entries(1), commit_index=1)
    assert world.tells("leader completeness: n2 leads term 2 and has Entry(term=2")


def test_leader_completeness_who_won_an_older_term_does_no_harm() -> None:
    world = committed(1)
    world.turn("n1", entries(1), term=5, role="leader")
    world.turn("n2", [], term=4, role="leader")
    assert not world.told


def test_state_machine_safety_nobody_takes_another_entry_for_committed() -> None:
    world = committed(1, 1)
    world.turn("n2", entries(1, 1), commit_index=2)
    assert not world.told
    world = committed(1, 1)
    world.turn("n2", entries(1, 2), commit_index=2)
    assert world.tells("state machine safety: n2 commits Entry(term=2", "at 2, where")


def test_what_is_committed_is_on_a_majority() -> None:
    world = World()
    world.turn("n0", entries(1, 1))
    world.turn("n1", entries(1))
    world.turn("n0", commit_index=1)
    assert not world.told
    world.turn("n0", commit_index=2)
    assert world.tells("commit: n0 commits Entry(", "at 2, but only n0 of 3 nodes")


def test_half_of_the_nodes_are_no_majority() -> None:
    world = World(nodes=4)
    world.turn("n0", entries(1))
    world.turn("n1", entries(1))
    world.turn("n0", commit_index=1)
    assert world.tells("commit: n0 commits Entry(", "only n0 n1 of 4 nodes have it")


# Terms, votes and indexes never go back


@pytest.mark.parametrize(
    ("words", "state"),
    [
        ("terms: n0 went back from term 4 to 3", {"term": 3}),
        ("one vote: in term 4 n0 voted for n1, then for n2", {"voted_for": "n2"}),
        ("one vote: in term 4 n0 voted for n1, then for None", {"voted_for": None}),
        ("n0's went from 2 to 1, but its log has 3 entries", {"commit_index": 1}),
        ("n0's went from 2 to 4, but its log has 3 entries", {"commit_index": 4}),
        ("last_applied went from 1 to 0, but its commit index is 2", {"last_applied": 0}),
        ("last_applied went from 1 to 3, but its commit index is 2", {"last_applied": 3}),
    ],
)
def test_what_never_goes_back_nor_too_far(words: str, state: dict[str, Any]) -> None:
    world = World()
    world.turn("n1", entries(1, 1, 1))
    before: dict[str, Any] = {"term": 4, "voted_for": "n1", "commit_index": 2, "last_applied": 1}
    world.turn("n0", entries(1, 1, 1), **before)
    assert not world.told
    world.turn("n0", **state)
    assert world.tells(words)


def test_in_a_later_term_there_is_another_vote() -> None:
    world = World()
    world.turn("n0", [], term=4, voted_for="n1")
    world.turn("n0", [], term=5)
    assert world.tells("one vote") is False
    world.turn("n0", [], term=6, voted_for=None)
    world.turn("n0", [], voted_for="n2")
    assert not world.told


def test_a_log_that_begins_later_begins_after_what_is_committed() -> None:
    def begins_after(index: int, term: int) -> World:
        world = committed(1, 2)
        world.machines["n2"].node.server.log.compact(index, term)
        world.turn("n2", commit_index=index, last_applied=index)
        return world

    assert not begins_after(1, 1).told and not begins_after(2, 2).told
    assert begins_after(2, 1).tells("snapshot: n2's log begins after entry 2 of term 1, where")
    assert begins_after(3, 2).tells("after entry 3 of term 2, where nothing is committed")


# Answers to clients


def batch(*writes: int, client: str = "c1") -> Entry:
    """The entry of a batch that writes these values to x, with msg_ids 1, 2, ..."""
    bodies = [{"type": "write", "key": "x", "value": value} for value in writes]
    return Entry(1, "n0", 1, [(client, n, body) for n, body in enumerate(bodies, 1)])


def test_what_is_applied_does_what_it_should() -> None:
    world = World()
    log = [batch(5), batch(6, client="c2")]
    world.turn("n1", log)
    world.turn("n0", log, commit_index=2, last_applied=2, state_machine=Map({"x": 6}))
    world.turn("n1", commit_index=2, last_applied=1, state_machine=Map({"x": 5}))
    assert not world.told
    world.turn("n1", last_applied=2)
    assert world.tells(
        "at most once: with entries up to 2 applied, key x holds 5 on n1, but must hold 6"
    )


def test_an_operation_takes_effect_once() -> None:
    world = World()
    world.turn("n1", [batch(5)] * 2)
    world.turn("n0", [batch(5)] * 2, commit_index=2)
    assert not world.told, "its answer is remembered"
    world.turn("n1", commit_index=2, last_applied=2, state_machine=Map({"x": 6}))
    assert world.tells("with entries up to 2 applied, key x holds 6 on n1, but must")


def test_an_operation_takes_no_effect_after_a_later_one_of_its_client() -> None:
    world = World()
    later = Entry(1, "n0", 2, [("c1", 2, {"type": "write", "key": "x", "value": 6})])
    for name in ("n1", "n0"):
        world.turn(name, [later, batch(5)], commit_index=2 * (name == "n0"))
    world.turn("n1", commit_index=2, last_applied=2, state_machine=Map({"x": 5}))
    assert world.tells("key x holds 5 on n1, but must hold 6")


def answer(client: str, msg_id: int, **body: Any) -> Body:
    return {"src": "n0", "dest": client, "body": {**body, "in_reply_to": msg_id}}


READ_5 = {"type": "read_ok", "value": 5}
NOT_FOUND = {"type": "error", "code": 20}
UNAVAILABLE = {"type": "error", "code": 11}


@pytest.mark.parametrize("said", [READ_5, NOT_FOUND, {"type": "error", "code": 22}])
def test_a_read_is_no_older_than_what_was_acknowledged_before_it_came(said: Body) -> None:
    world = World()
    world.turn("n1", [batch(5)])
    world.ask("c7", 1)  # before
    wrote = [answer("c1", 1, type="write_ok")]
    applied: dict[str, Any] = {"last_applied": 1, "state_machine": Map({"x": 5})}
    world.turn("n0", [batch(5)], commit_index=1, lines=wrote, **applied)
    world.ask("c8", 1)
    world.ask("c9", 1)
    world.turn("n1", lines=[answer("c7", 1, **said)])
    world.turn("n1", lines=[answer("c8", 1, **UNAVAILABLE)])
    assert not world.told
    world.turn("n1", lines=[answer("c9", 1, **said)])
    assert world.tells(
        "no stale read: n1, with entries up to 0 applied, answered c9 {", "entry 1 was acknowledged"
    )


def test_a_read_acknowledges_what_it_has_seen() -> None:
    world = World()
    world.turn("n1", [batch(5)])
    world.turn("n2", [batch(5)])
    world.ask("c7", 1)
    applied: dict[str, Any] = {"last_applied": 1, "state_machine": Map({"x": 5})}
    world.turn("n0", [batch(5)], commit_index=1, lines=[answer("c7", 1, **READ_5)], **applied)
    world.ask("c8", 1)
    world.ask("c9", 1)
    world.turn("n1", commit_index=1, lines=[answer("c8", 1, **READ_5)], **applied)
    assert not world.told
    world.turn("n2", lines=[answer("c9", 1, **NOT_FOUND)])
    assert world.tells("no stale read: n2")


def test_what_was_acknowledged_stays_so_when_less_is_seen_later() -> None:
    world = World()
    world.turn("n1", [batch(5), batch(6, client="c2")])
    world.ask("c7", 1)  # before all that
    applied: dict[str, Any] = {"last_applied": 2, "state_machine": Map({"x": 6})}
    wrote = [answer("c2", 1, type="write_ok")]
    log = [batch(5), batch(6, client="c2")]
    world.turn("n0", log, commit_index=2, lines=wrote, **applied)
    world.turn("n1", commit_index=1, last_applied=1, state_machine=Map({"x": 5}))
    world.turn("n1", lines=[answer("c7", 1, **READ_5)])
    world.ask("c8", 1)
    world.turn("n1", lines=[answer("c8", 1, **READ_5)])
    assert world.tells("no stale read: n1, with entries up to 1", "entry 2 was acknowledged")


def test_a_read_of_the_log_is_as_old_as_its_entry() -> None:
    world = World()
    read = Entry(1, "n0", 2, [("c9", 1, {"type": "read", "key": "x"})])
    world.turn("n1", [batch(5), read])
    wrote = [answer("c1", 1, type="write_ok")]
    applied: dict[str, Any] = {"last_applied": 1, "state_machine": Map({"x": 5})}
    world.turn("n0", [batch(5), read], commit_index=1, lines=wrote, **applied)
    world.ask("c9", 1)
    world.turn("n0", commit_index=2, last_applied=2, lines=[answer("c9", 1, **READ_5)])
    world.ask("c8", 1)
    assert not world.told
    world.turn("n1", commit_index=1, lines=[answer("c8", 1, **READ_5)], **applied)
    assert world.tells("no stale read: n1, with entries up to 1", "entry 2 was acknowledged")


def test_an_error_that_says_nothing_of_the_state_acknowledges_nothing() -> None:
    world = World()
    world.turn("n1", [batch(5)])
    applied: dict[str, Any] = {"last_applied": 1, "state_machine": Map({"x": 5})}
    refused = [answer("c1", 1, **UNAVAILABLE)]
    world.turn("n0", [batch(5)], commit_index=1, lines=refused, **applied)
    world.ask("c7", 1)
    world.turn("n1", lines=[answer("c7", 1, **NOT_FOUND)])
    assert not world.told


# Texts


def test_the_first_broken_property_is_told_with_the_last_events_and_no_other() -> None:
    world = World()
    ask = {"type": "request_vote", "pre": False, "term": 1, "last_log_index": 0}
    lines = [
        {"src": "n0", "dest": dest, "body": {**ask, "last_log_term": 0}} for dest in ("n1", "n2")
    ]
    world.loop.run_to(SECOND)
    world.turn("n0", [], term=1, lines=lines)
    for _ in range(30):
        world.turn("n1", [], term=1)  # it says nothing
    world.loop.run_to(3 * SECOND // 2)
    world.turn("n0", [], term=0)
    world.turn("n0", [], term=2, role="leader")
    world.turn("n1", [], term=2, role="leader")
    (told,) = world.told
    assert told.splitlines() == [
        "terms: n0 went back from term 1 to 0 (--seed 1, at 1.500000 s)",
        "Before that:",
        "    1.000000  n0 -> n1 n2  request_vote in term 1, last entry 0 of term 0",
    ]


@pytest.mark.parametrize("lacks", ["term", "log", "state_machine"])
def test_a_raft_of_another_kind_is_not_looked_at(lacks: str) -> None:
    world = World()
    world.start("n0")
    delattr(world.machines["n0"].node.server, lacks)
    world.invariants = Invariants(world.loop, 1, world.told.append)
    world.invariants.turned(world.machines["n0"], [])
    assert not world.told


# Kills


FIVE: dict[str, Any] = {"term": 5, "voted_for": "n1"}


def stored() -> World:
    """n0 holds entries of terms 1 and 2, of which one is committed, and has voted in term 5."""
    world = World()
    world.turn("n1", entries(1, 2), **FIVE)
    world.turn("n0", entries(1, 2), commit_index=1, last_applied=1, **FIVE)
    assert not world.told
    world.start("n0")
    assert not world.told  # it has not read its disk yet
    return world


def test_what_was_stored_is_still_there_after_a_kill() -> None:
    world = stored()
    world.turn("n0", entries(1, 2), **FIVE)  # what is committed it hears of again
    world.turn("n0", entries(1, 2), commit_index=1, last_applied=1, **FIVE)
    world.turn("n0", entries(1, 2), commit_index=1, last_applied=1, term=6, voted_for="n2")
    assert not world.told


@pytest.mark.parametrize(
    ("rule", "log", "state"),
    [
        ("terms: n0 went back", entries(1, 2), {"term": 4}),
        ("one vote: ", entries(1, 2), {"term": 5, "voted_for": "n2"}),
        ("one vote: ", entries(1, 2), {"term": 5}),
        ("committed entries stay: n0 lost entry 1", [], FIVE),
        ("committed entries stay: n0 lost entry 1", entries(3), FIVE),
        ("stable storage: n0 restarted without entry 2", entries(1), FIVE),
    ],
)
def test_what_was_stored_and_is_gone_is_told(
    rule: str, log: list[Entry], state: dict[str, Any]
) -> None:
    world = stored()
    world.turn("n0", log, **state)
    assert len(world.told) == 1 and world.told[0].startswith(rule)


def test_a_log_that_begins_later_is_there_after_a_kill_too() -> None:
    world = World()
    world.turn("n1", entries(1, 1, 2))
    world.turn("n0", entries(1, 1, 2), commit_index=2, last_applied=2)
    world.start("n0")
    world.machines["n0"].node.server.log.compact(1, 1)
    world.machines["n0"].node.server.log.append(entries(1, 2))
    world.machines["n0"].node.node_id = "n0"
    world.turn("n0", commit_index=1, last_applied=1)
    world.turn("n0", commit_index=3, last_applied=3)
    assert not world.told


def test_a_turn_that_a_kill_cut_short_may_have_dropped_what_was_not_committed() -> None:
    world = stored()
    world.machines["n0"].torn += 1
    world.turn("n0", entries(1), **FIVE)
    assert not world.told
    world.start("n0")
    world.turn("n0", [], **FIVE)
    assert world.told[0].startswith("committed entries stay: n0 lost entry 1")


def test_the_first_turn_may_replace_what_was_not_committed() -> None:
    world = stored()
    world.turn("n0", entries(1, 5), **FIVE)
    assert not world.told


def test_what_a_node_has_forgotten_still_counts_for_who_had_heard_of_it() -> None:
    world = World(durable=False)
    world.turn("n1", entries(2), term=2)
    world.start("n1")
    world.turn("n1", [])
    world.start("n1")
    world.turn("n1", [])  # it may begin anew
    world.turn("n0", entries(2), term=2, role="leader")
    world.turn("n0", entries(2), commit_index=1, last_applied=1)
    assert not world.told
    world.start("n0")
    world.turn("n0", [])
    world.turn("n1", entries(2), term=2, commit_index=1, last_applied=1)
    world.turn("n1", entries(2, 2), commit_index=2)
    assert len(world.told) == 1 and world.told[0].startswith("commit: n1 commits")  # no node had it


def test_what_a_leader_has_not_on_its_disk_may_be_lost_and_does_not_count() -> None:
    """Thesis 10.2.1: it sends its entries before it has stored them."""
    world = World()
    world.turn("n0", entries(1, 1), stable=1, term=1, role="leader")
    world.turn("n1", entries(1, 1), term=1)
    world.turn("n2", entries(1, 1), term=1)
    world.turn("n0", entries(1, 1), stable=1, commit_index=2, last_applied=2)
    world.start("n0")
    world.turn("n0", entries(1), term=1)
    assert not world.told, "the others have it"
    world.turn("n1", entries(1, 1, 1), term=1)
    world.turn("n0", entries(1, 1, 1), stable=1, commit_index=3)
    assert len(world.told) == 1 and world.told[0].startswith("commit: n0 commits")
    assert "only n1 of 3 nodes have it" in world.told[0]
