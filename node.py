"""A Maelstrom node: JSON lines on stdin and stdout, handlers, RPCs and timers.

    from node import Node
    node = Node()
    @node.on("echo")
    def echo(msg):
        node.reply(msg, {"type": "echo_ok", "echo": msg["body"]["echo"]})
    node.main()

It mirrors the tutorial's node.rb. A *turn* handles all messages that have arrived, in order, then
runs the drained handlers, then writes all messages that were sent. So a node can save its state in
a drained handler, before any message leaves that depends on it. Timers take turns on another
thread. Handlers never run at the same time, except those that are registered as blocking."""

from __future__ import annotations

import contextlib
import gc
import heapq
import inspect
import itertools
import json
import math
import os
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from random import Random
from typing import Any, NoReturn, TypeVar, overload

Body = dict[str, Any]
Message = dict[str, Any]
Handler = Callable[[Message], object]
Action = Callable[[], object]
_quote = json.encoder.encode_basestring_ascii
AnyHandler = TypeVar("AnyHandler", bound=Handler)

STDIN, STDOUT, STDERR, PIPE = 0, 1, 2, 1 << 16  # bytes in a full pipe
RPC_TIMEOUT = 0.8  # seconds; the client that asked waits at least 1 s, so it can still be told


def _error(code: int) -> staticmethod[[str], RPCError]:
    return staticmethod(lambda text: RPCError(code, text))


class RPCError(Exception):
    """Raised by a handler to refuse a request: Maelstrom's doc/protocol.md, "Errors"."""

    def __init__(self, code: int, text: str) -> None:
        self.code, self.text = code, text
        # Whether the request has certainly not happened; after other errors it may have.
        self.definite = code in (1, 10, 11, 12, 14, 20, 21, 22, 30)

    def __str__(self) -> str:
        return f"error {self.code}: {self.text}"

    def to_json(self) -> Body:
        return {"type": "error", "code": self.code, "text": self.text}

    timeout = _error(0)  # the request was not done in time
    node_not_found = _error(1)
    not_supported = _error(10)  # this node has no handler for the request's type
    temporarily_unavailable = _error(11)  # the request cannot be served now
    malformed_request = _error(12)  # a field is missing, or has the wrong type
    crash = _error(13)  # the handler failed
    abort = _error(14)  # the request was given up
    key_does_not_exist = _error(20)
    key_already_exists = _error(21)
    precondition_failed = _error(22)  # a cas found another value
    txn_conflict = _error(30)  # another transaction was in the way


class Timer:
    """A call that is due at a moment. `cancel()` prevents it, and ends an `every`."""

    def __init__(self, deadline: float, action: Action | None, period: float | None = None) -> None:
        if not math.isfinite(deadline):
            raise ValueError(f"a timer cannot be due at {deadline} seconds")
        self.deadline, self.action, self.period = deadline, action, period

    def cancel(self) -> None:
        self.action = None


class Node:
    """A node; node_id and node_ids are empty until init came. main() gives it stdin and stdout."""

    def __init__(self) -> None:
        self.node_id = self._head = ""  # _head: the beginning of each line that is sent
        self.node_ids, self.other_node_ids = list[str](), list[str]()
        self.ready: Action = lambda: None  # sends init_ok; Maelstrom waits 10 s for it
        self.random = Random()  # the node's source of randomness; a simulation seeds it
        self._stdout = STDOUT
        self._early: deque[Message] | None = deque(maxlen=100_000)  # before init; None after it
        self._handlers: dict[str, Handler] = {"init": self._init}
        self._init_handlers, self._drained_handlers = deque[Action](), list[Action]()
        self._callbacks: dict[int, tuple[Handler, Timer]] = {}
        self._msg_ids = itertools.count(1)
        self._timers: list[tuple[float, int, Timer]] = []  # a heap by deadline
        self._timers_made = itertools.count()  # orders timers with the same deadline
        self._timers_limit = 0  # a longer heap is rid of cancelled timers
        self._woken = threading.Event()  # wakes the timer thread
        self._lock = threading.RLock()  # held during a turn
        self._turn_of: int | None = None  # the thread whose turn it is
        self._outbox: list[str] = []  # lines sent in this turn
        self._queue: deque[Action] = deque()  # calls of other threads, for the next turn

    @overload
    def on(self, type: str, handler: AnyHandler, *, blocking: bool = False) -> AnyHandler: ...
    @overload
    def on(self, type: str, *, blocking: bool = False) -> Callable[[AnyHandler], AnyHandler]: ...
    def on(self, type: str, handler: Any = None, *, blocking: bool = False) -> Any:
        """Calls handler(msg) for each request of this type; a type has one handler.

        `@node.on(type)` decorates a handler. A blocking handler may wait, for each of its calls has
        a thread of its own.
        """
        if not isinstance(type, str):
            raise TypeError('write @node.on("type"), with the type of the requests to handle')
        if inspect.iscoroutinefunction(handler):
            raise TypeError(f"the handler of {type!r} must be a plain def, not an async def")
        if handler is None:
            return lambda function: self.on(type, function, blocking=blocking)
        if type in self._handlers:
            raise ValueError(f"{type!r} already has a handler")
        self._handlers[type] = handler
        if blocking:
            self._handlers[type] = lambda msg: self._start_thread(lambda: self._serve(msg, handler))
        return handler

    def on_init(self, handler: Action) -> None:
        """Calls handler() once, as soon as node_id and node_ids are known, and then sends init_ok.

        If a handler returns True, init_ok waits for a call of `ready()`.
        """
        self._init_handlers.append(handler)

    def on_drained(self, handler: Action) -> None:
        """Calls handler() at the end of each turn, before its output leaves.

        If the handler raises, the node ends, and no output of the turn leaves.
        """
        self._drained_handlers.append(handler)

    def every(self, seconds: float, action: Action) -> Timer:
        """Calls action() repeatedly, `seconds` after its last call; not before init."""
        return self.after(seconds, action, period=seconds)

    def after(self, seconds: float, action: Action, period: float | None = None) -> Timer:
        """Calls action() `seconds` from now, in another turn; not before init."""
        timer = Timer(self.now() + seconds, action, period)
        self._in_turn(self._add_timer, timer)
        return timer

    def log(self, text: str) -> None:
        """Writes a line to stderr, which Maelstrom keeps in node-logs/."""
        with contextlib.suppress(OSError, ValueError):  # stderr is closed
            sys.stderr.write(text + "\n")

    def send(self, dest: str, body: Body) -> None:
        """Sends a message when the turn ends. TypeError or ValueError if body is not JSON."""
        self._in_turn(self._outbox.append, self._line(dest, body))

    def broadcast(self, body: Body) -> None:
        for node_id in self.other_node_ids:
            self.send(node_id, body)

    def reply(self, request: Message, body: Body) -> None:
        """Answers a request. A message without a msg_id gets no reply: nobody waits for one."""
        msg_id = request["body"].get("msg_id")
        if isinstance(msg_id, (int, str, float)) and self.node_id:
            self.send(request["src"], {**body, "in_reply_to": msg_id})

    def rpc(self, dest: str, body: Body, callback: Handler, timeout: float = RPC_TIMEOUT,
            on_timeout: Action = lambda: None) -> None:  # fmt: skip
        """Sends a request and calls callback(reply), or on_timeout() after `timeout` seconds."""
        msg_id = next(self._msg_ids)
        line = self._line(dest, {**body, "msg_id": msg_id})
        timer = Timer(self.now() + timeout, lambda: self._callbacks.pop(msg_id) and on_timeout())
        self._callbacks[msg_id] = (callback, timer)  # before the line can leave
        self._in_turn(self._add_timer, timer)
        self._in_turn(self._outbox.append, line)

    def brpc(self, body: Body, callback: Handler, timeout: float = RPC_TIMEOUT) -> None:
        """Sends a request to every other node; calls callback(reply) for each reply."""
        for node_id in self.other_node_ids:
            self.rpc(node_id, body, callback, timeout)

    def sync_rpc(self, dest: str, body: Body, timeout: float = RPC_TIMEOUT) -> Body:
        """Sends a request, returns the reply's body. RPCError for an error or a time-out."""
        if self._turn_of == threading.get_ident():
            raise RuntimeError("sync_rpc would block the node: use @node.on(..., blocking=True)")
        replies: SimpleQueue[Message] = SimpleQueue()
        late = RPCError.timeout(f"no reply from {dest} within {timeout} s").to_json()
        self.rpc(dest, body, replies.put, timeout, lambda: replies.put({"body": late}))
        if (answer := replies.get()["body"]).get("type") == "error":
            raise RPCError(answer.get("code", 13), answer.get("text", ""))
        return answer  # type: ignore[no-any-return]

    def main(self) -> None:
        """Runs the node until stdin closes. Blocking handlers that still run are given up.

        From here on stdout is for messages alone: print(), logging and child processes write to
        stderr. Before, print() writes to stdout, where Maelstrom takes each line for a message.
        """
        self._stdout = self._take_stdout()
        self.on_init(lambda: self._start_thread(self._run_timers))
        gc.freeze()  # garbage collections of long-lived objects would cost a store 15 %
        gc.set_threshold(50_000, 20, 100)
        unfinished: list[bytes] = []  # parts of a line that has not ended yet
        with contextlib.suppress(KeyboardInterrupt):
            while chunk := os.read(STDIN, PIPE):
                lines, newline, rest = chunk.rpartition(b"\n")
                if newline:
                    self._turn(self._receive, b"".join([*unfinished, lines]))
                unfinished = [rest] if newline else [*unfinished, rest]
            self._turn(self._receive, b"".join(unfinished))

    # These methods touch the world. A simulation replaces only them, and calls turns itself.
    def now(self) -> float:
        """Seconds on a clock that never goes back."""
        return time.monotonic()

    def _take_stdout(self) -> int:
        """Returns stdout as a file for messages alone. Its old name leads to stderr."""
        sys.stdout.flush()  # each early print shows, however Python buffers
        stdout = os.dup(STDOUT)
        os.dup2(STDERR, STDOUT)
        sys.stdout = sys.stderr
        return stdout

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # stdin will end, too
            while data:
                data = data[os.write(self._stdout, data) :]

    def _start_thread(self, action: Action) -> None:
        threading.Thread(target=action, daemon=True).start()

    def _end(self, error: BaseException) -> NoReturn:
        """Ends the node. If it went on, it might send what is not true."""
        if isinstance(error, KeyboardInterrupt):
            raise error
        said = type(getattr(error, "code", None)) is str  # sys.exit(text) needs no traceback
        why = f"{error}\n" if said else "".join(traceback.format_exception(error))
        self.log(f"{why}{self.node_id or 'the node'} ends, and drops the output of this turn")
        os._exit(1)

    def _turn(self, action: Callable[..., object], *args: Any) -> None:
        """Takes a turn on this thread: the action, the drained handlers, one write."""
        with self._lock:
            self._turn_of = threading.get_ident()
            try:
                while self._queue:
                    self._queue.popleft()()
                action(*args)
                for handler in self._drained_handlers:
                    handler()
                self._write("".join(self._outbox).encode())
                self._outbox.clear()
            except BaseException as error:
                self._end(error)
            finally:
                self._turn_of = None

    def _in_turn(self, action: Callable[..., object], *args: Any) -> None:
        """Calls action(*args): now on the thread whose turn it is, else in the next turn."""
        if self._turn_of == threading.get_ident():
            action(*args)
        else:
            self._queue.append(lambda: action(*args))
            self._woken.set()

    def _attempt(self, action: Callable[..., object], *args: Any) -> None:
        try:
            action(*args)
        except Exception:  # no request to answer: the log is all that can tell
            self.log(traceback.format_exc())

    def _line(self, dest: str, body: Body) -> str:
        if not self._head:
            raise RuntimeError("a node cannot send before init: it has no id yet")
        return f'{self._head}{_quote(dest)},"body":{encode(body)}}}\n'

    def _receive(self, data: bytes) -> None:
        """Handles lines: parsed all at once or, if one is no message, one by one."""
        lines = data.split(b"\n")
        try:
            messages = _decode(f"[{data.decode()}]".replace("\n", ",\n"))
            if len(messages) != len(lines):
                raise ValueError("a line must be one JSON object")
            for msg in messages:
                if msg["src"].__class__ is not str or msg["body"].__class__ is not dict:
                    raise TypeError("src must be a string and body an object")
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            if len(lines) > 1:
                for line in lines:
                    self._receive(line)
            elif data.strip():
                self.log(f"skipped a line that is no message: {error!r:.200} in {data[:200]!r}")
                with contextlib.suppress(Exception):  # a request with an absurd number is told so
                    msg = json.loads(data.decode(), parse_int=lambda digits: int(digits[:1000]))
                    if isinstance(msg["src"], str) and "in_reply_to" not in msg["body"]:
                        self.reply(msg, RPCError.malformed_request(str(error)).to_json())
        else:
            for msg in messages:
                self._handle(msg)

    def _handle(self, msg: Message) -> None:
        reply_to = msg["body"].get("in_reply_to")
        if self._early is not None and msg["body"].get("type") != "init":
            self._early.append(msg)
        elif reply_to is None:
            self._serve(msg)
        elif reply_to.__class__ is int and reply_to in self._callbacks:  # True would find 1
            callback, timer = self._callbacks.pop(reply_to)
            timer.cancel()
            self._attempt(callback, msg)

    def _serve(self, msg: Message, handler: Handler | None = None) -> None:
        """Serves a request. If its handler raises, the answer is an error."""
        try:
            if handler is None:
                type, msg_id = msg["body"].get("type"), msg["body"].get("msg_id", 0)
                if type.__class__ is not str or msg_id.__class__ is not int:
                    raise RPCError.malformed_request("type must be a string and msg_id an integer")
                if (handler := self._handlers.get(type)) is None:
                    raise RPCError.not_supported(f"{self.node_id} does not know {type!r:.100}")
            if isinstance(handler(msg), dict):
                type = msg["body"].get("type")
                why = "returned a dict, which nobody sends; write node.reply(msg, {...})"
                self.log(f"the handler of {type!r:.60} {why}")
        except Exception as error:
            if not isinstance(error, RPCError):
                self.log(traceback.format_exc())
                error = RPCError.crash(f"{error.__class__.__name__}: {error}")
            self._attempt(self.reply, msg, error.to_json())
        except BaseException as error:  # a blocking handler's thread would swallow it
            self._end(error)

    def _init(self, msg: Message) -> None:
        node_id, node_ids = msg["body"].get("node_id"), msg["body"].get("node_ids")
        strings = isinstance(node_ids, list) and all(isinstance(item, str) for item in node_ids)
        if not strings or not node_id or node_id not in node_ids:
            raise RPCError.malformed_request("node_ids must be strings, node_id one of them")
        if self.node_id and (node_id, node_ids) != (self.node_id, self.node_ids):
            raise RPCError.malformed_request(f"this is {self.node_id} of {self.node_ids} already")
        self.node_id, self.node_ids = node_id, node_ids
        self._head = f'{{"src":{_quote(node_id)},"dest":'
        self.other_node_ids = [other for other in node_ids if other != node_id]
        self.ready = lambda: self.reply(msg, {"type": "init_ok"})
        waits = [self._init_handlers.popleft()() for _ in [*self._init_handlers]]
        early, self._early = self._early or (), None
        if True not in waits:
            self.ready()
        for message in early:
            self._handle(message)

    def _add_timer(self, timer: Timer) -> None:
        heapq.heappush(self._timers, (timer.deadline, next(self._timers_made), timer))
        if self._timers[0][2] is timer:
            self._woken.set()
        if len(self._timers) > self._timers_limit:
            self._timers = sorted(entry for entry in self._timers if entry[2].action)
            self._timers_limit = 64 + 2 * len(self._timers)

    def _next_due(self) -> float:
        """The time of the next turn that timers or other threads need; inf for none."""
        with self._lock:
            while self._timers and not self._timers[0][2].action:
                heapq.heappop(self._timers)
            return -math.inf if self._queue else self._timers[0][0] if self._timers else math.inf

    def _run_timers(self) -> None:
        while True:
            if (wait := self._next_due() - self.now()) <= 0:
                self._turn(self._run_due)
            elif self._woken.wait(min(wait, threading.TIMEOUT_MAX)):
                self._woken.clear()

    def _run_due(self) -> None:
        """Runs due timers. A timer that is made meanwhile waits for the next turn."""
        now, due = self.now(), []
        while self._timers and self._timers[0][0] <= now:
            due.append(heapq.heappop(self._timers)[2])
        for timer in due:
            if timer.action:
                self._attempt(timer.action)
            if timer.action and timer.period is not None:
                timer.deadline = self.now() + timer.period
                self._add_timer(timer)


def _finite(text: str) -> float:
    if math.isfinite(number := float(text)):
        return number
    raise ValueError(f"a number is out of range: {text[:20]}")


def _make_encoder() -> Callable[[Any], str]:
    """Makes the json module's C encoder once, if it can be had; else a plain one."""
    plain = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
    with contextlib.suppress(Exception):
        make = getattr(json.encoder, "c_make_encoder")  # noqa: B009 (not in its stubs)
        chunks = make(None, plain.default, _quote, None, ":", ",", False, False, False)
        if "".join(chunks({"a": [1.5, None, "\n"]}, 0)) == '{"a":[1.5,null,"\\n"]}':
            return lambda value: "".join(chunks(value, 0))
    return plain.encode


encode = _make_encoder()
_decode = json.JSONDecoder(parse_float=_finite, parse_constant=_finite).decode
