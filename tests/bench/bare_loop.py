#!/usr/bin/env python3
"""A bare loop, the reference for benchmarks of nodes: the least that any Python node must do.

It reads lines, calls json.loads and json.dumps for each of them, and writes the replies.
"""

from __future__ import annotations

import json
import os


def main() -> None:
    """Answers each message with an ok until stdin closes."""
    rest = b""
    while chunk := os.read(0, 1 << 16):
        *lines, rest = (rest + chunk).split(b"\n")
        replies = []
        for line in lines:
            msg = json.loads(line)
            body = {"type": "ok", "in_reply_to": msg["body"]["msg_id"]}
            reply = {"src": msg["dest"], "dest": msg["src"], "body": body}
            replies.append(json.dumps(reply) + "\n")
        os.write(1, "".join(replies).encode())


if __name__ == "__main__":
    main()
