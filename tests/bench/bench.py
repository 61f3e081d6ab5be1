#!/usr/bin/env python3
"""`make bench`: what the node costs, beside something that ran in the same minute.

These machines are shared and noisy, so a figure means little alone: each is the median of
several rounds, taken in turn with the thing that it is compared with, and the ratio is what
counts. The standard library is enough.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import selectors
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from raft import Map  # noqa: E402  (needs the path above)

RAFT = [sys.executable, str(ROOT / "raft.py")]
CHAPTER_1 = [*RAFT, "--unreplicated"]
BARE_LOOP = [sys.executable, str(Path(__file__).with_name("bare_loop.py"))]
IMPORTS = [sys.executable, "-c", "import json, threading"]
READ_SIZE = 1 << 16
INIT = {"type": "init", "msg_id": 0, "node_id": "n0", "node_ids": ["n0"]}


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


class Cluster:
    """Nodes as processes, and a network without latency; a line's `dest` says where it goes."""

    def __init__(self, command: list[str], nodes: int) -> None:
        self.ids = [f"n{n}" for n in range(nodes)]
        self.processes = {
            node_id: subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
            )
            for node_id in self.ids
        }
        self.selector = selectors.DefaultSelector()
        self.unfinished = dict.fromkeys(self.ids, b"")
        for node_id, process in self.processes.items():
            assert process.stdout is not None
            self.selector.register(process.stdout, selectors.EVENT_READ, node_id)
        for node_id in self.ids:
            self.write(node_id, message(0, INIT | {"node_id": node_id, "node_ids": self.ids}))
        answers = 0
        while answers < nodes:
            answers += len(self.route())

    def write(self, node_id: str, data: bytes) -> None:
        stdin = self.processes[node_id].stdin
        assert stdin is not None
        stdin.write(data)

    def route(self) -> list[bytes]:
        """Waits for lines and hands them over, one write for each node; returns the answers."""
        answers = []
        boxes: dict[str, list[bytes]] = {}
        for key, _ in self.selector.select():
            chunk = self.unfinished[key.data] + os.read(key.fd, READ_SIZE)
            *lines, self.unfinished[key.data] = chunk.split(b"\n")
            for line in lines:
                dest = line.split(b'"dest":"', 1)[1].split(b'"', 1)[0].decode()
                if dest in self.unfinished:
                    boxes.setdefault(dest, []).append(line)
                else:
                    answers.append(line)
        for dest, lines in boxes.items():
            self.write(dest, b"\n".join([*lines, b""]))
        return answers

    def end(self) -> float:
        """Ends the nodes; their CPU seconds together."""
        seconds = 0.0
        for process in self.processes.values():
            assert process.stdin is not None and process.stdout is not None
            process.stdin.close()
            process.stdout.close()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            seconds += usage.ru_utime + usage.ru_stime
        return seconds


def cluster_cpu(nodes: int, count: int, clients: int) -> float:
    """CPU seconds of all nodes for `count` requests in a closed loop, spread over the nodes."""
    cluster = Cluster(RAFT, nodes)
    lines = requests(count, clients)
    free, under_way = clients, 0
    while batch := list(islice(lines, free)) or under_way:
        if isinstance(batch, list):
            for n, node_id in enumerate(cluster.ids):
                cluster.write(node_id, b"".join(batch[n::nodes]))
            under_way += len(batch)
        free = len(cluster.route())
        under_way -= free
    return cluster.end()


def cluster_cpu_per_request(nodes: int, count: int, clients: int) -> float:
    """CPU seconds for one request, without those of starting the nodes."""
    return (cluster_cpu(nodes, count, clients) - cluster_cpu(nodes, 0, clients)) / count


def latency(nodes: int, count: int, clients: int) -> float:
    """Median seconds from a request to its answer; each answer makes room for another request."""
    cluster = Cluster(RAFT, nodes)
    lines = enumerate(requests(count, clients), 1)
    asked: dict[int, tuple[str, float]] = {}
    seconds: list[float] = []

    def ask(node_id: str) -> None:
        for msg_id, line in islice(lines, 1):
            asked[msg_id] = (node_id, time.perf_counter())
            cluster.write(node_id, line)

    for client in range(clients):
        ask(cluster.ids[client % nodes])
    while len(seconds) < count:
        for answer in cluster.route():
            node_id, start = asked.pop(json.loads(answer)["body"]["in_reply_to"])
            seconds.append(time.perf_counter() - start)
            ask(node_id)
    cluster.end()
    return statistics.median(seconds)


def cpu_seconds(command: list[str], count: int, clients: int) -> float:
    """CPU time of a whole process that answers init and then `count` requests.

    Closed loop: each of the clients has one request under way. The driver's own time is not in
    the figure.
    """
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(message(0, INIT))
    os.read(process.stdout.fileno(), READ_SIZE)
    lines = requests(count, clients)
    free, under_way = clients, 0
    while batch := list(islice(lines, free)) or under_way:
        if isinstance(batch, list):
            process.stdin.write(b"".join(batch))
            under_way += len(batch)
        free = os.read(process.stdout.fileno(), READ_SIZE).count(b"\n")
        if not free:
            raise SystemExit(f"{' '.join(command)} ended early: its last words are above")
        under_way -= free
    process.stdin.close()
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def cpu_per_request(command: list[str], count: int, clients: int) -> float:
    """CPU seconds for one request, without those of starting the process."""
    return (cpu_seconds(command, count, clients) - cpu_seconds(command, 0, clients)) / count


def apply_seconds(
    keys: int, active: int, writes: int = 100_000, hold_first: bool = False
) -> float:
    """Time of one write to a Map of so many keys, of which `active` are written by chance.

    `hold_first`: somebody holds the version before all the writes.
    """
    state_machine = Map({key: 0 for key in range(keys)})
    held = state_machine if hold_first else None
    rng = random.Random(1)
    ops = [{"type": "write", "key": rng.randrange(active), "value": n} for n in range(writes)]
    start = time.perf_counter()
    for op in ops:
        state_machine, _ = state_machine.apply(op)
    seconds = time.perf_counter() - start
    del held
    return seconds / writes


def start_seconds(command: list[str], first_line: bytes = b"") -> float:
    """Time from starting a process to its first line of output, or else to its end."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(first_line)
    process.stdout.readline()
    if not first_line:
        process.wait()
    seconds = time.perf_counter() - start
    process.communicate()
    return seconds


def compare(
    title: str, unit: float, rounds: int, a: Callable[[], float], b: Callable[[], float]
) -> None:
    """Measures a and b in turn; prints the medians, and the median of the rounds' ratios."""
    pairs = [(a(), b()) for _ in range(rounds)]
    first, second = (statistics.median(column) * unit for column in zip(*pairs, strict=True))
    ratio = statistics.median(x / y for x, y in pairs)
    print(f"{title:<58} {first:8.2f} {second:8.2f} {ratio:6.2f}", flush=True)


def main() -> None:
    """Prints one row a comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="how often each is measured")
    parser.add_argument("--requests", type=int, default=50_000, help="requests in a round")
    args = parser.parse_args()
    print(f"{'medians':<58} {'this':>8} {'that':>8} {'ratio':>6}")
    for clients in (1, 10, 50, 200):
        compare(
            f"CPU us a request, {clients} clients: chapter 1, a bare loop",
            1e6,
            args.rounds,
            partial(cpu_per_request, CHAPTER_1, args.requests, clients),
            partial(cpu_per_request, BARE_LOOP, args.requests, clients),
        )
    for nodes in (1, 3, 5):
        compare(
            f"CPU us a request, 50 clients: Raft on {nodes} nodes, a bare loop",
            1e6,
            args.rounds,
            partial(cluster_cpu_per_request, nodes, args.requests, 50),
            partial(cpu_per_request, BARE_LOOP, args.requests, 50),
        )
    compare(
        "median latency, ms, 10 clients: Raft on 3 nodes, on 1 node",
        1e3,
        args.rounds,
        partial(latency, 3, args.requests // 5, 10),
        partial(latency, 1, args.requests // 5, 10),
    )
    # With all keys active, what is left of the difference are the processor's cache misses.
    for active in (10, 1_000_000):
        compare(
            f"us a write: Map of 1,000,000 keys, {active:,} active; Map of 10",
            1e6,
            args.rounds,
            partial(apply_seconds, 1_000_000, active),
            partial(apply_seconds, 10, 10),
        )
    compare(
        "us a write: Map of 10 with an old version held; without",
        1e6,
        args.rounds,
        partial(apply_seconds, 10, 10, hold_first=True),
        partial(apply_seconds, 10, 10),
    )
    compare(
        "start, ms: raft.py to init_ok, import json and threading",
        1e3,
        args.rounds * 3,
        partial(start_seconds, CHAPTER_1, message(0, INIT)),
        partial(start_seconds, IMPORTS),
    )


if __name__ == "__main__":
    main()
