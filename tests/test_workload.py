"""What the clients do, and what their answers mean."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from workbench.edn import Keyword
from workbench.history import Op
from workbench.workload import ERRORS, Echo, LinKv, Worker


def test_a_key_is_retired_after_20_processes() -> None:
    workload = LinKv(random.Random(1), 1)
    workers = [Worker(0, 0), Worker(1, 1)]
    processes: dict[int, set[int]] = {}
    for _ in range(400):
        if operation := workload.next(workers, workers):
            worker, f, (key, _value) = operation
            processes.setdefault(key, set()).add(worker.process)
            assert (f == "read") is (worker.thread == 0)
            if f != "read":
                worker.process += 2  # as after an operation without an outcome
    assert list(processes) == list(range(len(processes)))
    assert len(processes) > 3
    assert max(len(seen) for seen in processes.values()) == 20


@pytest.mark.parametrize("busy", [[], [4, 5], [3, 4, 5], [0, 1], [0, 1, 2]])
def test_each_half_of_the_workers_has_its_share_whoever_is_stuck(busy: list[int]) -> None:
    workload = LinKv(random.Random(1), 3)
    workers = [Worker(thread, thread) for thread in range(6)]
    free = [worker for worker in workers if worker.thread not in busy]
    drawn: Counter[str] = Counter()
    threads = set()
    for _ in range(3000):
        if operation := workload.next(free, workers):
            worker, f, _ = operation
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
    workload = LinKv(random.Random(1), 2)
    workers = [Worker(thread, thread) for thread in range(8)]
    keys: dict[int, set[int]] = {0: set(), 1: set()}
    for _ in range(200):
        operation = workload.next(workers, workers)
        assert operation
        keys[operation[0].thread // 4].add(operation[2][0])
    assert sorted(map(sorted, keys.values())) == [[0], [1]]


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
    results = Echo(random.Random(1), 1).check(ops)
    assert results[Keyword("valid?")] is valid
    received = value if type == "ok" else error
    expected = ["Expected a message with :echo", "Please echo 1", "But received", received]
    assert results[Keyword("errors")] == ([] if valid else [expected])
