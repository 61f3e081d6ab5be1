"""Why a run is not valid, in words: the same on the terminal, in the pages, and in `check`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .record import edn
from .record.edn import Keyword
from .verdicts import Results, get

MALFORMED = Keyword("malformed-rpc-response")
ABORTED = "The test was aborted: "
MOST = 10  # reasons of one kind
NEED_NOT_BE_OK = ("crash", "debug-topic-partitions")  # operations of kafka
FIRST = ("workload", "exceptions")  # parts whose reasons come before those of other parts


def reasons(results: Results) -> list[str]:
    """Returns the reasons of all parts that are not valid. A reason may have several lines.

    Reasons for an invalid part come before those for an unknown one.
    """
    parts = [(name, part) for name, part in results.items() if isinstance(part, dict)]
    found = []
    for invalid in (True, False):
        wanted = [
            (name, part)
            for name, part in parts
            if get(part, "valid?") not in (None, True) and (get(part, "valid?") is False) is invalid
        ]
        wanted.sort(key=lambda item: _rank(_name(item[0])))
        for name, part in wanted:
            if _name(name) != "workload" or not _is_explained(part, results):
                found += of_part(_name(name), part)
    return found


def _is_explained(workload: Results, results: Results) -> bool:
    """Tells whether a broken rule already explains all errors of an echo workload."""
    errors, broken = get(workload, "errors"), get(results, "exceptions", "exceptions")
    if not (isinstance(errors, list) and errors and isinstance(broken, list) and broken):
        return False
    return all(
        isinstance(error, list) and len(error) == 4 and error[3] == MALFORMED for error in errors
    )


def _name(name: Any) -> str:
    return name.name if isinstance(name, Keyword) else str(name)


def _rank(name: str) -> int:
    return FIRST.index(name) if name in FIRST else len(FIRST)


def of_part(name: str, part: Results) -> list[str]:
    """Returns the reasons of a part that is not valid, as its EDN if there are no words for it."""
    found = [*(_WORDS[name](part) if name in _WORDS else ())]
    if len(found) > MOST:
        found = [*found[:MOST], f"And {len(found) - MOST:,} more of this kind."]
    return found or [f"{name}: {edn.pretty(part)}"]


def _of_workload(part: Results) -> Iterator[str]:
    keys = get(part, "results")
    for found in sorted(keys.values(), key=_not_invalid) if isinstance(keys, dict) else ():
        why = get(found, "linearizable", "why")
        if get(found, "valid?") is not True and isinstance(why, str):
            yield why
    yield from _texts(get(part, "why"))
    errors = get(part, "errors")
    for error in errors if isinstance(errors, list) else ():
        if isinstance(error, list) and len(error) == 4:
            yield _of_echo(edn.dumps(error[1]), error[3])


def _not_invalid(found: Any) -> bool:
    """Returns a sort key that puts invalid results first."""
    return get(found, "valid?") is not False


def warnings(results: Results) -> list[str]:
    """Returns the sentences of a workload's checker on faults that do not change the verdict."""
    return [*_texts(get(results, "workload", "warnings"))]


def _texts(found: Any) -> Iterator[str]:
    yield from filter(lambda item: isinstance(item, str), found if isinstance(found, list) else ())


def _of_echo(sent: str, received: Any) -> str:
    if received in (Keyword("net-timeout"), None):
        return f"The request to echo {sent} got no matching reply in time"
    if received == MALFORMED:
        return f"The request to echo {sent} got a malformed reply"
    if isinstance(received, list) and received and isinstance(received[0], Keyword):
        name, *text = received
        words = "".join(f": {item}" for item in text if item is not None)
        return f"The request to echo {sent} got the error {name.name}{words}"
    return f"An echo of {sent} was expected, but {edn.dumps(received)} was received"


def _of_exceptions(part: Results) -> Iterator[str]:
    listed = get(part, "exceptions")
    for found in listed if isinstance(listed, list) else ():
        if not isinstance(found, str):
            yield f"An exception: {edn.pretty(found)}"
        else:
            yield found if found.startswith(ABORTED) else f"Broken rule: {found}"


def _of_stats(part: Results) -> Iterator[str]:
    for f in never_ok(part):
        yield f"No {f} operation was ok, so the test cannot be valid."


def never_ok(stats: Results) -> list[str]:
    """Returns the kinds of operations that make a run invalid: none of theirs was ok.

    As in jepsen.tests.kafka (stats-checker), some kinds do not matter.
    """
    kinds = get(stats, "by-f")
    found = kinds.items() if isinstance(kinds, dict) else ()
    without = [_name(kind) for kind, counts in found if get(counts, "valid?") not in (None, True)]
    return [f for f in without if f not in NEED_NOT_BE_OK]


def _of_availability(part: Results) -> Iterator[str]:
    share = get(part, "ok-fraction")
    if isinstance(share, float):
        yield f"Only {share:.1%} of the operations were ok, too few for --availability."


def _of_cut_short(part: Results) -> Iterator[str]:
    why = get(part, "why")
    if isinstance(why, str):
        yield f"The run was {why}."


_WORDS = {
    "workload": _of_workload,
    "exceptions": _of_exceptions,
    "stats": _of_stats,
    "availability": _of_availability,
    "cut-short": _of_cut_short,
}


def indented(reason: str) -> str:
    """Indents all lines of a reason but the first, to print it in a list."""
    return "\n    ".join(line.strip() for line in reason.splitlines())


def sentence(reason: str) -> str:
    """Ends a reason with a period."""
    return reason if reason.endswith(".") else f"{reason}."
