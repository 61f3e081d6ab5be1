"""Nodes in this process, in a time that the test moves: no threads, no sleeps, no processes."""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from workbench.simulation.simulated_cluster import VirtualNode

from node import Body, Message
from raft import Entry, HardState, Log, Snapshot, State, Storage


class InProcessNode(VirtualNode):
    """A node whose clock, chance and output belong to the test."""

    def __init__(self, world: World, life: int = 0) -> None:
        self.world = world
        self.log_lines: list[str] = []
        self.turns = 0
        self.skew = 0.0  # seconds by which its clock is ahead
        super().__init__(
            lambda: world.time + self.skew,
            random.Random(7 + life),
            lambda line: world.sent(self, json.loads(line)),
            self.log_lines.append,
        )

    def _turn(self, action: Callable[..., object], *args: Any) -> None:
        self.turns += 1
        super()._turn(action, *args)

    def receive(self, *messages: Message) -> None:
        """One turn for these messages."""
        self.read("\n".join(map(json.dumps, messages)).encode())

    @property
    def next_due(self) -> float:
        """When it must run, in the world's time."""
        return self.due - self.skew


class Remembered(Storage):
    """Stands in for a storage that has what it is given. All nodes are members."""

    durable = False  # nothing waits for it

    def __init__(
        self, term: int = 0, vote: str | None = None, entries: Iterable[Entry] = ()
    ) -> None:
        super().__init__("")
        self.index = 10**18
        self.hard, self.log = HardState(term, vote), Log(entries=entries)

    def open(
        self, node_id: str, node_ids: Sequence[str], random: random.Random
    ) -> tuple[HardState, Log, Snapshot]:
        self.log.mark_stable()
        return self.hard._replace(members=dict.fromkeys(node_ids, 0)), self.log, Snapshot()

    def save(self, hard: HardState, log: Log, state: State) -> None:
        log.mark_stable()


class World:
    """Nodes, their clients and the messages between them; nothing moves by itself.

    `deliver()` hands over what was sent; a message for which `lost(message)` is true vanishes.
    """

    def __init__(self) -> None:
        self.time = 0.0
        self.nodes: dict[str, InProcessNode] = {}
        self.mail: deque[Message] = deque()  # between nodes, in the order of sending
        self.inbox: list[Message] = []  # what clients got
        self.ready: list[str] = []  # nodes that have answered an init, as often as they did
        self.lost: Callable[[Message], bool] = lambda message: False
        self._msg_id = 0
        self._lives: dict[str, int] = {}

    def sent(self, node: InProcessNode, message: Message) -> None:
        assert message.keys() == {"src", "dest", "body"} and message["src"] == node.node_id
        if message["body"]["type"] == "init_ok":
            self.ready.append(node.node_id)
            return
        (self.mail if message["dest"] in self.nodes else self.inbox).append(message)

    def add(self, node_id: str, make: Callable[[InProcessNode], Any]) -> Any:
        """Makes a node; `make(node)` gives it its handlers, and is returned.

        One that was there is killed, and what comes after it has other luck.
        """
        life = self._lives[node_id] = self._lives.get(node_id, -1) + 1
        node = self.nodes[node_id] = InProcessNode(self, life)
        return make(node)

    def init(self, *node_ids: str) -> None:
        """Sends init to these nodes, or to all."""
        for node_id in node_ids or list(self.nodes):
            self.request(
                node_id, {"type": "init", "node_id": node_id, "node_ids": list(self.nodes)}
            )

    def request(self, node_id: str, body: Body, client: str = "c1") -> int:
        """A client's request, handled in a turn of its own; its msg_id."""
        self._msg_id += 1
        body = {"msg_id": self._msg_id, **body}
        self.nodes[node_id].receive({"src": client, "dest": node_id, "body": body})
        return int(body["msg_id"])

    def count_from(self, msg_id: int) -> None:
        """Clients' next msg_ids are above this: they count on while nodes come and go."""
        self._msg_id = msg_id

    def answer(self, msg_id: int) -> Body | None:
        """The body of the reply that a client got; taken out of the inbox."""
        for message in self.inbox:
            if message["body"].get("in_reply_to") == msg_id:
                self.inbox.remove(message)
                return {k: v for k, v in message["body"].items() if k != "in_reply_to"}
        return None

    def call(self, node_id: str, body: Body) -> Body:
        """A client's request whose answer comes at once."""
        answer = self.answer(self.request(node_id, body))
        assert answer is not None, f"no answer to {body}"
        return answer

    def deliver(self) -> None:
        """Hands over all messages until none is under way; time stands still."""
        while self.mail:
            self.step()

    def step(self) -> None:
        """Hands over the first message."""
        message = self.mail.popleft()
        if not self.lost(message):
            self.nodes[message["dest"]].receive(message)

    def advance(self, seconds: float, delivering: bool = True) -> None:
        """Moves time on, running the timers that come due and delivering what they send."""
        end = self.time + seconds
        while True:
            if delivering:
                self.deliver()
            node = min(self.nodes.values(), key=lambda node: node.next_due)
            if node.next_due > end:
                break
            self.time = max(self.time, node.next_due)
            node.run()
        self.time = end

    def until(self, condition: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Moves time on, timer by timer, until the condition holds; returns what it found."""
        end = self.time + seconds
        while not (found := condition()):
            self.deliver()
            node = min(self.nodes.values(), key=lambda node: node.next_due)
            assert node.next_due <= end, "it did not happen in time"
            if found := condition():
                break
            self.time = max(self.time, node.next_due)
            node.run()
        return found
