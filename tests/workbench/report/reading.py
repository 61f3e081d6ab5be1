"""Reads the folder of a run, the bench's or the real Maelstrom's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from ..checkers.linearizable import check_history
from ..reasons import reasons, warnings
from ..record import edn, history, journal, life, store
from ..record.edn import Keyword
from ..record.history import HistoryError, Op, Operation, clients
from ..record.store import command
from ..running.options import settings
from ..verdicts import get
from ..workloads import WORKLOADS, judge
from ..workloads.workload import Settings

NO_LIFE = (
    "The nodes' roles are not drawn, because there is no life.edn. In it the bench keeps the lines "
    "in which nodes state their roles; the real Maelstrom does not."
)
NO_JOURNAL = (
    "The messages are not drawn, because there is no messages.jsonl, the bench's journal of "
    "messages. The real Maelstrom keeps its journal in another format."
)
ALONE = "The verdict is the checker's alone, because results.edn cannot be read"
Part = TypeVar("Part")


@dataclass
class Run:
    """The data of a run."""

    folder: Path
    title: str
    verdict: bool | None  # None if unknown
    whys: list[str]  # the reasons for the verdict, as sentences
    command: str  # "" if unknown
    warnings: list[str]  # sentences that do not change the verdict
    nodes: list[str]
    events: list[Op]
    operations: list[Operation]
    ends: dict[int, int]  # maps an operation's index to the time of its completion, also for info
    keys: list[tuple[str, bool | None]]  # each key's name and verdict
    key_of: dict[int, int]  # maps an operation's index to its key's place in `keys`
    results: dict[Any, Any] = field(default_factory=dict)
    life: list[life.Line] = field(default_factory=list)
    no_life: str = ""  # why `life` could not be read; "" if it was
    messages: list[journal.Sent] = field(default_factory=list)
    no_messages: str = ""  # why `messages` could not be read; "" if they were

    @cached_property
    def until(self) -> int:
        """Returns the time of the last event, in ns."""
        return max((op.time for op in self.events), default=0)

    @property
    def keyless(self) -> bool:
        """Returns whether the workload's operations have no keys."""
        judged = get(self.results, "workload")
        return judged is not None and get(judged, "results") is None

    def asked(self, process: int | str) -> str:
        """Returns the node to which a process sends its operations, by Jepsen's rule."""
        if not isinstance(process, int) or len(self.nodes) < 2:
            return ""
        return self.nodes[process % len(self.nodes)]

    def end(self, op: Operation) -> int:
        """Returns the time of an operation's completion; the end of the run if it has none."""
        end = self.ends.get(op.start_index)
        return self.until if end is None else end


def read(folder: Path) -> Run:
    """Reads the folder of a run. Raises HistoryError if it is not a run's folder."""
    if not folder.is_dir():
        raise HistoryError(f"{folder} is not a folder; give the folder of a run, in store/")
    events = history.read(folder)
    folder = folder.resolve()  # latest is a link
    operations = history.operations(clients(events))
    results = _results(folder)
    name = store.workload(folder, WORKLOADS)
    judged = _judged_by_workload(name, events, results, settings(folder))
    verdict, whys, verdicts = _judged(events, results) if judged is None else (*judged, {})
    names, key_of = _keys(events)
    keys = [(name, verdicts.get(name, verdict if not verdicts else True)) for name in names]
    order = sorted(range(len(keys)), key=lambda place: _interest(keys[place][1]))
    places = {place: rank for rank, place in enumerate(order)}
    logs = folder / "node-logs"
    lines, no_life = _part(
        life.read, folder, NO_LIFE, f"The nodes' roles are not drawn, because {life.NAME}"
    )
    messages, no_messages = _part(
        journal.read, folder, NO_JOURNAL, f"The messages are not drawn, because {journal.NAME}"
    )
    return Run(
        folder=folder,
        title=f"{folder.parent.name} {folder.name}",
        verdict=verdict,
        whys=whys,
        command=command(folder),
        warnings=warnings(results),
        nodes=sorted((log.stem for log in logs.glob("*.log")), key=natural),
        events=events,
        operations=operations,
        ends=dict(_ends(events)),
        keys=[keys[place] for place in order],
        key_of={index: places[place] for index, place in key_of.items()},
        results=results,
        life=lines,
        no_life=no_life,
        messages=messages,
        no_messages=no_messages,
    )


def _interest(verdict: bool | None) -> int:
    return (False, None, True).index(verdict)


def natural(name: str) -> list[tuple[int, str]]:
    """Returns a sort key that puts n2 before n10."""
    parts = re.findall(r"\d{1,9}|\D+|\d+", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _results(folder: Path) -> dict[Any, Any]:
    try:
        found = edn.loads((folder / "results.edn").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _part(
    read: Callable[[Path], list[Part]], folder: Path, none: str, what: str
) -> tuple[list[Part], str]:
    """Reads a file of the folder. Returns its data, and why it could not be read ("" if it was)."""
    try:
        return read(folder), ""
    except FileNotFoundError:
        return [], none
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        return [], f"{what} cannot be read: {why}."


def _verdict(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _judged_by_workload(
    name: str, events: list[Op], results: dict[Any, Any], given: Settings
) -> tuple[bool | None, list[str]] | None:
    """Returns the verdict and its reasons if the results lack them: they are missing, or Jepsen's.

    Returns None for lin-kv and echo, whose results have the reasons, and for unknown workloads.
    """
    told = get(results, "workload", "why") is not None
    if name not in WORKLOADS or name in ("lin-kv", "echo") or told:
        return None
    if results and get(results, "workload", "valid?") is True:
        return None
    try:
        found = judge(name, events, given)
    except HistoryError as error:
        return _verdict(get(results, "valid?")), [str(error)]
    if not results:
        return found.valid, [*found.why, ALONE]
    rest = {part: value for part, value in results.items() if part != Keyword("workload")}
    return _verdict(get(results, "valid?")), found.why + reasons(rest)


def _judged(
    events: list[Op], results: dict[Any, Any]
) -> tuple[bool | None, list[str], dict[str, bool | None]]:
    """Returns the verdict, its reasons if it is not valid, and the verdict on each key.

    They come from results.edn. The checker supplies a verdict or reasons that are missing there.
    """
    whys: list[str] = []
    told = False  # the results name a reason for a key
    verdicts: dict[str, bool | None] = {}
    keys = get(results, "workload", "results")
    for key, found in keys.items() if isinstance(keys, dict) else ():
        verdicts[edn.dumps(key)] = _verdict(get(found, "valid?"))
        why = get(found, "linearizable", "why")
        told = told or (verdicts[edn.dumps(key)] is not True and isinstance(why, str))
    verdict = _verdict(get(results, "valid?"))
    if not results or (not told and verdict is not True and get(results, "workload", "results")):
        try:
            analyses = check_history(events)
        except HistoryError as error:
            return verdict, [str(error)], verdicts
        judged = {edn.dumps(key): found.valid for key, found in analyses.items()}
        whys = [found.why for found in analyses.values() if found.valid is not True]
        if not results:
            verdicts = judged
            verdict = min(judged.values(), key=_interest, default=None)
            whys.append(ALONE)
    if whys:  # the checker's, in place of those of the workload
        results = {name: part for name, part in results.items() if name != Keyword("workload")}
    return verdict, whys + reasons(results), verdicts


def _keys(events: list[Op]) -> tuple[list[str], dict[int, int]]:
    """Returns the names of the keys, and maps each invocation's index to its key's place."""
    try:
        by_key = history.by_key(events)
    except HistoryError:
        return [], {}
    key_of = {
        op.index: place
        for place, ops in enumerate(by_key.values())
        for op in ops
        if op.type == "invoke"
    }
    return [edn.dumps(key) for key in by_key], key_of


def _ends(events: list[Op]) -> Iterator[tuple[int, int]]:
    """Yields each completed operation's index and the time of its completion."""
    under_way: dict[int | str, int] = {}
    for op in clients(events):
        if op.type == "invoke":
            under_way[op.process] = op.index
        elif op.process in under_way:
            yield under_way.pop(op.process), op.time
