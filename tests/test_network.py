"""The network as the real Maelstrom has it; times are in virtual milliseconds."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from workbench.network.network import HAD_INIT, Latency, Message, Network, ProtocolError
from workbench.simulation.loop import VirtualLoop

MS = 1_000_000


class Net:
    """A network of n0, n1, n2 and the client c0; notes what is delivered, and when."""

    def __init__(self, mean: float = 100, dist: str = "constant", **options: Any) -> None:
        self.loop = VirtualLoop()
        self.delivered: list[tuple[float, Any]] = []  # ms and the message's text
        self.warnings: list[str] = []
        self.network = Network(
            self.loop,
            random.Random(1),
            Latency(mean, dist),
            lambda node, message: self.note(message),
            lambda direction, message: None,
            warn=lambda kind, text: self.warnings.append(text),
            **options,
        )
        for node in ("n0", "n1", "n2"):
            self.network.add_node(node)
        self.network.add_client("c0", self.note)

    def note(self, message: Message) -> None:
        self.delivered.append((self.loop.now() / MS, message["body"]["text"]))

    def send(self, src: str, dest: str, text: Any) -> None:
        self.network.send({"src": src, "dest": dest, "body": {"text": text}})

    def at(self, ms: float, action: Any, *words: Any) -> None:
        self.loop.at(int(ms * MS), lambda: action(*words))

    def cut(self) -> None:
        self.network.grudges["partition"] = {"n0": {"n1", "n2"}}

    def heal(self) -> None:
        self.network.grudges.clear()

    def run(self) -> list[tuple[float, Any]]:
        self.loop.run_until(lambda: False)
        return self.delivered


def test_a_message_between_servers_takes_its_latency_and_one_of_a_client_takes_none() -> None:
    net = Net()
    net.send("n1", "n2", "peer")
    net.send("c0", "n0", "request")
    net.send("n0", "c0", "reply")
    assert net.run() == [(0, "request"), (0, "reply"), (100, "peer")]
    traffic = net.network.between_servers, net.network.with_clients
    assert [(count.sent, count.received) for count in traffic] == [(1, 1), (2, 2)]


def test_what_comes_while_a_delivery_is_waited_for_waits_too() -> None:
    net = Net(1000)
    net.at(50, net.send, "n1", "n0", "slow")
    net.at(150, net.send, "c0", "n0", "request")
    net.at(160, net.send, "c0", "n1", "to another node")
    assert net.run() == [(160, "to another node"), (1050, "slow"), (1050, "request")]


def test_the_queue_is_ordered_by_due_time_and_then_by_sending() -> None:
    net = Net(100)
    net.at(0, net.send, "n1", "n0", "first")
    net.at(10, net.send, "n1", "n0", "later")
    net.at(20, net.send, "n2", "n0", "latest")
    net.at(20, net.send, "n1", "n0", "with the latest")
    net.at(99, net.send, "c0", "n0", "request")
    assert [text for _, text in net.run()] == [
        "first", "request", "later", "latest", "with the latest",
    ]  # fmt: skip


@pytest.mark.parametrize(("jitter", "expected"), [(0, 25), (35, 29)])
def test_a_request_waits_for_the_next_of_the_peers_messages(jitter: int, expected: int) -> None:
    """20 of them a second, constant 100 ms: with regular ones half a gap, 25 ms.

    In the real one it was 29 ms, which is what gaps of 50 ms give or take 35 make.
    """
    net = Net(100)
    rng = random.Random(2)
    now = 0.0
    while now < 1_001_000:
        net.at(now, net.send, "n1", "n0", None)
        now += 50 + rng.uniform(-jitter, jitter)
    for _ in range(5000):
        moment = rng.uniform(1_000, 1_000_000)
        net.at(moment, net.send, "c0", "n0", moment)
    waits = [now - moment for now, moment in net.run() if moment is not None]
    assert len(waits) == 5000
    assert abs(sum(waits) / len(waits) - expected) < 1


def test_a_partition_is_looked_at_when_an_idle_node_takes_the_message() -> None:
    net = Net(100)
    net.at(0, net.send, "n1", "n0", "sent before it")
    net.at(10, net.cut)
    net.at(200, net.send, "n1", "n0", "sent inside, due after")
    net.at(210, net.heal)
    net.at(400, net.send, "n1", "n0", "sent after it")
    assert net.run() == [(100, "sent before it"), (500, "sent after it")]


def test_a_message_behind_others_is_looked_at_when_its_turn_comes() -> None:
    net = Net(100)
    net.at(0, net.send, "n1", "n0", "first")
    net.at(10, net.send, "n1", "n0", "sent before the partition, taken inside")
    net.at(20, net.cut)
    net.at(150, net.heal)
    net.at(200, net.send, "n1", "n0", "next")
    net.at(210, net.cut)
    net.at(220, net.send, "n1", "n0", "sent inside the partition, taken after")
    net.at(230, net.heal)
    assert net.run() == [
        (100, "first"), (300, "next"), (320, "sent inside the partition, taken after"),
    ]  # fmt: skip


def test_a_partition_does_not_stop_clients_and_cuts_in_the_direction_it_says() -> None:
    net = Net(0)
    net.cut()
    net.network.grudges["another"] = {"n1": {"n2"}}
    for src in ("n0", "n1", "n2", "c0"):
        for dest in {"n0", "n1", "n2", "c0"} - {src}:
            net.send(src, dest, f"{src} to {dest}")
    lost = {"n1 to n0", "n2 to n0", "n2 to n1"}
    arrived = {text for _, text in net.run()}
    assert len(arrived) == 12 - len(lost)
    assert not arrived & lost


def test_independent_delivery_is_in_due_order_and_looks_at_partitions_then() -> None:
    net = Net(100, independent=True)
    net.at(0, net.send, "n1", "n0", "peer")
    net.at(10, net.send, "c0", "n0", "request")
    net.at(150, net.send, "n1", "n0", "due inside")
    net.at(200, net.cut)
    net.at(250, net.send, "n1", "n0", "due after")
    net.at(300, net.heal)
    assert net.run() == [(10, "request"), (100, "peer"), (350, "due after")]


@pytest.mark.parametrize("independent", [False, True])
def test_messages_of_one_moment_arrive_in_the_order_of_sending(independent: bool) -> None:
    net = Net(0, independent=independent)
    for text in range(100):
        net.send(("n1", "c0")[text % 2], "n0", text)
    assert [text for _, text in net.run()] == list(range(100))


def test_loss_and_duplicates_are_between_servers_alone() -> None:
    net = Net(1)
    net.network.loss = 0.1
    net.network.duplicate = 0.2
    for text in range(2000):
        net.send("n1", "n0", text)
        net.send("c0", "n2", "request")
        net.send("n2", "c0", "reply")
    texts = [text for _, text in net.run()]
    peer = [text for text in texts if isinstance(text, int)]
    assert texts.count("request") == texts.count("reply") == 2000
    assert 2000 * 1.1 * 0.95 < len(peer) < 2000 * 1.1 * 1.05
    assert 2000 * 0.92 * 0.97 < len(set(peer)) < 2000 * 0.92 * 1.03
    assert max(peer.count(text) for text in set(peer)) == 2


def line(**message: Any) -> bytes:
    return json.dumps({"src": "n0", "dest": "n1", "body": {"text": "hello"}} | message).encode()


BROKEN = {
    "a node that is not there": (line(dest="n3"), "services of this run are n0, n1, n2: {"),
    "a reply to nobody": (
        line(dest="c9", body={"in_reply_to": 1}),
        'a node or client of this run, not "c9"; a reply goes to the src of its request: {',
    ),
    "keys of the body": (line(ts=1, x=2), 'remove the fields "ts" and "x" from the message'),
    "a client that never was": (line(dest="c9"), "there is no node or client c9; the nodes"),
    "an id that is none": (line(id="7"), 'id must be an integer, not "7"'),
    "true is no integer": (line(id=True), "id must be an integer, not true"),
    "no body": (b'{"src":"n0","dest":"n1"}', 'the field "body" is missing from the message: {'),
    "keys beside the body": (b'{"type":"x"}', 'fields "src", "dest" and "body" are missing from'),
    "a body that is none": (line(body=7), "body must be an object, not 7"),
    "an empty line": (b"", "an empty line on stdout\nremove the bare print("),
    "an empty line of Windows": (b"\r", "an empty line on stdout\nremove the bare"),
    "indented": (b"{", "(it ends in the middle of the JSON): {\nprint one message a line"),
    "the start of a text": (b'{"src": "n', "(it ends in the middle of the JSON)"),
    "a byte order mark": (b"\xef\xbb\xbf" + line(), "mark (BOM)): \ufeff{"),
    "a dict of Python": (b"{'src': 'n0'}", "single quotes, as in a printed Python dict"),
    "a comma too many": (b'{"src": "n0",, 1}', "in double quotes at character 14): {"),
    "a text": (b"I am up", "that is not JSON: I am up\nprint one message a line on stdout"),
    "not UTF-8 at a byte": (b'{"\xe9": 1}', "(byte 3, 0xe9, is not UTF-8)"),
    "no string": (line(dest=None), "dest must be a string, not null"),
    "an unknown src": (line(src="c7"), 'src must be "n0", the sender\'s own name, not "c7"'),
    "not UTF-8": (line(body={"text": "?"}).replace(b"?", b"\xff"), "not JSON"),
    "too deep": (b"[" * 100_000, "not JSON (it is nested too deeply)"),
    "no object": (b"[1]", "it must be a JSON object"),
    "no number": (line(body={"text": float("nan")}), "not JSON (NaN is not a finite"),
    "out of range": (line(body={"text": 7}).replace(b"7", b"-1e999"), "(-1e999 is not a finite"),
    "too many digits": (
        line(body={"text": 7}).replace(b"7", b"9" * 5000),
        "(this reads no integer of more than 4,300 digits): {",
    ),
    "a long line": (line(dest="n3", body={"text": "x" * 300}), f'"{"x" * 254}...'),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_rule_is_told_once_and_nothing_is_heard_of_the_node_then(what: str) -> None:
    net = Net(0)
    net.network.from_node("n0", line(id=7))
    broken, words = BROKEN[what]
    with pytest.raises(ProtocolError) as caught:
        net.network.from_node("n0", broken)
    assert words in str(caught.value)
    net.network.from_node("n0", broken)
    net.network.from_node("n0", line())
    net.network.from_node("n1", line(src="n1", dest="n0"))
    assert len(net.run()) == 2


TOLERATED = {
    "two messages": (line() + b" " + line(dest="n9"), "the rest was ignored: {"),
    "more than a message": (line() + b"!", "the rest was ignored: !\nprint one message a line"),
    "a client's src": (line(src="c0"), "n0 sent a message as c0, which skips the network"),
    "another node's src": (line(src="n2"), 'write "n0", its own name, as src'),
}


@pytest.mark.parametrize("what", TOLERATED)
def test_what_maelstrom_lets_pass_is_delivered_with_a_warning(what: str) -> None:
    net = Net(0)
    said, words = TOLERATED[what]
    net.network.from_node("n0", line())
    assert not net.warnings
    for _ in range(2):
        net.network.from_node("n0", said)
    assert len(net.run()) == 3
    assert len(net.warnings) == 2 and words in net.warnings[0]


def test_a_message_with_a_clients_src_skips_latency_and_partitions() -> None:
    net = Net(100)
    net.network.grudges["partition"] = {"n1": {"n0"}}
    net.network.from_node("n0", line(src="c0"))
    ((time, *_),) = net.run()
    assert time == 0


def test_each_message_has_an_id_of_its_own_whatever_its_sender_called_it() -> None:
    net = Net(0)
    seen: list[int] = []
    net.note = lambda message: seen.append(message["id"])  # type: ignore[method-assign]
    for id in (7, 7, 0):
        net.network.from_node("n0", line(id=id))
    net.run()
    assert seen == [0, 1, 2]


def test_the_fields_of_a_message_have_the_order_of_maelstroms() -> None:
    net = Net(0)
    fields: list[str] = []
    net.note = lambda message: fields.extend(message)  # type: ignore[method-assign]
    net.network.from_node("n0", b'{"body":{"text":"hello"},"dest":"n1","src":"n0"}')
    net.run()
    assert fields == ["id", "src", "dest", "body"]


def test_a_node_exists_for_its_peers_once_it_was_added() -> None:
    net = Net(0)
    with pytest.raises(ProtocolError):
        net.network.from_node("n0", line(dest="n3"))
    net.network.add_node("n3")
    net.network.from_node("n1", line(src="n1", dest="n3"))
    assert len(net.run()) == 1


def test_an_answer_to_a_client_that_has_given_up_silences_the_node() -> None:
    net = Net(0)
    net.network.from_node("n0", line(dest="c0"))
    net.network.close_client("c0")
    with pytest.raises(ProtocolError) as caught:
        net.network.from_node("n0", line(dest="c0"))
    expected = "n0 answered c0 after its time-out: the real Maelstrom ignores n0 from"
    assert str(caught.value).startswith(expected)
    net.network.from_node("n0", line())
    assert len(net.run()) == 1


def test_an_init_ok_is_sent_once_and_to_the_client_that_sent_the_init() -> None:
    wrong, twice = Net(0), Net(0)
    for net in (wrong, twice):
        net.network.send({"src": "c0", "dest": "n0", "body": {"type": "init", "text": ""}})
    body = {"type": "init_ok", "in_reply_to": 1}
    with pytest.raises(ProtocolError, match=r'src of its request; the src of the init was "c0": {'):
        wrong.network.from_node("n0", line(dest="client0", body=body))
    twice.network.close_client("c0", HAD_INIT)
    with pytest.raises(ProtocolError, match=r"sent init_ok twice for one init: .*\nsend it once"):
        twice.network.from_node("n0", line(dest="c0", body=body))


@pytest.mark.parametrize("dist", ["constant", "uniform", "exponential"])
def test_latencies_have_their_mean_and_are_whole_milliseconds(dist: str) -> None:
    rng = random.Random(1)
    drawn = [Latency(100, dist).draw(rng) for _ in range(20_000)]
    assert abs(sum(drawn) / len(drawn) / MS - 100) < 3
    assert min(drawn) >= 0
    assert all(latency % MS == 0 for latency in drawn)
    if dist == "uniform":
        assert max(drawn) <= 200 * MS
    assert (len(set(drawn)) == 1) is (dist == "constant")
    assert Latency(0, dist).draw(rng) == 0


def test_a_message_to_a_node_that_has_not_started_says_so() -> None:
    net = Net(0)
    net.network.expect_node("n3")
    with pytest.raises(ProtocolError, match="n3 has not started yet"):
        net.network.from_node("n0", line(dest="n3"))
    net.network.add_node("n3")
    net.network.from_node("n1", line(src="n1", dest="n3"))
    assert len(net.run()) == 1
