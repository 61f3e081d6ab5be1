#!/usr/bin/env python3
"""Keeps a set that only grows (a CRDT). Nodes send each other the whole set, and merge it.

    ./maelstrom test -w g-set --bin tests/nodes/g_set.py --time-limit 10 --rate 50

With the word `no-merge` a node ignores the sets of the others.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from node import Message, Node

INTERVAL = 0.5  # seconds between two sendings


def main() -> None:
    """Runs the node, with the fault named on the command line."""
    node = Node()
    merges = "no-merge" not in sys.argv[1:]
    elements: dict[str, Any] = {}  # by their JSON text, since an element may be any JSON

    def add_all(values: list[Any]) -> None:
        elements.update({json.dumps(value, sort_keys=True): value for value in values})

    @node.on("add")
    def add(msg: Message) -> None:
        add_all([msg["body"]["element"]])
        node.reply(msg, {"type": "add_ok"})

    @node.on("read")
    def read(msg: Message) -> None:
        node.reply(msg, {"type": "read_ok", "value": [*elements.values()]})

    @node.on("merge")
    def merge(msg: Message) -> None:
        if merges:
            add_all(msg["body"]["value"])

    node.every(INTERVAL, lambda: node.broadcast({"type": "merge", "value": [*elements.values()]}))
    node.main()


if __name__ == "__main__":
    main()
