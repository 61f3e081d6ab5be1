"""A run's time and chance. All that happens in it happens in one thread, in order of time."""

from __future__ import annotations

import errno
import heapq
import random
import selectors
import time
from collections.abc import Callable

from ..units import SECOND

Action = Callable[[], object]
MOST_FILES = 1024  # that select can wait for


def dice(seed: int, name: str) -> random.Random:
    """The chance of one part of a run: what it draws changes nothing for the other parts."""
    return random.Random(f"{seed} {name}")


class Loop:
    """Calls what is due, in order of time; of two actions due at once the first made goes first.

    It is the only clock of a run.
    """

    def __init__(self) -> None:
        self._due: list[tuple[int, int, Action]] = []
        self._made = 0

    def now(self) -> int:
        """Nanoseconds since the start."""
        raise NotImplementedError

    def at(self, moment: int, action: Action) -> None:
        """Calls action() at a moment, or as soon as possible after it."""
        self._made += 1
        heapq.heappush(self._due, (moment, self._made, action))

    def after(self, delay: int, action: Action) -> None:
        """Calls action() when `delay` nanoseconds have passed."""
        self.at(self.now() + delay, action)

    def run_until(self, done: Callable[[], bool]) -> None:
        """Runs until done() is true, which is looked at after every round of events."""
        raise NotImplementedError


class RealLoop(Loop):
    """In real time: between two actions it waits for the files that it watches."""

    def __init__(self) -> None:
        super().__init__()
        self._start = time.monotonic_ns()
        # epoll and poll round a wait up to whole milliseconds, which at 2,000 operations a second
        # is two of them; select is exact. Its limit, 1,024 files, is that of the shell as well.
        self._selector = selectors.SelectSelector()

    def now(self) -> int:
        return time.monotonic_ns() - self._start

    def watch(self, file: int, action: Action, events: int = selectors.EVENT_READ) -> None:
        """Calls action() whenever the file can be read (or written) without waiting.

        OSError if there are more of them than can be waited for.
        """
        if file >= MOST_FILES:
            raise OSError(errno.EMFILE, "more nodes than can be waited for at once")
        self._selector.register(file, events, action)

    def unwatch(self, file: int) -> None:
        """Forgets a file; does nothing for one that is not watched."""
        if file in self._selector.get_map():
            self._selector.unregister(file)

    def run_until(self, done: Callable[[], bool]) -> None:
        while not done():
            wait = max(0, self._due[0][0] - self.now()) / SECOND if self._due else None
            for key, _ in self._selector.select(wait):
                key.data()
            now = self.now()
            while self._due and self._due[0][0] <= now:
                heapq.heappop(self._due)[2]()


class VirtualLoop(Loop):
    """In virtual time: the clock jumps to the next action, and stands still during it."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0  # what now() returns, for who asks so often that a call counts

    def now(self) -> int:
        return self.time

    def run_until(self, done: Callable[[], bool]) -> None:
        """Runs until done() is true, or nothing is left to do."""
        due, take = self._due, heapq.heappop
        while due and not done():
            moment, _, action = take(due)
            if moment > self.time:
                self.time = moment
            action()

    def run_to(self, moment: int) -> None:
        """Runs what is due until a moment, which it then is."""
        self.run_until(lambda: self._due[0][0] > moment)
        self.time = moment
