"""The runner's promises, on nodes in this process and in a time that stands still meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from workbench.console.console import Console
from workbench.record.edn import Keyword
from workbench.record.history import Op, clients, operations
from workbench.record.journal import Journal
from workbench.record.life import LENGTH, MOST, Line
from workbench.running.client import Outcome, contradict, failure
from workbench.running.cluster import Cluster, Listener
from workbench.running.options import Options
from workbench.running.results import stats
from workbench.running.runner import CATCH_UP, INIT_TIMEOUT, LATE_INIT, Runner, Schedule
from workbench.simulation.loop import VirtualLoop, dice
from workbench.units import SECOND
from workbench.workloads import WORKLOADS
from workbench.workloads.workload import ERRORS, Settings

Body = dict[str, Any]
HOSTILE = "n0 term 1: <script>alert(1)</script>"
Node = Callable[["Nodes", str, Body], Iterable[Body]]  # its id and a message: bodies of replies


class Nodes(Cluster):
    """Nodes that are one function, which is called with each message."""

    def __init__(self, loop: VirtualLoop, node: Node) -> None:
        self.loop = loop
        self.node = node
        self.seen: list[tuple[int, str, Body]] = []  # when which node got what
        self.listeners: dict[str, Listener] = {}
        self.stopped = False
        self.killed: list[str] = []

        loop.at(1000 * SECOND, lambda: pytest.fail("the run does not end"))

    def start(self, node_id: str, listener: Listener) -> None:
        self.listeners[node_id] = listener

    def deliver(self, node_id: str, message: Body) -> None:
        self.seen.append((self.loop.now(), node_id, message))
        for body in self.node(self, node_id, message):
            self.reply(node_id, message, body)

    def stop(self) -> None:
        self.stopped = True

    def kill(self, node_id: str) -> None:
        self.killed.append(node_id)

    def reply(self, node_id: str, message: Body, body: Body) -> None:
        self.send(node_id, message["src"], {"in_reply_to": message["body"]["msg_id"], **body})

    def send(self, node_id: str, dest: str, body: Body) -> None:
        line = json.dumps({"src": node_id, "dest": dest, "body": body}).encode()
        self.listeners[node_id].on_line(node_id, line)

    def later(self, delay: int, node_id: str, message: Body, body: Body) -> None:
        self.loop.after(delay, lambda: self.reply(node_id, message, body))


def good(nodes: Nodes, node_id: str, message: Body) -> Iterable[Body]:
    """Answers everything well, at once; all registers hold 1 and each cas finds it."""
    body = message["body"]
    ok: Body = {"type": f"{body['type']}_ok"}
    if body["type"] == "read":
        ok["value"] = 1
    elif body["type"] == "echo":
        ok["echo"] = body["echo"]
    return [ok]


def answering(others: Callable[[Nodes, str, Body], Iterable[Body]]) -> Node:
    """A node that answers init well and leaves the rest to `others`."""

    def node(nodes: Nodes, node_id: str, message: Body) -> Iterable[Body]:
        init = message["body"]["type"] == "init"
        return [{"type": "init_ok"}] if init else others(nodes, node_id, message)

    return node


def options(**changes: Any) -> Options:
    """Those of a short lin-kv test, but for what is said."""
    given: dict[str, Any] = {
        "workload": "lin-kv",
        "bin": Path("node"),
        "node_count": 1,
        "time_limit": 5,
        "rate": 100,
        "latency": 0,
        "latency_dist": "constant",
        "nemesis": (),
        "nemesis_interval": 10,
        "nemesis_rest": 0,
        "partition_kinds": ("one",),
        "kill_targets": ("one",),
        "wipe": 0.0,
        "loss": 0.0,
        "duplicate": 0.0,
        "independent_delivery": False,
        "availability": None,
        "log_stderr": False,
        "log_net_send": False,
        "log_net_recv": False,
        "test_count": 1,
        "strict": False,
        "simulate": False,
        "constants": {},
        "seed": 1,
        "args": (),
    } | changes
    given.setdefault("concurrency", 2 * given["node_count"])
    return Options(**given)


def make(node: Node = good, **changes: Any) -> tuple[Runner, Nodes]:
    """A runner with such nodes and options."""
    loop = VirtualLoop()
    nodes = Nodes(loop, node)
    return Runner(options(**changes), loop, nodes, Console()), nodes


def invoked(ops: Iterable[Op]) -> list[Op]:
    return [op for op in ops if op.type == "invoke"]


# Start-up


def test_each_node_gets_an_init_with_all_ids_and_n0_gets_it_last() -> None:
    for seed in range(5):
        runner, nodes = make(node_count=3, seed=seed, time_limit=0)
        assert not runner.run().crash
        inits = [(now, id, m["body"]) for now, id, m in nodes.seen if m["body"]["type"] == "init"]
        assert [id for _, id, _ in inits] == ["n1", "n2", "n0"]
        assert all(body["node_ids"] == ["n0", "n1", "n2"] for _, _, body in inits)
        assert all(body["node_id"] == id for _, id, body in inits)
        assert 0 < inits[-1][0] <= LATE_INIT


def test_a_message_from_a_peer_can_arrive_before_the_init() -> None:
    rng = dice(1, "start")
    between = int(sum(rng.uniform(0, LATE_INIT) for _ in range(2)) / 2)  # n0 is up and not init

    def node(nodes: Nodes, node_id: str, message: Body) -> Iterable[Body]:
        if node_id == "n1" and message["body"]["type"] == "init":
            nodes.loop.at(between, lambda: nodes.send("n1", "n0", {"type": "hello"}))
        return good(nodes, node_id, message) if "msg_id" in message["body"] else []

    runner, nodes = make(node, node_count=2, time_limit=0)
    runner.run()
    assert [m["body"]["type"] for _, id, m in nodes.seen if id == "n0"] == ["hello", "init"]


def test_one_node_is_initialised_at_once() -> None:
    _, nodes = made = make()
    made[0].run()
    assert nodes.seen[0][0] == 0


def test_a_node_that_does_not_answer_init_ends_the_test_after_ten_seconds() -> None:
    runner, nodes = make(lambda nodes, node_id, message: [])
    crash = (
        "n0 did not answer init within 10 s: it must send a reply of the type init_ok\n"
        'The reply that is wanted: {"type": "init_ok", "in_reply_to": 1}'
    )
    assert runner.run().crash == crash
    assert runner.loop.now() == INIT_TIMEOUT
    assert nodes.stopped


@pytest.mark.parametrize("other", [{}, {"in_reply_to": "1"}, {"in_reply_to": 1.0}])
def test_an_init_ok_to_no_request_is_quoted(other: Body) -> None:
    def node(nodes: Nodes, node_id: str, message: Body) -> Iterable[Body]:
        nodes.send(node_id, message["src"], {"type": "init_ok", **other})
        return []

    crash = make(node)[0].run().crash
    assert crash.startswith("n0 replied, but the reply cannot be matched to its request: ")
    assert "must be 1 (an integer), the msg_id of the request: {" in crash


def test_a_request_that_was_not_answered_is_explained_once_for_each_node() -> None:
    def node(nodes: Nodes, node_id: str, message: Body) -> Iterable[Body]:
        if message["body"]["type"] == "init":
            return good(nodes, node_id, message)
        msg_id = str(message["body"]["msg_id"])
        nodes.send(node_id, message["src"], {"type": "echo_ok", "in_reply_to": msg_id})
        return []

    runner, nodes = make(node, workload="echo", node_count=2, concurrency=2, time_limit=20)
    record = runner.run()
    assert not record.crash and not record.problems  # the real Maelstrom goes on, too
    assert not record.notes
    assert sorted(text[:36] for text in record.unmatched) == [
        "n0 replied, but the reply cannot be ", "n1 replied, but the reply cannot be "
    ]  # fmt: skip
    silent, nodes = make(lambda n, i, m: good(n, i, m) if m["body"]["type"] == "init" else [])
    nodes.unsent = lambda node_id: "it sleeps"  # type: ignore[method-assign]
    assert silent.run().notes == ["A request to n0 was not answered: it sleeps"]


def test_a_wrong_answer_to_init_ends_the_test() -> None:
    record = make(lambda nodes, node_id, message: [{"type": "hello"}])[0].run()
    assert record.crash == (
        "n0 must answer init with a reply of the type init_ok, but sent "
        '{"in_reply_to": 1, "type": "hello"}'
    )
    assert not record.history


def test_a_binary_that_cannot_be_run_is_a_crash_and_leaves_nothing_running() -> None:
    class Broken(Nodes):
        def start(self, node_id: str, listener: Listener) -> None:
            raise FileNotFoundError(2, "No such file or directory")

    runner, nodes = make()
    runner._cluster = broken = Broken(nodes.loop, good)
    assert runner.run().crash == "cannot run node: No such file or directory"
    assert broken.stopped


def test_a_node_that_ends_by_itself_ends_the_test() -> None:
    def exit(nodes: Nodes, node_id: str, message: Body) -> Iterable[Body]:
        nodes.listeners[node_id].on_exit(node_id, "ended by itself")
        return []

    runner, _ = make(answering(exit))
    record = runner.run()
    assert record.crash.startswith("n0 ended by itself\nn0 had this request when it ended: {")
    assert len(invoked(record.history)) == 1
    assert runner.loop.now() < SECOND


# Roles that nodes tell


def saying(*lines: str) -> Node:
    """A node that writes these lines to its stderr when a request comes."""

    def node(nodes: Nodes, node_id: str, message: Body) -> Iterable[Body]:
        for line in lines:
            nodes.listeners[node_id].on_stderr(node_id, line)
        return good(nodes, node_id, message)

    return node


def test_a_role_is_kept_with_the_time_of_the_history() -> None:
    runner, nodes = make(saying("n0 term 1: leader, elected by n0"), rate=1, concurrency=1)
    record = runner.run()
    start = nodes.seen[0][0]  # init, and then the history begins
    invoked_at = [op.time for op in invoked(record.history)]
    assert len(invoked_at) > 2 and invoked_at[0] > 0
    assert record.life == [
        Line(time, "n0", "n0 term 1: leader, elected by n0") for time in [start, *invoked_at]
    ]


def test_what_is_said_before_the_history_begins_has_a_time_before_it() -> None:
    runner, _ = make(saying("n1 term 1: candidate", "n2 term 1: candidate"), node_count=3, rate=0)
    record = runner.run()
    (first, second) = record.life
    assert (first.node, second.node) == ("n1", "n2") and -LATE_INIT <= first.time < 0


@pytest.mark.parametrize(
    "line",
    [
        "",
        "n0",
        "n0 term 1: king, by the grace of n1",
        "n0 term 1: leadership",
        "n0 term x: leader",
        "n0 term \u0661: leader",
        f"n0 term {10**18}: leader",
        "n1 term 1: leader, elected by n1",
        " n0 term 1: leader",
        "I am n0 term 1: leader",
        "n0 term 1: leader\nn0 term 2: follower",
        HOSTILE,
        "n0 term 1: " + "x" * 2_000_000,
    ],
)
def test_what_is_not_of_the_form_is_not_kept(line: str) -> None:
    runner, _ = make(saying(line, "n0 term 1: follower of n1"), rate=0)
    assert [text for _, _, text in runner.run().life] == ["n0 term 1: follower of n1"]


def test_what_is_kept_is_bounded_in_number_and_in_length() -> None:
    long = "n0 term 7: leader, elected by " + "n1 " * 1_000_000
    others = (f"n0 term {number}: candidate" for number in range(100_000))
    runner, _ = make(rate=0)
    for line in (long, *others):
        runner.on_stderr("n0", line)
    runner.on_stderr("n1", "n1 term 1: candidate")
    kept = [line for line in runner.run().life if line.node == "n0"]
    assert len(kept) == MOST and max(len(line.text) for line in kept) == LENGTH
    assert kept[0].text.startswith("n0 term 7: leader, elected by n1")
    assert kept[1].text == "n0 term 0: candidate", "the first ones"
    assert runner.record.life[-1].node == "n1", "one that is loud leaves room for others"


# Kills


KILLS: dict[str, Any] = {"node_count": 3, "nemesis": ("kill",), "nemesis_interval": 1}


def inits(nodes: Nodes) -> list[str]:
    return [node_id for _, node_id, message in nodes.seen if message["body"]["type"] == "init"]


def test_a_killed_node_gets_a_new_init_and_all_nodes_are_back_in_the_end() -> None:
    runner, nodes = make(time_limit=20, **KILLS)
    record = runner.run()
    assert not record.crash and not record.problems
    assert len(nodes.killed) > 3
    assert sorted(inits(nodes)) == sorted(["n0", "n1", "n2", *nodes.killed])
    notes = [(op.f, op.value) for op in record.history if op.process == "nemesis"]
    first = {nodes.killed[0]: Keyword("killed")}, {nodes.killed[0]: Keyword("started")}
    assert notes[:4] == [
        ("start-kill", Keyword("one")), ("start-kill", first[0]),
        ("stop-kill", None), ("stop-kill", first[1]),
    ]  # fmt: skip


def test_a_run_ends_with_its_faults_and_waits_for_the_inits_that_follow() -> None:
    def slow(nodes: Nodes, node_id: str, message: Body) -> Iterable[Body]:
        if message["body"]["type"] == "init" and nodes.killed:
            nodes.later(9 * SECOND, node_id, message, {"type": "init_ok"})
            return []
        return good(nodes, node_id, message)

    runner, nodes = make(slow, **KILLS | {"nemesis_interval": 1000})
    record = runner.run()
    assert not record.crash and not record.problems
    assert [op.f for op in record.history if op.process == "nemesis"][2:] == ["stop-kill"] * 2
    assert inits(nodes)[3:] == nodes.killed
    assert runner.loop.now() > (9 + 5) * SECOND


def test_a_node_that_does_not_answer_its_new_init_ends_the_test() -> None:
    def forgetful(nodes: Nodes, node_id: str, message: Body) -> Iterable[Body]:
        return [] if nodes.killed else good(nodes, node_id, message)

    runner, nodes = make(forgetful, **KILLS | {"nemesis_interval": 0.001, "time_limit": 0.001})
    crash = runner.run().crash
    assert crash.startswith(f"{nodes.killed[0]} did not answer init within 10 s: ")


def test_a_binary_that_is_gone_after_a_kill_is_a_crash() -> None:
    runner, nodes = make(**KILLS)

    def gone(node_id: str, listener: Listener) -> None:
        if nodes.killed:
            raise FileNotFoundError(2, "No such file or directory")
        nodes.listeners[node_id] = listener

    nodes.start = gone  # type: ignore[method-assign]
    assert runner.run().crash == "cannot run node again: No such file or directory"


def test_an_init_is_called_off_by_the_next_kill() -> None:
    """Its answer is no news then, and no rule is broken by it."""
    held: list[Body] = []

    def slow(nodes: Nodes, node_id: str, message: Body) -> Iterable[Body]:
        if message["body"]["type"] != "init" or len(nodes.killed) in (0, 2):
            for late in held:
                nodes.reply(node_id, late, {"type": "init_ok"})
            held.clear()
            return good(nodes, node_id, message)
        held.append(message)
        return []

    runner, nodes = make(slow, **KILLS | {"node_count": 1, "rate": 0, "nemesis": ()})

    def again() -> None:
        runner._restart("n0")
        runner._kill("n0")
        runner._restart("n0")

    runner.loop.at(2 * SECOND, lambda: runner._kill("n0"))
    runner.loop.at(2 * SECOND, again)
    record = runner.run()
    assert not record.crash and not record.problems
    assert inits(nodes) == ["n0"] * 3 and not held
    late = {"src": next(iter(runner._called_off)), "dest": "n0", "body": {"type": "init"}}
    runner._deliver("n0", late)  # it had waited in the queue
    assert inits(nodes) == ["n0"] * 3


# Outcomes


def error(code: Any) -> Body:
    return {"type": "error", "code": code, "text": "why"}


@pytest.mark.parametrize("code", [*range(-1, 40), 10**30])
def test_errors_are_definite_or_not(code: int) -> None:
    definite = code in (1, 10, 11, 12, 14, 20, 21, 22, 30)
    workload = WORKLOADS["lin-kv"](dice(1, "test"), Settings(1))
    name = Keyword(ERRORS[code][0] if definite or code in (0, 13) else "unknown")
    for f, type in (("read", "fail"), ("write", "fail" if definite else "info")):
        value = [0, None if f == "read" else 1]
        assert failure(workload, f, value, error(code)) == Outcome(type, value, [name, "why"])


MALFORMED: list[tuple[str, Body, str]] = [
    ("read", {"type": "read_ok"}, "read_ok must have value"),
    ("read", {"type": "read_ok", "value": 1, "key": 0}, "read_ok must not have key"),
    ("read", {"type": "write_ok"}, "its type must be 'read_ok'"),
    ("write", {"type": "write_ok", "value": 1}, "write_ok must not have value"),
    ("write", {"value": 1}, "its type must be 'write_ok'"),
    ("write", {"type": "write_ok", "msg_id": "1"}, "its msg_id must be an integer"),
    ("write", {"type": "write_ok", "msg_id": True}, "its msg_id must be an integer"),
    ("cas", {"type": "cas_ok", "value": 1}, "cas_ok must not have value"),
]
NO_CODE = [
    ("write", error("11"), 'the code of an error must be an integer, not "11"'),
    ("cas", error(True), "the code of an error must be an integer, not true"),
    ("write", {"type": "error"}, "an error must have a code, an integer; this one has none"),
]


def replying(f: str, reply: Body) -> Node:
    """A good node, but for its reply to one kind of request."""

    def node(nodes: Nodes, node_id: str, message: Body) -> Iterable[Body]:
        return [reply] if message["body"]["type"] == f else good(nodes, node_id, message)

    return answering(node)


@pytest.mark.parametrize(("f", "reply", "problem"), MALFORMED)
def test_a_malformed_reply_makes_its_operation_unknown_and_is_told_once(
    f: str, reply: Body, problem: str
) -> None:
    record = make(replying(f, reply))[0].run()
    errors = {(op.type, op.error) for op in record.history if op.f == f and op.type != "invoke"}
    assert errors == {("info", Keyword("malformed-rpc-response"))}
    ((text, count),) = record.warnings.values()
    assert f"n0 sent a malformed reply to {f} [0 " in text and problem in text
    assert count > 1 and not record.problems and not record.notes


def test_a_malformed_reply_to_a_request_without_an_argument_names_only_its_kind() -> None:
    record = make(replying("generate", {"type": "generate_ok"}), workload="unique-ids")[0].run()
    ((text, _),) = record.warnings.values()
    assert text.startswith("n0 sent a malformed reply to generate: generate_ok must have id: {")


@pytest.mark.parametrize(("f", "reply", "problem"), NO_CODE)
def test_an_error_without_a_code_is_an_unknown_one(f: str, reply: Body, problem: str) -> None:
    record = make(replying(f, reply))[0].run()
    ends = [op for op in record.history if op.f == f and op.type != "invoke"]
    assert {op.type for op in ends} == {"info"}
    assert ends[0].error == [Keyword("unknown"), reply.get("text")]
    ((text, _),) = record.warnings.values()
    assert problem in text


@pytest.mark.parametrize(("f", "reply", "problem"), MALFORMED)
def test_with_strict_a_malformed_reply_breaks_a_rule_and_ends_the_run(
    f: str, reply: Body, problem: str
) -> None:
    runner, _ = make(replying(f, reply), strict=True)
    record = runner.run()
    last = record.history[-1]
    assert (last.f, last.type, last.error) == (f, "info", Keyword("malformed-rpc-response"))
    (text,) = record.problems
    assert f"n0 sent a malformed reply to {f} [0 " in text
    assert problem in text
    assert runner.loop.now() < SECOND
    assert not record.crash


@pytest.mark.parametrize(("latency", "seconds"), [(0, 1), (50, 1), (100.5, 1.005), (300, 3)])
def test_a_time_out_fails_a_read_and_leaves_a_write_unknown(latency: float, seconds: float) -> None:
    runner, _ = make(answering(lambda *_: []), time_limit=20, latency=latency)
    began: dict[int | str, int] = {}
    found: set[tuple[str, str]] = set()
    for op in runner.run().history:
        if op.type == "invoke":
            began[op.process] = op.time
        else:
            assert op.time - began[op.process] == int(seconds * SECOND)
            assert op.error == Keyword("net-timeout")
            found.add((op.f, op.type))
    assert found == {("read", "fail"), ("write", "info"), ("cas", "info")}


def test_an_echo_has_five_seconds() -> None:
    runner, _ = make(answering(lambda *_: []), workload="echo", concurrency=1, time_limit=1)
    invoke, end = runner.run().history
    assert (end.type, end.time - invoke.time) == ("info", 5 * SECOND)


def test_an_unknown_outcome_ends_a_process_but_not_a_client_of_lin_kv() -> None:
    def silent(nodes: Nodes, node_id: str, message: Body) -> Iterable[Body]:
        (body,) = good(nodes, node_id, message)
        return [body] if body["type"] == "read_ok" else []

    runner, nodes = make(answering(silent), node_count=2, time_limit=10)
    history = runner.run().history
    by_thread: dict[int, list[int]] = {}
    for op in clients(history):
        assert isinstance(op.process, int)
        processes = by_thread.setdefault(op.process % 4, [])
        if op.process not in processes:
            processes.append(op.process)
    for thread, processes in by_thread.items():
        assert processes == list(range(thread, thread + 4 * len(processes), 4))
    unknown = [op.process for op in history if op.type == "info"]
    assert len(unknown) == len(set(unknown)) > 8
    assert not any(op.type == "ok" for op in history if op.f != "read")
    sources = {m["src"] for _, _, m in nodes.seen if m["body"]["type"] in ("write", "cas")}
    assert len(sources) == 2  # one for each thread that writes


LATE = "n0 answered c2 after its time-out: the real Maelstrom ignores n0 from then on"


@pytest.mark.parametrize(("workload", "problem"), [("lin-kv", ""), ("echo", LATE)])
def test_a_late_answer_is_skipped_unless_its_client_was_closed(workload: str, problem: str) -> None:
    def late(nodes: Nodes, node_id: str, message: Body) -> Iterable[Body]:
        (body,) = good(nodes, node_id, message)
        nodes.later(6 * SECOND, node_id, message, body)
        return []

    runner, _ = make(answering(late), workload=workload, concurrency=2, time_limit=20)
    record = runner.run()
    assert [text[: len(LATE)] for text in record.problems] == ([problem] if problem else [])
    assert not any(op.type == "ok" for op in record.history)


def test_a_definite_error_leaves_the_process_as_it_is() -> None:
    runner, nodes = make(answering(lambda *_: [error(11)]))
    history = runner.run().history
    assert {op.process for op in history} == {0, 1}
    assert {op.type for op in history} == {"invoke", "fail"}
    assert len({m["src"] for _, _, m in nodes.seen}) == 3  # one of them for init


def test_a_process_talks_to_the_node_of_its_number() -> None:
    runner, nodes = make(node_count=3, rate=20)
    history = runner.run().history
    requests = [id for _, id, m in nodes.seen if m["body"]["type"] != "init"]
    assert [f"n{int(op.process) % 3}" for op in invoked(history)] == requests


def test_a_new_process_talks_to_the_node_of_its_thread() -> None:
    """As in Jepsen's interpreter, whose workers keep their node."""
    runner, nodes = make(
        answering(lambda *_: []), workload="echo", node_count=2, concurrency=1, time_limit=20
    )
    runner.run()
    requests = [id for _, id, m in nodes.seen if m["body"]["type"] != "init"]
    assert requests == ["n0"] * 4


@pytest.mark.parametrize("change", [float, str, lambda id: id + 7, lambda id: None])
def test_a_reply_to_another_request_or_to_none_is_not_taken(change: Callable[[int], Any]) -> None:
    def confused(nodes: Nodes, node_id: str, message: Body) -> Iterable[Body]:
        (body,) = good(nodes, node_id, message)
        return [{**body, "in_reply_to": change(message["body"]["msg_id"])}]

    history = make(answering(confused), time_limit=2)[0].run().history
    assert not any(op.type == "ok" for op in history)


TWICE: list[tuple[str, Body, Body, bool]] = [
    ("write", {"type": "write_ok"}, {"type": "write_ok", "msg_id": 5}, False),
    ("write", {"type": "write_ok"}, error(11), True),
    ("write", error(11), {"type": "write_ok"}, True),
    ("write", {"type": "write_ok"}, error(13), False),
    ("write", error(0), {"type": "write_ok"}, False),
    ("write", error(99), {"type": "write_ok"}, False),
    ("cas", error(20), error(22), False),
    ("cas", error(11), error(22), False),
    ("cas", {"type": "cas_ok"}, error(22), True),
    ("echo", {"type": "echo_ok", "echo": 1}, {"type": "echo_ok", "echo": 2}, True),
    ("read", {"type": "read_ok", "value": 1}, {"type": "read_ok", "value": 2}, False),
    ("read", {"type": "read_ok", "value": 1}, error(20), False),
]


@pytest.mark.parametrize(("f", "first", "second", "expected"), TWICE)
def test_two_replies_contradict_each_other_or_not(
    f: str, first: Body, second: Body, expected: bool
) -> None:
    assert contradict({"type": f}, first, second) is expected


@pytest.mark.parametrize("strict", [False, True])
def test_a_second_reply_that_contradicts_the_first_is_told(strict: bool) -> None:
    def twice(nodes: Nodes, node_id: str, message: Body) -> Iterable[Body]:
        return [*good(nodes, node_id, message), error(11)]

    record = make(answering(twice), rate=10, strict=strict)[0].run()
    assert bool(record.problems) is strict
    (problem,) = record.problems or [text for text, _ in record.warnings.values()]
    assert "got two contradicting replies: first " in problem
    assert problem.endswith('"text": "why"} from n0')
    assert record.history[-1].type == "ok"


# The rate


@pytest.mark.parametrize("rate", [1, 5, 100, 500, 2000, 5000])
def test_the_rate_is_kept_with_operations_at_random_moments(rate: int) -> None:
    runner, _ = make(rate=rate, workload="echo", concurrency=20)
    record = runner.run()
    times = [op.time for op in invoked(record.history)]
    assert len(times) == 5 * rate
    assert 0 <= times[0] < SECOND / rate
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert max(gaps) <= 2 * SECOND / rate
    assert len(set(gaps)) > len(gaps) / 2
    assert not record.rate_note


def test_a_delay_is_made_good_but_not_all_of_a_long_one() -> None:
    schedule = Schedule(1000, dice(1, "test"))
    due = [schedule.next(0) for _ in range(10)]
    assert due[-1] < SECOND // 100
    # 50 ms late: they come at once, until the schedule is kept again.
    now = SECOND * 60 // 1000
    late = [schedule.next(now) for _ in range(100)]
    assert sum(moment < now for moment in late) == 50
    # Ten seconds late: no more than CATCH_UP of it.
    now = 10 * SECOND
    late = [schedule.next(now) for _ in range(200)]
    assert sum(moment < now for moment in late) == CATCH_UP // (SECOND // 1000)


@pytest.mark.parametrize(("delay", "reached"), [(100, "10"), (15, "66"), (9, "")])
def test_a_run_that_cannot_keep_its_rate_says_so(delay: int, reached: str) -> None:
    def slow(nodes: Nodes, node_id: str, message: Body) -> Iterable[Body]:
        nodes.later(delay * SECOND // 1000, node_id, message, *good(nodes, node_id, message))
        return []

    runner, _ = make(answering(slow), workload="echo", concurrency=1)
    note = runner.run().rate_note
    assert note.startswith(f"asked for 100/s, reached {reached}") if reached else not note


def test_when_no_worker_is_free_the_operation_begins_as_soon_as_one_is() -> None:
    def slow(nodes: Nodes, node_id: str, message: Body) -> Iterable[Body]:
        nodes.later(SECOND // 10, node_id, message, *good(nodes, node_id, message))
        return []

    history = make(answering(slow), workload="echo", concurrency=1)[0].run().history
    assert all(
        op.time == before.time
        for before, op in pairwise(history)
        if op.type == "invoke" and before.type == "ok"
    )


def test_with_rate_0_the_clients_do_nothing_for_as_long_as_the_test_lasts() -> None:
    runner, _ = make(rate=0, time_limit=7)
    record = runner.run()
    assert record.history == []
    assert not record.rate_note
    assert runner.loop.now() == 7 * SECOND
    assert stats(record.history)[Keyword("valid?")] is True  # as the real one has it


# The whole


def test_each_part_of_a_run_has_its_own_chance_that_the_seed_alone_decides() -> None:
    def operated(**changes: Any) -> list[tuple[Any, ...]]:
        history = make(**{"node_count": 3, "time_limit": 3, **changes})[0].run().history
        return [(op.process, op.type, op.f, op.value, op.time) for op in clients(history)]

    def chatter(nodes: Nodes, node_id: str, message: Body) -> Iterable[Body]:
        if "in_reply_to" in message["body"] or message["src"].startswith("n"):
            return []
        nodes.send(node_id, "n1", {"type": "hello"})  # which draws a latency
        return good(nodes, node_id, message)

    plain = operated()
    assert operated() == plain
    assert operated(seed=2) != plain
    noisy: dict[str, Any] = {"latency_dist": "uniform", "latency": 10, "nemesis": ("partition",)}
    noisy["independent_delivery"] = True  # else requests wait for messages of peers
    assert operated(node=answering(chatter), nemesis_interval=0.1, **noisy) == plain
    # Not of hash(), which differs from process to process.
    assert dice(1, "network").random() == dice(1, "network").random() != dice(1, "start").random()
    assert f"{dice(1, 'network').random():.6f}" == "0.922297"


def test_the_run_waits_for_what_is_under_way_and_begins_nothing_after_its_end() -> None:
    def slow(nodes: Nodes, node_id: str, message: Body) -> Iterable[Body]:
        nodes.later(SECOND // 2, node_id, message, *good(nodes, node_id, message))
        return []

    runner, nodes = make(answering(slow), time_limit=2)
    history = runner.run().history
    assert max(op.time for op in invoked(history)) < 2 * SECOND
    assert all(op.type == "ok" for op in operations(history))
    assert 2 * SECOND < history[-1].time < 2.5 * SECOND
    assert nodes.stopped


def test_times_count_from_the_moment_when_the_clients_begin() -> None:
    runner, nodes = make(node_count=3, rate=1000)
    first = runner.run().history[0]
    assert first.time < SECOND // 1000
    assert first.time < min(now for now, _, m in nodes.seen if m["body"]["type"] != "init")


@pytest.mark.parametrize("broken", ["read", "write", "cas"])
def test_at_least_one_operation_of_each_kind_must_succeed(broken: str) -> None:
    def node(nodes: Nodes, node_id: str, message: Body) -> Iterable[Body]:
        bad = message["body"]["type"] == broken
        return [error(22)] if bad else good(nodes, node_id, message)

    found = stats(make(answering(node))[0].run().history)
    by_f = found[Keyword("by-f")]
    assert found[Keyword("valid?")] is False
    valid = {f.name: counts[Keyword("valid?")] for f, counts in by_f.items()}
    assert valid == {f: f != broken for f in ("read", "write", "cas")}
    counts = by_f[Keyword(broken)]
    assert counts[Keyword("fail-count")] == counts[Keyword("count")] > 10
    assert found[Keyword("count")] == found[Keyword("ok-count")] + found[Keyword("fail-count")]


# Output


def shown(capsys: pytest.CaptureFixture[str], thread: str) -> list[str]:
    """The texts of the log's lines of this thread."""
    lines = capsys.readouterr().out.splitlines()
    return [text.split(f"[{thread}] ")[1] for text in lines if f"[{thread}] " in text]


def speaking(nodes: Nodes, node_id: str, message: Body) -> Iterable[Body]:
    """Says on stderr whatever it is asked."""
    nodes.listeners[node_id].on_stderr(node_id, f"asked to {message['body']['type']}")
    return good(nodes, node_id, message)


@pytest.mark.parametrize("wanted", [True, False])
def test_what_nodes_say_on_stderr_is_shown_if_it_is_wanted(
    wanted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    make(speaking, log_stderr=wanted, time_limit=0)[0].run()
    assert shown(capsys, "n0 stderr") == (["asked to init"] if wanted else [])


@pytest.mark.parametrize(
    ("sent", "received", "seen"),
    [
        (False, False, []),
        (True, False, [":send", ":send"]),
        (False, True, [":recv", ":recv"]),
        (True, True, [":send", ":recv", ":send", ":recv"]),
    ],
)
def test_messages_are_shown_when_they_are_sent_or_received_or_neither(
    sent: bool, received: bool, seen: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    make(log_net_send=sent, log_net_recv=received, time_limit=0)[0].run()
    assert [text.split(" {")[0] for text in shown(capsys, "net")] == seen


def test_a_broken_rule_is_shown_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    runner, _ = make(answering(lambda *_: [{"type": "hello"}]), strict=True)
    record = runner.run()
    (problem,) = record.problems
    assert problem in shown(capsys, "workbench")


def test_a_warning_is_shown_at_once_and_once(capsys: pytest.CaptureFixture[str]) -> None:
    record = make(answering(lambda *_: [{"type": "hello"}]), workload="echo")[0].run()
    ((warning, count),) = record.warnings.values()
    assert count > 1 and shown(capsys, "workbench").count(warning) == 1


def test_a_leader_that_was_killed_leads_no_more() -> None:
    def leading(nodes: Nodes, node_id: str, message: Body) -> Iterable[Body]:
        nodes.listeners[node_id].on_stderr(node_id, f"{node_id} term 1: leader, elected by n0")
        return good(nodes, node_id, message)

    runner, _ = make(leading, time_limit=0)
    runner.run()
    assert runner._ear.leader() == ("n0", 1)
    runner._kill("n0")
    assert runner._ear.leader() is None


def test_the_journal_has_each_message_if_there_is_one() -> None:
    runner, _ = make(time_limit=0)
    runner.journal = Journal(runner.loop.now)
    (asked, answered) = map(json.loads, runner.run().messages)
    assert (asked["dest"], asked["type"]) == ("n0", "init")
    assert (answered["src"], answered["type"]) == ("n0", "init_ok")
    assert not [*make(time_limit=0)[0].run().messages]
