"""The network between nodes and clients, with the real Maelstrom's rules (maelstrom.net).

- A message between servers takes a drawn latency. One to or from a client takes none, and no
  partition stops it.
- Each node has one queue, ordered by the time at which a message is due, and one delivery at a
  time: the first message is taken, dropped if a partition cuts it *then*, else waited for and
  delivered, and only then the next is taken. So what comes meanwhile waits, even if it is due
  earlier, even a client's request.
- A node exists once it was added, a client until it is closed. What is sent to another one
  makes the real Maelstrom deaf to its sender; here it is a broken rule.
"""

from __future__ import annotations

import heapq
import json
import math
import random
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..simulation.loop import Loop
from ..units import MILLISECOND, SECOND

Message = dict[str, Any]
Grudge = Mapping[str, Collection[str]]  # a node, and the nodes whose messages it drops
LATER = SECOND  # a duplicate is sent up to so much later
SQUARE = bytes.maketrans(b"{}", b"[]")
FIELDS = {"id", "src", "dest", "body"}  # of a message
SERVICES = {"lin-kv", "lin-tso", "lww-kv", "seq-kv"}
MAX_DEPTH = 100  # of a message from a node: what writes and judges a history is recursive


class ProtocolError(Exception):
    """A node has broken the protocol; the text says which rule, and how."""


@dataclass
class Traffic:
    """Counts of messages, as in Maelstrom's `:net`."""

    sent: int = 0
    received: int = 0


@dataclass(frozen=True)
class Latency:
    """How long messages between servers take: mean in ms, and the kind of distribution."""

    mean: float
    dist: str

    def draw(self, rng: random.Random) -> int:
        """A latency in nanoseconds: whole milliseconds, like the real one's."""
        if self.dist == "uniform":
            ms = rng.uniform(0, 2 * self.mean)
        elif self.dist == "exponential":
            ms = rng.expovariate(1 / self.mean) if self.mean else 0.0
        else:
            ms = self.mean
        return int(ms) * MILLISECOND


@dataclass
class Inbox:
    """What is under way to a node, by due time and order of sending."""

    queue: list[tuple[int, int, Message]] = field(default_factory=list)
    delivering: bool = False  # a message is waited for, or handed over


class Network:
    """Takes messages from nodes and clients, and delivers them.

    `deliver(node_id, message)` hands one to a node; clients register their own receiver.
    `log(direction, message)` sees each. `grudges` are the cuts of the moment, by name of the
    fault; `loss` and `duplicate` the probabilities that a message between servers is lost, or
    sent a second time, up to a second later.

    With `independent` each message is delivered by itself, when it is due, and partitions are
    looked at on delivery: more of them overtake each other than in the real Maelstrom.
    """

    def __init__(
        self,
        loop: Loop,
        rng: random.Random,
        latency: Latency,
        deliver: Callable[[str, Message], object],
        log: Callable[[str, Message], object],
        independent: bool = False,
    ) -> None:
        self._loop = loop
        self._rng = rng
        self._latency = latency
        self._deliver = deliver
        self._log = log
        self._independent = independent
        self._inboxes: dict[str, Inbox] = {}
        self._clients: dict[str, Callable[[Message], object]] = {}
        self._closed: dict[str, str] = {}  # clients that were, and after what they were closed
        self._messages = 0
        self._queued = 0
        self._silenced: set[str] = set()
        self.grudges: dict[str, Grudge] = {}
        self.loss = 0.0
        self.duplicate = 0.0
        self.between_servers = Traffic()
        self.with_clients = Traffic()

    def add_node(self, node_id: str) -> None:
        """Makes a node known, whose process was started."""
        self._inboxes[node_id] = Inbox()

    def add_client(self, client_id: str, receive: Callable[[Message], object]) -> None:
        """Makes a client known: receive(message) gets what is sent to it."""
        self._clients[client_id] = receive

    def close_client(self, client_id: str, after: str = "its time-out") -> None:
        """From now on the client does not exist; `after` is for the error of who answers it."""
        del self._clients[client_id]
        self._closed[client_id] = after

    def from_node(self, node_id: str, line: bytes) -> None:
        """Takes a line of a node's stdout.

        ProtocolError for one that is no message; like the real Maelstrom, the network takes
        nothing from that node any more.
        """
        if node_id in self._silenced:
            return
        try:
            self.send(self._parse(node_id, line))
        except ProtocolError:
            self._silenced.add(node_id)
            raise

    def send(self, message: Message) -> None:
        """Sends a message that is well-formed; gives it an id."""
        message = {"id": self._messages, **message}
        self._messages += 1
        servers = self._between_servers(message)
        (self.between_servers if servers else self.with_clients).sent += 1
        self._log("send", message)
        if message["dest"] in self._clients:
            self._hand_over(message)
            return
        if servers and self._happens(self.duplicate):
            later = self._rng.randrange(LATER)
            twin = json.loads(json.dumps(message))  # what is delivered is the receiver's own
            self._loop.after(later, partial(self._under_way, twin, servers))
        if not (servers and self._happens(self.loss)):
            self._under_way(message, servers)

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self._rng.random() < probability

    def _between_servers(self, message: Message) -> bool:
        return message["src"] in self._inboxes and message["dest"] in self._inboxes

    def _under_way(self, message: Message, servers: bool) -> None:
        due = self._loop.now() + (self._latency.draw(self._rng) if servers else 0)
        if self._independent:
            self._loop.at(due, partial(self._arrive, message))
            return
        inbox = self._inboxes[message["dest"]]
        self._queued += 1
        heapq.heappush(inbox.queue, (due, self._queued, message))
        if not inbox.delivering:
            self._deliver_queue(inbox)

    def _deliver_queue(self, inbox: Inbox) -> None:
        """What a node's delivery thread does in the real Maelstrom, until it has to sleep."""
        inbox.delivering = True
        while inbox.queue:
            due, _, message = heapq.heappop(inbox.queue)
            if self._is_cut(message):
                continue
            if due > self._loop.now():
                self._loop.at(due, partial(self._wake, inbox, message))
                return
            self._hand_over(message)
        inbox.delivering = False

    def _wake(self, inbox: Inbox, message: Message) -> None:
        self._hand_over(message)
        self._deliver_queue(inbox)

    def _arrive(self, message: Message) -> None:
        if not self._is_cut(message):
            self._hand_over(message)

    def _is_cut(self, message: Message) -> bool:
        for grudge in self.grudges.values():
            if message["src"] in grudge.get(message["dest"], ()):
                return True
        return False

    def _hand_over(self, message: Message) -> None:
        servers = self._between_servers(message)
        (self.between_servers if servers else self.with_clients).received += 1
        self._log("recv", message)
        dest = message["dest"]
        if dest in self._inboxes:
            self._deliver(dest, message)
        else:
            self._clients[dest](message)

    def _parse(self, node_id: str, line: bytes) -> Message:
        try:
            message = _decode(line.decode())
        except (ValueError, RecursionError) as error:
            raise ProtocolError(
                f"{node_id} printed a line on stdout that is not JSON ({error}): {_excerpt(line)}\n"
                "stdout is for messages alone; print everything else to stderr"
            ) from error
        deep = nesting(line) > MAX_DEPTH  # it could not be written to the history
        problem = (
            f"it is nested deeper than {MAX_DEPTH}" if deep else self._problem(node_id, message)
        )
        if problem:
            raise ProtocolError(f"{node_id} sent a malformed message: {problem}: {_excerpt(line)}")
        assert isinstance(message, dict)
        if after := self._closed.get(message["dest"]):
            raise ProtocolError(
                f"{node_id} answered {message['dest']} after {after}: the real Maelstrom hears "
                f"nothing of {node_id} from then on: {_excerpt(line)}"
            )
        message.pop("id", None)
        return message

    def _problem(self, node_id: str, message: Any) -> str:
        """What is wrong with a message; empty if nothing is."""
        if not isinstance(message, dict):
            return "it must be a JSON object"
        src, dest, id = message.get("src"), message.get("dest"), message.get("id", 0)
        if not isinstance(src, str):
            return f"src must be a string, not {_shown(src)}"
        if not isinstance(dest, str):
            return f"dest must be a string, not {_shown(dest)}"
        if not isinstance(message.get("body"), dict):
            return "body must be an object"
        if not message.keys() <= FIELDS:
            extra = ", ".join(sorted(message.keys() - FIELDS))
            return f"only id, src, dest and body may be there, not {extra}"
        if type(id) is not int:
            return f"id must be an integer, not {_shown(id)}"
        if src != node_id:
            return f"its src is {_shown(src)}; a node sends as itself"
        if dest in SERVICES:
            return f"the real Maelstrom has a service {dest}, this workbench has none"
        if not (dest in self._inboxes or dest in self._clients or dest in self._closed):
            return f"there is no node or client {_shown(dest)}"
        return ""


def _excerpt(line: bytes) -> str:
    """The beginning of a line, for people."""
    text = line.decode(errors="replace")
    return text if len(text) <= 300 else text[:300] + "..."


def _shown(value: object) -> str:
    """A part of a message, for people."""
    return json.dumps(value, ensure_ascii=False)


def nesting(line: bytes) -> int:
    """How deep the objects and arrays of a JSON text are nested; 0 if that is clearly no harm.

    It is more than MAX_DEPTH, and not exact, if they are nested deeper than that.
    """
    if line.count(b"{") + line.count(b"[") <= MAX_DEPTH:
        return 0
    left = _only(b'[]"', line).replace(b'""', b"")
    if b'"' in left or b"\\" in line:  # there may be brackets within a string
        left = _only(b"[]", re.sub(rb'"(?:[^"\\]|\\.)*"', b"", line))
    depth = 0
    while left and depth <= MAX_DEPTH:
        depth += 1
        left = left.replace(b"[]", b"")
    return depth


def _only(kept: bytes, line: bytes) -> bytes:
    """Only these bytes of it, when braces have become brackets."""
    return line.translate(SQUARE, bytes(set(range(256)) - {*kept, *b"{}"}))


def _finite(text: str) -> float:
    if math.isfinite(number := float(text)):
        return number
    raise ValueError(f"{text[:20]} is out of range")  # nor could it be handed on as JSON


# To make one takes its time.
_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)


def _decode(text: str) -> Any:
    """A JSON text. ValueError or RecursionError if it is none."""
    try:
        value, end = _DECODER.scan_once(text, 0)  # type: ignore[attr-defined]
        if end == len(text):
            return value
    except StopIteration:
        pass
    return _DECODER.decode(text)  # there is space around it, or something wrong
