#!/usr/bin/env python3
"""Spreads messages by gossip along the topology. A node retries until its neighbour acknowledges.

    ./maelstrom test -w broadcast --bin tests/nodes/broadcast.py --time-limit 10 --rate 50

With the word `no-retry` a node sends each message only once, so a partition loses messages. With
`no-gossip` it sends none.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from node import Message, Node

INTERVAL = 0.1  # seconds between two sendings to a neighbour
PATIENCE = 10.0  # seconds for an acknowledgement; it is welcome even if it is late
Messages = dict[str, Any]  # by their JSON text, since a message may be any JSON


class Broadcast:
    """A node with the messages it has seen, and those that each neighbour may lack."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.node = Node()
        self.seen: Messages = {}
        self.lacking: dict[str, Messages] = {}  # by neighbour: not acknowledged yet
        self.node.on_init(self.start)
        self.node.on("topology", self.topology)
        self.node.on("broadcast", self.broadcast)
        self.node.on("read", self.read)
        self.node.on("gossip", self.gossip)
        self.node.every(INTERVAL, self.send)

    def start(self) -> None:
        """Takes all nodes as neighbours. A restarted node gets no topology."""
        self.lacking = {node_id: {} for node_id in self.node.other_node_ids}

    def topology(self, msg: Message) -> None:
        """Takes the suggested neighbours."""
        neighbours = msg["body"]["topology"].get(self.node.node_id, [])
        self.lacking = {node_id: {**self.seen} for node_id in neighbours}
        self.node.reply(msg, {"type": "topology_ok"})

    def broadcast(self, msg: Message) -> None:
        """Accepts a client's message."""
        self.learn([msg["body"]["message"]])
        self.node.reply(msg, {"type": "broadcast_ok"})

    def read(self, msg: Message) -> None:
        """Answers with all messages seen."""
        self.node.reply(msg, {"type": "read_ok", "messages": [*self.seen.values()]})

    def gossip(self, msg: Message) -> None:
        """Accepts a neighbour's messages, and acknowledges them."""
        self.learn(msg["body"]["messages"])
        self.node.reply(msg, {"type": "gossip_ok"})

    def learn(self, messages: list[Any]) -> None:
        """Keeps the new ones of these messages, to be passed on."""
        named = {json.dumps(message, sort_keys=True): message for message in messages}
        new = {name: message for name, message in named.items() if name not in self.seen}
        self.seen |= new
        for lacking in self.lacking.values():
            lacking |= new

    def send(self) -> None:
        """Sends each neighbour the messages that it has not acknowledged."""
        if self.fault == "no-gossip":
            return
        for neighbour, lacking in self.lacking.items():
            if lacking:
                self.send_to(neighbour, {**lacking})
                if self.fault == "no-retry":
                    lacking.clear()

    def send_to(self, neighbour: str, messages: Messages) -> None:
        """Sends messages. Forgets them when they are acknowledged."""

        def acknowledged(reply: Message) -> None:
            for name in messages:
                self.lacking.get(neighbour, {}).pop(name, None)

        body = {"type": "gossip", "messages": [*messages.values()]}
        self.node.rpc(neighbour, body, acknowledged, PATIENCE)


def main() -> None:
    """Runs the node, with the fault named on the command line."""
    Broadcast(sys.argv[1] if len(sys.argv) > 1 else "none").node.main()


if __name__ == "__main__":
    main()
