"""Runs nodes inside the test's process, on a clock that the test advances. No threads or sleeps."""

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
    """A node whose clock, random generator and output belong to the test."""

    def __init__(self, world: World, life: int = 0) -> None:
        self.world = world
        self.log_lines: list[str] = []
        self.turns = 0
        self.skew = 0.0  # seconds; how far its clock is ahead of the world's
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
        """Handles these messages in one turn."""
        self.read("\n".join(map(json.dumps, messages)).encode())

    @property
    def next_due(self) -> float:
        """Time of the node's next timer, on the world's clock."""
        return self.due - self.skew


class Remembered(Storage):
    """A fake storage, which has what it is given. All nodes are members."""

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
    """Nodes, their clients, and the messages between them. Nothing moves by itself.

    `deliver()` delivers the messages in flight, except those for which `lost(message)` is true.
    """

    def __init__(self) -> None:
        self.time = 0.0
        self.nodes: dict[str, InProcessNode] = {}
        self.mail: deque[Message] = deque()  # messages between nodes, in the order of sending
        self.inbox: list[Message] = []  # messages to clients
        self.ready: list[str] = []  # the sender of each init_ok
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
        """Makes a node. `make(node)` adds its handlers; its result is returned.

        An existing node of that name is killed. Its next incarnation has another random generator.
        """
        life = self._lives[node_id] = self._lives.get(node_id, -1) + 1
        node = self.nodes[node_id] = InProcessNode(self, life)
        return make(node)

    def init(self, *node_ids: str) -> None:
        """Sends init to these nodes, or to all nodes."""
        for node_id in node_ids or list(self.nodes):
            self.request(
                node_id, {"type": "init", "node_id": node_id, "node_ids": list(self.nodes)}
            )

    def request(self, node_id: str, body: Body, client: str = "c1") -> int:
        """Sends a client's request, which is handled in its own turn. Returns its msg_id."""
        self._msg_id += 1
        body = {"msg_id": self._msg_id, **body}
        self.nodes[node_id].receive({"src": client, "dest": node_id, "body": body})
        return int(body["msg_id"])

    def count_from(self, msg_id: int) -> None:
        """Makes the clients' next msg_ids larger than `msg_id`."""
        self._msg_id = msg_id

    def answer(self, msg_id: int) -> Body | None:
        """Takes the reply to a request out of the inbox. Returns its body; None if none came."""
        for message in self.inbox:
            if message["body"].get("in_reply_to") == msg_id:
                self.inbox.remove(message)
                return {k: v for k, v in message["body"].items() if k != "in_reply_to"}
        return None

    def call(self, node_id: str, body: Body) -> Body:
        """Sends a client's request that must be answered at once. Returns the answer's body."""
        answer = self.answer(self.request(node_id, body))
        assert answer is not None, f"{node_id} did not answer {body} at once"
        return answer

    def deliver(self) -> None:
        """Delivers messages until none is in flight. Time stands still."""
        while self.mail:
            self.step()

    def step(self) -> None:
        """Delivers the first message in flight."""
        message = self.mail.popleft()
        if not self.lost(message):
            self.nodes[message["dest"]].receive(message)

    def advance(self, seconds: float, delivering: bool = True) -> None:
        """Advances time, runs the timers that become due, and delivers the messages sent."""
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
        """Advances time, timer by timer, until condition() is true. Returns its value."""
        end = self.time + seconds
        while not (found := condition()):
            self.deliver()
            node = min(self.nodes.values(), key=lambda node: node.next_due)
            assert node.next_due <= end, f"the condition did not hold within {seconds} s"
            if found := condition():
                break
            self.time = max(self.time, node.next_due)
            node.run()
        return found
