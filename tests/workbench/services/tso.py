"""The service lin-tso: a linearizable source of timestamps (maelstrom.service).

    {"type": "ts"}    {"type": "ts_ok", "ts": 0}
"""

from __future__ import annotations

import itertools
from typing import Any


class LinTSO:
    """Hands out the timestamps 0, 1, 2 and so on, each of them once."""

    types = ("ts",)

    def __init__(self) -> None:
        self._timestamps = itertools.count()

    def handle(self, src: str, body: dict[str, Any]) -> dict[str, Any]:
        """Returns the reply to a request."""
        return {"type": "ts_ok", "ts": next(self._timestamps)}
