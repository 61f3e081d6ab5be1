"""The workloads beside lin-kv, with a correct node and with faulty ones, and their rules."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from test_runner import Body, Node, Nodes, answering, good, make, options
from workbench import check
from workbench.console.console import Console
from workbench.reasons import reasons, warnings
from workbench.record import edn
from workbench.record.edn import Keyword
from workbench.record.history import Op, clients
from workbench.report import reading
from workbench.running import runner as runner_module
from workbench.running.prepare import prepare
from workbench.running.results import availability, net, results
from workbench.running.runner import RECOVERY, Record
from workbench.units import SECOND
from workbench.verdicts import Results, get
from workbench.workloads import WORKLOADS
from workbench.workloads.topology import TOPOLOGIES
from workbench.workloads.workload import Plain, Settings, Worker, Workload

NODES = Path(__file__).resolve().parent / "nodes"
PARTITIONS: dict[str, Any] = {"nemesis": ("partition",), "nemesis_interval": 2}


class Run(NamedTuple):
    """A simulated run and its results."""

    record: Record
    workload: Workload
    results: Results

    @property
    def whys(self) -> list[str]:
        return reasons(self.results)


def simulate(
    folder: Path, workload: str, node: str, *args: str, seed: int = 1, **changes: Any
) -> Run:
    """Simulates a node of tests/nodes: five nodes, 10 s, 20 operations a second."""
    given: dict[str, Any] = {
        "node_count": 5, "concurrency": 10 if workload == "lin-kv" else 5, "time_limit": 10,
        "rate": 20, "latency": 10,
    } | changes  # fmt: skip
    return carry_out(folder, workload, node, *args, simulate=True, seed=seed, **given)


def carry_out(folder: Path, workload: str, node: str, *args: str, **changes: Any) -> Run:
    """Runs a node of tests/nodes, and judges the run."""
    opts = options(workload=workload, bin=NODES / node, args=args, **changes)
    logs = folder / "node-logs"
    logs.mkdir()
    runner = prepare(opts, logs, Console())
    record = runner.run()
    assert not record.crash and not record.problems
    return Run(record, runner.workload, results(record, runner.network, runner.workload, opts))


def drawn(name: str, count: int, threads: int = 3) -> list[tuple[int, str, Any]]:
    """Returns the first operations of a workload: thread, f and value."""
    workload = WORKLOADS[name](random.Random(1), Settings(3))
    workers = [Worker(thread, thread) for thread in range(threads)]
    found = [workload.next(workers, workers, 0) for _ in range(count)]
    return [(next[0].thread, next[1], next[2]) for next in found if next]


def plain(name: str) -> Plain:
    """Makes a workload with one request for each operation."""
    workload = WORKLOADS[name](random.Random(1), Settings(1))
    assert isinstance(workload, Plain)
    return workload


# A correct node is valid, and the checker finds each fault.


READ_COMMITTED: dict[str, Any] = {"consistency_models": ("read-committed",)}
ALONE: dict[str, Any] = {"node_count": 1}
CORRECT: list[tuple[str, str, dict[str, Any]]] = [
    ("echo", "echo.py", {}),
    ("lin-kv", "lin_kv_proxy.py", {}),
    ("unique-ids", "unique_ids.py", {}),
    ("broadcast", "broadcast.py", {}),
    ("g-set", "g_set.py", {}),
    ("g-counter", "pn_counter.py", {}),
    ("g-counter", "counter.py", {}),
    ("pn-counter", "pn_counter.py", {}),
    ("kafka", "kafka.py", {}),
    ("txn-list-append", "txn.py", ALONE),
    ("txn-rw-register", "txn.py", {**READ_COMMITTED, "availability": 1.0}),
]


@pytest.mark.parametrize("faults", ["none", "partition"])
@pytest.mark.parametrize(("workload", "node", "changes"), CORRECT)
def test_a_correct_node_is_valid(
    workload: str, node: str, changes: dict[str, Any], faults: str, tmp_path: Path
) -> None:
    given = changes | (PARTITIONS if faults == "partition" else {})
    run = simulate(tmp_path, workload, node, **given)
    assert run.results[Keyword("valid?")] is True, run.whys
    assert not run.whys and not warnings(run.results)
    started = [op for op in run.record.history if op.f == "start-partition"]
    assert bool(started) is (faults == "partition")


@pytest.mark.parametrize(
    ("workload", "node"), [
        ("broadcast", "broadcast.py"),
        ("pn-counter", "pn_counter.py"),
        ("g-counter", "counter.py"),
    ],
)
def test_a_correct_node_is_valid_in_real_time(
    workload: str, node: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "RECOVERY", 2 * SECOND)
    given: dict[str, Any] = {"node_count": 3, "concurrency": 3, "time_limit": 1, "rate": 30}
    run = carry_out(tmp_path, workload, node, **given)
    assert run.results[Keyword("valid?")] is True, run.whys
    *_, last = invoked(run.record)
    assert (last.f, last.extras) == ("read", FINAL)


FAULTY: list[tuple[str, str, str, dict[str, Any], str]] = [
    ("unique-ids", "unique_ids.py", "duplicate", {}, "is not unique: process "),
    ("broadcast", "broadcast.py", "no-gossip", {}, " is lost: process "),
    ("broadcast", "broadcast.py", "no-retry", PARTITIONS, " is lost: process "),
    ("g-set", "g_set.py", "no-merge", {}, " is lost: process "),
    ("g-counter", "pn_counter.py", "twice", {}, "The acknowledged adds sum to "),
    ("g-counter", "counter.py", "blind", {}, "The acknowledged adds sum to "),
    ("pn-counter", "pn_counter.py", "no-merge", {}, "The acknowledged adds sum to "),
    ("txn-list-append", "txn.py", "dirty", ALONE, "it has G1a"),
    ("txn-list-append", "txn.py", "lost", ALONE, "incompatible-order"),
    ("txn-list-append", "txn.py", "stale", ALONE, "it has G-single-item-realtime"),
    ("txn-rw-register", "txn.py", "dirty", READ_COMMITTED, "not read-committed: it has G1a"),
    ("txn-rw-register", "txn.py", "stale", ALONE, "it has G-single-item-realtime"),
    ("kafka", "kafka.py", "lose", {}, "; it skips "),  # the place of the lost message
    ("kafka", "kafka.py", "reuse", {}, "inconsistent-offsets: offset "),
    ("kafka", "kafka.py", "skip", {}, "int-poll-skip: process "),
]


@pytest.mark.parametrize(("workload", "node", "fault", "changes", "why"), FAULTY)
def test_the_checker_finds_the_fault(
    workload: str, node: str, fault: str, changes: dict[str, Any], why: str, tmp_path: Path
) -> None:
    run = simulate(tmp_path, workload, node, fault, **changes)
    assert get(run.results, "workload", "valid?") is False
    assert why in run.whys[0] and run.whys[0] == run.workload.reasons[0]
    assert get(edn.loads(edn.dumps(run.results)), "workload", "why") == run.workload.reasons


@pytest.mark.parametrize(
    ("workload", "node", "fault", "why"),
    [
        ("echo", "echo.py", "late", " was expected, but "),
        ("lin-kv", "lin_kv_proxy.py", "seq-kv", "but key 0 held "),
    ],
)
def test_the_checkers_of_echo_and_lin_kv_find_the_fault(
    workload: str, node: str, fault: str, why: str, tmp_path: Path
) -> None:
    run = simulate(tmp_path, workload, node, fault)
    assert get(run.results, "workload", "valid?") is False
    assert why in run.whys[0]


# Operations


def test_free_threads_take_turns() -> None:
    assert [thread for thread, _, _ in drawn("unique-ids", 7)] == [0, 1, 2, 0, 1, 2, 0]


def test_unique_ids_are_of_any_type_but_there_must_be_one() -> None:
    workload = plain("unique-ids")
    assert drawn("unique-ids", 2) == [(0, "generate", None), (1, "generate", None)]
    assert workload.request("generate", None) == {"type": "generate"}
    for id in (None, 1, "a", [1, {"b": 2}]):
        assert workload.complete("generate", None, {"type": "generate_ok", "id": id}) == id
    for reply in ({"type": "generate_ok"}, {"type": "generate_ok", "id": 1, "key": 2}):
        with pytest.raises(ValueError, match="must"):
            workload.complete("generate", None, reply)


def test_half_of_the_operations_of_a_set_are_reads_and_no_element_comes_twice() -> None:
    for name, adding in (("broadcast", "broadcast"), ("g-set", "add")):
        operations = drawn(name, 1000)
        added = [value for _, f, value in operations if f == adding]
        assert added == [*range(len(added))] and 430 < len(added) < 570
        assert {(f, value) for _, f, value in operations if f != adding} == {("read", None)}


def test_the_requests_and_replies_of_the_sets() -> None:
    for name, adding, argument, answer in (
        ("broadcast", "broadcast", "message", "messages"),
        ("g-set", "add", "element", "value"),
    ):
        workload = plain(name)
        assert workload.request(adding, 7) == {"type": adding, argument: 7}
        assert workload.request("read", None) == {"type": "read"}
        assert workload.complete(adding, 7, {"type": f"{adding}_ok"}) == 7
        for elements in ([], [1, "a", None], None):
            reply = {"type": "read_ok", answer: elements}
            assert workload.complete("read", None, reply) == elements
        wrongs: list[Body] = [{}, {answer: 1}, {answer: {}}, {answer: [], "more": 1}]
        for wrong in wrongs:
            with pytest.raises(ValueError, match="must"):
                workload.complete("read", None, {"type": "read_ok", **wrong})
        with pytest.raises(ValueError, match="must"):
            workload.complete(adding, 7, {"type": f"{adding}_ok", argument: 7})


def test_a_counter_is_changed_by_small_numbers_that_are_negative_only_in_pn_counter() -> None:
    for name, adds, deltas in (("pn-counter", 1500, range(-5, 5)), ("g-counter", 1000, range(5))):
        operations = drawn(name, 3000)
        drawn_deltas = Counter(value for _, f, value in operations if f == "add")
        assert sorted(drawn_deltas) == [*deltas]
        assert abs(sum(drawn_deltas.values()) - adds) < 100
        assert max(drawn_deltas.values()) < 1.4 * adds / len(deltas)
        assert {value for _, f, value in operations if f == "read"} == {None}


@pytest.mark.parametrize("name", ["g-counter", "pn-counter"])
def test_the_requests_and_replies_of_the_counters(name: str) -> None:
    workload = plain(name)
    assert workload.request("add", 3) == {"type": "add", "delta": 3}
    assert workload.request("read", None) == {"type": "read"}
    assert workload.complete("add", 3, {"type": "add_ok", "msg_id": 1}) == 3
    assert workload.complete("read", None, {"type": "read_ok", "value": -3}) == -3
    wrongs: list[Body] = [{}, {"value": None}, {"value": 1.0}, {"value": True}, {"value": "1"}]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="must"):
            workload.complete("read", None, {"type": "read_ok", **wrong})


# How an operation ends


def ends(workload: str, reply: Body | None, **changes: Any) -> dict[str, Op]:
    """Returns the first completion of each f, if nodes send this reply, or none."""

    def answer(nodes: Nodes, node_id: str, message: Body) -> list[Body]:
        if message["body"]["type"] == "topology":
            return [{"type": "topology_ok"}]
        return [reply] if reply else []

    replies = answering(answer)
    given = {"concurrency": 2, "time_limit": 10, "rate": 10} | changes
    runner, _ = make(replies, workload=workload, **given)
    history = clients(runner.run().history)
    return {op.f: op for op in reversed(history) if op.type != "invoke"}


def error(code: int) -> Body:
    return {"type": "error", "code": code, "text": "no"}


UNKNOWN = {
    "unique-ids": {"generate": "info"},
    "broadcast": {"broadcast": "info", "read": "fail"},
    "txn-list-append": {"txn": "info"},
    "txn-rw-register": {"txn": "info"},
}
DEFINITE = {
    "unique-ids": {"generate": "fail"},
    "broadcast": {"broadcast": "fail", "read": "fail"},
    "txn-list-append": {"txn": "fail"},
    "txn-rw-register": {"txn": "fail"},
}
UNCAUGHT = ["g-set", "g-counter", "pn-counter"]


@pytest.mark.parametrize("workload", UNKNOWN)
def test_without_a_reply_an_operation_is_unknown_unless_it_is_idempotent(workload: str) -> None:
    for reply, text in ((None, Keyword("net-timeout")), (error(13), [Keyword("crash"), "no"])):
        found = ends(workload, reply)
        assert {f: op.type for f, op in found.items()} == UNKNOWN[workload]
        assert all(op.error == text for op in found.values())


@pytest.mark.parametrize("workload", DEFINITE)
def test_after_a_definite_error_an_operation_has_failed(workload: str) -> None:
    found = ends(workload, error(22))
    assert {f: op.type for f, op in found.items()} == DEFINITE[workload]
    assert all(op.error == [Keyword("precondition-failed"), "no"] for op in found.values())


@pytest.mark.parametrize("workload", UNCAUGHT)
def test_an_error_that_no_client_catches_leaves_any_operation_unknown(workload: str) -> None:
    thrown = (
        "indeterminate: throw+: {:type :rpc-error, :code 22, :name :precondition-failed, "
        ':definite? true, :body {:in_reply_to 1, :type "error", :code 22, :text "no"}}'
    )
    for reply, text in ((None, "indeterminate: Client read timeout"), (error(22), thrown)):
        found = ends(workload, reply)
        assert {f: op.type for f, op in found.items()} == {"add": "info", "read": "info"}
        assert {op.error for op in found.values()} == {text}


# Set-up and end


def serving(answer: Body) -> Node:
    """Returns a node that accepts everything, and gives this answer to each read."""

    def node(nodes: Nodes, node_id: str, message: Body) -> list[Body]:
        type = message["body"]["type"]
        return [{"type": f"{type}_ok", **(answer if type == "read" else {})}]

    return node


def test_each_node_gets_the_topology_before_the_first_operation() -> None:
    runner, nodes = make(
        serving({"messages": [1]}), workload="broadcast", node_count=3, topology="line"
    )
    record = runner.run()
    assert not record.crash and not record.problems
    asked = [(id, m) for _, id, m in nodes.seen if m["body"]["type"] == "topology"]
    assert [id for id, _ in asked] == ["n0", "n1", "n2"]
    assert [m["src"] for _, m in asked] == ["c3", "c4", "c5"]
    line = {"n0": ["n1"], "n1": ["n0", "n2"], "n2": ["n1"]}
    assert all(m["body"]["topology"] == line for _, m in asked)
    kinds = [m["body"]["type"] for _, _, m in nodes.seen]
    assert kinds[:6] == ["init"] * 3 + ["topology"] * 3 and kinds.count("topology") == 3
    assert runner.network.with_clients.sent == 2 * (6 + len(invoked(record)))


@pytest.mark.parametrize(
    ("reply", "crash"),
    [
        (None, "n0 did not answer topology within 5 s: it must send a reply of the type"),
        ({"type": "error", "code": 10, "text": "no"}, "n0 must answer topology with a reply of"),
        ({"type": "topology_ok", "extra": 1}, "n0 must answer topology with a reply of the type"),
    ],
)
def test_a_node_that_refuses_the_topology_ends_the_run(reply: Body | None, crash: str) -> None:
    node = answering(lambda *_: [reply] if reply else [])
    record = make(node, workload="broadcast")[0].run()
    assert record.crash.startswith(crash) and not record.history


def invoked(record: Record) -> list[Op]:
    return [op for op in clients(record.history) if op.type == "invoke"]


FINAL = {Keyword("final?"): True}


@pytest.mark.parametrize(
    ("workload", "answer", "extras"),
    [
        ("broadcast", {"messages": [1]}, FINAL),
        ("g-set", {"value": [1]}, None),
        ("g-counter", {"value": 1}, FINAL),
        ("pn-counter", {"value": 1}, FINAL),
    ],
)
def test_at_the_end_every_thread_reads_at_once_after_a_time_to_recover(
    workload: str, answer: Body, extras: object, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {**PARTITIONS, "concurrency": 4, "node_count": 3}
    runner, _ = make(serving(answer), workload=workload, **changes)
    record = runner.run()
    *_, healed = [op for op in record.history if op.process == "nemesis"]
    final = [op for op in record.history if op.time >= healed.time + RECOVERY]
    assert [op.process for op in final if op.type == "invoke"] == [0, 1, 2, 3]
    assert {op.f for op in final} == {"read"} and len(final) == 8
    assert {op.time for op in final if op.type == "invoke"} == {healed.time + RECOVERY}
    assert all(op.extras == extras for op in final)
    assert not any(op.extras for op in record.history if op not in final)
    between = [op for op in record.history if 5 * SECOND < op.time < healed.time + RECOVERY]
    assert healed.f == "stop-partition" and {op.process for op in between} <= {"nemesis"}
    assert "Waiting for recovery..." in capsys.readouterr().out
    assert not record.rate_note


def test_the_faults_end_when_all_operations_have_ended() -> None:
    def slow(nodes: Nodes, node_id: str, message: Body) -> list[Body]:
        if message["body"]["type"] == "add":
            return []
        return [{"type": "read_ok", "value": []}]

    changes = {**PARTITIONS, "node_count": 2, "seed": 4, "nemesis_interval": 100}
    runner, _ = make(answering(slow), workload="g-set", **changes)
    history = runner.run().history
    healed = next(op for op in history if op.f == "stop-partition")
    last = max(op.time for op in history if op.f == "add")
    assert last == healed.time > 5 * SECOND


def test_with_rate_0_only_the_final_reads_are_done() -> None:
    runner, _ = make(serving({"messages": [1]}), workload="broadcast", rate=0, time_limit=3)
    record = runner.run()
    assert [(op.f, op.time) for op in invoked(record)] == [("read", 3 * SECOND + RECOVERY)] * 2
    found = runner.workload.check(record.history)
    assert found[Keyword("valid?")] == Keyword("unknown")
    assert runner.workload.reasons == ["No element was added, so there is nothing to judge."]
    assert runner.workload.warnings and get(found, "warnings") == runner.workload.warnings


# Clients


def senders(nodes: Nodes, type: str) -> list[str]:
    return [m["src"] for _, _, m in nodes.seen if m["body"]["type"] == type]


def test_clients_are_numbered_as_they_are_opened() -> None:
    """One for each init, one for each node's set-up, and one for each thread that needs one."""
    runner, nodes = make(node_count=2, workload="echo", concurrency=3, time_limit=5)
    runner.run()
    assert senders(nodes, "init") == ["c0", "c1"]
    assert list(dict.fromkeys(senders(nodes, "echo"))) == ["c4", "c5", "c6"]


def test_a_client_that_is_not_used_again_is_replaced_by_the_next_operation() -> None:
    """A late answer before that is skipped; a client of unique-ids is kept."""

    def late(nodes: Nodes, node_id: str, message: Body) -> Iterable[Body]:
        (body,) = good(nodes, node_id, message)
        nodes.later(5 * SECOND + 1, node_id, message, {**body, "id": 1})
        return []

    changes: dict[str, Any] = {"concurrency": 1, "time_limit": 60, "rate": 0.08}
    runner, nodes = make(answering(late), workload="echo", **changes)
    assert not runner.run().problems
    assert len({*senders(nodes, "echo")}) == len(senders(nodes, "echo")) > 1
    silent = answering(lambda *_: [])
    runner, nodes = make(silent, workload="unique-ids", **changes)
    assert {op.process for op in clients(runner.run().history)} >= {0, 1}
    assert {*senders(nodes, "generate")} == {"c2"}


# Topologies


@pytest.mark.parametrize(
    ("name", "count", "neighbours"),
    [
        ("line", 1, None),
        ("line", 3, "1 / 0 2 / 1"),
        ("grid", 1, ""),
        ("grid", 2, "1 / 0"),
        ("grid", 5, "3 1 / 4 2 0 / 1 / 0 4 / 1 3"),
        ("total", 3, "1 2 / 0 2 / 0 1"),
        ("tree", 1, ""),
        ("tree", 5, "1 2 / 0 3 4 / 0 / 1 / 1"),
        ("tree3", 5, "1 2 3 / 0 4 / 0 / 0 / 1"),
        ("tree4", 6, "1 2 3 4 / 0 5 / 0 / 0 / 0 / 1"),
    ],
)
def test_a_topology_names_the_neighbours_in_maelstroms_order(
    name: str, count: int, neighbours: str | None
) -> None:
    nodes = [f"n{number}" for number in range(count)]
    parts = [] if neighbours is None else neighbours.split("/")
    expected = [[f"n{number}" for number in part.split()] for part in parts]
    found = TOPOLOGIES[name](nodes)
    assert found == dict(zip(nodes, expected, strict=False))
    if name == "tree":
        assert found == TOPOLOGIES["tree2"](nodes)


# Results


def test_fractions_are_32_bit_floats() -> None:
    def judged(ok: int, count: int, wanted: float | None) -> tuple[bool, float]:
        types = ["ok"] * ok + ["fail"] * (count - ok)
        events = [Op(0, type, "read", None, 1, 0) for end in types for type in ("invoke", end)]
        found = availability(events, wanted)
        return found[Keyword("valid?")], found[Keyword("ok-fraction")]

    assert judged(9, 10, 0.9) == (False, 0.9)  # as in Maelstrom
    assert judged(3, 4, 0.75) == (True, 0.75)
    assert judged(1, 3, None) == (True, 0.33333334)
    assert judged(0, 0, 1.0) == judged(3, 3, 1.0) == (True, 1.0)


def test_messages_are_counted_as_in_maelstrom() -> None:
    """One node, no operations: init, topology, a final read, and a reply to each of them."""
    node = serving({"messages": []})
    runner, _ = make(node, workload="broadcast", concurrency=1, rate=0, time_limit=1)
    record = runner.run()
    counts = {"send-count": 6, "recv-count": 6, "msg-count": 6}
    found = net(runner.network, clients(record.history))
    assert found == edn.loads(
        edn.dumps({
            Keyword("all"): {**keywords(counts), Keyword("msgs-per-op"): 6.0},
            Keyword("clients"): keywords(counts),
            Keyword("servers"): keywords({**dict.fromkeys(counts, 0), "msgs-per-op": 0.0}),
            Keyword("valid?"): True,
        })
    )  # fmt: skip


def keywords(entries: dict[str, Any]) -> Results:
    return {Keyword(name): item for name, item in entries.items()}


# check, and the pages


LOST = """
{:process 0, :type :invoke, :f :broadcast, :value 0, :index 0}
{:process 0, :type :ok, :f :broadcast, :value 0, :index 1}
{:process 1, :type :invoke, :f :read, :value nil, :index 2}
{:process 1, :type :ok, :f :read, :value [7], :index 3}
"""
WHY = (
    "Element 0 is lost: process 0's broadcast was acknowledged at index 1, but process 1's read, "
    "begun at index 2 and ended at index 3, lacks it, and no read has ever shown it."
)
FOREIGN = "Process 1's read at index 3 shows element 7, but nobody has added it."


def stored(folder: Path, results: str = "", log: str = "") -> Path:
    """Writes a run's folder with a lost message."""
    folder.mkdir(parents=True)
    (folder / "history.edn").write_text(LOST)
    for name, text in (("results.edn", results), ("jepsen.log", log)):
        if text:
            (folder / name).write_text(text)
    return folder


def test_check_finds_the_workload_in_the_command_or_in_the_name_of_the_folder(
    tmp_path: Path,
) -> None:
    found = (False, f"{WHY}\nWarning: {FOREIGN}")
    words = '["./maelstrom" "test" "-w" "broadcast" "--" "-w" "echo"]'
    log = "Command line: lein run test --workload=broadcast --bin node\n"
    for folder in (
        stored(tmp_path / "ours", f"; command {words}\n{{:valid? false}}"),
        stored(tmp_path / "theirs", "{:valid? false}", log),
        stored(tmp_path / "broadcast" / "run"),
    ):
        assert judged(folder) == found
        assert judged(folder, "g-set") == found
    bare = stored(tmp_path / "bare") / "history.edn"
    assert judged(bare, "broadcast") == found
    assert judged(bare)[0] is not True
    other = stored(tmp_path / "other", log="Command line: lein run test -w raffle\n")
    assert judged(other) == (None, "there is no checker for the workload raffle")


def judged(path: Path, workload: str = "") -> tuple[bool | None, str]:
    """Returns the verdict of `check` on a path with one history, and its text."""
    (found,) = check.judge(path, check.Wishes(workload))
    return found.verdict.valid, found.text()


def test_check_has_an_option_for_the_workload(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = stored(tmp_path / "bare") / "history.edn"
    assert check.main(["-w", "broadcast", str(path)]) == 1
    assert capsys.readouterr().out == f"{path}\tinvalid\t{WHY}\n    Warning: {FOREIGN}\n"


@pytest.mark.parametrize("name", [name for name in WORKLOADS if name != "lin-kv"])
def test_check_refuses_what_is_no_history_of_the_workload(name: str, tmp_path: Path) -> None:
    path = tmp_path / "history.edn"
    path.write_text("{:process 0, :type :ok, :f :read, :value 1, :index 0}")
    why = "process 0 completes a read (index 0) that it did not invoke"
    assert judged(path, name) == (None, why)


def test_the_page_of_a_run_tells_the_reasons_of_its_workload(tmp_path: Path) -> None:
    """They come from the results, or from the checker if the results are Jepsen's or missing."""
    words = '; command ["./maelstrom" "test" "-w" "broadcast"]\n'
    ours = f'{words}{{:valid? false, :workload {{:valid? false, :why ["so"], :warnings ["w"]}}}}'
    theirs = f"{words}{{:valid? false, :workload {{:valid? false, :lost [0]}}}}"
    run = reading.read(stored(tmp_path / "ours", ours))
    assert (run.verdict, run.whys, run.warnings, run.keyless) == (False, ["so"], ["w"], True)
    run = reading.read(stored(tmp_path / "theirs", theirs))
    assert (run.verdict, run.whys, run.keyless) == (False, [WHY], True)
    run = reading.read(stored(tmp_path / "broadcast" / "run"))
    assert (run.verdict, run.whys) == (False, [WHY, reading.ALONE])


def test_a_warning_is_on_the_page(tmp_path: Path) -> None:
    report = pytest.importorskip("workbench.report.report")
    ours = '{:valid? true, :workload {:valid? true, :warnings ["A <b> was odd."]}}'
    page = report.html(reading.read(stored(tmp_path / "broadcast" / "run", ours)))
    assert "<p>Warning: A &lt;b&gt; was odd.</p>" in page
    assert "not linearizable" not in page
