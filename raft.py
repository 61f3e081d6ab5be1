#!/usr/bin/env python3
"""A linearizable key-value store for Maelstrom's lin-kv workload.

    ./maelstrom test -w lin-kv --bin raft.py --time-limit 10 --rate 10 --node-count 3 \\
        --concurrency 2n

This is Maelstrom's Raft tutorial, in the order in which it grows: a state machine, `Map`; a server
that applies operations to its own map, `Server`; the log that servers agree on, `Log`; and the
rules by which they agree, `Raft`. Then come the rooms of Raft, `Follower` to `Storage`, and last
the mapping under `Map`.

A "section" is one of the Raft paper; "thesis" is D. Ongaro's. These words go beyond the paper:

- turn: a node handles all messages that have arrived, then sends what follows from them (node.py).
- batch: the operations that clients sent to a node in one turn. That node is the batch's *owner*:
  it hands the batch to the leader, retries, and gives up (`Clients`).
- promise: a follower promises its leader to vote for nobody for one election timeout. A leader
  has a *lease*, and may read its own map, while the promises of a majority last.
- verified: up to this index a follower's log equals its leader's.
- incarnation: a number for each time that a node starts without memory. Such a node does not count
  until it is *readmitted* (`Members`).

Elections begin with a question (PreVote). Timeouts follow from measured round trips (`Times`). The
set of nodes is fixed: section 6 is not implemented.
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
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

from node import Body, Message, Node, RPCError, encode


class Map:
    """The state machine: an immutable map from keys to values, both of them any JSON."""

    __slots__ = ("map",)

    def __init__(self, map: PersistentMap | Mapping[Any, Any] | None = None) -> None:
        # Ruby's merge copies the whole map for each write; this one's `set` does not.
        self.map = map if map.__class__ is PersistentMap else PersistentMap((map or {}).items())

    def apply(self, op: Body) -> tuple[Map, Body]:
        """Returns the resulting Map and the completed operation; never raises."""
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
                    return type(self)(self.map.set(k, op["value"])), {"type": "write_ok"}
                case "cas":
                    # create_if_not_exists is from Maelstrom's doc/services.md, lin-kv.
                    old, new, create = op["from"], op["to"], may_create(op)
                    value = self.map.get(k, ABSENT)
                    if value is not ABSENT:
                        if identity(value) == identity(old):  # to Python, True == 1
                            return type(self)(self.map.set(k, new)), {"type": "cas_ok"}
                        else:
                            text = f"expected {show(old)}, but had {show(value)}"
                            return self, RPCError.precondition_failed(text).to_json()
                    elif create:
                        return type(self)(self.map.set(k, new)), {"type": "cas_ok"}
                    else:
                        return self, RPCError.key_does_not_exist("not found").to_json()
                case str(other):  # the tutorial's `case` returns nil here; a client needs an error
                    raise RPCError.not_supported(f"no such operation: {show(other)}")
                case _:
                    raise RPCError.malformed_request("the type must be a string")
        except KeyError as error:  # the tutorial's operations lack nothing; a client's may
            return self, RPCError.malformed_request(f"the operation lacks {error}").to_json()
        except RPCError as error:
            return self, error.to_json()

    def __repr__(self) -> str:
        return "Map({" + ", ".join(f"{k!r}: {value!r}" for k, value in self.map.items()) + "})"


class Server:
    """The server of the tutorial's first chapter: a state machine, and a lock for its updates.

    With `--unreplicated` each node has a Map of its own, so a two-node test must fail.
    """

    def __init__(self, node: Node | None = None) -> None:
        self.node = node or Node()
        # Turns of the node exclude each other already. The lock is for blocking handlers and other
        # threads that want to see or change the state.
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


class Store(Map):
    """The state machine that nodes replicate: a Map that also does transactions.

    A transaction is a list of micro-operations, done in order, all or none: ["r", key, null],
    ["w", key, value] and ["append", key, element]. A missing key reads as null, or as no list yet.
    """

    def apply(self, op: Body) -> tuple[Map, Body]:
        return self.transact(op) if op.get("type") == "txn" else super().apply(op)

    def transact(self, op: Body) -> tuple[Map, Body]:
        """Returns the resulting Store, and the transaction with the values that were read."""
        done, written = list[Any](), dict[Hashable, tuple[Any, Any]]()  # own writes: key, value
        try:
            for f, key, value in micro_operations(op):
                id = identity(key)
                had = written[id][1] if id in written else self.map.get(key)
                identity(value, 1)  # an element is nested in a list
                if f == "r":
                    value = had
                elif f == "w":
                    written[id] = (key, value)
                elif had is None or had.__class__ is list:
                    written[id] = (key, [*(had or ()), value])  # older versions keep their list
                else:
                    raise RPCError.precondition_failed(f"expected a list, but had {show(had)}")
                done.append([f, key, value])
        except RPCError as error:
            return self, error.to_json()
        map = self.map
        for id, (key, value) in written.items():
            map = map.put(id, key, value)
        return (Store(map) if written else self), {"type": "txn_ok", "txn": done}


Operation = Sequence[Any]  # client, msg_id, body


class Entry(NamedTuple):
    """One place in the log: a batch of operations, and the term of the leader that appended it.

    An entry without an owner starts a term, or names members. Then each of its operations is a
    triple [node, incarnation, {}].
    """

    term: int
    owner: str = ""  # the node whose clients sent the operations
    seq: int = 0  # of the owner's batch
    operations: Sequence[Operation] = ()

    @property
    def members(self) -> dict[str, int]:
        """The incarnations that an entry without an owner names."""
        return {node_id: incarnation for node_id, incarnation, _ in self.operations}


class Log:
    """The sequence of operations that all nodes agree on, some with each entry.

        index    0   1     2     3     4     5
        term     0   1     1     1     3     3
        writes   -   -    x=1   y=2    -    x=3

    Here term 2 had no leader, or its leader's entries were lost. Indexes begin at 1. At 0 there is
    a sentinel of term 0. Invariants:

    - terms never decrease from one entry to the next;
    - two logs that have an entry of the same index and term agree on it and on all before it
      (section 5.3, Log Matching): Raft.accept_entries checks the entry before new ones;
    - a committed entry is never changed or removed: Raft.place_entries begins after `verified`.
    """

    def __init__(self, start: int = 0, term: int = 0, entries: Iterable[Entry] = ()) -> None:
        self.start = start  # index of the last forgotten entry (section 7); its term is kept
        self.size = start  # index of the last entry
        self.stable = start  # index of the last entry that is on the disk, where there is one
        self._entries = [Entry(term)]
        self._bytes = [0]  # cumulative weight of the entries
        self.append(entries)

    @property
    def last(self) -> Entry:
        return self._entries[-1]

    def __getitem__(self, index: int) -> Entry:
        """The entry at an index from `start` on."""
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
        """Forgets the entries up to an index (section 7).

        If the log has no entry of this term there, it forgets all entries.
        """
        at = index - self.start
        if index > self.size or self[index].term != term:
            self._entries, self._bytes, self.size, self.stable, at = [], [0], index, index, 0
        self._entries[: at + 1] = [Entry(term)]
        del self._bytes[:at]
        self.start, self.stable = index, max(self.stable, index)

    def mark_stable(self) -> None:
        """Notes that the storage has all entries."""
        self.stable = self.size

    def bytes_between(self, index: int, end: int) -> int:
        """The weight of the entries after `index` up to `end`, in bytes of memory."""
        return self._bytes[end - self.start] - self._bytes[max(0, index - self.start)]


TICK = 0.04  # seconds between two calls of Raft.tick
FIRST_ELECTION = 1.0  # seconds before the first campaign: peers may not be up yet
FOUNDING = 3.0  # seconds for which the first node holds its init_ok back, at most
LEASE = 0.9  # fraction of a promise that a lease counts on: clocks may differ in speed
LATE = 8.0  # round trips; a later answer is a slow node's, and no sample of the network
GONE = 10.0  # seconds of silence after which a leader keeps nothing for a follower
KEPT_BATCHES = 3.0  # seconds for which a leader recognises late copies of a batch, at least
KEPT_BYTES, KEPT_ENTRIES = 1 << 23, 50  # of the applied log, at least: a follower may lack them
EARLY_APPENDS = 64  # overtaking messages that a follower keeps, until those before them come


@dataclass
class Leading:
    """A leader's state in its term; a new one is made for each term."""

    followers: dict[str, Follower] = field(default_factory=dict)
    term_start: int = 0  # index of this term's first entry
    stamp: float = -math.inf  # time of sending, made strictly increasing: it identifies a message
    # By owner and seq. This spares copies of a batch; what makes writes happen once are sessions.
    accepted: dict[tuple[str, int], Batch] = field(default_factory=dict)
    waiting_reads: list[Batch] = field(default_factory=list)


@dataclass
class Following:
    """A node's state about this term's leader; a new one is made with each leader.

    Invariant: log.start <= last_applied <= commit_index <= verified <= log.size.
    """

    leader: str | None = None  # of this term; this node itself if it leads
    relay: str | None = None  # a voter that follows a leader: it can pass batches on to it
    verified: int = 0  # highest index up to which the log equals the leader's
    early: dict[int, list[Entry]] = field(default_factory=dict)  # entries by prev_log_index
    incoming: Snapshot = field(default_factory=lambda: Snapshot())  # its index is 0 for none
    ack: tuple[float, float] | None = None  # `sent` and `timeout` to answer the leader with
    refused: int | None = None  # what to refuse with: an index up to which the logs may agree


class Raft(Server):
    """A node of a replicated state machine: D. Ongaro, J. Ousterhout, In search of an
    understandable consensus algorithm (the paper); D. Ongaro's thesis goes further.

    Messages and timers only note things; `drained` does what follows, once a turn. Messages between
    servers are one-way: losing, doubling or reordering them is the normal case. The handler of a
    message has the name of its type, and its fields for parameters.
    """

    def __init__(
        self, node: Node | None = None, reads: str = "lease", debug: bool = False,
        storage: Storage | None = None,
    ) -> None:  # fmt: skip
        super().__init__(node)
        self.node.on("txn", self.client_req)
        self.state_machine = Store()
        self.reads = reads  # "lease", "index" or "log": how a leader makes sure no read is stale
        self.debug = debug
        self.storage: Any = storage or Memory()

        # Persistent state on all servers (figure 2); `members` and `promise` go beyond it
        self.term = 0
        self.voted_for: str | None = None  # in this term
        self.voted_incarnation: int | None = None  # of that node: one that restarted is another
        self.log = Log()
        self.members = Members()
        self.promise = -math.inf  # time before which this node votes for nobody

        # Volatile state on all servers
        self.role = "follower"  # or "candidate", or "leader"
        self.commit_index = 0
        self.last_applied = 0
        self.sessions = Sessions()  # replicated, as the state machine is
        self.following = Following()
        self.leading = Leading()  # without followers, but for a leader
        self.clients = Clients()
        self.times = Times()
        self.began = -math.inf  # time of init; answers to older messages are not for this start
        self.founding = False  # this node founds the cluster, and nothing is committed yet

        # Elections
        self.votes: dict[tuple[bool, int], dict[str, int]] = {}  # (pre, term) to incarnations
        self.failures = 0  # campaigns since a leader was heard
        self.campaigned = -math.inf  # time of the last campaign, for `pre_vote`
        self.deadline = math.inf  # time of the next campaign
        self.election_timer = self.node.after(0, self.election_timer_fires)

        self.node.on_init(self.init)
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

    def send(self, dest: str, type: str, **fields: Any) -> None:
        self.node.send(dest, {"type": type, **fields})

    def log_role(self, text: str) -> None:
        """A line on stderr: node, term, role and reason."""
        self.node.log(f"{self.node.node_id} term {self.term}: {text}")

    def init(self) -> bool:
        """Begins with what the storage knows. Returns whether init_ok must wait for `ready()`.

        In a new cluster the first node becomes a candidate at once, for nobody else can found it.
        The others wait: Maelstrom ignores a node for good once it has sent a message to a node that
        does not exist yet. Founding takes all votes, and Maelstrom's faults begin when all nodes
        are ready. So the first node is not ready before its first entry is committed.
        """
        with self.lock:
            node = self.node
            hard, self.log, snapshot = self.storage.open(node.node_id, node.node_ids, node.random)
            self.began = now = node.now()
            self.term, self.voted_for, self.voted_incarnation = hard[:3]
            self.promise = now + hard.promised if hard.promised else -math.inf
            self.members = Members(node.node_id, node.node_ids, hard.incarnation, hard.members)
            self.install(snapshot)
            if self.storage.durable:
                self.log_role(
                    f"follower, with its state up to {self.log.size} in {self.storage.path}"
                )
            self.clients = Clients(node.node_id, seq=int(now * 1e6))
            self.times = Times(len(node.other_node_ids))
            node.on_drained(self.drained)
            node.every(TICK, self.tick)
            if self.members.is_first and self.log.size == self.term == 0:
                self.become_candidate()
                self.founding = self.role != "leader"
            else:
                self.reset_election_deadline(FIRST_ELECTION)
            return self.founding

    def drained(self) -> None:
        """Ends a turn, in this order; then the turn's output leaves.

        1. This turn's client operations are accepted, if this node leads, or forwarded.
        2. What must be durable is saved; see `may_save_later` for the exception.
        3. A leader commits.
        4. What is committed is applied, and answered.
        5. A leader serves reads.
        6. A leader replicates, once to each follower. A follower acknowledges, once.
        """
        with self.lock:
            self.hand_over_operations()
            self.save(later=self.may_save_later())
            self.advance_commit_index()
            self.advance_state_machine()
            self.serve_reads()
            self.replicate_log()
            self.acknowledge()
            if self.founding:
                self.end_founding()

    def end_founding(self) -> None:
        """Says that this node is ready once the cluster is founded, or after a while."""
        if not self.last_applied and self.node.now() - self.began <= FOUNDING:
            return
        self.founding = False
        self.node.ready()
        if not self.last_applied and not self.members.known:
            voters = self.votes.get((False, self.term), {self.node.node_id: 0})
            missing = " ".join(id for id in self.node.node_ids if id not in voters)
            self.log_role(f"{self.role}, needs all votes to found the cluster: {missing} missing")

    def tick(self) -> None:
        """Does the periodic work: saving, heartbeats, retries, timeouts, compaction."""
        with self.lock:
            now = self.node.now()
            self.save()
            if self.role == "leader":
                self.review_followers(now)
                if self.of_majority(now, lambda one: one.heard_of) < now - 2 * self.times.timeout:
                    self.following = Following(verified=self.commit_index)
                    self.become_follower("heard no majority")  # clients may do better elsewhere
            self.review_pending(now)
            self.compact()

    def save(self, later: bool = False) -> None:
        """Makes durable what this node must not forget, unless that may be done later."""
        if not later:
            promised = max(0.0, self.promise - self.node.now())
            vote = (self.term, self.voted_for, self.voted_incarnation, promised)
            hard = HardState(*vote, self.members.incarnation, self.members.known)
            state = State(self.last_applied, self.state_machine.map, self.sessions)
            self.storage.save(hard, self.log, state)

    def may_save_later(self) -> bool:
        """Whether a leader's entries may leave before its own disk has them (thesis 10.2.1).

        The leader does not count itself for such entries. Either a majority of followers commits
        them, or they wait for the next tick. The leader's term and vote must be on its disk: they
        are if the term's first entry is.
        """
        if self.role != "leader" or not self.storage.durable:
            return False
        now, timeout = self.node.now(), self.times.timeout
        heard = sum(not one.is_silent(now, timeout) for one in self.leading.followers.values())
        return heard >= self.members.majority and self.log.stable >= self.leading.term_start

    # Elections (sections 5.1, 5.2, 5.4.1; PreVote: thesis 9.6)

    def of_majority(self, mine: float, what: Callable[[Follower], float]) -> Any:
        """The highest value that a majority has reached: this node and the followers that count."""
        values = [mine]
        for id, follower in self.leading.followers.items():
            counts = self.members.counts(id, follower.incarnation)
            values.append(what(follower) if counts else -math.inf)
        return sorted(values)[-self.members.majority]

    def reset_election_deadline(self, wait: float = 0.0) -> None:
        """Puts the next campaign off, by a random time so that votes are seldom split (5.2).

        The time is longer after each failure. It ends no earlier than this node's promise.
        """
        longer = float(1.4 ** max(0, min(self.failures - 1, 6)))
        wait += self.times.timeout * longer * self.node.random.uniform(1, 1.5)
        self.deadline = max(self.node.now() + wait, self.promise)
        if self.deadline < self.election_timer.deadline:  # else the timer re-arms itself
            self.await_deadline()

    def await_deadline(self) -> None:
        self.election_timer.cancel()
        wait = max(0.0, self.deadline - self.node.now())
        self.election_timer = self.node.after(wait, self.election_timer_fires)

    def election_timer_fires(self) -> None:
        """Campaigns if the deadline has come, and sets the timer anew."""
        with self.lock:
            if self.node.now() >= self.deadline:
                self.reset_election_deadline()
                if self.role != "leader" and self.members.is_member:
                    self.campaign()
                elif self.members.is_first and not self.members.known:
                    if (False, self.term) in self.votes:
                        self.request_votes(pre=False)
                    else:  # a vote was refused
                        self.become_candidate()
            self.await_deadline()

    def advance_term(self, term: int) -> None:
        """Moves to a later term, in which this node has not voted (section 5.1)."""
        self.term = term
        self.voted_for = self.voted_incarnation = None
        self.following = Following(verified=self.commit_index)

    def maybe_step_down(self, term: int, why: str) -> None:
        """Becomes a follower if there is a later term than this node's (section 5.1).

        Three messages of a later term do not count: a pre-vote, which begins no term; a request for
        a vote that this node must not give, because a leader has its promise or it has no memory;
        and a refusal that names a living leader, which learns of that term by its next append.
        """
        if term > self.term:
            self.advance_term(term)
            self.become_follower(why)

    def become_follower(self, why: str) -> None:
        self.role = "follower"
        self.leading = Leading()
        self.log_role(f"follower, {why}")
        self.reset_election_deadline()

    def campaign(self) -> None:
        """Asks whether a majority would vote for this node, which hears no leader (thesis 9.6).

        Only then it begins a term: a node that cannot win disturbs nobody by its terms.
        """
        if self.following.leader:
            self.log_role(f"{self.role}, lost {self.following.leader}")
            self.following = Following(verified=self.commit_index)
        self.following.relay = None
        self.failures += 1
        self.campaigned = self.node.now()
        self.reset_election_deadline()
        self.request_votes(pre=True)

    def become_candidate(self) -> None:
        self.advance_term(self.term + 1)
        self.role = "candidate"
        self.voted_for, self.voted_incarnation = self.node.node_id, self.members.incarnation
        self.log_role("candidate")
        self.reset_election_deadline()
        self.request_votes(pre=False)

    def have_leader(self, role: str, leader: str, text: str) -> None:
        """Begins to lead this term, or to follow the node that leads it."""
        self.following = Following(leader, verified=self.commit_index)
        self.role = role
        self.log_role(text)
        self.votes.clear()
        self.failures = 0
        self.clients.forget_tries()

    def become_leader(self) -> None:
        votes = self.votes.pop((False, self.term))
        voters = " ".join(sorted(votes))
        self.have_leader("leader", self.node.node_id, f"leader, elected by {voters}")
        self.members.admit(votes)  # a voter may have been readmitted without this node's knowledge
        self.times.set_timeout()
        now, last, known = self.node.now(), self.log.size, self.members.known
        followers = {
            id: Follower(known.get(id), last + 1, now, now, base=last)
            for id in self.node.other_node_ids
        }
        self.leading = Leading(followers, term_start=last + 1)
        # Only an entry of its own term tells a leader what is committed (sections 5.4.2 and 8). The
        # first one of all names the members.
        self.append_members({} if self.log.size else known)

    def append_members(self, members: Mapping[str, int]) -> None:
        """Appends an entry that names members. Without any, the entry is a no-op."""
        self.log.append([Entry(self.term, operations=[[*one, {}] for one in members.items()])])

    def learn_members(self, members: Mapping[str, int]) -> None:
        """Learns which incarnations are members, and logs whether this one is."""
        before = self.members.status
        self.members.admit(members)
        if self.members.status != before:
            self.log_role(f"{self.role}, {self.members.status}")
            self.reset_election_deadline()

    def hear_claim(self, claim: dict[str, int]) -> None:
        """Learns of members from another node's claim; it names that node alone if it knows none.

        Only a node that knows of no member needs this: the cluster was founded, and the entry that
        says so has not come. A node without memory has entries before it is readmitted.
        """
        if not self.members.known and len(claim) > 1:
            self.votes.clear()  # that this node may have got as a founder
            self.learn_members(claim)

    def request_votes(self, pre: bool) -> None:
        """Asks the others for their votes in this term, or whether they would vote in the next.

        Votes that it has in this term stay: they count if it asks again, or is late to hear them.
        """
        term = self.term + pre
        self.votes = {key: votes for key, votes in self.votes.items() if key == (False, self.term)}
        mine = {self.node.node_id: self.members.incarnation}
        votes = self.votes.setdefault((pre, term), mine)
        for dest in self.node.other_node_ids:
            if dest not in votes:
                self.ask_for_vote(dest, pre)
        self.count_votes(pre, term)

    def ask_for_vote(self, dest: str, pre: bool) -> None:
        self.send(
            dest, "request_vote", pre=pre, term=self.term + pre, sent=self.node.now(),
            last_log_index=self.log.size, last_log_term=self.log.last.term,
            claim=self.members.claim(),
        )  # fmt: skip

    def request_vote(
        self, src: str, pre: bool, term: int, last_log_index: int, last_log_term: int,
        sent: float, claim: dict[str, int],
    ) -> None:  # fmt: skip
        """A candidate asks for this node's vote, or (pre) whether it would get it."""
        self.hear_claim(claim)
        # Section 5.4.1: the candidate's log must be at least as up-to-date as this one.
        theirs = (last_log_term, last_log_index)
        ours = (self.log.last.term, self.log.size)
        if not self.members.may_vote(claim):
            granted = False  # this node may have forgotten a vote or a promise
        elif self.is_led():
            granted = False  # nobody is elected while a leader may have a lease (thesis 6.4.1)
        elif pre:
            is_larger = (*theirs, src) > (*ours, self.node.node_id)
            granted = theirs >= ours and self.pre_vote(src, term, is_larger)
        else:
            self.maybe_step_down(term, f"{src} asks for a vote")
            granted = theirs >= ours and self.vote(src, term, claim.get(src))
        self.send_vote(src, pre, term if granted else self.term, granted, sent)

    def vote(self, src: str, term: int, incarnation: int | None) -> bool:
        """Gives this term's vote (section 5.2): to one node, as often as it asks.

        A candidate in another incarnation is another node: it has forgotten which votes it got.
        """
        free = self.voted_for is None
        again = (self.voted_for, self.voted_incarnation) == (src, incarnation)
        if term != self.term or not (free or again):
            return False
        self.voted_for, self.voted_incarnation = src, incarnation
        self.reset_election_deadline()
        return True

    def pre_vote(self, src: str, term: int, is_larger: bool) -> bool:
        """Whether a candidate would get a vote (thesis 9.6).

        If two nodes campaign at once, one gives way: the one whose log, or else whose id, is
        smaller draws its deadline anew. The larger asks it again, for the first time it may have
        refused because of a promise. After one timeout nobody gives way any more: it may be that
        the larger node is heard by no other.
        """
        lately = self.node.now() - self.campaigned < self.times.timeout
        rival = lately and term == self.term + 1 and (True, term) in self.votes
        granted = term > self.term and (is_larger or not rival)
        if granted and rival:
            self.votes.pop((True, term))
            self.reset_election_deadline()
        elif rival:
            self.ask_for_vote(src, pre=True)
        return granted

    def is_led(self) -> bool:
        """Whether a leader has this node's promise, or is this node, with a majority behind it.

        A lease (thesis 6.4.1) is kept in four places: hear_leader makes the promise; request_vote
        and count_votes keep it; append_entries_res counts on it, and serve_reads uses that.
        """
        now = self.node.now()
        if self.role == "leader":
            heard_of = self.of_majority(now, lambda one: one.heard_of)
            return bool(heard_of >= now - self.times.timeout)
        return now < self.promise

    def send_vote(self, dest: str, pre: bool, term: int, granted: bool, sent: float) -> None:
        """Answers yes, or no and which leader this node follows."""
        leader = self.following.leader if not granted and self.is_led() else None
        self.send(
            dest, "request_vote_res", pre=pre, term=term, granted=granted, sent=sent,
            leader=leader, claim=self.members.claim(),
        )  # fmt: skip

    def request_vote_res(
        self, src: str, pre: bool, term: int, granted: bool, leader: str | None,
        sent: float, claim: dict[str, int],
    ) -> None:  # fmt: skip
        """A vote, or a refusal, which may name a leader."""
        if sent < self.began:
            return  # this node asked before its last start
        self.times.measure(self.node.now(), sent, self.role == "leader")
        if granted:
            if (pre, term) in self.votes:
                self.votes[pre, term][src] = claim.get(src, 0)
                self.count_votes(pre, term)
            return
        if not self.members.known:
            self.votes.clear()  # founding takes all votes, so it takes another term
        self.hear_claim(claim)
        if leader is None:
            self.maybe_step_down(term, f"{src} is in a later term")
        elif not self.following.leader and leader != self.node.node_id:
            if not self.following.relay:
                self.clients.forget_tries()
            self.following.relay = src

    def count_votes(self, pre: bool, term: int) -> None:
        """A majority of pre-votes makes a candidate, one of votes a leader (section 5.2)."""
        if len(self.votes[pre, term]) < self.members.votes_needed:
            return
        if pre:
            free = not self.following.leader and self.node.now() >= self.promise
            if term == self.term + 1 and free:
                self.become_candidate()
        elif self.role == "candidate" and term == self.term:
            self.become_leader()

    # Replication (section 5.3): the leader

    def replicate_log(self) -> None:
        """Sends to each follower the entries that it lacks, or a heartbeat if one is due."""
        if self.role != "leader":
            return
        leading, times, now = self.leading, self.times, self.node.now()
        leading.stamp = max(now, math.nextafter(leading.stamp, math.inf))
        asked = max((batch.stamp for batch in leading.waiting_reads), default=-math.inf)
        is_stable = self.log.stable == self.log.size  # then the leader counts itself
        needed = self.members.majority - (1 if is_stable else 0)  # followers needed to commit
        for node_id, follower in leading.followers.items():
            # Waiting reads need an answer to a message that is sent after they came.
            due = follower.stamp <= asked or now - follower.stamp >= times.heartbeat
            if follower.next_index <= self.log.start:
                if now - follower.heard_of <= GONE:
                    self.send_snapshot(node_id, follower, due)
                    continue
                follower.heartbeats_only(self.log.size)
            last = follower.last_to_send(self.log, leading.stamp, now, times, needed > 0)
            is_slow = follower.is_overdue(now, SPARE * times.rtt)
            if not is_slow and not follower.is_silent(now, times.timeout):
                needed -= 1
            if last >= follower.next_index or due:
                self.send_entries(node_id, follower, last)

    def send_entries(self, node_id: str, follower: Follower, last: int) -> None:
        """Sends append_entries with the entries up to `last`, maybe none."""
        previous = follower.next_index - 1
        entries = self.log.from_index(previous + 1, last + 1)
        follower.note_entries(len(entries), self.leading.stamp, self.node.now())
        self.send_follower(
            node_id, "append_entries", prev_log_index=previous,
            prev_log_term=self.log[previous].term, entries=entries,
            leader_commit=self.commit_index,
        )  # fmt: skip

    def send_follower(self, node_id: str, type: str, **fields: Any) -> None:
        """Sends a message with the fields that a leader's messages have in common."""
        stamp, times = self.leading.stamp, self.times
        self.send(
            node_id, type, term=self.term, sent=stamp, timeout=times.timeout, rtt=times.rtt,
            done=self.leading.followers[node_id].note_message(stamp), **fields,
        )  # fmt: skip

    def append_entries_res(
        self, src: str, term: int, success: bool, match: int, sent: float, timeout: float,
        incarnation: int, snapshot: int, offset: int,
    ) -> None:  # fmt: skip
        """A follower tells up to which index its log equals the leader's, or may equal it.

        `snapshot` and `offset` tell how much of a snapshot has come.
        """
        self.maybe_step_down(term, f"{src} is in a later term")
        if self.role != "leader" or term != self.term:
            return
        now, follower = self.node.now(), self.leading.followers[src]
        # A late answer is no sample if a majority was quicker: then only this follower is slow.
        is_quick = now - sent < LATE * self.times.rtt
        if is_quick or sent > self.of_majority(math.inf, lambda one: one.acked):
            self.times.measure(now, sent, True)
        if follower.incarnation != incarnation:  # it has forgotten its log
            lacked = max(self.commit_index, self.leading.term_start)
            follower = follower.restarted(incarnation, lacked)
            self.leading.followers[src] = follower
        # The timeout of that very message: today's may be longer than what was promised then.
        follower.answered(now, sent, promised=sent + timeout * LEASE)
        if success:
            if follower.has_lost(match, sent):
                self.log_role(
                    f"leader, {src} has lost entries after {match} that it had acknowledged up to "
                    f"{follower.match_index}: was its file replaced by an older copy?"
                )
                follower.go_on_after(match)
            follower.acknowledged(match, now)
            follower.note_records(match >= self.log.start, snapshot, offset, sent)
        if not success or follower.match_index < follower.base:  # it lacks entries before those
            follower.step_back(match, sent, self.leading.stamp)

    def send_snapshot(self, node_id: str, follower: Follower, due: bool) -> None:
        """Sends a part of the state to a follower that lacks forgotten entries (section 7).

        One part is in flight at a time. A heartbeat is an empty one: its answer says what came.
        """
        if not follower.snapshot:
            follower.begin_snapshot(self.snapshot())
        is_silent = follower.is_silent(self.node.now(), self.times.timeout)
        data = follower.next_part(self.leading.stamp, is_silent)
        snapshot = follower.snapshot
        if snapshot and (due or data is not None):
            self.send_follower(
                node_id, "install_snapshot", last_index=snapshot.index, last_term=snapshot.term,
                members=snapshot.members, size=snapshot.size, offset=follower.offset,
                data=data or [],
            )  # fmt: skip

    def snapshot(self) -> Snapshot:
        """The state as it is now."""
        index, map = self.last_applied, self.state_machine.map
        members, records = self.members.known.copy(), self.sessions.records()
        return Snapshot(index, self.log[index].term, members, records, map)

    def compact(self) -> None:
        """Forgets applied entries (section 7), but for those that may be needed."""
        log, needed = self.log, [self.last_applied, self.storage.index]
        followers = self.leading.followers.values()
        needed += [one.snapshot.index for one in followers if one.snapshot]
        kept, end = log.start, max(log.start, min(needed))
        if log.bytes_between(kept, end) > KEPT_BYTES and end - kept > KEPT_ENTRIES:
            kept += (end - kept + 7) // 8  # not all: freeing thousands at once would pause the node
            log.compact(kept, log[kept].term)
        if self.following.incoming.index <= self.commit_index:
            self.following.incoming = Snapshot()  # entries have come instead

    def review_followers(self, now: float) -> None:
        """Resends unacknowledged entries, readmits nodes, and forgets old batches."""
        for id, follower in self.leading.followers.items():
            if follower.is_overdue(now, 2 * self.times.rtt + TICK):
                follower.resend()
            if follower.is_back(self.members.known.get(id)):
                self.append_members({id: follower.readmit()})
        kept = max(KEPT_BATCHES, 2 * self.times.patience)  # owners give up after half of that
        accepted = self.leading.accepted
        for key, batch in [*accepted.items()]:
            if now < batch.came_at + kept:
                break
            del accepted[key]

    # Replication: the follower

    def append_entries(
        self, src: str, term: int, prev_log_index: int, prev_log_term: int,
        entries: list[Sequence[Any]], leader_commit: int, sent: float, timeout: float, rtt: float,
        done: list[int],
    ) -> None:  # fmt: skip
        """The leader's entries, or its heartbeat."""
        if not self.hear_leader(src, term, sent, timeout, rtt, done):
            return
        following = self.following
        new = [*map(Entry._make, entries)]
        following.refused = self.accept_entries(prev_log_index, prev_log_term, new)
        # The leader's commit index says nothing of entries that may differ from its own.
        self.commit_index = max(self.commit_index, min(leader_commit, following.verified))

    def hear_leader(
        self, src: str, term: int, sent: float, timeout: float, rtt: float, done: list[int]
    ) -> bool:
        """Any message of a leader; False if it is of an earlier term, and refused."""
        if term < self.term:
            self.send_leader(src, sent, timeout, 0)
            return False
        self.maybe_step_down(term, f"{src} leads")
        if not self.following.leader:
            self.have_leader("follower", src, f"follower of {src}")
        self.promise = max(self.promise, self.node.now() + timeout)
        self.times.follow(rtt, timeout)
        self.clients.done(done)
        following, latest = self.following, (sent, timeout)
        following.ack, following.refused = max(following.ack or latest, latest), None
        return True

    def send_leader(self, leader: str, sent: float, timeout: float, refused: int | None) -> None:
        """Tells a leader up to which index the logs are equal, and how much of a snapshot came."""
        incoming = self.following.incoming
        self.send(
            leader, "append_entries_res", term=self.term, success=refused is None,
            match=self.following.verified if refused is None else refused, sent=sent,
            timeout=timeout, incarnation=self.members.incarnation, snapshot=incoming.index,
            offset=incoming.size,
        )  # fmt: skip

    def install_snapshot(
        self, src: str, term: int, last_index: int, last_term: int, members: dict[str, int],
        size: int, offset: int, data: list[Any], sent: float, timeout: float, rtt: float,
        done: list[int],
    ) -> None:  # fmt: skip
        """A part of the leader's state, for entries that the leader has forgotten (section 7).

        Parts are taken in order. Each answer says how many records have come.
        """
        if not self.hear_leader(src, term, sent, timeout, rtt, done):
            return
        if last_index <= self.commit_index:
            return  # a node never goes back
        if last_index > self.following.incoming.index:
            self.following.incoming = Snapshot(last_index, last_term, members)
        incoming = self.following.incoming
        if (last_index, offset) == (incoming.index, incoming.size):
            incoming.take(data)
        if last_index == incoming.index and incoming.size >= size:
            self.log.compact(last_index, incoming.term)
            self.install(incoming)
            self.log_role(f"follower of {src}, with its state up to {last_index}")

    def install(self, snapshot: Snapshot) -> None:
        """Takes the state of a snapshot in the place of this node's own."""
        self.state_machine = Store(snapshot.map)
        self.sessions = Sessions(snapshot.sessions)
        self.commit_index = self.last_applied = snapshot.index
        self.following.verified = max(self.following.verified, snapshot.index)
        self.following.incoming = Snapshot()
        self.learn_members(snapshot.members)

    def accept_entries(
        self, previous: int, previous_term: int, entries: list[Entry]
    ) -> int | None:
        """Takes entries into the log after `previous`, if the logs agree there (section 5.3).

        Returns None or, to refuse them, an index up to which the logs may agree. Entries beyond the
        end of the log have overtaken others: they wait for those, and are not refused.
        """
        following, log = self.following, self.log
        if previous > log.size:
            early = following.early
            if len(early) < EARLY_APPENDS:
                early[previous] = max(entries, early.get(previous, []), key=len)
            return None
        if previous > following.verified and log[previous].term != previous_term:
            conflict = log[previous].term
            while previous > self.commit_index and log[previous].term == conflict:
                previous -= 1
            return previous
        self.place_entries(previous, entries)
        while following.early and (previous := min(following.early)) <= following.verified:
            self.place_entries(previous, following.early.pop(previous))
        return None

    def place_entries(self, previous: int, entries: list[Entry]) -> None:
        """Puts entries into the log.

        Only a conflicting entry cuts the log. The message may be an old one, which lacks entries
        that this node has acknowledged since.
        """
        log, following = self.log, self.following
        skipped = max(0, following.verified - previous)
        for index, entry in enumerate(entries[skipped:], previous + skipped + 1):
            if index > log.size or log[index].term != entry.term:
                log.truncate(index - 1)
                log.append(entries[index - previous - 1 :])
                break
        following.verified = max(following.verified, previous + len(entries))
        if not self.members.known and log.start < 1 <= log.size and not log[1].owner:
            self.learn_members(log[1].members)  # the first entry of all names the members

    def acknowledge(self) -> None:
        """Answers the leader's messages of this turn, as one."""
        following = self.following
        if following.ack and following.leader:
            self.send_leader(following.leader, *following.ack, following.refused)
            self.reset_election_deadline()
        following.ack = None

    # Commit and apply (sections 5.3 and 5.4.2)

    def advance_commit_index(self) -> None:
        """Commits what a majority has, if it is of this term (section 5.4.2)."""
        if self.role != "leader" or self.commit_index == self.log.size:
            return
        index = self.of_majority(self.log.stable, lambda one: one.match_index)
        if index > self.commit_index and self.log[index].term == self.term:
            self.commit_index = index

    def advance_state_machine(self) -> None:
        """Applies committed entries (section 5.3), and answers those that this leader appended."""
        if self.last_applied == self.commit_index:
            return
        accepted = self.leading.accepted
        for entry in self.log.from_index(self.last_applied + 1, self.commit_index + 1):
            self.last_applied += 1
            if not entry.owner:
                self.learn_members(entry.members)
                continue
            key = (entry.owner, entry.seq)  # a retried batch may be in an earlier term, too
            batch = accepted.get(key) if entry.term == self.term else None
            self.state_machine, answers = self.sessions.apply(self.state_machine, entry.operations)
            if batch:
                for answer in answers:
                    self.answer(*answer)
                batch.writes = []
                self.tell_owner(batch)

    # Reads (section 8; thesis 6.4)

    def serve_reads(self) -> None:
        """Answers reads from the state machine once it is sure that this node still leads.

        It is sure while the followers' promises last (a lease), or if a majority has answered a
        message that was sent after the read came. A leader without a committed entry of its term
        does not know what is committed.
        """
        leading = self.leading
        if not leading.waiting_reads or self.commit_index < leading.term_start:
            return
        acked = self.of_majority(math.inf, lambda one: one.acked)
        lease = self.of_majority(math.inf, lambda one: one.promised)
        if self.reads == "lease" and self.node.now() < lease:
            acked = math.inf
        waiting = []
        for batch in leading.waiting_reads:
            if acked <= batch.stamp:
                waiting.append(batch)
                continue
            for client, msg_id, body in batch.reads:
                self.answer(client, msg_id, self.state_machine.apply(body)[1])
            batch.reads = []
            self.tell_owner(batch)
        leading.waiting_reads = waiting

    # Client operations: their owner, the node that got them

    def client_req(self, msg: Message) -> None:
        """Takes a client's operation. The leader answers it, or else `review_pending`."""
        with self.lock:
            body = check_operation(msg["body"])
            is_entry = not only_reads(body) or self.reads == "log"
            self.clients.take([msg["src"], body.pop("msg_id"), body], is_entry)

    def hand_over_operations(self) -> None:
        """Hands over this turn's operations, and all pending ones to a new leader."""
        for batch in self.clients.take_untried():
            self.hand_over(batch)
        if new := self.clients.leave_turn(self.node.now()):
            self.hand_over(new)

    def hand_over(self, batch: Batch) -> None:
        """Gives a batch to the leader or, if none is known, to the relay; else it stays pending.

        A retry goes to another node than the last try, drawn at random, for the link to that one
        may be cut. A node that follows the leader relays the batch.
        """
        dest = self.following.leader or self.following.relay
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

    def forward(
        self, src: str, owner: str, seq: int, reads: list[Operation], writes: list[Operation]
    ) -> None:
        """Another node's batch. A node that follows the leader relays it, if it is its owner's."""
        batch = Batch(owner, seq, reads, writes, self.node.now())
        leader = self.following.leader
        if self.role == "leader":
            self.accept_batch(batch)
        elif leader and leader != src == owner:
            self.send_forward(leader, batch)

    def accept_batch(self, batch: Batch) -> None:
        """Accepts a batch once per term: appends its writes, queues its reads."""
        leading, key = self.leading, (batch.owner, batch.seq)
        if accepted := leading.accepted.get(key):
            self.tell_owner(accepted)  # it may not have heard that the batch is done
            return
        leading.accepted[key] = batch
        batch.stamp = leading.stamp
        if batch.writes:
            self.log.append([Entry(self.term, *key, batch.writes)])
        if batch.reads:
            leading.waiting_reads.append(batch)

    def tell_owner(self, batch: Batch) -> None:
        """If a batch is done, its owner hears so with the next message to it."""
        if batch.reads or batch.writes:
            return
        if batch.owner == self.node.node_id:
            self.clients.done([batch.seq])
        else:
            self.leading.followers[batch.owner].note_finished(batch.seq)

    def review_pending(self, now: float) -> None:
        """Gives up operations that have waited too long, and retries those that may be lost.

        A read, and a write that never left this node, gets error 11: it has not happened. A write
        that another node may have gets no answer, for it may still happen.
        """
        why = f"leader: {self.following.leader or 'none'}"
        for client, msg_id, _ in self.clients.expire(now, self.times.patience):
            self.answer(client, msg_id, RPCError.temporarily_unavailable(why).to_json())
        if self.role != "leader":
            for batch in self.clients.retry(now, 2 * self.times.rtt + self.times.heartbeat):
                self.hand_over(batch)

    def answer(self, client: str, msg_id: int, res: Body) -> None:
        """Answers a client, whichever node it had asked: it looks at in_reply_to alone.

        A late answer is harmless: a client skips those that it does not wait for.
        """
        self.node.send(client, {**res, "in_reply_to": msg_id})


FIELDS: Final = {  # of each type of message between servers
    handler.__name__: set(signature(handler).parameters) - {"self", "src"}
    for handler in (
        Raft.request_vote, Raft.request_vote_res, Raft.append_entries, Raft.append_entries_res,
        Raft.install_snapshot, Raft.forward,
    )
}  # fmt: skip


# The rooms of Raft. A room changes its own fields only, and calls neither Raft nor the node: it is
# given values, and returns what is to be done.

NEAR = 0.004  # seconds: below this round trip an append may wait for the last one's answer
URGENT = 0.5  # round trips that it waits at most, if the follower is needed to commit
SPARE = 8.0  # round trips that it waits at most, if the follower is not needed
WINDOW_BYTES = 1 << 22  # in flight to a follower, at most


@dataclass
class Follower:
    """A leader's view of a follower, and its decisions what to send (section 5.3).

    Entries are sent ahead of their acknowledgements. Those from max(base, match_index) + 1 up to
    next_index - 1 are in flight.
    """

    incarnation: int | None  # that it said last; None: not heard of
    next_index: int  # index of the next entry to send; > match_index
    heard_of: float  # time of its last answer
    progress_at: float  # time of the last acknowledgement, or of sending the oldest entry in flight
    match_index: int = 0  # highest index known to be equal in both logs
    base: int = 0  # index after which sending began last
    lacked: int = 0  # index that it must have before it may be readmitted
    readmitted: int | None = None  # incarnation whose readmission was appended
    acked: float = -math.inf  # stamp of the latest message that it answered
    promised: float = -math.inf  # time until which it votes for nobody, on the leader's clock
    stamp: float = -math.inf  # of the latest message to it
    previous: int = 0  # prev_log_index of the latest append
    entries_stamp: float = -math.inf  # of the latest message with entries; <= stamp
    backed: float = -math.inf  # stamp of the last step back; older answers cause no other one
    finished: list[int] = field(default_factory=list)  # seqs of its batches, to be told it
    snapshot: Snapshot | None = None  # to send, because it lacks forgotten entries
    offset: int = 0  # number of the snapshot's records that it has
    part_stamp: float = -math.inf  # of the latest message with records

    def is_silent(self, now: float, timeout: float) -> bool:
        """Whether nothing has come from it for an election timeout."""
        return now - self.heard_of >= timeout

    def is_overdue(self, now: float, limit: float) -> bool:
        """Whether entries in flight have not been acknowledged for more than `limit` seconds."""
        return self.next_index > self.match_index + 1 and now - self.progress_at > limit

    def last_to_send(
        self, log: Log, stamp: float, now: float, times: Times, is_needed: bool
    ) -> int:
        """The last index of the entries to send now; next_index - 1 for none.

        On a near network an append waits for the answer to the last one, which comes soon (Nagle's
        rule). If the follower is not needed to commit, the append waits longer. Meanwhile more
        entries come, and go with it. A silent follower gets heartbeats until it answers one.
        """
        previous, match_index = self.next_index - 1, self.match_index
        if previous == log.size or self.is_silent(now, times.timeout):
            return previous
        may_wait = times.rtt < NEAR and (previous > match_index or not is_needed)
        held = stamp - self.entries_stamp
        if may_wait and held < times.rtt * (URGENT if is_needed else SPARE):
            return previous
        room = WINDOW_BYTES - log.bytes_between(max(match_index, self.base), previous)
        last = log.size if room > 0 else previous
        while last > previous + 1 and log.bytes_between(previous, last) > min(room, CHUNK_BYTES):
            last = (previous + 1 + last) // 2
        return last

    def note_entries(self, count: int, stamp: float, now: float) -> None:
        """Notes that the next entries, so many, are in flight."""
        self.previous = self.next_index - 1
        if count:
            self.entries_stamp = stamp
            if self.previous == self.match_index:
                self.progress_at = now
        self.next_index += count

    def note_message(self, stamp: float) -> list[int]:
        """Notes that a message is sent. Returns the seqs of finished batches, to go with it."""
        finished, self.finished = self.finished, []
        self.stamp = stamp
        return finished

    def note_finished(self, seq: int) -> None:
        """Notes that one of its batches is done. The next message tells it so."""
        self.finished.append(seq)

    def answered(self, now: float, sent: float, promised: float) -> None:
        """Notes an answer to the message of stamp `sent`, and what it promises."""
        self.heard_of = now
        self.acked = max(self.acked, sent)
        self.promised = max(self.promised, promised)

    def has_lost(self, match: int, sent: float) -> bool:
        """Whether the answer to the latest append shows that it lacks an acknowledged entry.

        Its file must have been replaced by an older copy. A node that has started again with its
        own file finds the entry before the append's in its log, and acknowledges it again.
        """
        return sent == self.stamp and match < self.previous <= self.match_index

    def acknowledged(self, match: int, now: float) -> None:
        """Notes that the logs are equal up to an index."""
        if match > self.match_index:
            self.match_index, self.progress_at = match, now
            self.next_index = max(self.next_index, match + 1)

    def step_back(self, match: int, sent: float, stamp: float) -> None:
        """Sends earlier entries next, unless the answer is older than the last step back."""
        if sent > self.backed:
            self.backed = stamp
            self.go_on_after(max(self.match_index, match))

    def resend(self) -> None:
        """Sends all entries in flight again."""
        self.go_on_after(self.match_index)

    def heartbeats_only(self, size: int) -> None:
        """Sends no entries to a follower that is gone and lacks forgotten ones."""
        self.snapshot = None
        self.go_on_after(size)

    def go_on_after(self, index: int) -> None:
        self.base, self.next_index = index, index + 1

    def restarted(self, incarnation: int, lacked: int) -> Follower:
        """The view of another incarnation of this follower, whose log is empty."""
        return Follower(incarnation, 1, self.heard_of, self.progress_at, lacked=lacked)

    def is_back(self, member: int | None) -> bool:
        """Whether the follower, back without memory, is to be readmitted now, once.

        It must have the entries that were committed when it came back, and this term's first one.
        The entries that are committed now would be too much: under load only the quickest follower
        has them.
        """
        is_settled = self.incarnation in (None, member, self.readmitted)
        return not is_settled and self.match_index >= self.lacked

    def readmit(self) -> int:
        """Notes that its return is appended. Returns the incarnation."""
        assert self.incarnation is not None
        self.readmitted = self.incarnation
        return self.incarnation

    def begin_snapshot(self, snapshot: Snapshot) -> None:
        self.snapshot, self.offset, self.part_stamp, self.previous = snapshot, 0, -math.inf, 0

    def next_part(self, stamp: float, is_silent: bool) -> list[Any] | None:
        """The snapshot's next records, to leave with this stamp; None while some are in flight."""
        if not self.snapshot or self.acked < self.part_stamp or is_silent:
            return None
        self.part_stamp = stamp
        return self.snapshot.part(self.offset)

    def note_records(self, is_enough: bool, index: int, offset: int, sent: float) -> None:
        """Notes how many of a snapshot's records it has, or that it needs entries only."""
        if is_enough:
            self.snapshot = None
        elif self.snapshot and (self.snapshot.index, self.acked) == (index, sent):
            self.offset = offset  # an older answer tells less


@dataclass
class Batch:
    """The operations that clients sent to a node, their owner, in one turn.

    They are forwarded, retried and acknowledged together. The writes become one entry. A leader
    empties `reads` and `writes` when they are done.
    """

    owner: str
    seq: int  # unique among the owner's batches, even across its restarts
    reads: list[Operation]
    writes: list[Operation]
    came_at: float  # time, at this node
    sent_at: float = -math.inf  # of the owner's last try; -inf: never sent, so it cannot happen
    asked: str = ""  # the node that was tried last; "": none since a leader was found
    stamp: float = -math.inf  # the leader's, when the batch came: later messages confirm its reads


class Clients:
    """The operations that this node owes answers for: it owns them."""

    def __init__(self, owner: str = "", seq: int = 0) -> None:
        self.pending: dict[int, Batch] = {}  # by seq, the oldest first
        self.seq = seq  # of the last batch
        self._owner = owner
        self._reads: list[Operation] = []  # of this turn
        self._writes: list[Operation] = []
        self._untried = False  # all pending batches are to be handed over

    def take(self, operation: Operation, is_entry: bool) -> None:
        """Takes an operation into this turn's batch: as an entry of the log, or as a read."""
        (self._writes if is_entry else self._reads).append(operation)

    def leave_turn(self, now: float) -> Batch | None:
        """The batch of this turn's operations, which is pending from now on; None if none came."""
        if not self._reads and not self._writes:
            return None
        self.seq += 1
        batch = Batch(self._owner, self.seq, self._reads, self._writes, now)
        self._reads, self._writes = [], []
        self.pending[self.seq] = batch
        return batch

    def forget_tries(self) -> None:
        """All pending batches go to a leader that was just found, as if they had not been tried."""
        self._untried = True

    def take_untried(self) -> list[Batch]:
        """All pending batches, once after each `forget_tries`."""
        if not self._untried:
            return []
        self._untried = False
        for batch in self.pending.values():
            batch.asked = ""
        return [*self.pending.values()]

    def retry(self, now: float, after: float) -> list[Batch]:
        """The batches whose last try was more than `after` seconds ago."""
        return [batch for batch in self.pending.values() if now - batch.sent_at > after]

    def expire(self, now: float, patience: float) -> list[Operation]:
        """Gives up batches that are older than `patience` seconds.

        Returns the operations that have certainly not happened: reads, and writes never sent.
        """
        refused: list[Operation] = []
        for batch in [*self.pending.values()]:
            if now - batch.came_at < patience:
                break
            del self.pending[batch.seq]
            may_happen = batch.sent_at > -math.inf
            refused += batch.reads + ([] if may_happen else batch.writes)
        return refused

    def done(self, seqs: Iterable[int]) -> None:
        """Forgets batches that the leader has answered."""
        for seq in seqs:
            self.pending.pop(seq, None)


NEVER: Final = (-math.inf, dict[str, Any]())  # the last operation of a client that had none


class Sessions:
    """Each client's last operation beside reads, and its answer: replicated state (section 8).

    A client numbers its operations upwards (msg_id) and sends one after the other. So the last one
    is all that has to be remembered for each operation to take effect once, however often it is in
    the log. Sessions are never forgotten: about half a kilobyte for each client.
    """

    def __init__(self, records: Iterable[tuple[str, int, Body]] = ()) -> None:
        self._last = {client: (msg_id, res) for client, msg_id, res in records}
        self._changed = dict.fromkeys(self._last)  # clients, since `changes` was called last

    def __len__(self) -> int:
        return len(self._last)

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
            is_read = only_reads(body)
            if msg_id > last or is_read:
                state, res = state.apply(body)
                if not is_read:
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


class Members:
    """Which incarnation of each node counts, part of the replicated state.

    A node that starts without memory, because it keeps its state in memory or its file is gone, has
    forgotten its votes, its promises and its log: it is another *incarnation*. It neither votes nor
    counts until a leader has brought it up to date, up to an entry of that leader's term, and the
    others have committed an entry that readmits it.

    This is safe. Let n be the number of nodes, m a majority, and k the number of nodes that come
    back. Before, a majority may have elected a leader, committed an entry or given a lease with
    the help of the k. Of that majority m - k nodes remember. The return is committed by m of the
    n - k others, and (m - k) + m > n - k: one node is in both. So no later leader lacks the entry,
    or wins by a second vote of a node that has forgotten its first: that node's log has an entry
    of the readmitting leader's term, and the other candidate's has not. Only what a majority
    forgets at the same time is lost.

    The first node founds the cluster: it is elected by all, none of which knows of any member. It
    asks until it has all votes. In another incarnation it has forgotten which votes it had, so in
    that term it does not get them again.
    """

    def __init__(
        self, node_id: str = "", node_ids: Sequence[str] = (), incarnation: int = 0,
        known: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        self.incarnation = incarnation  # of this node
        self.known: dict[str, int] = {**(known or {})}  # node to incarnation; empty: none yet
        self.is_first = node_id in node_ids[:1]  # this node founds the cluster
        self.majority = majority(len(node_ids))
        self._node_id = node_id
        self._count = len(node_ids)

    @property
    def is_member(self) -> bool:
        """Whether this node counts: it has not forgotten what it may have promised."""
        return self.known.get(self._node_id) == self.incarnation

    @property
    def votes_needed(self) -> int:
        """How many votes elect a leader: a majority, but all to found the cluster."""
        return self.majority if self.known else self._count

    @property
    def status(self) -> str:
        """Whether this node is a member, in words; nothing while it knows of none."""
        if self.is_member:
            return "a member: it votes and counts"
        return "without memory: it neither votes nor counts until readmitted" if self.known else ""

    def admit(self, members: Mapping[str, int]) -> None:
        """Learns of members."""
        self.known = {**self.known, **members}

    def claim(self) -> dict[str, int]:
        """Returns this node's claim in an election: the members or, if it knows of none, itself."""
        return self.known or {self._node_id: self.incarnation}

    def may_vote(self, claim: Mapping[str, int]) -> bool:
        """Whether this node may vote for a candidate that claims this.

        A founder claims itself alone. It gets the votes of nodes that know of no member.
        """
        return not self.known if len(claim) == 1 else self.is_member

    def counts(self, node_id: str, incarnation: int | None) -> bool:
        """Whether a node in this incarnation counts for a majority."""
        return incarnation == self.known.get(node_id, ABSENT)


HEARTBEAT = 0.17  # seconds between two messages to a follower, at least
HEARTBEATS_PER_SECOND = 48  # of a leader, at most, with their answers
MAX_TIMEOUT = 60.0  # seconds
PATIENCE = 0.9  # seconds until an operation is given up, at least: clients wait for 1 s at least
ROUND_TRIPS = 4.5  # the same, in round trips: clients wait for ten times the latency at least
SAMPLE_INTERVAL = 0.01  # seconds between two samples, at least
FIRST_ROUND_TRIP = 0.15  # seconds, taken for granted until enough samples are known


class Times:
    """Round trips, and the times that follow from them, in seconds. Nothing is configured.

    Leaders and candidates measure; a follower takes the leader's values.
    """

    def __init__(self, others: int = 0) -> None:
        self.rtt = FIRST_ROUND_TRIP  # of a message and its answer
        self._min_heartbeat = max(HEARTBEAT, 2 * others / HEARTBEATS_PER_SECOND)
        self._min_timeout = 1.8 * self._min_heartbeat  # nearly two heartbeats
        self.timeout = self._min_timeout  # of elections
        self._samples = deque([FIRST_ROUND_TRIP] * 5, maxlen=51)
        self._sampled = -math.inf  # time of the last sample

    @property
    def heartbeat(self) -> float:
        """Seconds between two messages to a follower."""
        return max(self._min_heartbeat, self.timeout / 4)

    @property
    def patience(self) -> float:
        """Seconds until an operation is given up."""
        return max(PATIENCE, ROUND_TRIPS * self.rtt)

    def measure(self, now: float, sent: float, leads: bool) -> None:
        """Records the round trip of a message that was sent then and is answered now."""
        if now - self._sampled >= SAMPLE_INTERVAL:
            self._sampled = now
            self._samples.append(max(0.0, now - sent))
            self.rtt = self._median()
            if leads:
                self.set_timeout()

    def _median(self) -> float:
        """The round trip that counts: a few long ones are a node's pause, not the network's."""
        return sorted(self._samples)[(len(self._samples) - 1) // 2]

    def set_timeout(self) -> None:
        """Derives a leader's timeout from the round trips."""
        self.rtt = self._median()
        self.timeout = min(max(self._min_timeout, 2.5 * self.rtt), MAX_TIMEOUT)

    def follow(self, rtt: float, timeout: float) -> None:
        """Takes a leader's values. Its round trip is a sample, too: this node may lead next."""
        self.rtt, self.timeout = rtt, timeout
        self._samples.append(rtt)


CHUNK_BYTES = 1 << 19  # of memory, about, in one message; one entry or record may be larger
OPERATION_BYTES = 500  # of memory that an operation takes besides its strings


@dataclass
class Snapshot:
    """The state when the entries up to an index were applied (section 7).

    It is complete at a leader, and possibly partial at a follower. It consists of records: the
    sessions, [client, msg_id, answer], then the map's items, [key, value]. Versions of a map never
    change, so it may be sent part by part.
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
        """The records from an offset on, as many as one message carries, or a larger one."""
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
        """Appends the records that come next."""
        for record in data:
            if len(record) == 2:
                self.map = self.map.set(*record)
            else:
                self.sessions.append(record)


class HardState(NamedTuple):
    """The persistent state of figure 2 except the log, and members, incarnation and promise."""

    term: int = 0
    voted_for: str | None = None
    voted_incarnation: int | None = None
    promised: float = 0.0  # seconds for which it votes for nobody
    incarnation: int = 0
    members: Mapping[str, int] = {}


class State(NamedTuple):
    """The replicated state, as of the last entry that was applied."""

    last_applied: int
    map: PersistentMap
    sessions: Sessions


class Memory:
    """Stands in for a Storage where a node keeps its state in memory alone."""

    durable = False
    index = 1 << 62  # no log is kept for a checkpoint

    def open(
        self, node_id: str, node_ids: Sequence[str], random: Random
    ) -> tuple[HardState, Log, Snapshot]:
        """A new node, in a new incarnation."""
        return HardState(incarnation=random.getrandbits(48)), Log(), Snapshot()

    def save(self, hard: HardState, log: Log, state: State) -> None:
        log.mark_stable()


CHECKPOINT_BYTES = 1 << 19  # of the log's entries, of memory, between two checkpoints
WAL_PAGES = 128  # of 4 KiB, after which SQLite empties its -wal file: a small disk must do
FORMAT = 6  # of the file


class Storage:
    """A node's persistent state (figure 2, section 7) in a SQLite file: it outlives the process.

    The changes of a turn are one transaction. It is on the disk before messages leave that depend
    on it. Each row has a checksum. The row of `state` says how many of the others there must be.

        item     the map, when the entries up to the checkpoint's index were applied
        session  the sessions at the same moment
        entry    the log after its `start`, up to `last`
        state    the hard state, and facts about the other tables

    If the end of its -wal file is damaged, SQLite takes it for a transaction that was never
    committed. So a file beside it counts the commits. That file is not synced: after a loss of
    power it may count too few, but never too many.
    """

    durable = True

    def __init__(self, folder: str) -> None:
        import sqlite3  # what keeps its state in memory need not load it

        # A node may be started elsewhere than where the command was typed: Maelstrom does.
        self.folder = self.path = Path(os.environ.get("PWD", ".")).joinpath(folder)
        self.connect: Callable[..., Any] = sqlite3.connect  # a simulation takes its place
        self.index = -1  # of the checkpoint: the log after it is needed still; -1: there is none
        self._map = PersistentMap()  # as of the checkpoint
        self._saved: dict[str, Any] = {}  # what `state` holds

    def open(
        self, node_id: str, node_ids: Sequence[str], random: Random
    ) -> tuple[HardState, Log, Snapshot]:
        """Returns the saved state. SystemExit, with a line for the user, if it cannot be read."""
        me = {"format": FORMAT, "node_id": node_id, "node_ids": node_ids}
        path = self.path = self.folder / f"{node_id}.db"
        try:
            if not os.path.lexists(path):  # a link to a missing file is not taken for a new node
                self._create(path, me, HardState(incarnation=random.getrandbits(48)))
            self._open(path)
            found = self._load(me)
            self._db.execute("PRAGMA journal_mode = wal")  # a commit is one write and one sync
            self._put("state", [(0, self._saved)])  # can it be written?
        except Exception as error:
            why = " ".join(str(error).split())  # SQLite has some of several lines
            raise SystemExit(
                f"{path} cannot be used: {why}. See that the folder can be written and that no "
                "other process uses the file. If it is damaged, move it away: the node then starts "
                "without memory, and the others bring it up to date. Do so for one node at a time, "
                "wait until it is readmitted, and never put back an older copy."
            ) from error
        return found

    def _open(self, path: Path) -> None:
        self._db = self.connect(str(path), timeout=0, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA locking_mode = exclusive")
        self._db.execute("PRAGMA synchronous = full")
        self._db.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        counter = path.with_suffix(".commits")
        counter.touch()
        self._count = counter.open("r+b", buffering=0)

    def _create(self, path: Path, me: dict[str, Any], hard: HardState) -> None:
        """Makes the file of a new node, as a whole or not at all."""
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
        self._save(hard, Log(), State(0, PersistentMap(), Sessions()))
        self._db.close()
        new.rename(path)
        # The names, too, must be on the disk.
        for folder in changed:
            handle = os.open(folder, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)

    def _load(self, me: dict[str, Any]) -> tuple[HardState, Log, Snapshot]:
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
        log = Log(start, start_term, [Entry(*entry) for entry in entries.values()])
        log.mark_stable()
        if (log.size, snapshot.size) != (saved["last"], size):
            raise ValueError("it is damaged: something is missing")
        return HardState(*[saved[name] for name in HardState._fields]), log, snapshot

    def save(self, hard: HardState, log: Log, state: State) -> None:
        """Makes durable what has changed.

        After a failure nobody knows what is on the disk, so the node ends: SystemExit, with a line
        for the user. Nothing of this turn leaves; a new start finds all that was acknowledged.
        """
        try:
            self._save(hard, log, state)
        except Exception as error:
            why = str(error) or error.__class__.__name__
            raise SystemExit(
                f"{self.path} cannot be written: {why}. Nothing that was acknowledged is lost: "
                "make room on the disk, see that the file can be written, and start the node again."
            ) from error

    def _save(self, hard: HardState, log: Log, state: State) -> None:
        db, saved = self._db, self._saved
        new = log.bytes_between(self.index, state.last_applied)
        overdue = new >= CHECKPOINT_BYTES or log.start > self.index
        row = saved | hard._asdict() | {"last": log.size, "promised": saved["promised"]}
        if hard.promised > saved["promised"]:
            row["promised"] = 2 * hard.promised  # so that it need not be written each time
        elif overdue:  # it may become less again, so that a start does not wait too long
            row["promised"] = min(2 * hard.promised, saved["promised"])
        if row == saved and log.stable == log.size and not overdue:
            return
        db.execute("BEGIN IMMEDIATE")
        row["commits"] += 1
        if log.stable < saved["last"]:  # the log was cut
            db.execute("DELETE FROM entry WHERE key > ?", (log.stable,))
        self._put("entry", enumerate(log.from_index(log.stable + 1, log.size + 1), log.stable + 1))
        if overdue:
            self._checkpoint(state)
            db.execute("DELETE FROM entry WHERE key <= ?", (log.start,))
            size = len(state.sessions) + len(state.map)
            row["checkpoint"] = [log.start, log[log.start].term, state.last_applied, size]
        self._put("state", [(0, row)])
        db.execute("COMMIT")
        log.mark_stable()
        self._saved = row
        if overdue:
            self.index, self._map = state.last_applied, state.map
        os.pwrite(self._count.fileno(), b"%20d" % row["commits"], 0)

    def _checkpoint(self, state: State) -> None:
        """Writes the part of the state that has changed since the last checkpoint.

        Rows are never deleted, for neither keys nor sessions ever go. So this works, too, after a
        snapshot has taken the place of the state.
        """
        items = state.map.changes_since(self._map)
        self._put("item", ((encode(key), [key, value]) for key, value in items))
        self._put("session", ((record[0], record) for record in state.sessions.changes()))

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


# From here on: what the chapter does not have. A Ruby Hash takes any key and tells 1 from true.

ABSENT: Final = object()  # what a version holds for a key that it does not hold
MAX_NESTING = 100  # arrays and objects within each other; JSON itself sets no limit
SHOWN = 100  # characters of a value in an error text
PLAIN = frozenset([str, int, float, type(None)])  # what is its own identity
new = object.__new__  # without __init__, which would make a table


class PersistentMap:
    """An immutable mapping of JSON to JSON: `set` returns a new version and copies nothing.

    All versions share the newest one's table. Before a write changes it, the version written to
    records what it loses (H. Baker, Shallow binding makes functional arrays fast, 1991):

        v1 = {a: 1}    v1 lost {a: 1}    v2 lost {b: absent}    v3's table {a: 2, b: 3}

    A version holds what the table says, unless it or a newer one has lost that: the oldest such
    record counts. Versions lead to newer ones only, so a version that nobody holds is freed. One
    that is held costs a record for each write since it was read last, and for each key written
    before that. Any thread may read, or be amid `items`, while one writes: a record is there before
    the table changes, and a reader looks there last. Do not change values given. A write to an old
    version copies it.
    """

    __slots__ = ("_lost", "_newer", "_order", "_size", "_table")
    _lost: dict[Hashable, tuple[Any, Any] | None]  # by this version, to newer ones
    _newer: PersistentMap | None  # the version after those whose losses are in _lost

    def __init__(self, items: Iterable[tuple[Any, Any]] = ()) -> None:
        self._table = {identity(key): (key, value) for key, value in items}
        self._order, self._size = list(self._table), len(self._table)
        self._newer = None  # this is the newest version

    def set(self, key: Any, value: Any) -> PersistentMap:
        """The version after this one. Raises RPCError 12 for a key or value that is not JSON."""
        id = key if key.__class__ in PLAIN else identity(key)
        if value.__class__ not in PLAIN:
            identity(value)
        return self.put(id, key, value)

    def put(self, id: Hashable, key: Any, value: Any) -> PersistentMap:
        """The version after this one, for a value known to be JSON, and a key of this identity."""
        if self._newer is not None:
            return PersistentMap(self.items()).put(id, key, value)
        table, order = self._table, self._order
        before = table.get(id)
        newest = new(PersistentMap)
        newest._table, newest._order, newest._newer = table, order, None
        self._lost, self._newer = {id: before}, newest
        if before is None:
            order.append(id)
        table[id] = (key if before is None else before[0], value)
        newest._size = len(order)
        return newest

    def get(self, key: Any, default: Any = None) -> Any:
        id = key if key.__class__ in PLAIN else identity(key)
        item = self._table.get(id)
        if self._newer is not None:
            item = self._losses().get(id, item)
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
        return map(self._item, self._order[start:end])

    def changes_since(self, older: PersistentMap) -> Iterator[tuple[Any, Any]]:
        """The items written since an older version, at that cost.

        All items if it is no version of this map, or this is not the newest one.
        """
        if older._table is not self._table or self._newer is not None:
            return self.items()
        return map(self._item, list(older._losses()))

    def _item(self, id: Hashable) -> Any:
        item = self._table.get(id)
        return self._losses().get(id, item)

    def _losses(self) -> dict[Hashable, tuple[Any, Any] | None]:
        """Gathers what this version has lost to the newest, so that it is looked for once."""
        version = self._newer
        if version is None:
            return {}
        while version._newer is not None:
            for id, item in list(version._lost.items()):
                self._lost.setdefault(id, item)
            version = version._newer
        self._newer = version
        return self._lost


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
        return tuple([x if x.__class__ in PLAIN else identity(x, nesting + 1) for x in value])
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


OPERATIONS: Final = {  # the fields that each must have
    "read": frozenset(["type", "msg_id", "key"]),
    "write": frozenset(["type", "msg_id", "key", "value"]),
    "cas": frozenset(["type", "msg_id", "key", "from", "to"]),
    "txn": frozenset(["type", "msg_id", "txn"]),
}


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


def micro_operations(op: Body) -> Any:
    """The micro-operations of a transaction. Error 12 if there are others than these three."""
    txn = op.get("txn")
    for each in txn if isinstance(txn, list) else [txn]:
        if not isinstance(each, list) or len(each) != 3 or each[0] not in ("r", "w", "append"):
            raise RPCError.malformed_request(f"not [r, w or append, key, value]: {show(each)}")
    return txn


def only_reads(op: Body) -> bool:
    """Whether an operation changes nothing. Error 12 for a malformed transaction."""
    if op["type"] == "txn":
        return all(f == "r" for f, _, _ in micro_operations(op))
    return bool(op["type"] == "read")


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


def main() -> None:
    """Runs the node that the command line asks for."""
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--unreplicated", action="store_true",
        help="the tutorial's chapter 1: each node has a map of its own, so a two-node test fails")
    add("--reads", choices=("lease", "index", "log"), default="lease",
        help="how a leader makes sure that a read is not stale: by the promises of a majority to "
        "elect nobody else, by asking a majority each time, or by an entry of the log "
        "(default: %(default)s)")
    add("--data-dir", metavar="DIR",
        help="keep the state in a file in this folder, DIR/n0.db for node n0; default: in memory")
    add("--log", choices=("roles", "debug"), default="roles",
        help="what to write to stderr: changes of role and term, or messages between servers, too")
    args = parser.parse_args()
    if args.data_dir == "":
        parser.error("--data-dir needs the name of a folder")
    storage = Storage(args.data_dir) if args.data_dir else None
    debug = args.log == "debug"
    server = Server() if args.unreplicated else Raft(None, args.reads, debug, storage)
    server.node.main()


if __name__ == "__main__":
    main()
