"""Histories of the clients' operations, in Jepsen's formats.

An `Op` is an event: an invocation or a completion, one line of `history.edn` or `history.txt`. An
`Operation` is an invocation with its completion. In lin-kv a value is `[key, v]`, an independent
tuple of Jepsen's.
"""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from . import edn
from .edn import Keyword

TYPES = ("invoke", "ok", "fail", "info")
OUTCOMES = {"ok": "ok", "fail": "failed", "info": "unknown"}  # words for each completion type


FIELDS = frozenset(
    Keyword(name) for name in ("process", "type", "f", "value", "time", "index", "error")
)  # entries of an event's map that have a field of their own


class HistoryError(ValueError):
    """A file or a list of events is not a history. The text says where, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Op:
    """An event of a history."""

    process: int | str  # "nemesis" for faults
    type: str  # one of TYPES
    f: str
    value: Any
    time: int  # ns since the start of the run; 0 if the history has no times
    index: int
    error: Any = None
    extras: dict[Keyword, Any] | None = None  # other entries, such as `:final? true`; None if none

    def extra(self, name: str) -> Any:
        """Returns another entry of the event's map, such as `final?`; None if it is missing."""
        return self.extras.get(Keyword(name)) if self.extras else None


@dataclass(frozen=True, slots=True)
class Operation:
    """An invocation with its completion."""

    process: int | str
    f: str
    value: Any  # the result of an ok read, otherwise the argument
    type: str  # "ok", "fail" or "info"
    start: int
    end: int | None  # None for "info": it may still take effect
    start_index: int
    end_index: int | None
    error: Any = None

    def __str__(self) -> str:
        """Returns `cas 2 to 3`; for a value with a key, `cas [0 [2 3]]` as in the history."""
        if self.f == "cas" and not isinstance(self.value[1], list):
            old, new = self.value
            return f"cas {edn.dumps(old)} to {edn.dumps(new)}"
        return f"{self.f} {edn.dumps(self.value)}"


def shorten(text: str, length: int) -> str:
    """Cuts the middle out of a long text: the end often says more than the middle."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 3
    return f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"


def operations(ops: Iterable[Op]) -> list[Operation]:
    """Joins invocations and completions, in the order of invocation.

    A process runs one operation at a time. An operation without a completion, or followed by
    another invocation of its process, is an `info` operation. Raises HistoryError for a completion
    without an invocation.
    """
    found: list[Operation] = []
    under_way: dict[int | str, int] = {}
    for op in ops:
        if op.type == "invoke":
            under_way[op.process] = len(found)
            if op.f == "cas" and not (isinstance(op.value, list) and len(op.value) == 2):
                raise HistoryError(
                    f"the value of the cas at index {op.index} must be [from to], "
                    f"not {edn.dumps(op.value)[:200]}"
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
        # The invocation has the argument, the completion has the result.
        saw = op.type == "ok" and op.f not in ("write", "cas")
        begun = found[position]
        found[position] = Operation(  # dataclasses.replace() takes twice the time
            op.process,
            op.f,
            value=op.value if saw else begun.value,
            type=op.type,
            start=begun.start,
            end=op.time if known else None,
            start_index=begun.start_index,
            end_index=op.index if known else None,
            # In a log the error may stand in place of the value: `:fail :cas :timed-out`.
            error=op.value if op.error is None and isinstance(op.value, Keyword) else op.error,
        )
    return found


def completions(
    ops: Iterable[Op], begun: dict[int | str, int] | None = None
) -> Iterator[tuple[Op, int]]:
    """Yields each completion of a client with its latency in ns.

    `begun` maps each process to the time of its pending invocation. Pass the same dict again to
    continue with later events.
    """
    begun = {} if begun is None else begun
    for op in ops:
        if op.type == "invoke":
            begun[op.process] = op.time
        elif op.process in begun:  # events of the nemesis have no invocation
            yield op, op.time - begun.pop(op.process)


def clients(ops: Iterable[Op]) -> list[Op]:
    """Returns the clients' events, without those of the nemesis."""
    return [op for op in ops if isinstance(op.process, int)]


def by_key(ops: Iterable[Op]) -> dict[Any, list[Op]]:
    """Splits a history by key, and removes the key from the values.

    A history without keys is one of a single register, returned under the key None. An invocation
    has no key if it is a transaction, a read of nil, a write of a value other than a pair, or a cas
    whose second value is not a pair. If other reads have a key (`[key nil]`), HistoryError names
    the invocation that lacks one.
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
    keys: dict[str, list[Op]] = {}  # by the key's text, since in Python 1 == True
    names: dict[str, Any] = {}
    key_of: dict[int | str, str] = {}  # by process, for completions that lack the key
    for op in events:
        value = op.value
        if op.type == "invoke" or _has_key(op):
            key, value = op.value
            text = key_of[op.process] = edn.dumps(key, sort_keys=True)
            names[text] = key if type(key) in (int, str) else edn.Symbol(text)
        keyed = Op(op.process, op.type, op.f, value, op.time, op.index, op.error, op.extras)
        keys.setdefault(key_of.get(op.process, "nil"), []).append(keyed)
    return {names.get(text): events for text, events in keys.items()}


def _has_key(op: Op) -> bool:
    if op.f == "txn":  # two micro-operations are no key and value
        return False
    pair = isinstance(op.value, list) and len(op.value) == 2
    return pair and (op.f != "cas" or (isinstance(op.value[1], list) and len(op.value[1]) == 2))


# Writing


def to_edn(op: Op) -> str:
    """Writes an event as a line of history.edn."""
    # Faster than edn.dumps() of a map, which takes five times as long (3 % of a simulation).
    process = f":{op.process}" if isinstance(op.process, str) else op.process
    error = "" if op.error is None else f", :error {edn.dumps(op.error)}"
    extras = f", {edn.dumps(op.extras)[1:-1]}" if op.extras else ""
    return (
        f"{{:type :{op.type}, :f :{op.f}, :value {edn.dumps(op.value)}, "
        f":time {op.time}, :process {process}, :index {op.index}{extras}{error}}}"
    )


def to_map(op: Op) -> dict[Keyword, Any]:
    """Returns an event as the map that results hold, with its entries in Jepsen's order."""
    process = Keyword(op.process) if isinstance(op.process, str) else op.process
    entries = {
        Keyword("index"): op.index,
        Keyword("time"): op.time,
        Keyword("type"): Keyword(op.type),
        Keyword("process"): process,
        Keyword("f"): Keyword(op.f),
        Keyword("value"): op.value,
        **(op.extras or {}),
    }
    return entries if op.error is None else {**entries, Keyword("error"): op.error}


def to_txt(op: Op) -> str:
    """Writes an event as a line of history.txt, which also ends a line on Jepsen's console."""
    process = f":{op.process}" if isinstance(op.process, str) else str(op.process)
    columns = [process, f":{op.type}", f":{op.f}", edn.dumps(op.value)]
    if op.error is not None:
        columns.append(edn.dumps(op.error))
    return "\t".join(columns)


# Reading

READABLE = """\
It reads EDN (one `{:process 0, :type :invoke, :f :read, :value nil}` a line, one vector of such \
maps, or one vector a line), columns (`0  :invoke  :read  nil`), and logs with such columns after \
`jepsen.util`"""
GZIP = b"\x1f\x8b"  # the first bytes of a gzipped file


@dataclass(frozen=True, slots=True)
class Recorded:
    """The text of a history."""

    path: Path  # its file
    text: str
    line: int | None = None  # its line in a file of several histories, from 1; None if alone

    @property
    def is_undated_log(self) -> bool:
        """Tells whether a logger wrote it without times: `INFO  jepsen.util - 0 :invoke ...`.

        Jepsen's console looked like this from 2014 to 2016.
        """
        return not EDN.match(self.text) and UNDATED.search(self.text) is not None

    def ops(self) -> list[Op]:
        """Returns the events. Raises HistoryError if the text is not a history."""
        line = f"line {self.line}: " if self.line else ""
        try:
            # A killed run may cut off the last event of its history, but not one of many lines.
            if EDN.match(self.text):
                ops = list(_from_edn(self.text, self.line or 1, cut_off=self.line is None))
            elif not (ops := list(_from_log(self.text))):
                raise HistoryError(
                    f"{line}it holds no operation that `maelstrom check` can read. {READABLE}"
                )
            for earlier, later in pairwise(ops):
                if later.index <= earlier.index:
                    raise HistoryError(
                        f"{line}each :index must be greater than the one before it, but "
                        f"{later.index} follows {earlier.index}"
                    )
        except (edn.EDNError, HistoryError) as error:
            raise HistoryError(f"{self.path}: {error}") from error
        return ops


def histories(path: Path) -> list[Recorded]:
    """Reads the texts of all histories in a file or in the folder of a run.

    A file has several histories if each of its lines is a vector. The content tells the form. A
    gzipped file is unpacked. Raises HistoryError if the file is not text or cannot be read.
    """
    if path.is_dir():
        for name in ("history.edn", "history.txt", "jepsen.log"):
            if (path / name).is_file():
                return histories(path / name)
        raise HistoryError(f"{path} holds no history.edn: is it the folder of a run, in store/?")
    try:
        content = path.read_bytes()
        if content.startswith(GZIP):
            content = gzip.decompress(content)
        # Not final: in a killed run the last character may be cut off.
        text = codecs.utf_8_decode(content, "strict", False)[0].removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise HistoryError(f"{path} is not UTF-8 text, so it is no history of Jepsen's") from error
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise HistoryError(f"{path} cannot be unpacked with gzip: {error}") from error
    except OSError as error:
        raise HistoryError(f"{path} cannot be read: {error.strerror}") from error
    lines = [
        (number, line)
        for number, line in enumerate(text.split("\n"), 1)
        if (bare := line.strip()) and not bare.startswith(";")
    ]
    if len(lines) > 1 and VECTOR.fullmatch(lines[0][1]):
        return [Recorded(path, line, number) for number, line in lines]
    return [Recorded(path, text)]


def read(path: Path) -> list[Op]:
    """Reads the one history in a file or in the folder of a run.

    Raises HistoryError if there is none, or more than one.
    """
    found = histories(path)
    if len(found) > 1:
        raise HistoryError(
            f"{path} holds {len(found):,} histories, a line each, where one is wanted; "
            "`maelstrom check` judges them all"
        )
    return found[0].ops()


def from_edn(text: str) -> Iterator[Op]:
    """Yields the events in a text: maps, or sequences of maps. Raises HistoryError or EDNError."""
    return _from_edn(text, 1, cut_off=True)


def _from_edn(text: str, first: int, cut_off: bool) -> Iterator[Op]:
    """Does the work of `from_edn` for a text that begins on the line `first` of its file.

    `cut_off`: the text may end inside an event, which is then skipped.
    """
    try:
        for index, (line, form) in enumerate(_forms(text, cut_off)):
            try:
                yield _event(form, index)
            except ValueError as error:
                raise HistoryError(
                    f"line {line + first - 1}: entry {index + 1} is not an event: {error}: "
                    f"{edn.dumps(form)[:200]}"
                ) from error
    except edn.EDNError as error:
        raise edn.EDNError(error.line + first - 1, error.problem, error.cut_off) from None


def _event(form: Any, index: int) -> Op:
    """Makes an event of a map. Raises ValueError for a missing or wrong entry."""
    if not isinstance(form, dict):
        raise ValueError("it must be a map")

    def get(name: str, kind: type, default: Any = None) -> Any:
        found = form.get(Keyword(name), default)
        if not isinstance(found, kind) or isinstance(found, bool):
            what = "an integer" if kind is int else "a keyword"
            raise ValueError(f":{name} must be {what}, not {edn.dumps(found)[:40]}")
        return found

    process = form.get(Keyword("process"))
    type_ = get("type", Keyword).name
    if type_ not in TYPES:
        raise ValueError(f":type must be :invoke, :ok, :fail or :info, not :{type_[:40]}")
    return Op(
        process=process.name if isinstance(process, Keyword) else get("process", int),
        type=type_,
        f=get("f", Keyword).name,
        value=form.get(Keyword("value")),
        time=get("time", int, 0),
        index=get("index", int, index),
        error=form.get(Keyword("error")),
        extras={key: item for key, item in form.items() if key not in FIELDS} or None,
    )


def _forms(text: str, cut_off: bool) -> Iterator[tuple[int, Any]]:
    """Yields the maps of a history, each with the line on which it or its sequence begins.

    Skips a last map that is cut off if `cut_off` allows it.
    """
    whole = 0
    try:
        for line, form in edn.numbered(text):
            yield from ((line, one) for one in (form if isinstance(form, list) else [form]))
            whole += 1
    except edn.EDNError as error:
        if not (error.cut_off and cut_off):
            raise
        start = EDN.match(text)
        if not whole and start and start[0][-1] in "[(":  # one sequence of all events was cut off
            yield from _forms(text[start.end() :], cut_off)


# EDN begins with a map, a sequence or a tag, possibly after comments. A log begins with words, or
# with words in brackets: `[jepsen worker 1]`.
EDN = re.compile(r"(?:[\s,]|;[^\n]*\n)*(?:[{(]|\[(?![a-z]+ )|#(?=[^\s#]))")
VECTOR = re.compile(r"\s*(?:\[.*\]|\(.*\))\s*")
LOG_LINE = re.compile(
    r"""(?:\s*|.*\bjepsen\.[\w.$-]+\s*[-:]?\s+)   # the prefix in a console or a log
        (?P<process>\d+|:nemesis)\s+
        :(?P<type>invoke|ok|fail|info)\s+
        :(?P<f>\S+)\s+
        (?P<rest>\S.*)""",
    re.VERBOSE,
)
UNDATED = re.compile(r"^\s*[A-Z]+\s+jepsen\.util\s+-\s+\d+\s+:", re.MULTILINE)


def _from_log(text: str) -> Iterator[Op]:
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        match = LOG_LINE.match(line)
        if not match:
            continue
        process = match["process"]
        forms = edn.load_all(match["rest"])
        try:
            value = next(forms, None)
        except (edn.EDNError, ValueError) as problem:
            if process == ":nemesis" or number == len(lines):
                continue  # a nemesis logs any text; a killed run may cut off the last line
            raise HistoryError(f"line {number}: {problem}: {line[:200]}") from problem
        try:
            error = next(forms, None)
        except (edn.EDNError, ValueError):
            error = match["rest"]  # the further column is any text
        whole = match["rest"].rstrip().endswith("]") and (error or match["type"] != "fail")
        if number == len(lines) and not whole:
            continue  # the value or the error may be cut off
        yield Op(
            process=int(process) if process.isdigit() else process[1:],
            type=match["type"],
            f=match["f"],
            value=value,
            time=0,
            index=number,
            error=error,
        )
