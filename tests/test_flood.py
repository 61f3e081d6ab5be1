"""A cluster under a flood of garbage: it refuses what no server can mean, and serves on.

Some lines are no messages, some are malformed requests of clients, and some look like messages of
servers, but lack a field, have one more, or come from a source that is no other server. What a real
server could have said is left out: no Raft survives a server that lies.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from in_process import World
from test_raft import follower
from workbench.checkers.linearizable import check_history
from workbench.record.history import Op
from workbench.running.client import Outcome, failure, proceed
from workbench.workloads.lin_kv import LinKv
from workbench.workloads.workload import Conversation, Settings

import raft
from node import Body, Message
from raft import Raft

ROOT = Path(__file__).resolve().parents[1]
NODES = ("n0", "n1", "n2")
CLIENTS = ("c0", "c1", "c2", "c3", "c4")
MALFORMED = 12
HUGE = 10**18
LIE = [["c1", 1, {"type": "write", "key": 0, "value": "a lie"}]]
OTHERS = set[str]().union(*raft.FIELDS.values()) | {"more", ""}  # names of fields
VALUES: list[Any] = [None, True, 0, -1, HUGE, 1.5, 1e308, "1", [], [1], {}, {"a": 1}, LIE]
NESTED = "arrays within arrays, deeper than Python goes, or almost"
CLIENT_GARBAGE: list[Body] = [
    {}, {"type": None}, {"type": 7}, {"type": ["read"]}, {"type": {}},
    {"type": "read"}, {"type": "write", "key": 0}, {"type": "cas", "key": 0, "from": 1},
    {"type": "write", "value": 1}, {"type": "cas", "key": 0, "to": 1},
    {"type": "cas", "key": 0, "from": 1, "to": 2, "create_if_not_exists": "yes"},
    {"type": "init"}, {"type": "init", "node_id": "n9", "node_ids": ["n9"]},
    {"type": "init", "node_id": 7, "node_ids": [7]}, {"type": "init", "node_ids": 7},
]  # fmt: skip


class Sent(NamedTuple):
    """A line to a node, and who gets a reply if there is one."""

    line: bytes
    src: str | None
    msg_id: int
    due: bool  # a reply


class Flood:
    """Garbage for a node, from a seed; no msg_id comes twice."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.msg_id = HUGE

    def from_servers(self, node: str) -> tuple[Any, Body]:
        """A server's message, but for its source, or the names of its fields."""
        type = self.rng.choice([*raft.FIELDS])
        names = raft.FIELDS[type]
        body: Body = {name: self.rng.choice(VALUES) for name in names}
        peers = [peer for peer in NODES if peer != node]
        src = self.rng.choice([*peers, *peers, *peers, node, "n9", "c1", "", "\ud800"])
        strange = self.rng.sample(sorted(OTHERS - names), self.rng.randrange(3))
        if src in peers and not strange:
            del body[self.rng.choice(sorted(names))]
        return src, {"type": type, **body, **dict.fromkeys(strange, NESTED)}

    def next(self, node: str) -> Sent:
        """A line that asks for a refusal, or for nothing."""
        self.msg_id += 1
        chance = self.rng.random()
        src: Any
        if chance < 0.05:
            line = self.rng.randbytes(self.rng.randrange(80)).replace(b"\n", b"")
            return Sent(line, None, 0, False)
        if chance < 0.15:
            src, body = CLIENTS[0], dict(self.rng.choice(CLIENT_GARBAGE))
        else:
            src, body = self.from_servers(node)
        if self.rng.random() < 0.05:
            src = self.rng.choice([None, 7, ["n0"], {}])
        if asks := self.rng.random() < 0.8:
            body["msg_id"] = self.msg_id
        else:
            body.pop("msg_id", None)
            body["neither"] = 1
        line = json.dumps({"src": src, "dest": node, "body": body}).encode()
        if chance > 0.98:
            line, asks = line[: self.rng.randrange(len(line))], False
        asks = asks and isinstance(src, str)
        # Python reads fewer levels than it finds room for, or shows fewer than it has read.
        depth = self.rng.randrange(850, 1000)
        deep = line.replace(json.dumps(NESTED).encode(), b"[" * depth + b"]" * depth)
        return Sent(deep, src if asks else None, self.msg_id, asks and line == deep)


@pytest.mark.parametrize("type", raft.FIELDS)
def test_a_message_is_refused_if_it_lacks_a_field_or_has_one_more(type: str) -> None:
    right = dict.fromkeys(raft.FIELDS[type], 1)
    for name in raft.FIELDS[type]:
        scene = follower()
        lacking = {key: value for key, value in right.items() if key != name}
        scene.says("n0", {**lacking, "type": type, "msg_id": 1})
        (error,) = scene.sent("error", "n0")
        assert error["code"] == MALFORMED and name in error["text"]
    scene.says("n0", {**right, "type": type, "more": 1, "msg_id": 1})
    (error,) = scene.sent("error", "n0")
    assert (error["code"], error["text"]) == (MALFORMED, f"{type} lacks or has no more, msg_id")


def check_refusals(garbage: list[Sent], answers: list[Message]) -> None:
    refusals = {m["body"]["in_reply_to"]: m for m in answers if is_refusal(m)}
    for sent in garbage:
        refusal = refusals.pop(sent.msg_id, None)
        assert refusal or not sent.due, sent.line
        if refusal:
            assert refusal["dest"] == sent.src
            assert refusal["body"]["code"] == MALFORMED, (sent.line, refusal)
    assert not refusals


def is_refusal(message: Message) -> bool:
    """Whether it answers garbage, which has the msg_ids above HUGE."""
    return bool(message["body"].get("in_reply_to", 0) > HUGE)


class Clients:
    """Five clients of a cluster, each with one operation at a time, and their history."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world, self.rng = world, rng
        self.workload = LinKv(rng, Settings(len(NODES)))
        self.history: list[Op] = []
        self.processes = 0
        self.value = 0
        # By msg_id, with the moment until which the client waits.
        self.busy: dict[int, tuple[int, str, Any, Conversation, float]] = {}

    def invoke(self) -> None:
        """A new operation of one that is free: each value that is written is a new one."""
        if len(self.busy) == 5:
            return
        key, f = self.rng.randrange(3), self.rng.choice(["read", "write", "cas"])
        self.value += 1
        old = self.rng.randrange(max(0, self.value - 8), self.value)
        value = [key, {"read": None, "write": self.value, "cas": [old, self.value]}[f]]
        free = set(range(5)) - {process % 5 for process, *_ in self.busy.values()}
        self.processes += 5
        process = self.processes + min(free)
        self.event(process, "invoke", f, value)
        talk = self.workload.converse(f, value, None, None)
        msg_id = self.world.request(self.rng.choice(NODES), next(talk), f"c{process % 5}")
        self.busy[msg_id] = (process, f, value, talk, self.world.time + 1.0)

    def complete(self) -> None:
        """Takes the answers, and gives up what has waited for a second."""
        for msg_id, (process, f, value, talk, until) in list(self.busy.items()):
            reply = self.world.answer(msg_id)
            if reply is not None or self.world.time >= until:
                del self.busy[msg_id]
                done = failure(self.workload, f, value, reply) or proceed(value, talk, reply)
                assert isinstance(done, Outcome) and not done.problem
                self.event(process, done.type, f, done.value, done.error)

    def event(self, process: int, type: str, f: str, value: Any, error: Any = None) -> None:
        time = int(self.world.time * 1e9)
        self.history.append(Op(process, type, f, value, time, len(self.history), error))


class Cluster:
    """Three nodes in virtual time, and what floods them."""

    def __init__(self, seed: int, reads: str = "lease") -> None:
        self.world = World()
        self.rafts: dict[str, Raft] = {
            id: self.world.add(id, lambda node: Raft(node, reads)) for id in NODES
        }
        self.world.init()
        self.flood = Flood(seed)
        self.clients = Clients(self.world, random.Random(seed))
        self.world.until(lambda: any(raft.role == "leader" for raft in self.rafts.values()))

    def hear(self, node_id: str, count: int) -> int:
        """So many lines of garbage in one turn; each that asks for an answer gets its refusal."""
        world, node = self.world, self.world.nodes[node_id]
        garbage = [self.flood.next(node_id) for _ in range(count)]
        before, state = len(world.mail), self.state(node_id)
        node._turn(node._receive, b"\n".join(sent.line for sent in garbage))
        answers = [*world.inbox, *list(world.mail)[before:]]
        check_refusals(garbage, answers)
        assert self.state(node_id) == state
        world.inbox = [message for message in world.inbox if not is_refusal(message)]
        assert all(message["dest"] in CLIENTS for message in world.inbox)
        assert not any("Traceback" in line for line in node.log_lines), node.log_lines[-1]
        return count

    def state(self, node_id: str) -> object:
        """The state that a message from a server might change."""
        node = self.rafts[node_id]
        following, leading, times = node.following, node.leading, node.times
        return (
            node.role, node.term, node.voted_for, node.log.size, node.commit_index, node.promise,
            node.members.known, following.leader, following.relay, following.verified,
            list(following.early), following.incoming.index, following.incoming.size,
            list(leading.accepted), [one.match_index for one in leading.followers.values()],
            times.timeout, times.rtt, list(node.clients.pending),
        )  # fmt: skip

    def committed(self, node_id: str) -> list[raft.Entry]:
        node = self.rafts[node_id]
        return node.log.from_index(1, node.commit_index + 1)


@pytest.mark.parametrize("reads", ["lease", "index", "log"])
def test_a_cluster_flooded_with_garbage_refuses_it_and_stays_linearizable(reads: str) -> None:
    cluster, rng = Cluster(1, reads), random.Random(2)
    world, clients = cluster.world, cluster.clients
    total, cut_off = 0, [""]
    world.lost = lambda message: cut_off[0] in (message["src"], message["dest"])
    while total < 10_000:
        if rng.random() < 0.03:  # so that it also hits candidates, and leaders that lose touch
            cut_off[0] = rng.choice([*NODES, "", ""])
        for node_id in NODES:
            total += cluster.hear(node_id, rng.randrange(20))
            clients.invoke()
            clients.complete()
        world.advance(0.03)
        clients.complete()
    cut_off[0] = ""

    for node_id in NODES:
        for body in ({"type": "write", "key": 9, "value": node_id}, {"type": "read", "key": 9}):
            msg_id = world.request(node_id, body, "c0")
            reply = world.until(partial(world.answer, msg_id), 2.0)
            assert reply in ({"type": "write_ok"}, {"type": "read_ok", "value": node_id})
    world.advance(1.0)
    clients.complete()
    logs = [cluster.committed(node_id) for node_id in NODES]
    assert logs[0] == logs[1] == logs[2]
    for node in cluster.rafts.values():
        assert node.commit_index == node.log.size
    analyses = check_history(clients.history)
    assert analyses.keys() == {0, 1, 2}
    assert all(analysis.valid is True for analysis in analyses.values()), analyses
    assert not any(analysis.contradiction for analysis in analyses.values()), analyses


def test_a_process_answers_after_2000_lines_of_garbage() -> None:
    flood = Flood(3)
    garbage = [flood.next("n0") for _ in range(2000)]
    init = {"type": "init", "node_id": "n0", "node_ids": ["n0"], "msg_id": 1}
    write = {"type": "write", "key": 0, "value": 5, "msg_id": 2}
    read = {"type": "read", "key": 0, "msg_id": 3}
    first, *last = (
        json.dumps({"src": "c0", "dest": "n0", "body": body}).encode()
        for body in (init, write, read)
    )
    lines = b"\n".join([first, *(sent.line for sent in garbage), *last])
    words = [sys.executable, str(ROOT / "raft.py")]
    ran = subprocess.run(words, input=lines, capture_output=True, timeout=600)
    assert ran.returncode == 0
    assert b"Traceback" not in ran.stderr
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    check_refusals(garbage, answers)
    assert [answer["body"] for answer in answers if not is_refusal(answer)] == [
        {"type": "init_ok", "in_reply_to": 1},
        {"type": "write_ok", "in_reply_to": 2},
        {"type": "read_ok", "value": 5, "in_reply_to": 3},
    ]
