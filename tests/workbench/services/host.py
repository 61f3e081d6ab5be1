"""Puts the services on the network of a run (maelstrom.service)."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from ..network.network import Message, Network
from .kv import LinKV, LwwKV, SeqKV
from .tso import LinTSO

SHOWN = 60  # characters of an unknown type in a warning


class Service(Protocol):
    """Answers requests, one at a time."""

    @property
    def types(self) -> Sequence[str]:
        """The types of the requests that the service knows."""

    def handle(self, src: str, body: dict[str, Any]) -> dict[str, Any]:
        """Returns the reply to a request of a known type."""


def services(rng: random.Random) -> Mapping[str, Service]:
    """Makes each service, by its id. Their random choices come from `rng`."""
    return {"lin-kv": LinKV(), "lin-tso": LinTSO(), "lww-kv": LwwKV(rng), "seq-kv": SeqKV(rng)}


def reply_of(name: str, service: Service, message: Message) -> Message | None:
    """Returns the service's reply to a message; None if the service does not know its type."""
    src, body = message["src"], message["body"]
    if body.get("type") not in service.types:
        return None
    reply = {**service.handle(src, body), "in_reply_to": body.get("msg_id")}
    return {"src": name, "dest": src, "body": reply}


class Host:
    """The services of a run. `warn(text)` is called for a request that a service does not know.

    As in Maelstrom such a request gets no reply. The user is warned once for each service and type.
    """

    def __init__(
        self, network: Network, rng: random.Random, warn: Callable[[str], object]
    ) -> None:
        self._network = network
        self._warn = warn
        self._unknown: set[tuple[str, str]] = set()  # service and type of each warning
        for name, service in services(rng).items():
            network.add_service(name, partial(self._serve, name, service))

    def _serve(self, name: str, service: Service, message: Message) -> None:
        if reply := reply_of(name, service, message):
            self._network.send(reply)
        else:
            self._refuse(name, service, message)

    def _refuse(self, name: str, service: Service, message: Message) -> None:
        src, type = message["src"], json.dumps(message["body"].get("type"))[:SHOWN]
        if (name, type) not in self._unknown:
            self._unknown.add((name, type))
            self._warn(
                f"{name} does not answer a request of the type {type}, which came from {src}: "
                f"it knows {', '.join(service.types)}"
            )
