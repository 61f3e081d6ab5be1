"""The clients of a run: one request at a time, and each is completed once."""

from __future__ import annotations

import random
from typing import Any

import pytest
from workbench.network.network import Latency, Message, Network
from workbench.running.client import KEPT_REPLIES, Client
from workbench.simulation.loop import VirtualLoop
from workbench.units import SECOND
from workbench.workloads.lin_kv import LinKv
from workbench.workloads.workload import Settings

Body = dict[str, Any]


class World:
    """A client, and a node that says nothing by itself."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.requests: list[Message] = []  # that the node has got
        self.problems: list[str] = []
        self.network = Network(
            self.loop,
            random.Random(1),
            Latency(0, "constant"),
            lambda node_id, message: self.requests.append(message),
            lambda *words: None,
        )
        self.network.add_node("n0")
        self.client = Client("c1", self.loop, self.network, self.problems.append)
        self.done: list[Body | None] = []  # the replies that the client told of

    def ask(self, **body: Any) -> Body:
        """Sends a request, with a second of time; what the node got."""
        self.client.call("n0", body, SECOND, lambda reply, src: self.done.append(reply))
        got: Body = self.requests[-1]["body"]
        return got

    def answer(self, msg_id: Any, **body: Any) -> None:
        body["in_reply_to"] = msg_id
        self.network.send({"src": "n0", "dest": "c1", "body": body})


@pytest.fixture
def world() -> World:
    return World()


def test_the_reply_to_the_request_completes_it_once(world: World) -> None:
    msg_id = world.ask(type="read", key=0)["msg_id"]
    world.answer(msg_id, type="read_ok", value=1)
    world.answer(msg_id, type="read_ok", value=1)
    world.loop.run_until(lambda: False)  # its time-out
    assert [reply and reply["value"] for reply in world.done] == [1]


@pytest.mark.parametrize("other", [None, -1, 1.0, True, "1"])
def test_a_reply_to_nothing_completes_nothing(world: World, other: object) -> None:
    assert world.ask(type="read", key=0)["msg_id"] == 1
    world.answer(other, type="read_ok", value=1)
    assert not world.done
    assert "n0 replied, but the reply cannot be matched to its request: in_reply_to is " in (
        world.client.stray
    )
    assert ", and must be 1 (an integer), the msg_id of the request: {" in world.client.stray
    world.ask(type="read", key=0)
    assert not world.client.stray


def test_a_reply_without_in_reply_to_is_told(world: World) -> None:
    world.ask(type="read", key=0)
    world.network.send({"src": "n0", "dest": "c1", "body": {"type": "read_ok"}})
    assert world.client.stray == (
        "n0 replied, but the reply cannot be matched to its request: it has no in_reply_to, which "
        'must be 1 (an integer), the msg_id of the request: {"type": "read_ok"}'
    )


def test_after_the_time_out_a_reply_is_no_news(world: World) -> None:
    msg_id = world.ask(type="read", key=0)["msg_id"]
    world.loop.run_until(lambda: False)
    assert (world.done, world.loop.now()) == ([None], SECOND)
    world.answer(msg_id, type="read_ok", value=1)
    assert world.done == [None]


def test_the_time_out_of_an_earlier_request_is_not_that_of_the_next(world: World) -> None:
    world.answer(world.ask(type="read", key=0)["msg_id"], type="read_ok", value=1)
    world.loop.run_to(SECOND // 2)
    world.ask(type="read", key=0)
    world.loop.run_to(SECOND + 1)
    assert len(world.done) == 1
    world.loop.run_to(2 * SECOND)
    assert world.done[1:] == [None]


def test_who_gave_up_is_told_nothing(world: World) -> None:
    msg_id = world.ask(type="read", key=0)["msg_id"]
    world.client.give_up()
    world.answer(msg_id, type="read_ok", value=1)
    world.loop.run_until(lambda: False)
    assert not world.done


def test_a_requests_type_comes_behind_its_arguments_as_in_maelstrom(world: World) -> None:
    workload = LinKv(random.Random(1), Settings(1))
    world.client.perform("n0", workload, "cas", [0, [1, 2]], SECOND, lambda *words: None)
    assert [*world.requests[-1]["body"]] == ["key", "from", "to", "type", "msg_id"]


def test_it_remembers_some_replies_to_find_that_others_contradict_them(world: World) -> None:
    for _ in range(KEPT_REPLIES + 1):
        world.answer(world.ask(type="write", key=0, value=1)["msg_id"], type="write_ok")
    world.answer(1, type="error", code=11)  # long forgotten
    assert not world.problems
    world.answer(2, type="error", code=11)
    assert len(world.problems) == 1 and "request 2 got two contradicting" in world.problems[0]
