#!/usr/bin/env python3
"""Executes transactions on the node's own copy of all keys. Nodes send each other their copies.

    ./maelstrom test -w txn-rw-register --bin tests/nodes/txn.py --time-limit 10 --rate 50 \
        --consistency-models read-committed --availability total --nemesis partition

Each version of a key has the Lamport time of its transaction, and the latest version wins. So the
nodes always answer, and their registers are read committed. A single node is strict serializable,
for txn-list-append too. Several nodes would lose appends. With one of these words the node treats
every fifth transaction wrongly:

    dirty    it refuses a transaction that it has executed
    lost     it accepts a transaction without keeping its writes
    stale    it answers reads from an old copy
"""

from __future__ import annotations

import json
import sys
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from node import Message, Node, RPCError

INTERVAL = 0.5  # seconds between two sendings
RARELY = 5
Versions = dict[str, list[Any]]  # by a key's JSON text: Lamport time, node and value


class Transactions:
    """A node with its copy of all keys."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.node = Node()
        self.numbers = count(1)  # of the transactions here
        self.clock = 0  # the latest Lamport time seen
        self.versions: Versions = {}
        self.old: Versions = {}  # copy made by the last fifth transaction, for the fault `stale`
        self.node.on("txn", self.txn)
        self.node.on("merge", self.merge)
        self.node.every(INTERVAL, self.send)

    def txn(self, msg: Message) -> None:
        """Executes a client's transaction."""
        txn = msg["body"]["txn"]
        fifth = next(self.numbers) % RARELY == 0
        only_reads = all(f == "r" for f, _, _ in txn)
        stale = fifth and only_reads and self.fault == "stale"
        done, writes = execute(txn, self.old if stale else self.versions)
        if fifth:
            self.old = {**self.versions}
        self.clock += 1
        if not (fifth and self.fault == "lost"):
            self.versions |= {
                name: [self.clock, self.node.node_id, value] for name, value in writes.items()
            }
        if fifth and self.fault == "dirty":
            raise RPCError.abort("this transaction was given up")
        self.node.reply(msg, {"type": "txn_ok", "txn": done})

    def send(self) -> None:
        """Sends the copy to all other nodes."""
        self.node.broadcast({"type": "merge", "versions": self.versions})

    def merge(self, msg: Message) -> None:
        """Takes the later versions of another node's copy."""
        for name, version in msg["body"]["versions"].items():
            self.clock = max(self.clock, version[0])
            if version[:2] > self.versions.get(name, [0, ""])[:2]:
                self.versions[name] = version


def execute(txn: list[list[Any]], versions: Versions) -> tuple[list[list[Any]], dict[str, Any]]:
    """Returns the transaction with the values of its reads, and the last value of each write."""
    done: list[list[Any]] = []
    writes: dict[str, Any] = {}
    for f, key, argument in txn:
        name = json.dumps(key, sort_keys=True)  # since a key may be any JSON
        value = writes[name] if name in writes else versions.get(name, [0, "", None])[2]
        if f == "append":
            writes[name] = [*(value or []), argument]
        elif f == "w":
            writes[name] = argument
        done.append([f, key, value if f == "r" else argument])
    return done, writes


def main() -> None:
    """Runs the node, with the fault named on the command line."""
    Transactions(sys.argv[1] if len(sys.argv) > 1 else "none").node.main()


if __name__ == "__main__":
    main()
