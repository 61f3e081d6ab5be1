"""Checks the logs of kafka: offsets, messages, and the order in which each client saw them.

Operations are lists of micro-ops: `[:send key message]`, whose result is `[:send key [offset
message]]`, and `[:poll {key [[offset message] ...]}]`. Maelstrom makes only lists of one. The log
of a key maps each offset to the messages that clients sent or polled there. A message's *position*
is its index among the offsets in use, so gaps between offsets do not matter.

| error type            | found when                                                               |
|-----------------------|--------------------------------------------------------------------------|
| inconsistent-offsets  | one offset holds several messages                                        |
| duplicate             | one message is at several offsets                                        |
| lost-write            | an acknowledged send was never polled, though a later position was       |
| unseen                | acknowledged sends were never polled                                     |
| G1a                   | a poll shows the message of a failed send                                |
| int-poll-skip         | within an operation, polled positions step over one that is in use       |
| int-nonmonotonic-poll | within an operation, polled positions do not rise                        |
| poll-skip             | a process's poll steps over positions since its previous poll            |
| nonmonotonic-poll     | a process's poll starts at or before the position where it had left off  |
| nonmonotonic-send     | a process's send gets no higher position than its previous send          |
| precommitted-read     | an operation polls its own message                                       |
| G1c                   | operations in a cycle: each polls a message of the one before            |
| G1c-realtime          | such a cycle in which some operations only began after the one before    |

Some types follow from these. int-send-skip and int-nonmonotonic-send are the same as
int-poll-skip and int-nonmonotonic-poll, for the sends of one operation. PL-2-cycle-exists comes
with G1c, and strong-PL-2-cycle-exists with G1c-realtime. empty-transaction-graph is a history in
which no two operations are related, neither by a message nor by time.

All of them make a history invalid, except int-send-skip. A message sent by an operation with an
unknown outcome is in the log only if a poll shows it. A key's memory for skips survives an assign
that names the key, and not a new process. Nothing requires that a poll shows recent messages.

Jepsen's checker crashes, without a verdict, on a polled message that nobody sent, and on an empty
answer for a key of which nobody polls a message. Here the first gives unknown unless there are
other errors, and the second is nothing wrong.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ..record.edn import Keyword
from ..record.history import HistoryError, Op, clients, to_map
from ..units import SECOND
from ..verdicts import Results
from .clojure import identity, in_order, map_key, set_order
from .verdict import Verdict, at, limited, results, show

ALLOWED = {"int-send-skip"}
FS = ("send", "poll", "txn")  # operations with micro-ops
MESSAGES_KEPT = 32  # unseen messages kept of a key
KEPT = {"duplicate": 32, "inconsistent-offsets": 32}  # errors kept of a type
KEPT |= dict.fromkeys(("lost-write", "G1a", "precommitted-read"), 1_000_000)
KEPT_OF_OTHERS = 8

# Keys and messages are held as identities. `History.values` has their values.
Key = Hashable
Message = Hashable
Messages = dict[Key, list[tuple[int | None, Message]]]  # with their offsets; None if unknown
NOTHING: Message = object()  # stands for the last message of an empty list


@dataclass(frozen=True, slots=True)
class Error:
    """A case of an error type."""

    entry: Any  # the case in the results, usually a map
    why: str
    rank: int = 0  # results keep the errors with the lowest rank


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
            # Of several messages at one offset, the first in Jepsen's set of them counts.
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


def check(ops: Sequence[Op]) -> Verdict:
    """Judges a history of kafka."""
    history = History(clients(ops))
    errors = history.errors()
    types = sorted(errors)
    bad = [type for type in types if type not in ALLOWED]
    foreign = history.foreign()
    why = history.explain({type: errors[type] for type in bad})
    valid: bool | None = not bad
    if not history.ops:
        valid, why = None, ["There are no operations, so there is nothing to judge."]
    elif valid and foreign:
        valid, why, foreign = None, foreign, []
    entries: dict[str, Any] = {
        "worst-realtime-lag": history.worst_realtime_lag(),
        "bad-error-types": [Keyword(type) for type in bad],
        "error-types": [Keyword(type) for type in types],
        "info-txn-causes": history.info_causes(),
        **{type: _condense(type, errors[type]) for type in types},
    }
    return Verdict(valid, results(valid, entries), limited(why), limited(foreign))


def _condense(type: str, errors: list[Error]) -> Any:
    """Returns the results' entry for an error type, with some of its errors."""
    if type == "unseen":
        return errors[0].entry
    if type == "empty-transaction-graph":
        return {Keyword("count"): 1, Keyword("errs"): True}
    kept = sorted(errors, key=lambda error: error.rank)[: KEPT.get(type, KEPT_OF_OTHERS)]
    return {Keyword("count"): len(errors), Keyword("errs"): [error.entry for error in kept]}


class History:
    """A history, indexed for the searches. Each search is a method that yields its errors."""

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

    def entry(self, key: Key, **entries: Any) -> Results:
        """Makes the map of an error. Underscores in names become hyphens."""
        named = {Keyword(name.replace("_", "-")): item for name, item in entries.items()}
        return {Keyword("key"): self.values[key], **named}

    def show(self, *names: Hashable) -> str:
        """Shows keys or messages as text."""
        more = ", ..." if len(names) > 5 else ""
        return ", ".join(show(self.values[name]) for name in names[:5]) + more

    def worth(self, names: Iterable[Hashable]) -> list[Any]:
        """Returns the values of keys or messages."""
        return [self.values[name] for name in names]

    # The searches

    def errors(self) -> dict[str, list[Error]]:
        """Returns the errors of each type that has any."""
        found: dict[str, list[Error]] = defaultdict(list)
        searches = (
            self._inconsistent_offsets,
            self._duplicates,
            self._aborted_reads,
            self._precommitted_reads,
            self._lost_writes,
            self._unseen,
            self._within,
            self._poll_order,
            self._send_order,
            self._cycles,
        )
        for search in searches:
            for type, error in search():
                found[type].append(error)
        return dict(found)

    def explain(self, errors: dict[str, list[Error]]) -> list[str]:
        """Lists the reasons: first one of each type, then the others."""
        texts = [
            [f"{type}: {error.why}" for error in cases if error.why]
            for type, cases in errors.items()
        ]
        return [text[0] for text in texts if text] + [line for text in texts for line in text[1:]]

    def _inconsistent_offsets(self) -> Iterator[tuple[str, Error]]:
        for key, log in self.logs.items():
            for index, (offset, messages) in enumerate(sorted(log.offsets.items())):
                if len(messages) > 1:
                    values = in_order(self.worth(messages))
                    entry = self.entry(key, offset=offset, index=index, values=values)
                    text = f"offset {offset} of key {self.show(key)} holds messages "
                    text += f"{self.show(*messages)}."
                    yield "inconsistent-offsets", Error(entry, text, len(messages))

    def _duplicates(self) -> Iterator[tuple[str, Error]]:
        for key, log in self.logs.items():
            places: dict[Message, list[int]] = defaultdict(list)
            for offset, messages in sorted(log.offsets.items()):
                for message in messages:
                    places[message].append(offset)
            for message, offsets in places.items():
                if (count := len(offsets)) > 1:
                    value = self.values[message]
                    entry = self.entry(key, value=value, count=count, offsets=offsets)
                    text = f"message {show(value)} of key {self.show(key)} is at offsets "
                    yield "duplicate", Error(entry, f"{text}{', '.join(map(str, offsets))}.", count)

    def _aborted_reads(self) -> Iterator[tuple[str, Error]]:
        failed = {name for event in self.done if event.op.type == "fail" for name in event.sends()}
        for event in self.done:
            for key, message in event.polls() if event.op.type == "ok" else ():
                if (key, message) in failed:
                    writer = self.sender[key, message]
                    entry = self.entry(
                        key,
                        value=self.values[message],
                        writer=to_map(writer.op),
                        reader=to_map(event.op),
                    )
                    text = f"{event} shows message {self.show(message)} of key {self.show(key)}, "
                    yield "G1a", Error(entry, f"{text}but {writer} failed.")

    def _precommitted_reads(self) -> Iterator[tuple[str, Error]]:
        for event in self.events:
            own = set(event.polls()).intersection(event.sends())
            if own:
                key, message = next(name for name in event.sends() if name in own)
                entry = self.entry(key, value=self.values[message], op=to_map(event.op))
                text = f"{event} polls its own message {self.show(message)}, not yet committed."
                yield "precommitted-read", Error(entry, text)

    def _lost_writes(self) -> Iterator[tuple[str, Error]]:
        for key, seen in self.seen.items():
            log = self.logs.get(key)
            bound = max((log.first.get(message, -1) for message in seen), default=-1) if log else -1
            if log is None or bound < 0:
                continue  # nobody polled a message of this key
            highest = next(iter(log.last[bound]), log.messages[bound])
            readers = self.pollers.get((key, highest)) or self.pollers[key, log.messages[bound]]
            for message in (message for there in log.last[: bound + 1] for message in there):
                writer = self.sender.get((key, message))
                if message in seen or writer is None or not self.took_effect(writer):
                    continue
                entry = self.entry(
                    key,
                    value=self.values[message],
                    index=log.first[message],
                    max_read_index=bound,
                    writer=to_map(writer.op),
                    max_read=to_map(readers[0].op) if readers else None,
                )
                past = f"{readers[0]} shows" if readers else "polls show"
                text = (
                    f"message {self.show(message)} of key {self.show(key)} is lost: {writer} "
                    f"put it at position {log.first[message]}, and no poll shows it, though "
                    f"{past} message {self.show(highest)} at position {bound}."
                )
                yield "lost-write", Error(entry, text)

    def _unseen(self) -> Iterator[tuple[str, Error]]:
        """Compares the acknowledged sends with the ok polls.

        Jepsen makes a slip that is repeated here, so that the verdicts agree: when an ok operation
        polls a key to which no send was acknowledged so far, the messages count as unseen until
        the next ok operation. It shows only at the end of a history.
        """
        unseen: dict[Key, set[Message]] = {}
        polled: dict[Key, set[Message]] = {}
        acknowledged = [event for event in self.done if event.op.type == "ok"]
        for event in acknowledged:
            for key, message in event.sends():
                unseen.setdefault(key, set()).add(message)
            fresh = event.sent.keys() | event.polled.keys()
            for key, message in event.polls():
                polled.setdefault(key, set()).add(message)
            slip = [key for key in event.polled if key not in unseen]
            for key in fresh & unseen.keys():
                unseen[key] -= polled.get(key, set())
            last = event is acknowledged[-1]
            for key in slip:
                unseen[key] = set(polled.get(key, ())) if last else set()
        unseen = {key: messages for key, messages in unseen.items() if messages}
        if not unseen:
            return
        keys = sorted(unseen, key=self.show)
        entry = {
            Keyword("time"): acknowledged[-1].op.time,
            Keyword("unseen"): {map_key(self.values[key]): len(unseen[key]) for key in keys},
            Keyword("messages"): {
                map_key(self.values[key]): in_order(self.worth(unseen[key]))[:MESSAGES_KEPT]
                for key in keys
            },
        }
        for key in keys:
            messages = [self._name(value) for value in in_order(self.worth(unseen[key]))]
            which = f"message {self.show(*messages)} of key {self.show(key)}"
            if messages[0] in self.seen.get(key, ()):
                text = (
                    f"{which} was polled by the last operation, but its send was not acknowledged."
                )
            else:
                text = f"{which} was sent and acknowledged, but no poll ever shows it."
            yield "unseen", Error(entry, text)

    def _within(self) -> Iterator[tuple[str, Error]]:
        """Finds skips and steps back within an operation."""
        for event in self.events:
            yield from self._internal(event, event.polled, "poll")
            if event.op.type != "invoke":
                yield from self._internal(event, event.sent, "send")

    def _internal(self, event: Event, source: Messages, f: str) -> Iterator[tuple[str, Error]]:
        for key, pairs in source.items():
            for (_, before), (_, after) in pairwise(pairs):
                delta = self.step(key, before, after)
                values = self.worth([before, after])
                text = f"{event} {f}s message {self.show(before)} of key {self.show(key)}, then "
                if delta > 1:
                    skipped = self.logs[key].between(before, after)
                    entry = self.entry(
                        key,
                        values=values,
                        delta=delta,
                        skipped=self.worth(skipped),
                        op=to_map(event.op),
                    )
                    text += f"{self.show(after)}; it skips {self.show(*skipped)}."
                    yield f"int-{f}-skip", Error(entry, text, -delta)
                elif delta < 1:
                    entry = self.entry(key, values=values, delta=delta, op=to_map(event.op))
                    text += f"{self.show(after)}, which is not after it in the log."
                    yield f"int-nonmonotonic-{f}", Error(entry, text, delta)

    def _poll_order(self) -> Iterator[tuple[str, Error]]:
        """Compares each poll with the process's previous ok poll of the same key."""
        for last, event, key in self._successions(polls=True):
            before = last.polled[key][-1][1] if last.polled[key] else NOTHING
            after = event.polled[key][0][1] if event.polled[key] else NOTHING
            delta = self.step(key, before, after)
            where = f"key {self.show(key)}: {last} ended with message {self.show(before)}, and"
            ops = [to_map(last.op), to_map(event.op)]
            if delta > 1:
                skipped = self.logs[key].between(before, after)
                entry = self.entry(key, delta=delta, skipped=self.worth(skipped), ops=ops)
                text = f"{where} {event} begins with {self.show(after)}; it skips "
                yield "poll-skip", Error(entry, f"{text}{self.show(*skipped)}.", -delta)
            elif delta < 1:
                entry = self.entry(key, values=self.worth([before, after]), delta=delta, ops=ops)
                text = f"{where} {event} goes back to {self.show(after)}."
                yield "nonmonotonic-poll", Error(entry, text, delta)

    def _send_order(self) -> Iterator[tuple[str, Error]]:
        """Compares each send with the process's previous send to the same key."""
        for last, event, key in self._successions(polls=False):
            before, after = last.sent[key][-1][1], event.sent[key][0][1]
            delta = self.step(key, before, after)
            if delta < 1:
                ops = [to_map(last.op), to_map(event.op)]
                entry = self.entry(key, values=self.worth([before, after]), delta=delta, ops=ops)
                text = (
                    f"key {self.show(key)}: {last} wrote message {self.show(before)}, and then "
                    f"{event} wrote {self.show(after)} to a position that is not higher."
                )
                yield "nonmonotonic-send", Error(entry, text, delta)

    def _successions(self, polls: bool) -> Iterator[tuple[Event, Event, Key]]:
        """Yields a process's two events that poll a key one after the other, or send to it.

        An assign forgets the keys that it does not name.
        """
        memory: dict[int | str, dict[Key, Event]] = defaultdict(dict)
        events = {event.op.index: event for event in self.done}
        for op in self.ops:
            last = memory[op.process]
            if op.f in ("assign", "subscribe") and op.type in ("ok", "info"):
                named = set(map(identity, _assigned(op)))
                memory[op.process] = {key: event for key, event in last.items() if key in named}
            event = events.get(op.index)
            if event is None or (op.type == "fail" and not polls):
                continue
            for key in event.polled if polls else event.sent:
                if key in last:
                    yield last[key], event, key
                if op.type == "ok" or not polls:
                    last[key] = event

    def foreign(self) -> list[str]:
        """Tells of polled messages that nobody sent."""
        return [
            f"{events[0]} shows message {self.show(message)} of key {self.show(key)}, "
            "but nobody sent it."
            for (key, message), events in self.pollers.items()
            if (key, message) not in self.invoked
        ]

    # Cycles

    def _cycles(self) -> Iterator[tuple[str, Error]]:
        """Finds cycles of two relations: a poll shows a send; one ended before another began."""
        number = {event: index for index, event in enumerate(self.done)}
        shows: list[set[int]] = [set() for _ in self.done]  # from a send to its polls
        for name, events in self.pollers.items():
            if writer := self.sender.get(name):
                readers = {number[event] for event in events if event is not writer}
                shows[number[writer]] |= readers
        both, related = self._with_realtime(shows)
        if not related and self.ops:
            why = "no two sends or polls are related by time or by a message: too few to judge."
            yield "empty-transaction-graph", Error(True, why)
        inner = _components([sorted(after) for after in shows])
        for component in inner:
            cycle = _cycle(component, [sorted(after) for after in shows])
            yield "G1c", self._cycle_error("G1c", cycle, shows)
            yield "PL-2-cycle-exists", self._exists("PL-2-cycle-exists", component)
        in_plain = {index for component in inner for index in component}
        for component in _components(both):
            numbers = [index for index in component if index < len(self.done)]
            if in_plain.isdisjoint(numbers):
                cycle = self._reversed(numbers, shows) or _cycle(component, both)
                cycle = [index for index in cycle if index < len(self.done)]
                yield "G1c-realtime", self._cycle_error("G1c-realtime", cycle, shows)
                type = "strong-PL-2-cycle-exists"
                yield type, self._exists(type, numbers)

    def _reversed(self, numbers: list[int], shows: list[set[int]]) -> list[int]:
        """Returns a send and a poll that shows it though it ended before the send began.

        A cycle of operations with one micro-op always contains such a pair.
        """
        for send in numbers:
            begun = self.done[send].begun
            for poll in sorted(shows[send].intersection(numbers)):
                if begun and self.done[poll].op.index < begun.index:
                    return [send, poll]
        return []

    def _with_realtime(self, shows: list[set[int]]) -> tuple[list[list[int]], bool]:
        """Adds realtime edges; also tells whether there is an edge at all.

        A moment is an extra node. Each ok completion leads to a new moment, each moment to the
        next one, and the latest moment at an invocation leads to that operation's completion.
        """
        edges = [sorted(after) for after in shows]
        number = {event.op.index: index for index, event in enumerate(self.done)}
        completion = {e.begun.index: index for index, e in enumerate(self.done) if e.begun}
        moment: int | None = None
        related = any(edges)
        for event in self.events:
            if event.op.type == "ok":
                edges.append([])
                if moment is not None:
                    edges[moment].append(len(edges) - 1)
                moment = len(edges) - 1
                edges[number[event.op.index]].append(moment)
            elif event.op.index in completion and moment is not None:
                edges[moment].append(completion[event.op.index])
                related = True
        return edges, related

    def _cycle_error(self, type: str, cycle: list[int], shows: list[set[int]]) -> Error:
        steps = []
        texts = []
        for start, end in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            seen = end in shows[start]
            steps.append({Keyword("type"): Keyword("wr" if seen else "realtime")})
            one, other = self.done[start], self.done[end]
            begun = f"began {at(other.begun)}" if other.begun else "began"
            ended = f"{one} ended before {other} {begun}"
            texts.append(f"{other} shows a message of {one}" if seen else ended)
        entry = {
            Keyword("cycle"): [to_map(self.done[index].op) for index in [*cycle, cycle[0]]],
            Keyword("steps"): steps,
            Keyword("type"): Keyword(type),
        }
        return Error(entry, f"{', but '.join(texts)}.", len(steps))

    def _exists(self, type: str, component: list[int]) -> Error:
        return Error({Keyword("type"): Keyword(type), Keyword("scc-size"): len(component)}, "")

    # Other results

    def info_causes(self) -> list[Any]:
        """Returns the distinct errors of operations with an unknown outcome."""
        infos = [event.op.error for event in self.done if event.op.type == "info"]
        return list({identity(error): error for error in infos}.values())

    def worst_realtime_lag(self) -> Results:
        """Returns the poll that lagged most behind its key's log, with times in seconds.

        A poll's lag is the time from the moment when a higher offset than its highest was known,
        to the poll's invocation. An assigned key starts at offset -1.
        """
        tails: dict[Key, list[tuple[int, int]]] = {}  # each highest offset, and when first known
        for event in self.done:
            for key, offset in _highest(event).items():
                known = tails.setdefault(key, [(-1, 0)])
                if offset > known[-1][0]:
                    known.append((offset, event.op.time))
        worst: tuple[int, int, int | str, Key] | None = None
        offsets: dict[int | str, dict[Key, int]] = defaultdict(dict)
        done = {event.op.index: event for event in self.done}
        for op in self.ops:
            mine = offsets[op.process]
            poll = done.get(op.index)
            if op.f == "assign" and op.type == "ok":
                names = map(self._name, _assigned(op))
                offsets[op.process] = {key: mine.get(key, -1) for key in names}
            elif poll and poll.begun and op.type == "ok" and op.f != "send":
                for key, offset in _highest(poll).items():
                    mine[key] = max(offset, mine.get(key, offset))
                start = poll.begun.time
                for key, offset in mine.items():
                    known = tails.get(key, [])
                    higher = bisect_right(known, offset, key=lambda tail: tail[0])
                    lag = max(0, start - known[higher][1]) if higher < len(known) else 0
                    if worst is None or lag > worst[0]:
                        worst = lag, start, op.process, key
        if worst is None:
            return {Keyword("time"): 0.0, Keyword("lag"): 0.0}
        lag, start, process, key = worst
        return {
            Keyword("time"): start / SECOND,
            Keyword("process"): process,
            Keyword("key"): self.values[key],
            Keyword("lag"): lag / SECOND,
        }


def _assigned(op: Op) -> list[Any]:
    """Returns the keys of an assign."""
    return op.value if isinstance(op.value, list) else []


def _highest(event: Event) -> dict[Key, int]:
    """Returns the highest offset of each key that an ok or info event sent or polled.

    An empty list counts as -1.
    """
    found: dict[Key, int] = {}
    if event.op.type == "fail":
        return found
    for key, pairs in event.sent.items():
        known = [offset for offset, _ in pairs if offset is not None]
        if known:
            found[key] = max(known)
    for key, pairs in event.polled.items():
        known = [offset for offset, _ in pairs if offset is not None]
        found[key] = max([found.get(key, -1), *known])
    return found


def _components(edges: list[list[int]]) -> list[list[int]]:
    """Returns the strongly connected components with two nodes or more (Tarjan's algorithm)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    found: list[list[int]] = []
    for root in range(len(edges)):
        if root in index:
            continue
        work = [(root, iter(edges[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, after = work[-1]
            following = next(after, None)
            if following is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    component = [stack.pop()]
                    while component[-1] != node:
                        component.append(stack.pop())
                    on_stack.difference_update(component)
                    if len(component) > 1:
                        found.append(sorted(component))
            elif following not in index:
                index[following] = low[following] = len(index)
                stack.append(following)
                on_stack.add(following)
                work.append((following, iter(edges[following])))
            elif following in on_stack:
                low[node] = min(low[node], index[following])
    return found


def _cycle(component: list[int], edges: list[list[int]]) -> list[int]:
    """Returns a shortest cycle through the component's first node."""
    inside = set(component)
    start = component[0]
    before = {start: start}
    queue = [start]
    for node in queue:
        for following in edges[node]:
            if following == start:
                path = [node]
                while path[-1] != start:
                    path.append(before[path[-1]])
                return path[::-1]
            if following in inside and following not in before:
                before[following] = node
                queue.append(following)
    raise AssertionError("a component without a cycle")
