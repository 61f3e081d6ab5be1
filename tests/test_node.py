"""node.py in process, with a clock that the test moves: errors, turns, timers, RPCs, output.

test_node_process.py tests node.py as a process of its own.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from functools import partial
from typing import Any

import pytest
from in_process import InProcessNode, World
from workbench.simulation.simulated_cluster import Ended

from node import PIPE, Message, Node, RPCError


def lone(node_ids: tuple[str, ...] = ("n1",), init: bool = True) -> tuple[World, InProcessNode]:
    world = World()
    for node_id in node_ids:
        world.add(node_id, lambda node: None)
    if init:
        world.init()
    return world, world.nodes[node_ids[0]]


def answer_pings(node: InProcessNode) -> None:
    @node.on("ping")
    def ping(msg: Message) -> None:
        node.reply(msg, {"type": "pong"})


# Errors


@pytest.mark.parametrize(
    ("name", "code", "definite"),
    [
        ("timeout", 0, False),
        ("node_not_found", 1, True),
        ("not_supported", 10, True),
        ("temporarily_unavailable", 11, True),
        ("malformed_request", 12, True),
        ("crash", 13, False),
        ("abort", 14, True),
        ("key_does_not_exist", 20, True),
        ("key_already_exists", 21, True),
        ("precondition_failed", 22, True),
        ("txn_conflict", 30, True),
    ],
)
def test_errors_have_the_codes_of_the_protocol(name: str, code: int, definite: bool) -> None:
    error = getattr(RPCError, name)("why")
    assert isinstance(error, RPCError)
    assert error.to_json() == {"type": "error", "code": code, "text": "why"}
    assert error.definite is definite


def test_an_unknown_code_is_indefinite() -> None:
    assert RPCError(1234, "").definite is False


# Turns


def test_a_line_that_is_no_message_is_told_of_with_what_is_wrong() -> None:
    _, node = lone()
    lines = {b"garbage {": "Expecting value", b"[1]": "TypeError", b"1e999": "out of range"}
    for line, why in lines.items():
        node.read(line)
        said = node.log_lines.pop()
        assert said.startswith("skipped a line that is no message: ")
        assert why in said and repr(line) in said


def test_two_nodes_talk_in_process_without_a_thread() -> None:
    world = World()
    before = threading.active_count()
    for node_id in ("n1", "n2"):
        world.add(node_id, answer_pings)
    heard: list[tuple[float, str]] = []
    first = world.nodes["n1"]

    def ask() -> None:
        first.rpc("n2", {"type": "ping"}, lambda msg: heard.append((world.time, msg["src"])))

    first.every(1.0, ask)
    world.init()
    world.advance(3.5)
    assert heard == [(1.0, "n2"), (2.0, "n2"), (3.0, "n2")]
    assert threading.active_count() == before


def test_what_a_turn_sends_leaves_at_its_end_after_the_drained_handlers() -> None:
    world, node = lone()
    seen: list[int] = []
    node.on("add", lambda msg: node.reply(msg, {"type": "add_ok"}))
    node.on_drained(lambda: seen.append(len(world.inbox)))
    requests = [{"src": "c1", "dest": "n1", "body": {"type": "add", "msg_id": i}} for i in range(3)]
    node.receive(*requests)
    assert seen == [0]
    assert [msg["body"]["in_reply_to"] for msg in world.inbox] == [0, 1, 2]


@pytest.mark.parametrize("error", [ValueError("disk full"), SystemExit(0)])
def test_nothing_leaves_when_a_drained_handler_fails_and_the_node_ends(error: Exception) -> None:
    world, node = lone()
    node.on("add", lambda msg: node.reply(msg, {"type": "add_ok"}))

    def fail() -> None:
        raise error

    node.on_drained(fail)
    with pytest.raises(Ended):
        world.request("n1", {"type": "add"})
    assert not world.inbox


@pytest.mark.parametrize("error", [SystemExit(0), GeneratorExit()])
def test_what_no_handler_may_raise_ends_the_node_visibly(error: BaseException) -> None:
    _, node = lone()

    def fail(msg: object = None) -> None:
        raise error

    node.on("fail", fail)
    node.after(1.0, fail)
    with pytest.raises(Ended):
        node.world.request("n1", {"type": "fail"})
    with pytest.raises(Ended):
        node.world.advance(2.0)


def test_a_send_from_another_thread_waits_for_no_turn() -> None:
    """The caller holds a lock that the turn wants: neither may stand still."""
    world, node = lone()
    lock = threading.Lock()
    turn_waits, sent = threading.Event(), threading.Event()

    def sender() -> None:
        with lock:
            assert turn_waits.wait(60)
            node.send("c1", {"type": "hello"})
            node.after(1.0, lambda: node.send("c1", {"type": "later"}))
        sent.set()

    def handler(msg: Any) -> None:
        turn_waits.set()
        assert sent.wait(60), "the sender waits for the turn"

    node.on("wait", handler)
    thread = threading.Thread(target=sender)
    thread.start()
    world.request("n1", {"type": "wait"})
    thread.join()
    world.advance(2.0)  # what was queued leaves with the next turn
    assert [msg["body"]["type"] for msg in world.inbox] == ["hello", "later"]


# Timers


def test_a_timer_that_a_turn_starts_waits_for_the_next_turn() -> None:
    _, node = lone()
    runs: list[int] = []

    def again() -> None:
        runs.append(node.turns)
        node.after(0, again)

    node.after(0, again)
    for _ in range(3):
        node.run()
    assert len(runs) == 3 and len(set(runs)) == 3


def test_timers_run_in_order_of_time_then_of_making_and_not_before_init() -> None:
    world, node = lone(init=False)
    runs: list[str] = []
    for seconds, name in ((2.0, "c"), (1.0, "a"), (1.0, "b")):
        node.after(seconds, partial(runs.append, name))
    world.time = 5.0
    assert not runs
    world.init()
    world.advance(0)
    assert runs == ["a", "b", "c"]


def test_every_goes_on_after_a_failure_until_it_is_cancelled() -> None:
    world, node = lone()
    times: list[float] = []

    def fail() -> None:
        times.append(world.time)
        raise ValueError("not ready")

    timer = node.every(1.0, fail)
    world.advance(2.5)
    timer.cancel()
    world.advance(5.0)
    assert times == [1.0, 2.0]
    assert "ValueError: not ready" in "".join(node.log_lines)


def test_a_timer_cancelled_by_one_due_in_the_same_turn_does_not_run() -> None:
    world, node = lone()
    runs: list[str] = []
    node.after(1.0, lambda: second.cancel())
    second = node.after(1.0, lambda: runs.append("second"))
    world.advance(2.0)
    assert not runs


def test_cancelled_timers_cost_no_turn_and_do_not_pile_up() -> None:
    world, node = lone()
    node.after(9.0, lambda: None)  # one that is alive, before them in the heap
    world.advance(0)  # a turn takes in what was started outside of turns
    for _ in range(10_000):
        node.after(9.5, lambda: None).cancel()
    turns = node.turns
    world.advance(0)
    assert len(node._timers) < 200
    world.advance(20.0)
    assert node.turns == turns + 2


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), float("-inf")])
def test_a_delay_that_is_no_finite_number_is_refused(seconds: float) -> None:
    _, node = lone()
    with pytest.raises(ValueError, match="cannot be due"):
        node.after(seconds, lambda: None)
    with pytest.raises(ValueError, match="cannot be due"):
        node.every(seconds, lambda: None)


# RPCs


def test_the_time_out_of_an_answered_rpc_costs_nothing() -> None:
    world, node = lone(("n1", "n2"))
    answer_pings(world.nodes["n2"])
    answers: list[Any] = []
    node.rpc("n2", {"type": "ping"}, answers.append, 1.0, lambda: answers.append("late"))
    world.advance(0.5)
    turns = node.turns
    world.advance(10.0)
    assert [msg["body"]["type"] for msg in answers] == ["pong"]
    assert node.turns == turns and not node._callbacks


def test_an_rpc_without_an_answer_ends_with_on_timeout_once() -> None:
    world, node = lone(("n1", "n2"))
    world.lost = lambda message: True
    ends: list[float] = []
    node.rpc("n2", {"type": "ping"}, lambda msg: None, 1.0, lambda: ends.append(world.time))
    world.advance(10.0)
    assert ends == [1.0] and not node._callbacks
    node.receive({"src": "n2", "dest": "n1", "body": {"type": "pong", "in_reply_to": 1}})
    assert ends == [1.0]


def test_an_rpc_before_init_or_of_what_is_not_json_leaves_nothing_behind() -> None:
    world, node = lone(("n1", "n2"), init=False)
    with pytest.raises(RuntimeError, match="before init"):
        node.rpc("n2", {"type": "ping"}, lambda msg: None)
    world.init()
    with pytest.raises(TypeError):
        node.rpc("n2", {"type": object()}, lambda msg: None)
    assert not node._callbacks and not node._timers and not node._queue
    assert not world.mail


# Init and handlers


def test_init_handlers_run_once_even_if_init_comes_again_or_one_failed() -> None:
    world, node = lone(init=False)
    calls: list[str] = []

    def fail() -> None:
        calls.append("fails")
        raise ValueError("no")

    node.on_init(fail)
    node.on_init(lambda: calls.append("runs"))
    body = {"type": "init", "node_id": "n1", "node_ids": ["n1"]}
    assert world.call("n1", body)["code"] == 13
    assert not world.ready
    for _ in range(2):
        world.request("n1", body)
    assert world.ready == ["n1", "n1"]
    assert calls == ["fails", "runs"]


def test_an_init_handler_can_hold_init_ok_back() -> None:
    world, node = lone(init=False)
    node.on_init(lambda: True)
    node.on_init(lambda: None)
    node.on("echo", lambda msg: node.reply(msg, {"type": "echo_ok"}))
    world.init()
    assert not world.ready
    assert world.call("n1", {"type": "echo"}) == {"type": "echo_ok"}, "it works all the same"
    node.after(1.0, node.ready)
    world.advance(0.9)
    assert not world.ready
    world.advance(0.1)
    assert world.ready == ["n1"]


def test_an_async_handler_is_refused_and_told_what_to_do() -> None:
    _, node = lone()

    async def handler(msg: Any) -> None:
        pass

    with pytest.raises(TypeError, match="not an async def"):
        node.on("sleep", handler)


def test_a_decorator_without_a_type_is_refused() -> None:
    _, node = lone()
    with pytest.raises(TypeError, match=r'write @node.on\("type"\)'):
        node.on(lambda msg: None)  # type: ignore[call-overload]


def test_a_dict_that_a_handler_returns_is_not_sent_and_the_log_says_so() -> None:
    world, node = lone()
    node.on("echo", lambda msg: {"type": "echo_ok"})
    node.receive({"src": "c1", "dest": "n1", "body": {"type": "echo", "msg_id": 1}})
    assert not world.inbox
    assert node.log_lines == [
        "the handler of 'echo' returned a dict, which nobody sends; write node.reply(msg, {...})"
    ]


def test_a_node_may_be_made_without_a_change_of_stdout() -> None:
    before = sys.stdout, os.fstat(1)
    Node()
    assert (sys.stdout, os.fstat(1)) == before


def test_an_error_reads_well() -> None:
    error = RPCError.precondition_failed("expected 1, but had 2")
    assert str(error) == "error 22: expected 1, but had 2"


def test_a_good_line_among_bad_ones_is_handled_and_lines_do_not_run_together() -> None:
    world, node = lone()
    node.on("add", lambda msg: node.reply(msg, {"type": "add_ok"}))
    good = b'{"src":"c1","dest":"n1","body":{"type":"add","msg_id":7}}'
    for bad in (b"{", b"[1]", b"1,2", b"", good + b"," + good, b'{"src":"c1"}', b'"a'):
        node._turn(node._receive, b"\n".join([bad, good, b'b"']))
        assert [msg["body"]["in_reply_to"] for msg in world.inbox] == [7], bad
        world.inbox.clear()


def test_a_callback_that_fails_ends_nothing() -> None:
    world, node = lone(("n1", "n2"))
    answer_pings(world.nodes["n2"])

    def fail(msg: Message) -> None:
        raise ValueError("no")

    node.rpc("n2", {"type": "ping"}, fail)
    world.advance(1.0)
    assert "ValueError: no" in "".join(node.log_lines)


def test_two_bad_lines_do_not_make_up_for_a_third_that_holds_too_much() -> None:
    world, node = lone()
    node.on("add", lambda msg: node.reply(msg, {"type": "add_ok"}))
    good = b'{"src":"c1","dest":"n1","body":{"type":"add","msg_id":7}}'
    halves = [b'{"src":"c1","dest":"n1","body":{"type":"add","msg_id":8,"x":"a', b'b"}}']
    node._turn(node._receive, b"\n".join([*halves, good + b"," + good]))
    assert not world.inbox


class PipeNode(Node):
    """Writes to a pipe that the test reads."""

    def __init__(self) -> None:
        super().__init__()
        self.reader, self._stdout = os.pipe()


def test_what_the_system_does_not_take_at_once_is_written_in_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node, write = PipeNode(), os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:3]))
    node._write(b"0123456789")
    assert os.read(node.reader, 100) == b"0123456789"


def test_output_that_nobody_reads_any_more_ends_nothing() -> None:
    node = PipeNode()
    os.close(node.reader)
    node._write(b"hello\n")


@pytest.mark.parametrize("size", [1, 40, 150, 700, 1500, 2100, 4000, 4096, 4097, 6000, 30_000])
def test_a_pipe_that_is_full_holds_half_of_its_size_at_least(size: int) -> None:
    """A page that a node takes for a full one; a message that does not fit begins another page."""
    reader, writer = os.pipe()
    try:
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while os.write(writer, b"x" * size) == size:
                pass
        assert len(os.read(reader, PIPE)) >= PIPE // 2
    finally:
        os.close(reader)
        os.close(writer)
