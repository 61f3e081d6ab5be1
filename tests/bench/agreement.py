#!/usr/bin/env python3
"""`make agreement`: compares the figures of runs with and without --simulate.

Each pair consists of a run of real processes, and simulated runs with the same --seed. All of them
start the same operations at the same times, and have the same partitions. Real nodes draw their
own random numbers. So the simulated runs also give the nodes different random numbers. The real
run is compared with the mean of the simulated runs; their range shows the effect of chance.

A simulated node uses no processing time. So latencies of a few ms are not compared: at a real node,
such a latency is mostly processing time. Exit status: 1 if a figure differs by 10 % or more.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from workbench.record.edn import Keyword  # noqa: E402  (needs the path above)
from workbench.record.history import Operation, clients, operations  # noqa: E402
from workbench.running import options  # noqa: E402
from workbench.running.cluster import Processes  # noqa: E402
from workbench.running.runner import Runner  # noqa: E402
from workbench.simulation.loop import RealLoop, VirtualLoop  # noqa: E402
from workbench.simulation.simulated_cluster import SimulatedCluster, Watcher  # noqa: E402
from workbench.soak.seeds import Quiet  # noqa: E402
from workbench.units import SECOND  # noqa: E402

SIMULATED = 8  # simulated runs for each pair
DICE = range(SIMULATED)  # seeds of the simulated nodes
SMALL = 5.0  # ms; smaller simulated latencies are not compared
SERVED = (Keyword("key-does-not-exist"), Keyword("precondition-failed"))
LIMIT = 10.0  # percent; a difference of this size or more fails


class Figures(NamedTuple):
    """The figures of a run to compare."""

    served: float  # share of operations that were served
    latency: float  # mean latency of served operations, in ms
    messages: float  # messages between servers for an operation


def pair(number: int) -> tuple[int, int, str, int, bool]:
    """Returns a pair's options: nodes, latency in ms, its distribution, rate and partitions.

    The numbers of the pairs spread over all values of each option.
    """
    return (
        (3, 5, 1)[number % 3],
        (0, 10, 100)[number // 3 % 3],
        ("constant", "uniform", "exponential")[number // 2 % 3],
        (100, 50, 20)[number % 4 % 3],
        number % 2 == 1,
    )


def words(number: int) -> list[str]:
    """Returns a pair's arguments for `./maelstrom test`, without --simulate."""
    nodes, latency, dist, rate, faults = pair(number)
    found = ["-w", "lin-kv", "--bin", str(ROOT / "raft.py"), "--seed", str(number)]
    found += ["--node-count", str(nodes), "--concurrency", "4n", "--rate", str(rate)]
    found += ["--latency", str(latency), "--latency-dist", dist, "--time-limit", "15"]
    return [*found, "--nemesis", "partition", "--nemesis-interval", "3"] if faults else found


def served(operation: Operation) -> bool:
    """Returns whether the reply told the register's state: ok, or error 20 or 22."""
    error = operation.error
    return operation.type == "ok" or (isinstance(error, list) and error[0] in SERVED)


def run(number: int, dice: int | None) -> Figures:
    """Makes a pair's real run, or the simulated run with these seeds of the nodes."""
    opts = options.parse([*words(number), *(() if dice is None else ("--simulate",))])
    with tempfile.TemporaryDirectory() as folder:
        if dice is None:
            real = RealLoop()
            processes = Processes(real, [str(opts.bin)], Path(folder))
            runner = Runner(opts, real, processes, Quiet())
        else:
            virtual = VirtualLoop()
            cluster = SimulatedCluster(virtual, opts.bin, (), Path(folder), dice, Watcher())
            runner = Runner(opts, virtual, cluster, Quiet())
        record = runner.run()
    if record.crash or record.problems:
        raise RuntimeError(f"pair {number}: {record.crash} {record.problems}")
    asked = operations(clients(record.history))
    took = [(op.end - op.start) / SECOND * 1000 for op in asked if served(op) and op.end]
    return Figures(
        len(took) / len(asked),
        statistics.mean(took),
        runner.network.between_servers.sent / len(asked),
    )


def compare(number: int, real: Figures, simulated: Sequence[Figures]) -> list[float | None]:
    """Prints a pair's row; returns the differences in percent, or None where not compared."""
    texts: list[str] = []
    found: list[float | None] = []
    for name, one, *others in zip(Figures._fields, real, *simulated, strict=True):
        mean = statistics.mean(others)
        thinking = name == "latency" and mean < SMALL
        percent = None if thinking or not mean else 100 * (one - mean) / mean
        found.append(percent)
        text = f"{one:8.3f}{mean:8.3f}  ({min(others):7.3f} to {max(others):7.3f})"
        texts.append(f"{text} {'-' if percent is None else f'{percent:+.1f}%':>7}")
    print(" | ".join([f"{number:2}", *texts, shown(number)]), flush=True)
    return found


def shown(number: int) -> str:
    """Formats a pair's options."""
    nodes, latency, dist, rate, faults = pair(number)
    text = f"{nodes} nodes, {latency} ms {dist}, {rate}/s"
    return f"{text}, partitions" if faults else text


def main() -> int:
    """Prints a row for each pair and a summary; returns 1 if a figure differs too much."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--pairs", type=int, default=20, help="number of pairs; default: %(default)s")
    add("--at-once", type=int, default=1, help="parallel real runs; default: %(default)s")
    args = parser.parse_args()
    print(f"columns of each figure: real, mean and range of {SIMULATED} simulated runs, difference")
    print(f"load at the start: {load()}")
    print(" | ".join(["  ", *(f"{name:42}" for name in Figures._fields), "options"]))
    with ProcessPoolExecutor(args.at_once) as pool:
        real = list(pool.map(run, range(args.pairs), [None] * args.pairs))
    with ProcessPoolExecutor() as pool:
        rows = [
            compare(number, real[number], list(pool.map(run, [number] * SIMULATED, DICE)))
            for number in range(args.pairs)
        ]
    status = 0
    for name, column in zip(Figures._fields, zip(*rows, strict=True), strict=True):
        sizes = [abs(percent) for percent in column if percent is not None]
        far = sum(size >= LIMIT for size in sizes)
        status = status or int(far > 0)
        print(
            f"{name}: {len(sizes)} pairs, largest difference {max(sizes):.1f} %, "
            f"median {statistics.median(sizes):.1f} %, {far} pairs differ by {LIMIT:g} % or more"
        )
    print(f"load at the end: {load()}")
    return status


def load() -> str:
    """Formats the load average of the last minute; other processes distort real runs."""
    return f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


if __name__ == "__main__":
    sys.exit(main())
