"""How a run goes on, in one line: time, operations, rate, latency, who leads, and which fault."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

from ..record.history import Op, completions
from ..record.life import Ear
from ..units import SECOND
from .quantiles import milliseconds, quantile

RECENT = SECOND  # what the latency is of


class Progress:
    """What a growing history tells. Each event is looked at once, when a line is wanted."""

    def __init__(self, history: Sequence[Op], ear: Ear, seconds: float) -> None:
        self._history = history
        self._ear = ear
        self._seconds = seconds  # that the run is to take
        self._read = 0  # events
        self._begun: dict[int | str, int] = {}
        self._ended: Counter[str] = Counter()
        self._recent: deque[tuple[int, int]] = deque()  # when one was ok, after how long

    def lines(self, now: int, faults: str) -> tuple[str, str]:
        """The line, and a shorter one that has less in it; `now` is ns since the start."""
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
        # Nodes that never speak of roles may have no leader at all.
        return "no leader heard" if self._ear.lines else ""
