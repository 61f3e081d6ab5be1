#!/usr/bin/env python3
"""Keeps logs in the service lin-kv. Each offset of a log is a key there, which is written once.

    ./maelstrom test -w kafka --bin tests/nodes/kafka.py --node-count 3 --time-limit 10 --rate 50

To append a message, a node creates the first free offset by a cas, which fails if another node was
faster. So a log has no gaps, and a node may remember all that it has read. A request that gets no
answer from the service gets none from the node.

With the word `lose` a node acknowledges some messages without keeping them. With `reuse` it writes
some messages over older ones. With `skip` some polls leave a message out.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from node import Action, Body, Message, Node

STORE = "lin-kv"
RARELY = 5  # only each fifth chance of a fault is taken


class Kafka:
    """A node that remembers the beginning of each log."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.chances = count(1)
        self.node = Node()
        # By key: the known entries of its log, each [message], or [] for a lost message.
        self.logs: dict[str, list[list[Any]]] = defaultdict(list)
        self.node.on("send", self.send)
        self.node.on("poll", self.poll)
        self.node.on("commit_offsets", self.commit_offsets)
        self.node.on("list_committed_offsets", self.list_committed_offsets)

    def send(self, msg: Message) -> None:
        """Appends a message to a log, behind all entries that this node knows."""
        key, log = msg["body"]["key"], self.logs[msg["body"]["key"]]
        offset, old, new = len(log), None, [msg["body"]["msg"]]
        if self.strikes("lose"):
            new = []
        if log and self.strikes("reuse"):
            offset, old = len(log) - 1, log[-1]

        def done(reply: Body) -> None:
            if reply["type"] == "cas_ok":
                self.node.reply(msg, {"type": "send_ok", "offset": offset})
            else:
                self.catch_up(key, lambda: self.send(msg))

        body = {"type": "cas", "key": entry(key, offset), "from": old, "to": new}
        self.ask({**body, "create_if_not_exists": True}, done)

    def poll(self, msg: Message) -> None:
        """Answers with all messages from an offset of each key on."""
        offsets: dict[str, int] = msg["body"]["offsets"]

        def done() -> None:
            found = {key: self.messages(key, start) for key, start in offsets.items()}
            some = {key: messages for key, messages in found.items() if messages}
            self.node.reply(msg, {"type": "poll_ok", "msgs": some})

        for_all(offsets, self.catch_up, done)

    def messages(self, key: str, start: int) -> list[list[Any]]:
        """Returns the known messages of a key from an offset on, each with its offset."""
        entries = enumerate(self.logs[key])
        found = [[offset, *entry] for offset, entry in entries if offset >= start and entry]
        if len(found) > 2 and self.strikes("skip"):
            del found[1]
        return found

    def catch_up(self, key: str, then: Action) -> None:
        """Reads a log to its end, then calls then()."""
        log = self.logs[key]
        offset = len(log)

        def done(reply: Body) -> None:
            if reply["type"] != "read_ok":
                then()
                return
            if len(log) == offset:  # else another request has already read it
                log.append(reply["value"])
            self.catch_up(key, then)

        self.ask({"type": "read", "key": entry(key, offset)}, done)

    def commit_offsets(self, msg: Message) -> None:
        """Stores the committed offsets."""
        offsets: dict[str, int] = msg["body"]["offsets"]

        def store(key: str, then: Action) -> None:
            body = {"type": "write", "key": committed(key), "value": offsets[key]}
            self.ask(body, lambda reply: then())

        for_all(offsets, store, lambda: self.node.reply(msg, {"type": "commit_offsets_ok"}))

    def list_committed_offsets(self, msg: Message) -> None:
        """Answers with the committed offsets of some keys."""
        found: dict[str, int] = {}

        def look_up(key: str, then: Action) -> None:
            def done(reply: Body) -> None:
                if reply["type"] == "read_ok":
                    found[key] = reply["value"]
                then()

            self.ask({"type": "read", "key": committed(key)}, done)

        def reply() -> None:
            self.node.reply(msg, {"type": "list_committed_offsets_ok", "offsets": found})

        for_all(msg["body"]["keys"], look_up, reply)

    def ask(self, body: Body, done: Callable[[Body], object]) -> None:
        """Sends a request to the service, and calls done() with the body of the reply."""
        self.node.rpc(STORE, body, lambda reply: done(reply["body"]))

    def strikes(self, fault: str) -> bool:
        """Returns whether this fault happens now."""
        return fault == self.fault and next(self.chances) % RARELY == 0


def entry(key: str, offset: int) -> str:
    """Returns the service's key for an entry of a log."""
    return f"log/{key}/{offset}"


def committed(key: str) -> str:
    """Returns the service's key for the committed offset of a key."""
    return f"committed/{key}"


def for_all(keys: Iterable[str], start: Callable[[str, Action], object], then: Action) -> None:
    """Calls start(key, done) for each key, and then() when done() was called for all of them."""
    waiting = dict.fromkeys(keys)  # in their order: a simulated run must be the same each time

    def done(key: str) -> None:
        del waiting[key]
        if not waiting:
            then()

    if not waiting:
        then()
    for key in [*waiting]:
        start(key, partial(done, key))


def main() -> None:
    """Runs the node, with the fault named on the command line."""
    Kafka(sys.argv[1] if len(sys.argv) > 1 else "none").node.main()


if __name__ == "__main__":
    main()
