"""The services answer as Maelstrom's do (maelstrom.service), and are peers on the network."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest
from test_runner import Body, Nodes, good, make
from workbench.network.network import Latency, Message, Network
from workbench.services.host import Host, Service, services
from workbench.services.kv import STATES
from workbench.simulation.loop import VirtualLoop

MS = 1_000_000
MISSING = {"type": "error", "code": 20, "text": "key does not exist"}
STORES = ("lin-kv", "seq-kv", "lww-kv")


def service(name: str, seed: int = 1) -> Service:
    return services(random.Random(seed))[name]


def read(store: Service, key: Any = "a", src: str = "n0") -> Body:
    return store.handle(src, {"type": "read", "key": key})


def write(store: Service, value: Any, key: Any = "a", src: str = "n0") -> Body:
    return store.handle(src, {"type": "write", "key": key, "value": value})


def cas(store: Service, expected: Any, to: Any, **more: Any) -> Body:
    return store.handle("n0", {"type": "cas", "key": "a", "from": expected, "to": to, **more})


def value(got: Any) -> Body:
    return {"type": "read_ok", "value": got}


def filled(name: str, entry: Any, key: Any = "a") -> Service:
    """Returns a store of which each replica has this entry."""
    store = service(name)
    for _ in range(20):
        write(store, entry, key)
    return store


# One store for one sender


@pytest.mark.parametrize("name", STORES)
def test_a_store_reads_writes_and_compares_and_sets(name: str) -> None:
    assert read(service(name)) == cas(service(name), 1, 2) == MISSING
    store = filled(name, 1)
    assert read(store) == value(1)
    assert cas(store, 1, 2) == {"type": "cas_ok"}
    assert read(filled(name, None)) == value(None)


@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize(
    ("current", "expected", "text"),
    [(1, 2, "1 is not 2"), (1, 1.0, "1 is not 1.0"), (True, 1, "true is not 1"),
     ([1, "b"], {}, '[1 "b"] is not {}'), ({"b": None}, 0, '{"b" nil} is not 0')],
)  # fmt: skip
def test_a_failed_cas_tells_both_values(
    name: str, current: Any, expected: Any, text: str
) -> None:
    found = cas(filled(name, current), expected, 3)
    assert found == {"type": "error", "code": 22, "text": f"current value {text}"}


@pytest.mark.parametrize(
    ("name", "expected", "text"),
    [("lin-kv", "b", '"b"'), ("seq-kv", None, "nil"), ("lww-kv", "b", "b"), ("lww-kv", None, ""),
     ("lww-kv", ["b"], '["b"]')],
)  # fmt: skip
def test_lww_kv_shows_a_bare_string_as_expected_value(name: str, expected: Any, text: str) -> None:
    assert cas(filled(name, "c"), expected, 1)["text"] == f'current value "c" is not {text}'


@pytest.mark.parametrize("name", STORES)
def test_keys_are_equal_if_type_and_value_are(name: str) -> None:
    for one, others in ((1, ("1", 1.0, True, [1])), ([1, {"b": 2}], ([1], [1, {"b": 2.0}], None))):
        store = filled(name, "here", one)
        assert read(store, one) == value("here")
        assert all(read(store, other) == MISSING for other in others)


def test_a_missing_field_is_null_and_an_unknown_field_is_ignored() -> None:
    store = service("lin-kv")
    assert store.handle("n0", {"type": "write", "more": 1}) == {"type": "write_ok"}
    assert store.handle("n0", {"type": "read"}) == value(None)
    assert store.handle("n0", {"type": "cas", "to": 2}) == {"type": "cas_ok"}
    assert read(store, None) == value(2)


@pytest.mark.parametrize("create", [True, False, None, 0])
def test_a_cas_may_create_a_key_but_not_in_lww_kv(create: Any) -> None:
    made = create in (True, 0) and create is not False  # in Clojure 0 is true
    for name in STORES:
        store = service(name)
        found = cas(store, 7, 1, create_if_not_exists=create)
        assert found == ({"type": "cas_ok"} if made and name != "lww-kv" else MISSING)


def test_timestamps_count_from_0() -> None:
    source = service("lin-tso")
    assert [source.handle("n0", {"type": "ts"}) for _ in range(3)] == [
        {"type": "ts_ok", "ts": ts} for ts in range(3)
    ]


# Several senders


def test_lin_kv_shows_everybody_the_newest_value() -> None:
    store = service("lin-kv")
    for number in range(100):
        write(store, number)
        assert read(store, src=f"n{number % 3 + 1}") == value(number)


def test_seq_kv_shows_others_old_states_but_never_older_ones_than_before() -> None:
    store = service("seq-kv")
    for number in range(STATES - 1):
        write(store, number)
        assert read(store) == value(number)
    firsts = [read(store, src=f"reader {number}") for number in range(300)]
    assert {first.get("value") for first in firsts} == {None, *range(STATES - 1)}
    seen = [read(store, src="n1").get("value", -1) for _ in range(300)]
    assert seen == sorted(seen) and len({*seen}) > 1 and seen[-1] == STATES - 2


def test_seq_kv_counts_back_modulo_32_so_that_a_late_sender_sees_new_then_old() -> None:
    store = service("seq-kv")
    for number in range(100):
        write(store, number)
    back = 0
    for reader in range(200):
        seen = [read(store, src=f"reader {reader}").get("value", -1) for _ in range(30)]
        assert min(seen) >= 100 - STATES
        back += seen != sorted(seen)
    assert 60 < back < 120  # 85 of 200 in the real one


def test_a_change_runs_on_the_newest_state_of_seq_kv_and_shows_it_to_its_sender() -> None:
    for seed in range(50):
        store = service("seq-kv", seed)
        for number in range(10):
            write(store, number)
        write(store, seed, "mine", "n1")
        assert read(store, src="n1") == value(9)


def test_a_write_or_cas_on_seq_kv_may_end_in_an_old_state() -> None:
    """A write of an old value may be lost, and a cas may fail although it expects the newest."""
    swallowed = refused = 0
    for seed in range(200):
        store = service("seq-kv", seed)
        for number in (1, 2):
            write(store, number)
        write(store, 1, src="n1")
        write(store, "new", "another key")  # its sender has reached the newest state then
        swallowed += read(store) == value(2)
        store = service("seq-kv", seed)
        for number in (1, 2):
            write(store, number)
        request = {"type": "cas", "key": "a", "from": 2, "to": 3}
        refused += store.handle("n1", request)["type"] == "error"
    assert 40 < swallowed < 100  # one state of three holds a 1
    assert 100 < refused < 170  # two states of three do not hold a 2


def test_a_request_that_fails_on_the_newest_state_of_seq_kv_has_reached_it() -> None:
    failed = 0
    for seed in range(100):
        store = service("seq-kv", seed)
        for number in (1, 2):
            write(store, number)
        request = {"type": "cas", "key": "a", "from": 1, "to": 3}
        if "2 is not" in store.handle("n1", request).get("text", ""):
            failed += 1
            assert read(store, src="n1") == value(2)
    assert failed > 50  # on two states of three, and on the third one it runs again


def test_half_of_the_reads_of_lww_kv_miss_a_key_that_was_written_once() -> None:
    store = service("lww-kv")
    write(store, 1)
    found = [read(store) for _ in range(4000)]
    seen, missed = found.count(value(1)), found.count(MISSING)
    assert 1800 < seen < 2200 and seen + missed == 4000


# On the network


class Net:
    """A network of n0, n1 and the services. Notes what arrives at nodes, and the warnings."""

    def __init__(self, seed: int = 1) -> None:
        self.loop = VirtualLoop()
        self.arrived: list[tuple[float, Message]] = []  # ms and the message
        self.warnings: list[str] = []
        self.network = Network(
            self.loop,
            random.Random(seed),
            Latency(100, "constant"),
            lambda node, message: self.arrived.append((self.loop.now() / MS, message)),
            lambda direction, message: None,
        )
        for node in ("n0", "n1"):
            self.network.add_node(node)
        Host(self.network, random.Random(seed), self.warnings.append)

    def ask(self, dest: str, body: Body, src: str = "n0") -> None:
        self.network.send({"src": src, "dest": dest, "body": body})

    def run(self) -> list[tuple[float, Message]]:
        self.loop.run_until(lambda: False)
        return self.arrived


def test_a_service_is_a_server_with_latency_both_ways() -> None:
    net = Net()
    net.ask("lin-tso", {"type": "ts", "msg_id": 7})
    ((now, reply),) = net.run()
    assert now == 200 and (reply["src"], reply["dest"]) == ("lin-tso", "n0")
    assert reply["body"] == {"type": "ts_ok", "ts": 0, "in_reply_to": 7}
    count = net.network.between_servers
    assert (count.sent, count.received) == (2, 2) and net.network.with_clients.sent == 0


def test_a_request_without_a_msg_id_gets_a_reply_to_null() -> None:
    net = Net()
    net.ask("lin-tso", {"type": "ts"})
    ((_, reply),) = net.run()
    assert reply["body"] == {"type": "ts_ok", "ts": 0, "in_reply_to": None}


def test_an_unknown_request_gets_no_reply_and_one_warning() -> None:
    net = Net()
    types: list[Any] = ["delete", "delete", "ts", None, {}]
    for type in types:
        net.ask("seq-kv", {"type": type, "msg_id": 1})
    assert not net.run()
    first, *others = net.warnings
    assert first == (
        'seq-kv does not answer a request of the type "delete", which came from n0: '
        "it knows read, write, cas"
    )
    assert len(others) == 3


def test_no_fault_reaches_a_service() -> None:
    net = Net()
    net.network.loss = net.network.duplicate = 0.5
    net.network.grudges["partition"] = {"n0": {"n1"}, "n1": {"n0"}}
    for number in range(200):
        net.ask("lin-tso", {"type": "ts", "msg_id": number})
    replies = [message["body"] for _, message in net.run()]
    assert sorted(body["in_reply_to"] for body in replies) == [*range(200)]
    assert [body["ts"] for body in replies] == [*range(200)]


# In a run


def test_each_init_finds_the_services() -> None:
    """A node asks a service as soon as its init has come."""

    def node(nodes: Nodes, node_id: str, message: Body) -> Iterable[Body]:
        if message["body"]["type"] == "init":
            nodes.send(node_id, "lin-tso", {"type": "ts", "msg_id": 1})
        return [] if "in_reply_to" in message["body"] else good(nodes, node_id, message)

    runner, nodes = make(node, node_count=2, time_limit=0)
    record = runner.run()
    assert not record.problems and not record.crash
    answered = {node_id for _, node_id, message in nodes.seen if message["src"] == "lin-tso"}
    assert answered == {"n0", "n1"}


def test_the_user_is_told_of_a_request_that_a_service_does_not_know() -> None:
    runner, nodes = make()
    request = {"type": "delete", "msg_id": 1}
    runner.loop.after(MS, lambda: nodes.send("n0", "lin-kv", request))
    record = runner.run()
    assert not record.problems and not record.crash
    assert [note[:34] for note in record.notes] == ["lin-kv does not answer a request o"]
