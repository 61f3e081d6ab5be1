"""Nodes as processes, a network between them, and clients that ask them: what a benchmark drives.

The driver is one thread of Python, as a node is; what it does for an operation must be cheap
beside what the nodes do, and `Window.driver_share` tells whether it was. It needs Linux, which
tells what a process has used while it runs.
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
HEAD = 100  # bytes of a line in which its destination and the kind of an answer stand
PATIENCE = 2.0  # seconds until a client gives an answer up, and asks for something else
START_LIMIT = 60.0  # seconds within which a cluster must begin to answer
KEY_STEP = 7919  # from a key to the next: a prime, so that all are met, neighbours far apart


class NodeEnded(Exception):
    """A node ended by itself, or none answers; the text says why."""


def message(client: int, body: dict[str, object]) -> bytes:
    """One line, as Maelstrom sends it."""
    msg = {"id": 0, "src": f"c{client}", "dest": "n0", "body": body}
    return json.dumps(msg).encode() + b"\n"


def requests(count: int, clients: int) -> Iterator[bytes]:
    """Lines of a lin-kv run: half reads, and writes and cas in the ratio of 1 to 2."""
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
    """What a node's stdin has not taken yet."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        self.fd = process.stdin.fileno()
        os.set_blocking(self.fd, False)  # both sides of full pipes would wait for each other
        self.waiting: list[bytes] = []

    def flush(self) -> bool:
        """Writes as much as it takes, at once; whether that was all."""
        data = b"".join(self.waiting)
        try:
            rest = data[os.write(self.fd, data) :]
        except BlockingIOError:
            rest = data
        except BrokenPipeError:  # it has ended: the end of its output will tell
            rest = b""
        self.waiting = [rest] if rest else []
        return not rest


class Cluster:
    """Nodes as processes, and a network without latency; a line's `dest` says where it goes."""

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
        """Leaves lines for a node, which gets them when `route` is called next."""
        self._pipes[node_id].waiting.append(data)

    def route(self, timeout: float | None = None) -> list[bytes]:
        """Waits for lines, at most `timeout` seconds, and hands them over; returns the answers.

        What has come for a node since the last time is one write. NodeEnded if one has.
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
        """CPU seconds that the nodes have used so far, all together.

        The id of the clock of another process is made as Linux's clock_getcpuclockid(3) does it.
        """
        return sum(time.clock_gettime((~node.pid << 3) | 2) for node in self.processes.values())

    def peak(self) -> int:
        """Bytes of memory that the largest node has had (proc(5): VmHWM).

        Not ru_maxrss, which begins with the memory of the process that started this one.
        """
        texts = [Path(f"/proc/{node.pid}/status").read_text() for node in self.processes.values()]
        return max(int(text.split("VmHWM:")[1].split()[0]) * 1024 for text in texts)

    def end(self) -> dict[str, str]:
        """Ends the nodes; what they have said on stderr."""
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
    """What clients ask for: the kinds, in turn, and a value's size in bytes (0: a small number)."""

    kinds: Sequence[str]
    keys: int = 10
    value_bytes: int = 0

    def body(self, number: int) -> bytes:
        """The fields of the request of this number."""
        turn, place = divmod(number, len(self.kinds))
        key = turn * KEY_STEP % self.keys
        match self.kinds[place]:
            case "read":
                return b'"type":"read","key":%d' % key
            case "cas":
                return b'"type":"cas","key":%d,"from":%d,"to":%d' % (key, turn % 5, number % 7)
            case _:
                value = b'"%s"' % (b"x" * self.value_bytes) if self.value_bytes else b"%d"
                value = value if self.value_bytes else value % (number % 5)
                return b'"type":"write","key":%d,"value":%s' % (key, value)


HALF_READS = ("read", "cas", "read", "write", "read", "cas")
MIXES = {"reads": ("read",), "half reads": HALF_READS, "writes": ("write",)}


@dataclass
class Window:
    """What has been seen of a cluster for a while. CPU is that of all nodes together."""

    seconds: float = 0.0
    took: array[float] = field(default_factory=lambda: array("d"))  # s, of each answer
    refused: int = 0  # answers that say that the operation has not happened, or may not have
    unanswered: int = 0  # requests that were given up
    cpu: float = 0.0  # seconds
    messages: int = 0  # between servers
    bytes: int = 0
    driver: float = 0.0  # CPU seconds of the driver

    @property
    def operations(self) -> int:
        return len(self.took)

    @property
    def per_second(self) -> float:
        return self.operations / self.seconds

    @property
    def cpu_each(self) -> float:
        """CPU seconds of all nodes for an operation."""
        return self.cpu / max(1, self.operations)

    @property
    def driver_share(self) -> float:
        """Of the time, how much the driver was busy; near 1 it is what bounds the throughput."""
        return self.driver / self.seconds

    def quantiles(self, *parts: float) -> list[float]:
        """For each part, the seconds that this part of the answers did not exceed."""
        took = sorted(self.took) or [math.nan]
        return [took[max(0, math.ceil(part * len(took)) - 1)] for part in parts]


class Clients:
    """Clients in a closed loop, spread over the nodes: each has one request under way."""

    def __init__(self, cluster: Cluster, count: int, mix: Mix) -> None:
        self._cluster, self._mix, self._count = cluster, mix, count
        self._numbers = 0
        self._asked = [0] * count  # the msg_id that a client waits for; its rest is the client
        self._at = [0.0] * count  # and since when
        self._looked = time.perf_counter()  # last, for those who wait in vain
        self.answers = 0  # so far
        self._ask(range(count))

    def warm_up(self, seconds: float) -> None:
        """Goes on until there are answers, and then for so long: a leader may be missing yet."""
        limit = time.monotonic() + START_LIMIT
        while (seen := self.run(seconds)).operations <= seen.refused:
            if time.monotonic() > limit:
                raise NodeEnded(f"there is no answer within {START_LIMIT:g} s")
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
        """Goes on for so long; what was seen meanwhile."""
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
                    continue  # it was given up
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
