#!/usr/bin/env python3
"""A linearizable key-value store for Maelstrom's lin-kv workload.

Maelstrom's Raft tutorial, in the order in which it grows: a state machine, `Map`; the server that
applies operations to its own one, `Server`; the log that many servers agree on, `Log`; and the way
in which they do, `Raft`: client operations, elections, replication, reads. What the tutorial does
not have, above all the mapping under `Map`, stands at the end.

    ./maelstrom test -w lin-kv --bin raft.py --time-limit 10 --rate 10 --node-count 3 \\
        --concurrency 2n
"""

from __future__ import annotations

import argparse
import json
import math
import os
import threading
import zlib
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from itertools import chain, takewhile
from pathlib import Path
from typing import Any, Final, NamedTuple
from weakref import ref

from node import Body, Message, Node, RPCError, encode


class Map:
    """The state machine: an immutable map from keys to values, both of them any JSON."""

    __slots__ = ("map",)

    def __init__(self, map: PersistentMap | Mapping[Any, Any] | None = None) -> None:
        # Ruby's merge copies the whole map for each write; this one's `set` does not.
        self.map = map if map.__class__ is PersistentMap else PersistentMap((map or {}).items())

    def apply(self, op: Body) -> tuple[Map, Body]:
        """The resulting Map and the completed operation; never raises, whatever a log holds."""
        try:
            k = op["key"]
            match op["type"]:
                case "read":
                    # One look instead of two (key?, then []); a value may be null.
                    value = self.map.get(k, ABSENT)
                    if value is not ABSENT:
                        return self, {"type": "read_ok", "value": value}
                    else:
                        return self, RPCError.key_does_not_exist("not found").to_json()
                case "write":
                    return Map(self.map.set(k, op["value"])), {"type": "write_ok"}
                case "cas":
                    # create_if_not_exists is from Maelstrom's doc/services.md, lin-kv.
                    old, new, create = op["from"], op["to"], may_create(op)
                    value = self.map.get(k, ABSENT)
                    if value is not ABSENT:
                        if identity(value) == identity(old):  # to Python, True == 1
                            return Map(self.map.set(k, new)), {"type": "cas_ok"}
                        else:
                            text = f"expected {show(old)}, but had {show(value)}"
                            return self, RPCError.precondition_failed(text).to_json()
                    elif create:
                        return Map(self.map.set(k, new)), {"type": "cas_ok"}
                    else:
                        return self, RPCError.key_does_not_exist("not found").to_json()
                case str(other):  # Ruby's case ends before, with nil; a client must be told
                    raise RPCError.not_supported(f"no such operation: {show(other)}")
                case _:
                    raise RPCError.malformed_request("the type must be a string")
        except KeyError as error:  # the chapter's ops are whole; a client's need not be
            return self, RPCError.malformed_request(f"the operation lacks {error}").to_json()
        except RPCError as error:
            return self, error.to_json()


class Server:
    """The chapter's server: one state machine, and a lock that synchronizes updates of it.

    With `--unreplicated` each node has a Map of its own; two of them are found out.
    """

    def __init__(self, node: Node | None = None) -> None:
        self.node = node or Node()
        # The node's turns exclude each other already. What the lock adds: a blocking handler, or
        # any thread of one's own, may take it to see or change the state between two requests.
        self.lock = threading.RLock()
        self.state_machine = Map()

        self.node.on("read", self.client_req)
        self.node.on("write", self.client_req)
        self.node.on("cas", self.client_req)

    def client_req(self, msg: Message) -> None:
        """Handles a client's RPC request: applies its body to the state, sends the response."""
        with self.lock:
            self.state_machine, res = self.state_machine.apply(msg["body"])
            self.node.reply(msg, res)


# Times are in seconds of node.now().
TICK = 0.04
HEARTBEAT = 0.17  # at least; longer with many followers, so that there are no more than
HEARTBEATS_PER_SECOND = 48  # and as many answers, in all
LEASE = 0.9  # of the promised timeout: clocks may differ in speed
MAX_TIMEOUT = 60.0  # that a leader may ask for
FIRST_ELECTION = 1.0  # not before: peers may not be up
FOUNDING = 3.0  # that the first node holds its init_ok back, at most
PATIENCE = 0.9  # at least, until an operation is given up: Maelstrom's clients wait for 1 s
ROUND_TRIPS = 4.5  # or so many: they wait for ten times the latency of a message
NEAR = 0.004  # a round trip that an append may wait for
URGENT, SPARE = 0.5, 8.0  # of it, to a follower that is needed to commit, and to another one
SAMPLE_INTERVAL = 0.01  # seconds between two of round trips
FIRST_ROUND_TRIP = 0.15  # taken for granted, until enough of them are known
LATE = 8.0  # round trips: what takes longer, and a majority was quicker, is one node's trouble
KEPT_BATCHES = 3.0  # seconds for which a leader knows a batch again
GONE = 10.0  # seconds of silence after which nothing is kept for a follower

# Sizes are in bytes of memory, about; in a message it is a fifth of that, but for strings.
OPERATION_BYTES = 500  # besides its strings
CHUNK_BYTES = 1 << 19  # in one message; one entry may be larger
WINDOW_BYTES = 1 << 22  # on the way to a follower
KEPT_BYTES, KEPT_ENTRIES = 1 << 23, 50  # at least, of the log behind what is applied: for who lags
CHECKPOINT_BYTES = 1 << 19  # of the log between two of what is stored
EARLY_APPENDS = 64  # messages that a follower keeps because they came too early
FORMAT = 5  # of the file
Operation = Sequence[Any]  # client, msg_id, body
OPERATIONS: Final = {  # the fields that each must have
    "read": frozenset(["type", "msg_id", "key"]),
    "write": frozenset(["type", "msg_id", "key", "value"]),
    "cas": frozenset(["type", "msg_id", "key", "from", "to"]),
}


class Entry(NamedTuple):
    """One place in the log: a batch of operations, and the term of the leader that appended it.

    One without an owner starts a term, or says who takes part from then on: its operations are
    node, start, and nothing.
    """

    term: int
    owner: str = ""  # the node whose clients they are from
    seq: int = 0  # of the owner's batch
    operations: Sequence[Operation] = ()


class Log:
    """The sequence of operations that all nodes agree on, some with each entry.

        index    0   1     2     3     4     5
        term     0   1     1     1     3     3       (2 had no leader, or one whose entries
        writes   -   -    x=1   y=2    -    x=3       were lost)

    Indexes begin at 1; at 0 there is a sentinel of term 0. Invariants:

    - terms never decrease from one entry to the next;
    - two logs that have an entry of the same index and term agree on it and on all before it
      (section 5.3, Log Matching): Raft.accept checks what comes before, so it stays true;
    - a committed entry is never changed or removed: Raft.place begins after what is verified.
    """

    def __init__(self) -> None:
        self.start = 0  # what came before is in a snapshot (section 7); here stands its last term
        self.size = 0  # the index of the last entry
        self.stable = 0  # up to here it is on the disk, if that is where it is kept
        self._entries = [Entry(0)]
        self._bytes = [0]  # of all entries up to one

    @property
    def last(self) -> Entry:
        return self._entries[-1]

    def __getitem__(self, index: int) -> Entry:
        """The entry of an index from `start` on."""
        return self._entries[index - self.start]

    def append(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._entries.append(entry)
            self._bytes.append(self._bytes[-1] + weight(entry.operations))
        self.size = self.start + len(self._entries) - 1

    def from_index(self, index: int, end: int) -> list[Entry]:
        """The entries from this index, after `start`, on and before `end`."""
        return self._entries[index - self.start : end - self.start]

    def truncate(self, size: int) -> None:
        """Keeps the entries up to this index, from `start` on."""
        del self._entries[size + 1 - self.start :], self._bytes[size + 1 - self.start :]
        self.size, self.stable = min(self.size, size), min(self.stable, size)

    def compact(self, index: int, term: int) -> None:
        """Forgets all up to an entry of this term (section 7), or all if it has another there."""
        at = index - self.start
        if index > self.size or self[index].term != term:
            self._entries, self._bytes, self.size, self.stable, at = [], [0], index, index, 0
        self._entries[: at + 1] = [Entry(term)]
        del self._bytes[:at]
        self.start, self.stable = index, max(self.stable, index)

    def bytes_between(self, index: int, end: int) -> int:
        """About how much the entries after `index` up to `end` weigh."""
        return self._bytes[end - self.start] - self._bytes[max(0, index - self.start)]


@dataclass
class Batch:
    """The operations that clients sent to a node, their owner, in one turn.

    It is what is forwarded, tried again and kept track of, as a whole; its writes are an entry.
    """

    owner: str
    seq: int  # tells it from the owner's other ones, even from those before a crash
    reads: list[Operation]
    writes: list[Operation]
    came_at: float  # at this node
    # At its owner
    sent_at: float = -math.inf  # until then no other node has it: no write can happen
    asked: str = ""  # the node that it was sent to last, if that was since a leader was heard of
    # At the leader
    stamp: float = -math.inf  # of the last messages sent before it came
    todo: int = 0  # how much of reads and writes is not done


@dataclass
class Snapshot:
    """The state when all up to an entry was applied, in that part of the log's place (section 7).

    A leader's, or what has come of it at a follower. It consists of records: the sessions, [client,
    msg_id, answer], then the map's items, [key, value]. The map's versions never change, so it may
    be read, part by part, for as long as it takes.
    """

    index: int = 0
    term: int = 0
    members: dict[str, int] = field(default_factory=dict)
    sessions: list[Any] = field(default_factory=list)
    map: PersistentMap = field(default_factory=lambda: PersistentMap())

    @property
    def size(self) -> int:
        """In records."""
        return len(self.sessions) + len(self.map)

    def part(self, offset: int) -> list[Any]:
        """Records from one on, as many as one message carries, or one that is larger."""
        end, sessions = offset + 1 + CHUNK_BYTES // OPERATION_BYTES, len(self.sessions)
        items = self.map.items(max(0, offset - sessions), max(0, end - sessions))
        data, size = list[Any](), 0
        for record in chain(self.sessions[offset:end], items):
            size += OPERATION_BYTES + len(encode(record))
            if data and size > CHUNK_BYTES:
                break
            data.append(record)
        return data

    def take(self, data: list[Any]) -> None:
        """The records that come next."""
        for record in data:
            if len(record) == 2:
                self.map = self.map.set(*record)
            else:
                self.sessions.append(record)


@dataclass
class Follower:
    """What a leader knows of a follower. It changes with the term."""

    start: int | None  # of the node
    next_index: int  # of the next entry to send; moves on when it is sent
    heard_of: float  # when something last came from it
    progress: float  # since when what is under way is not acknowledged
    match_index: int = 0  # the highest entry known to be in both logs
    base: int = 0  # what is under way comes after it, and after match_index
    lacked: int = 0  # was committed when its return was heard of
    readmitted: int | None = None  # the start whose return was appended
    acked: float = -math.inf  # stamp of the latest message that it answered
    promised: float = -math.inf  # until when it votes for nobody, by our clock
    stamp: float = -math.inf  # of the latest message to it
    entries_stamp: float = -math.inf  # of the latest one with entries
    backed: float = -math.inf  # stamp of the last step back
    done: list[int] = field(default_factory=list)  # seqs of its own batches, to tell it
    snapshot: Snapshot | None = None  # that it gets, for it lacks what the log has no more
    offset: int = 0  # how many of its records the follower has
    part_stamp: float = -math.inf  # of the message with the last ones

    def go_on_after(self, index: int) -> None:
        """Whatever was sent, the next entry to send is the one after this."""
        self.base, self.next_index = index, index + 1

    def is_overdue(self, now: float, limit: float) -> bool:
        """Whether what is under way has not been acknowledged for more than `limit` seconds."""
        return self.next_index > self.match_index + 1 and now - self.progress > limit


class Raft(Server):
    """A node of a replicated state machine: D. Ongaro, J. Ousterhout, In search of an
    understandable consensus algorithm (the paper); D. Ongaro's thesis goes further.

    Messages and timers change fields; what follows from all of a turn's is done once, when it is
    drained. Messages between servers are one-way: losing, doubling or reordering them is the
    normal case and not an exception. The handler of a type of message has its name, and its fields
    for parameters. Every time is read from the clock where it is stored.
    """

    def __init__(
        self, node: Node | None = None, reads: str = "lease", debug: bool = False,
        storage: Storage | None = None,
    ) -> None:  # fmt: skip
        super().__init__(node)
        self.reads = reads  # how a leader makes sure that a read is not stale
        self.debug = debug

        # Persistent state on all servers (figure 2), if there is a storage
        self.storage: Any = storage or Memory()
        self.term = 0  # changed in advance_term
        self.voted_for: str | None = None  # in this term
        self.log = Log()  # appended to by a leader, changed in place by a follower

        # Who takes part: without a storage, a node that comes back has forgotten what it promised.
        self.start = 0  # a number of this start of the node; 0: it forgets nothing
        self.members: dict[str, int] = {}  # their starts; none are known before it is founded
        self.voted_start: int | None = 0  # of the node that this one voted for
        self.began = -math.inf  # this start of the node
        self.founding = False  # it is the first node, and nothing is committed yet

        # Volatile state on all servers
        self.role = "follower"  # or "candidate", or "leader"
        self.leader: str | None = None  # of this term, if it was heard
        self.relay: str | None = None  # the last node that refused a vote because a leader lives
        self.commit_index = 0
        self.last_applied = 0
        self.sessions = Sessions()  # replicated like the state machine

        # Volatile state of elections
        self.votes: dict[tuple[bool, int], dict[str, int]] = {}  # by (pre, term): starts of voters
        self.failures = 0  # elections since a leader was heard
        self.campaigned = -math.inf  # when this node has done so last
        self.promise = -math.inf  # no vote before: a leader's lease counts on it
        self.deadline = math.inf  # of the next election
        self.election_timer = self.node.after(0, self.election_timer_fires)

        # Volatile state on followers
        self.verified = 0  # the log equals this term's leader's up to here
        self.early: dict[int, list[Entry]] = {}  # entries that overtook others, by prev_log_index
        self.incoming = Snapshot()  # part by part; of index 0 if there is none
        self.ack: tuple[float, float] | None = None  # what is to be answered: sent, timeout
        self.refused: int | None = None  # where the logs may agree, if they do not

        # Volatile state on leaders
        self.followers: dict[str, Follower] = {}
        self.term_start = 0  # the index of this term's no-op
        self.stamp = -math.inf  # of the latest messages, strictly increasing
        self.accepted: dict[tuple[str, int], Batch] = {}  # in this term, lately
        self.waiting_reads: list[Batch] = []

        # Operations of this node's clients
        self.arrived: tuple[list[Operation], list[Operation]] = ([], [])  # now: reads, writes
        self.pending: dict[int, Batch] = {}
        self.seq = 0
        self.new_leader = False  # heard of in this turn

        # Times, in seconds; a follower has them from its leader
        self.rtt = FIRST_ROUND_TRIP  # of a message and its answer
        self.samples = deque([FIRST_ROUND_TRIP] * 5, maxlen=51)  # of it
        self.sampled = -math.inf
        self.min_heartbeat = HEARTBEAT
        self.timeout = self.min_timeout = 0.0  # of elections

        self.node.on_init(self.init)
        self.node.on_drained(self.drained)
        for type in FIELDS:
            self.node.on(type, self.receive)

    def receive(self, msg: Message) -> None:
        """Calls the handler of another server's message, whose fields are its parameters.

        Servers may crash but do not lie (section 2), so nothing more is checked.
        """
        if self.debug:
            self.node.log(f"{self.node.node_id} < {encode(msg)}")
        src, fields = msg["src"], msg["body"].copy()
        type = fields.pop("type")
        if src not in self.node.other_node_ids:
            raise RPCError.malformed_request(f"{show(src)} is not another server")
        if fields.keys() != FIELDS[type]:
            wrong = ", ".join(sorted(fields.keys() ^ FIELDS[type]))
            raise RPCError.malformed_request(f"{type} lacks or has no {wrong}")
        with self.lock:
            getattr(self, type)(src, **fields)

    def init(self) -> bool:
        """The nodes are known. The first one leads, if all is new: nobody else can.

        The others give it a second: it may be told last that it exists, and they may not send to
        a node that does not. Faults begin when all nodes are ready, and to found takes them all: so
        the first one is not ready before that is done. Returns whether init_ok must wait for that.
        """
        with self.lock:
            self.storage.open(self)
            self.began = now = self.node.now()
            self.seq = int(now * 1e6)
            others = len(self.node.other_node_ids)
            self.min_heartbeat = max(HEARTBEAT, 2 * others / HEARTBEATS_PER_SECOND)
            self.timeout = self.min_timeout = 1.8 * self.min_heartbeat  # two are late then
            self.node.every(TICK, self.tick)
            if self.is_first() and self.log.size == self.term == 0:
                self.become_candidate()
                self.founding = self.role != "leader"
            else:
                self.reset_election_deadline(FIRST_ELECTION)
            return self.founding

    def drained(self) -> None:
        """What follows from the messages and timers of a turn; then its output leaves."""
        with self.lock:
            if self.new_leader:  # everything goes there, at once
                self.new_leader = False
                for batch in self.pending.values():
                    batch.asked = ""
                    self.hand_over(batch)
            if any(self.arrived):
                self.hand_over_arrived()
            if self.node.node_id:
                self.storage.save(self, self.may_save_later())
            if self.role == "leader":
                self.advance_commit_index()
                self.advance_state_machine()
                self.serve_reads()
                self.replicate_log()
            else:
                self.advance_state_machine()
                self.acknowledge()
            is_over = self.last_applied or self.node.now() - self.began > FOUNDING
            if self.founding and is_over:
                self.founding = False
                self.node.ready()

    def tick(self) -> None:
        """What must happen even if no message comes."""
        with self.lock:
            now = self.node.now()
            self.storage.save(self)
            if self.role == "leader":
                self.review_followers(now)
                if self.of_majority(now, "heard_of") < now - 2 * self.timeout:
                    self.forget_leader()  # its clients may do better elsewhere
                    self.become_follower("heard no majority")
            self.review_pending(now)
            self.compact()

    def log_role(self, text: str) -> None:
        """A line on stderr: who, in which term, is what now, and why."""
        self.node.log(f"{self.node.node_id} term {self.term}: {text}")

    def send(self, dest: str, type: str, **fields: Any) -> None:
        self.node.send(dest, {"type": type, **fields})

    # Client operations: their owner, the node that got them

    def client_req(self, msg: Message) -> None:
        """Takes a client's operation on; the leader answers it, or else `review_pending`."""
        with self.lock:
            body = check_operation(msg["body"])
            operation = [msg["src"], body.pop("msg_id"), body]
            self.arrived[body["type"] != "read" or self.reads == "log"].append(operation)

    def hand_over_arrived(self) -> None:
        """Makes a batch of the operations that came in this turn, and sends it on its way."""
        self.seq += 1
        batch = Batch(self.node.node_id, self.seq, *self.arrived, self.node.now())
        self.pending[self.seq] = batch
        self.arrived = ([], [])
        self.hand_over(batch)

    def hand_over(self, batch: Batch) -> None:
        """Gives a batch to the leader; without one to the relay; without either to nobody.

        The link to that node may be cut, so a retry goes to another one, drawn at random: a node
        that follows the leader relays the batch.
        """
        dest = self.leader or self.relay
        if batch.asked:
            others = [id for id in self.node.other_node_ids if id != batch.asked]
            dest = self.node.random.choice(others or [batch.asked])
        if self.role == "leader":
            self.accept_batch(batch)
        elif dest:
            self.send_forward(dest, batch)
        if dest:
            batch.asked, batch.sent_at = dest, self.node.now()

    def send_forward(self, dest: str, batch: Batch) -> None:
        self.send(
            dest, "forward", owner=batch.owner, seq=batch.seq, reads=batch.reads,
            writes=batch.writes,
        )  # fmt: skip

    def review_pending(self, now: float) -> None:
        """Gives up operations that have waited too long, and retries those that may be lost.

        A read, and a write that never left this node, gets error 11: it has not happened. A write
        that another node may have gets no answer, for it may still happen.
        """
        retry = 2 * self.rtt + self.heartbeat
        patience = max(PATIENCE, ROUND_TRIPS * self.rtt)
        for batch in list(self.pending.values()):
            if now - batch.came_at >= patience:
                del self.pending[batch.seq]
                may_happen = batch.sent_at > -math.inf
                for client, msg_id, _ in batch.reads + ([] if may_happen else batch.writes):
                    self.answer(client, msg_id, self.unavailable())
            elif now - batch.sent_at > retry and self.role != "leader":
                self.hand_over(batch)

    def unavailable(self) -> Body:
        """Why an operation could not be done."""
        return RPCError.temporarily_unavailable(f"leader: {self.leader or 'none'}").to_json()

    def answer(self, client: str, msg_id: int, res: Body) -> None:
        """Answers a client, whichever node it had asked: it looks at in_reply_to alone.

        A late answer is harmless: a client skips those that it does not wait for.
        """
        self.node.send(client, {**res, "in_reply_to": msg_id})

    def forward(
        self, src: str, owner: str, seq: int, reads: list[Operation], writes: list[Operation]
    ) -> None:
        """Another node's batch. A node that follows the leader relays the batch once."""
        batch = Batch(owner, seq, reads, writes, self.node.now())
        if self.role == "leader":
            self.accept_batch(batch)
        elif self.leader not in (None, src) and owner == src:
            self.send_forward(self.leader, batch)

    # Client operations: the leader

    def accept_batch(self, batch: Batch) -> None:
        """Takes a batch, once in its term: its writes into the log, its reads aside."""
        key = (batch.owner, batch.seq)
        if accepted := self.accepted.get(key):
            if accepted.todo <= 0:
                self.finish(accepted)  # its owner has not heard of that
        else:
            self.accepted[key] = batch
            batch.stamp = self.stamp
            batch.todo = bool(batch.reads) + bool(batch.writes)
            if batch.writes:
                self.log.append([Entry(self.term, *key, batch.writes)])
            if batch.reads:
                self.waiting_reads.append(batch)

    def finish(self, batch: Batch) -> None:
        """Its reads are served, or its writes are applied; after both, its owner is to know."""
        batch.todo -= 1
        if batch.todo > 0:
            return
        batch.reads, batch.writes = [], []  # it is remembered for a while
        if batch.owner == self.node.node_id:
            self.pending.pop(batch.seq, None)
        else:
            self.followers[batch.owner].done.append(batch.seq)

    # Who takes part: return without memory

    # A node without a storage that ends and starts again has forgotten its votes, its promises and
    # its log. So it neither votes nor counts until a leader has brought it up to date and the
    # others have committed its return. Then that is safe: if a of n nodes return, and m is a
    # majority, a quorum of which they were part, less themselves, meets every majority of the
    # others, for (m - a) + m > n - a. A vote that it forgot cannot elect a second leader, whose
    # log would lack its return; a lease that it forgot is kept by the others in the same way.
    # What is lost is what a majority forgets at once.
    #
    # The first node founds: it is elected by all, of whom nobody knows of anyone that takes part.
    # It asks until it has all votes. One that comes back has forgotten whether it had them: in that
    # term it does not get them again.

    def is_first(self) -> bool:
        """Whether this node is the one that founds."""
        return self.node.node_id == self.node.node_ids[0]

    def is_member(self) -> bool:
        """Whether this node takes part: has not forgotten what it may have promised."""
        return self.members.get(self.node.node_id) == self.start

    def starts(self) -> dict[str, int]:
        """Who takes part, as far as this node knows; else itself."""
        return self.members or {self.node.node_id: self.start}

    def admit(self, starts: Mapping[str, int]) -> None:
        """Learns who takes part."""
        was_member = self.is_member()
        self.members |= starts
        if self.is_member() and not was_member:
            self.log_role(f"{self.role}, takes part")
            self.reset_election_deadline()

    def append_starts(self, starts: Mapping[str, Any]) -> None:
        """An entry that says who takes part; of nobody it is a mere no-op."""
        self.log.append([Entry(self.term, operations=[[*start, {}] for start in starts.items()])])

    # Elections (sections 5.1, 5.2, 5.4.1; PreVote: thesis 9.6)

    def of_majority(self, mine: float, what: str) -> Any:
        """The highest value that a majority has reached, this node among it.

        Who has forgotten what it said, and is not readmitted, has reached nothing.
        """
        starts, values = self.members, [mine]
        for id, follower in self.followers.items():
            is_known = follower.start == starts.get(id, ABSENT)
            values.append(getattr(follower, what) if is_known else -math.inf)
        return median(values)

    @property
    def heartbeat(self) -> float:
        """Seconds between the messages to a follower."""
        return max(self.min_heartbeat, self.timeout / 4)

    def reset_election_deadline(self, wait: float = 0.0) -> None:
        """Don't start an election for a while, which is random so that votes are seldom split.

        (Section 5.2.) It is longer after each failure, and ends no earlier than a promise.
        """
        longer = float(1.4 ** max(0, min(self.failures - 1, 6)))
        wait += self.timeout * longer * self.node.random.uniform(1, 1.5)
        self.deadline = max(self.node.now() + wait, self.promise)
        if self.deadline < self.election_timer.deadline:  # else that one will look at it again
            self.await_deadline()

    def await_deadline(self) -> None:
        self.election_timer.cancel()
        wait = max(0.0, self.deadline - self.node.now())
        self.election_timer = self.node.after(wait, self.election_timer_fires)

    def election_timer_fires(self) -> None:
        with self.lock:
            if self.node.now() >= self.deadline:
                self.reset_election_deadline()
                if self.role != "leader" and self.is_member():
                    self.campaign()
                elif self.is_first() and not self.members:
                    if (False, self.term) in self.votes:
                        self.request_votes(pre=False)
                    else:  # one of them was refused
                        self.become_candidate()
            self.await_deadline()

    def advance_term(self, term: int) -> None:
        """Moves to a later term, in which this node has not voted (section 5.1)."""
        self.term = term
        self.voted_for = None
        self.forget_leader()

    def maybe_step_down(self, term: int, why: str) -> None:
        """Becomes a follower if there is a later term than ours (section 5.1)."""
        if term > self.term:
            self.advance_term(term)
            self.become_follower(why)

    def forget_leader(self) -> None:
        """What was known of a leader, or was about to be said to it, is of no use any more."""
        self.leader = self.relay = None
        self.verified = self.commit_index
        self.early.clear()
        self.incoming = Snapshot()
        self.ack = None

    def have_leader(self, role: str, leader: str, text: str) -> None:
        """This term has a leader: this node, or another one that it hears."""
        self.forget_leader()
        self.role, self.leader = role, leader
        self.log_role(text)
        self.votes.clear()
        self.failures = 0
        self.new_leader = True

    def become_follower(self, why: str) -> None:
        self.role = "follower"
        self.followers.clear()
        self.accepted.clear()
        self.waiting_reads.clear()
        self.log_role(f"follower, {why}")
        self.reset_election_deadline()

    def campaign(self) -> None:
        """No leader is heard: asks whether a majority would vote for this node (thesis 9.6).

        Only then it begins a term: one that could not win disturbs nobody by its terms.
        """
        if self.leader:
            self.log_role(f"{self.role}, lost {self.leader}")
            self.forget_leader()
        self.relay = None
        self.failures += 1
        self.campaigned = self.node.now()
        self.reset_election_deadline()
        self.request_votes(pre=True)

    def become_candidate(self) -> None:
        self.advance_term(self.term + 1)
        self.role = "candidate"
        self.voted_for = self.node.node_id
        self.log_role("candidate")
        self.reset_election_deadline()
        self.request_votes(pre=False)

    def become_leader(self) -> None:
        votes = self.votes.pop((False, self.term))
        voters = " ".join(sorted(votes))
        self.have_leader("leader", self.node.node_id, f"leader, elected by {voters}")
        self.members |= votes  # a voter's return is committed, if it was not heard of here yet
        self.adapt_timeout()
        now, last = self.node.now(), self.log.size
        self.followers = {
            id: Follower(self.members.get(id), last + 1, now, now, base=last)
            for id in self.node.other_node_ids
        }
        # Only an entry of its own term tells a leader what is committed (sections 5.4.2 and 8). The
        # first one of all says who takes part.
        self.append_starts({} if self.log.size or not self.start else self.members)
        self.term_start = self.log.size

    def request_votes(self, pre: bool) -> None:
        """Asks the others for their votes in this term, or whether they would vote in the next.

        Late votes for this node still count while it asks again.
        """
        term = self.term + pre
        self.votes = {key: votes for key, votes in self.votes.items() if key == (False, self.term)}
        votes = self.votes.setdefault((pre, term), {self.node.node_id: self.start})
        for dest in self.node.other_node_ids:
            if dest not in votes:
                self.ask_for_vote(dest, pre)
        self.count_votes(pre, term)

    def ask_for_vote(self, dest: str, pre: bool) -> None:
        self.send(
            dest, "request_vote", pre=pre, term=self.term + pre, sent=self.node.now(),
            last_log_index=self.log.size, last_log_term=self.log.last.term, starts=self.starts(),
        )  # fmt: skip

    def request_vote(
        self, src: str, pre: bool, term: int, last_log_index: int, last_log_term: int,
        sent: float, starts: dict[str, int],
    ) -> None:  # fmt: skip
        """A candidate asks for this node's vote, or whether it would get it."""
        granted = False
        if not self.members and starts.get(self.node.node_id) == self.start:
            self.admit(starts)
        may_vote = not self.members if len(starts) == 1 else self.is_member()
        # While a leader is alive nobody is elected, so that it may serve reads by its lease
        # (thesis 6.4.1), and a node that comes back from a partition does not depose it.
        if may_vote and not self.is_led():
            if not pre:
                self.maybe_step_down(term, f"{src} asks for a vote")
            # Section 5.4.1: the candidate's log must be at least as up-to-date as this one.
            theirs = (last_log_term, last_log_index)
            ours = (self.log.last.term, self.log.size)
            if theirs >= ours and pre:
                granted = self.pre_vote(src, term, (*theirs, src) > (*ours, self.node.node_id))
            elif theirs >= ours and term == self.term:
                asks_again = (self.voted_for, self.voted_start) == (src, starts.get(src))
                if granted := self.voted_for is None or asks_again:  # one vote in a term: 5.2
                    self.voted_for, self.voted_start = src, starts.get(src)
                    self.reset_election_deadline()
        self.send_vote(src, pre, term if granted else self.term, granted, sent)

    def pre_vote(self, src: str, term: int, is_larger: bool) -> bool:
        """Whether a candidate would get a vote (thesis 9.6).

        Of two that pre-campaign the larger goes on, and asks the other, which may have been bound
        by a promise before; that one drops out and draws its own deadline anew. But not for long:
        it may be that nobody hears the larger.
        """
        lately = self.node.now() - self.campaigned < self.timeout
        rival = lately and term == self.term + 1 and (True, term) in self.votes
        granted = term > self.term and (is_larger or not rival)
        if granted and rival:
            self.votes.pop((True, term))
            self.reset_election_deadline()
        elif rival:
            self.ask_for_vote(src, pre=True)
        return granted

    def is_led(self) -> bool:
        """Whether a leader has this node's promise, or is this node, with a majority behind it."""
        now = self.node.now()
        if self.role == "leader":
            return bool(self.of_majority(now, "heard_of") >= now - self.timeout)
        return now < self.promise

    def send_vote(self, dest: str, pre: bool, term: int, granted: bool, sent: float) -> None:
        """Yes, or no and who leads."""
        leader = self.leader if not granted and self.is_led() else None
        self.send(
            dest, "request_vote_res", pre=pre, term=term, granted=granted, sent=sent,
            leader=leader, starts=self.starts(),
        )  # fmt: skip

    def request_vote_res(
        self, src: str, pre: bool, term: int, granted: bool, leader: str | None,
        sent: float, starts: dict[str, int],
    ) -> None:  # fmt: skip
        """A vote, or a refusal, which may say that there is a leader."""
        if sent < self.began:
            return  # it is an answer to the node that this one has forgotten that it was
        self.measure(sent)
        if granted and (pre, term) in self.votes:
            self.votes[pre, term][src] = starts.get(src, 0)
            self.count_votes(pre, term)
        if granted:
            return
        if not self.members:  # nothing is founded in this term,
            self.votes.clear()
            self.admit(starts if len(starts) > 1 else {})  # nor in another: this node comes back
        if leader is None:
            self.maybe_step_down(term, f"{src} is in a later term")
        elif not self.leader and leader != self.node.node_id:
            self.new_leader |= self.relay is None
            self.relay = src

    def count_votes(self, pre: bool, term: int) -> None:
        """A majority of pre-votes makes a candidate, one of votes a leader (section 5.2).

        To found takes all.
        """
        count = len(self.node.node_ids)
        if len(self.votes[pre, term]) < (majority(count) if self.members else count):
            return
        if pre:
            if term == self.term + 1 and not self.leader and self.node.now() >= self.promise:
                self.become_candidate()
        elif self.role == "candidate" and term == self.term:
            self.become_leader()

    # Replication (section 5.3): the leader

    def replicate_log(self) -> None:
        """Sends to each follower what it lacks, or a heartbeat if it is time for one."""
        now = self.node.now()
        self.stamp = max(now, math.nextafter(self.stamp, math.inf))
        asked = max((batch.stamp for batch in self.waiting_reads), default=-math.inf)
        is_stable = self.log.stable == self.log.size  # then the leader counts itself
        needed = majority(len(self.node.node_ids)) - is_stable  # of followers, to commit
        for node_id, follower in self.followers.items():
            # Reads wait for the answer to a later message.
            due = follower.stamp <= asked or now - follower.stamp >= self.heartbeat
            if follower.next_index <= self.log.start:
                if now - follower.heard_of <= GONE:
                    self.send_snapshot(node_id, follower, due)
                    continue
                follower.snapshot = None
                follower.go_on_after(self.log.size)
            last = self.last_to_send(follower, now, needed > 0)
            needed -= not (self.is_silent(follower) or follower.is_overdue(now, SPARE * self.rtt))
            if last >= follower.next_index or due:
                self.send_entries(node_id, follower, last)

    def is_silent(self, follower: Follower) -> bool:
        """Whether nothing has come from it for an election timeout."""
        return self.node.now() - follower.heard_of >= self.timeout

    def last_to_send(self, follower: Follower, now: float, is_needed: bool) -> int:
        """The last index of the entries to send now; for none, of those that were sent.

        On a near network an append waits while the answer to the last one is to come soon (Nagle's
        rule), and longer to a follower that it does not take to commit: there will be more by then.
        """
        log, sent, match_index = self.log, follower.next_index - 1, follower.match_index
        if sent == log.size or self.is_silent(follower):
            return sent  # to who is silent, until it answers one, heartbeats will do
        may_wait = self.rtt < NEAR and (sent > match_index or not is_needed)
        held = self.stamp - follower.entries_stamp
        if may_wait and held < self.rtt * (URGENT if is_needed else SPARE):
            return sent
        room = WINDOW_BYTES - log.bytes_between(max(match_index, follower.base), sent)
        last = log.size if room > 0 else sent
        while last > sent + 1 and log.bytes_between(sent, last) > min(room, CHUNK_BYTES):
            last = (sent + 1 + last) // 2
        return last

    def send_entries(self, node_id: str, follower: Follower, last: int) -> None:
        """Sends append_entries with the entries up to `last`, maybe none."""
        previous = follower.next_index - 1
        entries = self.log.from_index(previous + 1, last + 1)
        if entries:
            follower.entries_stamp = self.stamp
            if previous == follower.match_index:
                follower.progress = self.node.now()
        follower.next_index += len(entries)
        self.send_follower(
            node_id, "append_entries", prev_log_index=previous,
            prev_log_term=self.log[previous].term, entries=entries,
            leader_commit=self.commit_index,
        )  # fmt: skip

    def send_follower(self, node_id: str, type: str, **fields: Any) -> None:
        """Sends what a leader says to a follower, with what it always says."""
        follower = self.followers[node_id]
        self.send(
            node_id, type, term=self.term, sent=self.stamp, timeout=self.timeout, rtt=self.rtt,
            done=follower.done, **fields,
        )  # fmt: skip
        follower.stamp, follower.done = self.stamp, []

    def append_entries_res(
        self, src: str, term: int, success: bool, match: int, sent: float, timeout: float,
        start: int, snapshot: int, offset: int,
    ) -> None:  # fmt: skip
        """A follower says how far its log equals the leader's, or where to go on.

        If it gets a snapshot, it says how much of it has come.
        """
        self.maybe_step_down(term, f"{src} is in a later term")
        if self.role != "leader" or term != self.term:
            return
        follower = self.followers[src]
        if self.node.now() - sent < LATE * self.rtt or sent > self.of_majority(math.inf, "acked"):
            self.measure(sent)
        if follower.start != start:  # it has forgotten what it had
            heard = (follower.heard_of, follower.progress)
            follower = Follower(start, 1, *heard, lacked=self.commit_index)
            self.followers[src] = follower
        follower.heard_of = self.node.now()
        follower.acked = max(follower.acked, sent)
        # The timeout of that very message: today's may be longer than what was promised then.
        follower.promised = max(follower.promised, sent + timeout * LEASE)
        if success:
            if match > follower.match_index:
                follower.match_index, follower.progress = match, follower.heard_of
                follower.next_index = max(follower.next_index, match + 1)
            if match >= self.log.start:  # it needs no more than entries
                follower.snapshot = None
            elif (part := follower.snapshot) and (part.index, follower.acked) == (snapshot, sent):
                follower.offset = offset  # else it says what was the case before
        # It lacks what comes before all that was sent; but not if it answers what was sent earlier.
        if not (success and follower.match_index >= follower.base) and sent > follower.backed:
            follower.backed = self.stamp
            follower.go_on_after(max(follower.match_index, match))

    def send_snapshot(self, node_id: str, follower: Follower, due: bool) -> None:
        """Sends a part of the state to a follower that lacks what the log has no more (section 7).

        One part is under way at a time. A heartbeat is an empty one: its answer says what came.
        """
        if not follower.snapshot:
            follower.snapshot, follower.offset = self.snapshot(), 0
            follower.part_stamp = -math.inf
        snapshot = follower.snapshot
        full = follower.acked >= follower.part_stamp and not self.is_silent(follower)
        if full:
            follower.part_stamp = self.stamp
        if full or due:
            self.send_follower(
                node_id, "install_snapshot", last_index=snapshot.index, last_term=snapshot.term,
                starts=snapshot.members, size=snapshot.size, offset=follower.offset,
                data=snapshot.part(follower.offset) if full else [],
            )  # fmt: skip

    def snapshot(self) -> Snapshot:
        """The state as it is now."""
        index, records = self.last_applied, self.sessions.records()
        term, members = self.log[index].term, self.members.copy()
        return Snapshot(index, term, members, records, self.state_machine.map)

    def compact(self) -> None:
        """Forgets what is applied of the log (section 7), but what a follower may lack still."""
        log, needed = self.log, [self.last_applied, self.storage.index]
        needed += [one.snapshot.index for one in self.followers.values() if one.snapshot]
        kept, end = log.start, max(log.start, min(needed))
        if log.bytes_between(kept, end) > KEPT_BYTES and end - kept > KEPT_ENTRIES:
            kept += (end - kept + 7) // 8  # no more, for to free thousands at once stops the node
            log.compact(kept, log[kept].term)
        if self.incoming.index <= self.commit_index:
            self.incoming = Snapshot()  # entries have come instead of what was missing of it

    def review_followers(self, now: float) -> None:
        """Sends again what was not acknowledged in time; forgets the batches of long ago.

        Appends the return, once each, of those that have what was committed when they came back.
        What is committed now is no measure: under load only the quickest has it.
        """
        for id, follower in self.followers.items():
            if follower.is_overdue(now, 2 * self.rtt + TICK):
                follower.go_on_after(follower.match_index)
            known = (None, self.members.get(id), follower.readmitted)
            if follower.start not in known and follower.match_index >= follower.lacked:
                follower.readmitted = follower.start
                self.append_starts({id: follower.start})
        kept = max(KEPT_BATCHES, 2 * ROUND_TRIPS * self.rtt)  # its owner may retry for half of it
        old = takewhile(lambda one: now >= one.came_at + kept, self.accepted.values())
        for batch in [*old]:
            del self.accepted[batch.owner, batch.seq]

    def may_save_later(self) -> bool:
        """Whether entries may leave this leader before they are on its own disk (thesis 10.2.1).

        It does not count itself before: the followers alone commit them, or they wait for a tick.
        That it leads must be on its disk: it is, with the term's first entry.
        """
        heard = sum(not self.is_silent(one) for one in self.followers.values())
        return heard >= majority(len(self.node.node_ids)) and self.log.stable >= self.term_start

    def advance_commit_index(self) -> None:
        """Commits what a majority has, if it is of this term (sections 5.3 and 5.4.2)."""
        if self.commit_index == self.log.size:
            return
        index = self.of_majority(self.log.stable, "match_index")
        if index > self.commit_index and self.log[index].term == self.term:
            self.commit_index = index

    # Replication: the follower

    def append_entries(
        self, src: str, term: int, prev_log_index: int, prev_log_term: int,
        entries: list[Sequence[Any]], leader_commit: int, sent: float, timeout: float, rtt: float,
        done: list[int],
    ) -> None:  # fmt: skip
        """The leader's entries, or its heartbeat."""
        if not self.hear_leader(src, term, sent, timeout, rtt, done):
            return
        self.refused = self.accept(prev_log_index, prev_log_term, [*map(Entry._make, entries)])
        # The leader's commit index says nothing of entries that may differ from its own.
        self.commit_index = max(self.commit_index, min(leader_commit, self.verified))

    def hear_leader(
        self, src: str, term: int, sent: float, timeout: float, rtt: float, done: list[int]
    ) -> bool:
        """Any message of a leader; False if it is one of an earlier term, which is refused."""
        if term < self.term:
            self.send_leader(src, sent, timeout, 0)
            return False
        self.maybe_step_down(term, f"{src} leads")
        if not self.leader:
            self.have_leader("follower", src, f"follower of {src}")
        self.promise = max(self.promise, self.node.now() + timeout)
        self.timeout, self.rtt = timeout, rtt
        self.samples.append(rtt)  # it will not have forgotten if it leads
        for seq in done:
            self.pending.pop(seq, None)
        latest = (sent, timeout)
        self.ack, self.refused = max(self.ack or latest, latest), None
        return True

    def send_leader(self, leader: str, sent: float, timeout: float, refused: int | None) -> None:
        """Says how far the log is known to be the leader's; and what has come of its snapshot."""
        self.send(
            leader, "append_entries_res", term=self.term, success=refused is None,
            match=self.verified if refused is None else refused, sent=sent, timeout=timeout,
            start=self.start, snapshot=self.incoming.index, offset=self.incoming.size,
        )  # fmt: skip

    def install_snapshot(
        self, src: str, term: int, last_index: int, last_term: int, starts: dict[str, int],
        size: int, offset: int, data: list[Any], sent: float, timeout: float, rtt: float,
        done: list[int],
    ) -> None:  # fmt: skip
        """A part of the leader's state: this node lacks what the leader's log has no more.

        (Section 7.) Parts come in order; one that is not the next is answered with which that is.
        """
        if not self.hear_leader(src, term, sent, timeout, rtt, done):
            return
        if last_index > self.commit_index:  # a node never goes back
            if last_index > self.incoming.index:
                self.incoming = Snapshot(last_index, last_term, starts)
            incoming = self.incoming
            if (last_index, offset) == (incoming.index, incoming.size):
                incoming.take(data)
            if last_index == incoming.index and incoming.size >= size:
                self.log.compact(last_index, incoming.term)
                self.install(incoming)
                self.log_role(f"follower of {src}, with its state up to {last_index}")

    def install(self, snapshot: Snapshot) -> None:
        """Takes a state that has come in the place of its own."""
        self.state_machine = Map(snapshot.map)
        self.sessions = Sessions(snapshot.sessions)
        self.commit_index = self.last_applied = snapshot.index
        self.verified = max(self.verified, snapshot.index)
        self.incoming = Snapshot()
        self.admit(snapshot.members)

    def accept(self, previous: int, previous_term: int, entries: list[Entry]) -> int | None:
        """Takes entries into the log after `previous`, if the logs agree there (section 5.3).

        Returns None, or what to refuse them with: an index up to which the logs may agree. Those
        that have overtaken others wait for them: there is nothing to refuse.
        """
        if previous > self.log.size:
            if len(self.early) < EARLY_APPENDS:
                self.early[previous] = max(entries, self.early.get(previous, []), key=len)
            return None
        if previous > self.verified and self.log[previous].term != previous_term:
            conflict = self.log[previous].term
            while previous > self.commit_index and self.log[previous].term == conflict:
                previous -= 1
            return previous
        self.place(previous, entries)
        while self.early and (previous := min(self.early)) <= self.verified:
            self.place(previous, self.early.pop(previous))
        return None

    def place(self, previous: int, entries: list[Entry]) -> None:
        """Puts entries where they belong; what is there already stays, whatever follows it.

        Only a conflict cuts the log: a message may be old, and what it lacks acknowledged.
        """
        known = max(0, self.verified - previous)
        for index, entry in enumerate(entries[known:], previous + known + 1):
            if index > self.log.size or self.log[index].term != entry.term:
                self.log.truncate(index - 1)
                self.log.append(entries[index - previous - 1 :])
                break
        self.verified = max(self.verified, previous + len(entries))
        if not self.members and self.log.start < 1 <= self.log.size and not self.log[1].owner:
            self.admit_all(self.log[1])  # it says who founds

    def acknowledge(self) -> None:
        """Answers the leader's messages of this turn, as one."""
        if self.ack and self.leader:
            self.send_leader(self.leader, *self.ack, self.refused)
            self.reset_election_deadline()
        self.ack = None

    # The state machine

    def advance_state_machine(self) -> None:
        """Applies what is committed (section 5.3), and answers what this leader has appended."""
        if self.last_applied == self.commit_index:
            return
        for entry in self.log.from_index(self.last_applied + 1, self.commit_index + 1):
            self.last_applied += 1
            if not entry.owner:
                self.admit_all(entry)
                continue
            key = (entry.owner, entry.seq)  # of another term it is another entry of the batch
            batch = self.accepted.get(key) if entry.term == self.term else None
            state_machine, answers = self.sessions.apply(self.state_machine, entry.operations)
            self.state_machine = state_machine
            if batch:
                for answer in answers:
                    self.answer(*answer)
                self.finish(batch)

    def admit_all(self, entry: Entry) -> None:
        """Learns from an entry without an owner who takes part."""
        self.admit({node_id: start for node_id, start, _ in entry.operations})

    # Reads (section 8; thesis 6.4)

    def serve_reads(self) -> None:
        """Answers reads from the state machine once it is sure that this node still leads.

        It is if the followers' promises have not ended (a lease), or if a majority has answered
        a message that was sent after the read came. Without an entry of its term committed, a
        leader does not know what is committed.
        """
        if not self.waiting_reads or self.commit_index < self.term_start:
            return
        now = self.node.now()
        by_lease = self.reads == "lease" and now < self.of_majority(math.inf, "promised")
        acked = math.inf if by_lease else self.of_majority(math.inf, "acked")
        waiting = []
        for batch in self.waiting_reads:
            if acked <= batch.stamp:
                waiting.append(batch)
                continue
            for client, msg_id, body in batch.reads:
                self.answer(client, msg_id, self.state_machine.apply(body)[1])
            self.finish(batch)
        self.waiting_reads = waiting

    # Times

    def measure(self, sent: float) -> None:
        """A message of ours is answered: how long did that take?"""
        now = self.node.now()
        if now - self.sampled >= SAMPLE_INTERVAL:
            self.sampled = now
            self.samples.append(max(0.0, now - sent))
            self.adapt_timeout()

    def adapt_timeout(self) -> None:
        """Few long round trips are a pause of a node, and not the network's: the median counts."""
        self.rtt = median(self.samples)
        if self.role == "leader":
            self.timeout = min(max(self.min_timeout, 2.5 * self.rtt), MAX_TIMEOUT)

# From here on: what the chapter does not have. A Ruby Hash takes any key and tells 1 from true.

NEVER: Final = (-math.inf, dict[str, Any]())  # the last operation of a client that had none
ABSENT: Final = object()  # what a version holds for a key that it does not hold
MAX_NESTING = 100  # arrays and objects within each other; JSON itself sets no limit
SHOWN = 100  # characters of a value in an error text
FOLD = 16  # versions, before those that nobody holds are forgotten
PLAIN = frozenset([str, int, float, type(None)])  # what is its own identity
new = object.__new__  # without __init__, which would make a table


class PersistentMap:
    """An immutable mapping of JSON to JSON: `set` returns a new version and copies nothing.

    All versions share the newest one's table. Before a write changes it, the version written to
    records what it loses (H. Baker, Shallow binding makes functional arrays fast, 1991):

        v1 = {a: 1}    v1 lost {a: 1}    v2 lost {b: absent}    v3's table {a: 2, b: 3}

    So a version holds what the table says, or else the first record from its own on. What was
    recorded for one that nobody holds goes to the one held before it, if any: one that is held
    costs an item for each key written since. Any thread may read, or be amid `items`, while one
    writes: a record is there before the table changes, and a reader looks there last.
    Do not change values given. A write to an old version is rare, and copies it.
    """

    __slots__ = ("__weakref__", "_limit", "_lost", "_number", "_order", "_past", "_size", "_table")
    _lost: dict[Hashable, tuple[Any, Any] | None]  # to newer versions; empty: this is the newest
    _past: list[tuple[int, ref[PersistentMap], Any]]  # of versions: number, holder, what was lost

    def __init__(self, items: Iterable[tuple[Any, Any]] = ()) -> None:
        self._table = {identity(key): (key, value) for key, value in items}
        self._order, self._size = list(self._table), len(self._table)
        self._past, self._lost, self._number, self._limit = [], {}, 0, FOLD

    def set(self, key: Any, value: Any) -> PersistentMap:
        """The version after this one. Raises RPCError 12 for what is not JSON."""
        id = key if key.__class__ in PLAIN else identity(key)
        if value.__class__ not in PLAIN:
            identity(value)
        if self._lost:
            return PersistentMap(self.items()).set(key, value)
        table, order, past, limit = self._table, self._order, self._past, self._limit
        before = self._lost[id] = table.get(id)
        past.append((self._number, ref(self), self._lost))
        if len(past) >= limit:
            limit = FOLD + 2 * self._fold()
        if before is None:
            order.append(id)
        table[id] = (key if before is None else before[0], value)
        newest = new(PersistentMap)
        newest._table, newest._order, newest._size = table, order, len(order)
        newest._past, newest._lost, newest._limit = past, {}, limit
        newest._number = self._number + 1
        return newest

    def _fold(self) -> int:
        """Forgets the versions that nobody holds; how many are held."""
        held: list[Any] = []
        for version in self._past:
            if version[1]() is not None:
                held.append(version)
            elif held:
                for id, item in version[2].items():
                    held[-1][2].setdefault(id, item)
        self._past[:] = held
        return len(held)

    def get(self, key: Any, default: Any = None) -> Any:
        id = key if key.__class__ in PLAIN else identity(key)
        item = self._table.get(id)
        if self._lost:
            item = self._find(id)
        return default if item is None else item[1]

    def __getitem__(self, key: Any) -> Any:
        if (value := self.get(key, ABSENT)) is ABSENT:
            raise KeyError(key)
        return value

    def __contains__(self, key: Any) -> bool:
        return self.get(key, ABSENT) is not ABSENT

    def __len__(self) -> int:
        return self._size

    def items(self, start: int = 0, end: int | None = None) -> Iterator[tuple[Any, Any]]:
        """By their keys' first writes, as given then; all, or those at `start` and before `end`."""
        end = self._size if end is None else min(end, self._size)
        return map(self._find, self._order[start:end])

    def changes_since(self, older: PersistentMap) -> Iterator[tuple[Any, Any]]:
        """The items written since `older`, at that cost; all if that is no older version of it."""
        if older._table is not self._table or older._number > self._number:
            return self.items()
        between = [lost for n, _, lost in self._past[:] if older._number <= n < self._number]
        return map(self._find, dict.fromkeys(id for lost in between for id in list(lost)))

    def _find(self, id: Hashable) -> Any:
        item = self._table.get(id)
        for number, _, lost in self._past[::-1] if self._lost else ():
            if number < self._number:
                break
            item = lost.get(id, item)
        return item


def may_create(op: Body) -> bool:
    """Whether a cas may create its key."""
    create = op.get("create_if_not_exists", False)
    if not isinstance(create, bool):
        raise RPCError.malformed_request("create_if_not_exists must be true or false")
    return create


def identity(value: Any, nesting: int = 0) -> Hashable:
    """Something hashable that is equal for two values exactly when they are the same JSON.

    To Python 1 == True, and a list has no hash. Error 12: not JSON, or nested too deeply to send.
    """
    type = value.__class__
    if type in PLAIN:
        return value  # type: ignore[no-any-return]
    if type is bool:
        return (bool, value)
    if nesting == MAX_NESTING:
        raise RPCError.malformed_request(f"nested deeper than {MAX_NESTING}")
    if type is list:
        return tuple([identity(item, nesting + 1) for item in value])
    if type is dict and all(key.__class__ is str for key in value):
        return frozenset([(key, identity(item, nesting + 1)) for key, item in value.items()])
    raise RPCError.malformed_request(f"not a JSON value: {value!r:.{SHOWN}}")


def show(value: Any) -> str:
    """A value as an error text has it: short, strings without quotes as in the tutorial."""
    # Each replica makes the text of each cas that fails: the common case must be quick.
    try:
        text = str(value) if value.__class__ in (int, str) else json.dumps(value)
    except RecursionError:  # it was read at a place with more room
        text = "what is nested too deep"
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


class Sessions:
    """Each client's last write or cas and its answer, part of the replicated state (section 8).

    A client numbers its operations upwards (msg_id) and sends one after the other. So the last one
    is all that has to be remembered for each operation to take effect once, however often it is in
    the log. Sessions are never forgotten: about half a kilobyte for each client.
    """

    def __init__(self, records: Iterable[tuple[str, int, Body]] = ()) -> None:
        self._last = {client: (msg_id, res) for client, msg_id, res in records}
        self._changed = dict.fromkeys(self._last)  # clients, since `changes` was called last

    def apply(
        self, state: Map, operations: Iterable[Operation]
    ) -> tuple[Map, list[tuple[str, int, Body]]]:
        """Applies an entry's operations: the resulting Map and the answers, (client, msg_id, body).

        An operation that is its client's last one is answered again, and an older one is ignored:
        it has been answered, or its client has given it up. A read changes nothing and is done
        again; it is no session's last operation, for its value may be large.
        """
        answers = []
        for client, msg_id, body in operations:
            last, res = self._last.get(client, NEVER)
            if msg_id > last or body["type"] == "read":
                state, res = state.apply(body)
                if body["type"] != "read":
                    self._last[client] = (msg_id, res)
                    self._changed[client] = None
            elif msg_id < last:
                continue
            answers.append((client, msg_id, res))
        return state, answers

    def records(self) -> list[tuple[str, int, Body]]:
        """All sessions: client, msg_id and answer of each one's last operation."""
        return [(client, *last) for client, last in self._last.items()]

    def changes(self) -> list[tuple[str, int, Body]]:
        """The records of sessions that have changed since this was called last."""
        changed, self._changed = self._changed, {}
        return [(client, *self._last[client]) for client in changed]


class Memory:
    """Stands in for a Storage where a node keeps its state in memory alone."""

    durable = False
    index = 1 << 62  # no log is kept for a checkpoint

    def open(self, raft: Raft) -> None:
        raft.start = raft.node.random.getrandbits(48)

    def save(self, raft: Raft, later: bool = False) -> None:
        raft.log.stable = raft.log.size


class Storage:
    """A node's persistent state (figure 2, section 7) in a SQLite file: it outlives the process.

    What a turn has changed is one transaction, which is on the disk before anything leaves that
    depends on it. Each row has a checksum, and the one in `state` says what must be there.

        item    the map, and
        session the sessions, both as of the checkpoint: when all up to its index was applied
        entry   the log, up to `last`: what came after it, and what was not forgotten before
        state   term, vote, and what is to be known of all these

    SQLite takes what is damaged at the end of its -wal file for what was never committed. So a file
    beside it says, not synced and thus never too much, how many commits have been acknowledged.
    """

    durable = True

    def __init__(self, folder: str) -> None:
        import sqlite3  # what keeps its state in memory need not load it

        # A node may be started elsewhere than where the command was typed: Maelstrom does.
        self.folder = self.path = Path(os.environ.get("PWD", ".")).joinpath(folder)
        self.connect: Callable[..., Any] = sqlite3.connect  # a simulation takes its place
        self.index = -1  # of the checkpoint: the log after it is needed still; -1: there is none
        self._map = PersistentMap()  # likewise
        self._saved: dict[str, Any] = {}  # what `state` holds

    def open(self, raft: Raft) -> None:
        """Gives the node what it knew. SystemExit, with a line for the user, if that is lost."""
        me = {"format": FORMAT, "node_id": raft.node.node_id, "node_ids": raft.node.node_ids}
        path = self.path = self.folder / f"{raft.node.node_id}.db"
        try:
            if not os.path.lexists(path):  # not a link to what is away
                self._create(path, me, raft)
            self._open(path)
            self._load(me, raft)
            self._db.execute("PRAGMA journal_mode = wal")  # a commit is one write and one sync
            self._put("state", [(0, self._saved)])  # can it be written?
        except Exception as error:
            why = " ".join(str(error).split())  # SQLite has some of several lines
            raise SystemExit(
                f"{path} cannot be used: {why}. See that the folder can be written, end who else "
                "uses it, put a sound copy there, or move it away if others know all that it knew."
            ) from error
        raft.members = dict.fromkeys(raft.node.node_ids, raft.start)
        raft.log_role(f"follower, with its state up to {raft.log.size} in {path}")

    def _open(self, path: Path) -> None:
        self._db = self.connect(str(path), timeout=0, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA locking_mode = exclusive")
        self._db.execute("PRAGMA synchronous = full")
        counter = path.with_suffix(".commits")
        counter.touch()
        self._count = counter.open("r+b", buffering=0)

    def _create(self, path: Path, me: dict[str, Any], raft: Raft) -> None:
        """A file of a new node, which is there as a whole or not at all."""
        folders = (self.folder, *self.folder.parents)
        changed = [self.folder, *[folder.parent for folder in folders if not folder.exists()]]
        self.folder.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        for of_another in (".new", ".db-wal", ".commits"):
            path.with_suffix(of_another).unlink(missing_ok=True)
        self._open(new)
        for table in ("item", "session", "entry", "state"):
            self._db.execute(f"CREATE TABLE {table} (key PRIMARY KEY, value, crc) WITHOUT ROWID")
        self._saved = me | {"promised": 0.0, "commits": 0, "last": 0}
        self._save(raft)
        self._db.close()
        new.rename(path)
        # The names, too, must be on the disk.
        for folder in changed:
            handle = os.open(folder, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)

    def _load(self, me: dict[str, Any], raft: Raft) -> None:
        (problem,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if problem != "ok":
            raise ValueError(f"it is damaged: {problem}")
        items, sessions, entries, state = map(self._get, ("item", "session", "entry", "state"))
        saved = self._saved = state.get(0, {})
        for name, mine in me.items():
            if saved.get(name) != mine:
                raise ValueError(f"its {name} is {saved.get(name)}, and this is {mine}")
        if saved["commits"] < int(self._count.read().strip(b"\0") or 0):
            raise ValueError("it lacks what it was given last: its -wal file is damaged or gone")
        start, start_term, self.index, size = saved["checkpoint"]
        self._map = PersistentMap(items.values())
        snapshot = Snapshot(self.index, 0, {}, [*sessions.values()], self._map)
        raft.log.compact(start, start_term)
        raft.log.append(Entry(*entry) for entry in entries.values())
        if (raft.log.size, snapshot.size) != (saved["last"], size):
            raise ValueError("it is damaged: something is missing")
        raft.log.stable = raft.log.size
        raft.install(snapshot)
        raft.term, raft.voted_for = saved["term"], saved["vote"]
        raft.promise = raft.node.now() + saved["promised"]  # it is not known when that began

    def save(self, raft: Raft, later: bool = False) -> None:
        """Makes durable what has changed, unless that may be later.

        After a failure nobody knows what is on the disk, so the node ends: SystemExit, with a line
        for the user. Nothing of this turn leaves; a new start finds all that was acknowledged.
        """
        if later:
            return
        try:
            self._save(raft)
        except Exception as error:
            why = str(error) or error.__class__.__name__
            raise SystemExit(
                f"{self.path} cannot be written: {why}. Nothing that was acknowledged is lost: "
                "make room on the disk, see that the file can be written, and start the node again."
            ) from error

    def _save(self, raft: Raft) -> None:
        db, log, saved = self._db, raft.log, self._saved
        promised = max(0.0, raft.promise - raft.node.now())
        new = log.bytes_between(self.index, raft.last_applied)
        overdue = new >= CHECKPOINT_BYTES or log.start > self.index
        state = saved | {"term": raft.term, "vote": raft.voted_for, "last": log.size}
        if promised > saved["promised"]:
            state["promised"] = 2 * promised  # so that it need not be written each time
        elif overdue:  # the one that a node has read when it began must not grow
            state["promised"] = min(2 * promised, saved["promised"])
        if state == saved and log.stable == log.size and not overdue:
            return
        db.execute("BEGIN IMMEDIATE")
        state["commits"] += 1
        if log.stable < saved["last"]:  # the log was cut
            db.execute("DELETE FROM entry WHERE key > ?", (log.stable,))
        self._put("entry", enumerate(log.from_index(log.stable + 1, log.size + 1), log.stable + 1))
        if overdue:
            state["checkpoint"] = self._checkpoint(raft)
        self._put("state", [(0, state)])
        db.execute("COMMIT")
        log.stable, self._saved = log.size, state
        if overdue:
            self.index, self._map = raft.last_applied, raft.state_machine.map
        os.pwrite(self._count.fileno(), b"%20d" % state["commits"], 0)

    def _checkpoint(self, raft: Raft) -> list[int]:
        """The state as it is now takes the place of the log; it costs what has changed.

        What a snapshot has brought is what this node would have: its rows stay right.
        """
        snapshot = raft.snapshot()
        items = snapshot.map.changes_since(self._map)
        self._put("item", ((encode(key), [key, value]) for key, value in items))
        self._put("session", ((record[0], record) for record in raft.sessions.changes()))
        start = raft.log.start
        self._db.execute("DELETE FROM entry WHERE key <= ?", (start,))
        return [start, raft.log[start].term, snapshot.index, snapshot.size]

    def _put(self, table: str, rows: Iterable[tuple[Any, Any]]) -> None:
        whole = ((key, text := encode(value), checksum(table, key, text)) for key, value in rows)
        self._db.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)", whole)

    def _get(self, table: str) -> dict[Any, Any]:
        rows = {}
        for key, text, crc in self._db.execute(f"SELECT * FROM {table} ORDER BY key"):
            if checksum(table, key, text) != crc:
                raise ValueError(f"it is damaged: {table} {key} is not what was written")
            rows[key] = json.loads(text)
        return rows


def checksum(table: str, key: Any, text: Any) -> int:
    return zlib.crc32(f"{table} {key} {text}".encode())


FIELDS: Final = {  # of each type of message between servers
    handler.__name__: set(signature(handler).parameters) - {"self", "src"}
    for handler in (
        Raft.request_vote, Raft.request_vote_res, Raft.append_entries, Raft.append_entries_res,
        Raft.install_snapshot, Raft.forward,
    )
}  # fmt: skip


def check_operation(body: Body) -> Body:
    """A client's request without what it need not have. Error 12 if it lacks something."""
    names = OPERATIONS[body["type"]]
    if body.keys() != names:
        if missing := sorted(names - body.keys()):
            raise RPCError.malformed_request(f"the operation lacks {', '.join(missing)}")
        create = {"create_if_not_exists": True} if may_create(body) else {}
        body = {name: body[name] for name in body if name in names} | create
    if not PLAIN.issuperset(map(type, body.values())):
        deque(map(identity, body.values()), 0)
    return body


def weight(operations: Iterable[Operation]) -> int:
    """About how many bytes of memory an entry takes."""
    size = OPERATION_BYTES
    for _, _, body in operations:
        size += OPERATION_BYTES
        for value in body.values():
            if value.__class__ is not int:
                size += len(value) if value.__class__ is str else len(encode(value))
    return size


def majority(count: int) -> int:
    """How many of so many are more than half."""
    return count // 2 + 1


def median(values: Sequence[float]) -> float:
    """The highest value that a majority has reached."""
    return sorted(values)[-majority(len(values))]


def main() -> None:
    """The command line."""
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--unreplicated", action="store_true",
        help="chapter 1: each node has a map of its own, and two of them are found out")
    add("--reads", choices=("lease", "index", "log"), default="lease",
        help="how a read is kept from being stale: by the promises of a majority to elect nobody "
        "else, by asking a majority each time, or as an entry of the log (default: %(default)s)")
    add("--data-dir", metavar="DIR",
        help="keep the state in a file there, DIR/n0.db for node n0; default: in memory")
    add("--log", choices=("roles", "debug"), default="roles",
        help="on stderr: changes of role and term, or each message between servers, too")
    args = parser.parse_args()
    if args.data_dir == "":
        parser.error("--data-dir needs the name of a folder")
    storage = Storage(args.data_dir) if args.data_dir else None
    debug = args.log == "debug"
    server = Server() if args.unreplicated else Raft(None, args.reads, debug, storage)
    server.node.main()


if __name__ == "__main__":
    main()
