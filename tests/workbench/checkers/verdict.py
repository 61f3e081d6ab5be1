"""The verdict of a checker, and helpers to word it."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..record import edn
from ..record.edn import Keyword
from ..record.history import Op, shorten
from ..units import SECOND
from ..verdicts import UNKNOWN, VALID, Results, get

REASONS_KEPT = 8
SHOWN = 60  # characters shown of a value
# Lists of faults in the results of a checker, and the names of these faults.
ANOMALIES = {
    "duplicated": "duplicated",  # unique-ids
    "errors": "errors",  # echo and the counters
    "failures": "nonlinearizable",  # lin-kv
    "lost": "lost",  # broadcast and g-set
}


@dataclass(frozen=True)
class Verdict:
    """The judgement of a checker on a history."""

    valid: bool | None  # None if unknown
    results: Results  # the map that Maelstrom prints under :workload
    # Sentences for people: why the history is invalid or unknown. Empty if it is valid.
    why: list[str] = field(default_factory=list)
    # Sentences on faults that Jepsen's checker overlooks. They do not change `valid`.
    warnings: list[str] = field(default_factory=list)

    @property
    def anomalies(self) -> list[str]:
        """Returns the sorted names of the faults that the results list.

        Elle and the checker of kafka name them. For other checkers they are the names of the lists
        in ANOMALIES that are not empty.
        """
        for named in ("anomaly-types", "bad-error-types"):
            if found := get(self.results, named):
                return sorted(str(name).removeprefix(":") for name in found)
        return [name for entry, name in ANOMALIES.items() if get(self.results, entry)]


def results(valid: bool | None, entries: dict[str, Any]) -> Results:
    """Builds a map of results: `:valid?`, then the entries in their order."""
    word = UNKNOWN if valid is None else valid
    return {VALID: word, **{Keyword(name): item for name, item in entries.items()}}


def limited(sentences: Sequence[str]) -> list[str]:
    """Keeps the first sentences, and says how many there are beyond them."""
    more = len(sentences) - REASONS_KEPT
    return [*sentences[:REASONS_KEPT], *([f"and {more} more"] if more > 0 else [])]


def show(value: Any) -> str:
    """Shows a value as text, shortened."""
    return shorten(edn.dumps(value), SHOWN)


def mistyped(value: Any, written: Container[Any], *key: Any) -> str:
    """Completes a sentence on a value that nobody wrote, if somebody wrote it as an integer.

    Some languages turn integers into strings, for example as keys of an object. `written` has
    values or, with a key, pairs of a key and a value. Returns "" if the sentence is complete.
    """
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
        number = int(value)
        if ((*key, number) if key else number) in written:
            return f": it was the integer {value}, and has become a string"
    return ""


def at(op: Op) -> str:
    """Gives an event's time, if the history has times, and its index."""
    index = f"index {op.index}"
    return f"at {op.time / SECOND:.3f} s ({index})" if op.time else f"at {index}"
