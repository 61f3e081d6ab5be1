"""The logs of a history of kafka: offsets, messages, their senders and their readers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ..record.edn import Keyword
from ..record.history import HistoryError, Op
from .clojure import identity, set_order
from .verdict import at, show

FS = ("send", "poll", "txn")  # operations with micro-ops

# Keys and messages are held as identities. `History.values` has their values.
Key = Hashable
Message = Hashable
Messages = dict[Key, list[tuple[int | None, Message]]]  # with their offsets; None if unknown
NOTHING: Message = object()  # stands for the last message of an empty list


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """An event, and the messages that it sends and polls."""

    op: Op
    sent: Messages
    polled: Messages
    begun: Op | None = None  # the invocation of a completion

    def __str__(self) -> str:
        return f"process {self.op.process}'s {self.op.f} {at(self.op)}"

    def sends(self) -> Iterator[tuple[Key, Message]]:
        """Yields each sent message with its key."""
        return ((key, message) for key, pairs in self.sent.items() for _, message in pairs)

    def polls(self) -> Iterator[tuple[Key, Message]]:
        """Yields each polled message with its key."""
        return ((key, message) for key, pairs in self.polled.items() for _, message in pairs)


class Log:
    """The log of a key, and the position of each message."""

    def __init__(self, offsets: dict[int, list[Message]]) -> None:
        self.offsets = offsets
        self.messages: list[Message] = []  # the message at each position
        self.position: dict[Message, int] = {}  # a message's last index in `messages`
        self.first: dict[Message, int] = {}  # first position of each message, of all messages
        last: dict[Message, int] = {}
        for position, offset in enumerate(sorted(offsets)):
            # If there are several messages at one offset, the first in Jepsen's set of them counts.
            message = min(offsets[offset], key=set_order)
            self.messages.append(message)
            self.position[message] = position
            for other in offsets[offset]:
                self.first.setdefault(other, position)
                last[other] = position
        self.last: list[list[Message]] = [[] for _ in offsets]  # messages last seen at a position
        for message, position in last.items():
            self.last[position].append(message)

    def step(self, before: Message, after: Message) -> int:
        """Returns the distance from one message to another; 1 if a position is unknown."""
        start, end = self.position.get(before), self.position.get(after)
        return 1 if start is None or end is None else end - start

    def between(self, before: Message, after: Message) -> list[Message]:
        """Returns the messages at the positions between two messages."""
        return self.messages[self.position[before] + 1 : self.position[after]]


class History:
    """A history of kafka, indexed by key and message."""

    def __init__(self, ops: list[Op]) -> None:
        self.ops = ops
        self.values: dict[Hashable, Any] = {NOTHING: None}  # of each key and message
        self.events: list[Event] = []  # those of sends, polls and transactions
        self.done: list[Event] = []  # the completions among them
        pending: dict[int | str, Op] = {}
        for op in ops:
            begun = None if op.type == "invoke" else pending.pop(op.process, None)
            if op.type == "invoke":
                pending[op.process] = op
            elif begun is None or begun.f != op.f:
                raise HistoryError(
                    f"process {op.process} completes a {op.f} (index {op.index}) "
                    "that it did not invoke"
                )
            if op.f in FS:
                self.events.append(Event(op, *self._micro_ops(op), begun))
        self.done = [event for event in self.events if event.op.type != "invoke"]
        # For each key and message: the completion of its send, and those of the polls that show it.
        self.sender = {message: event for event in self.done for message in event.sends()}
        self.invoked = {message for event in self.events for message in event.sends()}
        self.pollers: dict[tuple[Key, Message], list[Event]] = defaultdict(list)
        self.seen: dict[Key, set[Message]] = {}  # messages shown by ok polls
        for event in self.done:
            for key, message in event.polls():
                self.pollers[key, message].append(event)
            for key, pairs in event.polled.items() if event.op.type == "ok" else ():
                self.seen.setdefault(key, set()).update(message for _, message in pairs)
        self.logs = self._logs()

    def _micro_ops(self, op: Op) -> tuple[Messages, Messages]:
        """Returns the messages that an event sends and polls."""
        sent: Messages = {}
        polled: Messages = {}
        try:
            for name, *rest in op.value or []:
                if name == Keyword("send"):
                    key, result = rest
                    acknowledged = isinstance(result, list)
                    offset, message = result if acknowledged else (None, result)
                    sent.setdefault(self._name(key), []).append((offset, self._name(message)))
                elif name == Keyword("poll"):
                    for key, pairs in ((rest and rest[0]) or {}).items():
                        shown = polled.setdefault(self._name(key), [])
                        for offset, message in pairs or []:
                            if not isinstance(offset, int | None):
                                raise ValueError
                            shown.append((offset, self._name(message)))
                else:
                    raise ValueError
        except (TypeError, ValueError, AttributeError) as error:
            raise HistoryError(
                f"the {op.f} at index {op.index} must be a list like [[:send key message]] "
                f"or [[:poll {{key [[offset message]]}}]], not {show(op.value)}"
            ) from error
        return sent, polled

    def _name(self, value: Any) -> Hashable:
        name = identity(value)
        self.values.setdefault(name, value)
        return name

    def _logs(self) -> dict[Key, Log]:
        """Builds the logs, from all polls, and from the sends that took effect."""
        logs: dict[Key, dict[int, list[Message]]] = {}
        for event in self.events:
            sources = [event.sent, event.polled] if self.took_effect(event) else [event.polled]
            for source in sources:
                for key, pairs in source.items():
                    for offset, message in pairs:
                        if offset is not None:
                            there = logs.setdefault(key, {}).setdefault(offset, [])
                            if message not in there:
                                there.append(message)
        return {key: Log(offsets) for key, offsets in logs.items()}

    def took_effect(self, event: Event) -> bool:
        """Tells whether an event's sends certainly took effect."""
        if event.op.type == "info":
            return any(message in self.seen.get(key, ()) for key, message in event.sends())
        return event.op.type == "ok"

    def step(self, key: Key, before: Message, after: Message) -> int:
        """Returns the distance between two messages of a key; 1 if a position is unknown."""
        return self.logs[key].step(before, after) if key in self.logs else 1

    def show(self, *names: Hashable) -> str:
        """Shows keys or messages as text."""
        more = ", ..." if len(names) > 5 else ""
        return ", ".join(show(self.values[name]) for name in names[:5]) + more

    def worth(self, names: Iterable[Hashable]) -> list[Any]:
        """Returns the values of keys or messages."""
        return [self.values[name] for name in names]
