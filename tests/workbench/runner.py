"""One run of a test: nodes, network, clients and nemesis, and the history that comes of it."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .cluster import Cluster
from .console import Console
from .edn import Keyword
from .history import Op
from .interrupt import Interrupted, interruptible
from .loop import SECOND, Loop
from .nemesis import KINDS, grudge
from .network import Latency, Message, Network, ProtocolError
from .options import Options
from .workload import ERRORS, NET_TIMEOUT, WORKLOADS, Body, Worker

INIT_TIMEOUT = 10 * SECOND
# The real Maelstrom starts its services first, so n0's init comes when the others are at work:
# a message from a peer may arrive before it.
LATE_INIT = SECOND // 5
KEPT_REPLIES = 1000  # answered requests that a client remembers, to find a second, other reply


@dataclass
class Record:
    """What a run leaves behind."""

    history: list[Op] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # broken rules, each one fails the test
    crash: str = ""  # why the run could not go on
    cut_short: str = ""  # by what signal, after how long


class Client:
    """Sends one request at a time, and waits for its reply: maelstrom.client."""

    def __init__(self, runner: Runner, client_id: str) -> None:
        self.client_id = client_id
        self._runner = runner
        self._msg_id = 0
        self._waiting: tuple[int, Any] | None = None
        self._answered: dict[int, Body] = {}
        runner.network.add_client(client_id, self._receive)

    def call(self, dest: str, body: Body, timeout: int, done: Any) -> None:
        """Sends a request; done(reply, src) is called once, with None at the time-out (ns)."""
        self._msg_id += 1
        msg_id = self._msg_id
        self._waiting = (msg_id, done)

        def give_up() -> None:
            if self._waiting and self._waiting[0] == msg_id:
                self._waiting = None
                done(None, dest)

        self._runner.loop.after(timeout, give_up)
        body = {**body, "msg_id": msg_id}
        self._runner.network.send({"src": self.client_id, "dest": dest, "body": body})

    def _receive(self, message: Message) -> None:
        body, src = message["body"], message["src"]
        msg_id = body.get("in_reply_to")
        if self._waiting and type(msg_id) is int and msg_id == self._waiting[0]:
            _, done = self._waiting
            self._waiting = None
            self._answered[msg_id] = body
            if len(self._answered) > KEPT_REPLIES:
                del self._answered[next(iter(self._answered))]
            done(body, src)
        elif type(msg_id) is int and msg_id in self._answered:
            first = self._answered[msg_id]
            if meaning(first) != meaning(body):
                self._runner.problem(
                    f"{self.client_id}'s request {msg_id} was answered twice, and differently: "
                    f"first {first}, then {body} by {src}"
                )


def meaning(reply: Body) -> object:
    """What two replies to one request must not differ in."""
    kept = {"type", "code"} if reply.get("type") == "error" else reply.keys() - {"msg_id"}
    return {key: reply.get(key) for key in kept}


class Runner:
    """Runs one test as the options say, in real time, and writes the nodes' logs to `logs`."""

    def __init__(self, options: Options, rng: random.Random, logs: Path, console: Console) -> None:
        self.loop = Loop()
        self.record = Record()
        self.workload = WORKLOADS[options.workload](rng, options.node_count)
        self._options = options
        self._rng = rng
        self._console = console
        self._node_ids = options.node_ids
        self._cluster = Cluster(
            self.loop,
            [str(options.bin), *options.args],
            logs,
            on_line=self._on_line,
            on_exit=self._on_exit,
            on_stderr=self._on_stderr,
        )
        self.network = Network(
            self.loop,
            rng,
            self._node_ids,
            Latency(options.latency, options.latency_dist),
            self._cluster.deliver,
            self._log_message,
        )
        self._clients = 0
        self._workers = [Worker(n, n) for n in range(options.concurrency)]
        self._busy: dict[int, Client] = {}  # by thread
        self._conns: list[Client] = []
        self._end = 0
        self._start = 0
        self._stalled = False  # an operation is due, but all workers are busy
        self._fault = ""
        self._initialized: set[str] = set()

    def run(self) -> Record:
        """Runs it all; whatever happens, nothing is left running."""
        with interruptible():
            try:
                self._start_nodes()
                self._work()
            except Interrupted as interrupt:
                seconds = self._time() / SECOND
                self.record.cut_short = f"cut short by {interrupt} after {seconds:.1f} s"
            except OSError as error:
                self.record.crash = f"cannot run {self._options.bin}: {error.strerror or error}"
        # A second Ctrl-C must not leave a node behind.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if _in_main_thread() else None
        try:
            self._cluster.stop()
        finally:
            if _in_main_thread():
                signal.signal(signal.SIGINT, before)
            self._console.progress("")
        return self.record

    def problem(self, text: str) -> None:
        """Notes a broken rule, which fails the test."""
        self.record.problems.append(text)
        self._console.warn(text)

    # Nodes

    def _start_nodes(self) -> None:
        for node_id in self._node_ids:
            self._cluster.start(node_id)
        first, *others = self._node_ids
        for node_id in others:
            self._init(node_id)
        late = int(self._rng.uniform(0, LATE_INIT)) if others else 0
        self.loop.after(late, lambda: self._init(first))
        self.loop.run_until(
            lambda: bool(self.record.crash) or len(self._initialized) == len(self._node_ids)
        )

    def _init(self, node_id: str) -> None:
        def done(reply: Body | None, src: str) -> None:
            if reply is None:
                self._crash(f"{node_id} did not answer init within {INIT_TIMEOUT // SECOND} s")
            elif reply.get("type") != "init_ok":
                self._crash(f"{node_id} answered init not by init_ok but by {reply}")
            else:
                self._initialized.add(node_id)

        body = {"type": "init", "node_id": node_id, "node_ids": list(self._node_ids)}
        self._client().call(node_id, body, INIT_TIMEOUT, done)

    def _client(self) -> Client:
        client = Client(self, f"c{self._clients}")
        self._clients += 1
        return client

    def _on_line(self, node_id: str, line: bytes) -> None:
        try:
            self.network.from_node(node_id, line)
        except ProtocolError as error:
            self.problem(str(error))

    def _on_exit(self, node_id: str, why: str) -> None:
        self._crash(f"{node_id} {why}")

    def _on_stderr(self, node_id: str, line: str) -> None:
        if self._options.log_stderr:
            self._console.info(f"{node_id} stderr", line)

    def _log_message(self, direction: str, message: Message) -> None:
        wanted = {"send": self._options.log_net_send, "recv": self._options.log_net_recv}
        if wanted[direction]:
            self._console.info("net", f":{direction} {message}")

    def _crash(self, why: str) -> None:
        self.record.crash = self.record.crash or why

    # Clients

    def _time(self) -> int:
        return self.loop.now() - self._start

    def _work(self) -> None:
        if self.record.crash:
            return
        options = self._options
        self._conns = [self._client() for _ in self._workers]
        self._start = self.loop.now()
        self._end = self._start + int(options.time_limit * SECOND)
        if options.rate:
            self._next_operation(self._start)
        if "partition" in options.nemesis:
            self.loop.after(self._nemesis_pause(), self._partition)
        self._report_progress()
        self.loop.run_until(
            lambda: bool(self.record.crash)
            or (self.loop.now() >= self._end and not self._busy)
        )

    def _next_operation(self, due: int) -> None:
        """Invokes operations from `due` on, each 0 to 2/rate after the one before (gen/stagger).

        With all workers busy it waits for one of them, and does not catch up afterwards.
        """

        def invoke() -> None:
            if self.loop.now() >= self._end:
                return
            free = [worker for worker in self._workers if worker.thread not in self._busy]
            if free:
                self._invoke(*self.workload.next(free, self._workers))
                pause = int(self._rng.uniform(0, 2 / self._options.rate) * SECOND)
                self._next_operation(max(due, self.loop.now()) + pause)
            else:
                self._stalled = True

        self.loop.at(due, invoke)

    def _invoke(self, worker: Worker, f: str, value: Any) -> None:
        node_id = self._node_ids[worker.process % len(self._node_ids)]
        process = worker.process
        self._busy[worker.thread] = conn = self._conns[worker.thread]
        self._note(process, "invoke", f, value)

        def done(reply: Body | None, src: str) -> None:
            type, result, error = self._outcome(f, value, reply, src)
            self._note(process, type, f, result, error)
            if type == "info":
                worker.process += len(self._workers)
            del self._busy[worker.thread]
            if self._stalled:
                self._stalled = False
                self._next_operation(self.loop.now())

        seconds = self.workload.timeout or max(1.0, 10 * self._options.latency / 1000)
        conn.call(node_id, self.workload.request(f, value), int(seconds * SECOND), done)

    def _outcome(self, f: str, value: Any, reply: Body | None, src: str) -> tuple[str, Any, Any]:
        """The completion of an operation: type, value, error (maelstrom.client/with-errors)."""
        # A read changes nothing, so one without an answer might as well not have happened.
        unknown = "fail" if f == "read" else "info"
        if reply is None:
            return unknown, value, NET_TIMEOUT
        if reply.get("type") == "error":
            code = reply.get("code")
            if type(code) is int:
                name, definite = ERRORS.get(code, ("unknown", False))
                error = [Keyword(name) if code in ERRORS else code, reply.get("text")]
                return ("fail" if definite else unknown), value, error
            problem = f"the code of an error must be an integer, not {code!r}"
        else:
            try:
                return "ok", self.workload.complete(f, value, reply), None
            except ValueError as error:
                problem = str(error)
        self.problem(f"{src} sent a malformed reply to {f} {value}: {problem}: {reply}")
        return "info", value, Keyword("malformed-rpc-response")

    def _note(self, process: int | str, type: str, f: str, value: Any, error: Any = None) -> None:
        op = Op(process, type, f, value, self._time(), len(self.record.history), error)
        self.record.history.append(op)
        thread = process if isinstance(process, str) else f"worker {process % len(self._workers)}"
        self._console.op(thread, op)

    # Nemesis

    def _nemesis_pause(self) -> int:
        return int(self._rng.uniform(0, 2 * self._options.nemesis_interval) * SECOND)

    def _partition(self) -> None:
        if self.loop.now() >= self._end:
            return
        if self._fault:
            self._fault = ""
            self.network.grudge = {}
            self._note("nemesis", "info", "stop-partition", None)
            self._note("nemesis", "info", "stop-partition", Keyword("network-healed"))
        else:
            self._fault = self._rng.choice(KINDS)
            self.network.grudge = cut = grudge(self._fault, self._node_ids, self._rng)
            self._note("nemesis", "info", "start-partition", Keyword(self._fault))
            isolated = [Keyword("isolated"), {node: frozenset(cut[node]) for node in cut}]
            self._note("nemesis", "info", "start-partition", isolated)
        self.loop.after(self._nemesis_pause(), self._partition)

    # Progress

    def _report_progress(self) -> None:
        if self.loop.now() >= self._end:
            return
        if self._console.lost:  # nobody is left to read how it goes on
            self._crash(f"stdout cannot be written to: {self._console.lost.strerror}")
        seconds = self._time() / SECOND
        done: Sequence[Op] = [op for op in self.record.history if op.type in ("ok", "fail")]
        rate = len(done) / seconds if seconds else 0.0
        left = (self._end - self.loop.now()) / SECOND
        fault = f", partition: {self._fault}" if self._fault else ""
        self._console.progress(f"{len(done)} operations, {rate:.1f}/s{fault}, {left:.0f} s left")
        self.loop.after(self._console.progress_interval, self._report_progress)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
