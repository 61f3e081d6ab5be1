"""What a run says on the terminal: Jepsen's lines, and one line of progress below them."""

from __future__ import annotations

import sys
import time
from datetime import datetime, timezone

from .history import Op, to_txt
from .loop import SECOND


class Console:
    """Lines on stdout, as Jepsen prints them, and the progress.

    On a terminal the progress is one line that is written over; elsewhere it is a line now and
    then.
    """

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._progress = ""
        self.progress_interval = SECOND // 5 if self._live else 5 * SECOND

    def info(self, thread: str, text: str) -> None:
        """A line of Jepsen's log."""
        self._line("INFO", thread, text)

    def warn(self, text: str) -> None:
        """Something is wrong with the nodes."""
        self._line("WARN", "workbench", text)

    def op(self, thread: str, op: Op) -> None:
        """An event of the history, as the tutorial shows it."""
        self._line("INFO", f"jepsen {thread}", f"jepsen.util: {to_txt(op)}")

    def print(self, text: str = "") -> None:
        """A line as it is, above the progress."""
        clear = "\r\x1b[K" if self._progress else ""
        print(f"{clear}{text}", flush=self._live)
        if self._progress:
            print(self._progress, end="", flush=True)

    def progress(self, text: str) -> None:
        """The state of the run; an empty text takes it away."""
        if self._live:
            print(f"\r\x1b[K{text}", end="", flush=True)
            self._progress = text
        elif text:
            self.info("workbench", text)

    def _line(self, level: str, thread: str, text: str) -> None:
        now = time.time()
        clock = datetime.fromtimestamp(now, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
        self.print(f"{clock},{int(now % 1 * 1000):03d}{{GMT}}\t{level}\t[{thread}] {text}")
