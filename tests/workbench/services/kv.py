"""The key-value services lin-kv, seq-kv and lww-kv (maelstrom.service).

    {"type": "read", "key": "a"}                        {"type": "read_ok", "value": 3}
    {"type": "write", "key": "a", "value": 3}           {"type": "write_ok"}
    {"type": "cas", "key": "a", "from": 3, "to": 4}     {"type": "cas_ok"}

Keys and values are any JSON. They are equal if type and value are equal: 1, "1" and 1.0 are three
keys. A missing field is null, and unknown fields are ignored. Error 20 means that the key does not
exist, error 22 that a cas found another value.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from ..checkers.clojure import identity
from ..record import edn

Body = dict[str, Any]
Entries = Mapping[Hashable, Any]  # values by the `identity` of their keys
TYPES = ("read", "write", "cas")
STATES = 32  # states that seq-kv keeps
REPLICAS = 2  # of lww-kv; Maelstrom's doc/services.md says 5


def decide(
    entries: Entries, body: Body, expected: Callable[[Any], str] = edn.dumps
) -> tuple[Body, Entries]:
    """Returns the reply to a request, and the entries that the request changes.

    `expected` writes a cas's expected value into the text of error 22.
    """
    key, type = identity(body.get("key")), body["type"]
    if type == "write":
        return {"type": "write_ok"}, _change(entries, key, body.get("value"))
    if key not in entries:
        create = type == "cas" and body.get("create_if_not_exists")
        if create is None or create is False:  # Clojure takes all else for true
            return {"type": "error", "code": 20, "text": "key does not exist"}, {}
        return {"type": "cas_ok"}, {key: body.get("to")}
    if type == "read":
        return {"type": "read_ok", "value": entries[key]}, {}
    if identity(entries[key]) != identity(body.get("from")):
        text = f"current value {edn.dumps(entries[key])} is not {expected(body.get('from'))}"
        return {"type": "error", "code": 22, "text": text}, {}
    return {"type": "cas_ok"}, _change(entries, key, body.get("to"))


def _change(entries: Entries, key: Hashable, value: Any) -> Entries:
    """Returns the entry that a write changes: none if the key has that value already."""
    same = key in entries and identity(entries[key]) == identity(value)
    return {} if same else {key: value}


class LinKV:
    """A linearizable store."""

    types = TYPES

    def __init__(self) -> None:
        self._entries: dict[Hashable, Any] = {}

    def handle(self, src: str, body: Body) -> Body:
        """Returns the reply to a request."""
        reply, changes = decide(self._entries, body)
        self._entries.update(changes)
        return reply


class SeqKV:
    """A store that may answer from its past.

    It numbers its states, and notes for each sender the number that the sender has reached. A
    request runs on a random state, from the sender's to the newest. If it changes nothing there,
    that is its answer. So a cas may fail on an old value, and a write has no effect if the old
    state holds its value already. Any other request runs again on the newest state. Its sender has
    then reached the state that results.

    Maelstrom's store keeps 32 states, and counts back from the newest modulo 32. So it is not quite
    sequentially consistent: a sender that is further behind may see a new value, then an old one.
    """

    types = TYPES

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._states = deque[Entries]([{}], maxlen=STATES)  # the newest is the last
        self._newest = 0  # number of the newest state
        self._reached: dict[str, int] = {}  # number of a state, by sender; 0 if unset

    def handle(self, src: str, body: Body) -> Body:
        """Returns the reply to a request."""
        number = self._rng.randint(self._reached.get(src, 0), self._newest)
        back = (self._newest - number) % STATES
        reply, changes = decide(self._states[-1 - back], body)
        if changes:
            newest = self._states[-1]
            reply, changes = decide(newest, body)
            self._states.append({**newest, **changes})
            self._newest += 1
            number = self._newest
        self._reached[src] = number
        return reply


class LwwKV:
    """Two stores; a request runs on a random one of them.

    Maelstrom's store is meant to be eventually consistent, but it drops the result of each merge.
    So the two never learn from each other: half of the reads miss a key that was written once. A
    cas ignores `create_if_not_exists`.
    """

    types = TYPES

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._replicas: list[dict[Hashable, Any]] = [{} for _ in range(REPLICAS)]

    def handle(self, src: str, body: Body) -> Body:
        """Returns the reply to a request."""
        replica = self._rng.choice(self._replicas)
        reply, changes = decide(replica, {**body, "create_if_not_exists": False}, _bare)
        replica.update(changes)
        return reply


def _bare(value: Any) -> str:
    """Writes a value as Clojure's `str` does: a string without quotes, null as nothing."""
    if value is None:
        return ""
    return value if isinstance(value, str) else edn.dumps(value)
