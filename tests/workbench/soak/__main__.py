"""`make soak SEEDS=10000`: simulates many seeds, on all cores or on a Dask cluster.

Each failure is printed with the command that reproduces it. Exit status: 0 if all seeds passed,
1 if a seed failed, 130 after Ctrl-C, 255 if the seeds could not be run.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from ..console.console import RED, Console
from ..running import options
from ..running.interrupt import Interrupted, interruptible
from ..units import SECOND
from . import shapes
from .dask_cluster import DaskWorkers
from .seeds import Outcome, Pool, Unavailable
from .workers import Workers

SHOWN_SEEDS = 20  # maximum seeds to print for each kind of failure in the summary


class Tally:
    """Counts the outcomes of all seeds, and prints failures, progress and a summary."""

    def __init__(self, wanted: int, binary: str) -> None:
        self._wanted = wanted
        self._binary = binary
        self._console = Console()
        self._start = self._shown = time.monotonic()
        self.ran = self._operations = self._ok = self._undecided = 0
        self.failed: dict[str, list[int]] = defaultdict(list)  # failed seeds by kind of failure

    def add(self, outcome: Outcome) -> None:
        """Counts an outcome, and prints it if the seed failed."""
        self.ran += 1
        self._operations += outcome.operations
        self._ok += outcome.ok
        self._undecided += outcome.undecided
        if outcome.kind:
            self.failed[outcome.kind].append(outcome.seed)
            command = shlex.join(["./maelstrom", "test", *shapes.words(outcome.seed, self._binary)])
            name = f"seed {outcome.seed} ({shapes.name(outcome.seed)})"
            self._console.print(f"{name}: {outcome.why}\n    {command}", RED)
            self._console.flush()
        now = time.monotonic()
        if now - self._shown >= self._console.progress_interval / SECOND:
            self._shown = now
            failed = sum(map(len, self.failed.values()))
            self._console.progress(
                f"{self.ran:,} of {self._wanted:,} seeds, {failed} failed, {self._pace()}"
            )

    def close(self, stopped: str = "") -> None:
        """Prints the summary. OSError if some of the output could not be printed."""
        console = self._console
        console.progress("")
        if stopped:
            console.print(f"Stopped by {stopped}: {self.ran:,} of {self._wanted:,} seeds ran.")
        share = f", {self._ok / self._operations:.1%} of them ok" if self._operations else ""
        console.print(f"{self.ran:,} seeds, {self._pace()}, {self._operations:,} operations{share}")
        if self._undecided:
            console.print(f"The checker gave up on {self._undecided} histories (verdict unknown).")
        for kind, seeds in sorted(self.failed.items()):
            first = " ".join(map(str, sorted(seeds)[:SHOWN_SEEDS]))
            more = " ..." if len(seeds) > SHOWN_SEEDS else ""
            console.print(f"{len(seeds):>6} failed, {kind}: seeds {first}{more}", RED)
        if not self.failed:
            console.print("No seed failed.")
        console.flush()
        console.close()

    def _pace(self) -> str:
        return f"{60 * self.ran / max(time.monotonic() - self._start, 0.001):,.0f} a minute"


def parser() -> options.Parser:
    """Returns the parser of the command line."""
    p = options.Parser(prog="soak", description=__doc__, allow_abbrev=False)
    add, number = p.add_argument, options.whole
    add("--seeds", type=number(1), default=1000, metavar="N",
        help="number of seeds; default: %(default)s")
    add("--first", type=number(0), default=0, metavar="SEED",
        help="first seed; default: %(default)s")
    add("--bin", default="raft.py", metavar="FILE", help="binary to test; default: %(default)s")
    add("--workers", type=number(1), default=os.cpu_count() or 1, metavar="N",
        help="number of local processes; default: one for each core, %(default)s")
    add("--scheduler", type=address, metavar="tcp://HOST:PORT",
        help="scheduler of a Dask cluster, to run the seeds there; start each worker in a clone of "
        "this commit: PYTHONPATH=.:tests dask worker tcp://HOST:PORT")
    return p  # fmt: skip


def address(text: str) -> str:
    """Checks the address of a Dask scheduler."""
    if not re.fullmatch(r"(tcp|tls|wss?)://[^/]+:\d+", text):
        raise argparse.ArgumentTypeError(f"{text} is not an address like tcp://HOST:8786")
    return text


def main(argv: list[str]) -> int:
    """Runs the seeds; returns the exit status."""
    given = parser().parse_args(argv)
    seeds = range(given.first, given.first + given.seeds)
    options.parse(shapes.words(seeds[0], given.bin))  # exits if the binary does not exist
    tally = Tally(len(seeds), given.bin)
    with interruptible(), tempfile.TemporaryDirectory() as scratch:
        try:
            pool: Pool = (
                DaskWorkers(given.scheduler, given.bin)
                if given.scheduler
                else Workers(given.workers, given.bin, Path(scratch))
            )
            with pool:
                for found in pool.outcomes(seeds):
                    tally.add(found)
        except Unavailable as error:
            if tally.ran:
                tally.close("the cluster")
            print(f"soak: {error}", file=sys.stderr)
            return options.CRASHED
        except Interrupted as interrupt:
            tally.close(str(interrupt))
            return 130
    tally.close()
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
