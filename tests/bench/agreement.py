#!/usr/bin/env python3
"""`make agreement`: do the same options give the same figures with and without --simulate?

Each pair is a run of real processes in real time, and simulated runs with its --seed: the same
operations due at the same times, the same partitions. The dice of real nodes are their own, so
several simulated runs are made, which differ by the nodes' dice; the real one is compared with
their mean, and the range that they span says how much of a difference is chance.

A simulated node takes no time to think. So a latency of a few ms is not compared in percent: the
real one is mostly the processor's. Exit status: 1 if a figure is off by 10 % or more.
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

SIMULATED = 8  # runs for each pair
DICE = range(SIMULATED)  # the nodes' seeds in these
SMALL = 5.0  # where a simulated latency is smaller, in ms, what the processor takes is most of it
SERVED = (Keyword("key-does-not-exist"), Keyword("precondition-failed"))
LIMIT = 10.0  # percent that are too far off


class Figures(NamedTuple):
    """What is compared of a run."""

    served: float  # the share of operations whose client knows the register's state
    latency: float  # mean of these, in ms
    messages: float  # between servers, for an operation


def pair(number: int) -> tuple[int, int, str, int, bool]:
    """Nodes, latency in ms and its kind, operations a second, partitions: spread over them all."""
    return (
        (3, 5, 1)[number % 3],
        (0, 10, 100)[number // 3 % 3],
        ("constant", "uniform", "exponential")[number // 2 % 3],
        (100, 50, 20)[number % 4 % 3],
        number % 2 == 1,
    )


def words(number: int) -> list[str]:
    """A pair's words after `./maelstrom test`, but for --simulate."""
    nodes, latency, dist, rate, faults = pair(number)
    found = ["-w", "lin-kv", "--bin", str(ROOT / "raft.py"), "--seed", str(number)]
    found += ["--node-count", str(nodes), "--concurrency", "4n", "--rate", str(rate)]
    found += ["--latency", str(latency), "--latency-dist", dist, "--time-limit", "15"]
    return [*found, "--nemesis", "partition", "--nemesis-interval", "3"] if faults else found


def served(operation: Operation) -> bool:
    """Whether it was ok, or an error told its client the register's state all the same."""
    error = operation.error
    return operation.type == "ok" or (isinstance(error, list) and error[0] in SERVED)


def run(number: int, dice: int | None) -> Figures:
    """A pair's real run, or the simulated one in which the nodes have these dice."""
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
    """Prints a pair's row; the differences in percent, None where there is no percentage."""
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
    """A pair's options, for people."""
    nodes, latency, dist, rate, faults = pair(number)
    text = f"{nodes} nodes, {latency} ms {dist}, {rate}/s"
    return f"{text}, partitions" if faults else text


def main() -> int:
    """Prints a row for each pair and a summary; exit status 1 if a figure is too far off."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--pairs", type=int, default=20, help="default: %(default)s")
    add("--at-once", type=int, default=1, help="real runs at a time; default: %(default)s")
    args = parser.parse_args()
    print(f"of each figure: real, simulated (of {SIMULATED} runs), difference; load {load()}")
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
            f"median {statistics.median(sizes):.1f} %, {far} of {LIMIT:g} % or more"
        )
    print(f"load at the end: {load()}")
    return status


def load() -> str:
    """Processes that ran or wanted to, in the last minute: what others do distorts real runs."""
    return f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


if __name__ == "__main__":
    sys.exit(main())
