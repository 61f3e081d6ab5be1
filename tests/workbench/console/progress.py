"""The progress line of a run: time, operations, rate, latency, leader and current faults."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

from ..record.history import Op, completions
from ..record.life import Ear
from ..units import SECOND
from .quantiles import milliseconds, quantile

RECENT = SECOND  # the latency is the median over this time


class Progress:
    """Computes the progress line of a growing history; each event is read only once."""

    def __init__(self, history: Sequence[Op], ear: Ear, seconds: float) -> None:
        self._history = history
        self._ear = ear
        self._seconds = seconds  # planned duration of the run
        self._read = 0  # number of events that have been read
        self._begun: dict[int | str, int] = {}  # start times of operations in progress, in ns
        self._ended: Counter[str] = Counter()  # completed operations by type
        self._recent: deque[tuple[int, int]] = deque()  # end and duration of recent ok operations

    def lines(self, now: int, faults: str) -> tuple[str, str]:
        """Returns the line, and a shorter form of it; `now` is in ns since the start."""
        self._catch_up(now)
        done, seconds = sum(self._ended.values()), now / SECOND
        rate = done / seconds if seconds else 0.0
        ok, failed, unknown = (f"{self._ended[type]:,}" for type in ("ok", "fail", "info"))
        begin = f"{seconds:.0f} of {self._seconds:g} s, {done:,} operations"
        parts = [f"{rate:,.1f}/s", self._latency(now), self._leader(), faults]
        end = ", ".join(filter(None, parts))
        return f"{begin} ({ok} ok, {failed} failed, {unknown} unknown), {end}", f"{begin}, {end}"

    def _catch_up(self, now: int) -> None:
        events = self._history[self._read :]
        self._read += len(events)
        for op, took in completions(events, self._begun):
            self._ended[op.type] += 1
            if op.type == "ok" and op.time > now - RECENT:
                self._recent.append((op.time, took))
        while self._recent and self._recent[0][0] <= now - RECENT:
            self._recent.popleft()

    def _latency(self, now: int) -> str:
        if self._recent:
            return f"{milliseconds(quantile(sorted(took for _, took in self._recent), 0.5))} ms"
        return "none ok" if now >= RECENT else ""

    def _leader(self) -> str:
        if found := self._ear.leader():
            node_id, term = found
            return f"{node_id} leads term {term}"
        # Nodes that never report roles may have no leader at all.
        return "no leader heard" if self._ear.lines else ""
