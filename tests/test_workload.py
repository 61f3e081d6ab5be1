"""Workloads: the operations of clients, and the meaning of replies."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from workbench.checkers.linearizable import BUDGET
from workbench.record import edn
from workbench.record.edn import Keyword
from workbench.record.history import Op
from workbench.workloads.echo import Echo
from workbench.workloads.lin_kv import LinKv
from workbench.workloads.workload import ERRORS, Settings, Worker


def test_a_key_is_retired_after_20_processes() -> None:
    workload = LinKv(random.Random(1), Settings(1))
    workers = [Worker(0, 0), Worker(1, 1)]
    processes: dict[int, set[int]] = {}
    for _ in range(400):
        if operation := workload.next(workers, workers, 0):
            worker, f, (key, _value) = operation[:3]
            processes.setdefault(key, set()).add(worker.process)
            assert (f == "read") is (worker.thread == 0)
            if f != "read":
                worker.process += 2  # as after an operation without an outcome
    assert list(processes) == list(range(len(processes)))
    assert len(processes) > 3
    assert max(len(seen) for seen in processes.values()) == 20


def test_a_key_is_retired_after_as_many_processes_as_work_on_it_if_these_are_more() -> None:
    workload = LinKv(random.Random(1), Settings(11))
    workers = [Worker(thread, thread) for thread in range(22)]

    def keys() -> set[int]:
        drawn = [workload.next(workers, workers, 0) for _ in range(100)]
        return {operation[2][0] for operation in drawn if operation}

    assert keys() == {0}
    workers[21].process += 22
    assert keys() == {1}
    workers[0].process += 22
    assert keys() == {2}


@pytest.mark.parametrize("busy", [[], [4, 5], [3, 4, 5], [0, 1], [0, 1, 2]])
def test_each_half_of_the_workers_has_its_share_whoever_is_stuck(busy: list[int]) -> None:
    workload = LinKv(random.Random(1), Settings(3))
    workers = [Worker(thread, thread) for thread in range(6)]
    free = [worker for worker in workers if worker.thread not in busy]
    drawn: Counter[str] = Counter()
    threads = set()
    for _ in range(3000):
        if operation := workload.next(free, workers, 0):
            worker, f = operation[:2]
            assert worker in free
            assert (f == "read") is (worker.thread < 3)
            drawn[f] += 1
            threads.add(worker.thread)
    reads = 0 if {0, 1, 2} <= {*busy} else 1500
    writes = 0 if {3, 4, 5} <= {*busy} else 500
    assert abs(drawn["read"] - reads) < 120
    assert abs(drawn["write"] - writes) < 80
    assert abs(drawn["cas"] - 2 * writes) < 120
    assert threads == {worker.thread for worker in free}


def test_each_group_of_2n_workers_has_a_key_of_its_own() -> None:
    workload = LinKv(random.Random(1), Settings(2))
    workers = [Worker(thread, thread) for thread in range(8)]
    keys: dict[int, set[int]] = {0: set(), 1: set()}
    for _ in range(200):
        operation = workload.next(workers, workers, 0)
        assert operation
        keys[operation[0].thread // 4].add(operation[2][0])
    assert sorted(map(sorted, keys.values())) == [[0], [1]]


def on_key_0(*events: tuple[int, str, str, object]) -> list[Op]:
    return [
        Op(process, type, f, [0, value], 1000 + index, index)
        for index, (process, type, f, value) in enumerate(events)
    ]


WROTE_1 = [(0, "invoke", "write", 1), (0, "ok", "write", 1)]
READ = (1, "invoke", "read", None)


def results(ops: list[Op], budget: int = BUDGET) -> str:
    return edn.dumps(LinKv(random.Random(1), Settings(1, budget=budget)).check(ops))


def test_of_a_key_that_is_linearizable_the_last_operation_is_told() -> None:
    assert results(on_key_0(*WROTE_1, READ, (1, "ok", "read", 1))) == (
        "{:valid? true, :results {0 {:linearizable {:valid? true, :configs [{:model {:value 1}, "
        ":last-op {:process 1, :type :ok, :f :read, :value 1, :index 3}, :pending []}], "
        ":final-paths []}, :timeline {:valid? true}, :valid? true}}, :failures []}"
    )
    assert ":model {:value nil}, :last-op nil" in results(on_key_0(READ, (1, "info", "read", None)))


def test_of_one_that_is_not_why_and_the_paths_that_came_furthest() -> None:
    found = results(on_key_0(*WROTE_1, READ, (1, "ok", "read", 3)))
    assert found.startswith("{:valid? false, :results {0 {:linearizable {:valid? false, :why ")
    assert (
        ":final-paths [[{:op {:process 0, :f :write, :value 1}, :model {:value 1}} "
        "{:op {:process 1, :f :read, :value 3}, "
        ':model {:msg "read found 3, but key 0 held 1"}}]]' in found
    )
    assert ":configs" not in found
    assert found.endswith(":timeline {:valid? true}, :valid? false}}, :failures [0]}")


def test_one_that_nobody_knows_of_is_no_failure() -> None:
    found = results(on_key_0(*WROTE_1), budget=0)
    assert found.startswith(
        '{:valid? :unknown, :results {0 {:linearizable {:valid? :unknown, :why "key 0 has no'
    )
    assert found.endswith(":valid? :unknown}}, :failures []}")


def test_without_clients_there_is_nothing_to_judge() -> None:
    assert results([]) == "{:valid? true, :results {}, :failures []}"
    nemesis = [Op("nemesis", "info", "start-kill", ["n0", "n1"], 1, 0)]
    assert results(nemesis) == results([])


def test_an_echo_without_payload_is_malformed() -> None:
    echo = Echo(random.Random(1), Settings(1))
    assert echo.complete("echo", 1, {"type": "echo_ok", "echo": 2}) == 2
    for reply in ({"type": "echo_ok"}, {"type": "read_ok", "echo": 1}):
        with pytest.raises(ValueError, match=r"must|missing"):
            echo.complete("echo", 1, reply)


def test_errors_have_the_names_and_meanings_of_maelstroms() -> None:
    assert ERRORS[0] == ("timeout", False)
    assert {code for code, (_, definite) in ERRORS.items() if not definite} == {0, 13}
    assert {*ERRORS} == {0, 1, 10, 11, 12, 13, 14, 20, 21, 22, 30}


ECHOED = {
    "the same": ("ok", "Please echo 1", None, True),
    "something else": ("ok", "Please echo 2", None, False),
    "a definite error": ("fail", "Please echo 1", [Keyword("abort"), "no"], False),
    "no answer": ("info", "Please echo 1", Keyword("net-timeout"), False),
}


@pytest.mark.parametrize("what", ECHOED)
def test_an_echo_is_right_if_it_is_ok_with_the_same_payload(what: str) -> None:
    type, value, error, valid = ECHOED[what]
    ops = [
        Op(0, "invoke", "echo", "Please echo 1", 1, 0),
        Op(1, "invoke", "echo", "Please echo 3", 2, 1),
        Op("nemesis", "info", "start-partition", None, 2, 2),
        Op(0, type, "echo", value, 3, 3, error),
        Op(1, "ok", "echo", "Please echo 3", 4, 4),
        Op(1, "invoke", "echo", "Please echo 4", 5, 5),  # still under way at the end
    ]
    results = Echo(random.Random(1), Settings(1)).check(ops)
    assert results[Keyword("valid?")] is valid
    received = value if type == "ok" else error
    expected = ["Expected a message with :echo", "Please echo 1", "But received", received]
    assert results[Keyword("errors")] == ([] if valid else [expected])
