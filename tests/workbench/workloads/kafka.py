"""kafka: a log of messages for each key. A node gives each message an offset.

    {"type": "send", "key": "9", "msg": 1}              {"type": "send_ok", "offset": 0}
    {"type": "poll", "offsets": {"9": 0}}               {"type": "poll_ok",
                                                         "msgs": {"9": [[0, 1], [1, 2]]}}
    {"type": "commit_offsets", "offsets": {"9": 1}}     {"type": "commit_offsets_ok"}
    {"type": "list_committed_offsets", "keys": ["9"]}   {"type": "list_committed_offsets_ok",
                                                         "offsets": {"9": 1}}

A client asks for the messages from an offset of each key on. When it has got some, it commits the
highest offsets. Its `assign` sets the keys that it polls, and its `crash` replaces it by a new
client, which has no keys. At the end, every thread polls all keys from the beginning.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from ..checkers import kafka
from ..record.edn import Keyword
from ..record.history import Op
from ..units import SECOND
from ..verdicts import Results
from .txn import Transactions
from .workload import (
    Body,
    Conversation,
    Crashed,
    Ending,
    Extras,
    Final,
    Next,
    Settings,
    Step,
    Usual,
    Worker,
    expect,
    expect_integer,
)

Offsets = dict[str, int]  # by key
ASSIGN = 1 / 64  # probability that an assign precedes an operation
CATCH_UP = 1 / 3  # probability that an assign names the keys with unseen messages, too
CRASH_INTERVAL = 30  # mean time in s between two crashes of a thread
FINAL_TIME = 10 * SECOND  # after so much time the final phase starts no operation
FINAL_GAP = 2 * SECOND // 5  # longest time between the starts of two final polls, in ns
SEND, POLL = Keyword("send"), Keyword("poll")
FROM_BEGINNING = Keyword("seek-to-beginning?")


class Kafka(Usual):
    """Sends the messages 1, 2, 3, ... of each key, and polls as often.

    The operations and their order are those of jepsen.tests.kafka and maelstrom.workload.kafka.
    The state of a client is the next offset to poll of each key.
    """

    name = "kafka"
    idempotent = frozenset({"assign"})

    def __init__(self, rng: random.Random, settings: Settings) -> None:
        super().__init__(rng, settings)
        self._transactions = Transactions(rng, settings)
        self._due = self._transactions.micro_op("send")
        self._next_crash = 0  # ns since the start of the run
        # Highest offsets that any client has got: of its own messages, and of polled messages.
        self._sent: Offsets = {}
        self._polled: Offsets = {}
        self.final: Final | None = FinalPolls(rng, self._sent, self._polled)

    def open(self) -> Offsets:
        return {}

    def next(self, free: Sequence[Worker], workers: Sequence[Worker], now: int) -> Next | None:
        worker = self.in_turn(free)
        if now >= self._next_crash:
            mean = CRASH_INTERVAL * SECOND / len(workers)
            self._next_crash = now + int(self._rng.uniform(0, 2 * mean))
            return worker, "crash", None
        f, key, message = self._due
        if self._rng.random() < ASSIGN:
            return worker, "assign", *self._assignment(str(key))
        self._due = self._transactions.micro_op("send")
        if f == "send":
            return worker, "send", [[SEND, str(key), message]]
        return worker, "poll", [[POLL]]

    def _assignment(self, key: str) -> tuple[list[str], Extras]:
        """Returns the keys of an assign, and its extras."""
        unseen = {
            key: {Keyword("polled"): self._polled.get(key, -1), Keyword("sent"): sent}
            for key, sent in self._sent.items()
            if sent > self._polled.get(key, -1)
        }
        if not unseen or self._rng.random() >= CATCH_UP:
            return [key], {}
        shown = {int(key): unseen[key] for key in in_order(unseen)}
        return [*dict.fromkeys([*unseen, key])], {Keyword("unseen"): shown}

    def converse(
        self, f: str, value: Any, extras: Extras | None, state: Offsets
    ) -> Conversation:
        if f == "crash":
            raise Crashed
        if f == "assign":
            from_beginning = bool(extras and extras.get(FROM_BEGINNING))
            return (yield from _assign(value, from_beginning, state))
        if f == "send":
            return (yield from self._send(*value[0][1:]))
        return (yield from self._poll(state))

    def _send(self, key: str, message: Any) -> Conversation:
        reply = yield {"type": "send", "key": key, "msg": message}
        expect(reply, "send_ok", {"offset"})
        offset = expect_integer(reply, "offset")
        _raise_to(self._sent, {key: offset})
        return [[SEND, key, [offset, message]]]

    def _poll(self, state: Offsets) -> Conversation:
        reply = yield {"type": "poll", "offsets": {**state}}
        expect(reply, "poll_ok", {"msgs"})
        messages = _expect_messages(reply)
        highest = _highest(messages)
        _raise_to(state, {key: offset + 1 for key, offset in highest.items()})
        if got := {key: offset for key, offset in highest.items() if messages[key]}:
            reply = yield {"type": "commit_offsets", "offsets": got}
            expect(reply, "commit_offsets_ok", set())
        _raise_to(self._polled, highest)
        return [[POLL, messages]]

    def check(self, ops: Sequence[Op]) -> Results:
        return self.judged(kafka.check(ops))


class FinalPolls:
    """The final phase: a new client of each thread polls all keys from the beginning.

    A thread stops when its polls have reached the highest known offset of each key, or after
    FINAL_TIME. Without a known offset there is nothing to do.
    """

    def __init__(
        self, rng: random.Random, sent: Mapping[str, int], polled: Mapping[str, int]
    ) -> None:
        self._rng = rng
        self._sent = sent
        self._polled = polled

    def steps(self) -> Ending:
        wanted: Offsets = {}
        _raise_to(wanted, self._sent)
        _raise_to(wanted, self._polled)
        if not wanted:
            return
        crashed = yield Step("crash")
        assigned = yield Step("assign", in_order(wanted), {FROM_BEGINNING: True})
        now = start = assigned.time
        while wanted and start < crashed.time + FINAL_TIME:
            extras = {Keyword("poll-ms"): 1000}
            polled = yield Step("poll", [[POLL]], extras, delay=start - now)
            now = polled.time
            start = max(now, start + int(self._rng.uniform(0, FINAL_GAP)))
            reached = _highest(polled.value[0][1]) if polled.type == "ok" else {}
            for key, offset in reached.items():
                if offset >= wanted.get(key, -1):
                    wanted.pop(key, None)


def _assign(keys: list[str], from_beginning: bool, state: Offsets) -> Conversation:
    """Assigns keys to a client. Maelstrom's client ignores the committed offsets, too."""
    if not from_beginning:
        reply = yield {"type": "list_committed_offsets", "keys": keys}
        expect(reply, "list_committed_offsets_ok", {"offsets"})
        _expect_offsets(reply)
    old = {} if from_beginning else {**state}
    state.clear()
    state.update({key: old.get(key, 0) for key in keys})
    return keys


def _expect_offsets(reply: Body) -> None:
    offsets = reply["offsets"]
    if not isinstance(offsets, dict):
        raise ValueError("its offsets must be an object")
    for key in offsets:
        expect_integer(offsets, key)


def _expect_messages(reply: Body) -> dict[str, list[Any] | None]:
    """Returns the messages of a reply. A list may be null, as in Maelstrom."""
    messages = reply["msgs"]
    if not isinstance(messages, dict):
        raise ValueError("its msgs must be an object")
    for key, pairs in messages.items():
        if not (pairs is None or (isinstance(pairs, list) and all(map(_is_pair, pairs)))):
            raise ValueError(
                f'its messages of the key "{key}" must be a list of [offset, message], and each '
                "offset an integer"
            )
    return messages


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and type(pair[0]) is int


def _highest(messages: Mapping[str, list[Any] | None]) -> Offsets:
    """Returns the highest offset of each key's messages; -1 for a key without messages."""
    return {
        key: max((offset for offset, _ in pairs or []), default=-1)
        for key, pairs in messages.items()
    }


def _raise_to(offsets: Offsets, others: Mapping[str, int]) -> None:
    """Raises offsets to those of others that are higher."""
    for key, offset in others.items():
        offsets[key] = max(offset, offsets.get(key, offset))


def in_order(keys: Mapping[str, Any]) -> list[str]:
    """Sorts keys, which are numbers, by number."""
    return sorted(keys, key=lambda key: (len(key), key))
