"""Drives a benchmark: nodes as processes, the network between them, and clients.

The driver is a single thread of Python, as a node is. Its work for an operation must be cheap
compared with the nodes' work; `Window.driver_share` shows whether it was. The driver needs Linux
to read the CPU time and the memory of running processes.
"""

from __future__ import annotations

import json
import math
import os
import selectors
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
RAFT = [sys.executable, str(ROOT / "raft.py")]
READ_SIZE = 1 << 16
INIT = {"type": "init", "msg_id": 0, "node_id": "n0", "node_ids": ["n0"]}
DEST = b'"dest":"'
HEAD = 100  # bytes; the destination and an error's code are in this part of a line
PATIENCE = 2.0  # seconds after which a client gives up a request, and sends the next one
START_LIMIT = 60.0  # seconds within which a cluster must begin to serve
KEY_STEP = 7919  # step between keys; a prime reaches all keys, and neighbours are far apart


class NodeEnded(Exception):
    """A node ended by itself, or no node serves; the text says why."""


def message(client: int, body: dict[str, object]) -> bytes:
    """Formats a message as a line, as Maelstrom does."""
    msg = {"id": 0, "src": f"c{client}", "dest": "n0", "body": body}
    return json.dumps(msg).encode() + b"\n"


def requests(count: int, clients: int) -> Iterator[bytes]:
    """Yields lines with lin-kv requests: half reads, a sixth writes, a third cas."""
    for n in range(1, count + 1):
        body: dict[str, object] = {"key": n % 10, "msg_id": n}
        if n % 2:
            body |= {"type": "read"}
        elif n % 3:
            body |= {"type": "cas", "from": n % 5, "to": n % 7}
        else:
            body |= {"type": "write", "value": n % 5}
        yield message(n % clients, body)


class Pipe:
    """A node's stdin, with the lines that it has not accepted yet."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        self.fd = process.stdin.fileno()
        os.set_blocking(self.fd, False)  # else node and driver could block on two full pipes
        self.waiting: list[bytes] = []

    def flush(self) -> bool:
        """Writes as much as possible without blocking; returns whether all was written."""
        data = b"".join(self.waiting)
        try:
            rest = data[os.write(self.fd, data) :]
        except BlockingIOError:
            rest = data
        except BrokenPipeError:  # the node has ended; reading its stdout will detect that
            rest = b""
        self.waiting = [rest] if rest else []
        return not rest


class Cluster:
    """Nodes as processes, and a network without latency, which routes lines by their `dest`."""

    def __init__(self, command: Sequence[str], nodes: int) -> None:
        self.ids = [f"n{n}" for n in range(nodes)]
        self.messages = self.bytes = 0  # between servers, so far
        self._logs: dict[str, IO[bytes]] = {
            node_id: tempfile.TemporaryFile()  # noqa: SIM115 (closed in `end`)
            for node_id in self.ids
        }
        self.processes = {
            node_id: subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._logs[node_id],
                bufsize=0,
            )
            for node_id in self.ids
        }
        self._by_name = {node_id.encode(): node_id for node_id in self.ids}
        self._pipes = {node_id: Pipe(process) for node_id, process in self.processes.items()}
        self._selector = selectors.DefaultSelector()
        self._unfinished: dict[str, list[bytes]] = {node_id: [] for node_id in self.ids}
        for node_id, process in self.processes.items():
            assert process.stdout is not None
            self._selector.register(process.stdout, selectors.EVENT_READ, node_id)
        for node_id in self.ids:
            self.write(node_id, message(0, INIT | {"node_id": node_id, "node_ids": self.ids}))
        answers = 0
        while answers < nodes:
            answers += len(self.route())

    def write(self, node_id: str, data: bytes) -> None:
        """Queues lines for a node; the next call of `route` writes them."""
        self._pipes[node_id].waiting.append(data)

    def route(self, timeout: float | None = None) -> list[bytes]:
        """Waits at most `timeout` seconds for lines and routes them; returns lines for clients.

        All lines queued for a node become one write. NodeEnded if a node has ended.
        """
        for pipe in self._pipes.values():
            if pipe.waiting and not pipe.flush() and pipe.fd not in self._selector.get_map():
                self._selector.register(pipe.fd, selectors.EVENT_WRITE)
        answers: list[bytes] = []
        for key, events in self._selector.select(timeout):
            if events & selectors.EVENT_WRITE:
                self._selector.unregister(key.fd)  # the next call writes, and may register again
            else:
                self._read(key.data, key.fd, answers)
        return answers

    def _read(self, node_id: str, fd: int, answers: list[bytes]) -> None:
        chunk = os.read(fd, READ_SIZE)
        if not chunk:
            raise NodeEnded(f"{node_id} ended by itself: {self._said(node_id)[-1000:].strip()}")
        unfinished = self._unfinished[node_id]
        whole, newline, rest = chunk.rpartition(b"\n")
        if not newline:
            unfinished.append(chunk)
            return
        lines = b"".join([*unfinished, whole]).split(b"\n")
        unfinished[:] = [rest]
        for line in lines:
            start = line.find(DEST, 0, HEAD) + len(DEST)
            dest = self._by_name.get(line[start : line.find(b'"', start)])
            if dest is None:
                answers.append(line)
            else:
                self.messages += 1
                self.bytes += len(line) + 1
                self.write(dest, line + b"\n")

    def cpu(self) -> float:
        """Returns the CPU seconds that all nodes have used so far.

        The clock id of another process is computed as in Linux's clock_getcpuclockid(3).
        """
        return sum(time.clock_gettime((~node.pid << 3) | 2) for node in self.processes.values())

    def peak(self) -> int:
        """Returns the peak memory of the largest node, in bytes (proc(5): VmHWM).

        ru_maxrss does not fit, because it starts with the memory of the parent process.
        """
        texts = [Path(f"/proc/{node.pid}/status").read_text() for node in self.processes.values()]
        return max(int(text.split("VmHWM:")[1].split()[0]) * 1024 for text in texts)

    def end(self) -> dict[str, str]:
        """Ends the nodes; returns their output on stderr."""
        for process in self.processes.values():
            assert process.stdin is not None and process.stdout is not None
            process.stdin.close()
            process.stdout.close()
        for process in self.processes.values():
            process.wait()
        self._selector.close()
        said = {node_id: self._said(node_id) for node_id in self.ids}
        for log in self._logs.values():
            log.close()
        return said

    def _said(self, node_id: str) -> str:
        log = self._logs[node_id]
        log.seek(0)
        return log.read().decode(errors="replace")


@dataclass(frozen=True)
class Mix:
    """The mix of requests that clients send."""

    kinds: Sequence[str]  # types of requests, sent in this order again and again
    keys: int = 10  # number of keys
    value_bytes: int = 0  # size of a written value; 0: a small number

    def body(self, number: int) -> bytes:
        """Returns the body of a request as JSON, without braces and msg_id."""
        turn, place = divmod(number, len(self.kinds))
        key = turn * KEY_STEP % self.keys
        match self.kinds[place]:
            case "read":
                return b'"type":"read","key":%d' % key
            case "cas":
                return b'"type":"cas","key":%d,"from":%d,"to":%d' % (key, turn % 5, number % 7)
            case "txn":  # four micro-operations; a list has at most 16 elements, as in Maelstrom
                key = number // 8
                mops = b'["r",%d,null],["append",%d,%d],["r",%d,null],["append",%d,%d]'
                return b'"type":"txn","txn":[%s]' % mops % (
                    key, key, number, key + 1, key + 1, number,
                )  # fmt: skip
            case _:
                value = b'"%s"' % (b"x" * self.value_bytes) if self.value_bytes else b"%d"
                value = value if self.value_bytes else value % (number % 5)
                return b'"type":"write","key":%d,"value":%s' % (key, value)


HALF_READS = ("read", "cas", "read", "write", "read", "cas")
MIXES = {
    "reads": ("read",), "half reads": HALF_READS, "writes": ("write",), "transactions": ("txn",),
}  # fmt: skip


@dataclass
class Window:
    """Measurements of a cluster over some time."""

    seconds: float = 0.0  # length of the measurement
    took: array[float] = field(default_factory=lambda: array("d"))  # seconds to each reply
    refused: int = 0  # error replies with codes other than 2x, such as 11
    unanswered: int = 0  # requests that clients gave up
    cpu: float = 0.0  # CPU seconds of all nodes
    messages: int = 0  # messages between servers
    bytes: int = 0  # bytes between servers
    driver: float = 0.0  # CPU seconds of the driver

    @property
    def operations(self) -> int:
        return len(self.took)

    @property
    def per_second(self) -> float:
        return self.operations / self.seconds

    @property
    def cpu_each(self) -> float:
        """Returns the CPU seconds of all nodes for an operation."""
        return self.cpu / max(1, self.operations)

    @property
    def driver_share(self) -> float:
        """Returns the driver's CPU use; near 1, the driver limits the throughput."""
        return self.driver / self.seconds

    def quantiles(self, *parts: float) -> list[float]:
        """Returns quantiles of the time to a reply, in seconds."""
        took = sorted(self.took) or [math.nan]
        return [took[max(0, math.ceil(part * len(took)) - 1)] for part in parts]


class Clients:
    """Clients in a closed loop, spread over the nodes: each has one request in flight."""

    def __init__(self, cluster: Cluster, count: int, mix: Mix) -> None:
        self._cluster, self._mix, self._count = cluster, mix, count
        self._numbers = 0  # number of requests so far
        self._asked = [0] * count  # msg_id of each client's request; client = msg_id % count
        self._at = [0.0] * count  # time at which each client sent its request
        self._looked = time.perf_counter()  # time of the last search for unanswered requests
        self.answers = 0  # number of replies so far
        self._ask(range(count))

    def warm_up(self, seconds: float) -> None:
        """Runs until the cluster serves, for it may have no leader yet; then for `seconds` more."""
        limit = time.monotonic() + START_LIMIT
        while (seen := self.run(seconds)).operations <= seen.refused:
            if time.monotonic() > limit:
                raise NodeEnded(f"the nodes served no request within {START_LIMIT:g} s")
        self.run(seconds)

    def _ask(self, clients: Sequence[int]) -> None:
        boxes: dict[str, list[bytes]] = {}
        now, ids, count = time.perf_counter(), self._cluster.ids, self._count
        for client in clients:
            self._numbers += 1
            self._asked[client] = msg_id = self._numbers * count + client
            self._at[client] = now
            node_id = ids[client % len(ids)]
            line = b'{"id":%d,"src":"c%d","dest":"%s","body":{%s,"msg_id":%d}}\n' % (
                msg_id, client, node_id.encode(), self._mix.body(self._numbers), msg_id
            )  # fmt: skip
            boxes.setdefault(node_id, []).append(line)
        for node_id, lines in boxes.items():
            self._cluster.write(node_id, b"".join(lines))

    def run(self, seconds: float) -> Window:
        """Runs for so many seconds; returns the measurements."""
        cluster, window = self._cluster, Window()
        cpu, driver = cluster.cpu(), time.process_time()
        messages, size = cluster.messages, cluster.bytes
        began = now = time.perf_counter()
        while now < began + seconds:
            lines = cluster.route(0.1)
            now = time.perf_counter()
            free = []
            for line in lines:
                msg_id = int(line[line.rindex(b":") + 1 : -2])  # in_reply_to is the last field
                client = msg_id % self._count
                if self._asked[client] != msg_id:
                    continue  # the client gave up this request
                window.took.append(now - self._at[client])
                head = line[:HEAD]
                window.refused += b'"code":' in head and b'"code":2' not in head
                free.append(client)
            if now - self._looked > PATIENCE / 4:
                self._looked = now
                late = [n for n in range(self._count) if now - self._at[n] > PATIENCE]
                window.unanswered += len(late)
                free = [*{*free, *late}]
            self._ask(free)
        window.seconds = now - began
        window.cpu, window.driver = cluster.cpu() - cpu, time.process_time() - driver
        window.messages, window.bytes = cluster.messages - messages, cluster.bytes - size
        self.answers += window.operations
        return window
