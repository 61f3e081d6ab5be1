"""The workload kafka: its operations, its clients, and its final phase."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count, pairwise
from typing import Any

import pytest
from test_runner import Body, Nodes, answering, error, make
from workbench.reasons import never_ok, of_part
from workbench.record import edn
from workbench.record.edn import Keyword
from workbench.record.history import Op, clients
from workbench.running.client import Outcome, proceed
from workbench.running.results import availability, stats
from workbench.running.runner import RECOVERY, Record
from workbench.units import SECOND
from workbench.workloads.kafka import FINAL_GAP, FINAL_TIME, Kafka
from workbench.workloads.workload import Settings, Worker

POLL = [[Keyword("poll")]]


def made() -> Kafka:
    return Kafka(random.Random(1), Settings(3))


def drawn(workload: Kafka, count: int, now: int = 1) -> list[tuple[str, Any, Any]]:
    """Draws operations at one moment: f, value and extras."""
    workers = [Worker(thread, thread) for thread in range(3)]
    found = [workload.next(workers, workers, now) for _ in range(count)]
    return [(op[1], op[2], op[3] if len(op) > 3 else {}) for op in found if op]


def carry_out(
    workload: Kafka, state: dict[str, int], f: str, value: Any, *replies: Body, **extras: Any
) -> tuple[list[Body], Outcome | None]:
    """Carries out an operation with these replies: its requests, and its outcome if it ended."""
    given = {Keyword(name.replace("_", "-") + "?"): item for name, item in extras.items()}
    talk = workload.converse(f, value, given, state)
    step = proceed(value, talk)
    requests = []
    for reply in replies:
        assert not isinstance(step, Outcome)
        requests.append(step)
        step = proceed(value, talk, reply)
    if isinstance(step, Outcome):
        return requests, step
    return [*requests, step], None


def send(workload: Kafka, key: str, message: int, offset: int) -> Outcome | None:
    """Sends a message that gets this offset."""
    value = [[Keyword("send"), key, message]]
    return carry_out(workload, {}, "send", value, {"type": "send_ok", "offset": offset})[1]


def poll(workload: Kafka, state: dict[str, int], **msgs: Any) -> tuple[list[Body], Outcome | None]:
    """Polls these messages, by key with a k before it."""
    body = {"type": "poll_ok", "msgs": {key[1:]: pairs for key, pairs in msgs.items()}}
    commit = [{"type": "commit_offsets_ok"}] if any(msgs.values()) else []
    return carry_out(workload, state, "poll", POLL, body, *commit)


# The generator


def test_half_of_the_operations_are_sends_of_new_messages_to_keys_that_are_strings() -> None:
    operations = drawn(made(), 3000)
    sends = [value[0] for f, value, _ in operations if f == "send"]
    assert 1350 < len(sends) < 1600
    assert {value for f, value, _ in map(edn_value, operations) if f == "poll"} == {"[[:poll]]"}
    by_key: dict[str, list[int]] = {}
    for name, key, message in sends:
        assert name == Keyword("send") and type(key) is str
        by_key.setdefault(key, []).append(message)
    assert all(messages == [*range(1, len(messages) + 1)] for messages in by_key.values())
    assert max(map(len, by_key.values())) == 16


def edn_value(operation: tuple[str, Any, Any]) -> tuple[str, str, Any]:
    f, value, extras = operation
    return f, edn.dumps(value), extras


def test_an_assign_sometimes_precedes_an_operation_and_names_its_key() -> None:
    operations = drawn(made(), 20_000)
    places = [place for place, (f, _, _) in enumerate(operations) if f == "assign"]
    assert 250 < len(places) < 380
    for place in places[:-1]:
        f, value, _ = operations[place + 1]
        if f == "send":
            assert operations[place][1] == [value[0][1]]


def test_a_third_of_the_assigns_names_all_keys_with_unseen_messages() -> None:
    workload = made()
    send(workload, "70", 1, 4)
    send(workload, "8", 1, 0)
    send(workload, "9", 1, 2)
    poll(workload, {}, k70=[[3, 1]], k9=[[2, 1], [1, 7]])
    assigns = [op for op in drawn(workload, 20_000) if op[0] == "assign"]
    named = [(value, extras) for _, value, extras in assigns if extras]
    assert 0.25 < len(named) / len(assigns) < 0.42
    shown = {edn.dumps(extras) for _, extras in named}
    assert shown == {"{:unseen {8 {:polled -1, :sent 0}, 70 {:polled 3, :sent 4}}}"}
    assert all(value[:2] == ["70", "8"] and len(value) == 3 for value, _ in named[:5])
    assert all(len(value) == 1 for _, value, extras in assigns if not extras)


def test_the_first_operation_is_a_crash_and_the_others_keep_their_rate() -> None:
    """With 3 threads there is a crash every 10 s on average, 20 s apart at most."""
    workload = made()
    crashes = [
        second for second in range(3000) if drawn(workload, 1, second * SECOND)[0][0] == "crash"
    ]
    assert crashes[0] == 0 and 230 < len(crashes) < 330
    assert drawn(made(), 2, 0)[0] == ("crash", None, {})
    gaps = [after - before for before, after in pairwise(crashes)]
    assert min(gaps) <= 2 and 18 <= max(gaps) <= 21


# The client


def test_a_send_gets_an_offset() -> None:
    found = send(made(), "9", 1, 5)
    assert found == Outcome("ok", [[Keyword("send"), "9", [5, 1]]])


def test_a_poll_is_followed_by_a_commit_of_its_highest_offsets_if_any_message_came() -> None:
    workload, state = made(), {"9": 2, "7": 5}
    requests, found = poll(workload, state, k9=[[2, "a"], [4, "b"]], k7=[], k3=[[0, 1]])
    assert requests == [
        {"type": "poll", "offsets": {"9": 2, "7": 5}},
        {"type": "commit_offsets", "offsets": {"9": 4, "3": 0}},
    ]
    assert found == Outcome(
        "ok", [[Keyword("poll"), {"9": [[2, "a"], [4, "b"]], "7": [], "3": [[0, 1]]}]]
    )
    assert state == {"9": 5, "7": 5, "3": 1}  # also of a key that nobody assigned
    requests, found = poll(workload, state, k9=None)
    assert requests == [{"type": "poll", "offsets": {"9": 5, "7": 5, "3": 1}}]
    assert found == Outcome("ok", [[Keyword("poll"), {"9": None}]])
    assert state["9"] == 5


def test_offsets_stay_advanced_without_the_reply_to_the_commit() -> None:
    state: dict[str, int] = {}
    polled = {"type": "poll_ok", "msgs": {"9": [[0, 1]]}}
    requests, found = carry_out(made(), state, "poll", POLL, polled)
    assert found is None and requests[-1]["type"] == "commit_offsets" and state == {"9": 1}


def test_an_assign_ignores_the_committed_offsets() -> None:
    state = {"1": 4, "2": 5}
    answer = {"type": "list_committed_offsets_ok", "offsets": {"2": 8, "3": 9}}
    requests, found = carry_out(made(), state, "assign", ["2", "3"], answer)
    assert requests == [{"type": "list_committed_offsets", "keys": ["2", "3"]}]
    assert found == Outcome("ok", ["2", "3"]) and state == {"2": 5, "3": 0}
    requests, found = carry_out(made(), state, "assign", ["2", "1"], seek_to_beginning=True)
    assert (requests, found) == ([], Outcome("ok", ["2", "1"])) and state == {"2": 0, "1": 0}


def test_a_crash_is_unknown_without_a_request() -> None:
    assert carry_out(made(), {}, "crash", None) == ([], Outcome("info", None))


MALFORMED: list[tuple[str, Any, Body]] = [
    ("send", [[Keyword("send"), "9", 1]], {"type": "send_ok"}),
    ("send", [[Keyword("send"), "9", 1]], {"type": "send_ok", "offset": "1"}),
    ("send", [[Keyword("send"), "9", 1]], {"type": "send_ok", "offset": 1, "key": "9"}),
    ("poll", POLL, {"type": "poll_ok"}),
    ("poll", POLL, {"type": "poll_ok", "msgs": None}),
    ("poll", POLL, {"type": "poll_ok", "msgs": {"9": {}}}),
    ("poll", POLL, {"type": "poll_ok", "msgs": {"9": [[0]]}}),
    ("poll", POLL, {"type": "poll_ok", "msgs": {"9": [[0, 1, 2]]}}),
    ("poll", POLL, {"type": "poll_ok", "msgs": {"9": [["0", 1]]}}),
    ("poll", POLL, {"type": "poll_ok", "msgs": {"9": [None]}}),
    ("assign", ["9"], {"type": "list_committed_offsets_ok", "offsets": []}),
    ("assign", ["9"], {"type": "list_committed_offsets_ok", "offsets": {"9": None}}),
]


@pytest.mark.parametrize(("f", "value", "reply"), MALFORMED)
def test_malformed_replies(f: str, value: Any, reply: Body) -> None:
    _, found = carry_out(made(), {}, f, value, reply)
    assert found and found.type == "info" and "must" in found.problem


# Runs


def log(nodes: Nodes, node_id: str, message: Body) -> list[Body]:
    """Keeps the logs in one node, in the test's process."""
    body = message["body"]
    logs: dict[str, list[Any]] = vars(nodes).setdefault("logs", {})
    if body["type"] == "send":
        logs.setdefault(body["key"], []).append(body["msg"])
        return [{"type": "send_ok", "offset": len(logs[body["key"]]) - 1}]
    if body["type"] == "poll":
        found = {
            key: [[offset, item] for offset, item in enumerate(logs.get(key, []))][start:]
            for key, start in body["offsets"].items()
        }
        return [{"type": "poll_ok", "msgs": {key: pairs for key, pairs in found.items() if pairs}}]
    if body["type"] == "commit_offsets":
        return [{"type": "commit_offsets_ok"}]
    return [{"type": "list_committed_offsets_ok", "offsets": {}}]


Answer = Callable[[Nodes, str, Body], list[Body]]


def run(answer: Answer = log, **changes: Any) -> tuple[Record, Kafka, Nodes]:
    given: dict[str, Any] = {"workload": "kafka", "concurrency": 3, "rate": 20, "time_limit": 10}
    runner, nodes = make(answering(answer), **given | changes)
    record = runner.run()
    assert not record.crash and not record.problems
    assert isinstance(runner.workload, Kafka)
    return record, runner.workload, nodes


def refusing(type: str, reply: Body | None) -> Answer:
    """Returns a node that gives this reply, or none, to requests of one type."""

    def answer(nodes: Nodes, node_id: str, message: Body) -> list[Body]:
        if message["body"]["type"] == type:
            return [reply] if reply else []
        return log(nodes, node_id, message)

    return answer


@pytest.mark.parametrize(
    ("request_type", "f", "unknown"),
    [
        ("send", "send", "info"),
        ("poll", "poll", "info"),
        ("commit_offsets", "poll", "info"),
        ("list_committed_offsets", "assign", "fail"),
    ],
)
def test_each_request_of_an_operation_may_end_it(request_type: str, f: str, unknown: str) -> None:
    """An assign is idempotent, so it has failed even without a reply."""
    for reply, type, text in (
        (None, unknown, Keyword("net-timeout")),
        (error(13), unknown, [Keyword("crash"), "why"]),
        (error(11), "fail", [Keyword("temporarily-unavailable"), "why"]),
    ):
        record, _, _ = run(refusing(request_type, reply), rate=50, time_limit=20)
        ended = [op for op in clients(record.history) if op.f == f and op.error is not None]
        assert ended and all((op.type, op.error) == (type, text) for op in ended)


def test_a_poll_after_a_refused_commit_skips() -> None:
    commits = count()

    def answer(nodes: Nodes, node_id: str, message: Body) -> list[Body]:
        if message["body"]["type"] == "commit_offsets" and next(commits) % 3 == 2:
            return [error(11)]
        return log(nodes, node_id, message)

    record, workload, _ = run(answer, rate=100)
    assert workload.check(record.history)[Keyword("valid?")] is False
    assert any(why.startswith("poll-skip: ") for why in workload.reasons)


def test_a_crash_opens_a_new_client_without_offsets() -> None:
    record, _, nodes = run(concurrency=1, rate=50, time_limit=60, seed=2)
    first: dict[str, Body] = {}
    for _, _, message in nodes.seen:
        if message["body"]["type"] == "poll":
            first.setdefault(message["src"], message["body"])
    crashes = [op for op in record.history if op.f == "crash" and op.type == "info"]
    assert len(first) == len(crashes) > 2  # the first crash comes before the first poll
    assert [body["offsets"] for body in first.values()][:-1] == [{}] * (len(first) - 1)


def test_crashes_are_invocations_but_do_not_make_the_stats_invalid() -> None:
    record, _, _ = run()
    events = clients(record.history)
    found = stats(events)
    assert found[Keyword("valid?")] is True
    crash = found[Keyword("by-f")][Keyword("crash")]
    assert crash[Keyword("valid?")] is False and crash[Keyword("info-count")] >= 4
    assert availability(events, 1.0)[Keyword("valid?")] is False
    silent = stats(clients(run(refusing("poll", None))[0].history))
    assert silent[Keyword("valid?")] is False and never_ok(silent) == ["poll"]
    assert of_part("stats", silent) == ["No poll operation was ok, so the test cannot be valid."]


def final_phase(record: Record) -> list[Op]:
    began = max(op.time for op in record.history if op.f == "crash" and op.type == "invoke")
    return [op for op in record.history if op.time >= began]


def test_at_the_end_each_thread_polls_all_keys_from_the_beginning() -> None:
    record, workload, nodes = run(rate=50)
    final = final_phase(record)
    assert final[0].time >= 10 * SECOND + RECOVERY - SECOND
    ends = [op for op in final if op.type != "invoke"]
    assert [op.f for op in ends].count("crash") == [op.f for op in ends].count("assign") == 3
    (value,) = {tuple(op.value) for op in ends if op.f == "assign"}
    assert value == tuple(sorted(vars(nodes)["logs"], key=int))
    assert all(op.extra("seek-to-beginning?") is True for op in final if op.f == "assign")
    polls = [op for op in final if op.f == "poll"]
    assert len(polls) == 6 and all(op.extra("poll-ms") == 1000 for op in polls)
    assert workload.check(record.history)[Keyword("valid?")] is True


def test_the_final_phase_starts_nothing_after_its_time() -> None:
    """A log whose last message is never shown is polled until then."""

    def answer(nodes: Nodes, node_id: str, message: Body) -> list[Body]:
        (body,) = log(nodes, node_id, message)
        if body["type"] == "poll_ok":
            body["msgs"] = {key: pairs[:-1] for key, pairs in body["msgs"].items() if pairs[1:]}
        return [body]

    record, workload, _ = run(answer)
    polls = [op for op in final_phase(record) if op.f == "poll" and op.type == "invoke"]
    began = polls[0].time
    for process in {op.process for op in polls}:
        times = [op.time - began for op in polls if op.process == process]
        gaps = [after - before for before, after in pairwise(times)]
        assert times[0] == 0 and max(gaps) < FINAL_GAP
        assert 40 < len(times) < 60 and FINAL_TIME - FINAL_GAP < times[-1] < FINAL_TIME
    assert workload.check(record.history)[Keyword("valid?")] is False
    assert workload.reasons[0].startswith("unseen: ")


@pytest.mark.parametrize("rate", [0, 20])
def test_without_a_known_offset_there_is_no_final_phase(rate: int) -> None:
    silent = answering(lambda *_: [])
    runner, _ = make(silent, workload="kafka", concurrency=3, rate=rate, time_limit=3)
    record = runner.run()
    events = clients(record.history)
    assert bool(events) is bool(rate) and all(op.time < 10 * SECOND for op in events)
    assert not any(op.extras for op in events)
    assert runner.loop.run_time() >= 3 * SECOND + RECOVERY
    if not rate:
        assert runner.workload.check(record.history)[Keyword("valid?")] == Keyword("unknown")
        why = "There are no operations, so there is nothing to judge."
        assert runner.workload.reasons == [why]
