"""Checks Raft's safety properties (the paper's figure 3) after each turn of a node.

A turn is one step of a node: it handles messages or timers, then sends. The check sees all nodes at
once, so it finds a violation even before a client could notice it. It compares only a node's
changes in its last turn with earlier states of all nodes, so its cost is proportional to the
changes.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from node import Body, encode

from ..units import SECOND
from .loop import Loop
from .raft_words import told
from .simulated_cluster import Machine, Watcher

Id = tuple[str, int]  # identifies an operation: client, msg_id
NO_VALUE = object()
EVENTS = 20  # last events shown when a property is violated
MAX_WORDS = 200  # characters shown of an event
LOOKED_AT = (  # public attributes of raft.py's Raft that the checks read
    "term", "voted_for", "role", "log", "commit_index", "last_applied", "state_machine",
    "storage",
)  # fmt: skip


class Broken(Exception):
    """A property is violated."""


@dataclass
class Seen:
    """A node's state after its last turn."""

    raft: Any
    term: int = 0
    voted_for: str | None = None
    leads: int = 0  # term that it leads; 0 if it is not leader
    commit_index: int = 0
    committed: int = 0  # its highest commit_index; with a disk, also of earlier incarnations
    last_applied: int = 0
    log: list[Any] = field(default_factory=list)  # all entries from 1 on, compacted ones included
    start: int = 0  # last compacted index: the node itself has the entries after it
    last_look: tuple[Any, ...] = ()  # the attributes that changed() compared last
    torn: int = 0  # Machine.torn when this process began
    wiped: int = 0  # Machine.wiped when this process began
    # Logs lost in kills without a disk, or with the node's files.
    forgotten: list[list[Any]] = field(default_factory=list)

    def had(self, index: int, entry: Any) -> bool:
        """Tells whether the node has this entry, or had it in an incarnation without a disk.

        The entry may have counted for a majority in that incarnation.
        """
        return any(entry in log[index - 1 : index] for log in (self.log, *self.forgotten))

    @property
    def stable(self) -> int:
        """Last index that survives a kill.

        A leader may send entries before they are on its own disk, and counts itself only then
        (thesis 10.2.1). So the node's own `log.stable` is used.
        """
        return min(len(self.log), int(self.raft.log.stable))

    def changed(self) -> bool:
        """Tells whether the node has changed since the last call. Most turns change nothing."""
        raft, log = self.raft, self.raft.log
        look = (
            raft.term, raft.voted_for, raft.role, raft.commit_index, raft.last_applied,
            log.size, id(log.last),
        )  # fmt: skip
        self.last_look, before = look, self.last_look
        return look != before


class Reference:
    """The state machine that results from the committed log.

    An operation changes the map as the program's own state machine class says. The checks add a
    rule: a write or cas takes effect once, and never after a later one of the same client.
    """

    def __init__(self, raft: Any) -> None:
        self.entries: list[Any] = [None]  # by index
        self.index_of: dict[Id, int] = {}  # index at which each operation took effect
        self._map = type(raft.state_machine)()
        self._last: dict[str, int] = {}  # msg_id of each client's last write or cas
        # By key, as JSON: the indexes that changed it, and its value after each of them.
        self._versions: dict[str, tuple[list[int], list[Any]]] = {}

    @property
    def size(self) -> int:
        return len(self.entries) - 1

    def commit(self, entry: Any) -> None:
        """Appends and applies the next committed entry."""
        self.entries.append(entry)
        for client, msg_id, body in entry.operations if entry.owner else ():
            if not _only_reads(body):
                if msg_id <= self._last.get(client, -1):
                    continue
                self._last[client] = msg_id
            self.index_of[client, msg_id] = self.size
            self._map, _ = self._map.apply(body)
            for key in _keys(body):
                indexes, values = self._versions.setdefault(encode(key), ([], []))
                indexes.append(self.size)
                values.append(self._map.map.get(key, NO_VALUE))

    def value(self, key: Any, index: int) -> Any:
        """Returns the key's value once all entries up to `index` are applied, or NO_VALUE."""
        indexes, values = self._versions.get(encode(key), ([], []))
        place = bisect_right(indexes, index)
        return values[place - 1] if place else NO_VALUE


class Invariants(Watcher):
    """Checks the nodes of a simulation, and reports the first violated property.

    It reads the public attributes LOOKED_AT of raft.py's Raft. A program that lacks one of them is
    not checked.
    """

    def __init__(self, loop: Loop, seed: int, tell: Callable[[str], object]) -> None:
        self._loop = loop
        self._seed = seed
        self._tell = tell
        self._nodes: dict[str, Seen] = {}
        self._leaders: dict[int, str] = {}  # by term
        self._newest = 0  # the highest term that had a leader
        # By index and term: the entry, the term of the previous entry, and the first node with it.
        self._entries: dict[tuple[int, int], tuple[Any, int, str]] = {}
        self._reference: Reference | None = None
        self._acknowledged = 0  # highest index whose effect was acknowledged to a client
        self._asked: dict[Id, int] = {}  # by read: _acknowledged when its request arrived
        self._turns: deque[tuple[int, str, list[bytes]]] = deque(maxlen=EVENTS)
        self._done = False

    def arrived(self, machine: Machine, message: dict[str, Any]) -> None:
        body = message["body"]
        if _only_reads(body):
            self._asked[message["src"], body["msg_id"]] = self._acknowledged

    def turned(self, machine: Machine, lines: list[bytes]) -> None:
        if self._done:
            return
        node_id = machine.node_id
        if lines:
            self._turns.append((self._loop.now(), node_id, lines))
        try:
            if not (seen := self._seen(machine)):
                return
            if seen.changed():
                self._check_term(node_id, seen)
                self._check_log(node_id, seen)
                self._check_leader(node_id, seen)
                self._check_commit(node_id, seen)
                self._check_state(node_id, seen)
            for line in lines:
                if b'"in_reply_to"' in line:
                    self._check_answer(node_id, seen, json.loads(line.decode()))
        except Broken as broken:
            self._done = True
            at = self._loop.run_time() / SECOND
            before = "\n".join(["Before that:", *self._events()])
            self._tell(f"{broken} (--seed {self._seed}, at {at:.6f} s)\n{before}")

    def _events(self) -> list[str]:
        """Lists the last messages, the newest last."""
        events: dict[tuple[int, str, str], list[str]] = {}  # by time, source and text: receivers
        for moment, node_id, lines in self._turns:
            for message in map(json.loads, lines):
                if not (said := told(message["body"])):
                    continue
                said = said if len(said) <= MAX_WORDS else said[:MAX_WORDS] + "..."
                events.setdefault((moment, node_id, said), []).append(message["dest"])
        start = self._loop.run_start or 0
        return [
            f"    {(moment - start) / SECOND:.6f}  {node_id} -> {' '.join(to)}  {said}"
            for (moment, node_id, said), to in events.items()
        ][-EVENTS:]

    def _seen(self, machine: Machine) -> Seen | None:
        before, node = self._nodes.get(machine.node_id), machine.node
        if before and before.raft.node is node:
            return before
        if not node or (before and not node.node_id):
            return None  # a restarted node may read its disk only after init
        if not all(hasattr(node.server, name) for name in LOOKED_AT):
            return None
        seen = self._nodes[machine.node_id] = Seen(
            node.server, torn=machine.torn, wiped=machine.wiped
        )
        self._reference = self._reference or Reference(seen.raft)
        if before and node.server.storage.durable and before.wiped == seen.wiped:
            seen.forgotten = before.forgotten
            self._check_kept(machine.node_id, before, seen)
        elif before:
            seen.forgotten = [*before.forgotten, before.log]
        return seen

    def _check_kept(self, node_id: str, before: Seen, seen: Seen) -> None:
        """Checks that a restarted node has all that was stored before it sent messages (figure 2).

        Its first turn may already have replaced uncommitted entries. _check_term checks that its
        term and vote have not gone back.
        """
        seen.term, seen.voted_for = before.term, before.voted_for
        seen.committed = before.committed
        log, reference = seen.raft.log, self._reference
        assert reference
        seen.start = min(log.start, reference.size)
        seen.log = reference.entries[1 : seen.start + 1]
        for index, entry in enumerate(before.log[seen.start : before.stable], seen.start + 1):
            if index > log.size or log[index] != entry:
                if index <= before.committed:
                    raise Broken(f"committed entries stay: {node_id} lost entry {index}, {entry}")
                if index > log.size and seen.torn == before.torn:
                    raise Broken(
                        f"stable storage: {node_id} restarted without entry {index}, {entry}"
                    )
                break
            seen.log.append(log[index])

    def _check_term(self, node_id: str, seen: Seen) -> None:
        """Checks that terms never decrease, and that there is one vote per term (5.1 and 5.2)."""
        raft = seen.raft
        if raft.term < seen.term:
            raise Broken(f"terms: {node_id} went back from term {seen.term} to {raft.term}")
        if raft.term > seen.term:
            seen.term, seen.voted_for = raft.term, None
        if seen.voted_for not in (None, raft.voted_for):
            raise Broken(
                f"one vote: in term {seen.term} {node_id} voted for {seen.voted_for}, "
                f"then for {raft.voted_for}"
            )
        seen.voted_for = raft.voted_for

    def _check_log(self, node_id: str, seen: Seen) -> None:
        """Checks log matching (5.3), leader append-only, and that committed entries stay."""
        log, mine, reference = seen.raft.log, seen.log, self._reference
        assert reference
        if log.start != seen.start:  # it compacted its log, or installed a snapshot
            committed = reference.entries[log.start] if log.start <= reference.size else None
            if not committed or committed.term != log[log.start].term:
                raise Broken(
                    f"snapshot: {node_id}'s log begins after entry {log.start} of term "
                    f"{log[log.start].term}, where {committed or 'nothing'} is committed"
                )
            mine[: log.start] = reference.entries[1 : log.start + 1]
            seen.start = log.start
        kept = min(len(mine), log.size)
        while kept > log.start and mine[kept - 1] is not log[kept]:  # replaced: another object
            kept -= 1
        if kept < len(mine):
            lost = f"entry {kept + 1}, {mine[kept]}"
            if kept < seen.committed:
                raise Broken(f"committed entries stay: {node_id} took {lost} out of its log")
            if seen.leads == seen.raft.term:
                raise Broken(f"leader append-only: {node_id} took {lost} out of its log")
            del mine[kept:]
        for index in range(kept + 1, log.size + 1):
            entry, previous = log[index], log[index - 1].term
            known, known_previous, first = self._entries.setdefault(
                (index, entry.term), (entry, previous, node_id)
            )
            if known != entry or known_previous != previous:
                raise Broken(
                    f"log matching: entry {index} is {known} after term {known_previous} for "
                    f"{first}, and {entry} after term {previous} for {node_id}"
                )
            mine.append(entry)

    def _check_leader(self, node_id: str, seen: Seen) -> None:
        """Checks election safety (5.2), and leader completeness (5.4) of a new leader."""
        raft = seen.raft
        if raft.role != "leader":
            seen.leads = 0
        elif seen.leads != raft.term:
            seen.leads = raft.term
            first = self._leaders.setdefault(raft.term, node_id)
            if first != node_id:
                raise Broken(f"election safety: {first} and {node_id} both led term {raft.term}")
            if raft.term > self._newest:
                self._newest = raft.term
                self._check_completeness()

    def _check_completeness(self) -> None:
        """Checks that the leader of the highest term has the last committed entry.

        By log matching it then has all committed entries.
        """
        assert self._reference
        leader = self._leaders.get(self._newest)
        if leader and (index := self._reference.size):
            seen, entry = self._nodes[leader], self._reference.entries[index]
            if not seen.had(index, entry):
                has = seen.log[index - 1] if len(seen.log) >= index else "nothing"
                raise Broken(
                    f"leader completeness: {leader} leads term {self._newest} and has {has} at "
                    f"{index}, where {entry} is committed"
                )

    def _check_commit(self, node_id: str, seen: Seen) -> None:
        """Checks state machine safety (5.4.3), and that a majority has newly committed entries."""
        raft, reference = seen.raft, self._reference
        assert reference
        before, now = seen.commit_index, raft.commit_index
        if not before <= now <= raft.log.size:
            raise Broken(
                f"commit index: {node_id}'s went from {before} to {now}, but its log has "
                f"{raft.log.size} entries"
            )
        seen.commit_index, seen.committed = now, max(now, seen.committed)
        known = min(now, reference.size)
        for index in range(before + 1, known + 1):
            if seen.log[index - 1] != reference.entries[index]:
                raise Broken(
                    f"state machine safety: {node_id} commits {seen.log[index - 1]} at {index}, "
                    f"where {reference.entries[index]} is committed"
                )
        if now > known:
            for entry in seen.log[known:now]:
                reference.commit(entry)
            entry = seen.log[now - 1]
            have = [
                id
                for id, other in self._nodes.items()
                if other.had(now, entry) and (now <= other.stable or other.forgotten)
            ]
            if 2 * len(have) <= len(raft.node.node_ids):
                raise Broken(
                    f"commit: {node_id} commits {entry} at {now}, but only "
                    f"{' '.join(have)} of {len(raft.node.node_ids)} nodes have it"
                )
            self._check_completeness()

    def _check_state(self, node_id: str, seen: Seen) -> None:
        """Checks that applied entries are committed, and took effect on the map once (8)."""
        raft, reference = seen.raft, self._reference
        assert reference
        before, now = seen.last_applied, raft.last_applied
        if not before <= now <= raft.commit_index:
            raise Broken(
                f"applied: {node_id}'s last_applied went from {before} to {now}, "
                f"but its commit index is {raft.commit_index}"
            )
        seen.last_applied = now
        bodies = [
            body
            for entry in seen.log[before:now]
            if entry.owner
            for _, _, body in entry.operations
        ]
        for key in chain.from_iterable(map(_keys, bodies)):
            value, wanted = raft.state_machine.map.get(key, NO_VALUE), reference.value(key, now)
            if value != wanted:
                raise Broken(
                    f"at most once: with entries up to {now} applied, key {key} holds "
                    f"{_shown(value)} on {node_id}, but must hold {_shown(wanted)}"
                )

    def _check_answer(self, node_id: str, seen: Seen, message: dict[str, Any]) -> None:
        """Checks that a read sees all writes acknowledged before its request (thesis 6.4)."""
        assert self._reference
        body = message["body"]
        id = message["dest"], body["in_reply_to"]
        index = self._reference.index_of.get(id)
        if body["type"] == "error" and body["code"] not in (20, 22):
            return
        if (asked := self._asked.pop(id, None)) is not None:
            index = index or seen.last_applied
            if index < asked:
                raise Broken(
                    f"no stale read: {node_id}, with entries up to {index} applied, answered "
                    f"{id[0]} {body}, but entry {asked} was acknowledged before the request"
                )
        if index:
            self._acknowledged = max(self._acknowledged, index)


def _only_reads(body: Body) -> bool:
    """Tells whether a client's request changes nothing."""
    match body:
        case {"type": "txn", "txn": [*micro_operations]}:
            return all(each[:1] == ["r"] for each in micro_operations if isinstance(each, list))
    return body.get("type") == "read"


def _keys(body: Body) -> list[Any]:
    """Lists the keys that a client's request reads or changes."""
    return [key for _, key, _ in body["txn"]] if body["type"] == "txn" else [body["key"]]


def _shown(value: Any) -> str:
    return "nothing" if value is NO_VALUE else json.dumps(value)
