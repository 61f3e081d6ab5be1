#!/usr/bin/env python3
"""`make failover`: the leader of three nodes is cut off; how long until the others serve writes?

The cluster is simulated, so a --seed gives the same figures on every machine, however busy it is.
Each node has a client that writes again as soon as it has an answer. At a random moment the
leader is cut off from both others; from then on each of these has a new writer, and the first of
their writes that is acknowledged ends the trial. Exit status: 1 if a figure misses its limit.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from workbench.network.nemesis import split  # noqa: E402  (needs the path above)
from workbench.network.network import Latency, Network  # noqa: E402
from workbench.running.client import Client  # noqa: E402
from workbench.running.runner import INIT_TIMEOUT  # noqa: E402
from workbench.simulation.loop import VirtualLoop, dice  # noqa: E402
from workbench.simulation.simulated_cluster import SimulatedCluster, Watcher  # noqa: E402
from workbench.units import SECOND  # noqa: E402
from workbench.workloads.workload import Body  # noqa: E402

NODE_IDS = ["n0", "n1", "n2"]
STEADY = 1.0  # seconds for which all nodes serve before a cut, and at most twice as many
THINK = SECOND // 50  # between an answer and the next write: at 0 ms time would stand still
PATIENCE = 60 * SECOND


class Case(NamedTuple):
    """A latency, and how long a failover should take at it, in seconds."""

    latency: Latency
    median: float
    percentile_99: float


CASES = [
    Case(Latency(0, "constant"), 0.4, 1.0),
    Case(Latency(100, "exponential"), 2.0, 5.0),
]


class Trials:
    """A simulated cluster whose leader is cut off again and again. It listens to the nodes."""

    def __init__(self, folder: Path, latency: Latency, seed: int) -> None:
        self._loop = VirtualLoop()
        self._rng = dice(seed, "failover")
        self._cluster = SimulatedCluster(self._loop, ROOT / "raft.py", [], folder, seed, Watcher())
        self._network = Network(
            self._loop,
            dice(seed, "network"),
            latency,
            self._cluster.deliver,
            lambda direction, message: None,
        )
        self._timeout = int(max(1.0, 10 * latency.mean / 1000) * SECOND)  # as in a test
        self._clients = 0
        self._phase = 0  # writers of an earlier one write no more
        self._acknowledged: set[str] = set()  # nodes that have acknowledged a write of this phase
        initialized: set[str] = set()
        for node_id in NODE_IDS:
            self._cluster.start(node_id, self)
            self._network.add_node(node_id)
        for node_id in NODE_IDS:
            body: Body = {"type": "init", "node_id": node_id, "node_ids": NODE_IDS}
            done = partial(self._initialized, initialized)
            self._client().call(node_id, body, INIT_TIMEOUT, done)
        self._until(lambda: len(initialized) == len(NODE_IDS))

    def seconds(self) -> Iterator[float]:
        """From each cut to the first write that the others have acknowledged; no end."""
        while True:
            self._write(NODE_IDS)
            self._until(lambda: len(self._acknowledged) == len(NODE_IDS))
            self._run(STEADY * (1 + self._rng.random()))
            leader = self._leader()
            others = [node_id for node_id in NODE_IDS if node_id != leader]
            self._network.grudges["cut"] = split([leader], others)
            cut = self._loop.now()
            self._write(others)
            self._until(lambda: bool(self._acknowledged))
            yield (self._loop.now() - cut) / SECOND
            del self._network.grudges["cut"]

    def stop(self) -> None:
        """The end."""
        self._cluster.stop()

    def on_line(self, node_id: str, line: bytes) -> None:
        """A node's message goes to the network."""
        self._network.from_node(node_id, line)

    def on_stderr(self, node_id: str, line: str) -> None:
        """Who leads is asked for when it matters."""

    def on_exit(self, node_id: str, why: str) -> None:
        """No node may end by itself."""
        raise RuntimeError(f"{node_id} {why}")

    def _leader(self) -> str:
        """The latest one: another may not have learned yet that it leads no more."""
        machines = self._cluster.machines.items()
        servers = {node_id: machine.node.server for node_id, machine in machines if machine.node}
        leaders = [node_id for node_id, server in servers.items() if server.role == "leader"]
        return max(leaders, key=lambda node_id: int(servers[node_id].term))

    def _initialized(self, done: set[str], reply: Body | None, node_id: str) -> None:
        if reply and reply["type"] == "init_ok":
            done.add(node_id)

    def _client(self) -> Client:
        self._clients += 1
        return Client(f"c{self._clients}", self._loop, self._network, self._problem)

    def _problem(self, text: str) -> None:
        raise RuntimeError(text)

    def _write(self, node_ids: Sequence[str]) -> None:
        """From now on each of these nodes has a writer, a new one."""
        self._phase += 1
        self._acknowledged.clear()
        for node_id in node_ids:
            self._keep_writing(node_id, self._client(), self._phase)

    def _keep_writing(self, node_id: str, client: Client, phase: int) -> None:
        if phase != self._phase:
            return

        def done(reply: Body | None, src: str) -> None:
            following = client
            if reply is None:  # it knows nothing of its write: another one takes its place
                self._network.close_client(client.client_id)
                following = self._client()
            elif reply["type"] == "write_ok" and phase == self._phase:
                self._acknowledged.add(node_id)
            self._loop.after(THINK, partial(self._keep_writing, node_id, following, phase))

        body: Body = {"type": "write", "key": node_id, "value": phase}
        client.call(node_id, body, self._timeout, done)

    def _run(self, seconds: float) -> None:
        self._loop.run_to(self._loop.now() + int(seconds * SECOND))

    def _until(self, done: Callable[[], bool]) -> None:
        """Moves time on until done() is true. RuntimeError if it takes too long."""
        end = self._loop.now() + PATIENCE
        self._loop.run_until(lambda: done() or self._loop.now() > end)
        if not done():
            raise RuntimeError(f"nothing happens within {PATIENCE // SECOND} s")


def measure(latency: Latency, trials: int, seed: int) -> list[float]:
    """Seconds, from the shortest to the longest."""
    with tempfile.TemporaryDirectory() as folder:
        cluster = Trials(Path(folder), latency, seed)
        try:
            return sorted(islice(cluster.seconds(), trials))
        finally:
            cluster.stop()


def percentile(found: Sequence[float], percent: float) -> float:
    """The smallest of the sorted figures that so many percent do not exceed."""
    return found[math.ceil(len(found) * percent / 100) - 1]


def main() -> int:
    """Prints a line for each latency; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=600, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    args = parser.parse_args()
    status = 0
    for latency, *limits in CASES:
        found = measure(latency, args.trials, args.seed)
        figures = [statistics.median(found), percentile(found, 99)]
        missed = any(map(float.__gt__, figures, limits))
        status = status or int(missed)
        line = "{:g} ms, {}, {} trials: median {:.3f} s, 99th percentile {:.3f} s, max {:.3f} s"
        wanted = " (wanted: at most {:g} s and {:g} s){}"
        print(
            line.format(latency.mean, latency.dist, len(found), *figures, found[-1])
            + wanted.format(*limits, "   MISSED" if missed else ""),
            flush=True,
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
