"""Prints a run to the terminal: Jepsen's log lines, and a progress line below them."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import lru_cache

from ..record.history import Op, to_txt
from ..units import SECOND

GREEN, RED, YELLOW = "\x1b[32m", "\x1b[31m", "\x1b[33m"


class Console:
    """Prints lines to stdout in Jepsen's format, and the progress.

    On a terminal, the progress is a single line that is updated in place. Elsewhere it is a new
    log line every few seconds. `lost` is the first error of writing to stdout; after it the
    console prints nothing. A closed stdout must not cost the run its results.
    """

    def __init__(self) -> None:
        self._out = sys.stdout  # a simulated node redirects sys.stdout during its turns
        self._live = self._out.isatty() and os.environ.get("TERM") != "dumb"
        self._colours = self._live and not os.environ.get("NO_COLOR")  # https://no-color.org
        self._progress = ""
        self.progress_interval = SECOND // 5 if self._live else 5 * SECOND
        self.lost: OSError | None = None
        self.clock: Callable[[], str] = wall_clock  # the time at the beginning of a log line

    def info(self, thread: str, text: str) -> None:
        """Prints a line like those of Jepsen's log."""
        self._line("INFO", thread, text)

    def warn(self, text: str) -> None:
        """Prints a warning about the nodes."""
        self._line("WARN", "workbench", text)

    def op(self, thread: str, op: Op) -> None:
        """Prints an event of the history, as shown in Maelstrom's tutorial."""
        self._line("INFO", f"jepsen {thread}", f"jepsen.util: {to_txt(op)}")

    def print(self, text: str = "", colour: str = "") -> None:
        """Prints text above the progress line; the colour is used only on a terminal."""
        if colour and self._colours:
            text = f"{colour}{text}\x1b[0m"
        clear = "\r\x1b[K" if self._progress else ""
        self._write(f"{clear}{text}\n{self._progress}", flush=self._live)

    def progress(self, text: str, *shorter: str) -> None:
        """Shows the first of these texts that fits in the line; an empty text removes the line."""
        if self._live:
            # A wider text would wrap into a second line that is never overwritten. The last column
            # stays free, because some terminals wrap as soon as it is filled.
            width = shutil.get_terminal_size().columns - 1
            forms = text, *shorter
            text = next((form for form in forms if len(form) <= width), forms[-1])[:width]
            self._write(f"\r\x1b[K{text}", flush=True)
            self._progress = text
        elif text:
            self.info("workbench", text)
            self.flush()

    def flush(self) -> None:
        """Flushes stdout."""
        self._write("", flush=True)

    def close(self) -> None:
        """Raises OSError if some of the output could not be printed."""
        if self.lost:
            raise OSError(self.lost.errno, self.lost.strerror, "stdout") from self.lost

    def _write(self, text: str, flush: bool) -> None:
        if self.lost:
            return
        try:
            self._out.write(text)
            if flush:
                self._out.flush()
        except OSError as error:
            self.lost = error

    def _line(self, level: str, thread: str, text: str) -> None:
        self.print(f"{self.clock()}\t{level}\t[{thread}] {text}")


def wall_clock() -> str:
    now = time.time()
    return f"{_clock(int(now))},{int(now % 1 * 1000):03d}{{GMT}}"


@lru_cache(maxsize=1)  # a simulation prints thousands of lines a second
def _clock(second: int) -> str:
    return datetime.fromtimestamp(second, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
