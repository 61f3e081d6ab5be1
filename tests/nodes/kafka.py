#!/usr/bin/env python3
"""Keeps logs in a key-value store. Each offset of a log is a key of the store, written only once.

    ./maelstrom test -w kafka --bin tests/nodes/kafka.py --time-limit 10 --rate 50

To append a message, a node writes it to the first free offset by a cas, which fails if another node
was faster. So a log has no gaps, and a node may remember all that it has read.

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

from node import Action, Body, Message, Node, RPCError

RARELY = 5  # every fifth message or poll suffers from a fault


class Kafka:
    """A node that remembers the beginning of each log."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.chances = count(1)
        self.node = Node()
        self.logs: dict[str, list[list[Any]]] = defaultdict(list)  # by key: [message] or []
        self.node.on("send", self.send)
        self.node.on("poll", self.poll)
        self.node.on("commit_offsets", self.commit_offsets)
        self.node.on("list_committed_offsets", self.list_committed_offsets)
        self.kept: dict[str, Any] = {}
        self.node.on("read", self.read)
        self.node.on("write", self.write)
        self.node.on("cas", self.cas)

    def send(self, msg: Message) -> None:
        """Appends a message to a log."""
        key, message = msg["body"]["key"], msg["body"]["msg"]
        log = self.logs[key]
        offset = len(log)
        entry = [message]
        if self.strikes("lose"):
            entry = []
        elif self.strikes("reuse") and log:
            offset -= 1

        def done(reply: Body) -> None:
            if reply["type"] == "cas_ok":
                self.node.reply(msg, {"type": "send_ok", "offset": offset})
            else:
                self.catch_up(key, lambda: self.send(msg))

        new = {"from": log[offset] if offset < len(log) else None, "to": entry}
        body = {"type": "cas", "key": f"{key}/{offset}", "create_if_not_exists": True, **new}
        self.ask(body, done)

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
        log = enumerate(self.logs[key])
        found = [[offset, *entry] for offset, entry in log if offset >= start and entry]
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

        self.ask({"type": "read", "key": f"{key}/{offset}"}, done)

    def commit_offsets(self, msg: Message) -> None:
        """Stores the committed offsets."""
        offsets: dict[str, int] = msg["body"]["offsets"]

        def store(key: str, then: Action) -> None:
            body = {"type": "write", "key": f"committed/{key}", "value": offsets[key]}
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

            self.ask({"type": "read", "key": f"committed/{key}"}, done)

        def reply() -> None:
            self.node.reply(msg, {"type": "list_committed_offsets_ok", "offsets": found})

        for_all(msg["body"]["keys"], look_up, reply)

    def ask(self, body: Body, done: Callable[[Body], object]) -> None:
        """Sends a request to the store."""
        self.node.rpc(self.node.node_ids[0], body, lambda reply: done(reply["body"]))

    def strikes(self, fault: str) -> bool:
        """Returns whether this fault happens now."""
        return fault == self.fault and next(self.chances) % RARELY == 0

    def read(self, msg: Message) -> None:
        if msg["body"]["key"] not in self.kept:
            raise RPCError.key_does_not_exist("")
        self.node.reply(msg, {"type": "read_ok", "value": self.kept[msg["body"]["key"]]})

    def write(self, msg: Message) -> None:
        self.kept[msg["body"]["key"]] = msg["body"]["value"]
        self.node.reply(msg, {"type": "write_ok"})

    def cas(self, msg: Message) -> None:
        body = msg["body"]
        if self.kept.get(body["key"]) != body["from"]:
            raise RPCError.precondition_failed("")
        self.kept[body["key"]] = body["to"]
        self.node.reply(msg, {"type": "cas_ok"})


def for_all(
    keys: Iterable[str], start: Callable[[str, Action], object], then: Action
) -> None:
    """Calls start(key, done) for each key, and then() when done() was called for all of them."""
    waiting = {*keys}

    def done(key: str) -> None:
        waiting.remove(key)
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
