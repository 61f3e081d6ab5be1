"""node.py as a process: its answers, their order, and the input that it survives."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node import Node

ROOT = Path(__file__).resolve().parents[1]


class Peer:
    """Talks to a node process as Maelstrom does, a line at a time."""

    def __init__(self, script: str | None = None) -> None:
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115 (a pipe that nobody reads would stop the node)
        chapter_1 = [str(ROOT / "raft.py"), "--unreplicated"]
        words = ["-c", textwrap.dedent(script)] if script else chapter_1
        self.process = subprocess.Popen(
            [sys.executable, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.msg_id = 0
        # A test that waits in vain shall fail, not hang.
        self.guard = threading.Timer(100, self.process.kill)
        self.guard.daemon = True
        self.guard.start()

    def write(self, data: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(self, *bodies: dict[str, Any], src: str = "c1") -> None:
        """Sends messages in one write."""
        lines = [json.dumps({"src": src, "dest": "n1", "body": body}) for body in bodies]
        self.write(("\n".join(lines) + "\n").encode())

    def receive(self) -> dict[str, Any]:
        """The next message; strict JSON with nothing but src, dest and body."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "the node has ended"

        def refuse(constant: str) -> None:
            raise ValueError(constant)

        msg: dict[str, Any] = json.loads(line, parse_constant=refuse)
        assert msg.keys() == {"src", "dest", "body"}
        return msg

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = self.receive()["body"]
        return body

    def call(self, body: dict[str, Any]) -> dict[str, Any]:
        """Sends a request; the body of the next message is its answer."""
        self.msg_id += 1
        self.send({**body, "msg_id": self.msg_id})
        answer = self.body()
        assert answer.pop("in_reply_to") == self.msg_id
        return answer

    def init(self, *others: str) -> None:
        node_ids = ["n1", *others]
        assert self.call({"type": "init", "node_id": "n1", "node_ids": node_ids}) == {
            "type": "init_ok"
        }

    def end(self) -> tuple[int, str]:
        """Closes stdin; the exit status, and what was on stderr."""
        self.process.communicate()
        self.guard.cancel()
        self.stderr.seek(0)
        return self.process.returncode, self.stderr.read().decode()


@pytest.fixture
def raft() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.process.kill()
    peer.process.wait()
    peer.guard.cancel()


def script(body: str) -> Peer:
    start = "import threading\nfrom node import *\nnode = Node()\n"
    return Peer(start + textwrap.dedent(body) + "\nnode.main()")


# Init


def test_init_is_answered_and_may_come_again(raft: Peer) -> None:
    raft.init("n2")
    raft.init("n2")
    other = raft.call({"type": "init", "node_id": "n2", "node_ids": ["n1", "n2"]})
    assert other["code"] == 12


@pytest.mark.parametrize("fields", [{}, {"node_id": "n1"}, {"node_id": "n1", "node_ids": ["n2"]},
                                    {"node_id": 1, "node_ids": [1]}])  # fmt: skip
def test_a_malformed_init_is_no_init(raft: Peer, fields: dict[str, Any]) -> None:
    raft.send({"type": "init", "msg_id": 1, **fields})
    raft.init()


def test_messages_before_init_are_kept_and_handled_after_it_in_order(raft: Peer) -> None:
    raft.send({"type": "write", "msg_id": 1, "key": 1, "value": 5},
              {"type": "read", "msg_id": 2, "key": 1}, src="n2")  # fmt: skip
    raft.init("n2")
    assert [raft.body(), raft.body()] == [
        {"type": "write_ok", "in_reply_to": 1},
        {"type": "read_ok", "value": 5, "in_reply_to": 2},
    ]


def test_init_handlers_run_before_init_ok_leaves() -> None:
    peer = script(
        'node.on_init(lambda: node.send("c9", {"type": "first", "ids": node.other_node_ids}))'
    )
    peer.send({"type": "init", "msg_id": 1, "node_id": "n1", "node_ids": ["n1", "n2"]})
    assert peer.body() == {"type": "first", "ids": ["n2"]}
    assert peer.body()["type"] == "init_ok"
    assert peer.end() == (0, "")


# Requests


def test_an_unknown_type_is_error_10_and_a_wrong_one_12(raft: Peer) -> None:
    raft.init()
    assert raft.call({"type": "fly"})["code"] == 10
    assert raft.call({"type": ["read"]})["code"] == 12
    assert raft.call({})["code"] == 12
    raft.send({"type": "read", "key": 1, "msg_id": "x"})
    assert raft.body() == {
        "type": "error", "code": 12, "in_reply_to": "x",
        "text": "type must be a string and msg_id an integer",
    }  # fmt: skip


def test_a_message_without_msg_id_gets_no_reply(raft: Peer) -> None:
    raft.init()
    raft.send({"type": "write", "key": 1, "value": 2}, {"type": "fly"}, {"type": "read"})
    assert raft.call({"type": "read", "key": 1}) == {"type": "read_ok", "value": 2}


def test_an_exception_is_error_13_with_a_traceback_on_stderr() -> None:
    peer = script(
        """
        @node.on("divide")
        def divide(msg):
            1 / 0
        @node.on("refuse")
        def refuse(msg):
            raise RPCError.abort("no")
        """
    )
    peer.init()
    assert peer.call({"type": "divide"})["code"] == 13
    assert peer.call({"type": "refuse"}) == {"type": "error", "code": 14, "text": "no"}
    status, stderr = peer.end()
    assert status == 0
    assert "ZeroDivisionError" in stderr


def test_a_type_has_one_handler() -> None:
    node = Node()
    node.on("echo", print)
    with pytest.raises(ValueError, match="echo"):
        node.on("echo", print)


def test_what_others_write_to_stdout_is_no_message() -> None:
    """print in main(), a logging handler from before, a child process."""
    peer = Peer(
        """
        import logging, subprocess, sys
        from node import *
        logging.basicConfig(stream=sys.stdout, format="%(message)s")
        node = Node()
        def x(msg):
            print("hello")
            logging.warning("logged")
            subprocess.run(["echo", "child"])
            node.reply(msg, {"type": "x_ok"})
        node.on("x", x)
        node.main()
        """
    )
    peer.init()
    assert peer.call({"type": "x"}) == {"type": "x_ok"}
    # At once, and not when the node ends.
    assert b"hello" in os.pread(peer.stderr.fileno(), 1000, 0)
    status, stderr = peer.end()
    assert status == 0 and sorted(stderr.split()) == ["child", "hello", "logged"]


def test_what_is_printed_before_main_goes_to_stdout() -> None:
    peer = Peer('from node import Node\nnode = Node()\nprint("early")\nnode.main()')
    assert peer.process.stdout and peer.process.stdout.readline() == b"early\n"
    peer.init()


@pytest.mark.parametrize(
    "failure",
    [
        'node.on_drained(lambda: failing and 1 / 0)\nnode.on("x", lambda msg: fail(msg))',
        'node.on("x", lambda msg: (node.after(0, lambda: fail(msg) and sys.exit(0))))',
        'node.on("x", lambda msg: fail(msg) and sys.exit(0), blocking=True)',
    ],
)
def test_a_node_that_cannot_go_on_ends_with_a_line_that_says_why(failure: str) -> None:
    peer = script(
        "import sys\nfailing = []\n"
        "def fail(msg):\n"
        "    failing.append(msg)\n"
        "    if threading.current_thread() is threading.main_thread():\n"
        '        node.reply(msg, {"type": "x_ok"})\n'
        "    return True\n" + failure
    )
    peer.init()
    peer.send({"type": "x", "msg_id": 1})
    assert peer.process.stdout and peer.process.stdout.readline() == b""
    status, stderr = peer.end()
    assert status == 1
    assert stderr.splitlines()[-1] == "n1 ends, and drops the output of this turn"
    assert "ZeroDivisionError" in stderr or "SystemExit" in stderr


def test_the_last_line_may_lack_its_end(raft: Peer) -> None:
    raft.init()
    raft.write(b'{"src":"c1","dest":"n1","body":{"type":"read","key":1,"msg_id":7}}')
    assert raft.process.stdin
    raft.process.stdin.close()
    raft.process.stdin = None
    assert raft.body()["in_reply_to"] == 7
    assert raft.end() == (0, "")


# Turns


def test_a_burst_is_handled_in_order_then_drained_then_written_at_once() -> None:
    peer = script(
        """
        import os
        writes = []
        os_write = os.write
        def counted(fd, data):
            writes.append(data)
            return os_write(fd, data)
        os.write = counted
        seen = []
        node.on("x", lambda msg: (seen.append(msg["body"]["n"]), node.reply(msg, {"type": "ok"})))
        def drained():
            if seen:
                node.send("c2", {"type": "drained", "seen": seen, "writes": len(writes)})
                seen.clear()
        node.on_drained(drained)
        """
    )
    peer.init()
    peer.send(*({"type": "x", "n": n, "msg_id": n} for n in range(100)))
    bodies = [peer.body() for _ in range(101)]
    # All but the drained message are replies, in order; it was sent last and left with them.
    assert [body["in_reply_to"] for body in bodies[:-1]] == list(range(100))
    assert bodies[-1] == {"type": "drained", "seen": list(range(100)), "writes": 1}


# RPC


def test_rpc_calls_back_once_and_ignores_replies_to_nobody() -> None:
    peer = script(
        """
        node.on("go", lambda msg: node.brpc({"type": "ask"},
            lambda reply: node.send("c1", {"type": "got", "body": reply["body"]})))
        """
    )
    peer.init("n2", "n3")
    peer.send({"type": "go"})
    asked = [peer.receive() for _ in range(2)]
    assert [msg["dest"] for msg in asked] == ["n2", "n3"]
    msg_id = asked[0]["body"]["msg_id"]
    answer = {"type": "yes", "in_reply_to": msg_id}
    strange = [{"in_reply_to": value} for value in (True, 99, "1", [1], {"a": 1}, 1.5)]
    peer.send(*strange, answer, answer, {"type": "go"})
    assert peer.body() == {"type": "got", "body": answer}
    assert peer.body()["type"] == "ask"  # nothing for the second answer


SYNC = """
def forward(msg):
    try:
        answer = node.sync_rpc("n2", {"type": "ask"}, timeout=msg["body"].get("timeout", 5.0))
    except RuntimeError as error:
        answer = {"type": "blocked", "text": str(error)}
    node.reply(msg, answer)
node.on("wait", forward, blocking=True)
node.on("hang", forward)
"""


def test_sync_rpc_waits_in_blocking_handlers_several_at_once() -> None:
    peer = script(SYNC)
    peer.init("n2")
    peer.send({"type": "wait", "msg_id": 10}, {"type": "wait", "msg_id": 11})
    asked = [peer.body()["msg_id"] for _ in range(2)]
    peer.send(*({"type": "yes", "in_reply_to": msg_id} for msg_id in asked))
    assert {peer.body()["in_reply_to"] for _ in range(2)} == {10, 11}
    peer.send({"type": "wait", "msg_id": 12})
    msg_id = peer.body()["msg_id"]
    peer.send({"type": "error", "code": 22, "text": "no", "in_reply_to": msg_id})
    assert peer.body() == {"type": "error", "code": 22, "text": "no", "in_reply_to": 12}
    peer.send({"type": "wait", "msg_id": 13, "timeout": 0.01})
    assert peer.body()["type"] == "ask"
    assert peer.body()["code"] == 0
    assert peer.end() == (0, "")


def test_sync_rpc_raises_at_once_where_it_would_block_the_node() -> None:
    peer = script(SYNC)
    peer.init("n2")
    answer = peer.call({"type": "hang"})
    assert answer["type"] == "blocked"
    assert "blocking=True" in answer["text"]


# Whatever arrives

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["src", "dest", "body", "id", "type"]) | st.text(max_size=3)
TYPES = st.sampled_from(["init", "read", "write", "cas", "error", "read_ok", "", "fly"]) | ANYTHING
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "type": TYPES,
        "msg_id": st.integers() | ANYTHING,
        "in_reply_to": st.integers(-2, 50) | ANYTHING,
        **{
            name: ANYTHING
            for name in ("key", "value", "from", "to", "create_if_not_exists", "node_id")
        },
    },
)
MESSAGES = st.fixed_dictionaries(
    {}, optional={"src": st.just("c1") | ANYTHING, "dest": ANYTHING, "body": BODIES | ANYTHING}
)
LINES = st.one_of(
    MESSAGES.map(json.dumps).map(str.encode),
    MESSAGES.map(json.dumps).flatmap(
        lambda text: st.integers(0, len(text)).map(lambda end: text[:end].encode())
    ),
    st.dictionaries(NAMES, ANYTHING, max_size=4).map(json.dumps).map(str.encode),
    ANYTHING.map(json.dumps).map(str.encode),
    st.binary(max_size=40),
).map(lambda line: line.replace(b"\n", b" "))

HUGE = [
    b"[" * 100_000,
    b'{"src":"c1","body":' * 50_000,
    b'{"src":"c1","dest":"n1","body":{"type":"write","key":1,"value":' + b"[" * 900 + b"]" * 900
    + b',"msg_id":1}}',
    b'{"src":"c1","dest":"n1","body":{"type":"read","msg_id":' + b"[" * 900 + b"]" * 900 + b"}}",
    b'{"src":"c1","dest":"n1","body":{"type":"write","key":1,"value":1e999,"msg_id":1}}',
    b'{"src":"c1","dest":"n1","body":{"type":"write","key":1,"value":NaN,"msg_id":1}}',
    b'{"src":"c1","dest":"n1","body":{"type":"write","key":1,"msg_id":1,"value":' + b"9" * 9999
    + b"}}",
    b'{"src":"c1","dest":"n1","body":{"type":"write","key":1,"msg_id":' + b"9" * 9999 + b"}}",
    b'{"src":"c1","dest":"n1","body":{"type":"fly","msg_id":2,"x":"' + b"x" * 5_000_000 + b'"}}',
    b'{"src":"c1","dest":"n1","body":{"type":"read","key":"\\ud800","msg_id":3}}',
    b'{"src":"c1","dest":"n1","body":{"type":"read","key":"\xff","msg_id":3}}',
    b"\x00" * 1000,
    b"",
    b"\r",
]  # fmt: skip


NONCES = itertools.count(10**40)


def answers_the_next_good_request(peer: Peer, lines: list[bytes]) -> None:
    """Sends lines and then a write and a read of a value that only this call knows."""
    nonce = str(next(NONCES))
    peer.write(b"\n".join(lines) + b"\n")
    peer.send({"type": "write", "key": "nonce", "value": nonce, "msg_id": 1},
              {"type": "read", "key": "nonce", "msg_id": int(nonce)}, src="c2")  # fmt: skip
    while True:
        body = peer.body()
        if body.get("in_reply_to") == int(nonce):
            assert body["value"] == nonce
            return


@pytest.fixture(scope="module")
def flooded() -> Iterator[Peer]:
    peer = Peer()
    peer.init()
    yield peer
    status, stderr = peer.end()
    assert status == 0
    assert "Traceback" not in stderr


@given(st.lists(LINES, min_size=50, max_size=50))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_ten_thousand_random_lines(flooded: Peer, lines: list[bytes]) -> None:
    answers_the_next_good_request(flooded, lines)


def test_huge_and_hostile_lines(flooded: Peer) -> None:
    for line in HUGE:
        answers_the_next_good_request(flooded, [line])


def test_a_number_that_cannot_be_kept_is_error_12(raft: Peer) -> None:
    raft.init()
    for number in (b"1e999", b"-1e999", b"NaN", b"9" * 9999):
        raft.write(
            b'{"src":"c1","dest":"n1","body":{"type":"write","msg_id":5,"key":1,"value":%s}}\n'
            % number
        )
        body = raft.body()
        assert (body["code"], body["in_reply_to"]) == (12, 5)


def test_help_and_unknown_options() -> None:
    def run(word: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, str(ROOT / "raft.py"), word]
        return subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    assert "lin-kv" in run("--help").stdout
    unknown = run("--fly")
    assert unknown.returncode == 2
    assert "--fly" in unknown.stderr
