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
from itertools import takewhile
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
MORE_PATIENCE = 0.3  # seconds a second: peers that were paused look like a slow network
BACKLOG = 0.5  # that requests wait at most where more comes than can be read at once
STARTUP = 0.3  # that this program may have taken to begin, while requests waited for it
PATIENCE = 0.9  # at least, until an operation is given up: Maelstrom's clients wait for 1 s
NEAR = 0.004  # a round trip that is worth waiting for
SAMPLE_INTERVAL = 0.01  # seconds between two of round trips
FIRST_ROUND_TRIP = 0.15  # taken for granted, until enough of them are known
KEPT_BATCHES = 2.0  # seconds after their end in which they may come again

CHUNK_ENTRIES, CHUNK_BYTES = 1000, 1 << 18  # in one message; one entry may be larger
WINDOW_ENTRIES, WINDOW_BYTES = 8000, 1 << 22  # on the way to a follower
EARLY_APPENDS = 64  # messages that a follower keeps because they came too early
ENTRY_BYTES = 60  # of an entry besides its strings
REMEMBERED = 16_384  # answers
CHECKPOINT = 1000  # entries between two of what is stored
FORMAT = 2  # of the file
ROW = "SELECT max(key) FROM entry WHERE key <= ?"  # of the file: that which has an entry
KEPT_ENTRIES, KEPT_BYTES = 10_000, 1 << 26  # of the log, behind what is applied: for who lags
GONE = 10.0  # seconds of silence after which nothing is kept for a follower
MAX_AHEAD = 10**9  # terms, or entries, that a message can be ahead
MAX_TIME = 10**12  # that a clock can show

Operation = Sequence[Any]  # client, msg_id, body
Arrived = tuple[list[Operation], list[Operation]]
OPERATIONS: Final = {  # the fields that each must have
    "read": ("type", "key"),
    "write": ("type", "key", "value"),
    "cas": ("type", "key", "from", "to"),
}


class Entry(NamedTuple):
    """One place in the log: an operation, and the term of the leader that appended it.

    `birth` is a commit index that its owner knew of when the operation first left it. `client` is
    None in the no-op that starts a term.
    """

    term: int
    birth: int = 0
    client: str | None = None
    msg_id: int = 0
    body: Body = {}  # noqa: RUF012 (nobody changes it)


class Log:
    """The sequence of operations that all nodes agree on, one after the other.

        index    0   1     2     3     4     5
        term     0   1     1     1     3     3       (2 had no leader, or one whose entries
        body     -   -    x=1   y=2    -    x=3       were lost)

    Indexes begin at 1; at 0 there is a sentinel of term 0. Invariants:

    - terms never decrease from one entry to the next;
    - two logs that have an entry of the same index and term agree on it and on all before it
      (section 5.3, Log Matching): Raft.accept checks what comes before, so it stays true;
    - a committed entry is never changed or removed: Raft.place refuses to.
    """

    def __init__(self) -> None:
        self.start = 0  # what came before is in a snapshot (section 7); here stands its last term
        self.size = 0  # the index of the last entry
        self._entries = [Entry(0)]
        self._bytes = [0]  # about how much all entries up to one weigh; of as many as were asked
        self.stable = 0  # up to here it is on the disk, if that is where it is kept

    @property
    def last(self) -> Entry:
        return self._entries[-1]

    def __getitem__(self, index: int) -> Entry:
        """The entry of an index from `start` on."""
        return self._entries[index - self.start]

    def append(self, entries: Iterable[Entry]) -> None:
        self._entries.extend(entries)
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
        kept = self._entries[index + 1 - self.start :] if self.term_of(index) == term else []
        self.stable = max(self.stable, index) if kept else index
        self._bytes = (self._bytes[index - self.start :] if kept else []) or [0]
        self.start, self.size, self._entries = index, index + len(kept), [Entry(term), *kept]

    def term_of(self, index: int) -> int | None:
        """None if the log has no such entry."""
        return self[index].term if self.start <= index <= self.size else None

    def bytes_between(self, index: int, end: int) -> int:
        """About how much the entries after `index` up to `end` weigh in a message."""
        for entry in self._entries[len(self._bytes) : end + 1 - self.start]:
            self._bytes.append(self._bytes[-1] + weight(entry.body))
        return self._bytes[end - self.start] - self._bytes[max(0, index - self.start)]


@dataclass
class Batch:
    """The operations that clients sent to a node, their owner, in one turn.

    It is what is forwarded, tried again and kept track of, as a whole.
    """

    owner: str
    seq: int  # tells it from the owner's other ones, even from those before a crash
    until: float  # nothing may be answered from then on, in the time of who has it
    reads: list[Operation]
    writes: list[Operation]
    birth: int = 0
    # At its owner
    left: bool = False  # another node may have it: from then on a write may happen
    sent_at: float = -math.inf
    sent_to: str = ""
    # At the leader
    via: str = ""  # the node that it came from: the owner, or one that passed it on
    stamp: float = -math.inf  # of the last messages sent before it came
    last_index: int = 0  # of its writes
    done: bool = False


@dataclass
class Snapshot:
    """The state when all up to an entry was applied, in that part of the log's place (section 7).

    A leader's, or what has come of it at a follower. It consists of records: the answers, then the
    map's items, [key, value]. The map's versions never change, so it may be read, part by part,
    for as long as it takes.
    """

    index: int = 0
    term: int = 0
    members: dict[str, int] = field(default_factory=dict)
    floor: int = 0  # of the answers
    answers: list[Any] = field(default_factory=list)
    map: PersistentMap = field(default_factory=lambda: PersistentMap())

    @property
    def size(self) -> int:
        """In records."""
        return len(self.answers) + len(self.map)

    def part(self, offset: int) -> list[Any]:
        """Records from one on, as many as one message carries, or one that is larger."""
        end, answers = offset + CHUNK_ENTRIES, len(self.answers)
        data = self.answers[offset:end]
        data += self.map.items(max(0, offset - answers), max(0, end - answers))
        size = 0
        for count, record in enumerate(data):  # one by one: they may be large
            size += len(encode(record))
            if size > CHUNK_BYTES:
                return data[: max(1, count)]
        return data

    def take(self, data: list[Any]) -> None:
        """The records that come next."""
        for record in data:
            if len(record) == 2:
                self.map = self.map.set(*record)
            else:
                self.answers.append(record)


@dataclass
class Follower:
    """What a leader knows of a follower. It changes with the term."""

    start: int | None  # of the node
    next_index: int  # of the next entry to send; moves on when it is sent
    heard_of: float  # when something last came from it
    progress: float  # since when what is under way is not acknowledged
    match_index: int = 0  # the highest entry known to be in both logs
    lacked: int = 0  # was committed when its return was heard of
    readmitted: int | None = None  # the start whose return was appended
    acked: float = -math.inf  # stamp of the latest message that it answered
    promised: float = -math.inf  # until when it votes for nobody, by our clock
    sent_at: float = -math.inf
    stamp: float = -math.inf  # of the latest message to it
    backed: float = -math.inf  # stamp of the last step back
    answered: list[Any] = field(default_factory=list)  # batches it is to hear of: owner, seq
    snapshot: Snapshot | None = None  # that it gets, for it lacks what the log has no more
    offset: int = 0  # how many of its records the follower has
    part_stamp: float = -math.inf  # of the message with the last ones


class Raft(Server):
    """A node of a replicated state machine: D. Ongaro, J. Ousterhout, In search of an
    understandable consensus algorithm (the paper); D. Ongaro's thesis goes further.

    Messages and timers change fields; what follows from all of a turn's is done once, when it is
    drained. Messages between servers are one-way: losing, doubling or reordering them is the
    normal case and not an exception. Every time is read from the clock where it is stored.
    """

    def __init__(
        self,
        node: Node | None = None,
        reads: str = "lease",
        debug: bool = False,
        storage: Storage | None = None,
    ) -> None:
        super().__init__(node)
        self.reads = reads  # how a leader makes sure that a read is not stale
        self.debug = debug

        # Persistent state on all servers (figure 2), if there is a storage
        self.storage = storage
        self.term = 0  # changed in advance_term
        self.voted_for: str | None = None  # in this term
        self.log = Log()  # appended to by a leader, changed in place by a follower

        # Who takes part: without a storage, a node that comes back has forgotten what it promised.
        self.start = 0  # a number of this start of the node; 0: it forgets nothing
        self.members: dict[str, int] = {}  # their starts; none are known before it is founded
        self.founder: Body = {}  # and its start, if it has this node's vote in this term
        self.began = -math.inf  # this start of the node

        # Volatile state on all servers
        self.role = "follower"  # or "candidate", or "leader"
        self.leader: str | None = None  # of this term, if it was heard
        self.commit_index = 0
        self.known_commit = 0  # the largest that was heard of
        self.last_applied = 0
        self.answers = Answers()  # replicated like the state machine

        # Volatile state of elections
        self.votes: dict[tuple[bool, int], dict[str, int]] = {}  # by (pre, term): starts of voters
        self.failures = 0  # elections since a leader was heard
        self.promise = -math.inf  # no vote before: a leader's lease counts on it
        self.deadline = math.inf  # of the next election
        self.election_timer = self.node.after(0, self.election_timer_fires)

        # Volatile state on followers
        self.verified = 0  # the log equals this term's leader's up to here
        self.early: dict[int, list[Entry]] = {}  # entries that overtook others, by prev_log_index
        self.incoming = Snapshot()  # part by part; of index 0 if there is none
        self.ack: Body = {}  # to be sent when the input is drained
        self.ahead = -math.inf  # by how much the leader's clock is ahead of ours, at least
        self.heard_leader_at = 0.0

        # Volatile state on leaders
        self.followers: dict[str, Follower] = {}
        self.term_start = 0  # the index of this term's no-op
        self.stamp = -math.inf  # of the latest messages, strictly increasing
        self.accepted: dict[tuple[str, int], Batch] = {}  # in this term, lately
        self.awaiting: deque[Batch] = deque()  # those with writes not yet applied, in order
        self.waiting_reads: list[Batch] = []

        # Operations of this node's clients
        self.arrived: Arrived = ([], [])  # in this turn: reads, writes
        self.turned_away: list[tuple[str, int]] = []  # while nothing can be stored
        self.answer_by = math.inf  # when the answers of this turn must have left
        self.pending: dict[int, Batch] = {}
        self.seq = 0
        self.routes: dict[str, float] = {}  # who hears a leader, and how far its clock is ahead
        self.new_route = False  # to a leader, found in this turn
        self.relayed: dict[str, list[int]] = {}  # seqs that the leader has done, by their owner

        # Times, in seconds; a follower has them from its leader
        self.rtt = FIRST_ROUND_TRIP  # of a message and its answer; a follower's is its leader's
        self.samples = deque([FIRST_ROUND_TRIP] * 25, maxlen=51)  # of it
        self.sampled = -math.inf
        self.min_heartbeat = HEARTBEAT
        self.timeout = 0.0  # of elections
        self.ticked = (0.0, 0.0)  # when the last two ticks were
        self.patience = PATIENCE  # until an operation is given up
        self.input_at = self.node.now() - STARTUP  # when all that had come was read
        self.heard = False  # something in this turn
        self.waited = (self.input_at, self.input_at)  # since when what came then may have waited

        self.node.on_init(self.init)
        self.node.on_drained(self.drained)
        for type in MESSAGES:
            self.node.on(type, self.receive)

    def receive(self, msg: Message) -> None:
        """Another server's message; its handler has the name of its type."""
        if self.debug:
            self.node.log(f"{self.node.node_id} < {encode(msg)}")
        with self.lock:
            self.hear()
            check_message(msg, self)
            getattr(self, msg["body"]["type"])(msg["src"], msg["body"])

    def init(self) -> None:
        """The nodes are known. The first one leads, if all is new: nobody else can.

        The others give it a second: it may be told last that it exists, and they may not send to
        a node that does not.
        """
        with self.lock:
            if self.storage:
                self.storage.open(self)
            self.began = now = self.node.now()
            self.seq = int(now * 1e6)
            if self.storage:
                self.members = dict.fromkeys(self.node.node_ids, self.start)
            else:
                self.start = self.node.random.getrandbits(48)
            self.heard = True  # what comes in this turn may have waited since before the start
            self.input_at, self.ticked = self.input_at if self.node.lags else now, (now, now)
            others = len(self.node.node_ids) - 1
            self.min_heartbeat = max(HEARTBEAT, 2 * others / HEARTBEATS_PER_SECOND)
            self.timeout = self.min_timeout
            self.node.every(TICK, self.tick)
            if self.is_first() and self.log.size == self.term == 0:
                self.become_candidate()
            else:
                self.set_deadline(now + FIRST_ELECTION + self.random_timeout())

    def drained(self) -> None:
        """What follows from the messages and timers of a turn; then its output leaves."""
        with self.lock:
            self.heard = False
            if self.new_route:
                self.new_route = False
                self.hand_over_pending()
            if any(self.arrived):
                self.hand_over_arrived()
            if self.storage and self.node.node_id:
                self.storage.save(self, self.may_save_later())
            if self.role == "leader":
                self.advance_commit_index()
                self.advance_state_machine()
                self.serve_reads()
                self.replicate_log()
            else:
                self.advance_state_machine()
                self.acknowledge()
            if self.storage and self.storage.failed:
                self.node.withdraw()  # it may depend on what a crash would make us forget
            for client, msg_id in self.turned_away:
                self.answer(client, msg_id, self.unavailable())
                self.answer_by = min(self.answer_by, self.answerable())
            self.turned_away.clear()
            if self.node.now() >= self.answer_by:
                self.node.withdraw()  # it was stopped since it looked whether it may still answer
            self.answer_by = math.inf

    def tick(self) -> None:
        """What must happen even if no message comes."""
        with self.lock:
            now = self.node.now()
            if self.storage:
                self.storage.save(self)
            if self.role == "leader":
                self.review_followers(now)
                self.readmit()
                self.adapt_patience()
                if self.of_majority(now, "heard_of") < now - 2 * self.timeout:
                    self.forget_leader()  # its clients may do better elsewhere
                    self.become_follower("heard no majority")
            self.review_pending(now)
            self.compact()
            self.ticked = (self.ticked[1], now)

    def log_role(self, text: str) -> None:
        """A line on stderr: who, in which term, is what now, and why."""
        self.node.log(f"{self.node.node_id} term {self.term}: {text}")

    def send(self, dest: str, type: str, **fields: Any) -> None:
        self.node.send(dest, {"type": type, **fields})

    # Client operations: their owner, the node that got them

    def client_req(self, msg: Message) -> None:
        """Takes a client's operation on; the leader answers it, or else `review_pending`."""
        body = msg["body"]
        with self.lock:
            self.hear()
            operation = (msg["src"], body.get("msg_id"), check_operation(body))
            if self.storage and self.storage.failed:
                self.turned_away.append(operation[:2])
                return
            is_write = body["type"] != "read" or self.reads == "log"
            self.arrived[is_write].append(operation)

    def hear(self) -> None:
        """Notes since when what has come in this turn may have waited to be heard.

        Maelstrom delivers to a node one message after the other, so others may have waited for a
        slow one, in the silence before it; but no message takes that long. If this node was
        stopped, they have waited in its pipe since the last tick but one (a tick may have come
        first). After a long time they are many, so they are read for a while. If there is more than
        can be read at once, it may all have waited since there was not.
        """
        if self.heard:
            return
        self.heard = True
        now, (since, read_at) = self.node.now(), self.waited
        wait = 6 * self.rtt if self.node.other_node_ids else 0.0
        longest = now - BACKLOG if self.node.lags else self.ticked[0] - wait
        oldest = min(max(self.input_at, longest), self.ticked[0])
        if now - oldest > read_at - since or now - read_at > max(TICK, (read_at - since) / 8):
            self.waited = (oldest, now)
        if not self.node.lags:
            self.input_at = now

    def answerable(self) -> float:
        """Until when what has come in this turn may be answered."""
        return min(self.waited[0], self.ticked[0]) + self.patience

    def hand_over_arrived(self) -> None:
        """Makes a batch of the operations that came in this turn, and sends it on its way."""
        self.seq += 1
        batch = Batch(self.node.node_id, self.seq, self.answerable(), *self.arrived)
        self.pending[self.seq] = batch
        self.arrived = ([], [])
        self.hand_over(batch)

    def hand_over(self, batch: Batch) -> None:
        """Gives a batch to the leader, to one that hears it, or to nobody for now.

        The second try goes through another node, for the link to the leader may be cut; so does
        the first one when only others hear the leader.
        """
        if not batch.left:
            batch.birth = self.known_commit
        if self.role == "leader":
            batch.left, batch.sent_to = True, self.node.node_id
            self.accept_batch(batch, self.node.node_id)
            return
        ways = [self.leader] if self.leader else [*self.routes]
        if self.leader and batch.sent_to:
            ways = self.node.other_node_ids
        if not (ways := [way for way in ways if way != batch.sent_to] or ways):
            return
        dest = self.node.random.choice(ways)
        clock, ahead = (self.leader, self.ahead) if self.leader else (dest, self.routes[dest])
        batch.left, batch.sent_to, batch.sent_at = True, dest, self.node.now()
        self.send(
            dest, "forward", owner=batch.owner, seq=batch.seq, birth=batch.birth, clock=clock,
            until=batch.until + ahead, reads=batch.reads, writes=batch.writes,
        )  # fmt: skip

    def hand_over_pending(self) -> None:
        """There is another leader, or another way to one: everything goes there, at once."""
        for batch in self.pending.values():
            batch.sent_to = ""
            self.hand_over(batch)

    def review_pending(self, now: float) -> None:
        """Answers what has waited too long, and sends again what may be lost.

        An error must be definite, for after another one Maelstrom forgets the client while the
        leader may still answer it. So a write that may happen gets none: the client's time-out
        says the same. After a pause nothing is said either: the client may be gone.
        """
        retry = 2 * self.rtt + self.heartbeat
        for batch in list(self.pending.values()):
            if now >= batch.until:
                del self.pending[batch.seq]
                in_vain = batch.reads if batch.left else batch.reads + batch.writes
                if now < batch.until + 2 * TICK:
                    for client, msg_id, _ in in_vain:
                        self.answer(client, msg_id, self.unavailable())
                    self.answer_by = min(self.answer_by, batch.until + 2 * TICK)
            elif now - batch.sent_at > retry and batch.sent_to != self.node.node_id:
                self.hand_over(batch)

    def unavailable(self) -> Body:
        """Why an operation could not be done."""
        why = f"leader: {self.leader or 'none'}"
        if self.storage and self.storage.failed:
            why = f"{self.node.node_id} cannot store it: {self.storage.failed}"
        return RPCError.temporarily_unavailable(why).to_json()

    def answer(self, client: str, msg_id: int, res: Body) -> None:
        """Answers a client, whichever node it had asked: it looks at in_reply_to alone."""
        self.node.send(client, {**res, "in_reply_to": msg_id})

    def answered(self, src: str, body: Body) -> None:
        """A node that had passed batches on says that the leader has done them."""
        self.known_commit = max(self.known_commit, body["commit"])
        for seq in body["seqs"]:
            self.pending.pop(seq, None)

    def forward(self, src: str, body: Body) -> None:
        """Another node's batch. The leader takes it; who hears the leader passes it on, once.

        Both only if they can tell until when it may be answered: `until` is in the time of
        `clock`. To another one the answer is who leads now.
        """
        me, owner, clock = self.node.node_id, body["owner"], body["clock"]
        if self.role == "leader" and clock == me:
            names = ("owner", "seq", "until", "reads", "writes", "birth")
            self.accept_batch(Batch(*[body[name] for name in names]), src)
        elif owner == src and self.leader not in (None, src, me) and clock in (me, self.leader):
            until = body["until"] + (self.ahead if clock == me else 0)
            self.node.send(self.leader, {**body, "clock": self.leader, "until": until})
        elif owner == src:
            self.send_vote(src, False, self.term, False, None)

    # Client operations: the leader

    def accept_batch(self, batch: Batch, via: str) -> None:
        """Takes a batch, once in its term: its writes into the log, its reads aside."""
        key = (batch.owner, batch.seq)
        if accepted := self.accepted.get(key):
            accepted.via = via  # the way that it came by last is the best one back
            if accepted.done:
                self.finish(accepted)
        elif (now := self.node.now()) < batch.until:  # else the clients are gone
            batch.until = min(batch.until, now + MAX_TIMEOUT)
            self.accepted[key] = batch
            batch.via, batch.stamp, batch.last_index, batch.done = via, self.stamp, 0, False
            if batch.writes:
                birth = min(batch.birth, self.log.size)  # else other logs might not take them
                self.log.append(Entry(self.term, birth, *write) for write in batch.writes)
                batch.last_index = self.log.size
                self.awaiting.append(batch)
            if batch.reads:
                self.waiting_reads.append(batch)

    def finish(self, batch: Batch) -> None:
        """A batch whose reads are served and whose writes are applied: its owner is to know."""
        batch.done = True
        if batch.owner == self.node.node_id:
            self.pending.pop(batch.seq, None)
        elif follower := self.followers.get(batch.via):
            follower.answered.append((batch.owner, batch.seq))

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

    def found(self) -> None:
        """Asks for the votes that are missing still, in another term if one was refused."""
        if self.role == "candidate" and (False, self.term) in self.votes:
            self.request_votes(pre=False)
        else:
            self.become_candidate()

    def starts(self) -> dict[str, int]:
        """Who takes part, as far as this node knows; else itself."""
        return self.members or {self.node.node_id: self.start}

    def is_member(self) -> bool:
        """Whether this node takes part: has not forgotten what it may have promised."""
        return self.members.get(self.node.node_id) == self.start

    def readmit(self) -> None:
        """Appends the return of those that have what was committed when they came back, once each.

        What is committed now is no measure: under load only the quickest has it.
        """
        for id, follower in self.followers.items():
            known = follower.start in (self.members.get(id), follower.readmitted)
            if not known and follower.match_index >= follower.lacked:
                follower.readmitted = follower.start
                self.log.append([Entry(self.term, body={"return": {id: follower.start}})])

    def admit(self, starts: Mapping[str, int]) -> None:
        """Learns who takes part."""
        was_member = self.is_member()
        self.members |= starts
        if self.is_member() and not was_member:
            self.log_role(f"{self.role}, takes part")
            self.reset_election_deadline()

    # Elections (sections 5.1, 5.2, 5.4.1; PreVote: thesis 9.6)

    def of_majority(self, mine: float, what: str) -> Any:
        """The highest value that a majority has reached, this node among it.

        Who has forgotten what it said, and is not readmitted, has reached nothing.
        """
        starts = self.members
        theirs = [
            getattr(follower, what) if follower.start == starts.get(id, ABSENT) else -math.inf
            for id, follower in self.followers.items()
        ]
        return median([mine, *theirs])

    @property
    def heartbeat(self) -> float:
        """Seconds between the messages to a follower."""
        return max(self.min_heartbeat, self.timeout / 4)

    @property
    def min_timeout(self) -> float:
        """Almost two heartbeats: the election timeout on a network without latency."""
        return 1.8 * self.min_heartbeat

    def random_timeout(self) -> float:
        """Random, so that votes are seldom split (section 5.2); longer after each failure."""
        longer = float(1.4 ** max(0, min(self.failures - 1, 6)))
        return self.timeout * longer * self.node.random.uniform(1, 1.5)

    def reset_election_deadline(self) -> None:
        """Don't start an election for a while."""
        self.set_deadline(self.node.now() + self.random_timeout())

    def set_deadline(self, deadline: float) -> None:
        """Moves the next election, but not before the end of a promise: it binds us, too.

        A timer that fires earlier looks where the deadline is by then: moving it costs nothing.
        """
        self.deadline = max(deadline, self.promise)
        if self.deadline < self.election_timer.deadline:
            self.election_timer.cancel()
            self.await_deadline()

    def await_deadline(self) -> None:
        wait = max(0.0, self.deadline - self.node.now())
        self.election_timer = self.node.after(wait, self.election_timer_fires)

    def election_timer_fires(self) -> None:
        with self.lock:
            if self.node.now() >= self.deadline:
                self.reset_election_deadline()
                if self.role != "leader" and self.is_member():
                    self.campaign()
                elif self.is_first() and not self.members:
                    self.found()
            self.await_deadline()

    def advance_term(self, term: int) -> None:
        """Moves to a later term, in which this node has not voted (section 5.1)."""
        if term <= self.term:
            raise ValueError(f"a term cannot go back from {self.term} to {term}")
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
        self.leader = None
        self.verified = self.commit_index
        self.early.clear()
        self.incoming = Snapshot()
        self.ack = {}
        self.ahead = -math.inf

    def become_follower(self, why: str) -> None:
        self.role = "follower"
        self.followers.clear()
        self.accepted.clear()
        self.awaiting.clear()
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
        self.failures += 1
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
        self.role = "leader"
        self.forget_leader()
        self.leader = self.node.node_id
        self.log_role(f"leader, elected by {' '.join(sorted(self.votes[False, self.term]))}")
        self.members = self.members or self.votes[False, self.term]
        self.votes.clear()
        self.routes.clear()
        self.failures = 0
        self.adapt_timeout()
        now, last = self.node.now(), self.log.size
        self.followers = {
            id: Follower(self.members.get(id), last + 1, now, now)
            for id in self.node.other_node_ids
        }
        # Only an entry of its own term tells a leader what is committed (sections 5.4.2 and 8).
        self.log.append([Entry(self.term, body={"founded": self.members.copy()})])
        self.term_start = self.log.size
        self.new_route = True

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

    def request_vote(self, src: str, body: Body) -> None:
        """A candidate asks for this node's vote, or whether it would get it."""
        pre, term, starts, granted = body["pre"], body["term"], body["starts"], False
        if not self.members and starts.get(self.node.node_id) == self.start:
            self.admit(starts)
        may_vote = not self.members if len(starts) == 1 else self.is_member()
        # While a leader is alive nobody is elected, so that it may serve reads by its lease
        # (thesis 6.4.1), and a node that comes back from a partition does not depose it.
        if may_vote and not self.is_led():
            if not pre:
                self.maybe_step_down(term, f"{src} asks for a vote")
            # Section 5.4.1: the candidate's log must be at least as up-to-date as this one.
            theirs = (body["last_log_term"], body["last_log_index"])
            ours = (self.log.last.term, self.log.size)
            if theirs >= ours and pre:
                granted = self.pre_vote(src, term, (*theirs, src) > (*ours, self.node.node_id))
            elif theirs >= ours:
                granted = self.vote(src, term, starts)
        self.send_vote(src, pre, term if granted else self.term, granted, body["sent"])

    def pre_vote(self, src: str, term: int, is_larger: bool) -> bool:
        """Whether a candidate would get a vote (thesis 9.6).

        Of two that pre-campaign the larger goes on, and asks the other, which may have been bound
        by a promise before; that one drops out and draws its own deadline anew.
        """
        rival = term == self.term + 1 and (True, term) in self.votes
        granted = term > self.term and (is_larger or not rival)
        if granted and rival:
            self.votes.pop((True, term))
            self.reset_election_deadline()
        elif rival:
            self.ask_for_vote(src, pre=True)
        return granted

    def vote(self, src: str, term: int, starts: Body) -> bool:
        """Votes for a candidate of this term, unless it has voted for another (section 5.2)."""
        asks_again = self.voted_for == src and self.founder in ({}, starts)
        granted = term == self.term and (self.voted_for is None or asks_again)
        if granted:
            self.voted_for, self.founder = src, starts if len(starts) == 1 else {}
            self.reset_election_deadline()
        return granted

    def is_led(self) -> bool:
        """Whether a leader has this node's promise, or is this node, with a majority behind it."""
        now = self.node.now()
        if self.role == "leader":
            return bool(self.of_majority(now, "heard_of") >= now - self.timeout)
        return now < self.promise

    def send_vote(self, dest: str, pre: bool, term: int, granted: bool, sent: float | None) -> None:
        """Yes, or no and who leads. The no is also the answer to a forward that leads nowhere."""
        self.send(
            dest, "request_vote_res", pre=pre, term=term, granted=granted, sent=sent,
            leader=self.leader if not granted and self.is_led() else None,
            now=self.node.now(), commit=self.known_commit, starts=self.starts(),
        )  # fmt: skip

    def request_vote_res(self, src: str, body: Body) -> None:
        """A vote, or a refusal, which may say that there is a leader."""
        pre, term, leader = body["pre"], body["term"], body["leader"]
        self.known_commit = max(self.known_commit, body["commit"])
        if (sent := body["sent"]) is not None:
            if sent < self.began:
                return  # it is an answer to the node that this one has forgotten that it was
            self.measure(sent)
        if not body["granted"] and not self.members:  # nothing is founded in this term,
            self.votes.clear()
            if len(body["starts"]) > 1:  # nor in another: this node comes back
                self.admit(body["starts"])
        if body["granted"]:
            if (pre, term) in self.votes:
                self.votes[pre, term][src] = body["starts"].get(src, 0)
                self.count_votes(pre, term)
        elif leader is None:
            self.routes.pop(src, None)
            self.maybe_step_down(term, f"{src} is in a later term")
        elif not self.leader and leader != self.node.node_id:
            self.new_route = self.new_route or not self.routes
            self.routes[src] = body["now"] - self.node.now()  # at least

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
        now, heartbeat = self.node.now(), self.heartbeat
        self.stamp = max(now, math.nextafter(self.stamp, math.inf))
        asked = max((accepted.stamp for accepted in self.waiting_reads), default=-math.inf)
        for node_id, follower in self.followers.items():
            # Reads wait for the answer to a later message.
            due = follower.stamp <= asked or now - follower.sent_at >= heartbeat
            if follower.next_index <= self.log.start:
                if now - follower.heard_of <= GONE:
                    self.send_snapshot(node_id, follower, due)
                    continue
                follower.snapshot, follower.next_index = None, self.log.size + 1
            last = self.last_to_send(follower, now)
            if last >= follower.next_index or due:
                self.send_entries(node_id, follower, last)

    def last_to_send(self, follower: Follower, now: float) -> int:
        """The last index of the entries to send now; 0 for none."""
        next_index, match_index, log = follower.next_index, follower.match_index, self.log
        if next_index > log.size:
            return 0
        if now - follower.heard_of > self.timeout:
            return 0  # heartbeats will do, until it answers one
        under_way = next_index - 1 - match_index
        if under_way and self.rtt < NEAR and now - follower.sent_at < self.rtt:
            return 0  # Nagle's rule: the answer comes soon, and until then there will be more
        if under_way and log.bytes_between(match_index, next_index - 1) > WINDOW_BYTES:
            return 0
        last = min(log.size, next_index - 1 + CHUNK_ENTRIES, match_index + WINDOW_ENTRIES)
        while last > next_index and log.bytes_between(next_index - 1, last) > CHUNK_BYTES:
            last = (next_index + last) // 2
        return last

    def send_entries(self, node_id: str, follower: Follower, last: int) -> None:
        """Sends append_entries with the entries up to `last`, maybe none."""
        previous = follower.next_index - 1
        entries = self.log.from_index(previous + 1, last + 1)
        if entries and previous == follower.match_index:
            follower.progress = self.node.now()
        follower.next_index += len(entries)
        self.send_follower(
            node_id, "append_entries", prev_log_index=previous,
            prev_log_term=self.log[previous].term, entries=entries,
            leader_commit=self.commit_index, answered=follower.answered,
        )  # fmt: skip
        follower.answered = []

    def send_follower(self, node_id: str, type: str, **fields: Any) -> None:
        """Sends what a leader says to a follower, with what it always says."""
        follower = self.followers[node_id]
        follower.sent_at, follower.stamp = self.node.now(), self.stamp
        self.send(
            node_id, type, term=self.term, sent=self.stamp, timeout=self.timeout,
            rtt=self.rtt, patience=self.patience, **fields,
        )  # fmt: skip

    def hear_follower(self, src: str, body: Body) -> Follower | None:
        """Any answer to this leader's message; None if it is one of an earlier term."""
        term, sent = body["term"], body["sent"]
        self.maybe_step_down(term, f"{src} is in a later term")
        if self.role != "leader" or term != self.term:
            return None
        if sent > self.stamp:
            raise RPCError.malformed_request(f"nothing was sent at {sent}")
        self.measure(sent)
        follower = self.followers[src]
        if follower.start != body["start"]:  # it has forgotten what it had
            heard = (follower.heard_of, follower.progress)
            follower = Follower(body["start"], 1, *heard, lacked=self.commit_index)
            self.followers[src] = follower
        follower.heard_of = self.node.now()
        follower.acked = max(follower.acked, sent)
        # The timeout of that very message: today's may be longer than what was promised then.
        follower.promised = max(follower.promised, sent + body["timeout"] * LEASE)
        return follower

    def append_entries_res(self, src: str, body: Body) -> None:
        """A follower says how far its log equals the leader's, or where to go on.

        If it gets a snapshot, it says how much of it has come.
        """
        match, sent = body["match"], body["sent"]
        if not (follower := self.hear_follower(src, body)):
            return
        if match > self.log.size:
            raise RPCError.malformed_request(f"nothing was sent up to {match}")
        if body["success"]:
            if match > follower.match_index:
                follower.match_index, follower.progress = match, follower.heard_of
                follower.next_index = max(follower.next_index, match + 1)
            snapshot = follower.snapshot
            if snapshot and match >= self.log.start:  # it needs no more than entries
                follower.snapshot = None
            elif snapshot and body["snapshot"] == snapshot.index and sent == follower.acked:
                follower.offset = body["offset"]  # else it says what was the case before
        elif sent > follower.backed:  # else it answers what was sent before the last step back
            follower.backed = self.stamp
            follower.next_index = max(follower.match_index, match) + 1

    def send_snapshot(self, node_id: str, follower: Follower, due: bool) -> None:
        """Sends a part of the state to a follower that lacks what the log has no more (section 7).

        One part is under way at a time. A heartbeat is an empty one: its answer says what came.
        """
        if not follower.snapshot:
            follower.snapshot, follower.offset = self.snapshot(), 0
            follower.part_stamp = -math.inf
        snapshot, silence = follower.snapshot, self.node.now() - follower.heard_of
        full = follower.acked >= follower.part_stamp and silence <= self.timeout
        if full:
            follower.part_stamp = self.stamp
        if full or due:
            self.send_follower(
                node_id, "install_snapshot", last_index=snapshot.index, last_term=snapshot.term,
                starts=snapshot.members, floor=snapshot.floor, size=snapshot.size,
                offset=follower.offset, data=snapshot.part(follower.offset) if full else [],
            )  # fmt: skip

    def snapshot(self) -> Snapshot:
        """The state as it is now."""
        index, answers, map = self.last_applied, self.answers, self.state_machine.map
        term, members = self.log[index].term, self.members.copy()
        return Snapshot(index, term, members, answers.floor, list(answers.records), map)

    def compact(self) -> None:
        """Forgets what is applied of the log (section 7), but what a follower may lack still."""
        snapshots = [follower.snapshot for follower in self.followers.values()]
        needed = [snapshot.index for snapshot in snapshots if snapshot]
        if self.storage:
            needed.append(self.storage.index)
        start = self.log.start  # after a snapshot the disk may be behind it
        index = max(start, min([self.last_applied, *needed]))
        many = KEPT_ENTRIES * 9 // 8  # no more, for to free thousands at once stops the node
        kept = index - KEPT_ENTRIES if index - start > many else start
        if self.log.bytes_between(kept, index) > KEPT_BYTES:
            kept = (kept + index + 1) // 2
        if kept > start:
            self.log.compact(kept, self.log[kept].term)

    def review_followers(self, now: float) -> None:
        """Sends again what was not acknowledged in time; forgets the batches of long ago."""
        stall = 2 * self.rtt + TICK
        for follower in self.followers.values():
            if follower.next_index - 1 > follower.match_index and now - follower.progress > stall:
                follower.next_index = follower.match_index + 1
        while self.accepted:
            oldest = next(iter(self.accepted.values()))
            if now < oldest.until + KEPT_BATCHES:
                break
            del self.accepted[oldest.owner, oldest.seq]

    def may_save_later(self) -> bool:
        """Whether entries may leave this leader before they are on its own disk (thesis 10.2.1).

        It does not count itself before: the followers alone commit them, or they wait for a tick.
        That it leads must be on its disk: it is, with the term's first entry.
        """
        now = self.node.now()
        heard = sum(now - one.heard_of < self.timeout for one in self.followers.values())
        return heard >= majority(len(self.node.node_ids)) and self.log.stable >= self.term_start

    def advance_commit_index(self) -> None:
        """Commits what a majority has, if it is of this term (sections 5.3 and 5.4.2)."""
        if self.commit_index == self.log.size:
            return
        mine = self.log.stable if self.storage else self.log.size
        index = self.of_majority(mine, "match_index")
        if index > self.commit_index and self.log[index].term == self.term:
            self.commit_index = index
            self.known_commit = max(self.known_commit, index)

    # Replication: the follower

    def append_entries(self, src: str, body: Body) -> None:
        """The leader's entries, or its heartbeat."""
        if not self.hear_leader(src, body):
            return
        for owner, seq in body["answered"]:
            if owner == self.node.node_id:
                self.pending.pop(seq, None)
            else:
                self.relayed.setdefault(owner, []).append(seq)
        entries = [*map(Entry._make, body["entries"])]
        refused = self.accept(body["prev_log_index"], body["prev_log_term"], entries)
        # The leader's commit index says nothing of entries that may differ from its own.
        self.commit_index = max(self.commit_index, min(body["leader_commit"], self.verified))
        self.known_commit = max(self.known_commit, body["leader_commit"])
        self.agree(body, refused)

    def hear_leader(self, src: str, body: Body) -> bool:
        """Any message of a leader; False if it is one of an earlier term, which is refused."""
        term, sent, timeout = body["term"], body["sent"], body["timeout"]
        if term < self.term:
            self.send_leader(src, sent, timeout, False, 0)
            return False
        self.maybe_step_down(term, f"{src} leads")
        if self.leader != src:
            self.follow(src)
        now = self.node.now()
        self.promise = max(self.promise, now + timeout)
        # What was known grows old: clocks differ in speed.
        self.ahead = max(sent - now, self.ahead - (1 - LEASE) * (now - self.heard_leader_at))
        self.heard_leader_at = now
        self.timeout = max(timeout, self.min_timeout)  # of 0 a node would campaign without a pause
        self.rtt, self.patience = body["rtt"], body["patience"]
        return True

    def agree(self, body: Body, refused: int | None = None) -> None:
        """Says how far the log is known to be the leader's, when the input is drained.

        There is one answer for all of a turn's messages, to the latest.
        """
        latest = self.ack if self.ack and self.ack["sent"] > body["sent"] else body
        self.ack = {
            "sent": latest["sent"], "timeout": latest["timeout"], "success": refused is None,
            "match": self.verified if refused is None else refused,
        }  # fmt: skip

    def send_leader(
        self, leader: str, sent: float, timeout: float, success: bool, match: int
    ) -> None:
        """Answers a leader; also how much has come of the snapshot that this node gets."""
        self.send(
            leader, "append_entries_res", term=self.term, success=success, match=match, sent=sent,
            timeout=timeout, start=self.start, snapshot=self.incoming.index,
            offset=self.incoming.size,
        )  # fmt: skip

    def install_snapshot(self, src: str, body: Body) -> None:
        """A part of the leader's state: this node lacks what the leader's log has no more.

        (Section 7.) Parts come in order; one that is not the next is answered with which that is.
        """
        if not self.hear_leader(src, body):
            return
        index = body["last_index"]
        if index > self.commit_index:  # a node never goes back
            if index > self.incoming.index:
                self.incoming = Snapshot(index, body["last_term"], body["starts"], body["floor"])
            incoming = self.incoming
            if (index, body["offset"]) == (incoming.index, incoming.size):
                incoming.take(body["data"])
            if index == incoming.index and incoming.size >= body["size"]:
                self.log.compact(index, incoming.term)
                self.install(incoming)
                self.log_role(f"follower of {src}, with its state up to {index}")
        self.agree(body)

    def install(self, snapshot: Snapshot) -> None:
        """Takes a state that has come in the place of its own."""
        self.state_machine = Map(snapshot.map)
        self.answers = Answers(snapshot.floor, snapshot.answers)
        self.commit_index = self.last_applied = snapshot.index
        self.verified = max(self.verified, snapshot.index)
        self.known_commit = max(self.known_commit, snapshot.index)
        self.incoming = Snapshot()
        self.admit(snapshot.members)

    def follow(self, leader: str) -> None:
        """The leader of this term is heard for the first time."""
        if self.leader:
            raise RPCError.malformed_request(f"{self.leader} leads term {self.term}, not {leader}")
        self.forget_leader()
        self.role, self.leader = "follower", leader
        self.failures = 0
        self.votes.clear()
        self.routes.clear()
        self.new_route = True
        self.log_role(f"follower of {leader}")

    def accept(self, previous: int, previous_term: int, entries: list[Entry]) -> int | None:
        """Takes entries into the log after `previous`, if the logs agree there (section 5.3).

        Returns None, or what to refuse them with: an index up to which the logs may agree. Those
        that have overtaken others wait for them: there is nothing to refuse.
        """
        if previous > self.log.size:
            if len(self.early) < EARLY_APPENDS:
                self.early[previous] = entries
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
                if index <= self.commit_index:
                    raise RPCError.malformed_request(f"entry {index} is committed, and stays")
                self.log.truncate(index - 1)
                self.log.append(entries[index - previous - 1 :])
                break
        self.verified = max(self.verified, previous + len(entries))
        if not self.members and self.log.start < 1 <= self.log.size:
            first = self.log[1]  # of all logs it says who founds
            self.admit(first.body.get("founded", {}) if first.client is None else {})

    def acknowledge(self) -> None:
        """Answers the leader's messages of this turn; tells others what it has done for them."""
        if self.ack and self.leader:
            self.send_leader(self.leader, **self.ack)
            self.reset_election_deadline()  # so what comes of a snapshot is not dropped with it
        self.ack = {}
        for owner, seqs in self.relayed.items():
            if owner in self.node.other_node_ids:  # a message to nobody would make us mute
                self.send(owner, "answered", seqs=seqs, commit=self.known_commit)
        self.relayed.clear()

    # The state machine

    def advance_state_machine(self) -> None:
        """Applies what is committed (section 5.3), and answers what this leader has appended."""
        if self.last_applied == self.commit_index:
            return
        now = self.node.now()
        for entry in self.log.from_index(self.last_applied + 1, self.commit_index + 1):
            self.last_applied += 1
            if entry.client is None:
                founded, returned = entry.body.get("founded", {}), entry.body.get("return", {})
                self.admit(founded | self.members | returned)
                continue
            # An operation takes effect once, however often it is in the log (section 8), or never.
            id = (entry.client, entry.msg_id)
            res = self.answers.get(id)
            if not res and entry.birth >= self.answers.floor:  # else it may have been forgotten
                self.state_machine, res = self.state_machine.apply(entry.body)
                self.answers.add(self.last_applied, id, res)
            if self.awaiting and entry.term == self.term:
                batch = self.awaiting[0]
                if res and now < batch.until - TICK:  # the turn takes some time, too
                    self.answer(entry.client, entry.msg_id, res)
                    self.answer_by = min(self.answer_by, batch.until)
                if self.last_applied == batch.last_index:
                    self.awaiting.popleft()
                    if not batch.reads:
                        self.finish(batch)

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
            if now >= batch.until - TICK:
                continue  # its clients are gone, or will be when the turn ends
            if acked <= batch.stamp:
                waiting.append(batch)
                continue
            self.answer_by = min(self.answer_by, batch.until)
            for client, msg_id, body in batch.reads:
                _, res = self.state_machine.apply(body)
                self.answer(client, msg_id, res)
            batch.reads = []
            if batch.last_index <= self.last_applied:
                self.finish(batch)
        self.waiting_reads = waiting

    # Times

    def measure(self, sent: float) -> None:
        """A message of ours is answered: how long did that take?"""
        now = self.node.now()
        if now - self.sampled >= SAMPLE_INTERVAL:
            self.sampled = now
            self.samples.append(min(max(0.0, now - sent), MAX_TIMEOUT / 3))
            self.adapt_timeout()

    def adapt_patience(self) -> None:
        """How long clients surely wait: Maelstrom's do for 10 times the latency between servers.

        Where messages wait for each other round trips tell too much of it, but for the quickest.
        """
        quick = sorted(self.samples)[len(self.samples) // 4]
        wanted = min(3 * self.rtt, 5 * quick, self.patience + MORE_PATIENCE * TICK)
        self.patience = max(PATIENCE, wanted)

    def adapt_timeout(self) -> None:
        """Few long round trips are a pause of a node, and not the network's: the median counts."""
        self.rtt = median(self.samples)
        if self.role == "leader":
            self.timeout = min(max(self.min_timeout, 2.5 * self.rtt), MAX_TIMEOUT)


# From here on: what the chapter does not have. A Ruby Hash takes any key and tells 1 from true.

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


class Answers:
    """The answers to the last operations, part of the replicated state (section 8).

    A record is [index of the entry, client, msg_id, answer]. All that was applied after `floor` is
    remembered: it is the index of the newest record that was forgotten. What is unknown and was
    born before it may have been applied. All nodes forget the same.
    """

    def __init__(self, floor: int = 0, records: Iterable[Any] = ()) -> None:
        self.floor, self.records = floor, deque(records)
        self._by_id = {(client, msg_id): res for _, client, msg_id, res in self.records}

    def get(self, id: tuple[str, int]) -> Body | None:
        return self._by_id.get(id)

    def add(self, index: int, id: tuple[str, int], res: Body) -> None:
        if len(self.records) >= REMEMBERED:
            self.floor, client, msg_id, _ = self.records.popleft()
            self._by_id.pop((client, msg_id), None)
        self.records.append([index, *id, res])
        self._by_id[id] = res


class Storage:
    """A node's persistent state (figure 2, section 7) in a SQLite file: it outlives the process.

    What a turn has changed is one transaction, which is on the disk before anything leaves that
    depends on it. Each row has a checksum, and the one in `state` says what must be there.

        item   the map, and
        answer the answers, both as of the checkpoint: when all up to its index was applied; a row
               has those that were new at one, and its index
        entry  the log, up to `last`: what came after it, and what was not forgotten before; a row
               has those of a turn, and the index of the first
        state  term, vote, and what is to be known of all these

    SQLite takes what is damaged at the end of its -wal file for what was never committed. So a file
    beside it says, not synced and thus never too much, how many commits have been acknowledged.
    """

    def __init__(self, folder: str) -> None:
        # A node may be started elsewhere than where the command was typed: Maelstrom does.
        self.folder = Path(os.environ.get("PWD", ".")).joinpath(folder)
        self.connect: Callable[..., Any] = connect  # a simulation takes its place
        self.failed = ""  # why it could not be written last; nothing may leave the node
        self.index = -1  # of the checkpoint: the log after it is needed still; -1: there is none
        self._map = PersistentMap()  # likewise
        self._saved: dict[str, Any] = {}  # what `state` holds

    def open(self, raft: Raft) -> None:
        """Gives the node what it knew. SystemExit, with a line for the user, if that is lost."""
        me = {"format": FORMAT, "node_id": raft.node.node_id, "node_ids": raft.node.node_ids}
        path = self.folder / f"{raft.node.node_id}.db"
        self._counter = path.with_suffix(".commits")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                self._create(path, me, raft)
            self._open(path)
            self._load(me, raft)
            self._db.execute("PRAGMA journal_mode = wal")  # a commit is one write and one sync
            self._put("state", [(0, self._saved)])  # can it be written?
        except Exception as error:
            why = " ".join(str(error).split())  # SQLite has some of several lines
            raise SystemExit(
                f"{path} cannot be used: {why}. End who else uses it, or put a sound copy there, "
                "or move it away if the other nodes know all that it knew."
            ) from error
        raft.log_role(f"follower, with its state up to {raft.log.size} in {path}")

    def _open(self, path: Path) -> None:
        self._db = self.connect(str(path), timeout=0, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA locking_mode = exclusive")
        self._db.execute("PRAGMA synchronous = full")
        self._counter.touch()
        self._count = self._counter.open("r+b", buffering=0)

    def _create(self, path: Path, me: dict[str, Any], raft: Raft) -> None:
        """A file of a new node, which is there as a whole or not at all."""
        new = path.with_suffix(".new")
        for of_another in (new, path.with_suffix(".db-wal"), self._counter):
            of_another.unlink(missing_ok=True)
        self._open(new)
        for table in ("item", "answer", "entry", "state"):
            self._db.execute(f"CREATE TABLE {table} (key PRIMARY KEY, value, crc) WITHOUT ROWID")
        self._saved = me | {"promised": 0.0, "commits": 0}
        self._save(raft)
        self._db.close()
        new.rename(path)
        for folder in (self.folder, self.folder.parent):  # the names, too, must be on the disk
            handle = os.open(folder, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)

    def _load(self, me: dict[str, Any], raft: Raft) -> None:
        (problem,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if problem != "ok":
            raise ValueError(f"it is damaged: {problem}")
        items, answers, entries, state = map(self._get, ("item", "answer", "entry", "state"))
        saved = self._saved = state.get(0, {})
        for name, mine in me.items():
            if saved.get(name) != mine:
                raise ValueError(f"its {name} is {saved.get(name)}, and this is {mine}")
        if saved["commits"] < int(self._count.read().strip(b"\0") or 0):
            raise ValueError("it lacks what it was given last: its -wal file is damaged or gone")
        start, start_term, self.index, floor, size = saved["checkpoint"]
        self._map = PersistentMap(items.values())
        records = [record for row in answers.values() for record in row if record[0] > floor]
        snapshot = Snapshot(self.index, 0, {}, floor, records, self._map)
        raft.log.compact(start, start_term)
        for first, row in entries.items():
            raft.log.append(Entry(*entry) for entry in row[max(0, start + 1 - first) :])
        if (raft.log.size, snapshot.size) != (saved["last"], size):
            raise ValueError("it is damaged: something is missing")
        raft.log.stable = raft.log.size
        raft.install(snapshot)
        raft.term, raft.voted_for = saved["term"], saved["vote"]
        raft.promise = raft.node.now() + saved["promised"]  # it is not known when that began

    def save(self, raft: Raft, later: bool = False) -> None:
        """Makes durable what has changed, unless that may be later; remembers why it failed."""
        if later:
            return
        before, self.failed = self.failed, ""
        try:
            self._save(raft)
        except Exception as error:
            self.failed = str(error) or error.__class__.__name__
        if self.failed and not before:
            raft.log_role(f"{raft.role}, says nothing until its file can be written: {self.failed}")
        elif before and not self.failed:
            raft.log_role(f"{raft.role}, its file can be written again")

    def _save(self, raft: Raft) -> None:
        db, log, saved = self._db, raft.log, self._saved
        promised = max(0.0, raft.promise - raft.node.now())
        overdue = raft.last_applied - self.index >= CHECKPOINT or log.start > self.index
        state = saved | {"term": raft.term, "vote": raft.voted_for, "last": log.size}
        if overdue or promised > saved["promised"]:
            state["promised"] = 2 * promised  # so that it need not be written each time
        if state == saved and log.stable == log.size and not overdue:
            return
        if db.in_transaction:  # the last one failed
            db.execute("ROLLBACK")
        db.execute("BEGIN IMMEDIATE")
        state["commits"] += 1
        first = log.stable + 1
        if first <= saved.get("last", 0):  # the log was cut, maybe in the midst of a row
            of = f"SELECT key, value FROM entry WHERE key = ({ROW})"
            row, entries = db.execute(of, (first,)).fetchone()
            db.execute("DELETE FROM entry WHERE key >= ?", (row,))
            self._put("entry", [(row, json.loads(entries)[: first - row])])
        if first <= log.size:
            self._put("entry", [(first, log.from_index(first, log.size + 1))])
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
        new = [*takewhile(lambda record: record[0] > self.index, reversed(snapshot.answers))]
        self._put("answer", [(snapshot.index, new[::-1])])
        self._db.execute("DELETE FROM answer WHERE key <= ?", (snapshot.floor,))
        start = raft.log.start
        self._db.execute(f"DELETE FROM entry WHERE key < ({ROW})", (start + 1,))
        return [start, raft.log[start].term, snapshot.index, snapshot.floor, snapshot.size]

    def _put(self, table: str, rows: Iterable[tuple[Any, Any]]) -> None:
        texts = ((key, encode(value)) for key, value in rows)
        self._db.executemany(
            f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)",
            ((key, text, checksum(table, key, text)) for key, text in texts),
        )

    def _get(self, table: str) -> dict[Any, Any]:
        rows = {}
        for key, text, crc in self._db.execute(f"SELECT * FROM {table} ORDER BY key"):
            if checksum(table, key, text) != crc:
                raise ValueError(f"it is damaged: {table} {key} is not what was written")
            rows[key] = json.loads(text)
        return rows


def connect(path: str, **options: Any) -> Any:
    """Opens a database. What keeps its state in memory need not load the module."""
    import sqlite3

    return sqlite3.connect(path, **options)


def checksum(table: str, key: Any, text: Any) -> int:
    return zlib.crc32(f"{table} {key} {text}".encode())


# What the servers say to each other: the fields of each type of message, each with its kind if
# that does not have the field's name.
MESSAGES: Final = {
    "request_vote": "pre:bool term last_log_index:index last_log_term:term sent:time starts",
    "request_vote_res": "pre:bool term granted:bool leader:node? sent:time? now:time commit:index "
    "starts",
    "append_entries": "term prev_log_index:index prev_log_term:term entries leader_commit:index "
    "sent:time timeout:seconds rtt:seconds patience:seconds answered:batches",
    "append_entries_res": "term success:bool match:index sent:time timeout:seconds start:number "
    "snapshot:index offset:number",
    "install_snapshot": "term last_index:index last_term:term starts floor:index size:number "
    "offset:number data:records sent:time timeout:seconds rtt:seconds patience:seconds",
    "forward": "owner:node seq:number birth:index clock:node until:time reads:operations "
    "writes:operations",
    "answered": "seqs:numbers commit:index",
}
IS: Final[Mapping[str, Callable[[Any, Raft], bool]]] = {  # of a value, to whom it is sent
    "bool": lambda value, _: value.__class__ is bool,
    "number": lambda value, _: value.__class__ is int and value >= 0,
    "numbers": lambda value, _: value.__class__ is list and all(IS["number"](n, _) for n in value),
    # Nobody can be that far ahead.
    "term": lambda value, raft: value.__class__ is int and 0 <= value <= raft.term + MAX_AHEAD,
    "index": lambda value, raft: value.__class__ is int and 0 <= value <= raft.log.size + MAX_AHEAD,
    "node": lambda value, raft: value in raft.node.node_ids,
    "node?": lambda value, raft: value is None or value in raft.node.node_ids,
    "time": lambda value, _: value.__class__ in (float, int) and -MAX_TIME <= value <= MAX_TIME,
    "time?": lambda value, _: value is None or IS["time"](value, _),
    "seconds": lambda value, _: value.__class__ in (float, int) and 0 <= value <= MAX_TIMEOUT,
    # Of a node: its start, or a batch of its own.
    "start": lambda value, raft: value[0] in raft.node.node_ids and IS["number"](value[1], raft),
    "starts": lambda value, raft: value.__class__ is dict
    and all(IS["start"](item, raft) for item in value.items()),
    "batches": lambda value, raft: value.__class__ is list
    and all(len(types(item)) == 2 and IS["start"](item, raft) for item in value),
    "operations": lambda value, _: value.__class__ is list
    and all([types(item) == [str, int, dict] and is_body(item[2]) for item in value]),
    # Of a snapshot: answers, and items of the map.
    "records": lambda value, raft: value.__class__ is list and all(
        len(kinds := types(item)) == 2
        or (kinds == [int, str, int, dict] and IS["index"](item[0], raft) and is_body(item[3]))
        for item in value
    ),
    "entries": lambda value, raft: value.__class__ is list and are_entries(value, raft),
}
FIELDS: Final = {
    type: [(field.split(":")[0], IS[field.split(":")[-1]]) for field in fields.split()]
    for type, fields in MESSAGES.items()
}


TERM_BEFORE: Final = {  # which field has an entry's term that is not later than the message's
    "append_entries": "prev_log_term",
    "install_snapshot": "last_term",
    "request_vote": "last_log_term",
}


def check_message(msg: Message, raft: Raft) -> None:
    """Error 12 unless a message is of another server, and has what its type must have."""
    src, body, type = msg["src"], msg["body"], msg["body"]["type"]
    if src not in raft.node.other_node_ids:
        raise RPCError.malformed_request(f"{show(src)} is not another server")
    for name, is_right in FIELDS[type]:
        if not is_right(body.get(name, ABSENT), raft):
            what = show(body.get(name, "missing"))
            raise RPCError.malformed_request(f"{name} of {type} is wrong: {what}")
    if before := TERM_BEFORE.get(type):
        terms = [body[before], *[entry[0] for entry in body.get("entries", ())], body["term"]]
        if terms != sorted(terms):
            raise RPCError.malformed_request("terms never decrease")


def are_entries(values: list[Any], raft: Raft) -> bool:
    """Whether a log can hold them. What is no client's says who takes part."""
    latest = raft.log.size + MAX_AHEAD
    for value in values:  # each follower gets each entry: a loop that calls little is quickest
        if value.__class__ is not list or len(value) != 5:
            return False
        term, birth, client, msg_id, body = value
        integers = term.__class__ is birth.__class__ is msg_id.__class__ is int
        if not integers or not 0 <= birth <= latest:
            return False
        if body.__class__ is not dict or not is_body(body):
            return False
        is_ours = client is None and all(IS["starts"](starts, raft) for starts in body.values())
        if client.__class__ is not str and not is_ours:
            return False
    return True


def is_body(body: Body) -> bool:
    """True, or error 12 if something in it is nested too deeply to be sent on."""
    if not PLAIN.issuperset(map(type, body.values())):
        deque(map(identity, body.values()), 0)
    return True


def types(value: Any) -> list[type]:
    """Of the items of a list; none of what is no list."""
    return [*map(type, value)] if value.__class__ is list else []


def check_operation(body: Body) -> Body:
    """What the log keeps of a client's request: not its msg_id. Error 12 if it lacks something."""
    if "msg_id" not in body:
        raise RPCError.malformed_request("nobody waits for the answer of a request without msg_id")
    operation = {}
    for name in OPERATIONS[body["type"]]:
        if name not in body:
            raise RPCError.malformed_request(f"the operation lacks {name}")
        operation[name] = value = body[name]
        if value.__class__ not in PLAIN:
            identity(value)
    if "create_if_not_exists" in body and may_create(body):
        operation["create_if_not_exists"] = True
    return operation


def weight(body: Body) -> int:
    """About how many bytes an entry takes in a message."""
    size = ENTRY_BYTES
    for value in body.values():
        if value.__class__ is not int:
            size += len(value) if value.__class__ is str else len(encode(value))
    return size


def majority(count: int) -> int:
    """How many of so many are more than half."""
    return count // 2 + 1


def median(values: Sequence[Any]) -> Any:
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
    storage = Storage(args.data_dir) if args.data_dir else None
    debug = args.log == "debug"
    server = Server() if args.unreplicated else Raft(None, args.reads, debug, storage)
    server.node.main()


if __name__ == "__main__":
    main()
