"""The workloads beside lin-kv, with a correct node and with faulty ones, and their rules."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from test_runner import Body, Nodes, answering, good, make, options
from workbench.console.console import Console
from workbench.reasons import reasons, warnings
from workbench.record import edn
from workbench.record.edn import Keyword
from workbench.record.history import Op, clients
from workbench.running.prepare import prepare
from workbench.running.results import results
from workbench.running.runner import Record
from workbench.units import SECOND
from workbench.verdicts import Results, get
from workbench.workloads import WORKLOADS
from workbench.workloads.topology import TOPOLOGIES
from workbench.workloads.workload import Worker, Workload

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
    """Runs a node of tests/nodes: five nodes, 10 s, 20 operations a second."""
    given: dict[str, Any] = {
        "node_count": 5, "concurrency": 5, "time_limit": 10, "rate": 20, "latency": 10,
    } | changes  # fmt: skip
    opts = options(
        workload=workload, bin=NODES / node, args=args, simulate=True, seed=seed, **given
    )
    logs = folder / "node-logs"
    logs.mkdir()
    runner = prepare(opts, logs, Console())
    record = runner.run()
    assert not record.crash and not record.problems
    return Run(record, runner.workload, results(record, runner.network, runner.workload, opts))


def drawn(name: str, count: int, threads: int = 3) -> list[tuple[int, str, Any]]:
    """Returns the first operations of a workload: thread, f and value."""
    workload = WORKLOADS[name](random.Random(1), 3)
    workers = [Worker(thread, thread) for thread in range(threads)]
    found = [workload.next(workers, workers) for _ in range(count)]
    return [(next[0].thread, next[1], next[2]) for next in found if next]


# A correct node is valid, and the checker finds each fault.


CORRECT = [
    ("unique-ids", "unique_ids.py"),
]


@pytest.mark.parametrize("faults", ["none", "partition"])
@pytest.mark.parametrize(("workload", "node"), CORRECT)
def test_a_correct_node_is_valid(workload: str, node: str, faults: str, tmp_path: Path) -> None:
    run = simulate(tmp_path, workload, node, **(PARTITIONS if faults == "partition" else {}))
    assert run.results[Keyword("valid?")] is True, run.whys
    assert not run.whys and not warnings(run.results)
    started = [op for op in run.record.history if op.f == "start-partition"]
    assert bool(started) is (faults == "partition")


FAULTY: list[tuple[str, str, str, dict[str, Any], str]] = [
    ("unique-ids", "unique_ids.py", "duplicate", {}, "is not unique: process "),
]


@pytest.mark.parametrize(("workload", "node", "fault", "changes", "why"), FAULTY)
def test_the_checker_finds_the_fault(
    workload: str, node: str, fault: str, changes: dict[str, Any], why: str, tmp_path: Path
) -> None:
    run = simulate(tmp_path, workload, node, fault, **changes)
    assert get(run.results, "workload", "valid?") is False
    assert why in run.whys[0] and run.whys[0] == run.workload.reasons[0]
    assert get(edn.loads(edn.dumps(run.results)), "workload", "why") == run.workload.reasons


# Operations


def test_free_threads_take_turns() -> None:
    assert [thread for thread, _, _ in drawn("unique-ids", 7)] == [0, 1, 2, 0, 1, 2, 0]


def test_unique_ids_are_of_any_type_but_there_must_be_one() -> None:
    workload = WORKLOADS["unique-ids"](random.Random(1), 1)
    assert drawn("unique-ids", 2) == [(0, "generate", None), (1, "generate", None)]
    assert workload.request("generate", None) == {"type": "generate"}
    for id in (None, 1, "a", [1, {"b": 2}]):
        assert workload.complete("generate", None, {"type": "generate_ok", "id": id}) == id
    for reply in ({"type": "generate_ok"}, {"type": "generate_ok", "id": 1, "key": 2}):
        with pytest.raises(ValueError, match="must"):
            workload.complete("generate", None, reply)


# How an operation ends


def ends(workload: str, reply: Body | None, **changes: Any) -> dict[str, Op]:
    """Returns the first completion of each f, if nodes send this reply, or none."""
    replies = answering(lambda *_: [reply] if reply else [])
    given = {"concurrency": 2, "time_limit": 10, "rate": 10} | changes
    runner, _ = make(replies, workload=workload, **given)
    history = clients(runner.run().history)
    return {op.f: op for op in reversed(history) if op.type != "invoke"}


def error(code: int) -> Body:
    return {"type": "error", "code": code, "text": "no"}


UNKNOWN = {"unique-ids": {"generate": "info"}}
DEFINITE = {"unique-ids": {"generate": "fail"}}


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
