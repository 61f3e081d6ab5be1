"""The clients of a run, and the meaning of replies (in Maelstrom: maelstrom.client)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from ..network.network import Message, Network
from ..record import edn
from ..record.edn import Keyword
from ..simulation.loop import Loop
from ..workloads.workload import (
    ERRORS,
    INDETERMINATE,
    NET_TIMEOUT,
    Body,
    Conversation,
    Crashed,
    Extras,
    Workload,
)

KEPT_REPLIES = 1000  # answered requests that a client keeps, to detect contradicting replies
SHOWN = 300  # maximum characters of a message in an error text
NOTHING_HAPPENED = object()
KINDS = {str: "a string", float: "a float", list: "an array", dict: "an object"}  # of JSON
# Requests with a new result each time that a node executes them.
VARYING = ("read", "generate", "txn", "send", "poll", "list_committed_offsets")


class Client:
    """Sends one request at a time, and waits for its reply.

    The client calls `warn(text)` if two replies to one request contradict each other, and
    `surplus(message)` for each harmless message that it does not wait for. `stray` describes the
    first message since the last request that is no reply to any request, or "". `request` is the
    last request's body. `state` is the workload's state of this client.
    """

    def __init__(
        self,
        client_id: str,
        loop: Loop,
        network: Network,
        warn: Callable[[str], object],
        surplus: Callable[[Message], object] = lambda message: None,
    ) -> None:
        self.client_id = client_id
        self._loop = loop
        self._network = network
        self._warn = warn
        self._surplus = surplus
        self.state: Any = None
        self.stray = ""
        self._msg_id = 0
        self._waiting: Callable[[Body | None, str], object] | None = None
        self.dest = ""  # of the last request
        self.request: Body = {}
        self._answered: dict[int, tuple[Body, Body]] = {}  # requests and their first replies
        network.add_client(client_id, self._receive)

    def call(
        self, dest: str, body: Body, timeout: int, done: Callable[[Body | None, str], object]
    ) -> None:
        """Sends a request, then calls done(reply, src) once; reply is None after `timeout` ns."""
        self._msg_id += 1
        msg_id = self._msg_id
        self._waiting = done
        self.dest = dest
        self.request = {**body, "msg_id": msg_id}
        self.stray = ""

        def time_out() -> None:
            if self._waiting and self._msg_id == msg_id:
                self._waiting = None
                done(None, dest)

        self._loop.after(timeout, time_out)
        self._network.send({"src": self.client_id, "dest": dest, "body": self.request})

    def perform(
        self,
        dest: str,
        workload: Workload,
        f: str,
        value: Any,
        timeout: int,
        done: Callable[[Outcome, Body | None, str], object],
        extras: Extras | None = None,
    ) -> None:
        """Does an operation: its requests one after the other, each with a time-out of its own.

        Then calls done(outcome, reply, src) with the last reply. The reply is None after a
        time-out, and empty if there was no request.
        """
        talk = workload.converse(f, value, extras, self.state)

        def answered(reply: Body | None, src: str) -> None:
            if failed := failure(workload, f, value, reply):
                done(failed, reply, src)
            else:
                go_on(proceed(value, talk, reply), reply, src)

        def go_on(step: Body | Outcome, reply: Body | None, src: str) -> None:
            if isinstance(step, Outcome):
                done(step, reply, src)
            else:
                self.call(dest, type_last(step), timeout, answered)

        go_on(proceed(value, talk), {}, dest)

    @property
    def waiting(self) -> bool:
        """Whether a request is in flight."""
        return self._waiting is not None

    def give_up(self) -> None:
        """Stops waiting for a reply; a reply that arrives later is ignored."""
        self._waiting = None

    def _receive(self, message: Message) -> None:
        body, src = message["body"], message["src"]
        msg_id = body.get("in_reply_to")
        if type(msg_id) is not int or not 0 < msg_id <= self._msg_id:
            if not self._waiting:
                self._surplus(message)
            self.stray = self.stray or self._unmatched(src, body)
            return  # 1.0 and true equal 1 in Python, but are not message ids
        if self._waiting and msg_id == self._msg_id:
            done, self._waiting = self._waiting, None
            self._answered[msg_id] = (self.request, body)
            if len(self._answered) > KEPT_REPLIES:
                del self._answered[next(iter(self._answered))]
            done(body, src)
        elif msg_id in self._answered:
            request, first = self._answered[msg_id]
            if contradict(request, first, body):
                self._warn(
                    f"{self.client_id}'s request {msg_id} got two contradicting replies: "
                    f"first {shown(first)}, then {shown(body)} from {src}"
                )
            else:
                self._surplus(message)

    def _unmatched(self, src: str, body: Body) -> str:
        must = f"must be {self._msg_id} (an integer), the msg_id of the request"
        why = f"it has no in_reply_to, which {must}"
        if "in_reply_to" in body:
            found = body["in_reply_to"]
            kind = f" ({KINDS[type(found)]})" if type(found) in KINDS else ""
            why = f"in_reply_to is {shown(found)}{kind}, and {must}"
        return (
            f"{src} replied, but the reply cannot be matched to its request: {why}: {shown(body)}"
        )


def type_last(body: Body) -> Body:
    """Moves the type behind the arguments, its place in Maelstrom (maelstrom.client/defrpc).

    A node in C or shell may search a line with a pattern that depends on the order.
    """
    arguments = {key: body[key] for key in body if key != "type"}
    return {**arguments, "type": body["type"]}


def shown(value: Any) -> str:
    """Formats a message, or a part of one, for an error text."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "(JSON that is nested too deeply)"
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def wanted(request: Body) -> str:
    """Describes the good reply to a request: its body, or its type if the node has to choose."""
    type = f"{request['type']}_ok"
    if request["type"] not in ("init", "echo"):
        return f'a reply of the type "{type}"'
    own = {"echo": request["echo"]} if request["type"] == "echo" else {}
    return shown({"type": type, **own, "in_reply_to": request["msg_id"]})


def contradict(request: Body, first: Body, second: Body) -> bool:
    """Returns whether two replies to a request contradict each other.

    A node may execute a request twice. The values read may then differ, and so may the definite
    errors (first 20, then 22). An indefinite error contradicts nothing.
    """
    one, other = _meaning(first), _meaning(second)
    return request["type"] not in VARYING and None not in (one, other) and one != other


def _meaning(reply: Body) -> object:
    """Returns what a reply tells about the state, or None for an indefinite error."""
    if reply.get("type") != "error":
        return {key: reply[key] for key in reply.keys() - {"msg_id"}}
    code = reply.get("code")
    definite = type(code) is int and ERRORS.get(code, ("", False))[1]
    return NOTHING_HAPPENED if definite else None


class Outcome(NamedTuple):
    """The completion of an operation. `problem` says how the reply broke the protocol, or ""."""

    type: str
    value: Any
    error: Any = None
    problem: str = ""


def proceed(value: Any, talk: Conversation, reply: Body | None = None) -> Body | Outcome:
    """Begins a conversation, or continues it with a reply that is no error.

    Returns the body of the next request, or the completion of the operation. `value` is the
    operation's argument.
    """
    try:
        return talk.send(reply) if reply is not None else next(talk)
    except StopIteration as end:
        return Outcome("ok", end.value)
    except Crashed:
        return Outcome("info", value)
    except ValueError as error:
        return Outcome("info", value, Keyword("malformed-rpc-response"), str(error))


def failure(workload: Workload, f: str, value: Any, reply: Body | None) -> Outcome | None:
    """Returns the completion for an error, or for None after the time-out.

    Returns None for any other reply. Maelstrom's with-errors does the same. Without it (`catches`
    is false), Jepsen makes the operation `:info` after any error.
    """
    unknown = "fail" if f in workload.idempotent else "info"
    if reply is None:
        if not workload.catches:
            return Outcome("info", value, f"{INDETERMINATE}Client read timeout")
        return Outcome(unknown, value, NET_TIMEOUT)
    if reply.get("type") != "error":
        return None
    code = reply.get("code")
    problem, name, definite = "", "unknown", False
    if type(code) is int:
        name, definite = ERRORS.get(code, (name, definite))
    elif "code" in reply:  # an error may hold anything, in Maelstrom
        problem = f"the code of an error must be an integer, not {shown(code)}"
    else:
        problem = "an error must have a code, an integer; this one has none"
    if not workload.catches:
        return Outcome("info", value, _thrown(code, name, definite, reply), problem)
    error = [Keyword(name), reply.get("text")]
    return Outcome("fail" if definite else unknown, value, error, problem)


def _thrown(code: Any, name: str, definite: bool, body: Body) -> str:
    """Returns the text of the exception that Maelstrom's client throws for an error."""
    thrown = {
        "type": Keyword("rpc-error"),
        "code": code,
        "name": Keyword(name),
        "definite?": definite,
        "body": body,
    }
    return f"{INDETERMINATE}throw+: {edn.dumps(_keywords(thrown))}"


def _keywords(value: Any) -> Any:
    """Turns the keys of JSON objects into keywords."""
    if isinstance(value, dict):
        return {
            Keyword(key) if isinstance(key, str) else key: _keywords(item)
            for key, item in value.items()
        }
    return [_keywords(item) for item in value] if isinstance(value, list) else value
