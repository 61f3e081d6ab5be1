"""echo: a node sends each payload back.

    {"type": "echo", "echo": "Please echo 35"}    {"type": "echo_ok", "echo": "Please echo 35"}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..record import edn
from ..record.edn import Keyword
from ..record.history import Op, clients
from ..verdicts import VALID, Results
from .workload import NET_TIMEOUT, Body, Next, Plain, Worker, expect

LONG = 300  # characters of a payload in a sentence


class Echo(Plain):
    """Sends payloads, and expects them back."""

    name = "echo"

    def next(self, free: Sequence[Worker], workers: Sequence[Worker], now: int) -> Next | None:
        return self._rng.choice(free), "echo", f"Please echo {self._rng.randrange(128)}"

    def request(self, f: str, value: Any) -> Body:
        return {"type": "echo", "echo": value}

    def complete(self, f: str, value: Any, reply: Body) -> Any:
        if reply.get("type") != "echo_ok":
            raise ValueError(f'its type must be "echo_ok", not {_shown(reply.get("type"))}')
        if "echo" not in reply:
            raise ValueError('the field "echo" is missing from the body')
        if extra := sorted(reply.keys() - {"type", "echo", "msg_id", "in_reply_to"}):
            fields = ", ".join(f'"{field}"' for field in extra)
            raise ValueError(f"remove the field{'s' * (len(extra) > 1)} {fields} from the body")
        expect(reply, "echo_ok", {"echo"})
        return reply["echo"]

    def check(self, ops: Sequence[Op]) -> Results:
        """Requires each operation to be ok with its own payload. Errors and time-outs fail."""
        sent: dict[int | str, Any] = {}
        errors = []
        wrong = []
        failed: Counter[str] = Counter()  # ends of operations
        count = 0
        for op in clients(ops):
            if op.type == "invoke":
                count += 1
                sent[op.process] = op.value
            elif op.type != "ok" or op.value != sent[op.process]:
                received = op.value if op.type == "ok" else op.error
                if op.type == "ok":
                    wrong.append(f"{edn.dumps(sent[op.process])} came back as {_shown(received)}")
                else:
                    failed[_end(received)] += 1
                errors.append(
                    ["Expected a message with :echo", sent[op.process], "But received", received]
                )
        self.reasons = []
        if wrong:
            self.reasons.append(
                f"{wrong[0]}, but an echo must be the same as its request "
                f"(wrong replies: {len(wrong)} of {count})"
            )
        if 0 < failed.total() < count:
            ends = ", ".join(f"{number} {end}" for end, number in failed.most_common())
            self.reasons.append(
                f"{failed.total()} of {count} echo operations were not ok, but all must be: {ends}"
            )
        return {VALID: not errors, Keyword("errors"): errors}


def _end(error: Any) -> str:
    """Says how an operation ended that was not ok."""
    if error == NET_TIMEOUT:
        return "got no reply in time"
    return "got an error" if isinstance(error, list) else "got a malformed reply"


def _shown(value: Any) -> str:
    text = edn.dumps(value)
    return text if len(text) <= LONG else f"{text[:LONG]}..."
