"""Runs nodes on node.py inside a test's process, on a clock that the test advances.

    def test_a_message_reaches_the_other_node():
        world = World()
        for node_id in ("n1", "n2"):
            world.run(node_id, "tests/nodes/g_set.py")
        world.init()
        world.call("n1", {"type": "add", "element": 7})
        world.advance(1)
        assert world.call("n2", {"type": "read"}) == {"type": "read_ok", "value": [7]}

Nothing happens by itself, and nothing waits: there are no processes, threads or sleeps. So a test
decides which messages arrive, and when.
"""

from __future__ import annotations

import json
import random
import runpy
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.services.host import reply_of, services
from workbench.simulation.simulated_cluster import VirtualNode, standing_in

from node import Body, Message

MOST_TURNS = 100_000  # turns of all nodes at one time; nodes that take more would never rest


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
        self.world.count_turn(self, *args)
        super()._turn(action, *args)

    def receive(self, *messages: Message) -> None:
        """Handles these messages in one turn."""
        self.read("\n".join(map(json.dumps, messages)).encode())

    @property
    def next_due(self) -> float:
        """Time of the node's next timer, on the world's clock."""
        return self.due - self.skew


class World:
    """Nodes, their clients, Maelstrom's services, and the messages between them.

    - `run` or `add` makes the nodes, then `init` sends each its init.
    - `call` sends a client's request that must be answered at once. `request` and `answer` are for
      requests that take messages or time.
    - `deliver` delivers the messages between nodes, `step` only the first of them. `advance` and
      `until` also let time pass.
    - Messages for which `lost(message)` is true are dropped. Replace this attribute to cut links.

    Attributes: `time` in seconds, `nodes` by id, `mail` (the messages in flight between nodes and
    to and from services) and `inbox` (those to clients). A test may delay, repeat or reorder the
    messages in `mail`. A node's `log_lines` are its log, with the traceback of each handler that
    failed.
    """

    def __init__(self) -> None:
        self.time = 0.0
        self.nodes: dict[str, InProcessNode] = {}
        self.services = services(random.Random(7))
        self.mail: deque[Message] = deque()  # messages in flight, in the order of sending
        self.inbox: list[Message] = []  # messages to clients
        self.ready: list[str] = []  # the sender of each init_ok
        self.lost: Callable[[Message], bool] = lambda message: False
        self._msg_id = 0
        self._counted_at, self._turns = 0.0, 0  # number of turns of all nodes at that time
        self._lives: dict[str, int] = {}

    def sent(self, node: InProcessNode, message: Message) -> None:
        assert message.keys() == {"src", "dest", "body"} and message["src"] == node.node_id
        if message["body"]["type"] == "init_ok":
            self.ready.append(node.node_id)
            return
        known = message["dest"] in self.nodes or message["dest"] in self.services
        (self.mail if known else self.inbox).append(message)

    def count_turn(self, node: InProcessNode, *work: object) -> None:
        """Counts a turn for some work, or for timers. AssertionError if the nodes never rest."""
        if self._counted_at != self.time:
            self._counted_at, self._turns = self.time, 0
        self._turns += 1
        assert self._turns <= MOST_TURNS, (
            f"the nodes took {MOST_TURNS:,} turns while time stood still at {self.time:g} s: a "
            "node must not pass on the same message again and again, and the period of a timer "
            f"must be more than 0. Now {node.node_id} handles {work[0] if work else 'its timers'}"
        )

    def run(self, node_id: str, program: Path | str, *args: str) -> None:
        """Makes a node of an unchanged Python program on node.py, with these arguments.

        The program must take the time from node.now() and random numbers from node.random, and
        have no blocking handlers. An existing node of that name is killed, as by `add`.

        Errors of the program are raised here. ValueError if it does not call its node's main().
        """
        world, life = self, self._next_life(node_id)
        made: list[InProcessNode] = []

        class ProgramNode(InProcessNode):
            def __init__(self) -> None:
                super().__init__(world, life)
                made.append(self)

        with standing_in(ProgramNode, [str(program), *args]):
            runpy.run_path(str(program), run_name="__main__")
        running = [node for node in made if node.has_main]
        if not running:
            raise ValueError(f"{program} must make a Node of node.py, and call its main()")
        self.nodes[node_id] = running[0]

    def add(self, node_id: str, make: Callable[[InProcessNode], Any]) -> Any:
        """Makes a node. `make(node)` adds its handlers; its result is returned.

        An existing node of that name is killed. Its next incarnation has another random generator.
        """
        node = self.nodes[node_id] = InProcessNode(self, self._next_life(node_id))
        return make(node)

    def _next_life(self, node_id: str) -> int:
        """Counts the incarnations of a node, from 0."""
        self._lives[node_id] = self._lives.get(node_id, -1) + 1
        return self._lives[node_id]

    def init(self, *node_ids: str) -> None:
        """Sends init to these nodes, or to all nodes. AssertionError if a node refuses it."""
        everybody = list(self.nodes)
        for node_id in node_ids or everybody:
            body = {"type": "init", "node_id": node_id, "node_ids": everybody}
            refusal = self.answer(self.request(node_id, body))
            log = "\n".join(self.nodes[node_id].log_lines)
            assert refusal is None, f"{node_id} refused its init: {refusal}\n{log}"

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
        assert answer is not None, (
            f"{node_id} did not answer {body} at once; call world.init() first, and use "
            "request() and answer() if the answer takes messages or time"
        )
        return answer

    def deliver(self) -> None:
        """Delivers messages until none is in flight. Time stands still."""
        while self.mail:
            self.step()

    def step(self) -> None:
        """Delivers the first message in flight. A service's reply is then in flight.

        As in Maelstrom, a service does not answer a request of an unknown type.
        """
        message = self.mail.popleft()
        dest = message["dest"]
        if self.lost(message):
            return
        if dest not in self.services:
            self.nodes[dest].receive(message)
        elif reply := reply_of(dest, self.services[dest], message):
            self.mail.append(reply)

    def advance(self, seconds: float, delivering: bool = True) -> None:
        """Advances time, runs the timers that become due, and delivers the messages sent.

        Without `delivering` all messages stay in flight.
        """
        end = self.time + seconds
        while True:
            if delivering:
                self.deliver()
            if not self._run_next(end):
                break
        self.time = end

    def until(self, condition: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Advances time, timer by timer, until condition() is true. Returns its value."""
        end = self.time + seconds
        while not (found := condition()):
            if self.mail:
                self.deliver()
            else:
                assert self._run_next(end), f"the condition did not hold within {seconds} s"
        return found

    def _run_next(self, end: float) -> bool:
        """Advances time to the next timer, and runs it. False if none is due until `end`."""
        node = min(self.nodes.values(), key=lambda node: node.next_due, default=None)
        if not node or node.next_due > end:
            return False
        self.time = max(self.time, node.next_due)
        node.run()
        return True
