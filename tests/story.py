"""Writes a trace of raft.py's nodes, line by line: their messages and changes of state."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import takewhile
from random import Random

from in_process import World
from remembered import Remembered
from workbench.simulation.raft_words import entries, told

from node import Body, Message
from raft import Entry, Raft

LATENCY = 0.01  # seconds; of each message between servers


class Dice(Random):
    """A node's random generator, controlled by the scene."""

    luck = 0.0

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) * self.luck


class Stuck(Exception):
    """A scene waits for an event that does not happen. `lines` has the trace so far."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(lines[-1])
        self.lines = lines


class Story(World):
    """Nodes with these logs, each given as the terms of its entries. `lines` is the trace.

    Times count from the first line. Messages to crashed nodes are left out. A repeated
    append_entries, or answer to one, is left out unless a client has sent a request since.
    """

    def __init__(self, logs: dict[str, str], term: int = 0, first: str = "") -> None:
        super().__init__()
        self.lines: list[str] = []
        self.dice = {node_id: Dice(7) for node_id in logs}
        self.rafts: dict[str, Raft] = {}
        self.arrivals: list[tuple[float, Message]] = []  # messages in flight, by time of arrival
        self._start: float | None = None  # time of the first line; None before it
        self._said: dict[tuple[str, str, str], str] = {}  # by source, destination and type
        self._speaker = ""  # time and source of the last line
        self._told: dict[str, int] = {}  # messages of that source and time, and their lines
        # For each node: number of its log lines, terms of its log, and commit index, last seen.
        self._seen: dict[str, tuple[int, list[int], int]] = {}
        self.first(*first.split())
        for node_id, terms in logs.items():
            self.begin(node_id, term, None, [Entry(int(term)) for term in terms.split()])
        if any(logs.values()):
            self.show_logs()
        for node_id in logs:
            self.start(node_id)

    # Directing a scene

    def first(self, *node_ids: str) -> None:
        """Makes these nodes draw the shortest timeout from now on, and all others a long one."""
        for node_id, dice in self.dice.items():
            dice.luck = 0.0 if node_id in node_ids else 99.0

    def begin(self, node_id: str, term: int, vote: str | None, entries: Iterable[Entry]) -> None:
        """Makes a server that has only its persistent state."""
        storage = Remembered(term, vote, entries)
        self.rafts[node_id] = self.add(node_id, lambda node: Raft(node, storage=storage))
        self.nodes[node_id].random = self.dice[node_id]
        self.rafts[node_id].log = storage.log
        self._seen[node_id] = (0, self.terms(node_id), 0)

    def start(self, node_id: str) -> None:
        self.request(node_id, {"type": "init", "node_id": node_id, "node_ids": [*self.dice]})

    def crash(self, node_id: str) -> None:
        self.tell(f"{node_id} crashes")
        del self.nodes[node_id]

    def restart(self, node_id: str) -> None:
        self.tell(f"{node_id} restarts")
        old = self.rafts[node_id]
        self.begin(node_id, old.term, old.voted_for, old.log.from_index(1, old.log.size + 1))
        self.start(node_id)

    def cut_off(self, *side: str) -> None:
        """Cuts all links between these nodes and the others."""
        self.tell(f"{' '.join(side)} cut off from the others")
        self.lost = lambda message: (message["src"] in side) != (message["dest"] in side)

    def lose(self, term: int = 0, to: str = "") -> None:
        """Loses each message that has an entry of this term, or that is to this node."""
        self.lost = lambda message: (
            message["dest"] == to
            or term in [entry[0] for entry in message["body"].get("entries", [])]
        )

    def heal(self) -> None:
        self.tell("all hear each other again")
        self.lost = lambda message: False

    def request(self, node_id: str, body: Body, client: str = "c1") -> int:
        if text := told(body):
            self.tell(f"{client} -> {node_id}  {text}")
            self._said.clear()
        msg_id = super().request(node_id, body, client)
        self.observe(node_id)
        return msg_id

    def until(self, condition: Callable[[], object], seconds: float = 5.0) -> object:
        """Runs events, one by one, until condition() is true. Raises Stuck if that takes too long.

        Returns the condition's value.
        """
        end = self.time + seconds
        while not (found := condition()):
            if not self.happens(end):
                raise Stuck([*self.lines, f"The scene's condition did not hold within {seconds} s"])
        return found

    def leads(self, node_id: str) -> None:
        """Runs until this node leads."""
        self.until(lambda: self.rafts[node_id].role == "leader")

    def has(self, node_id: str, terms: str) -> None:
        """Runs until this node has a log of these terms."""
        self.until(lambda: self.terms(node_id) == [*map(int, terms.split())])

    def passes(self, seconds: float) -> None:
        """Runs for `seconds`."""
        end = self.time + seconds
        while self.happens(end):
            pass
        self.time = end

    def happens(self, end: float) -> bool:
        """Runs the next event, a message or timers. Returns False if there is none by `end`."""
        node = min(self.nodes.values(), key=lambda node: node.next_due)
        arrival = self.arrivals[0][0] if self.arrivals else end + 1
        if min(arrival, node.next_due) > end:
            return False
        self.time = max(self.time, min(arrival, node.next_due))
        if arrival <= node.next_due:
            _, message = self.arrivals.pop(0)
            if message["dest"] in self.nodes:
                self.nodes[message["dest"]].receive(message)
                self.observe(message["dest"])
        else:
            node.run()
            self.observe(node.node_id)
        return True

    # Writing the trace

    def tell(self, text: str, to: str = "", what: str = "") -> None:
        """Writes a line: an event `text`, or a message `what` from node `text` to node `to`.

        Equal messages from a node at the same time share a line.
        """
        if self._start is None:
            self._start = self.time
        when = f"{self.time - self._start:6.2f}  {text}"
        if when != self._speaker:
            self._speaker, self._told = when, {}
        line = self._told.setdefault(what, len(self.lines)) if to else len(self.lines)
        if line < len(self.lines):
            self.lines[line] = self.lines[line].replace(f"  {what}", f" {to}  {what}")
        else:
            self.lines.append(f"{when} -> {to}  {what}" if to else when)

    def terms(self, node_id: str) -> list[int]:
        log = self.rafts[node_id].log
        return [entry.term for entry in log.from_index(1, log.size + 1)]

    def chapter(self, text: str) -> None:
        self.lines += ["", text]

    def show_logs(self) -> None:
        """Writes the logs as the paper draws them, as the terms of their entries."""
        width = max(map(len, self.dice))
        for node_id in self.dice:
            terms = " ".join(map(str, self.terms(node_id)))
            self.lines.append(f"        {node_id:{width}} | {terms}".rstrip())

    def observe(self, node_id: str) -> None:
        """Writes the changes of a node in its last turn."""
        node, server, terms = self.nodes[node_id], self.rafts[node_id], self.terms(node_id)
        lines, old, commit = self._seen[node_id]
        self._seen[node_id] = (len(node.log_lines), terms, server.commit_index)
        for line in node.log_lines[lines:]:
            self.tell(line)
        pairs = zip(old, terms, strict=False)
        same = len([*takewhile(lambda pair: pair[0] == pair[1], pairs)])
        if same < len(old):
            self.tell(f"{node_id} drops {entries(same + 1, old[same:])}")
        if committed := terms[commit : server.commit_index]:
            self.tell(f"{node_id} commits {entries(commit + 1, committed)}")

    def sent(self, node: object, message: Message) -> None:
        source, to, body = message["src"], message["dest"], message["body"]
        self.observe(source)
        server = to in self.dice
        if not (text := told(body)) or (server and to not in self.nodes):
            return
        if lost := server and self.lost(message):
            text += " (lost)"
        key = (source, to, body["type"])
        if not body["type"].startswith("append_entries") or self._said.get(key) != text:
            self.tell(source, to, text)
        self._said[key] = text
        if server and not lost:
            self.arrivals.append((self.time + LATENCY, message))
