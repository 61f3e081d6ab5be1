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
from bisect import bisect_left
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, Final
from weakref import ref

from node import Body, Message, Node, RPCError


class Map:
    """The state machine: an immutable map from keys to values; `apply` returns a new one.

    Keys and values are any JSON. No version is copied: see `PersistentMap`.
    """

    __slots__ = ("map",)

    def __init__(self, map: PersistentMap | Mapping[Any, Any] | None = None) -> None:
        # Ruby's merge copies the whole map for each write; this one's `set` does not.
        if map.__class__ is not PersistentMap:
            map = PersistentMap(map.items() if map else ())
        self.map: PersistentMap = map

    def apply(self, op: Body) -> tuple[Map, Body]:
        """Applies an operation (e.g. {"type": "write", "key": 1, "value": 2}) to this Map.

        Returns a tuple of the resulting Map and the completed operation. It never raises.
        """
        try:
            k = op["key"]
            match op["type"]:
                case "read":
                    # One look instead of two (key?, then []); a value may be null.
                    value = self.map.get(k, ABSENT)
                    if value is not ABSENT:
                        return self, {"type": "read_ok", "value": value}
                    else:
                        return self, RPCError.key_does_not_exist("not found").to_json()

                case "write":
                    return Map(self.map.set(k, op["value"])), {"type": "write_ok"}

                case "cas":
                    # create_if_not_exists is from Maelstrom's doc/services.md, lin-kv.
                    old, new, create = op["from"], op["to"], may_create(op)
                    value = self.map.get(k, ABSENT)
                    if value is not ABSENT:
                        if identity(value) == identity(old):  # to Python, True == 1
                            return Map(self.map.set(k, new)), {"type": "cas_ok"}
                        else:
                            return self, RPCError.precondition_failed(
                                f"expected {show(old)}, but had {show(value)}"
                            ).to_json()
                    elif create:
                        return Map(self.map.set(k, new)), {"type": "cas_ok"}
                    else:
                        return self, RPCError.key_does_not_exist("not found").to_json()

                # Ruby's case ends here, with nil. A client must be told.
                case str(other):
                    raise RPCError.not_supported(f"no such operation: {show(other)}")

                case _:
                    raise RPCError.malformed_request("the type must be a string")

        # The chapter's ops are always whole. A client's need not be, and what a log has
        # committed must never stop the node that applies it.
        except KeyError as error:
            return self, RPCError.malformed_request(f"the operation lacks {error}").to_json()
        except RPCError as error:
            return self, error.to_json()


class Raft:
    """The server: one state machine, and a lock that synchronizes updates of it."""

    def __init__(self, node: Node | None = None) -> None:
        self.node = node or Node()
        # The node's turns exclude each other already. What the lock adds: a blocking handler, or
        # any thread of one's own, may take it to see or change the state between two requests.
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


# From here on: what the chapter does not have. A Ruby Hash takes any key and tells 1 from true.

ABSENT: Final = object()  # what a version holds for a key that it does not hold
MAX_NESTING = 100  # arrays and objects within each other; JSON itself sets no limit
SHOWN = 100  # characters of a value in an error text
MOVES = 16  # records that one write moves at most, on behalf of versions that are gone
Record = dict[Hashable, Any]  # what a version held of what later writes changed
new = object.__new__  # without __init__, which would make a table


class PersistentMap:
    """An immutable mapping of JSON to JSON: `set` returns a new version and copies nothing.

    All versions share one table, that of the newest. A write first records what it is about to
    overwrite, for the version that it is applied to, and then changes the table:

        v1 = {a: 1}    v1 [a was 1] -> v2 [b was absent] -> v3    table {a: 2, b: 3}

    So an old version has, for each key, what its own record says, else the record of the next
    newer version, and so on, else the table. (H. Baker, Shallow binding makes functional arrays
    fast, 1991.) The record of a version that nobody holds any more matters only to older ones
    that are held: each write moves a few such entries into the record before, where the oldest
    value of a key stays, or drops them if there is none. So a version that is held costs one
    entry for each key written since, and no operation does more than MOVES of this work.

    Old versions can be read in any thread without a lock, while one thread writes: a record is
    made before the table changes, and entries move towards the past, where they appear before
    they disappear; a reader looks at the table first, then at the records from new to old.

    Nothing is ever deleted. Values are kept as they are given: do not change a list or an
    object after handing it in. Writing to an old version is rare, and copies it.
    """

    __slots__ = ("__weakref__", "_record", "_shared")
    _shared: _Shared
    _record: Record | None  # None: this is the newest version

    def __init__(self, items: Iterable[tuple[Any, Any]] = ()) -> None:
        self._shared, self._record = _Shared(), None
        for key, value in items:
            id = identity(key)
            if id not in self._shared.table:
                self._shared.add_key(id, key)
            self._shared.table[id] = value

    def set(self, key: Any, value: Any) -> PersistentMap:
        """The version after this one. Raises RPCError 12 for what is not JSON."""
        id = identity(key)
        identity(value)
        if self._record is not None:
            return PersistentMap(self.items()).set(key, value)
        shared = self._shared
        table = shared.table
        before = table.get(id, ABSENT)
        record = {id: before}
        past = shared.past
        if len(past) == 1 and past[0][0]() is None:  # as a rule nobody holds an older version
            past[0] = (ref(self), record)
        else:
            shared.keep(ref(self), record)
        self._record = record
        if before is ABSENT:
            shared.add_key(id, key)
        table[id] = value
        newest = new(PersistentMap)
        newest._shared, newest._record = shared, None
        return newest

    def get(self, key: Any, default: Any = None) -> Any:
        id = identity(key)
        value = self._shared.table.get(id, ABSENT)
        if self._record is not None:  # else it was the newest when it looked at the table
            value = self._before(id, value)
        return default if value is ABSENT else value

    def __getitem__(self, key: Any) -> Any:
        value = self.get(key, ABSENT)
        if value is ABSENT:
            raise KeyError(key)
        return value

    def __contains__(self, key: Any) -> bool:
        return self.get(key, ABSENT) is not ABSENT

    def __len__(self) -> int:
        order = self._shared.order
        return bisect_left(order, True, key=lambda id: self._find(id)[1] is ABSENT)

    def items(self) -> Iterator[tuple[Any, Any]]:
        """In the order in which the keys were first written; each as it was given then.

        Can be taken in pieces, with writes in between: it stays the items of this version.
        """
        for id in self._shared.order:
            key, value = self._find(id)
            if value is ABSENT:
                return
            yield key, value

    def changes_since(self, older: PersistentMap) -> Iterator[tuple[Any, Any]]:
        """The items written after `older`, as they are in this version: costs what they are.

        If this version does not come from `older` by writes: the items that `older` has not.
        """
        if older is self:
            return
        own = self._record  # looked at before the records: they may be more a moment later
        records = older._records() if older._shared is self._shared else []
        is_own = [record is own for record in records]
        if True in is_own:
            records = records[is_own.index(True) + 1 :]
        elif own is not None or not records:
            for key, value in self.items():
                if older.get(key, ABSENT) is not value:
                    yield key, value
            return
        seen = set[Hashable]()
        for record in records:  # from new to old: meanwhile entries may move, but only that way
            for id in list(record):
                if id not in seen:
                    seen.add(id)
                    yield self._find(id)

    def _find(self, id: Hashable) -> tuple[Any, Any]:
        """The key as it was given, and its value in this version, or ABSENT."""
        value = self._shared.table.get(id, ABSENT)
        return self._shared.given.get(id, id), self._before(id, value)

    def _before(self, id: Hashable, value: Any) -> Any:
        """What this version had before the writes that led to the table's value."""
        for record in self._records():
            value = record.get(id, value)
        return value

    def _records(self) -> list[Record]:
        """From the newest there is to this version's own."""
        records: list[Record] = []
        if self._record is not None:
            for _, record in reversed(self._shared.past[:]):
                records.append(record)
                if record is self._record:
                    break
        return records


class _Shared:
    """What the versions of a PersistentMap have in common: all but which of them they are."""

    __slots__ = ("given", "order", "past", "sweeper", "table")

    def __init__(self) -> None:
        self.table: dict[Hashable, Any] = {}  # of the newest version, by the keys' identities
        self.order: list[Hashable] = []  # the identities; each version has the first so many
        self.given: dict[Hashable, Any] = {}  # the keys that are not their own identities
        self.past: Past = []
        self.sweeper = sweep(self.past)

    def add_key(self, id: Hashable, key: Any) -> None:
        if id is not key:
            self.given[id] = key
        self.order.append(id)

    def keep(self, version: ref[PersistentMap], record: Record) -> None:
        past = self.past
        if len(past) > 1 and past[-1][0]() is None:  # nobody holds it: its one entry moves
            ((id, value),) = past[-1][1].items()
            past[-2][1].setdefault(id, value)
            past[-1] = (version, record)
        else:
            past.append((version, record))
        if len(past) > 1:
            next(self.sweeper)


Past = list[tuple["ref[PersistentMap]", Record]]  # versions that have records, by age


def sweep(past: Past) -> Iterator[None]:
    """Looks for versions that nobody holds, again and again: one version or MOVES entries a step.

    The last version is the one that is being written to. So between two steps only the end of
    the past changes, and the record of the last version but one, by one entry.
    """
    position = moves = 0
    while True:
        if position >= len(past):
            position = 0
        version, record = past[position]
        if version() is None:
            while record:
                id, value = next(reversed(record.items()))
                if position:
                    past[position - 1][1].setdefault(id, value)
                record.popitem()
                moves += 1
                if moves % MOVES == 0:
                    yield
            del past[position]
        else:
            position += 1
        yield


def may_create(op: Body) -> bool:
    """Whether a cas may create its key: create_if_not_exists, false if it is not there."""
    create = op.get("create_if_not_exists", False)
    if create.__class__ is not bool:
        raise RPCError.malformed_request("create_if_not_exists must be true or false")
    return bool(create)


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
    if type is dict and all(key.__class__ is str for key in value):
        return frozenset([(key, identity(item, nesting + 1)) for key, item in value.items()])
    raise RPCError.malformed_request(f"not a JSON value: {value!r:.{SHOWN}}")


def show(value: Any) -> str:
    """A value as an error text has it: short, strings without quotes as in the tutorial."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def main() -> None:
    """The command line: no options yet; --help says what this is."""
    assert __doc__
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    Raft().node.main()


if __name__ == "__main__":
    main()
