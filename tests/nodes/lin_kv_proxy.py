#!/usr/bin/env python3
"""Serves the lin-kv workload by passing each request on to the service lin-kv.

    ./maelstrom test -w lin-kv --bin tests/nodes/lin_kv_proxy.py --time-limit 10 --rate 50

With the word `seq-kv` it asks that service, which may answer with old values.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from node import Message, Node, RPCError


def main() -> None:
    """Runs the node, with the fault named on the command line."""
    node = Node()
    service = "seq-kv" if "seq-kv" in sys.argv[1:] else "lin-kv"

    def pass_on(msg: Message) -> None:
        def refuse() -> None:
            node.reply(msg, RPCError.timeout(f"{service} did not answer in time").to_json())

        def answer(reply: Message) -> None:
            node.reply(msg, reply["body"])

        node.rpc(service, msg["body"], answer, on_timeout=refuse)

    for type in ("read", "write", "cas"):
        node.on(type, pass_on)
    node.main()


if __name__ == "__main__":
    main()
