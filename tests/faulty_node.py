#!/usr/bin/env python3
"""Runs a lin-kv node with a chosen fault. The bench must find each fault.

    ./maelstrom test -w lin-kv --bin tests/faulty_node.py --time-limit 5 --rate 50 \\
        --node-count 1 --concurrency 2n -- stale-read
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from node import Message
from raft import Map, Server

RARELY = 5


class FaultyServer(Server):
    """Chapter 1's server, with a fault in every RARELY-th request to which the fault applies."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.concerned = 0
        self.older = Map()
        if fault == "never-answers-init":
            self.node._handlers["init"] = lambda msg: None

    def hits(self, concerned: bool) -> bool:
        """Counts a request to which the fault applies. Tells whether the fault strikes now."""
        self.concerned += concerned
        return concerned and self.concerned % RARELY == 0

    def client_req(self, msg: Message) -> None:
        """Answers as chapter 1 does, or as the fault demands."""
        body = msg["body"]
        type = body["type"]
        before = self.state_machine
        after, res = before.apply(body)
        ok = res["type"] != "error"
        match self.fault:
            case "none":
                pass
            case "stale-read" if self.hits(type == "read"):
                _, res = self.older.apply(body)
            case "lost-write" if self.hits(type == "write"):
                after = before
            case "wrong-cas" if self.hits(type == "cas" and not ok and res["code"] == 22):
                after, _ = before.apply({"type": "write", "key": body["key"], "value": body["to"]})
                res = {"type": "cas_ok"}
            case "definite-error-but-done" if self.hits(type == "write"):
                res = {"type": "error", "code": 11, "text": "not now"}
            case "second-reply" if self.hits(type == "write"):
                self.node.reply(msg, res)
                res = {"type": "error", "code": 11, "text": "not now"}
            case "extra-key" if self.hits(type == "write"):
                res = {"type": "write_ok", "value": 1}
            case "missing-value" if self.hits(type == "read" and ok):
                res = {"type": "read_ok"}
            case "forged-src" if self.hits(True):
                self.write_line(f'{{"src": "{msg["src"]}", "dest": "n0", "body": {{}}}}')
            case "extra-key-in-message" if self.hits(True):
                self.write_line('{"src": "n0", "dest": "n0", "body": {}, "time": 1}')
            case "no-such-destination" if self.hits(True):
                self.node.send("n99", {"type": "hello"})
            case "second-init-ok" if self.hits(True):
                body = '{"type": "init_ok", "in_reply_to": 1}'
                self.write_line(f'{{"src": "n0", "dest": "c0", "body": {body}}}')
            case "not-json" if self.hits(True):
                self.write_line("I am fine")
            case "exits" if self.hits(True):
                print("out of ideas", file=sys.stderr, flush=True)
                os._exit(3)
        if type != "read" and ok:
            self.older = before  # the state before the last change
        self.state_machine = after
        self.node.reply(msg, res)

    def write_line(self, line: str) -> None:
        """Prints a line that is not a valid message of this node."""
        self.node._write(f"{line}\n".encode())


def main() -> None:
    """Runs the node with the fault named on the command line."""
    fault = sys.argv[1] if len(sys.argv) > 1 else "none"
    FaultyServer(fault).node.main()


if __name__ == "__main__":
    main()
