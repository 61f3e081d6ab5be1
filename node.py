"""A Maelstrom node: JSON lines on stdin and stdout, handlers, RPCs and timers.

    from node import Node

    node = Node()

    @node.on("echo")
    def echo(msg):
        node.reply(msg, {"type": "echo_ok", "echo": msg["body"]["echo"]})

    node.main()

This is the one place for input, output, time and chance; what is built on it reaches the
world only through its node. It mirrors the node.rb of Maelstrom's tutorial, name by name.

Why it works as it does. All that has arrived is handled in one *turn*: its messages in order,
then the drained handlers, then one write of everything that was sent. So a burst of requests
costs one system call, and a node with state to protect saves it once, in a drained handler,
before anything that depends on it leaves. Timers take turns of their own, on one other thread.
Turns exclude each other: no two handlers ever run at the same time, unless one of them was
registered as blocking.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import math
import os
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import Any, TypeVar, overload

Body = dict[str, Any]
Message = dict[str, Any]
Handler = Callable[[Message], object]
Action = Callable[[], object]
F = TypeVar("F", bound=Callable[..., object])

STDIN, STDOUT = 0, 1
READ_SIZE = 1 << 16  # bytes: what a pipe holds
RPC_TIMEOUT = 5.0  # seconds, as Maelstrom's own clients wait
EARLY_MESSAGES = 100_000  # how many messages are kept until init comes


class RPCError(Exception):
    """An error that a request is answered with: Maelstrom's doc/protocol.md, "Errors".

    Raise it in a handler, or reply with `to_json()`. A *definite* error promises that the
    operation did not happen and never will; after an indefinite one it may have happened.
    """

    DEFINITE = frozenset({1, 10, 11, 12, 14, 20, 21, 22, 30})

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return f"error {self.code}: {self.text}"

    @property
    def definite(self) -> bool:
        """Whether the operation certainly did not happen; false for codes that are not known."""
        return self.code in self.DEFINITE

    def to_json(self) -> Body:
        """The body of the reply."""
        return {"type": "error", "code": self.code, "text": self.text}

    @classmethod
    def timeout(cls, text: str) -> RPCError:
        """0, indefinite: it was not done in time."""
        return cls(0, text)

    @classmethod
    def node_not_found(cls, text: str) -> RPCError:
        """1, definite: there is no such node."""
        return cls(1, text)

    @classmethod
    def not_supported(cls, text: str) -> RPCError:
        """10, definite: this node does not know this kind of request."""
        return cls(10, text)

    @classmethod
    def temporarily_unavailable(cls, text: str) -> RPCError:
        """11, definite: it cannot be done now."""
        return cls(11, text)

    @classmethod
    def malformed_request(cls, text: str) -> RPCError:
        """12, definite: the request lacks something, or has something of the wrong type."""
        return cls(12, text)

    @classmethod
    def crash(cls, text: str) -> RPCError:
        """13, indefinite: the node failed in the middle of it."""
        return cls(13, text)

    @classmethod
    def abort(cls, text: str) -> RPCError:
        """14, definite: it was given up."""
        return cls(14, text)

    @classmethod
    def key_does_not_exist(cls, text: str) -> RPCError:
        """20, definite."""
        return cls(20, text)

    @classmethod
    def key_already_exists(cls, text: str) -> RPCError:
        """21, definite."""
        return cls(21, text)

    @classmethod
    def precondition_failed(cls, text: str) -> RPCError:
        """22, definite: what the request expected does not hold, as in a cas."""
        return cls(22, text)

    @classmethod
    def txn_conflict(cls, text: str) -> RPCError:
        """30, definite: another transaction was in the way."""
        return cls(30, text)


class Timer:
    """What `every` and `after` return: a call that is due at a moment."""

    def __init__(self, action: Action, period: float | None = None) -> None:
        self.action: Action | None = action
        self.period = period

    def cancel(self) -> None:
        """Takes the call back, if it has not happened yet; an `every` ends."""
        self.action = None


class Node:
    """A node on stdin and stdout.

    `node_id` and `node_ids` are empty until Maelstrom's init message came. `random` is where
    a node takes its chances: a `random.Random`.
    """

    def __init__(self) -> None:
        self.node_id = ""
        self.node_ids: list[str] = []
        self.random = Random()
        self._initialized = False
        self._early: deque[Message] = deque(maxlen=EARLY_MESSAGES)
        self._handlers: dict[str, Handler] = {}
        self._blocking: set[str] = set()
        self._init_handlers: list[Action] = []
        self._drained_handlers: list[Action] = []
        self._callbacks: dict[int, Handler] = {}
        self._next_msg_id = 0
        self._timers: list[tuple[float, int, Timer]] = []  # a heap by deadline
        self._timers_made = 0
        self._lock = threading.RLock()  # held during a turn
        self._timers_changed = threading.Condition(self._lock)
        self._turn_of: int | None = None  # the thread whose turn it is
        self._outbox: list[str] = []  # lines sent in this turn
        self.on("init", self._init)

    # What a node does when something happens

    @overload
    def on(self, type: str, handler: Handler, *, blocking: bool = False) -> Handler: ...
    @overload
    def on(self, type: str, *, blocking: bool = False) -> Callable[[F], F]: ...
    def on(self, type: str, handler: Handler | None = None, *, blocking: bool = False) -> Any:
        """Calls handler(msg) for each request of this type; also a decorator.

        A blocking handler may wait (`sync_rpc`): each call has a thread of its own, outside of
        the turns. ValueError for a type that has a handler.
        """
        if handler is None:
            return lambda function: self.on(type, function, blocking=blocking)
        if type in self._handlers:
            raise ValueError(f"there is a handler for {type!r} already")
        self._handlers[type] = handler
        if blocking:
            self._blocking.add(type)
        return handler

    def on_init(self, handler: Callable[[], object]) -> Callable[[], object]:
        """Calls handler() once, when node_id and node_ids are known, before init_ok leaves."""
        self._init_handlers.append(handler)
        return handler

    def on_drained(self, handler: Callable[[], object]) -> Callable[[], object]:
        """Calls handler() at the end of each turn: all input is handled, no output has left."""
        self._drained_handlers.append(handler)
        return handler

    def every(self, seconds: float, action: Action) -> Timer:
        """Calls action() when `seconds` have passed since init or its last call, and again."""
        return self._start(seconds, Timer(action, seconds))

    def after(self, seconds: float, action: Action) -> Timer:
        """Calls action() once, when `seconds` have passed since now, or since init."""
        return self._start(seconds, Timer(action))

    # What a node can do

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def log(self, text: str) -> None:
        """One line on stderr, which Maelstrom keeps in node-logs/."""
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            sys.stderr.write(text + "\n")

    @property
    def other_node_ids(self) -> list[str]:
        """All nodes but this one."""
        return [node_id for node_id in self.node_ids if node_id != self.node_id]

    def send(self, dest: str, body: Body) -> None:
        """Sends a message; it leaves at the end of the turn.

        RuntimeError before init; TypeError or ValueError for a body that is not JSON.
        """
        if not self.node_id:
            raise RuntimeError("this node has no id before init: it cannot send")
        line = _encode({"src": self.node_id, "dest": dest, "body": body})
        if self._turn_of == threading.get_ident():
            self._outbox.append(line)
        else:
            with self._turn():
                self._outbox.append(line)

    def broadcast(self, body: Body) -> None:
        """Sends a message to every other node."""
        for node_id in self.other_node_ids:
            self.send(node_id, body)

    def reply(self, request: Message, body: Body) -> None:
        """Answers a request; does nothing for a message without msg_id: nobody waits for it."""
        msg_id = request["body"].get("msg_id")
        if msg_id is not None:
            self.send(request["src"], {**body, "in_reply_to": msg_id})

    def rpc(
        self, dest: str, body: Body, callback: Handler, timeout: float = RPC_TIMEOUT
    ) -> None:
        """Sends a request and calls callback(reply), unless no reply comes for timeout seconds."""
        with self._lock:
            self._next_msg_id += 1
            msg_id = self._next_msg_id
            self._callbacks[msg_id] = callback
        self.after(timeout, lambda: self._callbacks.pop(msg_id, None))
        self.send(dest, {**body, "msg_id": msg_id})

    def brpc(self, body: Body, callback: Handler, timeout: float = RPC_TIMEOUT) -> None:
        """Sends a request to every other node; callback(reply) is called for each reply."""
        for node_id in self.other_node_ids:
            self.rpc(node_id, body, callback, timeout)

    def sync_rpc(self, dest: str, body: Body, timeout: float = RPC_TIMEOUT) -> Body:
        """Sends a request and waits for the body of its reply.

        RPCError for an error in reply, `RPCError.timeout` for none in time; RuntimeError where
        waiting would stop the node.
        """
        if self._turn_of == threading.get_ident():
            raise RuntimeError(
                "sync_rpc would wait here for a reply that only this thread can take in; "
                "register the handler with on(type, handler, blocking=True), or use rpc"
            )
        replies: list[Message] = []
        arrived = threading.Event()

        def take(reply: Message) -> None:
            replies.append(reply)
            arrived.set()

        self.rpc(dest, body, take, timeout)
        if not arrived.wait(timeout):
            raise RPCError.timeout(f"no reply from {dest} within {timeout} s")
        answer: Body = replies[0]["body"]
        if answer.get("type") == "error":
            raise RPCError(answer.get("code", RPCError.crash("").code), answer.get("text", ""))
        return answer

    def main(self) -> None:
        """Runs the node until stdin closes. Output of print() goes to stderr meanwhile."""
        timers = threading.Thread(target=self._run_timers, name="timers", daemon=True)
        unfinished: list[bytes] = []  # the parts of a line whose end has not arrived
        with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(KeyboardInterrupt):
            timers.start()
            while chunk := os.read(STDIN, READ_SIZE):
                lines, newline, rest = chunk.rpartition(b"\n")
                if newline:
                    self._receive(b"".join([*unfinished, lines]).split(b"\n"))
                    unfinished.clear()
                unfinished.append(rest)
            self._receive([b"".join(unfinished)])

    # Turns

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """A turn of this thread: handle, then drained handlers, then one write."""
        with self._lock:
            self._turn_of = threading.get_ident()
            try:
                yield
                for handler in self._drained_handlers:
                    self._attempt(handler)
                lines, self._outbox = self._outbox, []
                if lines:
                    lines.append("")
                    self._write("\n".join(lines).encode())
            finally:
                self._turn_of = None

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # nobody reads it: stdin ends soon, too
            while data:
                data = data[os.write(STDOUT, data) :]

    def _attempt(self, action: Action) -> None:
        """Calls what belongs to no request, so that its failure ends nothing."""
        try:
            action()
        except Exception:
            self.log(traceback.format_exc())

    # Messages

    def _receive(self, lines: Iterable[bytes]) -> None:
        with self._turn():
            for line in lines:
                try:
                    msg = _decode(line.decode())
                    src, body = msg["src"], msg["body"]
                    if src.__class__ is not str or body.__class__ is not dict:
                        raise TypeError("src must be a string and body an object")
                except (ValueError, LookupError, TypeError, RecursionError) as error:
                    self._refuse(line, error)
                else:
                    self._handle(msg)

    def _refuse(self, line: bytes, error: Exception) -> None:
        """Logs a line that is no message; answers it if it is one but for a number in it."""
        if not line.strip():
            return
        self.log(f"skipped a line that is no message: {error!r} in {line[:200]!r}")
        with contextlib.suppress(ValueError, LookupError, TypeError, RecursionError):
            msg = _decode_any_number(line.decode())
            if self.node_id and isinstance(msg["src"], str) and "type" in msg["body"]:
                self.reply(msg, RPCError.malformed_request(str(error)).to_json())

    def _handle(self, msg: Message) -> None:
        """Gives a message to the one it is for."""
        body = msg["body"]
        type, reply_to = body.get("type"), body.get("in_reply_to")
        if not self._initialized and type != "init":
            self._early.append(msg)
        elif reply_to is not None:
            # True would find the callback of 1, and a list cannot be looked up.
            callback = self._callbacks.pop(reply_to, None) if reply_to.__class__ is int else None
            if callback is not None:
                self._attempt(lambda: callback(msg))
        elif type.__class__ is not str:
            self._fail(msg, RPCError.malformed_request(f"type must be a string, not {type!r}"))
        elif type not in self._handlers:
            self._fail(msg, RPCError.not_supported(f"{self.node_id} does not know {type!r}"))
        elif type in self._blocking:
            threading.Thread(target=self._answer, args=(type, msg), daemon=True).start()
        else:
            self._answer(type, msg)

    def _answer(self, type: str, msg: Message) -> None:
        """Calls the handler of a request; whatever becomes of it, there is an answer."""
        try:
            msg_id = msg["body"].get("msg_id")
            if msg_id is not None and msg_id.__class__ is not int:
                raise RPCError.malformed_request(f"msg_id must be an integer, not {msg_id!r}")
            self._handlers[type](msg)
        except RPCError as error:
            self._fail(msg, error)
        except Exception as error:
            self.log(traceback.format_exc())
            self._fail(msg, RPCError.crash(f"{error.__class__.__name__}: {error}"))

    def _fail(self, msg: Message, error: RPCError) -> None:
        if self.node_id:
            self.reply(msg, error.to_json())

    def _init(self, msg: Message) -> None:
        node_id, node_ids = msg["body"].get("node_id"), msg["body"].get("node_ids")
        if not (
            isinstance(node_ids, list)
            and all(isinstance(other, str) and other for other in node_ids)
            and node_id in node_ids
        ):
            raise RPCError.malformed_request(f"{node_id!r} must be one of node_ids: {node_ids!r}")
        if not self._initialized:
            self.node_id, self.node_ids = node_id, node_ids
            for handler in self._init_handlers:
                handler()
            self._initialized = True
            # Timers wait for init: what they were given so far counts from now.
            now = self.now()
            self._timers = [(now + deadline, n, timer) for deadline, n, timer in self._timers]
            self._timers_changed.notify()
        elif (node_id, node_ids) != (self.node_id, self.node_ids):
            raise RPCError.malformed_request(f"this is {self.node_id} of {self.node_ids} already")
        self.reply(msg, {"type": "init_ok"})
        while self._early:
            self._handle(self._early.popleft())

    # Timers

    def _start(self, seconds: float, timer: Timer) -> Timer:
        with self._lock:
            deadline = seconds + (self.now() if self._initialized else 0.0)
            self._timers_made += 1  # of two timers with one deadline, the first made goes first
            entry = (deadline, self._timers_made, timer)
            heapq.heappush(self._timers, entry)
            if self._timers[0] is entry:
                self._timers_changed.notify()
        return timer

    def _run_timers(self) -> None:
        while True:
            with self._timers_changed:
                wait = self._timers[0][0] - self.now() if self._timers else math.inf
                if not self._initialized or wait > 0:
                    self._timers_changed.wait(min(wait, threading.TIMEOUT_MAX))
                    continue
            with self._turn():
                self._run_due_timers()

    def _run_due_timers(self) -> None:
        now = self.now()
        while self._timers and self._timers[0][0] <= now:
            _, _, timer = heapq.heappop(self._timers)
            if timer.action is not None:
                self._attempt(timer.action)
            if timer.action is not None and timer.period is not None:
                self._start(timer.period, timer)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"a number is out of range: {text[:20]}")
    return number


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_decode = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant).decode
# int() refuses numbers of thousands of digits; here they need not be right.
_decode_any_number = json.JSONDecoder(parse_int=lambda text: int(text[:1000])).decode
