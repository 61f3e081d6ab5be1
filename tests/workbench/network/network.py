"""The network between nodes and clients, with the real Maelstrom's rules (maelstrom.net).

- A message between servers has a random latency. A message to or from a client has none, and
  partitions do not stop it.
- Services are servers that faults do not reach: the network neither cuts, loses nor duplicates a
  message to or from a service. The real Maelstrom has no other way to lose a message, and a
  service cannot know a duplicate, so it would spoil the test of a correct node.
- Each node has one queue, ordered by due time, and one delivery at a time. The network takes the
  first message of the queue. If a partition cuts its link *at that moment*, the message is
  dropped. Otherwise the network waits until the message is due, delivers it, and takes the next
  one. Messages that arrive during that wait, client requests included, stay in the queue, even if
  they are due earlier.
- A node exists from `add_node` on, a service from `add_service` on, and a client from
  `add_client` to `close_client`. After a message
  to an unknown destination the real Maelstrom ignores its sender. Here it is a ProtocolError.
"""

from __future__ import annotations

import codecs
import heapq
import json
import math
import random
import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..simulation.loop import Loop
from ..units import MILLISECOND, SECOND

Message = dict[str, Any]
Grudge = Mapping[str, Collection[str]]  # maps each node to the nodes whose messages it drops
LATER = SECOND  # longest delay of a duplicate
SQUARE = bytes.maketrans(b"{}", b"[]")
FIELDS = {"id", "src", "dest", "body"}  # the keys that a message may have
LONG = 300  # characters of a line in an error text
HAD_INIT = "it had its init_ok"  # the event that closes a client which sent an init
MAX_DEPTH = 100  # nesting of a node's message: the history's writer and checker are recursive


class ProtocolError(Exception):
    """A node has broken the protocol. The text names the rule and quotes the line."""


@dataclass
class Traffic:
    """Counts of messages, as in Maelstrom's `:net`."""

    sent: int = 0
    received: int = 0


@dataclass(frozen=True)
class Latency:
    """Latency of messages between servers: its mean in ms, and its distribution."""

    mean: float
    dist: str

    def draw(self, rng: random.Random) -> int:
        """Draws a latency in ns, rounded down to whole milliseconds as in Maelstrom."""
        if self.dist == "uniform":
            ms = rng.uniform(0, 2 * self.mean)
        elif self.dist == "exponential":
            ms = rng.expovariate(1 / self.mean) if self.mean else 0.0
        else:
            ms = self.mean
        return int(ms) * MILLISECOND


@dataclass
class Inbox:
    """Messages in flight to a node, ordered by due time, then by order of sending."""

    queue: list[tuple[int, int, Message]] = field(default_factory=list)
    delivering: bool = False  # a message has been taken and is not delivered yet


class Network:
    """Delivers messages between nodes and clients.

    - `deliver(node_id, message)` hands a message to a node. Each client registers its receiver.
    - `log(direction, message)` is called for each send and each receipt.
    - `warn(kind, text)` is called for what a node should not do and the real Maelstrom lets pass.
    - `grudges` holds the cut links, by the name of the fault.
    - `loss` is the probability that a message between nodes is lost.
    - `duplicate` is the probability that such a message is sent again, up to a second later.

    With `independent`, each message is delivered when it is due, whatever else is in the queue,
    and a partition is checked on delivery. More messages overtake each other than in Maelstrom.
    """

    def __init__(
        self,
        loop: Loop,
        rng: random.Random,
        latency: Latency,
        deliver: Callable[[str, Message], object],
        log: Callable[[str, Message], object],
        independent: bool = False,
        warn: Callable[[str, str], object] = lambda kind, text: None,
    ) -> None:
        self._loop = loop
        self._rng = rng
        self._latency = latency
        self._deliver = deliver
        self._log = log
        self._warn = warn
        self._independent = independent
        self._inboxes: dict[str, Inbox] = {}
        self._services: dict[str, Callable[[Message], object]] = {}
        self._late: set[str] = set()  # announced nodes that have not started yet
        self._clients: dict[str, Callable[[Message], object]] = {}
        self._closed: dict[str, str] = {}  # each closed client, and the event that closed it
        self._inits: dict[str, str] = {}  # the client that sent a node its last init
        self._messages = 0
        self._queued = 0
        self._silenced: set[str] = set()
        self.grudges: dict[str, Grudge] = {}
        self.loss = 0.0
        self.duplicate = 0.0
        self.between_servers = Traffic()
        self.with_clients = Traffic()

    def add_node(self, node_id: str) -> None:
        """Registers a node whose process was started."""
        self._late.discard(node_id)
        self._inboxes[node_id] = Inbox()

    def expect_node(self, node_id: str) -> None:
        """Announces a node that starts later than others, for the error of a sender to it."""
        self._late.add(node_id)

    def add_service(self, name: str, receive: Callable[[Message], object]) -> None:
        """Registers a service. receive(message) gets each message to it."""
        self._services[name] = receive
        self._inboxes[name] = Inbox()

    def add_client(self, client_id: str, receive: Callable[[Message], object]) -> None:
        """Registers a client. receive(message) gets each message to it."""
        self._clients[client_id] = receive

    def close_client(self, client_id: str, after: str = "its time-out") -> None:
        """Removes a client. `after` completes the error text if a node still answers it."""
        del self._clients[client_id]
        self._closed[client_id] = after

    def from_node(self, node_id: str, line: bytes) -> None:
        """Takes a line of a node's stdout.

        Raises ProtocolError if the line is not a valid message. From then on the network ignores
        that node, like the real Maelstrom.
        """
        if node_id in self._silenced:
            return
        try:
            self.send(self._parse(node_id, line))
        except ProtocolError:
            self._silenced.add(node_id)
            raise

    def send(self, message: Message) -> None:
        """Gives a well-formed message an id, and sends it."""
        src, dest, body = message["src"], message["dest"], message["body"]
        # In the order of Maelstrom's fields (maelstrom.net.message), for a node that needs it.
        message = {"id": self._messages, "src": src, "dest": dest, "body": body}
        self._messages += 1
        servers = self._between_servers(message)
        (self.between_servers if servers else self.with_clients).sent += 1
        if message["body"].get("type") == "init" and not servers:
            self._inits[message["dest"]] = message["src"]
        self._log("send", message)
        if message["dest"] in self._clients:
            self._hand_over(message)
            return
        faulty = servers and not self._of_service(message)
        if faulty and self._happens(self.duplicate):
            later = self._rng.randrange(LATER)
            twin = json.loads(json.dumps(message))  # a copy: receivers may change their message
            self._loop.after(later, partial(self._under_way, twin, servers))
        if not (faulty and self._happens(self.loss)):
            self._under_way(message, servers)

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self._rng.random() < probability

    def _between_servers(self, message: Message) -> bool:
        return message["src"] in self._inboxes and message["dest"] in self._inboxes

    def _of_service(self, message: Message) -> bool:
        return message["src"] in self._services or message["dest"] in self._services

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
        """Delivers from a queue until it has to wait, like a delivery thread of Maelstrom's."""
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
        if receive := self._clients.get(dest) or self._services.get(dest):
            receive(message)
        else:
            self._deliver(dest, message)

    def _parse(self, node_id: str, line: bytes) -> Message:
        try:
            message, rest = _decode(line.decode())
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"{node_id} printed {_not_json(line, error)}") from error
        if rest:
            self._warn(
                f"{node_id} rest",
                f"{node_id} printed more after a message on its line, and the rest was ignored: "
                f"{_excerpt(rest.encode())}\nprint one message a line: end each with a newline",
            )
        deep = nesting(line) > MAX_DEPTH  # too deep to write to the history
        problem = (
            f"it is nested deeper than {MAX_DEPTH}" if deep else self._problem(node_id, message)
        )
        if problem:
            raise ProtocolError(f"{node_id} sent a malformed message: {problem}: {_excerpt(line)}")
        assert isinstance(message, dict)
        if after := self._closed.get(message["dest"]):
            if after == HAD_INIT and message["body"].get("type") == "init_ok":
                raise ProtocolError(
                    f"{node_id} sent init_ok twice for one init: {_excerpt(line)}\nsend it once"
                )
            advice = "reply to each request only once, and before its time-out"
            if after == HAD_INIT:
                advice = (
                    f"a reply goes to the src of its request; {message['dest']} sent only the init"
                )
            raise ProtocolError(
                f"{node_id} answered {message['dest']} after {after}: the real Maelstrom ignores "
                f"{node_id} from then on: {_excerpt(line)}\n{advice}"
            )
        message.pop("id", None)
        if message["src"] != node_id:
            self._warn(
                f"{node_id} src",
                f"{node_id} sent a message as {message['src']}, which skips the network's latency "
                f"and partitions: {_excerpt(line)}\nwrite {_shown(node_id)}, its own name, as src",
            )
        return message

    def _problem(self, node_id: str, message: Any) -> str:
        """Says how a message is malformed; "" if it is well-formed."""
        if not isinstance(message, dict):
            return "it must be a JSON object"
        if missing := [key for key in ("src", "dest", "body") if key not in message]:
            are = "is" if len(missing) == 1 else "are"
            why = f"{_fields(missing)} {are} missing from the message"
            belong = '"type" and "in_reply_to" belong in its body'
            return f"{why}; {belong}" if "type" in message else why
        src, dest, id = message["src"], message["dest"], message.get("id", 0)
        if not isinstance(src, str):
            return f"src must be a string, not {_shown(src)}"
        if not isinstance(dest, str):
            return f"dest must be a string, not {_shown(dest)}"
        if not isinstance(message["body"], dict):
            return f"body must be an object, not {_shown(message['body'])[:LONG]}"
        if not message.keys() <= FIELDS:
            extra = _fields(sorted(message.keys() - FIELDS))
            return f"remove {extra} from the message, beside its body"
        if type(id) is not int:
            return f"id must be an integer, not {_shown(id)}"
        if src != node_id and src not in self._inboxes and src not in self._clients:
            return f"src must be {_shown(node_id)}, the sender's own name, not {_shown(src)}"
        if not (dest in self._inboxes or dest in self._clients or dest in self._closed):
            return self._nobody(node_id, dest, message["body"])
        return ""

    def _nobody(self, node_id: str, dest: str, body: dict[str, Any]) -> str:
        """Says that a message's dest does not exist, and what it may be."""
        if "in_reply_to" not in body:
            names = ", ".join(sorted(self._inboxes, key=lambda name: (len(name), name)))
            if dest in self._late:
                return (
                    f"{dest} has not started yet. As in the real Maelstrom the first node starts "
                    "last: wait a second after init before a message to it"
                )
            return (
                f"there is no node or client {dest[:LONG]}; the nodes and services of this run are "
                f"{names}"
            )
        rule = "a reply goes to the src of its request"
        if body.get("type") == "init_ok" and node_id in self._inits:
            rule += f"; the src of the init was {_shown(self._inits[node_id])}"
        return f"dest must be a node or client of this run, not {_shown(dest)}; {rule}"


def _fields(names: list[str]) -> str:
    """Names fields, in a sentence."""
    *most, last = [_shown(name) for name in names]
    return f"the fields {', '.join(most)} and {last}" if most else f"the field {last}"


def _excerpt(line: bytes) -> str:
    """Returns the beginning of a line, for an error text."""
    text = line.decode(errors="replace")
    return text if len(text) <= LONG else text[:LONG] + "..."


OWN = (
    "JSON has no {what}; where the workload asks for the value of the request, "
    "send that value unchanged"
)
EMPTY = "remove the bare print(), or one of two newlines after a message"
ONE = "print one message a line on stdout, and everything else on stderr"


def _not_json(line: bytes, error: Exception) -> str:
    """Says why a line on stdout is no message, and what to print instead."""
    if not line.strip():
        return f"an empty line on stdout\n{EMPTY}"
    start = line.lstrip()
    why, advice = str(error), OWN.format(what=f"{str(error).split()[0]}")
    if isinstance(error, UnicodeDecodeError):
        why = f"byte {error.start + 1}, 0x{line[error.start]:02x}, is not UTF-8"
        advice = "print messages in UTF-8"
    elif line.startswith(codecs.BOM_UTF8):
        why = "it begins with a byte order mark (BOM)"
        advice = "print messages in UTF-8 without that mark (in Python utf-8, not utf-8-sig)"
    elif isinstance(error, RecursionError):
        why, advice = "it is nested too deeply", ONE
    elif str(error).startswith("Exceeds the limit"):  # of Python, for the digits of an integer
        why = f"this reads no integer of more than {sys.get_int_max_str_digits():,} digits"
        advice = "send a smaller integer, or a string"
    elif isinstance(error, json.JSONDecodeError):
        if start.startswith(b"{'"):
            why = "its strings are in single quotes, as in a printed Python dict"
            advice = "print json.dumps(message)"
        elif start[:1] in b"{[" and _ends_early(error):
            why = "it ends in the middle of the JSON"
            advice = "print one message a line, without line breaks in it (no indent)"
        else:
            why = f"{error.msg} at character {error.pos + 1}" if start[:1] in b"{[" else ""
            advice = ONE
    reason = f" ({why})" if why else ""
    return f"a line on stdout that is not JSON{reason}: {_excerpt(line)}\n{advice}"


def _ends_early(error: json.JSONDecodeError) -> bool:
    """Tells whether a JSON text may be the beginning of a longer one."""
    return error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string")


def _shown(value: object) -> str:
    """Returns a part of a message as JSON, for an error text."""
    return json.dumps(value, ensure_ascii=False)


def nesting(line: bytes) -> int:
    """Counts how deep the objects and arrays of a JSON text are nested.

    The result is exact up to MAX_DEPTH, and MAX_DEPTH + 1 for deeper texts. A text with at most
    MAX_DEPTH brackets gives 0, without counting.
    """
    if line.count(b"{") + line.count(b"[") <= MAX_DEPTH:
        return 0
    left = _only(b'[]"', line).replace(b'""', b"")
    if b'"' in left or b"\\" in line:  # a string may contain brackets
        left = _only(b"[]", re.sub(rb'"(?:[^"\\]|\\.)*"', b"", line))
    depth = 0
    while left and depth <= MAX_DEPTH:
        depth += 1
        left = left.replace(b"[]", b"")
    return depth


def _only(kept: bytes, line: bytes) -> bytes:
    """Turns braces into brackets, and keeps only these bytes."""
    return line.translate(SQUARE, bytes(set(range(256)) - {*kept, *b"{}"}))


def _finite(text: str) -> float:
    if math.isfinite(number := float(text)):
        return number
    raise ValueError(f"{text[:20]} is not a finite number")


# Made once: making a decoder is slow.
_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)


def _decode(text: str) -> tuple[Any, str]:
    """Decodes the JSON value at the beginning of a text, and returns what follows it.

    Raises ValueError or RecursionError if it is not JSON. Maelstrom, too, parses only one value a
    line (maelstrom.process/parse-msg).
    """
    value, end = _DECODER.raw_decode(text.lstrip())
    return value, text.lstrip()[end:].strip()
