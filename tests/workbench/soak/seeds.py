"""What comes of a seed, and who runs many."""

from __future__ import annotations

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
from ..record.history import Op
from ..running import options
from ..running.prepare import prepare
from ..running.runner import Record
from ..workloads.workload import Workload
from . import shapes


@dataclass(frozen=True)
class Outcome:
    """What came of a seed. `why` is empty if it was good; it may have lines."""

    seed: int
    operations: int = 0
    ok: int = 0
    kind: str = ""  # of the failure
    why: str = ""
    undecided: bool = False  # the checker gave up


class Unavailable(Exception):
    """Seeds cannot be run, or no more of them; the text is for the user."""


class Pool(AbstractContextManager["Pool"], Protocol):
    """Runs seeds, many at a time. Nothing goes on after the block."""

    def outcomes(self, seeds: Iterable[int]) -> Iterator[Outcome]:
        """Of each seed, as they come. Unavailable if there can be no more."""


class Quiet(Console):
    """A console that says nothing: thousands of runs are not for reading."""

    def info(self, thread: str, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def op(self, thread: str, op: Op) -> None: ...
    def progress(self, text: str, *shorter: str) -> None: ...


def outcome(seed: int, binary: str, scratch: Path) -> Outcome | None:
    """As `run`; an exception of the workbench's own is an outcome, too."""
    try:
        return run(seed, binary, scratch)
    except Exception:
        return Outcome(seed, kind="bug in the workbench", why=traceback.format_exc())


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
