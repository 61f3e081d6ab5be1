#!/usr/bin/env python3
"""`make failover`: measures the time from the loss of the leader to the next acknowledged write.

The three nodes are simulated, so a --seed gives the same figures on every machine, also on a busy
one. Each node has a client that writes again as soon as it has a reply. At a random moment the
leader is cut off from both other nodes. These get new clients, and their first acknowledged write
ends the trial. Exit status: 1 if a figure misses its limit.
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
STEADY = 1.0  # minimum seconds between two trials; the maximum is twice as long
THINK = SECOND // 50  # time from a reply to the next write; with 0, time might never advance
PATIENCE = 60 * SECOND  # maximum time to wait for a step of a trial


class Case(NamedTuple):
    """A latency, and limits of the failover time, in seconds."""

    latency: Latency
    median: float
    percentile_99: float


CASES = [
    Case(Latency(0, "constant"), 0.4, 1.0),
    Case(Latency(100, "exponential"), 2.0, 5.0),
]


class Trials:
    """Runs trials on a simulated cluster; also the listener of its nodes."""

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
        self._timeout = int(max(1.0, 10 * latency.mean / 1000) * SECOND)  # as in a lin-kv test
        self._clients = 0  # number of clients so far
        self._phase = 0  # clients of earlier phases stop writing
        self._acknowledged: set[str] = set()  # nodes that acknowledged a write of this phase
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
        """Yields, without end, the time from a cut to the next acknowledged write."""
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
        """Ends the nodes."""
        self._cluster.stop()

    def on_line(self, node_id: str, line: bytes) -> None:
        """Sends a node's message through the network."""
        self._network.from_node(node_id, line)

    def on_stderr(self, node_id: str, line: str) -> None:
        """Ignores the line: `_leader` reads the roles from the nodes' state."""

    def on_exit(self, node_id: str, why: str) -> None:
        """Fails, since no node may end by itself."""
        raise RuntimeError(f"{node_id} {why}")

    def _leader(self) -> str:
        """Returns the leader of the highest term: an older leader may not have stepped down yet."""
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
        """Starts a phase with a new client for each of these nodes."""
        self._phase += 1
        self._acknowledged.clear()
        for node_id in node_ids:
            self._keep_writing(node_id, self._client(), self._phase)

    def _keep_writing(self, node_id: str, client: Client, phase: int) -> None:
        if phase != self._phase:
            return

        def done(reply: Body | None, src: str) -> None:
            if reply and reply["type"] == "write_ok" and phase == self._phase:
                self._acknowledged.add(node_id)
            self._loop.after(THINK, partial(self._keep_writing, node_id, client, phase))

        body: Body = {"type": "write", "key": node_id, "value": phase}
        client.call(node_id, body, self._timeout, done)

    def _run(self, seconds: float) -> None:
        self._loop.run_to(self._loop.now() + int(seconds * SECOND))

    def _until(self, done: Callable[[], bool]) -> None:
        """Advances time until done() is true. RuntimeError after PATIENCE."""
        end = self._loop.now() + PATIENCE
        self._loop.run_until(lambda: done() or self._loop.now() > end)
        if not done():
            raise RuntimeError(f"no expected reply within {PATIENCE // SECOND} s of virtual time")


def measure(latency: Latency, trials: int, seed: int) -> list[float]:
    """Runs trials; returns the failover times in seconds, sorted."""
    with tempfile.TemporaryDirectory() as folder:
        cluster = Trials(Path(folder), latency, seed)
        try:
            return sorted(islice(cluster.seconds(), trials))
        finally:
            cluster.stop()


def percentile(found: Sequence[float], percent: float) -> float:
    """Returns a percentile of sorted figures."""
    return found[math.ceil(len(found) * percent / 100) - 1]


def main() -> int:
    """Prints a line for each latency; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--trials", type=int, default=600, help="trials at each latency; default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    args = parser.parse_args()
    status = 0
    for latency, *limits in CASES:
        found = measure(latency, args.trials, args.seed)
        figures = [statistics.median(found), percentile(found, 99)]
        missed = any(map(float.__gt__, figures, limits))
        status = status or int(missed)
        line = "{:g} ms, {}, {} trials: median {:.3f} s, 99th percentile {:.3f} s, max {:.3f} s"
        wanted = " (limits: median {:g} s, 99th percentile {:g} s){}"
        print(
            line.format(latency.mean, latency.dist, len(found), *figures, found[-1])
            + wanted.format(*limits, "   MISSED" if missed else ""),
            flush=True,
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
