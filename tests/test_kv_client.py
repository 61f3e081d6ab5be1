"""The client of the key-value services: its requests, results and errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kv_client import KV, Then
from test_node import lone
from test_node_process import ROOT, Peer

from node import RPC_TIMEOUT, Body, RPCError

CALLS: list[tuple[Callable[[KV, Then], object], Body]] = [
    (lambda kv, then: kv.read("a", then), {"type": "read", "key": "a"}),
    (lambda kv, then: kv.write("a", 1, then), {"type": "write", "key": "a", "value": 1}),
    (
        lambda kv, then: kv.cas("a", 1, 2, create=True, then=then),
        {"type": "cas", "key": "a", "from": 1, "to": 2, "create_if_not_exists": True},
    ),
]


@pytest.mark.parametrize(("call", "request_body"), CALLS)
def test_a_call_with_then_returns_at_once_and_gives_its_result_later(
    call: Callable[[KV, Then], object], request_body: Body
) -> None:
    for answer, result in (
        ({"type": "read_ok", "value": 7}, (7, None)),
        ({"type": "write_ok"}, (None, None)),
        ({"type": "error", "code": 22, "text": "no"}, (None, "error 22: no")),
        (None, (None, f"error 0: no reply from seq-kv within {RPC_TIMEOUT} s")),
    ):
        world, node = lone()
        results: list[tuple[Any, Any]] = []

        def then(value: Any, error: RPCError | None, to: list[Any] = results) -> None:
            to.append((value, str(error) if error else None))

        node._turn(call, KV(node, "seq-kv"), then)
        asked = world.mail.popleft()  # so the service of the world does not answer
        assert not results and not world.mail and asked["dest"] == "seq-kv"
        assert asked["body"] == {**request_body, "msg_id": 1}
        if answer:
            node.receive({"src": "seq-kv", "dest": "n1", "body": {**answer, "in_reply_to": 1}})
        else:
            world.advance(RPC_TIMEOUT)
        assert results == [result]


def test_a_call_in_a_blocking_handler_returns_its_result_or_raises_its_error() -> None:
    peer = Peer(
        f"""
        import sys
        sys.path.insert(0, {str(ROOT / "tests" / "nodes")!r})
        from kv_client import KV
        from node import Node
        node = Node()
        def x(msg):
            node.reply(msg, {{"type": "x_ok", "value": KV(node, "lin-kv", 60.0).read("a")}})
        node.on("x", x, blocking=True)
        node.main()
        """
    )
    peer.init()
    peer.send({"type": "x", "msg_id": 7}, {"type": "x", "msg_id": 8})
    first, second = (peer.body() for _ in range(2))
    assert first == {"type": "read", "key": "a", "msg_id": first["msg_id"]}
    peer.send({"type": "read_ok", "value": 3, "in_reply_to": first["msg_id"]})
    assert peer.body()["value"] == 3
    peer.send({"type": "error", "code": 20, "text": "no", "in_reply_to": second["msg_id"]})
    refused = peer.body()
    assert (refused["type"], refused["code"], refused["text"]) == ("error", 20, "no")
