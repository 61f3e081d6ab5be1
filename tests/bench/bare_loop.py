#!/usr/bin/env python3
"""The scale that nodes are measured on: what any Python node must do, and nothing else.

One read, json.loads and json.dumps for each line, one write.
"""

from __future__ import annotations

import json
import os


def main() -> None:
    """Answers each line by a message with the same ids until stdin closes."""
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
