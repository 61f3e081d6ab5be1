"""The event loop: everything that happens in a run happens in one thread, in order of time."""

from __future__ import annotations

import heapq
import selectors
import time
from collections.abc import Callable

Action = Callable[[], object]
SECOND = 1_000_000_000  # nanoseconds, the unit of all times in a run, as in Jepsen's histories


class Loop:
    """Calls what is due, in order of time; of two actions due at once the first made goes first.

    This loop lives in real time: nanoseconds since it was made. Between two actions it waits for
    the files that it watches.
    """

    def __init__(self) -> None:
        self._start = time.monotonic_ns()
        self._due: list[tuple[int, int, Action]] = []
        self._made = 0
        self._selector = selectors.DefaultSelector()

    def now(self) -> int:
        """Nanoseconds since the start."""
        return time.monotonic_ns() - self._start

    def at(self, moment: int, action: Action) -> None:
        """Calls action() at a moment, or as soon as possible after it."""
        self._made += 1
        heapq.heappush(self._due, (moment, self._made, action))

    def after(self, delay: int, action: Action) -> None:
        """Calls action() when `delay` nanoseconds have passed."""
        self.at(self.now() + delay, action)

    def watch(self, file: int, action: Action, events: int = selectors.EVENT_READ) -> None:
        """Calls action() whenever the file can be read (or written) without waiting."""
        self._selector.register(file, events, action)

    def unwatch(self, file: int) -> None:
        """Forgets a file; does nothing for one that is not watched."""
        if file in self._selector.get_map():
            self._selector.unregister(file)

    def run_until(self, done: Callable[[], bool]) -> None:
        """Runs until done() is true, which is looked at after every round of events."""
        while not done():
            wait = max(0, self._due[0][0] - self.now()) / SECOND if self._due else None
            for key, _ in self._selector.select(wait):
                key.data()
            now = self.now()
            while self._due and self._due[0][0] <= now:
                heapq.heappop(self._due)[2]()
