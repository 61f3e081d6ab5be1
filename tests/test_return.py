"""Nodes without stable storage: how they begin together, and how one comes back without memory.

Each start of such a node has a number. What a node has forgotten, a vote, a promise or entries that
it had acknowledged, must not be missed: until the others have committed its return it neither votes
nor counts.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from in_process import World
from test_raft import (
    LONG,
    READ,
    Scene,
    append,
    appended,
    ask,
    become_leader,
    no_op,
    vote,
    write,
)
from test_snapshot import part

from node import Body
from raft import FOUNDING, TICK, Raft, Storage

FOUNDER = {"n0": 10}
N1, N2, AGAIN = 11, 12, 99  # incarnations of n1 and n2, and of a node that comes back


def take_part(**members: int) -> list[Any]:
    """An entry of term 1 that says who takes part: the founder's first one, or a return."""
    return [1, "", 0, [[node_id, start, {}] for node_id, start in members.items()]]


def founder() -> Scene:
    """n0 of n0, n1, n2, all of them new, asks for the votes of term 1."""
    return Scene("n0", forgets=True)


def leader() -> Scene:
    """n0 has all votes, and its first entry is committed."""
    scene = founder()
    scene.knows_latency(0.0)
    scene.says("n1", vote(1, members={"n1": N1}))
    scene.says("n2", vote(1, members={"n2": N2}))
    scene.acks("n1", start=N1)
    scene.acks("n2", start=N2)
    assert scene.raft.role == "leader" and scene.raft.commit_index == 1
    return scene


def member() -> Scene:
    """n1 follows n0, and knows from its log who takes part."""
    scene = Scene("n1", forgets=True)
    scene.says("n0", append(1, entries=[take_part(n0=1, n1=scene.raft.members.incarnation, n2=N2)]))
    assert scene.raft.members.is_member
    scene.advance(LONG)  # its promise ends
    scene.world.inbox.clear()
    return scene


class Cluster:
    """Three real nodes, which remember nothing."""

    def __init__(self) -> None:
        self.world = World()
        self.rafts: dict[str, Raft] = {id: self.world.add(id, Raft) for id in ("n0", "n1", "n2")}
        self.world.init()

    def __getitem__(self, node_id: str) -> Raft:
        return self.rafts[node_id]

    def kill(self, node_id: str) -> None:
        """Restarts a node without memory."""
        self.rafts[node_id] = self.world.add(node_id, Raft)
        self.world.init(node_id)

    def serves(self, node_id: str, body: Body) -> Body:
        """The answer of a node that is asked until it has a good one."""
        while True:
            asked = self.world.request(node_id, body)
            self.world.advance(1.0)
            answer = self.world.answer(asked)
            if answer and answer["type"] != "error":
                return answer


def is_granted(scene: Scene, body: Any, src: str = "n2") -> bool:
    scene.says(src, body)
    return bool(scene.sent("request_vote_res", src)[-1]["granted"])


# Founding


def test_to_found_takes_the_votes_of_all() -> None:
    scene = founder()
    scene.says("n1", vote(1, members={"n1": N1}))
    assert scene.raft.role == "candidate"
    scene.says("n2", vote(1, members={"n2": N2}))
    assert scene.raft.role == "leader"
    first = scene.sent("append_entries", "n1")[0]["entries"][0]
    assert first == take_part(n0=scene.raft.members.incarnation, n1=N1, n2=N2)


def test_the_first_node_is_ready_when_its_first_entry_is_committed() -> None:
    """Faults begin when all nodes are ready; then nobody could found before they end."""
    scene = founder()
    scene.says("n1", vote(1, members={"n1": N1}))
    scene.says("n2", vote(1, members={"n2": N2}))
    assert scene.raft.role == "leader" and not scene.world.ready
    scene.acks("n1", start=N1)
    assert scene.world.ready == ["n0"]
    scene.advance(FOUNDING)
    assert scene.world.ready == ["n0"]


@pytest.mark.parametrize("forgets", [True, False])
def test_it_is_ready_after_a_while_even_if_others_are_missing(forgets: bool) -> None:
    scene = Scene("n0", forgets=forgets)
    scene.advance(FOUNDING - TICK / 2)
    assert not scene.world.ready
    scene.advance(2 * TICK)
    assert scene.world.ready == ["n0"]


def test_the_others_and_a_lone_node_are_ready_at_once() -> None:
    assert Scene("n1", forgets=True).world.ready == ["n1"]
    assert Scene("n0", nodes=1, forgets=True).world.ready == ["n0"]


def test_a_founder_asks_again_for_the_votes_that_it_has_not() -> None:
    scene = founder()
    scene.says("n1", vote(1, members={"n1": N1}))
    scene.sent("request_vote")
    asked = scene.until_sent("request_vote", "n2")
    assert (asked["pre"], asked["term"]) == (False, 1)
    assert asked["claim"] == {"n0": scene.raft.members.incarnation}
    assert not scene.sent("request_vote", "n1")
    scene.says("n2", vote(1, members={"n2": N2}))
    assert scene.raft.role == "leader"


def test_a_founder_that_is_refused_asks_for_the_votes_of_another_term() -> None:
    scene = founder()
    scene.says("n1", vote(1, members={"n1": N1}))
    scene.says("n2", vote(1, granted=False, members={"n2": N2}))
    scene.says("n2", vote(1, members={"n2": N2}))  # too late
    assert scene.raft.role == "candidate"
    scene.sent("request_vote")
    assert scene.until_sent("request_vote", "n2")["term"] == 2
    assert scene.sent("request_vote", "n1")


def test_one_that_hears_of_a_cluster_does_not_found_another() -> None:
    """Else its terms would grow, and the others could elect nobody."""
    scene = founder()
    members = {"n0": scene.raft.members.incarnation - 1, "n1": N1, "n2": N2}
    scene.says("n1", vote(1, granted=False, members=members))
    scene.sent("request_vote")
    scene.advance(LONG)
    assert not scene.sent("request_vote") and scene.raft.term == 1


def test_a_founder_that_learns_of_a_cluster_from_a_candidate_is_not_elected() -> None:
    """Else n0, wiped, and n1, which lacks the first entry, found again: n2's writes are lost."""
    scene = founder()
    members = {"n0": scene.raft.members.incarnation - 1, "n1": N1, "n2": N2}
    scene.says("n2", ask(2, last=(1, 1), pre=True, members=members))
    scene.says("n1", vote(1, members={"n1": N1}))
    assert scene.raft.role != "leader"


def test_votes_that_were_given_to_the_founder_before_it_came_back_do_not_count() -> None:
    scene = founder()
    scene.says("n1", vote(1, members={"n1": N1}, sent=-1.0))
    scene.says("n2", vote(1, members={"n2": N2}, sent=-1.0))
    assert scene.raft.role == "candidate"


def test_only_the_first_node_founds() -> None:
    scene = Scene("n1", forgets=True)
    scene.advance(LONG)
    assert not scene.sent("request_vote")


def test_a_new_node_votes_for_a_founder_and_says_its_start() -> None:
    scene = Scene("n1", forgets=True)
    scene.says("n0", ask(1, members=FOUNDER))
    (answer,) = scene.sent("request_vote_res", "n0")
    assert (answer["granted"], answer["claim"]) == (True, {"n1": scene.raft.members.incarnation})
    assert not scene.raft.members.is_member  # others may have been asked in vain


def test_a_founder_that_comes_back_gets_no_vote_in_the_same_term() -> None:
    """The first one may have been elected, and what it has said may be on its way still."""
    scene = Scene("n1", forgets=True)
    assert is_granted(scene, ask(1, members=FOUNDER), "n0")
    assert is_granted(scene, ask(1, members=FOUNDER), "n0")
    assert not is_granted(scene, ask(1, members={"n0": AGAIN}), "n0")
    assert is_granted(scene, ask(2, members={"n0": AGAIN}), "n0")


def test_whoever_knows_a_member_does_not_vote_for_a_founder() -> None:
    scene = member()
    assert not is_granted(scene, ask(9, (9, 9), members=FOUNDER), "n0")


def test_a_founder_that_dies_after_it_acknowledged_a_write_does_not_found_again() -> None:
    """n1 has the write and does not know that it is committed; n2 has nothing of it."""
    cluster = Cluster()
    world = cluster.world
    world.deliver()  # votes, the first entry and its acknowledgements
    world.lost = lambda message: message["dest"] == "n2"
    asked = world.request("n0", write(7))
    world.step()
    world.step()
    world.step()
    assert world.answer(asked) == {"type": "write_ok"}
    assert cluster["n1"].last_applied < cluster["n1"].log.size
    world.mail.clear()
    world.lost = lambda message: False
    cluster.kill("n0")
    assert cluster.serves("n1", READ) == {"type": "read_ok", "value": 7}


def test_one_that_has_heard_of_the_founding_from_a_candidate_takes_part() -> None:
    scene = Scene("n1", forgets=True)
    scene.advance(LONG)
    members = {"n0": 1, "n1": scene.raft.members.incarnation, "n2": N2}
    assert is_granted(scene, ask(2, pre=True, members=members))
    assert scene.until_sent("request_vote")["claim"]["n2"] == N2


# Coming back


def test_a_node_that_comes_back_does_not_vote() -> None:
    scene = Scene("n1", forgets=True)
    members = {"n0": 1, "n1": scene.raft.members.incarnation - 1, "n2": N2}
    assert not is_granted(scene, ask(5, (9, 4), members=members))
    assert not is_granted(scene, ask(5, (9, 4), pre=True, members=members))
    assert scene.raft.term == 0
    scene.advance(LONG)
    assert not scene.sent("request_vote")


def test_it_votes_again_when_its_return_is_committed() -> None:
    scene = Scene("n1", forgets=True)
    members = {"n0": 1, "n1": N1, "n2": N2}
    back = take_part(n1=scene.raft.members.incarnation)
    scene.says("n0", append(1, entries=[take_part(**members), back], commit=1))
    scene.advance(LONG)
    assert not scene.sent("request_vote")
    scene.says("n0", append(1, (2, 1), commit=2))
    mine = {"n1": scene.raft.members.incarnation}
    assert scene.until_sent("request_vote")["claim"] == {**members, **mine}
    assert not scene.raft.sessions.records()  # it is no client's operation


def test_a_later_leader_that_has_not_heard_of_a_return_does_not_undo_it() -> None:
    scene = Scene("n1", forgets=True)
    members = {"n0": 1, "n1": N1, "n2": N2}
    back = take_part(n1=scene.raft.members.incarnation)
    scene.says("n0", append(2, entries=[take_part(**members), back, no_op(2)], commit=3))
    assert scene.raft.last_applied == 3 and scene.raft.members.is_member
    scene.says("n0", append(2, (3, 2), [no_op(2)]))  # nor does the founder's first entry
    assert scene.raft.log.size == 4 and scene.raft.members.is_member


def test_a_new_node_hears_a_leader_before_it_has_an_entry() -> None:
    scene = Scene("n1", forgets=True)
    scene.says("n0", append(1))
    assert scene.sent("append_entries_res", "n0")[-1]["success"]
    assert scene.raft.following.leader == "n0" and not scene.raft.members.known


def test_a_candidate_that_has_not_heard_of_a_return_does_not_undo_it() -> None:
    scene = member()
    scene.says("n0", append(1, (1, 1), [take_part(n2=AGAIN)], commit=2))
    scene.advance(LONG)
    members = {"n0": 1, "n1": scene.raft.members.incarnation, "n2": N2}
    assert is_granted(scene, ask(5, (2, 1), members=members), "n0")
    assert scene.raft.members.known["n2"] == AGAIN


def test_only_the_founder_and_a_return_say_who_takes_part() -> None:
    """A later leader may know of a return only what was before it: its first entry says nothing."""
    scene = member()
    scene.says("n0", append(1, (1, 1), [take_part(n2=AGAIN)], sent=1.0))  # not committed
    scene.advance(LONG)
    become_leader(scene)
    assert scene.raft.members.known["n2"] == N2
    assert [*scene.raft.log.last] == no_op(scene.raft.term)


def test_it_returns_though_others_are_always_quicker_to_have_the_newest_entry() -> None:
    scene = leader()
    log = scene.raft.log
    for value in range(10):
        scene.request(write(value))
        scene.says("n2", appended(1, log.size, scene.raft.leading.stamp, start=N2))
        scene.says("n1", appended(1, max(0, log.size - 3), scene.raft.leading.stamp, start=AGAIN))
        scene.advance(0.04)
    entries = [[*log[index]] for index in range(1, log.size + 1)]
    assert entries.count(take_part(n1=AGAIN)) == 1


def test_it_does_not_return_before_it_has_what_was_committed_when_it_came() -> None:
    scene = leader()
    for value in range(3):
        scene.request(write(value))
        scene.says("n2", appended(1, scene.raft.log.size, scene.raft.leading.stamp, start=N2))
    size = scene.raft.log.size
    for match in (0, size - 1):
        scene.says("n1", appended(1, match, scene.raft.leading.stamp, start=AGAIN))
        scene.advance(0.04)
        assert scene.raft.log.size == size
    scene.says("n1", appended(1, size, scene.raft.leading.stamp, start=AGAIN))
    scene.advance(0.04)
    assert [*scene.raft.log.last] == take_part(n1=AGAIN)


def test_what_it_says_does_not_count_before_its_return_is_committed() -> None:
    scene = leader()
    scene.request(write(1))
    scene.acks("n1", start=AGAIN)
    assert scene.raft.commit_index == 1
    scene.advance(0.1)
    size = scene.raft.log.size
    assert [*scene.raft.log[size]] == take_part(n1=AGAIN)
    scene.acks("n1", start=AGAIN)
    scene.advance(0.1)
    assert scene.raft.commit_index == 1 and scene.raft.log.size == size  # once is enough
    scene.says("n2", appended(1, size, scene.raft.leading.stamp, start=N2))
    assert scene.raft.commit_index == size
    scene.request(write(2))
    scene.acks("n1", start=AGAIN)
    assert scene.raft.commit_index == scene.raft.log.size == size + 1


def test_what_is_committed_stays_so_when_one_that_had_it_has_forgotten_it() -> None:
    scene = leader()
    scene.request(write(1))
    scene.acks("n1", start=N1)  # n2 has not got it
    assert scene.raft.commit_index == 2
    scene.says("n1", appended(1, 0, scene.raft.leading.stamp, start=AGAIN))
    scene.request(write(2))
    assert scene.raft.commit_index == 2


def test_it_is_not_back_before_it_has_what_is_committed() -> None:
    scene = leader()
    scene.request(write(1))
    scene.acks("n2", start=N2)
    scene.says("n1", appended(1, 0, scene.raft.leading.stamp, success=False, start=AGAIN))
    scene.advance(0.1)
    assert scene.raft.log.size == 2


def test_its_promise_and_its_answers_do_not_count_for_reads() -> None:
    scene = leader()
    scene.advance(0.5)  # the leases end
    scene.acks("n1", start=AGAIN)
    asked = scene.request(READ)
    scene.acks("n1", start=AGAIN)
    assert scene.answer(asked) is None
    scene.acks("n2", start=N2)
    assert scene.answer(asked)


def test_what_its_clients_want_is_not_taken_for_what_others_wanted_before() -> None:
    """The leader knows the batches of its earlier life by their numbers, and that they are done."""
    cluster = Cluster()
    assert cluster.serves("n1", write(1)) == {"type": "write_ok"}
    cluster.kill("n1")
    asked = cluster.world.request("n1", write(2))
    cluster.world.advance(0.8)
    assert cluster.world.answer(asked) == {"type": "write_ok"}


def test_a_node_that_is_back_counts_for_a_leader_who_knows_that_by_its_vote_alone() -> None:
    scene = member()
    for pre in (True, False):
        asked = scene.until_sent("request_vote", "n2")
        scene.says("n2", vote(asked["term"], pre=pre, members={"n2": AGAIN}))
    scene.advance(0.1)
    assert scene.raft.role == "leader"
    scene.acks("n2", start=AGAIN)
    assert scene.raft.commit_index == scene.raft.log.size


def test_a_snapshot_says_who_takes_part() -> None:
    scene = leader()
    assert scene.raft.snapshot().members == scene.raft.members.known
    other = Scene("n1", forgets=True)
    members = {"n0": 1, "n1": other.raft.members.incarnation, "n2": N2}
    body = part([["x", 1]], size=1)
    other.says("n0", {**body, "members": members})
    assert other.raft.members.known == members and other.raft.members.is_member


@pytest.mark.parametrize("victim", ["n0", "n1", "n2"])
def test_a_cluster_whose_nodes_come_back_one_at_a_time_keeps_what_it_had(victim: str) -> None:
    cluster = Cluster()
    assert cluster.serves("n0", write(7))["type"] == "write_ok"
    others = [node_id for node_id in cluster.world.nodes if node_id != victim]
    cluster.kill(victim)
    cluster.world.until(lambda: cluster[victim].members.is_member)
    cluster.kill(others[0])  # if the first one had not come back, only one would be left
    assert cluster.serves(others[1], READ) == {"type": "read_ok", "value": 7}


def test_a_node_without_an_entry_of_the_leaders_term_is_not_readmitted() -> None:
    """Else it might vote a second time in that term: nothing in its log would speak against it.

    Five nodes: X was elected by X, F and A; Y has the votes of Y and C. F forgets that. If it is
    readmitted with an empty log, and hears so from another node's claim before the first entry
    comes, it may vote for Y, whose request is late. Then X and Y lead the same term.
    """
    scene = Scene("n1", nodes=5)
    become_leader(scene)
    assert scene.raft.commit_index == 0 and scene.raft.leading.term_start == 1
    term, stamp = scene.raft.term, scene.raft.leading.stamp
    scene.says("n0", appended(term, 0, stamp, start=AGAIN))
    scene.advance(2 * TICK)
    assert scene.raft.log.size == 1  # no entry readmits it
    scene.says("n0", appended(term, 1, scene.raft.leading.stamp, start=AGAIN))
    scene.advance(2 * TICK)
    assert list(scene.raft.log.last.operations[0]) == ["n0", AGAIN, {}]


# Nodes with files


class Files(Cluster):
    """Three real nodes with a file each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = World()
        self.rafts = {id: self.add(id) for id in ("n0", "n1", "n2")}
        self.world.init()

    def add(self, node_id: str) -> Raft:
        storage = Storage(str(self.folder / node_id))
        node: Raft = self.world.add(node_id, lambda node: Raft(node, storage=storage))
        return node

    def ends(self, node_id: str) -> Path:
        """The node ends. Returns the folder that its file is in."""
        self.rafts[node_id].storage._db.close()
        return self.folder / node_id

    def starts(self, node_id: str) -> None:
        self.rafts[node_id] = self.add(node_id)
        self.world.init(node_id)

    def cut_off(self, node_id: str) -> None:
        self.world.lost = lambda message: node_id in (message["src"], message["dest"])

    def logged(self, node_id: str, text: str) -> bool:
        return any(text in line for line in self.world.nodes[node_id].log_lines)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    cluster = Files(tmp_path)
    assert cluster.serves("n0", write(7))["type"] == "write_ok"
    return cluster


@pytest.mark.parametrize("victim", ["n0", "n1", "n2"])
def test_a_node_whose_file_was_moved_away_is_readmitted(files: Files, victim: str) -> None:
    """Its new incarnation is no member, so it does not count with entries that it lacks."""
    other, third = (node_id for node_id in files.world.nodes if node_id != victim)
    before = files[victim].members.incarnation
    shutil.rmtree(files.ends(victim))
    files.starts(victim)
    assert files[victim].members.incarnation != before and not files[victim].members.is_member
    assert files.serves(other, write(8))["type"] == "write_ok"
    files.world.until(lambda: files[victim].members.is_member)
    files.cut_off(third)
    assert files.serves(other, READ) == {"type": "read_ok", "value": 8}
    assert files.serves(victim, write(9))["type"] == "write_ok"


def test_a_node_that_starts_again_with_its_file_has_lost_nothing(files: Files) -> None:
    for _ in range(3):
        files.ends("n1")
        files.starts("n1")
        assert files["n1"].members.is_member
        assert files.serves("n0", write(8))["type"] == "write_ok"
        files.world.advance(1.0)
    assert not files.logged("n0", "has lost entries")


def test_a_leader_says_which_node_got_an_older_copy_of_its_file(files: Files) -> None:
    """Nothing can heal that, for it has forgotten what it promised; but somebody must know."""
    folder = files.ends("n1")
    older = shutil.copytree(folder, folder.with_name("older"))
    files.starts("n1")
    for value in range(20):
        assert files.serves("n0", write(value))["type"] == "write_ok"
    shutil.rmtree(files.ends("n1"))
    older.rename(folder)
    files.starts("n1")
    files.world.until(lambda: files.logged("n0", "n1 has lost entries after"))
    files.cut_off("n2")
    assert files.serves("n0", write(8))["type"] == "write_ok"


def test_who_are_members_is_known_after_a_restart_even_if_no_entry_came(tmp_path: Path) -> None:
    """Else this node would vote for a first node that was wiped, and founds a second time."""
    files = Files(tmp_path)
    files.world.lost = lambda message: message["body"]["type"] == "append_entries"
    files.world.until(lambda: files["n0"].role == "leader")
    known = {**files["n0"].members.known}
    assert not files["n1"].members.known
    claim = {**ask(2, (1, 1), members=known), "sent": 0.0}
    files.world.nodes["n1"].receive({"src": "n0", "dest": "n1", "body": claim})
    assert files["n1"].members.known == known
    files.ends("n1")
    files.starts("n1")
    assert files["n1"].members.known == known and files["n1"].members.is_member


def test_a_node_votes_once_in_a_term_even_for_a_candidate_that_was_wiped(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.world.lost = lambda message: message["body"]["type"] == "append_entries"
    files.world.until(lambda: files["n0"].role == "leader")
    shutil.rmtree(files.ends("n0"))
    for node_id in ("n1", "n0"):
        if node_id == "n1":
            files.ends("n1")
        files.starts(node_id)
    files.world.deliver()
    assert files["n1"].voted_for == "n0"
    assert files["n1"].voted_incarnation != files["n0"].members.incarnation
    assert files["n0"].role == "candidate"


def test_a_node_says_that_it_has_no_memory_and_when_it_is_readmitted() -> None:
    """Two of three such nodes are stuck for ever: their logs must say why."""
    cluster = Cluster()
    assert cluster.serves("n0", write(7))["type"] == "write_ok"
    for node_id in ("n0", "n1"):
        cluster.kill(node_id)
    cluster.world.advance(30.0)
    assert not any(raft.role == "leader" for raft in cluster.rafts.values())
    for node_id in ("n0", "n1"):
        lines = cluster.world.nodes[node_id].log_lines
        (line,) = [line for line in lines if "without memory" in line]
        assert line.endswith(": it neither votes nor counts until readmitted")


def test_a_founder_says_whose_votes_are_missing() -> None:
    scene = founder()
    scene.says("n1", vote(1, members={"n1": N1}))
    scene.advance(FOUNDING + TICK)
    (line,) = [line for line in scene.node.log_lines if "missing" in line]
    assert line.endswith("needs all votes to found the cluster: n2 missing")
