#!/usr/bin/env python3
"""Keeps a counter (a CRDT): for each node, the sums of what it has added and subtracted.

    ./maelstrom test -w pn-counter --bin tests/nodes/pn_counter.py --time-limit 10 --rate 50

Both sums only grow, so nodes merge by taking the greater ones. The node serves g-counter too. With
the word `twice` a node counts every fifth add twice. With `no-merge` it ignores the others' sums.
"""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from node import Message, Node

INTERVAL = 0.5  # seconds between two sendings
RARELY = 5


def main() -> None:
    """Runs the node, with the fault named on the command line."""
    node = Node()
    faults = sys.argv[1:]
    sums: dict[str, tuple[int, int]] = {}  # by node: added, subtracted
    adds = count(1)

    @node.on("add")
    def add(msg: Message) -> None:
        delta = msg["body"]["delta"]
        if next(adds) % RARELY == 0 and "twice" in faults:
            delta *= 2
        added, subtracted = sums.get(node.node_id, (0, 0))
        sums[node.node_id] = added + max(delta, 0), subtracted + max(-delta, 0)
        node.reply(msg, {"type": "add_ok"})

    @node.on("read")
    def read(msg: Message) -> None:
        value = sum(added - subtracted for added, subtracted in sums.values())
        node.reply(msg, {"type": "read_ok", "value": value})

    @node.on("merge")
    def merge(msg: Message) -> None:
        if "no-merge" in faults:
            return
        for node_id, (added, subtracted) in msg["body"]["sums"].items():
            ours = sums.get(node_id, (0, 0))
            sums[node_id] = max(ours[0], added), max(ours[1], subtracted)

    node.every(INTERVAL, lambda: node.broadcast({"type": "merge", "sums": sums}))
    node.main()


if __name__ == "__main__":
    main()
