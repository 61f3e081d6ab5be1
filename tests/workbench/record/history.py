"""Histories: what the clients did and saw, in the forms in which Jepsen writes them.

An event (`Op`) is an invocation or a completion, as a line of `history.edn` or `history.txt`. An
`Operation` is an invocation with its completion. In lin-kv a value is `[key, v]`: Jepsen's
independent tuple.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from . import edn
from .edn import Keyword

TYPES = ("invoke", "ok", "fail", "info")
OUTCOMES = {"ok": "ok", "fail": "failed", "info": "unknown"}  # of an operation, in words


class HistoryError(ValueError):
    """Something that is no history; the text says where, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Op:
    """An event. `process` is "nemesis" for faults; `time` is in ns since the start of the run,
    and 0 where a history has no times."""

    process: int | str
    type: str
    f: str
    value: Any
    time: int
    index: int
    error: Any = None


@dataclass(frozen=True, slots=True)
class Operation:
    """An invocation with its completion; `value` is what an ok read read, else the argument.

    `type` is "ok", "fail" or "info"; an `info` operation has no end: it may still happen.
    """

    process: int | str
    f: str
    value: Any
    type: str
    start: int
    end: int | None
    start_index: int
    end_index: int | None
    error: Any = None

    def __str__(self) -> str:
        """For people: `cas 2 to 3`; with a key, as the history has it: `cas [0 [2 3]]`."""
        if self.f == "cas" and not isinstance(self.value[1], list):
            old, new = self.value
            return f"cas {edn.dumps(old)} to {edn.dumps(new)}"
        return f"{self.f} {edn.dumps(self.value)}"


def shorten(text: str, length: int) -> str:
    """Leaves out the middle of a long text: a sentence's end often says more than its middle."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 3
    return f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"


def operations(ops: Iterable[Op]) -> list[Operation]:
    """Joins invocations and completions, in the order of invocation.

    A process does one thing at a time: one that invokes again, or never completes, leaves an
    `info` operation behind. HistoryError for a completion of what was never invoked.
    """
    found: list[Operation] = []
    under_way: dict[int | str, int] = {}
    for op in ops:
        if op.type == "invoke":
            under_way[op.process] = len(found)
            if op.f == "cas" and not (isinstance(op.value, list) and len(op.value) == 2):
                raise HistoryError(
                    f"a cas (index {op.index}) needs [from to], not {edn.dumps(op.value)[:200]}"
                )
            found.append(
                Operation(op.process, op.f, op.value, "info", op.time, None, op.index, None)
            )
            continue
        if op.process not in under_way or found[under_way[op.process]].f != op.f:
            raise HistoryError(
                f"process {op.process} completes a {op.f} (index {op.index}) that it did not invoke"
            )
        position = under_way.pop(op.process)
        known = op.type != "info"
        # What was asked for is known from the invocation, what was seen from the completion.
        saw = op.type == "ok" and op.f not in ("write", "cas")
        begun = found[position]
        found[position] = Operation(  # replace() takes twice the time
            op.process,
            op.f,
            value=op.value if saw else begun.value,
            type=op.type,
            start=begun.start,
            end=op.time if known else None,
            start_index=begun.start_index,
            end_index=op.index if known else None,
            # A log may have the error in the value's place: `:fail :cas :timed-out`.
            error=op.value if op.error is None and isinstance(op.value, Keyword) else op.error,
        )
    return found


def completions(
    ops: Iterable[Op], begun: dict[int | str, int] | None = None
) -> Iterator[tuple[Op, int]]:
    """Each completion of a client's, and how long it took, in ns.

    `begun` is when a process began what is under way: the same one goes on with later events.
    """
    begun = {} if begun is None else begun
    for op in ops:
        if op.type == "invoke":
            begun[op.process] = op.time
        elif op.process in begun:  # a fault was never invoked
            yield op, op.time - begun.pop(op.process)


def clients(ops: Iterable[Op]) -> list[Op]:
    """The events without those of the nemesis."""
    return [op for op in ops if isinstance(op.process, int)]


def by_key(ops: Iterable[Op]) -> dict[Any, list[Op]]:
    """The history of each key; values are then without the key.

    A history is one of a single register (its key is None here) if one of its invocations is
    of a form that has no place for a key: a read of nil, a write of something that is no pair,
    a cas of two values whose second is no pair. But where a read is of `[key nil]` there are
    keys, and HistoryError says which invocation lacks one.
    """
    events = clients(ops)
    keyless = next((op for op in events if op.type == "invoke" and not _has_key(op)), None)
    if keyless:
        if not any((op.type, op.f) == ("invoke", "read") and _has_key(op) for op in events):
            return {None: events}
        form = "[key [from to]]" if keyless.f == "cas" else "[key value]"
        raise HistoryError(
            f"other operations have a key, but the {keyless.f} at index {keyless.index} has "
            f"{edn.dumps(keyless.value)[:200]}, not {form}"
        )
    keys: dict[str, list[Op]] = {}  # by the key's text: 1, "1" and true are three
    names: dict[str, Any] = {}
    key_of: dict[int | str, str] = {}  # a completion may have lost its key
    for op in events:
        value = op.value
        if op.type == "invoke" or _has_key(op):
            key, value = op.value
            text = key_of[op.process] = edn.dumps(key, sort_keys=True)
            names[text] = key if type(key) in (int, str) else edn.Symbol(text)
        keyed = Op(op.process, op.type, op.f, value, op.time, op.index, op.error)
        keys.setdefault(key_of.get(op.process, "nil"), []).append(keyed)
    return {names.get(text): events for text, events in keys.items()}


def _has_key(op: Op) -> bool:
    pair = isinstance(op.value, list) and len(op.value) == 2
    return pair and (op.f != "cas" or (isinstance(op.value[1], list) and len(op.value[1]) == 2))


# Writing


def to_edn(op: Op) -> str:
    """A line of history.edn."""
    # As a map that dumps() writes it would take five times as long, 3 % of a simulation.
    process = f":{op.process}" if isinstance(op.process, str) else op.process
    error = "" if op.error is None else f", :error {edn.dumps(op.error)}"
    return (
        f"{{:type :{op.type}, :f :{op.f}, :value {edn.dumps(op.value)}, "
        f":time {op.time}, :process {process}, :index {op.index}{error}}}"
    )


def to_txt(op: Op) -> str:
    """A line of history.txt, and the end of a line on Jepsen's console."""
    process = f":{op.process}" if isinstance(op.process, str) else str(op.process)
    columns = [process, f":{op.type}", f":{op.f}", edn.dumps(op.value)]
    if op.error is not None:
        columns.append(edn.dumps(op.error))
    return "\t".join(columns)


# Reading


def read(path: Path) -> list[Op]:
    """Reads a store folder, a history.edn, a history.txt or a log of Jepsen's.

    HistoryError for what is none of them, or holds no operation.
    """
    if path.is_dir():
        for name in ("history.edn", "history.txt", "jepsen.log"):
            if (path / name).is_file():
                return read(path / name)
        raise HistoryError(f"{path} holds no history.edn: is it the folder of a run, in store/?")
    try:
        # Not final: a killed run may have cut off its last character, too.
        text = codecs.utf_8_decode(path.read_bytes(), "strict", False)[0].removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise HistoryError(f"{path} is no text, so no history of Jepsen's") from error
    except OSError as error:
        raise HistoryError(f"{path} cannot be read: {error.strerror}") from error
    try:
        ops = list(_from_edn(text) if EDN.match(text) else _from_log(text))
    except (edn.EDNError, HistoryError) as error:
        raise HistoryError(f"{path}: {error}") from error
    if any(later.index <= earlier.index for earlier, later in pairwise(ops)):
        raise HistoryError(f"{path}: each :index must be greater than the one before it")
    if not any(isinstance(op.process, int) for op in ops):
        raise HistoryError(
            f"{path} holds no operation; wanted is a history.edn, or lines like "
            "`0  :invoke  :read  nil`"
        )
    return ops


def _from_edn(text: str) -> Iterator[Op]:
    for index, form in enumerate(_forms(text)):
        try:
            yield _event(form, index)
        except ValueError as error:
            raise HistoryError(
                f"entry {index + 1} is no operation: {error}: {edn.dumps(form)[:200]}"
            ) from error


def _event(form: Any, index: int) -> Op:
    """The event of a map; ValueError says what the map lacks."""
    if not isinstance(form, dict):
        raise ValueError("it is no map")

    def get(name: str, kind: type, default: Any = None) -> Any:
        found = form.get(Keyword(name), default)
        if not isinstance(found, kind) or isinstance(found, bool):
            what = "an integer" if kind is int else "a keyword"
            raise ValueError(f":{name} must be {what}, not {edn.dumps(found)[:40]}")
        return found

    process = form.get(Keyword("process"))
    type_ = get("type", Keyword).name
    if type_ not in TYPES:
        raise ValueError(f":type is :{type_[:40]}")
    return Op(
        process=process.name if isinstance(process, Keyword) else get("process", int),
        type=type_,
        f=get("f", Keyword).name,
        value=form.get(Keyword("value")),
        time=get("time", int, 0),
        index=get("index", int, index),
        error=form.get(Keyword("error")),
    )


def _forms(text: str) -> Iterator[Any]:
    """The maps of a history; a last one that a killed run has cut off is left out."""
    whole = 0
    try:
        for form in edn.load_all(text):
            yield from form if isinstance(form, list) else [form]
            whole += 1
    except edn.EDNError as error:
        if not error.cut_off:
            raise
        start = EDN.match(text)
        if not whole and start and start[0][-1] in "[(":  # what was cut off is one sequence of all
            yield from _forms(text[start.end() :])


# It begins with a map, a sequence of maps or a tagged one, maybe after comments; a log with words.
EDN = re.compile(r"(?:[\s,]|;[^\n]*\n)*[{\[(#]")
LOG_LINE = re.compile(
    r"""(?:^|.*jepsen\.util\s*[-:]\s*)      # what a console or a log has in front
        (?P<process>\d+|:nemesis)\s+
        :(?P<type>invoke|ok|fail|info)\s+
        :(?P<f>[\w-]+)\s+
        (?P<rest>\S.*)""",
    re.VERBOSE,
)


def _from_log(text: str) -> Iterator[Op]:
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        match = LOG_LINE.match(line)
        if not match:
            continue
        process = match["process"]
        try:
            value, *error = edn.load_all(match["rest"])
        except (edn.EDNError, ValueError) as problem:
            if process == ":nemesis" or number == len(lines):
                continue  # a nemesis may say anything; a killed run cuts off its last line
            raise HistoryError(f"line {number}: {problem}: {line[:200]}") from problem
        whole = match["rest"].rstrip().endswith("]") and (error or match["type"] != "fail")
        if number == len(lines) and not whole:
            continue  # cut off, maybe: of a value, or the error that says why it failed
        yield Op(
            process=int(process) if process.isdigit() else process[1:],
            type=match["type"],
            f=match["f"],
            value=value,
            time=0,
            index=number,
            error=error[0] if error else None,
        )
