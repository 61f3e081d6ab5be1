#!/usr/bin/env python3
"""Answers each request with its own payload.

    ./maelstrom test -w echo --bin tests/nodes/echo.py --time-limit 10 --rate 50

With the word `late` a node answers with the payload of the request before.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from node import Message, Node


def main() -> None:
    """Runs the node, with the fault named on the command line."""
    node = Node()
    faults = sys.argv[1:]
    before: list[Any] = []  # the payload of the last request, if there was one

    @node.on("echo")
    def echo(msg: Message) -> None:
        payload = msg["body"]["echo"]
        shown = before[0] if before and "late" in faults else payload
        before[:] = [payload]
        node.reply(msg, {"type": "echo_ok", "echo": shown})

    node.main()


if __name__ == "__main__":
    main()
