"""Runs a test with nodes, network, clients and nemesis, and records its history."""

from __future__ import annotations

import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..console.console import Console
from ..console.progress import Progress
from ..network.nemesis import Nemesis
from ..network.network import HAD_INIT, Latency, Message, Network, ProtocolError
from ..record import edn
from ..record.history import Op
from ..record.journal import Journal
from ..record.life import Ear, Line
from ..services.host import Host
from ..simulation.loop import Loop, Standstill, dice
from ..units import SECOND
from ..workloads import WORKLOADS
from ..workloads.workload import ERRORS, Body, Ending, Extras, Final, Worker, Workload
from .client import Client, Outcome, shown, wanted
from .cluster import FLUSH, Cluster
from .interrupt import Interrupted, interruptible
from .options import Options

INIT_TIMEOUT = 10 * SECOND
# Maximum delay of the first node's init. In the real Maelstrom it comes after the others', so a
# message from another node may arrive before it.
LATE_INIT = SECOND // 5
CATCH_UP = SECOND // 10  # after a longer delay, the schedule skips the operations that were due
READMITTED = ", a member: "  # part of a line on stderr of a node that counts, as raft.py writes it
RECOVERY = 10 * SECOND  # time without operations before the final phase
LONG = 300  # characters shown of a line
RATE_KEPT = 0.97  # a run with a smaller share of the requested operations reports its rate


@dataclass
class Record:
    """The record of a run."""

    history: list[Op] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # broken rules; any of them fails the test
    # Sentences for the user about the nodes, besides the verdict; they do not change it.
    notes: list[str] = field(default_factory=list)
    # Sentences about replies that match no request, the first of each node.
    unmatched: list[str] = field(default_factory=list)
    # Sentences about requests that got no reply for an unknown reason, the first of each node.
    silence: list[str] = field(default_factory=list)
    # The reply that was wanted where the first error came, by kind of operation.
    wanted: dict[str, str] = field(default_factory=dict)
    # Sentences about what the real Maelstrom lets pass, by kind, and how often it came. They do not
    # change the verdict.
    warnings: dict[str, tuple[str, int]] = field(default_factory=dict)
    codes: dict[int, int] = field(default_factory=dict)  # unknown error codes, by index of the op
    rate_note: str = ""  # requested and reached rate, if the clients could not keep the rate
    crash: str = ""  # reason if the run was aborted, else ""
    cut_short: str = ""  # signal and time if the user stopped the run, else ""
    life: list[Line] = field(default_factory=list)  # the nodes' lines about their roles
    messages: Iterable[str] = ()  # lines of messages.jsonl; empty without a journal


def timeout(workload: Workload, options: Options) -> float:
    """Returns how many seconds a client waits for a reply."""
    return workload.timeout or max(1.0, 10 * options.latency / 1000)


class Schedule:
    """Decides when operations start.

    Time is divided into slots of 1/rate seconds; each operation starts at a random moment of its
    slot. Two operations are 0 to 2/rate seconds apart, as with Jepsen's gen/stagger. Slots keep
    the rate exact, since a late operation does not delay the next ones.
    """

    def __init__(self, rate: float, rng: random.Random) -> None:
        self._rate = rate
        self._rng = rng
        self._slot = 0.0  # start of the next operation's slot, in ns

    def next(self, now: int) -> int:
        """Returns when the next operation is due, in ns since the start of the run."""
        length = SECOND / self._rate
        slot = max(self._slot, now - CATCH_UP)
        self._slot = slot + length
        return int(slot + self._rng.random() * length)


class Runner:
    """Runs one test with the given options, event loop and cluster."""

    def __init__(
        self,
        options: Options,
        loop: Loop,
        cluster: Cluster,
        console: Console,
        data_dir: Path | None = None,
    ) -> None:
        self.loop = loop
        self.record = Record()
        self._data_dir = data_dir  # folder of the nodes' files
        self._wiped = ""  # node that lost its files and is not readmitted; "" if there is none
        self._options = options
        self._console = console
        self._node_ids = options.node_ids
        self._cluster = cluster
        self.workload = WORKLOADS[options.workload](
            dice(options.seed, "workload"), options.settings
        )
        self.network = Network(
            loop,
            dice(options.seed, "network"),
            Latency(options.latency, options.latency_dist),
            self._deliver,
            self._log_message,
            options.independent_delivery,
            self.warn,
        )
        # The services exist before the first node does, so each init finds them.
        Host(self.network, dice(options.seed, "services"), self.note)
        # Nodes that have not answered init yet, with the client that sent it (None: not sent).
        self._inits: dict[str, Client | None] = dict.fromkeys(self._node_ids)
        self._nemesis = Nemesis(
            loop,
            dice(options.seed, "nemesis"),
            self._node_ids,
            self.network,
            options.nemesis,
            options.nemesis_interval,
            lambda f, value: self._note("nemesis", "info", f, value),
            rest_seconds=options.nemesis_rest,
            kinds=options.partition_kinds,
            loss=options.loss,
            duplicate=options.duplicate,
            targets=options.kill_targets,
            machines=cluster,
            kill=self._kill,
            restart=self._restart,
            wipe=options.wipe,
            wipe_one=self._wipe_one,
            starting=self._inits,
        )
        self._schedule = Schedule(options.rate, dice(options.seed, "schedule"))
        self._clients = 0
        self._workers = [Worker(n, n) for n in range(options.concurrency)]
        self._busy: set[int] = set()  # threads of workers that wait for a reply
        self._conns: dict[int, Client] = {}  # by thread; opened by its first operation
        self._stale: dict[int, str] = {}  # threads whose client must be replaced, and why
        self._unfinished: set[int] = set()  # threads that are in the final phase
        self._end = 0
        self._over = False  # the time limit has passed
        self._invoked = 0  # number of operations
        self._stalled = False  # an operation is due, but all workers are busy
        self._explained: set[str] = set()  # nodes with a note about an unanswered request
        self._silent: set[str] = set()  # nodes with a sentence in the record's silence
        self._timed_out = 0  # number of requests
        self._printed: Counter[str] = Counter()  # lines of each node
        self._last_words: dict[str, str] = {}  # last line of each node on stderr
        self._to_itself: dict[str, Body] = {}  # each node's last reply to itself
        self._surplus: Counter[str] = Counter()  # each node's messages that no client waited for
        self._first_surplus: dict[str, str] = {}
        self._called_off: set[str] = set()  # clients whose node was killed before init_ok
        self.journal: Journal | None = None  # records messages; None: messages are not recorded
        self._ear = Ear()  # times are the loop's, since lines come before the history begins
        self._progress = Progress(self.record.history, self._ear, options.time_limit)

    def run(self) -> Record:
        """Runs the test, then stops the nodes, also after a failure."""
        with interruptible():
            try:
                self._start_nodes()
                self._work()
            except Interrupted as interrupt:
                seconds = self.loop.run_time() / SECOND
                self.record.cut_short = f"cut short by {interrupt} after {seconds:.1f} s"
            except Standstill as error:
                self._crash(str(error))
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
        start = self.loop.run_start or 0
        for time, node_id, line in self._ear.lines:
            self.record.life.append(Line(time - start, node_id, line))
        if self.journal:
            self.record.messages = self.journal.to_jsonl(start)
        return self.record

    def problem(self, text: str) -> None:
        """Records a broken rule, which fails the test."""
        self.record.problems.append(text)
        self._console.warn(text)

    def warn(self, kind: str, text: str) -> None:
        """Records what a node should not do and the real Maelstrom lets pass.

        The first of a kind is told. With --strict it fails the test.
        """
        if self._options.strict:
            self.problem(text)
            return
        first, count = self.record.warnings.get(kind, (text, 0))
        self.record.warnings[kind] = first, count + 1
        if not count:
            self._console.warn(text)

    def note(self, text: str) -> None:
        """Records a sentence for the user that does not change the verdict."""
        self.record.notes.append(text)
        self._console.warn(text)

    # Nodes

    def _start_nodes(self) -> None:
        for node_id in self._node_ids:
            self._cluster.start(node_id, self)
        first, *others = self._node_ids
        for node_id in others:
            self.network.add_node(node_id)
        for node_id in others:
            self._init(node_id)
        self.network.expect_node(first)
        rng = dice(self._options.seed, "start")
        late = sorted(int(rng.uniform(0, LATE_INIT)) if others else 0 for _ in range(2))
        self.loop.after(late[0], lambda: self.network.add_node(first))
        self.loop.after(late[1], lambda: self._init(first))
        self.loop.run_until(
            lambda: self._broken() or not self._inits
        )

    def _deliver(self, node_id: str, message: Message) -> None:
        if message["src"] not in self._called_off:
            self._cluster.deliver(node_id, message)

    def _kill(self, node_id: str) -> None:
        self._cluster.kill(node_id)
        self._ear.forget(node_id)
        if client := self._inits.pop(node_id, None):  # the restarted node gets a new init
            client.give_up()
            self._called_off.add(client.client_id)

    def _wipe_one(self, node_ids: Sequence[str]) -> str:
        """Removes the files of one of these killed nodes; returns the node, or "" if none may be.

        A majority must not forget at once. So while a wiped node is not readmitted, no other node
        loses its files.
        """
        found = next((node_id for node_id in node_ids if self._wiped in ("", node_id)), "")
        if found and self._data_dir:
            self._wiped = found
            self._cluster.wiped(found)
            for file in self._data_dir.glob(f"{found}.*"):
                file.unlink()
        return found

    def _restart(self, node_id: str) -> None:
        try:
            self._cluster.start(node_id, self)
        except OSError as error:
            self._crash(f"cannot run {self._options.bin} again: {error.strerror or error}")
        else:
            self._init(node_id)

    def _init(self, node_id: str) -> None:
        client = self._inits[node_id] = self._client()

        def done(reply: Body | None, src: str) -> None:
            self.network.close_client(client.client_id, HAD_INIT)
            if reply is None:
                late = f"{node_id} did not answer init within {INIT_TIMEOUT // SECOND} s"
                why = self._cluster.unsent(node_id) or "it must send a reply of the type init_ok"
                self._crash(
                    f"{client.stray or f'{late}: {why}'}\n"
                    f"The reply that is wanted: {wanted(client.request)}"
                )
            elif reply.get("type") != "init_ok":
                self._crash(
                    f"{node_id} must answer init with a reply of the type init_ok, but sent "
                    f"{shown(reply)}"
                )
            else:
                del self._inits[node_id]

        body = {"type": "init", "node_id": node_id, "node_ids": list(self._node_ids)}
        client.call(node_id, body, INIT_TIMEOUT, done)

    def _client(self) -> Client:
        client = Client(
            f"c{self._clients}",
            self.loop,
            self.network,
            lambda text: self.warn("contradiction", text),
            self._on_surplus,
        )
        self._clients += 1
        return client

    def on_line(self, node_id: str, line: bytes) -> None:
        """Sends a node's message through the network."""
        self._printed[node_id] += 1
        try:
            self.network.from_node(node_id, line)
        except ProtocolError as error:
            self.problem(str(error))

    def on_exit(self, node_id: str, why: str) -> None:
        """Aborts the run, since no node may end by itself."""
        clients = [*self._conns.values(), *filter(None, self._inits.values())]
        requests = [
            client.request for client in clients if client.waiting and client.dest == node_id
        ]
        had = ""
        if requests and why.startswith("ended"):  # not if its log cannot be written
            had = f"\n{node_id} had this request when it ended: {shown(requests[0])}"
            had += f" (and {len(requests) - 1} more)" if len(requests) > 1 else ""
        self._crash(f"{node_id} {why}{had}")

    def on_stderr(self, node_id: str, line: str) -> None:
        """Records role changes in a node's line, and prints the line with --log-stderr."""
        self._ear.hear(self.loop.now(), node_id, line)
        self._last_words[node_id] = line
        if node_id == self._wiped and READMITTED in line:
            self._wiped = ""
        if self._options.log_stderr:
            self._console.info(f"{node_id} stderr", line)

    def _log_message(self, direction: str, message: Message) -> None:
        if self.journal:
            self.journal.log(direction, message)
        body = message["body"]
        if message["src"] == message["dest"] and body.get("in_reply_to") is not None:
            self._to_itself[message["src"]] = body
        options = self._options
        if options.log_net_send if direction == "send" else options.log_net_recv:
            self._console.info("net", f":{direction} {shown(message)}")

    def _crash(self, why: str) -> None:
        self.record.crash = self.record.crash or why

    def _broken(self) -> bool:
        """Returns whether to end the run: after a broken rule, the verdict is known."""
        return bool(self.record.crash or self.record.problems)

    # Clients

    def _work(self) -> None:
        if self._broken():
            return
        options = self._options
        setup_clients = {node_id: self._client() for node_id in self._node_ids}
        self.loop.start_run()
        self._set_up(setup_clients)
        if self._broken():
            return
        self._end = self.loop.now() + int(options.time_limit * SECOND)
        if options.rate:  # with --rate 0 the clients do nothing, as in the real Maelstrom
            self._next_operation()
        self._nemesis.start(self._end)
        self._report_progress()
        final = self.workload.final
        self.loop.at(self._end, self._finish)
        self._wait(lambda: self._over and not self._busy)
        if not self._broken():
            self._nemesis.heal()
        self._wait(lambda: not self._inits)
        if not self._broken():
            self.record.rate_note = self._rate_note()
            self._note_surplus()
        if final and not self._broken():
            self._conclude(final)

    def _set_up(self, clients: Mapping[str, Client]) -> None:
        """Sends the workload's set-up request to each node, and waits for all replies."""
        request = self.workload.set_up(self._node_ids)
        if not request:
            return
        f, value = request
        waiting = set(self._node_ids)
        seconds = timeout(self.workload, self._options)

        def ask(node_id: str, client: Client) -> None:
            def done(found: Outcome, reply: Body | None, src: str) -> None:
                waiting.remove(node_id)
                if found.type == "ok":
                    return
                if reply is None:
                    why = client.stray or self._cluster.unsent(node_id)
                    self._crash(
                        f"{node_id} did not answer {f} within {seconds:g} s: "
                        f"{why or f'it must send a reply of the type {f}_ok'}"
                    )
                else:
                    self._crash(
                        f"{node_id} must answer {f} with a reply of the type {f}_ok and nothing "
                        f"else, but sent {shown(reply)}"
                    )

            client.perform(node_id, self.workload, f, value, int(seconds * SECOND), done)

        for node_id, client in clients.items():
            ask(node_id, client)
        self._wait(lambda: not waiting)

    def _wait(self, done: Callable[[], bool]) -> None:
        """Waits until done() is true, or the run must end."""
        self.loop.run_until(lambda: self._broken() or done())

    def _finish(self) -> None:
        self._over = True

    def _conclude(self, final: Final) -> None:
        """Lets the nodes recover. Then each thread does the steps of the final phase."""
        self._console.progress("")
        self._console.info("workbench", "Waiting for recovery...")
        self._console.flush()
        recovered = self.loop.now() + RECOVERY
        self.loop.at(recovered, lambda: None)  # wakes the loop
        self._wait(lambda: self.loop.now() >= recovered)
        if self._broken():
            return
        self._unfinished = {worker.thread for worker in self._workers}
        for worker in self._workers:
            self._take_step(worker, final.steps())
        self._wait(lambda: not self._unfinished)

    def _take_step(self, worker: Worker, steps: Ending, completed: Op | None = None) -> None:
        """Schedules a thread's next step, after the one that is completed, if any."""
        try:
            step = steps.send(completed) if completed else next(steps)
        except StopIteration:
            self._unfinished.remove(worker.thread)
            return

        def start() -> None:
            def done(op: Op) -> None:
                self._take_step(worker, steps, op)

            self._invoke(worker, step.f, step.value, step.extras, done)

        self.loop.after(step.delay, start)

    def _next_operation(self) -> None:
        now = self.loop.run_time()
        self.loop.after(self._schedule.next(now) - now, self._operate)

    def _operate(self) -> None:
        """Starts the operation that is due, or waits for a worker if all are busy."""
        if self.loop.now() >= self._end:
            return
        free = [worker for worker in self._workers if worker.thread not in self._busy]
        if free:
            if operation := self.workload.next(free, self._workers, self.loop.run_time()):
                self._invoke(*operation)
            self._next_operation()
        else:
            self._stalled = True

    def _invoke(
        self,
        worker: Worker,
        f: str,
        value: Any,
        extras: Extras | None = None,
        completed: Callable[[Op], object] = lambda op: None,
    ) -> None:
        """Starts an operation of a worker. Calls completed(op) with its completion."""
        node_id = self._node_ids[worker.thread % len(self._node_ids)]
        process = worker.process
        conn = self._conn(worker.thread)
        self._busy.add(worker.thread)
        self._invoked += 1
        self._note(process, "invoke", f, value, extras=extras)
        printed = self._printed[node_id]

        def done(found: Outcome, reply: Body | None, src: str) -> None:
            if reply is None:
                self._timed_out += 1
                self._explain(node_id, conn, self._printed[node_id] > printed)
            elif isinstance(found.error, list):
                good = f"{wanted(conn.request)}, to {shown(conn.request)}"
                self.record.wanted.setdefault(f, good)
                code = reply.get("code")
                if type(code) is int and code not in ERRORS:
                    self.record.codes[len(self.record.history)] = code
            if found.problem:
                asked = f if value is None else f"{f} {edn.dumps(value)}"
                self.warn(
                    f"{src} {f}",
                    f"{src} sent a malformed reply to {asked}: {found.problem}: {shown(reply)}",
                )
            op = self._note(process, found.type, f, found.value, found.error, extras)
            if found.type == "info":  # it may still take effect, so a new process continues
                worker.process += len(self._workers)
                if not self.workload.reusable:
                    after = "its time-out" if reply is None else "its operation had ended unknown"
                    self._stale[worker.thread] = after
            self._busy.remove(worker.thread)
            if self._stalled:
                self._stalled = False
                self.loop.at(self.loop.now(), self._operate)
            completed(op)

        nanoseconds = int(timeout(self.workload, self._options) * SECOND)
        conn.perform(node_id, self.workload, f, value, nanoseconds, done, extras)

    def _conn(self, thread: int) -> Client:
        """Returns a thread's client. Opens it for the first operation, and in place of another."""
        if why := self._stale.pop(thread, None):
            self.network.close_client(self._conns.pop(thread).client_id, why)
        if thread not in self._conns:
            client = self._conns[thread] = self._client()
            client.state = self.workload.open()
        return self._conns[thread]

    def _explain(self, node_id: str, conn: Client, printed: bool) -> None:
        """Records once for each node why a request was not answered.

        `printed` says whether the node has printed anything since the request.
        """
        if node_id in self._explained or node_id in self._inits:  # it has just been restarted
            return
        if stray := conn.stray or self._misdirected(node_id, conn):
            self._explained.add(node_id)
            self.record.unmatched.append(stray)
            self._console.warn(stray)
        elif why := self._cluster.unsent(node_id):
            self._explained.add(node_id)
            self.note(f"A request to {node_id} was not answered: {why}")
        elif node_id not in self._silent:
            self._silent.add(node_id)
            seconds = timeout(self.workload, self._options)
            what = "no reply" if printed else "nothing"
            running = "" if self._options.nemesis else " and is still running"
            last = self._last_words.get(node_id, "")
            said = f"Its last line on stderr: {last[:LONG]}\n" if last else ""
            self.record.silence.append(
                f"{node_id} printed {what} after the request {shown(conn.request)}{running}: it "
                f'has no code for the type "{conn.request["type"]}", takes longer than '
                f"{seconds:g} s, or did not flush its reply {FLUSH}\n{said}"
                f"The reply that is wanted: {wanted(conn.request)}"
            )

    def _misdirected(self, node_id: str, conn: Client) -> str:
        """Says that a node sent the reply to a client's request to itself; "" if it did not."""
        body = self._to_itself.get(node_id, {})
        asked = conn.request
        reply = {"type": f"{asked['type']}_ok", "in_reply_to": asked["msg_id"]}
        if not reply.items() <= body.items():
            return ""
        return (
            f'{node_id} replied, but to itself: dest is "{node_id}", and must be '
            f'"{conn.client_id}", the src of the request: {shown(body)}'
        )

    def _on_surplus(self, message: Message) -> None:
        src = message["src"]
        self._surplus[src] += 1
        if src not in self._first_surplus:
            self._first_surplus[src] = f"to {message['dest']}: {shown(message['body'])}"

    def _note_surplus(self) -> None:
        """Notes the messages that no client waited for. After a fault, retries may cause them."""
        for node_id, count in self._surplus.items() if not self._options.nemesis else ():
            messages = f"{count:,} message{'s' * (count > 1)}"
            self.note(
                f"{node_id} sent {messages} that no client was waiting for, "
                f"{'the first ' * (count > 1)}{self._first_surplus[node_id]}"
            )

    def _note(
        self,
        process: int | str,
        type: str,
        f: str,
        value: Any,
        error: Any = None,
        extras: Extras | None = None,
    ) -> Op:
        now, index = self.loop.run_time(), len(self.record.history)
        op = Op(process, type, f, value, now, index, error, extras)
        self.record.history.append(op)
        thread = process if isinstance(process, str) else f"worker {process % len(self._workers)}"
        self._console.op(thread, op)
        return op

    # Progress

    def _rate_note(self) -> str:
        """Returns the requested and the reached rate, or "" if the clients kept the rate."""
        wanted, seconds = self._options.rate, self._options.time_limit
        # The last operation may be due so close to the end that it is not started.
        if self._invoked >= RATE_KEPT * wanted * seconds - 1:
            return ""
        asked, reached = (
            f"{rate:,.1f}".removesuffix(".0") for rate in (wanted, self._invoked / seconds)
        )
        why = ""
        if self._timed_out:
            requests = "1 request" if self._timed_out == 1 else f"{self._timed_out:,} requests"
            seconds = timeout(self.workload, self._options)
            why = f", because {requests} timed out: a client waits {seconds:g} s for a reply"
        return f"asked for {asked}/s, reached {reached}/s{why}"

    def _report_progress(self) -> None:
        if self.loop.now() >= self._end:
            return
        if self._console.lost:  # nobody can read the output any more
            self._crash(f"stdout cannot be written to: {self._console.lost.strerror}")
        self._console.progress(*self._progress.lines(self.loop.run_time(), self._nemesis.active))
        self.loop.after(self._console.progress_interval, self._report_progress)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
