"""g-counter: a counter that only grows. Requests, replies and final reads are pn-counter's.

    {"type": "add", "delta": 3}    {"type": "add_ok"}
    {"type": "read"}               {"type": "read_ok", "value": 12}
"""

from __future__ import annotations

from .pn_counter import PnCounter


class GCounter(PnCounter):
    """Does pn-counter's operations without the negative adds, so two of three are reads."""

    name = "g-counter"

    def draw(self) -> tuple[str, int | None]:
        while True:
            f, value = super().draw()
            if value is None or value >= 0:
                return f, value
