"""What the folder of a run tells, ours or the real Maelstrom's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from ..checkers.linearizable import check_history
from ..record import edn, history, journal, life
from ..record.edn import Keyword
from ..record.history import HistoryError, Op, Operation, clients
from ..record.store import command
from ..verdicts import get

NO_LIFE = (
    "There is no life.edn, in which the bench keeps the lines that say when a node became leader, "
    "follower or candidate; so the cluster's life is not drawn. The real Maelstrom keeps none."
)
NO_JOURNAL = (
    "There is no messages.jsonl, the bench's journal of who sent what to whom when; so the "
    "messages are not drawn. The real Maelstrom keeps its own in another form."
)
Part = TypeVar("Part")


@dataclass
class Run:
    """What is known of a run. `whys` are sentences, `keys` has each key's verdict and name."""

    folder: Path
    title: str
    verdict: bool | None
    whys: list[str]
    command: str
    nodes: list[str]
    events: list[Op]
    operations: list[Operation]
    ends: dict[int, int]  # when the operation with this index completed, known or not
    keys: list[tuple[str, bool | None]]
    key_of: dict[int, int]  # the place in `keys` of the operation with this index
    results: dict[Any, Any] = field(default_factory=dict)
    life: list[life.Line] = field(default_factory=list)
    no_life: str = ""  # why there are no such lines
    messages: list[journal.Sent] = field(default_factory=list)
    no_messages: str = ""  # why there are none

    @cached_property
    def until(self) -> int:
        """The end of the run, in ns."""
        return max((op.time for op in self.events), default=0)

    def asked(self, process: int | str) -> str:
        """The node that a process sends its operations to, as Jepsen shares them out."""
        if not isinstance(process, int) or len(self.nodes) < 2:
            return ""
        return self.nodes[process % len(self.nodes)]

    def end(self, op: Operation) -> int:
        """When its client had an answer, or gave up; else the end of the run."""
        end = self.ends.get(op.start_index)
        return self.until if end is None else end


def read(folder: Path) -> Run:
    """What the folder of a run tells, ours or the real Maelstrom's. HistoryError if it is none."""
    if not folder.is_dir():
        raise HistoryError(f"{folder} is no folder of a run, in store/")
    events = history.read(folder)
    folder = folder.resolve()  # latest is a link
    operations = history.operations(clients(events))
    results = _results(folder)
    verdict, whys, verdicts = _judged(events, results)
    names, key_of = _keys(events)
    keys = [(name, verdicts.get(name, verdict if not verdicts else True)) for name in names]
    order = sorted(range(len(keys)), key=lambda place: _interest(keys[place][1]))
    places = {place: rank for rank, place in enumerate(order)}
    logs = folder / "node-logs"
    lines, no_life = _part(
        life.read, folder, NO_LIFE, f"The cluster's life is not drawn, for {life.NAME}"
    )
    messages, no_messages = _part(
        journal.read, folder, NO_JOURNAL, f"The messages are not drawn, for {journal.NAME}"
    )
    return Run(
        folder=folder,
        title=f"{folder.parent.name} {folder.name}",
        verdict=verdict,
        whys=whys,
        command=command(folder),
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
    """To sort names by: n2 before n10."""
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
    """What a reader finds in a file of the folder; else why that is not drawn."""
    try:
        return read(folder), ""
    except FileNotFoundError:
        return [], none
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        return [], f"{what} cannot be read: {why}."


def _verdict(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _judged(
    events: list[Op], results: dict[Any, Any]
) -> tuple[bool | None, list[str], dict[str, bool | None]]:
    """The verdict, why it is not a good one, and the verdict on each key that has one.

    It is that of results.edn; where there is none, or it has no words, that of the checker.
    """
    whys: list[str] = []
    verdicts: dict[str, bool | None] = {}
    keys = get(results, "workload", "results")
    for key, found in keys.items() if isinstance(keys, dict) else ():
        verdicts[edn.dumps(key)] = verdict = _verdict(get(found, "valid?"))
        why = get(found, "linearizable", "why")
        if verdict is not True and isinstance(why, str):
            whys.append(why)
    verdict = _verdict(get(results, "valid?"))
    if not results or (not whys and verdict is not True and get(results, "workload", "results")):
        try:
            analyses = check_history(events)
        except HistoryError as error:
            return verdict, [str(error)], verdicts
        judged = {edn.dumps(key): found.valid for key, found in analyses.items()}
        whys = [found.why for found in analyses.values() if found.valid is not True]
        if not results:
            verdicts = judged
            verdict = min(judged.values(), key=_interest, default=None)
            whys.append("There is no results.edn to read; this is the checker's verdict alone")
    for name, part in results.items():
        told = name == Keyword("workload") and whys
        if isinstance(part, dict) and get(part, "valid?") not in (None, True) and not told:
            whys.append(f"{edn.dumps(name)} {edn.dumps(part)}")
    return verdict, whys, verdicts


def _keys(events: list[Op]) -> tuple[list[str], dict[int, int]]:
    """The names of the keys, and which of them each invocation is of."""
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
    """Of each operation that completed: the index of its invocation, and when."""
    under_way: dict[int | str, int] = {}
    for op in clients(events):
        if op.type == "invoke":
            under_way[op.process] = op.index
        elif op.process in under_way:
            yield under_way.pop(op.process), op.time
