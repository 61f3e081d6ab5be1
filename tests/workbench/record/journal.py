"""The journal of a run's messages: source, destination, and times of sending and receipt.

The real Maelstrom keeps such a journal too, and draws messages.svg of it. Ours is messages.jsonl,
with a JSON object on each line, in the order of sending:

    {"id": 7, "src": "n0", "dest": "n1", "sent": 2000000, "received": [12000000],
     "type": "append_entries", "body": {...}}

Times are in ns, on the history's clock. A message that was lost, or in flight at the end, has no
time of receipt. A duplicated message may have two. A long body is replaced by an excerpt, a string.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..network.network import Message
from .history import shorten

NAME = "messages.jsonl"
MOST = 200_000  # messages kept
LENGTH = 1_000  # characters kept of a body
TYPE = 60  # characters kept of a type


@dataclass(slots=True)
class Sent:
    """A message of the journal."""

    id: int
    src: str
    dest: str
    sent: int  # ns
    type: str
    body: str  # JSON text, or an excerpt of it
    received: list[int] = field(default_factory=list)  # ns; empty if it was not received


class Journal:
    """Keeps the first MOST messages of a run. `now` returns the time in ns."""

    def __init__(self, now: Callable[[], int]) -> None:
        self.messages: dict[int, Sent] = {}  # by id
        self._now = now

    def log(self, direction: str, message: Message) -> None:
        """Records that a message is sent ("send") or received ("recv")."""
        id = message["id"]
        if direction == "send":
            if len(self.messages) < MOST:
                body = message["body"]
                text = shorten(json.dumps(body), LENGTH)
                type = shorten(str(body.get("type")), TYPE)
                self.messages[id] = Sent(
                    id, message["src"], message["dest"], self._now(), type, text
                )
        elif found := self.messages.get(id):
            found.received.append(self._now())

    def to_jsonl(self, start: int) -> Iterator[str]:
        """Yields the lines of messages.jsonl. `start` is the time at which the history began."""
        for message in self.messages.values():
            whole = len(message.body) < LENGTH
            head = {
                "id": message.id,
                "src": message.src,
                "dest": message.dest,
                "sent": message.sent - start,
                "received": [time - start for time in message.received],
                "type": message.type,
            }
            # A whole body is JSON already. An excerpt becomes a JSON string.
            body = message.body if whole else json.dumps(message.body)
            yield f'{json.dumps(head)[:-1]}, "body": {body}}}\n'


def read(folder: Path) -> list[Sent]:
    """Reads a run's messages. Raises OSError if there is no journal, ValueError if it is faulty."""
    messages = []
    with (folder / NAME).open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                messages.append(_sent(json.loads(line)))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise ValueError(f"line {number} is not a message: {error!r:.100}") from error
            if number == MOST:
                break
    return messages


def _sent(form: dict[str, Any]) -> Sent:
    body, received = form["body"], form["received"]
    text = body if isinstance(body, str) else json.dumps(body)
    if not (
        all(type(form[name]) is int for name in ("id", "sent"))
        and all(type(form[name]) is str for name in ("src", "dest", "type"))
        and isinstance(received, list)
        and all(type(time) is int for time in received)
    ):
        raise TypeError("a field is of the wrong type")
    return Sent(
        form["id"], form["src"], form["dest"], form["sent"], form["type"], text, received
    )
