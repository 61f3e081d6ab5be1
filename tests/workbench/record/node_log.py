"""The log of a node, node-logs/<node>.log: its lines on stderr, each behind the run's time.

    -0.041  --- n1: start 1
    -0.012  n1 term 1: follower of n0
     6.125  --- n1: killed

Times are in seconds on the history's clock, so lines before the first operation have negative
times. Marks, which begin with ---, are the bench's own. A simulation's times have six decimals,
because they are exact.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..simulation.loop import Loop
from ..units import SECOND

MARK = b"--- "
MOST_HELD = 1 << 20  # bytes of lines kept in memory before the run's time 0 is known
PREFIX = re.compile(rb" *(?:-?\d+\.\d+|\?)  ")


class NodeLog:
    """Writes a node's log, through all its incarnations.

    Lines before the run's time 0 are held in memory until that time is known. If they become more
    than MOST_HELD bytes, they are written with a "?" for the time. If the file cannot be written,
    the log calls `failed(why)` once, and drops all later lines.
    """

    def __init__(
        self,
        folder: Path,
        node_id: str,
        loop: Loop,
        failed: Callable[[str], object],
        decimals: int = 3,
    ) -> None:
        self._file = (folder / f"{node_id}.log").open("wb", buffering=0)
        self._node_id = node_id
        self._loop = loop
        self._failed = failed
        self._decimals = decimals
        self._starts = 0
        self._held: deque[tuple[int, bytes]] = deque()  # loop times and lines
        self._held_bytes = 0
        loop.at_run_start(self._release)

    def started(self) -> None:
        """Marks the start of a process of the node."""
        self._starts += 1
        self.mark(f"start {self._starts}")

    def mark(self, text: str) -> None:
        self.write([MARK + f"{self._node_id}: {text}".encode()])

    def write(self, lines: Iterable[bytes]) -> None:
        """Writes lines, given without their line ends."""
        now = self._loop.now()
        if self._loop.run_start is not None:
            self._write((now, line) for line in lines)
            return
        for line in lines:
            self._held.append((now, line))
            self._held_bytes += len(line)
        if self._held_bytes > MOST_HELD:
            self._release(known=False)

    def close(self) -> None:
        """Closes the file. A run that failed before its time 0 counts from the loop's start."""
        self._release()
        self._file.close()

    def _release(self, known: bool = True) -> None:
        held = [*self._held]
        self._held.clear()
        self._held_bytes = 0
        self._write(held, known)

    def _write(self, timed: Iterable[tuple[int, bytes]], known: bool = True) -> None:
        start, width = self._loop.run_start or 0, self._decimals + 4
        data = b"".join(
            b"%s  %s\n" % (self._time(time - start, width) if known else b"?".rjust(width), line)
            for time, line in timed
        )
        view = memoryview(data)
        try:
            while view and not self._file.closed:
                view = view[self._file.write(view) :]
        except OSError as error:
            self._file.close()
            self._failed(f"has a log that cannot be written: {error.strerror}")

    def _time(self, time: int, width: int) -> bytes:
        return f"{time / SECOND:{width}.{self._decimals}f}".encode()


def said(log: Iterable[bytes]) -> Iterator[bytes]:
    """Yields a node's own lines in its log: without times, and without the bench's marks."""
    for line in log:
        found = PREFIX.match(line)
        text = line[found.end() :] if found else line
        if not (found and text.startswith(MARK)):
            yield text
