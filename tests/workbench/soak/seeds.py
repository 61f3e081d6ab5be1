"""Runs a seed, and defines its outcome and the interface of a pool of workers."""

from __future__ import annotations

import gc
import re
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..console.console import Console
from ..record import store
from ..record.edn import Keyword
from ..record.history import Op
from ..running import options
from ..running.prepare import prepare
from ..running.runner import Record
from ..verdicts import UNKNOWN, VALID, Results, get
from ..workloads.workload import Workload
from . import shapes

# Runs between two garbage collections. `prepare` makes others rare, and a run leaves a few MB.
KEPT_RUNS = 16
# The faults of a run may let so few transactions through that none depends on another one.
NOTHING_TO_JUDGE = [Keyword("empty-transaction-graph")]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a seed."""

    seed: int
    operations: int = 0
    ok: int = 0  # number of operations that were ok
    kind: str = ""  # kind of failure; "" if the seed passed
    why: str = ""  # description of the failure, perhaps of several lines; "" if the seed passed
    undecided: bool = False  # the checker gave up on a key


class Unavailable(Exception):
    """No seed can be run, or no further seed; the text tells the user why."""


class Pool(AbstractContextManager["Pool"], Protocol):
    """Runs many seeds at a time, until the end of the block."""

    def outcomes(self, seeds: Iterable[int]) -> Iterator[Outcome]:
        """Yields the outcome of each seed, in the order of completion.

        Unavailable if the remaining seeds cannot be run.
        """


class Quiet(Console):
    """A console that prints nothing, for thousands of runs."""

    def info(self, thread: str, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def op(self, thread: str, op: Op) -> None: ...
    def progress(self, text: str, *shorter: str) -> None: ...


def outcome(seed: int, binary: str, scratch: Path) -> Outcome | None:
    """Runs a seed, and turns an exception of the workbench into an outcome."""
    if seed % KEPT_RUNS == 0:
        gc.collect()
    try:
        return run(seed, binary, scratch)
    except Exception:
        return Outcome(seed, kind="bug in the workbench", why=traceback.format_exc())


def run(seed: int, binary: str, scratch: Path) -> Outcome | None:
    """Runs a seed with its temporary files in `scratch`. None if the run was cut short."""
    opts = options.parse(shapes.words(seed, binary))
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        logs = folder / "node-logs"
        logs.mkdir()
        runner = prepare(opts, logs, Quiet())
        record = runner.run()
        results = runner.workload.check(record.history)
        kind, why = failure(record, runner.workload, results, store.complaints(folder))
    if record.cut_short:
        return None
    types = [op.type for op in record.history if op.process != "nemesis"]
    undecided = results[VALID] is UNKNOWN and get(results, "anomaly-types") != NOTHING_TO_JUDGE
    return Outcome(seed, types.count("invoke"), types.count("ok"), kind, why, undecided)


def failure(
    record: Record, workload: Workload, results: Results, complaints: list[str]
) -> tuple[str, str]:
    """Returns the kind and the description of a run's failure, or two empty strings."""
    for problem in [*record.problems, *workload.warnings]:
        name = re.match(r"[a-z -]+(?=: )", problem)  # the name of an invariant
        return (name[0] if name else "rule of the protocol"), problem
    if record.crash:
        return "a node ended", record.crash
    if results[VALID] is False and get(results, "anomaly-types") != NOTHING_TO_JUDGE:
        analyses = workload.analyses.values()
        whys = [*workload.reasons, *(found.why for found in analyses if found.valid is False)]
        return "invalid history", whys[0]
    return ("traceback", f"a traceback: {complaints[0]}") if complaints else ("", "")
