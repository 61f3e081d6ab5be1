"""A Maelstrom node: JSON lines on stdin and stdout, handlers, RPCs and timers.

    from node import Node
    node = Node()

    @node.on("echo")
    def echo(msg):
        node.reply(msg, {"type": "echo_ok", "echo": msg["body"]["echo"]})

    node.main()

It mirrors the tutorial's node.rb. All that has arrived is handled in one *turn*: its messages in
order, then the drained handlers, then one write of everything that was sent. So a burst costs one
system call, and a node can save its state once, in a drained handler, before anything that
depends on it leaves. Timers take turns on another thread. Turns exclude each other: no two
handlers run at the same time, unless one was registered as blocking.
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
from collections.abc import Callable, Iterable
from functools import partial
from queue import Empty, SimpleQueue
from random import Random
from typing import Any

Body = dict[str, Any]
Message = dict[str, Any]
Handler = Callable[[Message], object]
Action = Callable[[], object]

STDIN, STDOUT = 0, 1
READ_SIZE = 1 << 16  # bytes: what a pipe holds
RPC_TIMEOUT = 5.0  # seconds, as Maelstrom's own clients wait


def _error(code: int) -> staticmethod[[str], RPCError]:
    return staticmethod(lambda text: RPCError(code, text))


class RPCError(Exception):
    """An error that a request is answered with: Maelstrom's doc/protocol.md, "Errors".

    Raise it in a handler, or reply with its `to_json()`. A *definite* error promises that the
    operation never happens; after another, or one of an unknown code, it may have happened.
    """

    DEFINITE = frozenset({1, 10, 11, 12, 14, 20, 21, 22, 30})

    def __init__(self, code: int, text: str) -> None:
        self.code, self.text = code, text

    @property
    def definite(self) -> bool:
        """Whether the operation certainly did not happen."""
        return self.code in self.DEFINITE

    def to_json(self) -> Body:
        return {"type": "error", "code": self.code, "text": self.text}

    timeout = _error(0)  # it was not done in time
    node_not_found = _error(1)
    not_supported = _error(10)  # this node does not know this kind of request
    temporarily_unavailable = _error(11)  # it cannot be done now
    malformed_request = _error(12)  # it lacks something, or has something of the wrong type
    crash = _error(13)  # the node failed in the middle of it
    abort = _error(14)  # it was given up
    key_does_not_exist = _error(20)
    key_already_exists = _error(21)
    precondition_failed = _error(22)  # what the request expected does not hold, as in a cas
    txn_conflict = _error(30)  # another transaction was in the way


class Timer:
    """A call that is due at a moment; `cancel()` takes it back, and an `every` ends."""

    def __init__(self, action: Action, period: float | None = None) -> None:
        self.action: Action | None = action
        self.period = period

    def cancel(self) -> None:
        self.action = None


class Node:
    """A node on stdin and stdout; node_id and node_ids are empty until init came."""

    def __init__(self) -> None:
        self.node_id = ""
        self.node_ids: list[str] = []
        self.random = Random()  # where a node takes its chances
        self._initialized = False
        self._early: deque[Message] = deque(maxlen=100_000)
        self._handlers: dict[str, Handler] = {}
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
    def on(self, type: str, handler: Handler | None = None, *, blocking: bool = False) -> Any:
        """Calls handler(msg) for each request of this type, which must have no handler yet.

        `@node.on(type)` decorates one. A blocking one may wait: each call has its own thread.
        """
        if handler is None:
            return lambda function: self.on(type, function, blocking=blocking)
        if type in self._handlers:
            raise ValueError(f"there is a handler for {type!r} already")
        self._handlers[type] = handler
        if blocking:
            self._handlers[type] = lambda msg: threading.Thread(
                target=self._answer, args=(handler, msg), daemon=True
            ).start()
        return handler

    def on_init(self, handler: Action) -> None:
        """Calls handler() once, when node_id and node_ids are known, before init_ok leaves."""
        self._init_handlers.append(handler)

    def on_drained(self, handler: Action) -> None:
        """Calls handler() at the end of each turn: all input is handled, no output has left."""
        self._drained_handlers.append(handler)

    def every(self, seconds: float, action: Action) -> Timer:
        """Calls action() again and again, `seconds` after its last call; not before init."""
        return self._start(seconds, Timer(action, seconds))

    def after(self, seconds: float, action: Action) -> Timer:
        """Calls action() once, `seconds` from now; not before init."""
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
        return [node_id for node_id in self.node_ids if node_id != self.node_id]

    def send(self, dest: str, body: Body) -> None:
        """Sends a message when the turn ends; RuntimeError before init, TypeError if not JSON."""
        if not self.node_id:
            raise RuntimeError("this node has no id before init: it cannot send")
        line = _encode({"src": self.node_id, "dest": dest, "body": body}) + "\n"
        if self._turn_of == threading.get_ident():
            self._outbox.append(line)
        else:
            self._turn(lambda: self._outbox.append(line))

    def broadcast(self, body: Body) -> None:
        for node_id in self.other_node_ids:
            self.send(node_id, body)

    def reply(self, request: Message, body: Body) -> None:
        """Answers a request; a message without a msg_id is none: nobody waits for a reply."""
        msg_id = request["body"].get("msg_id")
        if isinstance(msg_id, (int, str, float)) and self.node_id:
            self.send(request["src"], {**body, "in_reply_to": msg_id})

    def rpc(self, dest: str, body: Body, callback: Handler, timeout: float = RPC_TIMEOUT) -> None:
        """Sends a request and calls callback(reply), unless no reply comes for timeout seconds."""
        with self._lock:
            self._next_msg_id += 1
            msg_id = self._next_msg_id
            self._callbacks[msg_id] = callback
        self.after(timeout, lambda: self._callbacks.pop(msg_id, None))
        self.send(dest, {**body, "msg_id": msg_id})

    def brpc(self, body: Body, callback: Handler, timeout: float = RPC_TIMEOUT) -> None:
        """Sends a request to every other node; calls callback(reply) for each reply."""
        for node_id in self.other_node_ids:
            self.rpc(node_id, body, callback, timeout)

    def sync_rpc(self, dest: str, body: Body, timeout: float = RPC_TIMEOUT) -> Body:
        """Sends a request, returns the body of its reply; RPCError for an error or a time-out."""
        if self._turn_of == threading.get_ident():
            raise RuntimeError("sync_rpc would block the node: on(type, handler, blocking=True)")
        replies: SimpleQueue[Message] = SimpleQueue()
        self.rpc(dest, body, replies.put, timeout)
        try:
            answer: Body = replies.get(timeout=timeout)["body"]
        except Empty:
            raise RPCError.timeout(f"no reply from {dest} within {timeout} s") from None
        if answer.get("type") == "error":
            raise RPCError(answer.get("code", 13), answer.get("text", ""))
        return answer

    def main(self) -> None:
        """Runs the node until stdin closes. Output of print() goes to stderr meanwhile."""
        unfinished: list[bytes] = []  # the parts of a line whose end has not arrived
        with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(KeyboardInterrupt):
            while chunk := os.read(STDIN, READ_SIZE):
                lines, newline, rest = chunk.rpartition(b"\n")
                if newline:
                    self._turn(partial(self._receive, b"".join([*unfinished, lines]).split(b"\n")))
                    unfinished.clear()
                unfinished.append(rest)
            self._turn(partial(self._receive, [b"".join(unfinished)]))

    def _turn(self, action: Action) -> None:
        """A turn of this thread: the action, then the drained handlers, then one write."""
        with self._lock:
            self._turn_of = threading.get_ident()
            try:
                action()
                for handler in self._drained_handlers:
                    self._attempt(handler)
                data, self._outbox = "".join(self._outbox).encode(), []
                while data:
                    data = data[os.write(STDOUT, data) :]
            except BrokenPipeError:  # nobody reads it any more: stdin will end soon, too
                pass
            finally:
                self._turn_of = None

    def _attempt(self, action: Action) -> None:
        """Calls what belongs to no request, so that its failure ends nothing."""
        try:
            action()
        except Exception:
            self.log(traceback.format_exc())

    def _receive(self, lines: Iterable[bytes]) -> None:
        for line in filter(bytes.strip, lines):
            try:
                msg = _decode(line.decode())
                if msg["src"].__class__ is not str or msg["body"].__class__ is not dict:
                    raise TypeError("src must be a string and body an object")
            except (ValueError, LookupError, TypeError, RecursionError) as error:
                self._refuse(line, error)
            else:
                self._handle(msg)

    def _refuse(self, line: bytes, error: Exception) -> None:
        """Logs a line that is no message; answers it if it is one but for a number in it."""
        self.log(f"skipped a line that is no message: {error!r:.200} in {line[:200]!r}")
        with contextlib.suppress(Exception):
            msg = _decode_any_number(line.decode())
            if isinstance(msg["src"], str) and "in_reply_to" not in msg["body"]:
                self.reply(msg, RPCError.malformed_request(str(error)).to_json())

    def _handle(self, msg: Message) -> None:
        reply_to = msg["body"].get("in_reply_to")
        if not self._initialized and msg["body"].get("type") != "init":
            self._early.append(msg)
        elif reply_to is not None:
            # True would find the callback of 1, and a list cannot be looked up.
            callback = self._callbacks.pop(reply_to, None) if reply_to.__class__ is int else None
            if callback:
                self._attempt(partial(callback, msg))
        else:
            self._answer(self._request, msg)

    def _request(self, msg: Message) -> None:
        type, msg_id = msg["body"].get("type"), msg["body"].get("msg_id", 0)
        if type.__class__ is not str or msg_id.__class__ is not int:
            raise RPCError.malformed_request("type must be a string, and msg_id an integer")
        if type not in self._handlers:
            raise RPCError.not_supported(f"{self.node_id} does not know {type!r:.100}")
        self._handlers[type](msg)

    def _answer(self, handler: Handler, msg: Message) -> None:
        """Handles a request; whatever becomes of it, there is an answer."""
        try:
            handler(msg)
        except RPCError as error:
            self._attempt(partial(self.reply, msg, error.to_json()))
        except Exception as error:
            self.log(traceback.format_exc())
            crash = RPCError.crash(f"{error.__class__.__name__}: {error}")
            self._attempt(partial(self.reply, msg, crash.to_json()))

    def _init(self, msg: Message) -> None:
        node_id, node_ids = msg["body"].get("node_id"), msg["body"].get("node_ids")
        strings = isinstance(node_ids, list) and all(isinstance(item, str) for item in node_ids)
        if not strings or not node_id or node_id not in node_ids:
            raise RPCError.malformed_request("node_ids must be strings, node_id one of them")
        if not self._initialized:
            self.node_id, self.node_ids = node_id, node_ids
            for handler in self._init_handlers:
                handler()
            self._initialized = True
            threading.Thread(target=self._run_timers, name="timers", daemon=True).start()
        elif (node_id, node_ids) != (self.node_id, self.node_ids):
            raise RPCError.malformed_request(f"this is {self.node_id} of {self.node_ids} already")
        self.reply(msg, {"type": "init_ok"})
        while self._early:
            self._handle(self._early.popleft())

    def _start(self, seconds: float, timer: Timer) -> Timer:
        with self._lock:
            self._timers_made += 1  # of two timers with one deadline, the first made goes first
            entry = (self.now() + seconds, self._timers_made, timer)
            heapq.heappush(self._timers, entry)
            if self._timers[0] is entry:
                self._timers_changed.notify()
        return timer

    def _run_timers(self) -> None:
        while True:
            self._turn(self._run_due)
            with self._timers_changed:
                due = self._timers[0][0] if self._timers else math.inf
                self._timers_changed.wait(min(max(0, due - self.now()), threading.TIMEOUT_MAX))

    def _run_due(self) -> None:
        now = self.now()
        while self._timers and self._timers[0][0] <= now:
            _, _, timer = heapq.heappop(self._timers)
            if timer.action:
                self._attempt(timer.action)
            if timer.action and timer.period is not None:
                self._start(timer.period, timer)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"a number is out of range: {text[:20]}")
    return number


_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_decode = json.JSONDecoder(parse_float=_finite, parse_constant=_finite).decode
# int() refuses numbers of thousands of digits; here they need not be right.
_decode_any_number = json.JSONDecoder(parse_int=lambda text: int(text[:1000])).decode
