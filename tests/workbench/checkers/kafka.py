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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ..record.edn import Keyword
from ..record.history import Op, clients, to_map
from ..units import SECOND
from ..verdicts import Results
from .clojure import identity, in_order, map_key
from .kafka_cycles import components, shortest_cycle
from .kafka_log import NOTHING, Event, History, Key, Message, Messages
from .verdict import Verdict, at, limited, mistyped, results, show

ALLOWED = {"int-send-skip"}
MESSAGES_KEPT = 32  # unseen messages kept of a key
KEPT = {"duplicate": 32, "inconsistent-offsets": 32}  # errors kept of a type
KEPT |= dict.fromkeys(("lost-write", "G1a", "precommitted-read"), 1_000_000)
KEPT_OF_OTHERS = 8


@dataclass(frozen=True, slots=True)
class Error:
    """A case of an error type."""

    entry: Any  # the case in the results, usually a map
    why: str
    rank: int = 0  # results keep the errors with the lowest rank


def check(ops: Sequence[Op]) -> Verdict:
    """Judges a history of kafka."""
    history = Analysis(clients(ops))
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


class Analysis(History):
    """Searches a history for errors. Each search is a method that yields its errors."""

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

    def _entry(self, key: Key, **entries: Any) -> Results:
        """Makes the map of an error. Underscores in names become hyphens."""
        named = {Keyword(name.replace("_", "-")): item for name, item in entries.items()}
        return {Keyword("key"): self.values[key], **named}

    def _inconsistent_offsets(self) -> Iterator[tuple[str, Error]]:
        for key, log in self.logs.items():
            for index, (offset, messages) in enumerate(sorted(log.offsets.items())):
                if len(messages) > 1:
                    values = in_order(self.worth(messages))
                    entry = self._entry(key, offset=offset, index=index, values=values)
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
                    entry = self._entry(key, value=value, count=count, offsets=offsets)
                    text = f"message {show(value)} of key {self.show(key)} is at offsets "
                    yield "duplicate", Error(entry, f"{text}{', '.join(map(str, offsets))}.", count)

    def _aborted_reads(self) -> Iterator[tuple[str, Error]]:
        failed = {name for event in self.done if event.op.type == "fail" for name in event.sends()}
        for event in self.done:
            for key, message in event.polls() if event.op.type == "ok" else ():
                if (key, message) in failed:
                    writer = self.sender[key, message]
                    entry = self._entry(
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
                entry = self._entry(key, value=self.values[message], op=to_map(event.op))
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
                entry = self._entry(
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
            noun, verb = ("message", "was") if len(messages) == 1 else ("messages", "were")
            which = f"{noun} {self.show(*messages)} of key {self.show(key)} {verb}"
            if messages[0] in self.seen.get(key, ()):
                text = (
                    f"{which} polled by the last operation, but its send was not acknowledged."
                )
            else:
                text = f"{which} sent and acknowledged, but no poll ever shows it."
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
                    entry = self._entry(
                        key,
                        values=values,
                        delta=delta,
                        skipped=self.worth(skipped),
                        op=to_map(event.op),
                    )
                    text += f"{self.show(after)}; it skips {self.show(*skipped)}."
                    yield f"int-{f}-skip", Error(entry, text, -delta)
                elif delta < 1:
                    entry = self._entry(key, values=values, delta=delta, op=to_map(event.op))
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
                entry = self._entry(key, delta=delta, skipped=self.worth(skipped), ops=ops)
                text = f"{where} {event} begins with {self.show(after)}; it skips "
                yield "poll-skip", Error(entry, f"{text}{self.show(*skipped)}.", -delta)
            elif delta < 1:
                entry = self._entry(key, values=self.worth([before, after]), delta=delta, ops=ops)
                text = f"{where} {event} goes back to {self.show(after)}."
                yield "nonmonotonic-poll", Error(entry, text, delta)

    def _send_order(self) -> Iterator[tuple[str, Error]]:
        """Compares each send with the process's previous send to the same key."""
        for last, event, key in self._successions(polls=False):
            before, after = last.sent[key][-1][1], event.sent[key][0][1]
            delta = self.step(key, before, after)
            if delta < 1:
                ops = [to_map(last.op), to_map(event.op)]
                entry = self._entry(key, values=self.worth([before, after]), delta=delta, ops=ops)
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
            f"but nobody sent it{mistyped(message, self.invoked, key)}."
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
        inner = components([sorted(after) for after in shows])
        for component in inner:
            cycle = shortest_cycle(component, [sorted(after) for after in shows])
            yield "G1c", self._cycle_error("G1c", cycle, shows)
            yield "PL-2-cycle-exists", self._exists("PL-2-cycle-exists", component)
        in_plain = {index for component in inner for index in component}
        for component in components(both):
            numbers = [index for index in component if index < len(self.done)]
            if in_plain.isdisjoint(numbers):
                cycle = self._reversed(numbers, shows) or shortest_cycle(component, both)
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
