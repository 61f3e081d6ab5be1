"""The network between nodes and clients, with the real Maelstrom's rules (doc/protocol.md).

- A message to or from a client is delivered at once, and no partition stops it.
- A message between servers takes a drawn latency, so with most distributions one overtakes
  another.
- A partition drops a message at the moment of its delivery: one sent before and due inside is
  lost, one sent inside and due after arrives.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .loop import SECOND, Loop

Message = dict[str, Any]
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
        """A latency in nanoseconds."""
        if self.dist == "uniform":
            ms = rng.uniform(0, 2 * self.mean)
        elif self.dist == "exponential":
            ms = rng.expovariate(1 / self.mean) if self.mean else 0.0
        else:
            ms = self.mean
        return int(ms * SECOND / 1000)


class Network:
    """Takes messages from nodes and clients, and delivers them.

    `deliver(node_id, message)` hands one to a node; clients register their own receiver. `grudge`
    names for each node those whose messages it drops. `log(direction, message)` sees each.
    """

    def __init__(
        self,
        loop: Loop,
        rng: random.Random,
        node_ids: Collection[str],
        latency: Latency,
        deliver: Callable[[str, Message], object],
        log: Callable[[str, Message], object],
    ) -> None:
        self._loop = loop
        self._rng = rng
        self._node_ids = frozenset(node_ids)
        self._latency = latency
        self._deliver = deliver
        self._log = log
        self._clients: dict[str, Callable[[Message], object]] = {}
        self._messages = 0
        self._silenced: set[str] = set()
        self.grudge: Mapping[str, Collection[str]] = {}
        self.between_servers = Traffic()
        self.with_clients = Traffic()

    def add_client(self, client_id: str, receive: Callable[[Message], object]) -> None:
        """Makes a client known: receive(message) gets what is sent to it."""
        self._clients[client_id] = receive

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
        servers = message["src"] in self._node_ids and message["dest"] in self._node_ids
        (self.between_servers if servers else self.with_clients).sent += 1
        self._log("send", message)
        delay = self._latency.draw(self._rng) if servers else 0
        if delay:
            self._loop.after(delay, lambda: self._receive(message))
        else:
            self._receive(message)

    def _receive(self, message: Message) -> None:
        src, dest = message["src"], message["dest"]
        servers = src in self._node_ids and dest in self._node_ids
        if servers and src in self.grudge.get(dest, ()):
            return
        (self.between_servers if servers else self.with_clients).received += 1
        self._log("recv", message)
        if dest in self._node_ids:
            self._deliver(dest, message)
        else:
            self._clients[dest](message)

    def _parse(self, node_id: str, line: bytes) -> Message:
        text = line.decode(errors="replace")
        shown = text if len(text) <= 300 else text[:300] + "..."
        try:
            message = json.loads(line, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise ProtocolError(
                f"{node_id} printed a line on stdout that is not JSON ({error}): {shown}\n"
                "stdout is for messages alone; print everything else to stderr"
            ) from error
        deep = nesting(line) > MAX_DEPTH  # it could not be written to the history
        problem = (
            f"it is nested deeper than {MAX_DEPTH}" if deep else self._problem(node_id, message)
        )
        if problem:
            raise ProtocolError(f"{node_id} sent a malformed message: {problem}: {shown}")
        assert isinstance(message, dict)
        message.pop("id", None)
        return message

    def _problem(self, node_id: str, message: Any) -> str:
        """What is wrong with a message; empty if nothing is."""
        if not isinstance(message, dict):
            return "it must be a JSON object"
        for key in ("src", "dest"):
            if not isinstance(message.get(key), str):
                return f"{key} must be a string, not {message.get(key)!r}"
        if not isinstance(message.get("body"), dict):
            return "body must be an object"
        if extra := message.keys() - {"id", "src", "dest", "body"}:
            return f"only id, src, dest and body may be there, not {', '.join(sorted(extra))}"
        if message["src"] != node_id:
            return f"its src is {message['src']!r}; a node sends as itself"
        if message["dest"] not in self._node_ids and message["dest"] not in self._clients:
            return f"there is no node or client {message['dest']!r}"
        return ""


def nesting(line: bytes) -> int:
    """How deep the objects and arrays of a JSON text are nested; 0 if that is clearly no harm."""
    if line.count(b"{") + line.count(b"[") <= MAX_DEPTH:
        return 0
    depth = deepest = 0
    for opener in re.findall(rb'"(?:[^"\\]|\\.)*"|[][{}]', line):
        depth += (opener in b"[{") - (opener in b"]}")
        deepest = max(deepest, depth)
    return deepest


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")
