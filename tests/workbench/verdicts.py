"""The names in Jepsen's results, which are nested maps with a verdict in each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .record.edn import Keyword

Results = dict[Keyword, Any]

VALID = Keyword("valid?")
UNKNOWN = Keyword("unknown")
VERDICTS = {True: "valid", False: "invalid", None: "unknown"}  # verdicts as words


def merge(verdicts: Iterable[Any]) -> Any:
    """Combines verdicts: False if one is False, True if all are True, else :unknown."""
    found = list(verdicts)
    if any(verdict is False for verdict in found):
        return False
    return True if all(verdict is True for verdict in found) else UNKNOWN


def get(results: Any, *names: Any) -> Any:
    """Looks up a path of names in nested maps; None if a name is missing."""
    for name in names:
        if not isinstance(results, dict):
            return None
        results = results.get(Keyword(name) if isinstance(name, str) else name)
    return results
