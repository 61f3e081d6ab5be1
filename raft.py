#!/usr/bin/env python3
"""A linearizable key-value store for Maelstrom's lin-kv workload.

Chapter 1 of Maelstrom's Raft tutorial: a state machine, `Map`, and the server that applies
operations to it, `Raft`. With one node it is linearizable; with two, each has a map of its own,
and Maelstrom finds that out.

    ./maelstrom test -w lin-kv --bin raft.py --time-limit 10 --rate 10 --node-count 1 \\
        --concurrency 2n
"""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Hashable, Mapping
from typing import Any, Final

from node import Body, Message, Node, RPCError

ABSENT: Final = object()  # what a Map holds for a key that it does not hold
MAX_NESTING = 100  # arrays and objects within each other; JSON itself sets no limit
SHOWN = 100  # characters of a value in an error text


class Map:
    """An immutable map from keys to values, any JSON: `apply` returns a new one.

    No version is ever copied. The newest one owns the table, and a write changes that table in
    place; what the write overwrote is kept in the version that it was applied to, which from
    then on answers by its own record first and asks the next newer version for the rest:

        m1 = {a: 1}       m1 --a was 1--> m2 --b was absent--> m3 = {a: 2, b: 3}

    So an operation on the newest version costs the same with ten keys and with a million, an
    old version stays readable for as long as someone holds it, and one that nobody holds is
    gone. (H. Baker, Shallow binding makes functional arrays fast, 1991.) Invariants:

    - following `newer` from any version ends at the newest, the only one without `newer`;
    - a key that is in no record on that way has the same value in all these versions;
    - a version's table and `newer` change together, in one assignment, and before the newest
      table does: a thread that reads an old version needs no lock.

    Writing to an old version is rare, and copies it. Values are kept as they are given: do not
    change a list or an object after handing it in.
    """

    __slots__ = ("_state",)
    _state: tuple[dict[Hashable, Any], Map | None]

    def __init__(self, map: Mapping[Any, Any] | None = None) -> None:
        self._state = ({identity(key): value for key, value in (map or {}).items()}, None)

    def apply(self, op: Body) -> tuple[Map, Body]:
        """Applies an operation (e.g. {"type": "write", "key": 1, "value": 2}) to this Map.

        Returns the resulting Map and the body of the response: Maelstrom's doc/workloads.md,
        lin-kv. It never raises: an operation that lacks something is answered by error 12.
        """
        try:
            type, key = op["type"], identity(op["key"])
            if type == "read":
                value = self._get(key)
                if value is ABSENT:
                    raise RPCError.key_does_not_exist("not found")
                return self, {"type": "read_ok", "value": value}
            if type == "write":
                return self._set(key, op["value"]), {"type": "write_ok"}
            if type == "cas":
                return self._cas(key, op), {"type": "cas_ok"}
            raise RPCError.not_supported(f"no such operation: {show(type)}")
        except RPCError as error:
            return self, error.to_json()
        except KeyError as error:
            return self, RPCError.malformed_request(f"the operation lacks {error}").to_json()

    def _cas(self, key: Hashable, op: Body) -> Map:
        expected, value = op["from"], op["to"]
        create = op.get("create_if_not_exists", False)
        if create.__class__ is not bool:
            raise RPCError.malformed_request("create_if_not_exists must be true or false")
        current = self._get(key)
        if current is ABSENT:
            if not create:
                raise RPCError.key_does_not_exist("not found")
        elif identity(current) != identity(expected):
            raise RPCError.precondition_failed(
                f"expected {show(expected)}, but had {show(current)}"
            )
        return self._set(key, value)

    def _get(self, key: Hashable) -> Any:
        """The value of this version, or ABSENT."""
        while True:
            table, newer = self._state
            if newer and key in table:
                return table[key]
            newest = newer or self
            table, newer = state = newest._state
            if newer:
                self._catch_up()
                continue
            value = table.get(key, ABSENT)
            if newest._state is state:  # else another thread has written meanwhile
                return value

    def _set(self, key: Hashable, value: Any) -> Map:
        """The version after this one. Raises error 12 for what is not JSON."""
        identity(value)
        table, newer = self._state
        if newer:
            return self._copy()._set(key, value)
        newest = Map()
        newest._state = (table, None)
        self._state = ({key: table.get(key, ABSENT)}, newest)
        table[key] = value
        return newest

    def _catch_up(self) -> Map:
        """Takes the records of all versions up to the newest into this one's; returns the newest.

        Each write is taken over once, however often this version is read.
        """
        table, newer = self._state
        assert newer
        record, newest = newer._state
        while newest:
            for key, value in list(record.items()):
                table.setdefault(key, value)
            newer = newest
            record, newest = newer._state
        self._state = (table, newer)
        return newer

    def _copy(self) -> Map:
        """This version of the past as one that stands alone."""
        newest = self._catch_up()
        copy = Map()
        pairs = {**newest._state[0], **self._state[0]}
        copy._state = ({key: value for key, value in pairs.items() if value is not ABSENT}, None)
        return copy


def identity(value: Any, nesting: int = 0) -> Hashable:
    """Something hashable that is equal for two values exactly when they are the same JSON.

    To Python 1 == True, and a list has no hash. Raises error 12 for what is not JSON, or too
    deeply nested to be sure that it can be sent on.
    """
    type = value.__class__
    if type is str or type is int or type is float or value is None:
        return value  # type: ignore[no-any-return]
    if type is bool:
        return (bool, value)
    if nesting == MAX_NESTING:
        raise RPCError.malformed_request(f"nested deeper than {MAX_NESTING}")
    if type is list:
        return tuple([identity(item, nesting + 1) for item in value])
    if type is dict:
        return frozenset([(key, identity(item, nesting + 1)) for key, item in value.items()])
    raise RPCError.malformed_request(f"not a JSON value: {value!r:.{SHOWN}}")


def show(value: Any) -> str:
    """A value as an error text has it: short, strings without quotes as in the tutorial."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


class Raft:
    """The server: one state machine, and a lock that synchronizes updates of it."""

    def __init__(self, node: Node | None = None) -> None:
        self.node = node or Node()
        self.lock = threading.RLock()
        self.state_machine = Map()

        self.node.on("read", self.client_req)
        self.node.on("write", self.client_req)
        self.node.on("cas", self.client_req)

    def client_req(self, msg: Message) -> None:
        """Handles a client's RPC request: applies its body to the state, sends the response."""
        with self.lock:
            self.state_machine, res = self.state_machine.apply(msg["body"])
            self.node.reply(msg, res)


def main() -> None:
    """The command line: no options yet; --help says what this is."""
    assert __doc__
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    Raft().node.main()


if __name__ == "__main__":
    main()
