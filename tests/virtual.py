"""A loop whose time the test moves."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from workbench.loop import Loop


class VirtualLoop(Loop):
    """Nothing waits: time jumps to what is due next."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0

    def now(self) -> int:
        return self._now

    def run_until(self, done: Callable[[], bool]) -> None:
        """Runs until done() is true, or nothing is due any more."""
        while self._due and not done():
            self._now, _, action = heapq.heappop(self._due)
            action()

    def run_to(self, moment: int) -> None:
        """Runs what is due until a moment (ns), which it then is."""
        self.run_until(lambda: self._due[0][0] > moment)
        self._now = moment
