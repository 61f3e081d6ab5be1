"""A cluster under a flood of garbage: it refuses what no server can mean, and serves on.

Messages are made from the parameters of raft.py's handlers, which say what servers say: right in
every field but at least one, or from a source that is no other server. What a real server could
have said is left out: no Raft survives a server that lies.
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
from workbench.running.client import outcome
from workbench.workloads.lin_kv import LinKv

import raft
from node import Body, Message
from raft import Raft

ROOT = Path(__file__).resolve().parents[1]
NODES = ("n0", "n1", "n2")
CLIENTS = ("c0", "c1", "c2", "c3", "c4")
MALFORMED = 12
HUGE = 10**18
LIE = [["c1", 1, {"type": "write", "key": 0, "value": "a lie"}]]
NESTED = "arrays within arrays, deeper than Python goes, or almost"
NO_INTEGERS: list[Any] = [None, True, "1", 1.5, 1e308, [], [1], {}, {"a": 1}]
NO_INDEXES = [*NO_INTEGERS, -1, -HUGE, HUGE, 10**400]
NO_LISTS: list[Any] = [None, False, 0, "", {}]
NO_OPERATIONS: list[Any] = [
    *NO_LISTS, [None], [[]], [{}], [["c1", 1]], [["c1", "1", {}]], [[1, 1, {}]], [["c1", 1, []]],
    [["c1", True, {}]], [["c1", 1, {}], 0], [["c1", 1, {"type": "read", "key": NESTED}]],
]  # fmt: skip
ABSURD: dict[str, list[Any]] = {  # by kind of field: what it cannot be
    "bool": [None, 0, 1, "true", [], {}],
    "Term": NO_INDEXES,
    "Index": NO_INDEXES,
    "Number": [*NO_INTEGERS, -1, -HUGE],
    "NodeId": [None, 7, True, [], ["n0"], {}, "", "n9", "c1", "\ud800"],
    "MaybeNodeId": [7, False, [], ["n0"], {}, "", "n9", "c1"],
    "Time": [None, True, "1", [], {}, 10**13, -HUGE, 1e308, -1e308, 10**400],
    "MaybeTime": [True, "1", [], {}, 10**13, -HUGE, 1e308, -1e308, 10**400],
    "Seconds": [None, True, "1", [], {}, -1, -0.5, 61, HUGE, 1e308],
    "Entries": [
        *NO_LISTS, [None], [[]], [{}], [[1, "", 0, 0]], [[1, 2, 3, 4, 5]],
        [["1", "", 0, 0, []]], [[HUGE, "", 0, 0, []]], [[-1, "", 0, 0, []]],
        [[1, "n0", 1, HUGE, []]], [[1, "n0", 1, -1, []]], [[1, "n0", -1, 0, []]],
        [[1, "n0", "1", 0, []]], [[1, None, 0, 0, []]], [[1, "n9", 1, 0, []]],
        [[1, "c1", 1, 0, []]], [[1, "n0", 1.5, 0, []]], [[True, "", 0, 0, []]],
        [[1, "", 0, 0, []], None], [[1, "", 0, 0, {}]], [[1, "", 0, 0, [["n9", 1, {}]]]],
        [[1, "", 0, 0, [["n0", None, {}]]]],
        *([[1, "n0", 1, 0, operations]] for operations in NO_OPERATIONS),
    ],
    "Starts": [None, 0, [], "n0", {"n9": 1}, {"n0": -1}, {"n0": None}, {"n0": "1"}],
    "Records": [
        *NO_LISTS, [None], [[]], [{}], [[1]], [["c1", 1, {}]], [[1, "c1", 1, []]],
        [["1", "c1", 1, {}]], [[1, "c1", "1", {}]], [[HUGE, "c1", 1, {}]], [[-1, "c1", 1, {}]],
        [[1, "c1", 1, {"value": NESTED}]],
    ],
    "Operations": NO_OPERATIONS,
    "Batches": [*NO_LISTS, [1], [None], [[]], [["n0"]], [["n0", -1]], [[0, "n0"]], [["n9", 1]]],
}  # fmt: skip
CLIENT_GARBAGE: list[Body] = [
    {}, {"type": None}, {"type": 7}, {"type": ["read"]}, {"type": {}},
    {"type": "read"}, {"type": "write", "key": 0}, {"type": "cas", "key": 0, "from": 1},
    {"type": "write", "value": 1}, {"type": "cas", "key": 0, "to": 1},
    {"type": "cas", "key": 0, "from": 1, "to": 2, "create_if_not_exists": "yes"},
    {"type": "init"}, {"type": "init", "node_id": "n9", "node_ids": ["n9"]},
    {"type": "init", "node_id": 7, "node_ids": [7]}, {"type": "init", "node_ids": 7},
]  # fmt: skip


def kinds_by_name(type: str) -> dict[str, str]:
    """Of the fields of a type of message."""
    kinds = getattr(Raft, type).__annotations__
    return {name: kind for name, kind in kinds.items() if name not in ("src", "return")}


# Fields of one type of message that others do not have: there they mean nothing.
FIELDS = {type: kinds_by_name(type) for type in raft.MESSAGES}
OTHERS = sorted({name for kinds in FIELDS.values() for name in kinds})


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

    def right(self, kind: str, term: int, size: int) -> Any:
        """A field as a server could send it now."""
        match kind:
            case "bool":
                return self.rng.random() < 0.5
            case "Term":
                return term
            case "Index" | "Number":
                return self.rng.choice([0, size])
            case "NodeId" | "MaybeNodeId":
                return self.rng.choice(NODES)
            case "Time" | "MaybeTime":
                return self.rng.choice([0.0, 1, -5.5])
            case "Seconds":
                return self.rng.choice([0, 0.3, 60.0])
            case "Entries":
                no_op, batch = [term, "", 0, 0, []], [term, "n1", 1, 0, LIE]
                return self.rng.choices([no_op, batch], k=self.rng.randrange(3))
            case "Starts":
                return {"n1": 1}
            case "Records":
                return [[1, "c1", 1, {"type": "write_ok"}]] * self.rng.randrange(2)
            case "Operations":
                return LIE
            case "Batches":
                return [["n1", 1]] * self.rng.randrange(3)
        raise ValueError(f"what is a {kind}?")

    def wrong(self, kind: str) -> Any:
        if self.rng.random() < 0.05:
            return NESTED
        return self.rng.choice(ABSURD[kind])

    def from_servers(self, node: str, term: int, size: int) -> tuple[Any, Body]:
        """The source and the body of what looks like a server's message."""
        type = self.rng.choice([type for type, kinds in FIELDS.items() if kinds])
        kinds = FIELDS[type]
        body = {name: self.right(kind, term, size) for name, kind in kinds.items()}
        strange = {name: self.wrong("Index") for name in self.rng.sample(OTHERS, 2)}
        if type == "append_entries":
            body["prev_log_term"] = 0  # so that the terms of absurd entries may follow it
        peers = [peer for peer in NODES if peer != node]
        src = self.rng.choice([*peers, *peers, *peers, node, "n9", "c1", "", "\ud800"])
        names = [*kinds, *["entries"] * 4] if "entries" in kinds else list(kinds)
        some = dict.fromkeys(self.rng.choices(names, k=self.rng.randint(1, 2)))
        for name in some if src in peers else ():
            if self.rng.random() < 0.1:
                del body[name]
                strange.pop(name, None)
            else:
                body[name] = self.wrong(kinds[name])
        return src, {**strange, "type": type, **body}

    def next(self, node: str, term: int, size: int) -> Sent:
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
            src, body = self.from_servers(node, term, size)
        if self.rng.random() < 0.05:
            src = self.rng.choice([None, 7, ["n0"], {}])
        if asks := self.rng.random() < 0.8:
            body["msg_id"] = self.msg_id
        line = json.dumps({"src": src, "dest": node, "body": body}).encode()
        if chance > 0.98:
            line, asks = line[: self.rng.randrange(len(line))], False
        asks = asks and isinstance(src, str)
        # Python reads fewer levels than it finds room for, or shows fewer than it has read.
        depth = self.rng.randrange(850, 1000)
        deep = line.replace(json.dumps(NESTED).encode(), b"[" * depth + b"]" * depth)
        return Sent(deep, src if asks else None, self.msg_id, asks and line == deep)


@pytest.mark.parametrize(
    ("type", "name"), [(type, name) for type, kinds in FIELDS.items() for name in kinds]
)
def test_a_message_is_refused_if_one_field_is_what_it_cannot_be(type: str, name: str) -> None:
    scene, flood = follower(), Flood(1)
    right = {name: flood.right(kind, 1, 1) for name, kind in FIELDS[type].items()}
    deep = "[" * (raft.MAX_NESTING + 1) + "]" * (raft.MAX_NESTING + 1)
    if type == "append_entries":
        right["prev_log_term"] = 0
    for value in ABSURD[FIELDS[type][name]]:
        wrong = json.loads(json.dumps(value).replace(json.dumps(NESTED), deep))
        scene.says("n0", {**right, "type": type, "msg_id": 1, name: wrong})
        (error,) = scene.sent("error", "n0")
        assert error["code"] == MALFORMED
        texts = (f"{name} of {type} is wrong", "terms never decrease", "nested deeper than")
        assert error["text"].startswith(texts), (value, error)


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
        self.workload = LinKv(rng, len(NODES))
        self.history: list[Op] = []
        self.processes = 0
        self.value = 0
        self.busy: dict[int, tuple[int, str, Any, float]] = {}  # by msg_id: until when it waits

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
        request = self.workload.request(f, value)
        msg_id = self.world.request(self.rng.choice(NODES), request, f"c{process % 5}")
        self.busy[msg_id] = (process, f, value, self.world.time + 1.0)

    def complete(self) -> None:
        """Takes the answers, and gives up what has waited for a second."""
        for msg_id, (process, f, value, until) in list(self.busy.items()):
            reply = self.world.answer(msg_id)
            if reply is not None or self.world.time >= until:
                del self.busy[msg_id]
                done = outcome(self.workload, f, value, reply)
                assert not done.problem
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
        world, raft, node = self.world, self.rafts[node_id], self.world.nodes[node_id]
        garbage = [self.flood.next(node_id, raft.term, raft.log.size) for _ in range(count)]
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
        """What a message from a server might change."""
        node = self.rafts[node_id]
        return (
            node.role, node.term, node.voted_for, node.leader, node.log.size, node.verified,
            node.commit_index, node.known_commit, node.promise, node.timeout, node.ahead,
            node.rtt, node.led, node.members.copy(), list(node.pending), list(node.accepted),
            list(node.early), node.incoming.index, node.incoming.size,
            [follower.match_index for follower in node.followers.values()],
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
        assert node.known_commit == node.commit_index == node.log.size
    analyses = check_history(clients.history)
    assert analyses.keys() == {0, 1, 2}
    assert all(analysis.valid is True for analysis in analyses.values()), analyses


def test_a_process_answers_after_2000_lines_of_garbage() -> None:
    flood = Flood(3)
    garbage = [flood.next("n0", 1, 1) for _ in range(2000)]
    init = {"type": "init", "node_id": "n0", "node_ids": ["n0"], "msg_id": 1}
    write = {"type": "write", "key": 0, "value": 5, "msg_id": 2}
    read = {"type": "read", "key": 0, "msg_id": 3}
    first, *last = (
        json.dumps({"src": "c0", "dest": "n0", "body": body}).encode()
        for body in (init, write, read)
    )
    lines = b"\n".join([first, *(sent.line for sent in garbage), *last])
    words = [sys.executable, str(ROOT / "raft.py")]
    ran = subprocess.run(words, input=lines, capture_output=True, timeout=100)
    assert ran.returncode == 0
    assert b"Traceback" not in ran.stderr
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    check_refusals(garbage, answers)
    assert [answer["body"] for answer in answers if not is_refusal(answer)] == [
        {"type": "init_ok", "in_reply_to": 1},
        {"type": "write_ok", "in_reply_to": 2},
        {"type": "read_ok", "value": 5, "in_reply_to": 3},
    ]
