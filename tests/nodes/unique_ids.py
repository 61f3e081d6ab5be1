#!/usr/bin/env python3
"""Generates unique ids: a random prefix, then a counter. A restarted node has another prefix.

    ./maelstrom test -w unique-ids --bin tests/nodes/unique_ids.py --time-limit 5 --rate 100

With the word `duplicate` the nodes have no prefix, so two nodes generate the same ids.
"""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from node import Message, Node


def main() -> None:
    """Runs the node, with the fault named on the command line."""
    node = Node()
    numbers = count()
    prefix = "" if "duplicate" in sys.argv[1:] else f"{node.random.getrandbits(96):024x}-"

    @node.on("generate")
    def generate(msg: Message) -> None:
        node.reply(msg, {"type": "generate_ok", "id": f"{prefix}{next(numbers)}"})

    node.main()


if __name__ == "__main__":
    main()
