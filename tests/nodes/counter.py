#!/usr/bin/env python3
"""Keeps a counter in the service seq-kv, under one key that all nodes change by cas.

    ./maelstrom test -w g-counter --bin tests/nodes/counter.py --time-limit 10 --rate 50

seq-kv may answer a read with an old value. After a write that changes something, its node reads
nothing older than that write. So before it reads the counter, a node writes a value that nobody has
written before. With the word `blind` it adds by a write instead of a cas.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from kv_client import KV

from node import Message, Node, RPCError

KEY = "sum"
PATIENCE = 3.0  # seconds for the attempts of an add; the client waits 5
MISSING, ANOTHER = 20, 22  # error codes: no such key yet, and a cas that found another value


class Counter:
    """A node whose state is in seq-kv alone."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.node = Node()
        self.kv = KV(self.node, "seq-kv")
        self.node.on("add", self.add)
        self.node.on("read", self.read)

    def add(self, msg: Message) -> None:
        """Adds to the sum. Tries again if another node was faster."""
        delta, end = msg["body"]["delta"], self.node.now() + PATIENCE

        def attempt() -> None:
            self.kv.read(KEY, change)

        def change(value: int | None, error: RPCError | None) -> None:
            if error and error.code != MISSING:
                self.refuse(msg, error)
            elif self.fault == "blind":
                self.kv.write(KEY, (value or 0) + delta, changed)
            else:
                self.kv.cas(KEY, value, (value or 0) + delta, create=True, then=changed)

        def changed(_: Any, error: RPCError | None) -> None:
            if error and error.code == ANOTHER and self.node.now() < end:
                attempt()
            elif error:
                self.refuse(msg, error)
            else:
                self.node.reply(msg, {"type": "add_ok"})

        attempt()

    def read(self, msg: Message) -> None:
        """Answers with the sum of all acknowledged adds, and perhaps some others."""

        def find(_: Any, error: RPCError | None) -> None:
            if error:
                self.refuse(msg, error)
            else:
                self.kv.read(KEY, found)

        def found(value: int | None, error: RPCError | None) -> None:
            if error and error.code != MISSING:
                self.refuse(msg, error)
            else:
                self.node.reply(msg, {"type": "read_ok", "value": value or 0})

        self.kv.write(self.node.node_id, self.node.random.getrandbits(64), find)

    def refuse(self, msg: Message, error: RPCError) -> None:
        """Passes on an error of the service."""
        self.node.reply(msg, error.to_json())


def main() -> None:
    """Runs the node, with the fault named on the command line."""
    Counter(sys.argv[1] if len(sys.argv) > 1 else "none").node.main()


if __name__ == "__main__":
    main()
