"""A client for Maelstrom's key-value services (its doc/services.md), for nodes on node.py.

    kv = KV(node, "seq-kv")

    @node.on("read", blocking=True)
    def read(msg):
        node.reply(msg, {"type": "read_ok", "value": kv.read("sum")})
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from node import RPC_TIMEOUT, Body, Message, Node, RPCError

Then = Callable[[Any, "RPCError | None"], object]


class KV:
    """The service lin-kv, seq-kv or lww-kv.

    A call waits for its result, so it needs a blocking handler. It raises RPCError: 20 if the key
    is missing, 22 if a cas finds another value, 0 without a reply in `timeout` seconds.

    With `then`, a call returns at once. Later then(value, None) or then(None, error) is called.
    """

    def __init__(self, node: Node, service: str, timeout: float = RPC_TIMEOUT) -> None:
        self._node = node
        self._service = service
        self._timeout = timeout

    def read(self, key: Any, then: Then | None = None) -> Any:
        """Returns the value of a key."""
        return self._call({"type": "read", "key": key}, then)

    def write(self, key: Any, value: Any, then: Then | None = None) -> None:
        """Sets a key."""
        self._call({"type": "write", "key": key, "value": value}, then)

    def cas(
        self, key: Any, from_: Any, to: Any, create: bool = False, then: Then | None = None
    ) -> None:
        """Replaces the value from_. With `create` it also sets a missing key, but not in lww-kv."""
        values = {"from": from_, "to": to, "create_if_not_exists": create}
        self._call({"type": "cas", "key": key, **values}, then)

    def _call(self, body: Body, then: Then | None) -> Any:
        if then is None:
            return self._node.sync_rpc(self._service, body, self._timeout).get("value")
        late = RPCError.timeout(f"no reply from {self._service} within {self._timeout} s")

        def answered(reply: Message) -> None:
            answer = reply["body"]
            if answer.get("type") == "error":
                then(None, RPCError(answer["code"], answer["text"]))
            else:
                then(answer.get("value"), None)

        self._node.rpc(self._service, body, answered, self._timeout, lambda: then(None, late))
        return None
