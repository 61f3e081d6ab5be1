"""Results as Jepsen has them, maps with a verdict in each: what they and their parts are called."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .record.edn import Keyword

Results = dict[Keyword, Any]

VALID = Keyword("valid?")
UNKNOWN = Keyword("unknown")
VERDICTS = {True: "valid", False: "invalid", None: "unknown"}  # in words for people


def merge(verdicts: Iterable[Any]) -> Any:
    """The verdict on a whole: false if a part is, else unknown if a part is (None or :unknown)."""
    found = list(verdicts)
    if any(verdict is False for verdict in found):
        return False
    return True if all(verdict is True for verdict in found) else UNKNOWN


def get(results: Any, *names: Any) -> Any:
    """What is under these names, one in the other; None if it is not there."""
    for name in names:
        if not isinstance(results, dict):
            return None
        results = results.get(Keyword(name) if isinstance(name, str) else name)
    return results
