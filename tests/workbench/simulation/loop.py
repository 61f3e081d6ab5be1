"""The event loop and the random generators of a run. All events run in one thread, by time."""

from __future__ import annotations

import errno
import heapq
import random
import selectors
import time
from collections.abc import Callable

from ..units import SECOND

Action = Callable[[], object]
MOST_FILES = 1024  # select's limit


def dice(seed: int, name: str) -> random.Random:
    """Returns a random generator for one part of a run, independent of the other parts'."""
    return random.Random(f"{seed} {name}")


class Loop:
    """Calls actions when they are due. Those due at the same time run in the order of scheduling.

    The loop is the only clock of a run.
    """

    def __init__(self) -> None:
        self._due: list[tuple[int, int, Action]] = []
        self._made = 0
        self.run_start: int | None = None  # now() at the run's time 0, in ns; None before it
        self._at_run_start: list[Action] = []

    def start_run(self) -> None:
        """Makes this moment the run's time 0, when the clients begin."""
        self.run_start = self.now()
        for action in self._at_run_start:
            action()

    def at_run_start(self, action: Action) -> None:
        """Calls action() at the run's time 0."""
        self._at_run_start.append(action)

    def run_time(self) -> int:
        """Returns the time on the history's clock, in ns; before time 0, that since the start."""
        return self.now() - (self.run_start or 0)

    def now(self) -> int:
        """Returns the time since the start, in ns."""
        raise NotImplementedError

    def at(self, moment: int, action: Action) -> None:
        """Calls action() at `moment`, or as soon as possible after it."""
        self._made += 1
        heapq.heappush(self._due, (moment, self._made, action))

    def after(self, delay: int, action: Action) -> None:
        """Calls action() when `delay` nanoseconds have passed."""
        self.at(self.now() + delay, action)

    def run_until(self, done: Callable[[], bool]) -> None:
        """Runs until done() is true. It is checked after every round of events."""
        raise NotImplementedError


class RealLoop(Loop):
    """A loop in real time. Between two actions it waits for the watched files."""

    def __init__(self) -> None:
        super().__init__()
        self._start = time.monotonic_ns()
        # epoll and poll round a wait up to whole milliseconds: at 2,000 operations a second that is
        # the time of two operations. select is exact. Its limit, 1,024 files, is also the shell's.
        self._selector = selectors.SelectSelector()

    def now(self) -> int:
        return time.monotonic_ns() - self._start

    def watch(self, file: int, action: Action, events: int = selectors.EVENT_READ) -> None:
        """Calls action() whenever the file can be read (or written) without waiting.

        Raises OSError if too many files are open.
        """
        if file >= MOST_FILES:
            why = f"too many nodes: a run can have {MOST_FILES:,} files open; use fewer nodes"
            raise OSError(errno.EMFILE, why)
        self._selector.register(file, events, action)

    def unwatch(self, file: int) -> None:
        """Stops watching a file. Does nothing if the file is not watched."""
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
    """A loop in virtual time. The clock jumps to the next action, and stands still during it."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0  # same as now(); read directly where calls would be too slow

    def now(self) -> int:
        return self.time

    def run_until(self, done: Callable[[], bool]) -> None:
        """Runs until done() is true, or no action is left."""
        due, take = self._due, heapq.heappop
        while due and not done():
            moment, _, action = take(due)
            if moment > self.time:
                self.time = moment
            action()

    def run_to(self, moment: int) -> None:
        """Runs all actions due until `moment`, and sets the clock to it."""
        self.run_until(lambda: self._due[0][0] > moment)
        self.time = moment
