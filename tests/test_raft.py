"""The rules of Raft, one test for each, in the order of the paper and with its sections.

"The paper" is D. Ongaro and J. Ousterhout, In search of an understandable consensus algorithm;
"thesis" is D. Ongaro's. A test drives one real node: it plays the node's peers, and reads the
messages to them. Time stands still unless the test moves it. Tests of one room of Raft are in files
of their own, such as test_follower.py.
"""

from __future__ import annotations

from typing import Any

import pytest
from in_process import World
from remembered import Remembered

import raft
from node import Body, Message
from raft import Raft, Storage

TIMEOUT = 0.3  # seconds; the election timeout of the leaders played here, the shortest of all
TICK = 0.04
LONG = 60.0


class Scene:
    """One real node among peers and clients that the test plays."""

    def __init__(
        self, node_id: str, nodes: int = 3, reads: str = "lease", storage: Storage | None = None,
        forgets: bool = False,
    ) -> None:  # fmt: skip
        self.world = World()
        self.node_id = node_id
        kept = storage or (None if forgets else Remembered())
        self.raft: Raft = self.world.add(node_id, lambda node: Raft(node, reads, storage=kept))
        self.node = self.world.nodes[node_id]
        self.peers = [f"n{i}" for i in range(nodes) if f"n{i}" != node_id]
        ids = sorted([node_id, *self.peers])
        self.world.request(node_id, {"type": "init", "node_id": node_id, "node_ids": ids})

    def says(self, peer: str, *bodies: Body) -> None:
        """Delivers a peer's messages in one turn."""
        self.hears(*({"src": peer, "dest": self.node_id, "body": body} for body in bodies))

    def hears(self, *messages: Message) -> None:
        self.node.receive(*messages)

    def sent(self, type: str, to: str | None = None) -> list[Body]:
        """Returns the messages of this type, to this peer, sent since the last call."""
        found = [
            message
            for message in self.world.inbox
            if message["body"]["type"] == type and to in (None, message["dest"])
        ]
        self.world.inbox = [message for message in self.world.inbox if message not in found]
        return [message["body"] for message in found]

    def acks(self, *peers: str, timeout: float | None = None, start: int = 0) -> None:
        """Lets these peers acknowledge the newest append_entries to them with all its entries."""
        for peer in peers:
            newest = self.sent("append_entries", peer)[-1]
            match = newest["prev_log_index"] + len(newest["entries"])
            kept = newest["timeout"] if timeout is None else timeout
            self.says(peer, appended(newest["term"], match, newest["sent"], kept, start=start))

    def request(self, body: Body, client: str = "c1") -> int:
        return self.world.request(self.node_id, body, client)

    def answer(self, msg_id: int) -> Body | None:
        return self.world.answer(msg_id)

    def knows_latency(self, seconds: float) -> None:
        """Fills the node's samples with this round trip."""
        self.raft.times._samples.extend([seconds] * 51)
        self.raft.times.set_timeout()

    def advance(self, seconds: float) -> None:
        self.world.advance(seconds)

    def until_sent(self, type: str, to: str | None = None) -> Body:
        """Moves time on until the node sends a message of this type; returns the newest."""
        found: list[Body] = self.world.until(lambda: self.sent(type, to))
        return found[-1]

    @property
    def value(self) -> Any:
        """The value of the key x in the node's map."""
        return self.raft.state_machine.map.get("x")

    @property
    def terms(self) -> list[int]:
        """The terms of the entries in the log."""
        return [self.raft.log[index].term for index in range(1, self.raft.log.size + 1)]


def new_leader(nodes: int = 3, reads: str = "lease") -> Scene:
    """n0 has just been elected in term 1; its no-op is entry 1 and not committed.

    All round trips that it knows of took no time.
    """
    scene = Scene("n0", nodes, reads)
    scene.knows_latency(0.0)
    scene.says("n1", vote(1))
    if nodes > 3:
        scene.says("n2", vote(1))
    assert scene.raft.role == "leader"
    return scene


def ready_leader(nodes: int = 3, reads: str = "lease") -> Scene:
    """n0 leads term 1, its no-op is committed, and all peers have it."""
    scene = new_leader(nodes, reads)
    scene.acks(*scene.peers)
    assert scene.raft.commit_index == 1
    return scene


def follower(term: int = 1, entries: list[Any] | None = None, commit: int = 0) -> Scene:
    """n1 of n0, n1, n2 follows n0 and has its first entries."""
    scene = Scene("n1")
    scene.says("n0", append(term, entries=entries or [], commit=commit))
    assert scene.sent("append_entries_res", "n0")[-1]["success"]
    return scene


def candidate() -> Scene:
    """n0, of n0, n1 and n2, asks for votes in term 1."""
    scene = Scene("n0")
    assert scene.raft.role == "candidate"
    return scene


def become_leader(scene: Scene) -> None:
    """Lets the node campaign and win the votes of a majority."""
    scene.sent("request_vote")
    for pre in (True, False):
        asked = scene.until_sent("request_vote")
        assert asked["pre"] == pre
        for voter in scene.peers[: (len(scene.peers) + 1) // 2]:
            scene.says(voter, vote(asked["term"], pre=pre))
    assert scene.raft.role == "leader"


# Messages between servers (figure 2), with the names of their fields in raft.py


def ask(
    term: int, last: tuple[int, int] = (0, 0), pre: bool = False, members: Body | None = None
) -> Body:
    """request_vote; `last` is the last entry's (index, term)."""
    index, last_term = last
    return {
        "type": "request_vote", "pre": pre, "term": term, "last_log_index": index,
        "last_log_term": last_term, "sent": 0.0, "claim": members or {"n0": 0, "n1": 0, "n2": 0},
    }  # fmt: skip


def vote(
    term: int, granted: bool = True, pre: bool = False, leader: str | None = None,
    sent: float = 1e9, members: Body | None = None,
) -> Body:  # fmt: skip
    """request_vote_res"""
    return {
        "type": "request_vote_res", "pre": pre, "term": term, "granted": granted,
        "leader": leader, "sent": sent,
        "claim": members or {"n0": 0, "n1": 0, "n2": 0},
    }  # fmt: skip


def append(
    term: int, prev: tuple[int, int] = (0, 0), entries: list[Any] | None = None, commit: int = 0,
    sent: float = 0.0, timeout: float = TIMEOUT, done: list[int] | None = None,
) -> Body:  # fmt: skip
    """append_entries; `prev` is the (index, term) of the entry before the new ones."""
    index, prev_term = prev
    return {
        "type": "append_entries", "term": term, "prev_log_index": index,
        "prev_log_term": prev_term, "entries": entries or [], "leader_commit": commit,
        "sent": sent, "timeout": timeout, "rtt": 0.0,
        "done": done or [],
    }  # fmt: skip


def appended(
    term: int, match: int, sent: float, timeout: float = TIMEOUT, success: bool = True,
    start: int = 0,
) -> Body:  # fmt: skip
    """append_entries_res"""
    return {
        "type": "append_entries_res", "term": term, "success": success, "match": match,
        "sent": sent, "timeout": timeout, "incarnation": start, "snapshot": 0, "offset": 0,
    }  # fmt: skip


def forward(
    seq: int, writes: list[Any] | None = None, reads: list[Any] | None = None,
    owner: str = "n1",
) -> Body:  # fmt: skip
    """forward; by default n1 forwards operations of its clients to n0, the leader."""
    return {
        "type": "forward", "owner": owner, "seq": seq,
        "reads": reads or [], "writes": writes or [],
    }  # fmt: skip


def write(value: Any, key: Any = "x") -> Body:
    return {"type": "write", "key": key, "value": value}


def cas(old: Any, new: Any) -> Body:
    return {"type": "cas", "key": "x", "from": old, "to": new}


READ = {"type": "read", "key": "x"}


def entry(term: int, body: Body | int, msg_id: int = 0, client: str = "c9") -> Any:
    """An entry of the log with this operation; a number stands for a write of it."""
    operation = write(body) if isinstance(body, int) else body
    msg_id = msg_id or operation.get("value", 1)
    return [term, "n0", msg_id, [[client, msg_id, operation]]]


def no_op(term: int) -> Any:
    return [term, "", 0, []]


# Section 5.1: terms


def test_5_1_a_server_with_a_smaller_term_takes_over_the_larger_one() -> None:
    scene = follower(term=1)
    scene.says("n2", append(4))
    assert (scene.raft.term, scene.raft.following.leader) == (4, "n2")


@pytest.mark.parametrize(
    "message",
    [append(5), appended(5, 0, 0.0, success=False), vote(5, granted=False)],
    ids=lambda body: str(body["type"]),
)
def test_5_1_a_leader_whose_term_is_out_of_date_reverts_to_follower(message: Body) -> None:
    scene = ready_leader()
    scene.says("n2", message)
    assert (scene.raft.role, scene.raft.term) == ("follower", 5)


def test_5_1_a_candidate_whose_term_is_out_of_date_reverts_to_follower() -> None:
    scene = candidate()
    scene.says("n2", ask(5))
    assert (scene.raft.role, scene.raft.term) == ("follower", 5)


def test_5_1_append_entries_of_a_stale_term_is_rejected() -> None:
    scene = follower(term=3)
    scene.says("n2", append(2, entries=[no_op(2)], commit=1))
    (answer,) = scene.sent("append_entries_res", "n2")
    assert (answer["success"], answer["term"]) == (False, 3)
    assert (scene.raft.log.size, scene.raft.commit_index) == (0, 0)
    assert scene.raft.following.leader == "n0"


def test_5_1_request_vote_of_a_stale_term_is_rejected() -> None:
    scene = Scene("n1")
    scene.says("n2", ask(3, last=(0, 0)))
    scene.says("n0", ask(2, last=(9, 2)))
    (answer,) = scene.sent("request_vote_res", "n0")
    assert (answer["granted"], answer["term"], scene.raft.term) == (False, 3, 3)
    scene = follower(term=3)  # it has voted for nobody
    scene.advance(TIMEOUT)
    scene.says("n2", ask(2, last=(9, 2)))
    assert not scene.sent("request_vote_res", "n2")[0]["granted"]


def test_5_1_a_leader_ignores_answers_to_what_it_sent_in_an_earlier_term() -> None:
    scene = ready_leader()
    scene.request(write(1))
    scene.says("n1", append(2, prev=(1, 1), entries=[no_op(2)]))
    become_leader(scene)
    for peer in scene.peers:
        scene.says(peer, appended(1, 4, 0.0))
    assert scene.raft.role == "leader"
    assert scene.raft.commit_index == 1


# Section 5.2: leader election


def test_5_2_servers_begin_as_followers_and_start_an_election_if_they_hear_nobody() -> None:
    scene = Scene("n1")
    assert scene.raft.role == "follower"
    become_leader(scene)
    assert scene.raft.term == 1


def test_5_2_a_server_remains_a_follower_while_a_leader_is_heard() -> None:
    scene = follower()
    for _ in range(40):
        scene.advance(TIMEOUT / 2)
        scene.says("n0", append(1))
    assert not scene.sent("request_vote")


def test_5_2_a_candidate_votes_for_itself_and_asks_all_others() -> None:
    scene = candidate()
    for peer in ("n1", "n2"):
        (asked,) = scene.sent("request_vote", peer)
        assert (asked["term"], asked["pre"]) == (1, False)
    scene.says("n1", ask(1, last=(9, 1)))
    assert not scene.sent("request_vote_res", "n1")[0]["granted"]


def test_5_2_a_candidate_wins_with_the_votes_of_a_majority_of_the_full_cluster() -> None:
    scene = Scene("n0", nodes=5)
    scene.says("n1", vote(1))
    assert scene.raft.role == "candidate"
    scene.says("n2", vote(1))
    assert scene.raft.role == "leader"


def test_5_2_a_vote_counts_once_however_often_it_arrives() -> None:
    scene = Scene("n0", nodes=5)
    scene.says("n1", vote(1), vote(1), vote(1))
    assert scene.raft.role == "candidate"


def test_5_2_a_refused_vote_does_not_count() -> None:
    scene = candidate()
    scene.says("n1", vote(1, granted=False))
    assert scene.raft.role == "candidate"


def test_5_2_votes_of_an_earlier_term_and_pre_votes_do_not_count() -> None:
    scene = follower(term=1)
    pre = scene.until_sent("request_vote")
    scene.says("n2", vote(pre["term"], pre=True))
    asked = scene.until_sent("request_vote")
    scene.says("n2", vote(asked["term"] - 1), vote(asked["term"], pre=True))
    assert (scene.raft.role, scene.raft.term) == ("candidate", 2)


def test_5_2_each_server_votes_for_one_candidate_in_a_term_first_come_first_served() -> None:
    scene = Scene("n1")
    scene.says("n2", ask(3))
    scene.says("n0", ask(3))
    assert scene.sent("request_vote_res", "n2")[0]["granted"]
    assert not scene.sent("request_vote_res", "n0")[0]["granted"]


def test_5_2_the_same_candidate_gets_the_same_vote_again_when_it_asks_again() -> None:
    scene = Scene("n1")
    scene.says("n2", ask(3), ask(3))
    assert [answer["granted"] for answer in scene.sent("request_vote_res")] == [True, True]


def test_5_2_a_server_votes_again_in_a_later_term() -> None:
    scene = Scene("n1")
    scene.says("n2", ask(3))
    scene.says("n0", ask(4))
    assert scene.sent("request_vote_res", "n0")[0]["granted"]


def test_5_2_a_candidate_that_hears_a_leader_of_its_term_returns_to_follower() -> None:
    scene = candidate()
    scene.says("n2", append(1))
    scene.says("n1", vote(1))
    assert (scene.raft.role, scene.raft.following.leader) == ("follower", "n2")


def test_5_2_a_candidate_rejects_a_leader_of_an_earlier_term_and_goes_on() -> None:
    scene = Scene("n1")
    scene.says("n2", ask(3))
    scene.says("n0", vote(scene.until_sent("request_vote")["term"], pre=True))
    scene.says("n2", append(3))
    assert (scene.raft.role, scene.raft.term) == ("candidate", 4)


def test_5_2_a_new_leader_sends_heartbeats_to_all_at_once_and_within_each_timeout() -> None:
    scene = new_leader()
    for _ in range(20):
        newest = scene.sent("append_entries", "n1")[-1]
        assert scene.sent("append_entries", "n2")
        scene.says("n1", appended(1, 0, newest["sent"]))
        scene.advance(TIMEOUT)


def test_5_2_a_vote_that_was_given_puts_off_ones_own_election() -> None:
    scene = follower(entries=[no_op(1)])
    scene.advance(TIMEOUT)
    scene.says("n2", ask(3))  # its log is too old
    scene.advance(TIMEOUT * 0.9)
    scene.says("n0", ask(3, last=(1, 1)))
    scene.advance(TIMEOUT * 0.9)
    assert [answer["granted"] for answer in scene.sent("request_vote_res")] == [False, True]
    assert not scene.sent("request_vote")


def test_5_2_election_timeouts_are_chosen_randomly() -> None:
    scene = Scene("n1")
    moments = []
    for term in range(1, 30):
        scene.says("n0", append(term))
        start = scene.world.time
        scene.until_sent("request_vote")
        moments.append(scene.world.time - start)
    later = moments[1:]  # the first one is after init
    assert min(later) >= TIMEOUT
    assert max(later) > min(later) * 1.2
    assert len(set(later)) == len(later)


def test_5_2_a_candidate_of_a_split_vote_times_out_and_starts_a_new_election() -> None:
    scene = candidate()
    scene.says("n1", vote(1, granted=False))
    become_leader(scene)
    assert scene.raft.term == 2


def test_5_2_without_success_elections_become_less_frequent() -> None:
    scene = Scene("n1")
    moments = []
    for _ in range(8):
        scene.until_sent("request_vote")
        moments.append(scene.world.time)
    first, last = moments[2] - moments[1], moments[7] - moments[6]
    assert last > 3 * first


@pytest.mark.parametrize("leads", [True, False])
def test_5_2_after_a_success_elections_are_as_frequent_as_at_first(leads: bool) -> None:
    scene = Scene("n1")
    scene.advance(LONG)
    if leads:
        become_leader(scene)
        scene.says("n0", vote(9, granted=False))
    else:
        scene.says("n0", append(9))
    start = scene.world.time
    scene.sent("request_vote")
    scene.until_sent("request_vote")
    assert scene.world.time - start <= 1.5 * scene.raft.times.timeout


def test_a_lone_node_leads_within_its_own_init() -> None:
    scene = Scene("n0", nodes=1)
    assert scene.raft.role == "leader"
    assert scene.answer(scene.request(write(1))) == {"type": "write_ok"}


def test_the_first_node_is_a_candidate_in_its_own_init() -> None:
    assert candidate().sent("request_vote", "n1")[0]["pre"] is False


def test_the_other_nodes_say_nothing_in_their_first_second() -> None:
    scene = Scene("n1")
    scene.advance(0.99)
    assert not scene.world.inbox


# Section 5.4.1: election restriction


@pytest.mark.parametrize(
    ("last", "granted"),
    [((2, 2), True), ((3, 2), True), ((1, 3), True), ((1, 2), False), ((9, 1), False)],
)
def test_5_4_1_a_vote_goes_to_a_log_that_is_at_least_as_up_to_date(
    last: tuple[int, int], granted: bool
) -> None:
    scene = follower(term=2, entries=[no_op(1), no_op(2)])
    scene.advance(TIMEOUT)
    scene.says("n2", ask(4, last=last))
    assert scene.sent("request_vote_res", "n2")[0]["granted"] == granted
    scene.says("n0", ask(5, last=last, pre=True))
    assert scene.sent("request_vote_res", "n0")[0]["granted"] == granted


def test_5_4_1_a_candidate_says_what_its_last_entry_is() -> None:
    scene = follower(term=2, entries=[no_op(1), no_op(2), entry(2, 7)])
    asked = scene.until_sent("request_vote")
    assert (asked["last_log_index"], asked["last_log_term"]) == (3, 2)


# PreVote (thesis 9.6)


def test_prevote_an_election_starts_with_a_question_that_changes_no_term() -> None:
    scene = follower(term=4)
    asked = scene.until_sent("request_vote")
    assert (asked["pre"], asked["term"]) == (True, 5)
    assert (scene.raft.role, scene.raft.term) == ("follower", 4)


def test_prevote_only_a_majority_of_pre_votes_starts_a_term() -> None:
    scene = Scene("n1", nodes=5)
    term = scene.until_sent("request_vote")["term"]
    scene.says("n2", vote(term, pre=True))
    assert scene.raft.term == 0
    scene.says("n3", vote(term, pre=True))
    assert (scene.raft.role, scene.raft.term) == ("candidate", 1)
    assert scene.sent("request_vote", "n4")[-1]["pre"] is False


def test_prevote_a_pre_vote_given_is_neither_a_vote_nor_a_term() -> None:
    scene = Scene("n1")
    scene.says("n0", ask(7, pre=True))
    scene.says("n2", ask(7, pre=True))
    assert scene.raft.term == 0
    scene.says("n2", ask(6))
    assert [answer["granted"] for answer in scene.sent("request_vote_res")] == [True] * 3


def test_prevote_none_is_given_for_a_term_that_is_not_later() -> None:
    scene = Scene("n1")
    scene.says("n2", ask(3))
    scene.says("n0", ask(3, pre=True))
    assert not scene.sent("request_vote_res", "n0")[0]["granted"]


@pytest.mark.parametrize("pre", [True, False])
def test_prevote_no_vote_is_given_while_a_leader_is_alive(pre: bool) -> None:
    scene = follower()
    scene.advance(TIMEOUT * 0.9)
    scene.says("n2", ask(9, pre=pre))
    (answer,) = scene.sent("request_vote_res", "n2")
    assert (answer["granted"], answer["leader"], answer["term"]) == (False, "n0", 1)
    assert scene.raft.term == 1


def test_prevote_a_leader_with_a_majority_is_not_deposed_by_who_comes_back() -> None:
    scene = ready_leader()
    scene.says("n2", ask(9, last=(9, 8)))
    (answer,) = scene.sent("request_vote_res", "n2")
    assert (answer["granted"], answer["leader"]) == (False, "n0")
    assert (scene.raft.role, scene.raft.term) == ("leader", 1)


def test_prevote_a_leader_without_a_majority_gives_way() -> None:
    scene = ready_leader()
    scene.advance(TIMEOUT * 1.5)
    scene.says("n2", ask(9, last=(9, 8)))
    assert scene.sent("request_vote_res", "n2")[0]["granted"]


def test_prevote_of_two_that_ask_at_once_the_larger_goes_on_and_the_other_drops_out() -> None:
    scene = Scene("n1")
    term = scene.until_sent("request_vote")["term"]
    scene.says("n0", ask(term, pre=True))
    scene.says("n2", ask(term, pre=True))
    assert not scene.sent("request_vote_res", "n0")[0]["granted"]
    assert scene.sent("request_vote_res", "n2")[0]["granted"]
    scene.says("n0", vote(term, pre=True))
    assert scene.raft.role == "follower"


def test_prevote_the_larger_asks_again_one_that_a_promise_bound_when_it_asked_first() -> None:
    scene = follower()
    term = scene.until_sent("request_vote", "n2")["term"]
    scene.says("n2", vote(1, granted=False, pre=True, leader="n0"))
    scene.sent("request_vote")
    scene.says("n0", ask(term, pre=True))
    assert scene.sent("request_vote", "n0")[0]["pre"]
    scene.says("n0", vote(term, pre=True))
    assert scene.raft.role == "candidate"


def test_prevote_a_larger_one_that_has_failed_does_not_stand_in_the_way_of_others() -> None:
    scene = follower()
    term = scene.until_sent("request_vote", "n0")["term"]
    scene.advance(1.01 * scene.raft.times.timeout)
    scene.says("n0", ask(term, pre=True))
    assert scene.sent("request_vote_res", "n0")[0]["granted"]
    assert not scene.sent("request_vote", "n0")


def test_prevote_the_one_that_drops_out_draws_its_own_timeout_anew() -> None:
    scene = follower()
    term = scene.until_sent("request_vote")["term"]
    scene.advance(TIMEOUT * 0.9)
    scene.says("n2", ask(term, pre=True))
    scene.advance(TIMEOUT * 0.9)
    assert not scene.sent("request_vote")


def test_prevote_a_late_real_vote_counts_while_the_next_pre_vote_runs() -> None:
    scene = candidate()
    scene.sent("request_vote")
    assert scene.until_sent("request_vote")["pre"]
    scene.says("n1", vote(1))
    assert (scene.raft.role, scene.raft.term) == ("leader", 1)


def test_prevote_a_candidate_that_learns_of_a_later_term_takes_it_over() -> None:
    scene = follower()
    scene.until_sent("request_vote")
    scene.says("n2", vote(8, granted=False, pre=True))
    assert scene.raft.term == 8


def test_prevote_but_not_the_term_of_a_leader_that_it_does_not_hear() -> None:
    scene = follower()
    scene.until_sent("request_vote")
    scene.says("n2", vote(8, granted=False, pre=True, leader="n0"))
    assert (scene.raft.term, scene.raft.following.leader) == (1, None)


def test_prevote_late_pre_votes_start_no_term_when_there_is_a_later_one() -> None:
    scene = Scene("n1")
    asked = scene.until_sent("request_vote")
    scene.says("n2", ask(5))
    assert scene.sent("request_vote_res", "n2")[0]["granted"]
    scene.says("n0", vote(asked["term"], pre=True))
    assert (asked["pre"], scene.raft.role, scene.raft.term) == (True, "follower", 5)


def test_prevote_who_hears_the_leader_again_does_not_become_a_candidate() -> None:
    scene = follower()
    term = scene.until_sent("request_vote")["term"]
    scene.says("n0", append(1))
    scene.says("n2", vote(term, pre=True))
    assert (scene.raft.role, scene.raft.term) == ("follower", 1)


# Promises and quorums, on which leases depend (thesis 6.4.1)


def test_6_4_1_no_candidacy_before_the_end_of_a_promise_even_if_the_timeout_shrinks() -> None:
    scene = Scene("n1")
    scene.says("n0", append(1, timeout=3.0))
    scene.says("n0", append(1, timeout=0.3))
    scene.advance(2.99)
    assert not scene.sent("request_vote")
    scene.says("n2", ask(2))
    assert not scene.sent("request_vote_res", "n2")[0]["granted"]


def test_6_4_1_a_promise_counts_from_its_receipt() -> None:
    scene = Scene("n1")
    scene.world.time = 0.5
    scene.says("n0", append(1, sent=0.0))
    scene.world.time = 0.5 + TIMEOUT * 0.9
    scene.says("n2", ask(2))
    assert not scene.sent("request_vote_res", "n2")[0]["granted"]


def test_6_2_a_leader_steps_down_when_it_hears_no_majority() -> None:
    scene = ready_leader(nodes=5)
    for _ in range(6):
        scene.advance(TIMEOUT / 2)
        scene.says("n1", appended(1, 1, scene.raft.leading.stamp))
    assert (scene.raft.role, scene.raft.following.leader) == ("follower", None)


def test_6_2_a_leader_stays_while_a_majority_answers() -> None:
    scene = ready_leader(nodes=5)
    for _ in range(20):
        scene.advance(0.25)
        scene.acks("n1", "n4")
    assert (scene.raft.role, scene.raft.term) == ("leader", 1)


# Section 5.3: log replication, the leader


def test_5_3_the_leader_appends_a_command_and_sends_it_to_all() -> None:
    scene = ready_leader()
    msg_id = scene.request(write(1))
    for peer in ("n1", "n2"):
        (sent,) = scene.sent("append_entries", peer)
        ((term, owner, seq, operations),) = sent["entries"]
        assert (term, owner, seq) == (1, "n0", scene.raft.clients.seq)
        assert operations == [["c1", msg_id, write(1)]]
        assert (sent["prev_log_index"], sent["prev_log_term"]) == (1, 1)


def test_5_3_an_entry_is_applied_and_answered_once_a_majority_has_it() -> None:
    scene = ready_leader(nodes=5)
    msg_id = scene.request(write(1))
    scene.acks("n1")
    assert (scene.answer(msg_id), scene.value, scene.raft.commit_index) == (None, None, 1)
    scene.acks("n3")
    assert (scene.answer(msg_id), scene.value) == ({"type": "write_ok"}, 1)
    assert scene.raft.commit_index == 2


def test_5_3_entries_are_applied_in_the_order_of_the_log() -> None:
    scene = ready_leader()
    ids = [scene.request(body) for body in (write(1), cas(1, 2), cas(1, 3))]
    scene.acks("n1")
    kinds = [(scene.answer(msg_id) or {})["type"] for msg_id in ids]
    assert (kinds, scene.value) == (["write_ok", "cas_ok", "error"], 2)


def test_5_3_the_leader_tells_followers_what_is_committed() -> None:
    scene = ready_leader()
    scene.request(write(1))
    scene.acks("n1")
    scene.sent("append_entries")
    assert scene.until_sent("append_entries", "n2")["leader_commit"] == 2


def test_5_3_a_new_leader_begins_after_its_own_last_entry() -> None:
    scene = follower(term=2, entries=[no_op(1), entry(2, 7)])
    become_leader(scene)
    sent = scene.sent("append_entries", "n2")[-1]
    assert (sent["prev_log_index"], sent["prev_log_term"]) == (2, 2)
    assert sent["entries"] == [no_op(3)]


def test_8_a_leader_appends_a_no_op_at_the_start_of_its_term() -> None:
    scene = follower(entries=[no_op(1)])
    become_leader(scene)
    assert scene.sent("append_entries", "n0")[0]["entries"] == [no_op(2)]


def long_log() -> Scene:
    """n1, with ten entries of term 1, leads term 2, and entry 11 is its no-op."""
    scene = follower(entries=[entry(1, value) for value in range(1, 11)])
    become_leader(scene)
    return scene


def test_5_3_after_a_rejection_the_leader_goes_back_to_the_hint_and_not_by_one() -> None:
    scene = long_log()
    refused = scene.sent("append_entries", "n0")[-1]
    assert refused["prev_log_index"] == 10
    scene.says("n0", appended(2, 3, refused["sent"], success=False))
    (again,) = scene.sent("append_entries", "n0")
    assert (again["prev_log_index"], again["prev_log_term"]) == (3, 1)
    assert len(again["entries"]) == 8


def test_5_3_what_a_follower_lacks_before_all_that_was_sent_is_sent_as_soon_as_it_answers() -> None:
    scene = long_log()
    first = scene.sent("append_entries", "n0")[-1]["sent"]
    scene.says("n0", appended(2, 4, first))  # it keeps what it got, and waits for the rest
    (again,) = scene.sent("append_entries", "n0")
    assert (again["prev_log_index"], len(again["entries"])) == (4, 7)
    scene.says("n0", appended(2, 4, first))
    assert not scene.sent("append_entries", "n0"), "that says nothing of what was sent since"
    scene.says("n0", appended(2, 9, again["sent"]))  # a part of it has come
    assert not scene.sent("append_entries", "n0")


def test_5_3_answers_that_overtake_each_other_move_nothing_back() -> None:
    scene = ready_leader()
    scene.request(write(1))
    scene.request(write(2))
    scene.acks("n1")
    scene.says("n1", appended(1, 1, 0.0))
    scene.request(write(3))
    (sent,) = scene.sent("append_entries", "n1")
    assert (sent["prev_log_index"], len(sent["entries"])) == (3, 1)


def test_5_3_the_leader_does_not_wait_for_answers_to_send_on() -> None:
    scene = ready_leader()
    for value in (1, 2, 3):
        scene.request(write(value))
    sent = scene.sent("append_entries", "n1")
    assert [len(message["entries"]) for message in sent] == [1, 1, 1]
    assert [message["prev_log_index"] for message in sent] == [1, 2, 3]


def test_5_3_the_leader_retries_until_a_follower_has_stored_all_entries() -> None:
    scene = ready_leader()
    scene.request(write(1))
    scene.sent("append_entries")
    for _ in range(3):
        again = scene.until_sent("append_entries", "n1")
        assert (again["prev_log_index"], len(again["entries"])) == (1, 1)
    scene.says("n1", appended(1, 2, again["sent"]))
    assert scene.until_sent("append_entries", "n1")["entries"] == []


def test_5_3_nothing_is_sent_again_before_an_answer_can_have_come() -> None:
    scene = new_leader()
    scene.knows_latency(0.2)
    scene.acks(*scene.peers)
    scene.request(write(1))
    scene.advance(2 * 0.2)
    assert [len(sent["entries"]) for sent in scene.sent("append_entries", "n1")].count(1) == 1
    scene.advance(3 * TICK)
    assert [len(sent["entries"]) for sent in scene.sent("append_entries", "n1")].count(1) == 1


def test_5_3_a_follower_that_is_not_heard_gets_heartbeats_only() -> None:
    scene = ready_leader()
    for _ in range(10):
        scene.advance(0.1)
        scene.says("n2", appended(1, 1, 0.0))
    scene.sent("append_entries")
    scene.request(write(1))
    scene.advance(0.3)
    assert not any(message["entries"] for message in scene.sent("append_entries", "n1"))
    scene.says("n1", appended(1, 1, 0.0))
    assert scene.sent("append_entries", "n1")[-1]["entries"]


def test_5_3_stamps_strictly_increase_even_while_the_clock_stands_still() -> None:
    scene = ready_leader()
    for value in range(5):
        scene.request(write(value))
    stamps = [message["sent"] for message in scene.sent("append_entries", "n1")]
    assert len(stamps) == 5 and stamps == sorted(set(stamps))


# Section 5.3: log replication, the follower


def test_5_3_a_follower_takes_what_follows_on_its_last_entry() -> None:
    scene = follower(entries=[no_op(1), entry(1, 7)])
    scene.says("n0", append(1, prev=(2, 1), entries=[entry(1, 8)], commit=3))
    assert scene.sent("append_entries_res", "n0")[-1]["match"] == 3
    assert (scene.terms, scene.value) == ([1, 1, 1], 8)


def test_5_3_it_refuses_what_follows_on_an_entry_of_another_term() -> None:
    scene = follower(term=1, entries=[no_op(1), entry(1, 7)])
    scene.says("n0", append(3, prev=(2, 2), entries=[entry(3, 8)], commit=3))
    assert not scene.sent("append_entries_res", "n0")[-1]["success"]
    assert (scene.terms, scene.raft.commit_index) == ([1, 1], 0)


def test_5_3_its_hint_skips_all_entries_of_the_conflicting_term() -> None:
    scene = follower(term=2, entries=[no_op(1), no_op(2), entry(2, 7), entry(2, 8)])
    scene.says("n0", append(5, prev=(4, 4)))
    answer = scene.sent("append_entries_res", "n0")[-1]
    assert (answer["success"], answer["match"]) == (False, 1)


def test_5_3_its_hint_is_never_behind_what_is_committed() -> None:
    scene = follower(term=2, entries=[entry(2, value) for value in range(1, 6)], commit=3)
    scene.says("n0", append(5, prev=(5, 4)))
    assert scene.sent("append_entries_res", "n0")[-1]["match"] == 3


def test_5_3_an_entry_in_conflict_is_deleted_with_all_that_follow_it() -> None:
    scene = follower(term=2, entries=[no_op(1), no_op(2), entry(2, 7), entry(2, 8)])
    scene.says("n0", append(3, prev=(1, 1), entries=[no_op(3)]))
    assert scene.terms == [1, 3]


def test_5_3_duplicated_appends_change_nothing() -> None:
    message = append(1, entries=[no_op(1), entry(1, 7)], commit=2)
    scene = Scene("n1")
    scene.says("n0", message, message)
    scene.says("n0", message)
    assert scene.terms == [1, 1]
    assert [answer["match"] for answer in scene.sent("append_entries_res")] == [2, 2]


def test_5_3_an_append_that_was_overtaken_never_shortens_a_log() -> None:
    scene = Scene("n1")
    scene.says("n0", append(1, entries=[no_op(1), entry(1, 7), entry(1, 8)]))
    scene.says("n0", append(1, entries=[no_op(1)]), append(1, prev=(1, 1)))
    assert scene.terms == [1, 1, 1]
    assert scene.sent("append_entries_res", "n0")[-1]["match"] == 3


def test_5_3_an_append_that_holds_less_than_the_log_does_not_cut_what_is_unverified() -> None:
    scene = follower(term=1, entries=[no_op(1), entry(1, 7), entry(1, 8)])
    scene.says("n2", append(2, prev=(1, 1), entries=[entry(1, 7)]))
    assert scene.terms == [1, 1, 1]


def test_5_3_an_append_that_came_early_waits_for_the_one_before_it() -> None:
    scene = follower(entries=[no_op(1)])
    scene.says("n0", append(1, prev=(3, 1), entries=[entry(1, 9)]))
    scene.says("n0", append(1, prev=(2, 1), entries=[entry(1, 8)]))
    answers = scene.sent("append_entries_res", "n0")
    assert [(answer["success"], answer["match"]) for answer in answers] == [(True, 1)] * 2
    scene.says("n0", append(1, prev=(1, 1), entries=[entry(1, 7)]))
    assert scene.sent("append_entries_res", "n0")[-1]["match"] == 4


def test_5_3_a_heartbeat_that_comes_even_earlier_does_not_take_its_entries_place() -> None:
    scene = follower(entries=[no_op(1)])
    scene.says("n0", append(1, prev=(2, 1), entries=[entry(1, 8)]))
    scene.says("n0", append(1, prev=(2, 1)))
    scene.says("n0", append(1, prev=(1, 1), entries=[entry(1, 7)]))
    assert scene.sent("append_entries_res", "n0")[-1]["match"] == 3


def test_5_3_what_came_early_is_forgotten_with_the_term_of_its_leader() -> None:
    scene = follower(entries=[no_op(1)])
    scene.says("n0", append(1, prev=(2, 1), entries=[entry(1, 9)]))
    scene.says("n2", append(2, prev=(1, 1), entries=[no_op(2)]))
    assert scene.terms == [1, 2]


def test_5_3_only_so_many_that_came_early_are_kept() -> None:
    scene = follower(entries=[no_op(1)])
    for index in range(2 * raft.EARLY_APPENDS, 1, -1):
        scene.says("n0", append(1, prev=(index, 1), entries=[entry(1, index)]))
    scene.says("n0", append(1, prev=(1, 1), entries=[entry(1, 1)]))
    assert scene.sent("append_entries_res", "n0")[-1]["match"] < 2 * raft.EARLY_APPENDS


def test_5_3_a_follower_commits_only_what_it_knows_to_be_the_leaders() -> None:
    scene = follower(term=1, entries=[no_op(1), entry(1, 7), entry(1, 8)])
    scene.says("n2", append(2, prev=(1, 1), commit=3))
    assert (scene.raft.commit_index, scene.value) == (1, None)
    scene.says("n2", append(2, prev=(1, 1), entries=[entry(1, 7)], commit=3))
    assert (scene.raft.commit_index, scene.value) == (2, 7)


def test_5_3_a_follower_acknowledges_only_what_it_knows_to_be_the_leaders() -> None:
    scene = follower(term=1, entries=[no_op(1), entry(1, 7), entry(1, 8)])
    scene.says("n2", append(2, prev=(1, 1)))
    assert scene.sent("append_entries_res", "n2")[-1]["match"] == 1


def test_5_3_the_commit_index_never_decreases() -> None:
    scene = follower(entries=[no_op(1), entry(1, 7)], commit=2)
    scene.says("n0", append(1, prev=(2, 1), commit=1))
    assert scene.raft.commit_index == 2


def test_5_3_what_is_committed_is_never_changed() -> None:
    scene = follower(entries=[no_op(1), entry(1, 7)], commit=2)
    scene.says("n2", append(3, prev=(1, 1), entries=[entry(3, 8)]))
    assert (scene.terms, scene.value) == ([1, 1], 7)


def test_5_3_one_answer_for_all_appends_of_a_turn_echoes_the_newest() -> None:
    scene = Scene("n1")
    scene.says(
        "n0",
        append(1, entries=[no_op(1)], sent=0.25, timeout=0.5),
        append(1, prev=(1, 1), entries=[entry(1, 7)], sent=0.125, timeout=0.75),
    )
    (answer,) = scene.sent("append_entries_res", "n0")
    assert (answer["match"], answer["sent"], answer["timeout"]) == (2, 0.25, 0.5)


def test_5_3_an_answer_to_a_new_leader_echoes_nothing_of_the_one_before() -> None:
    scene = follower()
    said = {"n0": append(1, sent=9.0, timeout=0.9), "n2": append(2, sent=1.0)}
    scene.hears(*({"src": src, "dest": "n1", "body": body} for src, body in said.items()))
    (answer,) = scene.sent("append_entries_res")
    assert (answer["term"], answer["sent"], answer["timeout"]) == (2, 1.0, TIMEOUT)


# Section 5.4.2: committing entries of earlier terms


def figure_8() -> Scene:
    """S1 (n0) of the paper's figure 8 leads a later term and has an entry of term 2 at index 2."""
    scene = Scene("n0", nodes=5)
    scene.says("n4", append(2, entries=[no_op(1), entry(2, 7)]))
    become_leader(scene)
    return scene


def test_5_4_2_no_entry_of_an_earlier_term_is_committed_by_counting_replicas() -> None:
    scene = figure_8()
    for peer in ("n1", "n2", "n3"):
        scene.says(peer, appended(3, 2, 0.0))  # without the entry of this term, as in (c)
    assert (scene.raft.commit_index, scene.value) == (0, None)
    scene.says("n4", append(5, prev=(1, 1), entries=[entry(4, 8)], commit=2))  # (d)
    assert (scene.terms, scene.value) == ([1, 4], 8)


def test_5_4_2_an_entry_of_the_current_term_commits_those_before_it() -> None:
    scene = figure_8()
    for peer in ("n1", "n2"):
        scene.says(peer, appended(3, 3, 0.0))  # (e)
    assert (scene.raft.commit_index, scene.value) == (3, 7)


# Section 8: reads (thesis 6.4)


def test_8_no_read_is_answered_before_the_no_op_is_committed() -> None:
    scene = new_leader()
    stamp = scene.sent("append_entries", "n1")[-1]["sent"]
    scene.says("n1", appended(1, 0, stamp))  # so there is a lease
    msg_id = scene.request(READ)
    assert scene.answer(msg_id) is None
    scene.says("n1", appended(1, 1, stamp))
    assert scene.answer(msg_id) is not None


def test_6_4_1_with_a_lease_a_read_is_answered_at_once_and_without_a_message() -> None:
    scene = ready_leader()
    scene.world.time += TIMEOUT / 2
    assert scene.answer(scene.request(READ)) is not None
    assert not scene.sent("append_entries")


def waits(scene: Scene) -> bool:
    """Whether a read has to wait for a majority."""
    return scene.answer(scene.request(READ)) is None


def test_6_4_1_a_lease_ends_earlier_than_the_promises_for_clocks_drift() -> None:
    scene = ready_leader()
    scene.world.time += TIMEOUT * 0.95
    msg_id = scene.request(READ)
    assert scene.answer(msg_id) is None
    scene.acks("n1")
    assert scene.answer(msg_id) is not None


def test_6_4_1_a_lease_is_as_long_as_the_timeout_that_the_follower_promised() -> None:
    scene = new_leader()
    scene.acks("n1", "n2", timeout=0.1)
    scene.world.time += 0.15
    assert waits(scene)


def test_6_4_1_a_lease_counts_from_when_the_message_was_sent() -> None:
    scene = new_leader()
    scene.world.time += 0.2
    scene.acks("n1")
    scene.world.time += 0.15
    assert waits(scene)


def test_6_4_1_a_lease_needs_the_promises_of_a_majority() -> None:
    scene = ready_leader(nodes=5)
    scene.world.time += 0.2
    scene.request(write(1))
    scene.acks("n1")
    scene.world.time += 0.2
    assert waits(scene)


def test_6_4_a_read_by_index_waits_for_a_majority_to_answer_what_was_sent_after_it() -> None:
    scene = ready_leader(nodes=5, reads="index")
    scene.request(write(1))
    scene.acks("n1", "n2")
    scene.request(write(2))
    before = scene.sent("append_entries", "n1")[-1]["sent"]
    msg_id = scene.request(READ)
    for peer in scene.peers:
        scene.says(peer, appended(1, 2, before))
    assert scene.answer(msg_id) is None
    scene.acks("n3")
    assert scene.answer(msg_id) is None
    scene.acks("n4")
    assert scene.answer(msg_id) == {"type": "read_ok", "value": 2}


def test_6_4_each_read_by_index_asks_at_once_even_while_others_wait() -> None:
    scene = ready_leader(reads="index")
    for _ in range(3):
        scene.sent("append_entries")
        assert waits(scene)
        assert len(scene.sent("append_entries", "n1")) == 1


@pytest.mark.parametrize("reads", ["index", "lease"])
def test_6_4_an_answer_that_was_overtaken_takes_nothing_back(reads: str) -> None:
    scene = ready_leader(reads=reads)
    scene.world.time += 1.5 * TIMEOUT  # the lease ends
    msg_id = scene.request(READ)
    newest = scene.sent("append_entries", "n1")[-1]["sent"]
    scene.says("n1", appended(1, 1, newest), appended(1, 1, 0.0))
    assert scene.answer(msg_id)
    assert waits(scene) == (reads == "index")


def test_8_a_read_by_log_is_an_entry() -> None:
    scene = ready_leader(reads="log")
    msg_id = scene.request(READ)
    assert scene.answer(msg_id) is None and scene.raft.log.last.operations[0][2] == READ
    scene.acks("n1")
    assert scene.answer(msg_id) is not None


def test_8_a_leader_that_is_cut_off_serves_no_stale_read() -> None:
    world = World()
    nodes: dict[str, Raft] = {id: world.add(id, Raft) for id in ("n0", "n1", "n2")}
    world.init()
    world.until(lambda: nodes["n0"].commit_index == 1 and nodes["n1"].following.leader)
    world.lost = lambda message: "n0" in (message["src"], message["dest"])
    world.until(lambda: "leader" in (nodes["n1"].role, nodes["n2"].role))
    others = {id: world.request(id, write(2), f"c{id}") for id in ("n1", "n2")}
    world.until(lambda: any(world.answer(msg_id) for msg_id in others.values()))
    assert nodes["n0"].role == "leader"
    msg_id = world.request("n0", READ)
    world.advance(2.0)
    assert (world.answer(msg_id) or {})["code"] == 11


# Section 8: exactly once


def test_8_an_operation_takes_effect_once_however_often_it_is_in_the_log() -> None:
    once = entry(1, cas(1, 2), msg_id=5)
    scene = follower(entries=[entry(1, 1), once, entry(1, 1, msg_id=6), once], commit=4)
    assert scene.value == 1


def test_8_and_each_time_it_has_the_same_answer() -> None:
    scene = ready_leader()
    once = ["c1", 5, cas(1, 2)]
    scene.says("n1", forward(1, [["c1", 4, write(1)], once]), forward(2, [once]))
    scene.acks("n2")
    assert [scene.answer(5), scene.answer(5)] == [{"type": "cas_ok"}] * 2


# Operations at their owner, the node that the client asked


def test_owner_all_operations_of_a_turn_go_to_the_leader_in_one_message() -> None:
    scene = Scene("n1")
    scene.says("n0", append(1, sent=100.0))
    operations = [{"msg_id": 1, **write(1)}, {"msg_id": 2, **write(2)}, {"msg_id": 3, **READ}]
    scene.hears(*({"src": "c1", "dest": "n1", "body": body} for body in operations))
    (sent,) = scene.sent("forward", "n0")
    assert sent["writes"] == [["c1", 1, write(1)], ["c1", 2, write(2)]]
    assert sent["reads"] == [["c1", 3, READ]]
    assert sent["owner"] == "n1"


def test_owner_at_the_deadline_a_read_and_what_never_left_get_error_11() -> None:
    scene = Scene("n1")  # knows no leader
    ids = [scene.request(READ), scene.request(write(1))]
    scene.advance(0.85)
    assert not any(map(scene.answer, ids))
    scene.advance(0.15)
    assert [(scene.answer(msg_id) or {})["code"] for msg_id in ids] == [11, 11]


def test_owner_at_the_deadline_a_write_that_may_happen_gets_no_answer() -> None:
    scene = follower()
    read, written = scene.request(READ), scene.request(write(1))
    scene.advance(2.0)
    assert (scene.answer(read) or {})["code"] == 11
    assert scene.answer(written) is None
    assert not scene.raft.clients.pending


def test_owner_who_hears_the_leader_sends_to_it_first() -> None:
    scene = follower()
    for value in range(8):
        scene.request(write(value))
    assert len(scene.sent("forward", "n0")) == 8


def test_owner_a_retry_goes_to_another_node_than_the_last_try() -> None:
    """The link to the leader may be cut, in either direction."""
    scene = follower()
    scene.request(write(1))
    tries = []
    for _ in range(17):
        tries.append([dest for dest in ("n0", "n2") for _ in scene.sent("forward", dest)])
        scene.advance(0.05)
        scene.says("n0", append(1))
    first, *others = filter(None, tries)
    assert first == ["n0"] and len(others) >= 3
    assert others[:3] == [["n2"], ["n0"], ["n2"]]  # of two, never the same twice


def test_owner_everything_goes_to_a_new_leader_at_once() -> None:
    scene = follower()
    scene.request(write(1))
    scene.request(write(2))
    scene.says("n2", append(2))
    assert len(scene.sent("forward", "n2")) == 2


def test_owner_what_a_leader_has_done_by_half_goes_to_the_next_one() -> None:
    scene = ready_leader()
    requests = [{"msg_id": 1, **READ}, {"msg_id": 2, **write(1)}]
    scene.hears(*({"src": "c1", "dest": "n0", "body": body} for body in requests))
    assert scene.answer(1)
    scene.says("n2", append(2, prev=(1, 1), entries=[no_op(2)]))
    assert scene.sent("forward", "n2")[0]["writes"] == [["c1", 2, write(1)]]


def test_owner_a_new_leader_takes_its_own_pending_operations() -> None:
    scene = Scene("n1")
    scene.advance(0.9)
    scene.says("n2", ask(0, pre=True))
    scene.advance(0.2)  # a request may have waited for what ends a silence
    msg_id = scene.request(write(1))
    become_leader(scene)
    scene.acks("n0")
    assert scene.answer(msg_id) == {"type": "write_ok"}


def test_owner_what_the_leader_has_done_is_not_sent_again() -> None:
    scene = follower()
    scene.request(write(1))
    scene.request(write(2))
    first, second = (body["seq"] for body in scene.sent("forward"))
    scene.says("n0", append(1, done=[first]), append(1, done=[second]))
    scene.advance(TIMEOUT)
    assert not scene.raft.clients.pending and not scene.sent("forward")


def test_owner_who_hears_no_leader_goes_through_a_voter_that_follows_one() -> None:
    scene = Scene("n1")
    scene.request(write(1))
    scene.says("n2", vote(8, granted=False, leader="n0"))
    assert len(scene.sent("forward", "n2")) == 1
    scene.request(write(2))
    assert len(scene.sent("forward", "n2")) == 1


def test_owner_sends_nothing_again_when_another_refusal_comes() -> None:
    """Otherwise each voter in an election would cause a retry of all pending batches."""
    scene = Scene("n1", nodes=5)
    scene.says("n2", vote(8, granted=False, leader="n0"))
    scene.request(write(1))
    assert len(scene.sent("forward", "n2")) == 1
    scene.says("n3", vote(8, granted=False, leader="n0"))
    assert not scene.sent("forward")
    scene.request(write(2))
    assert len(scene.sent("forward", "n3")) == 1  # the last one is the relay


def test_owner_a_relay_is_forgotten_with_the_next_campaign() -> None:
    scene = Scene("n1")
    scene.says("n2", vote(8, granted=False, leader="n0"))
    scene.until_sent("request_vote")
    msg_id = scene.request(write(1))
    assert not scene.sent("forward")
    scene.advance(1.0)
    assert (scene.answer(msg_id) or {})["code"] == 11  # it never left


def test_owner_believes_nobody_about_another_leader_while_it_hears_one() -> None:
    scene = follower()
    scene.says("n2", vote(8, granted=False, leader="n2"))
    scene.request(write(1))
    assert len(scene.sent("forward")) == len(scene.raft.clients.pending) == 1
    assert scene.raft.following.leader == "n0" and scene.raft.following.relay is None


def test_owner_knows_better_than_others_that_it_leads_no_more() -> None:
    scene = candidate()
    scene.says("n1", vote(1, granted=False, leader="n0"))
    scene.request(write(1))
    assert not scene.sent("forward")


def test_owner_forgets_the_relay_when_it_leads_itself() -> None:
    scene = Scene("n0")
    scene.says("n1", vote(1, granted=False, leader="n2"))
    become_leader(scene)
    scene.request(write(1))
    term = scene.raft.term + 1
    scene.says("n1", appended(term, 0, 0.0, success=False))  # it leads no more
    assert scene.raft.role == "follower" and not scene.sent("forward")
    scene.says("n1", vote(term, granted=False, leader="n2"))
    assert len(scene.sent("forward", "n1")) == 1


# Forwarded batches: the leader, and relays


def test_forward_is_taken_once_by_the_leader_however_often_it_comes() -> None:
    scene = ready_leader()
    again = forward(5, [["c1", 1, write(1)]])
    scene.says("n1", again, again)
    scene.says("n2", again)
    assert scene.raft.log.size == 2


def test_forward_is_acknowledged_to_its_owner_whoever_relayed_it() -> None:
    scene = ready_leader()
    scene.says("n1", forward(5, [["c1", 1, write(1)]]))
    scene.says("n2", forward(6, [["c1", 2, write(2)]]))
    scene.acks("n1", "n2")
    assert scene.until_sent("append_entries", "n1")["done"] == [5, 6]
    assert [body["done"] for body in scene.sent("append_entries", "n2")] == [[]]


def test_forward_that_comes_again_is_acknowledged_again() -> None:
    scene = ready_leader()
    done = forward(5, [["c1", 1, write(1)]])
    scene.says("n1", done)
    scene.acks("n1", "n2")
    assert scene.until_sent("append_entries", "n1")["done"] == [5]
    for via in ("n2", "n1", "n1"):
        scene.sent("append_entries")
        scene.says(via, done, appended(1, 2, scene.raft.leading.stamp))
        assert scene.until_sent("append_entries", "n1")["done"] == [5]
    assert scene.raft.log.size == 2


def test_forward_is_acknowledged_when_both_its_reads_and_its_writes_are_done() -> None:
    scene = ready_leader()
    scene.says("n1", forward(5, [["c1", 1, write(1)]], [["c1", 2, READ]]))
    assert scene.answer(2)
    assert scene.until_sent("append_entries", "n1")["done"] == []
    scene.acks("n2")
    assert scene.answer(1)
    assert scene.until_sent("append_entries", "n1")["done"] == [5]


def test_forward_what_an_operation_need_not_have_goes_nowhere() -> None:
    scene = follower()
    more = {"create_if_not_exists": False, "mine": 1}
    scene.request({**cas(1, 2), **more})
    scene.request({**cas(1, 2), **more, "create_if_not_exists": True})
    sent = [body["writes"][0][2] for body in scene.sent("forward", "n0")]
    assert sent == [cas(1, 2), {**cas(1, 2), "create_if_not_exists": True}]


def test_forward_is_passed_on_to_the_leader_as_it_is() -> None:
    scene = Scene("n1")
    scene.says("n0", append(1, sent=100.0))
    passed_on = forward(5, [["c1", 1, write(1)]], [["c2", 2, READ]], owner="n2")
    scene.says("n2", passed_on)
    assert scene.sent("forward", "n0") == [passed_on]


def test_forward_is_relayed_once() -> None:
    scene = follower(term=2)
    scene.says("n2", forward(5, owner="n0"))  # n2 is not its owner
    assert not scene.sent("forward")


def test_forward_is_not_relayed_where_no_leader_is_heard_nor_back_to_it() -> None:
    scene = Scene("n1")
    scene.says("n0", ask(1))
    scene.says("n2", forward(5, owner="n2"))
    assert not scene.sent("forward")
    scene = follower()
    scene.says("n0", forward(5, owner="n0"))
    assert not scene.sent("forward")


def test_forward_an_inherited_entry_is_answered_by_its_owners_next_try() -> None:
    operation = ["c1", 5, cas(1, 2)]
    scene = follower(entries=[entry(1, 1), [1, "n2", 1, [operation]]])
    become_leader(scene)
    scene.acks("n0")
    assert scene.value == 2 and scene.answer(5) is None
    scene.says("n2", forward(1, [operation], owner="n2"))
    scene.acks("n0")
    assert scene.answer(5) == {"type": "cas_ok"}


def test_forward_of_an_inherited_entry_is_answered_once_for_its_own() -> None:
    operation = ["c1", 5, cas(1, 2)]
    scene = follower(entries=[entry(1, 1), [1, "n2", 1, [operation]]])
    become_leader(scene)
    scene.says("n2", forward(1, [operation], owner="n2"))
    scene.acks("n0")
    assert scene.raft.log.size == scene.raft.commit_index == 4
    assert (scene.answer(5), scene.answer(5)) == ({"type": "cas_ok"}, None)
    scene.sent("append_entries")
    assert scene.until_sent("append_entries", "n2")["done"] == [1]


def test_forward_a_malformed_operation_gets_12_and_never_enters_a_log() -> None:
    scene = ready_leader()
    for body in ({"type": "write", "key": 1}, {**cas(1, 2), "create_if_not_exists": 1}):
        assert (scene.answer(scene.request(body)) or {})["code"] == 12
    assert scene.raft.log.size == 1
    refusal = scene.answer(scene.request({"type": "cas", "key": 1})) or {}
    assert refusal["text"] == "the operation lacks from, to"


# Times: the messages whose round trips are measured


def test_times_a_round_trip_makes_the_timeout_longer() -> None:
    scene = new_leader()
    for _ in range(40):
        stamp = scene.until_sent("append_entries", "n1")["sent"]
        scene.advance(0.2)
        scene.says("n1", appended(1, 1, stamp))
    assert scene.until_sent("append_entries", "n1")["timeout"] == pytest.approx(0.5, rel=0.1)


def test_times_the_answer_of_a_voter_tells_a_round_trip_too() -> None:
    scene = Scene("n1")
    for _ in range(26):
        asked = scene.until_sent("request_vote", "n2")
        scene.advance(0.25)
        scene.says("n2", vote(asked["term"], granted=False, pre=True, sent=asked["sent"]))
    assert scene.raft.times.rtt == pytest.approx(0.25)


def test_times_a_pause_of_a_follower_is_no_round_trip() -> None:
    scene = ready_leader()
    for _ in range(40):
        scene.advance(0.1)
        scene.request(write(1))
        scene.acks("n2")
    for _ in range(2):
        scene.advance(0.02)
        scene.says("n1", appended(1, 1, 0.0))
    scene.advance(0.2)
    assert scene.raft.role == "leader"
    assert scene.sent("append_entries", "n1")[-1]["timeout"] < 0.5


def test_times_a_follower_takes_the_leaders_timeout() -> None:
    scene = Scene("n1")
    scene.says("n0", append(1, timeout=2.0))
    start = scene.world.time
    scene.until_sent("request_vote")
    assert 2.0 <= scene.world.time - start <= 3.0


def test_times_an_answer_to_a_second_copy_of_an_old_message_tells_nothing() -> None:
    """Seed 106210: copies that came up to a second later made the network look slow."""
    scene = ready_leader()
    scene.knows_latency(0.01)
    old = scene.until_sent("append_entries", "n1")["sent"]
    scene.says("n1", appended(1, 1, old))
    for _ in range(40):
        scene.advance(0.2)
        scene.acks("n2")
        newest = scene.sent("append_entries", "n1")[-1]["sent"]
        scene.says("n1", appended(1, 1, newest))
        scene.advance(0.011)  # between two samples
        scene.says("n1", appended(1, 1, old))
    assert max(scene.raft.times._samples) < 0.25


def test_times_one_slow_follower_does_not_make_the_network_slow() -> None:
    scene = ready_leader()
    scene.knows_latency(0.01)
    stamps: list[float] = []
    for value in range(60):
        scene.advance(0.2)
        scene.request(write(value))
        stamps.append(scene.sent("append_entries", "n1")[-1]["sent"])
        scene.acks("n2")
        scene.advance(0.011)  # between two samples
        scene.says("n1", appended(1, 1, stamps[-10:][0]))  # two seconds later
    assert scene.raft.times.rtt < 0.02 and scene.raft.times.timeout < 0.5


def test_times_an_answer_that_others_have_overtaken_by_little_counts() -> None:
    scene = ready_leader()
    scene.knows_latency(0.1)
    first, second = (scene.until_sent("append_entries", "n1")["sent"] for _ in range(2))
    scene.advance(0.1)
    scene.says("n1", appended(1, 1, second))
    scene.advance(0.02)
    before = [*scene.raft.times._samples]
    scene.says("n1", appended(1, 1, first))
    assert scene.raft.times._samples[-1] == pytest.approx(scene.world.time - first)
    assert [*scene.raft.times._samples] != before


# Messages that are refused

SAID: list[Body] = [
    ask(9),
    vote(9),
    append(9, entries=[entry(9, 1)]),
    appended(9, 1, 0.0),
    forward(1, [["c1", 1, write(1)]], [["c1", 2, READ]]),
]


@pytest.mark.parametrize("source", ["n7", "c1", "", "n0"])
def test_check_only_other_servers_are_listened_to(source: str) -> None:
    for message in SAID:
        scene = ready_leader()
        scene.says(source, {**message, "msg_id": 1})
        refusal = [*scene.world.inbox, *scene.world.mail][-1]  # mail: to itself
        assert (refusal["dest"], refusal["body"]["code"]) == (source, 12)
        assert (scene.raft.role, scene.raft.term, scene.raft.log.size) == ("leader", 1, 1)


def test_check_a_commit_index_that_is_ahead_commits_what_is_there() -> None:
    scene = follower(entries=[no_op(1), entry(1, 7)], commit=10**6)
    assert (scene.raft.commit_index, scene.value) == (2, 7)


@pytest.mark.parametrize("name", ["key", "value"])
def test_check_what_a_client_nests_too_deep_enters_no_log(name: str) -> None:
    """No follower would accept such an entry, nor any later entry."""
    scene = ready_leader()
    deep: Any = 1
    for _ in range(raft.MAX_NESTING + 1):
        deep = [deep]
    refused = scene.answer(scene.request({**write(1), name: deep}))
    assert refused and refused["code"] == 12 and scene.raft.log.size == 1
    assert scene.request({**write(1), name: deep[0]}) and scene.raft.log.size == 2


def test_check_a_batch_is_not_remembered_longer_than_anybody_waits() -> None:
    scene = ready_leader()
    scene.says("n1", forward(1, reads=[["c1", 1, READ]]))
    scene.world.time += 2 * raft.KEPT_BATCHES
    scene.raft.review_followers(scene.node.now())
    assert not scene.raft.leading.accepted


def test_of_a_batch_that_is_done_a_leader_does_not_keep_the_operations() -> None:
    """A leader remembers thousands of batches. Their operations would take most of its memory."""
    scene = ready_leader()
    scene.says("n1", forward(1, [["c1", 1, write(1)]], [["c1", 2, READ]]))
    (batch,) = scene.raft.leading.accepted.values()
    assert batch.writes
    scene.acks("n2")
    assert scene.answer(1) and scene.answer(2) and not (batch.reads or batch.writes)


# The number of messages


@pytest.mark.parametrize("nodes", [3, 7, 15])
def test_cost_an_idle_cluster_of_any_size_sends_at_most_50_messages_a_second(nodes: int) -> None:
    world = World()
    rafts = [world.add(f"n{i}", Raft) for i in range(nodes)]
    world.init()
    world.advance(2.0)
    assert rafts[0].role == "leader"
    count = 0

    def counted(message: Message) -> bool:
        nonlocal count
        count += 1
        return False

    world.lost = counted
    world.advance(10.0)
    assert 10 * (nodes - 1) <= count <= 500
    assert [raft.role for raft in rafts].count("leader") == 1 and rafts[0].term == 1


def test_cost_on_a_near_network_who_is_not_needed_to_commit_gets_several_writes_at_once() -> None:
    scene = new_leader(5)
    scene.knows_latency(0.002)
    scene.world.time += 0.002
    scene.acks(*scene.peers)
    for value in range(2):
        scene.world.time += 0.0021
        scene.request(write(value))
        for needed in ("n1", "n2"):  # with the leader they are a majority
            assert len(scene.sent("append_entries", needed)) == 1
    assert not scene.sent("append_entries", "n3") + scene.sent("append_entries", "n4")
    scene.world.time += raft.SPARE * 0.002
    scene.request(write(3))
    (sent,) = scene.sent("append_entries", "n4")
    assert len(sent["entries"]) == 3


def test_cost_a_leader_whose_disk_lacks_its_newest_entries_needs_one_follower_more() -> None:
    """Such a leader does not count itself yet, and its disk may be the slowest."""
    scene = new_leader(5)
    scene.knows_latency(0.002)
    scene.world.time += 0.002
    scene.acks(*scene.peers)
    scene.raft.storage.save = lambda *args: None
    scene.request(write(1))
    assert [len(scene.sent("append_entries", peer)) for peer in scene.peers] == [1, 1, 1, 0]


def test_cost_on_a_near_network_another_is_needed_for_one_that_is_silent() -> None:
    scene = new_leader(5)
    scene.knows_latency(0.002)
    scene.world.time += 0.002
    scene.acks(*scene.peers)
    while scene.world.time < TIMEOUT + 0.1:  # n1 is silent
        scene.world.time += 0.1
        scene.request(write(1))
        scene.acks("n2", "n3", "n4")
    scene.raft.review_followers(scene.world.time)  # nothing is under way to it any more
    for value in range(2):
        scene.world.time += 0.0021
        scene.request(write(value))
        assert len(scene.sent("append_entries", "n3")) == 1


def test_cost_on_a_near_network_another_is_needed_for_one_that_answers_nothing_a_while() -> None:
    """Otherwise writes would wait for an election timeout, until the follower counts as silent."""
    scene = new_leader(5)
    scene.knows_latency(0.002)
    scene.world.time += 0.002
    scene.acks(*scene.peers)
    scene.request(write(1))
    scene.acks("n2")
    assert not scene.sent("append_entries", "n3")
    scene.world.time += raft.SPARE * 0.002 + 0.001
    scene.request(write(2))
    scene.acks("n2", "n3")
    scene.world.time += 0.0021
    scene.request(write(3))
    assert scene.sent("append_entries", "n3")


def test_cost_on_a_near_network_reads_that_ask_all_do_not_keep_writes_from_who_is_not_needed(
) -> None:  # fmt: skip
    scene = ready_leader(5, reads="index")
    scene.knows_latency(0.002)
    entries = 0
    for value in range(4 * int(raft.SPARE)):
        scene.world.time += 0.001
        scene.request(READ)
        scene.request(write(value))
        entries += sum(len(sent["entries"]) for sent in scene.sent("append_entries", "n4"))
        scene.acks("n1", "n2", "n3")
    assert entries >= 2 * raft.SPARE


def test_owner_a_late_answer_is_given_all_the_same() -> None:
    """A client skips an answer that it does not wait for, and a slow client may still wait."""
    scene = ready_leader()
    msg_id = scene.request(write(1))
    scene.world.time += 5.0
    scene.acks("n1")
    assert scene.answer(msg_id) == {"type": "write_ok"}
