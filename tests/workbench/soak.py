"""`make soak SEEDS=10000`: simulated runs of many seeds on all cores.

A failure is printed with the command that runs its seed alone. Exit status: 0, 1 if a seed
failed, 130 after Ctrl-C, 255 if the runs could not be made.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import shlex
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from . import options, shapes, store
from .__main__ import prepare
from .console import RED, Console
from .history import Op
from .interrupt import Interrupted, interruptible
from .loop import SECOND
from .runner import Record
from .workload import Workload

SPAWN = multiprocessing.get_context("spawn")  # no worker has anything of another one's
SHOWN_SEEDS = 20  # of a kind, in the summary


@dataclass(frozen=True)
class Outcome:
    """What came of a seed. `why` is empty if it was good; it may have lines."""

    seed: int
    operations: int = 0
    ok: int = 0
    kind: str = ""  # of the failure
    why: str = ""
    undecided: bool = False  # the checker gave up


class Quiet(Console):
    """A console that says nothing: thousands of runs are not for reading."""

    def info(self, thread: str, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def op(self, thread: str, op: Op) -> None: ...
    def progress(self, text: str) -> None: ...


def run(seed: int, binary: str, scratch: Path) -> Outcome | None:
    """Runs a seed; what is in `scratch` meanwhile is gone afterwards. None if it was cut short."""
    opts = options.parse(shapes.words(seed, binary))
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        logs = folder / "node-logs"
        logs.mkdir()
        runner = prepare(opts, logs, Quiet())
        record = runner.run()
        runner.workload.check(record.history)
        kind, why = failure(record, runner.workload, store.complaints(folder))
    if record.cut_short:
        return None
    types = [op.type for op in record.history if op.process != "nemesis"]
    undecided = any(found.valid is None for found in runner.workload.analyses.values())
    return Outcome(seed, types.count("invoke"), types.count("ok"), kind, why, undecided)


def failure(record: Record, workload: Workload, complaints: list[str]) -> tuple[str, str]:
    """The kind of a run's failure, and why it is one; empty if it is none."""
    for problem in record.problems:
        name = re.match(r"[a-z -]+(?=: )", problem)  # of an invariant
        return (name[0] if name else "rule of the protocol"), problem
    if record.crash:
        return "a node ended", record.crash
    for analysis in workload.analyses.values():
        if analysis.valid is False:
            return "not linearizable", analysis.why
    return ("traceback", f"a traceback: {complaints[0]}") if complaints else ("", "")


def work(connection: Connection, binary: str, scratch: Path) -> None:
    """A worker: seeds come in and outcomes go out, until nobody asks any more."""
    os.setpgrp()  # Ctrl-C is the parent's, who ends this one then
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            seed = connection.recv()
            try:
                outcome = run(seed, binary, scratch)
            except Exception:
                outcome = Outcome(seed, kind="bug in the workbench", why=traceback.format_exc())
            if not outcome:
                return
            connection.send(outcome)


class Workers:
    """Processes that run seeds, each of them one at a time. None is left after the block."""

    def __init__(self, count: int, binary: str, scratch: Path) -> None:
        self._count = count
        self._words = binary, scratch
        self._running: dict[Connection, tuple[BaseProcess, int]] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        for process, _ in self._running.values():
            process.kill()
        for connection, (process, _) in self._running.items():
            process.join()
            connection.close()

    def outcomes(self, seeds: Iterable[int]) -> Iterator[Outcome]:
        """Of each seed, as they come."""
        left = iter(seeds)
        for seed in islice(left, self._count):
            self._give(seed)
        while self._running:
            for connection in wait(list(self._running)):
                assert isinstance(connection, Connection)
                process, seed = self._running[connection]
                try:
                    outcome = connection.recv()
                except EOFError:  # it ran out of memory, or somebody has ended it
                    process.join()
                    why = f"its process ended with {process.exitcode}"
                    outcome = Outcome(seed, kind="process ended", why=why)
                following = next(left, None)
                if following is not None and process.exitcode is None:
                    connection.send(following)
                    self._running[connection] = process, following
                else:
                    del self._running[connection]
                    connection.close()
                    if following is not None:
                        self._give(following)
                yield outcome

    def _give(self, seed: int) -> None:
        """Starts a process for this seed, and those after it."""
        connection, end = SPAWN.Pipe()
        process = SPAWN.Process(target=work, args=(end, *self._words), daemon=True)
        process.start()
        end.close()
        self._running[connection] = process, seed
        connection.send(seed)


class Tally:
    """What has come of all runs, on the terminal."""

    def __init__(self, wanted: int, binary: str) -> None:
        self._wanted = wanted
        self._binary = binary
        self._console = Console()
        self._start = self._shown = time.monotonic()
        self._ran = self._operations = self._ok = self._undecided = 0
        self.failed: dict[str, list[int]] = defaultdict(list)  # seeds by kind

    def add(self, outcome: Outcome) -> None:
        """Counts one, and prints it if it failed."""
        self._ran += 1
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
                f"{self._ran:,} of {self._wanted:,} seeds, {failed} failed, {self._pace()}"
            )

    def close(self, stopped: str = "") -> None:
        """The end: the summary. OSError if not all of it could be printed."""
        console = self._console
        console.progress("")
        if stopped:
            console.print(f"Stopped by {stopped}: {self._ran:,} of {self._wanted:,} seeds ran.")
        share = f", {self._ok / self._operations:.1%} of them ok" if self._operations else ""
        console.print(
            f"{self._ran:,} seeds, {self._pace()}, {self._operations:,} operations{share}"
        )
        if self._undecided:
            console.print(f"{self._undecided} histories were too hard for the checker.")
        for kind, seeds in sorted(self.failed.items()):
            first = " ".join(map(str, sorted(seeds)[:SHOWN_SEEDS]))
            more = " ..." if len(seeds) > SHOWN_SEEDS else ""
            console.print(f"{len(seeds):>6} failed, {kind}: seeds {first}{more}", RED)
        if not self.failed:
            console.print("None failed.")
        console.flush()
        console.close()

    def _pace(self) -> str:
        return f"{60 * self._ran / max(time.monotonic() - self._start, 0.001):,.0f} a minute"


def parser() -> options.Parser:
    """The command line."""
    p = options.Parser(prog="soak", description=__doc__, allow_abbrev=False)
    add, number = p.add_argument, options.whole
    add("--seeds", type=number(1), default=1000, metavar="N", help="default: %(default)s")
    add("--first", type=number(0), default=0, metavar="SEED", help="default: %(default)s")
    add("--bin", default="raft.py", metavar="FILE", help="default: %(default)s")
    add("--workers", type=number(1), default=os.cpu_count() or 1, metavar="N",
        help="processes; default: one for each core, %(default)s")
    return p  # fmt: skip


def main(argv: list[str]) -> int:
    """Runs the seeds; the exit status."""
    given = parser().parse_args(argv)
    seeds = range(given.first, given.first + given.seeds)
    options.parse(shapes.words(seeds[0], given.bin))  # leaves if there is no such binary
    tally = Tally(len(seeds), given.bin)
    with interruptible(), tempfile.TemporaryDirectory() as scratch:
        try:
            with Workers(given.workers, given.bin, Path(scratch)) as workers:
                for outcome in workers.outcomes(seeds):
                    tally.add(outcome)
        except Interrupted as interrupt:
            tally.close(str(interrupt))
            return 130
    tally.close()
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
