#!/usr/bin/env python3
"""`make directed`: injects faults at chosen moments, and checks the replies to clients.

The nodes are processes of raft.py in real time, on the workbench's network. Each scenario prints
a line for each trial, then its figures with their limits. The exit status is 1 if a rule was
broken. A figure that misses its limit is only marked, since machines may be shared and noisy.

    python3 tests/bench/directed.py [SCENARIO...]
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import re
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from workbench.checkers.linearizable import check_history  # noqa: E402  (needs the path above)
from workbench.network.nemesis import Nemesis, split  # noqa: E402
from workbench.network.network import Grudge, Latency, Network, ProtocolError  # noqa: E402
from workbench.record.edn import Keyword  # noqa: E402
from workbench.record.history import Op  # noqa: E402
from workbench.running.client import Client, Outcome  # noqa: E402
from workbench.running.cluster import Processes  # noqa: E402
from workbench.simulation.loop import RealLoop  # noqa: E402
from workbench.units import SECOND  # noqa: E402
from workbench.workloads.lin_kv import LinKv  # noqa: E402
from workbench.workloads.workload import Body, Settings  # noqa: E402

NODE = [sys.executable, str(ROOT / "raft.py")]
KEYS = 3  # number of keys in use at a time
PROBE = SECOND // 100  # time between two writes that probe whether a node serves
SETTLE = 1.0  # seconds after which a process has loaded its modules and waits for init
INIT_TIMEOUT = 100 * SECOND
BUDGET = 300_000  # configurations for each key, after which the checker gives up
SERVED = (Keyword("key-does-not-exist"), Keyword("precondition-failed"))
LEADS = re.compile(r"(\w+) term (\d+): leader, elected by")
PATIENCE = 100.0  # seconds to wait for an event, before the scenario counts as stuck
Place = tuple[int, int]  # a key and a value; each value is written at most once


class Stuck(Exception):
    """An event that a scenario waits for does not happen."""


class Answer(NamedTuple):
    """A completed operation; type and error are as in a history."""

    node_id: str
    f: str
    asked: int  # time of the request, in ns
    told: int  # time of the completion, in ns
    type: str
    error: Any

    @property
    def served(self) -> bool:
        """Whether the reply told the register's state: ok, or error 20 or 22."""
        return self.type == "ok" or self.error_name in SERVED

    @property
    def error_name(self) -> Any:
        """The error without its text; None if there is none."""
        return self.error[0] if isinstance(self.error, list) else self.error

    @property
    def seconds(self) -> float:
        return (self.told - self.asked) / SECOND


class Report:
    """Prints the scenarios' results, and counts broken rules."""

    def __init__(self) -> None:
        self.broken: Counter[str] = Counter()  # broken rules in the current scenario
        self.broken_in_all: Counter[str] = Counter()  # broken rules in all scenarios

    def begin(self, title: str) -> None:
        """Starts the next scenario."""
        self.broken.clear()
        self.line(title)

    def line(self, text: str) -> None:
        print(text, flush=True)

    def limit(self, what: str, value: float, at_most: float, unit: str) -> None:
        """Prints a figure and its limit."""
        missed = "" if value <= at_most else "   MISSED"
        self.line(f"= {what}: {value:.3g} {unit} (limit: at most {at_most:g}){missed}")

    def share(self, what: str, answers: Sequence[Answer], at_least: float = 0.99) -> None:
        """Prints the share of served operations and its limit."""
        if not answers:
            self.line(f"= {what}: no operations")
            return
        share = sum(answer.served for answer in answers) / len(answers)
        missed = "" if share >= at_least else "   MISSED"
        found = f"{share:.2%} of {len(answers):,} served (limit: at least {at_least:.0%})"
        self.line(f"= {what}: {found}{missed}")

    def breaks(self, rule: str, text: str) -> None:
        """Counts a broken rule, and prints the first case of each rule in a scenario."""
        if not self.broken[rule]:
            self.line(f"! {rule}: {text}")
        self.broken[rule] += 1
        self.broken_in_all[rule] += 1


class Rules:
    """Checks rules while operations run, to count all cases; the checker finds only the first.

    Each value is written at most once, so a replaced value may never be read again. If it is, the
    read was stale, or a write took effect twice.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        # Times are in ns.
        self._asked: dict[Place, int] = {}  # time of the request to write a value
        self._known: dict[Place, int] = {}  # time at which a value was known to have been written
        self._replaced: dict[Place, int] = {}  # time at which a cas from a value was acknowledged
        self._latest: dict[int, int] = {}  # by key: time of the request for its latest known value
        self._denied: set[Place] = set()  # values that were not written, says a definite error

    def ask(self, key: int, written: int | None, now: int) -> int:
        """Records the start of an operation; returns the key's `floor`, for `tell`."""
        if written is not None:
            self._asked[key, written] = now
        return self._latest.get(key, -1)

    def tell(self, key: int, value: Any, answer: Answer, floor: int) -> None:
        """Checks a completed operation. `value` is the value read or written, or [from, to]."""
        if answer.f != "read" and answer.type == "fail":
            place = (key, value[1] if answer.f == "cas" else value)
            self._denied.add(place)
            if place in self._known:
                self._lie(place)
        if answer.error_name == SERVED[0] and floor >= 0:
            self._report.breaks("stale", f"{answer} found key {key} absent")
        if answer.type != "ok":
            return
        if answer.f == "read":
            place = (key, value)
            replaced = self._replaced.get(place, answer.asked) < answer.asked
            if replaced or self._known.get(place, floor) < floor:
                text = f"{answer} read the replaced value {value} of key {key}"
                self._report.breaks("stale", text)
            self._see(place, answer.told)
        elif answer.f == "write":
            self._see((key, value), answer.told)
        else:
            old, new = (key, value[0]), (key, value[1])
            if old in self._replaced:
                self._report.breaks("twice", f"two cas from {old[1]} of key {key} were ok")
            self._replaced.setdefault(old, answer.told)
            self._see(old, answer.told)
            self._see(new, answer.told)

    def _see(self, place: Place, now: int) -> None:
        if place in self._denied:
            self._lie(place)
        self._known.setdefault(place, now)
        self._latest[place[0]] = max(self._latest.get(place[0], -1), self._asked[place])

    def _lie(self, place: Place) -> None:
        text = f"the write of {place[1]} to key {place[0]} was refused, but took effect"
        self._report.breaks("lie", text)


class Nodes(Processes):
    """Processes, with methods to send a signal and to read the CPU time."""

    def signal(self, node_id: str, number: signal.Signals) -> None:
        os.kill(self._nodes[node_id].process.pid, number)

    def cpu_seconds(self, node_id: str) -> float:
        """Returns the CPU seconds that a node has used (proc(5): utime and stime)."""
        stat = Path(f"/proc/{self._nodes[node_id].process.pid}/stat").read_text()
        ticks = stat.rpartition(")")[2].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


class ForgivingNetwork(Network):
    """Still accepts messages of a node that broke a rule, so that all cases are counted."""

    def from_node(self, node_id: str, line: bytes) -> None:
        try:
            super().from_node(node_id, line)
        finally:
            self._silenced.discard(node_id)


class Bench:
    """A cluster with its network and clients; also the listener of its nodes."""

    def __init__(
        self,
        report: Report,
        logs: Path,
        count: int,
        latency: float,
        independent: bool,
        command: Sequence[str] = NODE,
    ) -> None:
        self.report = report
        self.node_ids = [f"n{number}" for number in range(count)]
        self.loop = RealLoop()
        self.rng = random.Random(f"{count} {latency}")
        self.nodes = Nodes(self.loop, command, logs)
        self.network: Network = ForgivingNetwork(
            self.loop,
            self.rng,
            Latency(latency, "constant"),
            self.nodes.deliver,
            lambda direction, message: None,
            independent,
        )
        self.timeout = int(max(1.0, 10 * latency / 1000) * SECOND)
        self.leader = ""
        self.term = 0
        self.on_leader: Callable[[], object] = lambda: None
        self.answers: list[Answer] = []
        self.history: list[Op] = []
        self.said: list[tuple[int, str]] = []  # time (ns) and text of the nodes' lines on stderr
        self.crash = ""  # reason if a node ended by itself
        self._rules = Rules(report)
        self._workload = LinKv(self.rng, Settings(count))
        self._clients = 0  # number of clients so far
        self._free: list[Client] = []  # clients without a request in flight
        self._working = 0  # number of calls of `rest`, each of which stops all loops of clients
        self._first_key = 0
        self._values = 0  # number of values written so far; also the latest of them
        self._newest: dict[int, int] = {}  # by key: the value in the latest reply

    # The nodes

    def on_line(self, node_id: str, line: bytes) -> None:
        """Sends a node's message through the network."""
        try:
            self.network.from_node(node_id, line)
        except ProtocolError as error:
            self.report.breaks("protocol", str(error))

    def on_exit(self, node_id: str, why: str) -> None:
        """Ends the scenario, since no node may end by itself."""
        self.crash = f"{node_id} {why}"

    def on_stderr(self, node_id: str, line: str) -> None:
        """Records a node's line, and the leader if the line names a new one."""
        self.said.append((self.loop.now(), line))
        found = LEADS.match(line)
        if found and int(found[2]) > self.term:
            self.leader, self.term = found[1], int(found[2])
            self.on_leader()

    def start(self) -> None:
        """Starts the processes; call `init` afterwards."""
        for node_id in self.node_ids:
            self.nodes.start(node_id, self)
            self.network.add_node(node_id)
        self.run(SETTLE)

    def init(self) -> None:
        """Sends init to all nodes, and waits for all init_ok."""
        waiting = self.send_init(self.node_ids)
        self.wait(lambda: not waiting, "init_ok")

    def send_init(self, node_ids: Collection[str]) -> set[str]:
        """Sends init to nodes; returns the shrinking set of nodes without init_ok."""
        waiting = set(node_ids)
        for node_id in node_ids:
            body = {"type": "init", "node_id": node_id, "node_ids": self.node_ids}
            done = partial(self._initialized, waiting)
            self._client().call(node_id, body, INIT_TIMEOUT, done)
        return waiting

    def _initialized(self, waiting: set[str], reply: Body | None, node_id: str) -> None:
        if reply and reply.get("type") == "init_ok":
            waiting.discard(node_id)

    def cpu_seconds(self) -> dict[str, float]:
        """Returns the CPU seconds that each node has used."""
        return {node_id: self.nodes.cpu_seconds(node_id) for node_id in self.node_ids}

    def others(self, *node_ids: str) -> list[str]:
        """Returns all nodes except these."""
        return [node_id for node_id in self.node_ids if node_id not in node_ids]

    @contextmanager
    def cut(self, side: Sequence[str], other: Sequence[str]) -> Iterator[None]:
        """Cuts the links between two sides, in both directions."""
        self.network.grudges["cut"] = split(side, other)
        try:
            yield
        finally:
            del self.network.grudges["cut"]

    # Time

    def run(self, seconds: float) -> None:
        """Runs the cluster for so many seconds."""
        end = self.loop.now() + int(seconds * SECOND)
        self.loop.at(end, lambda: None)
        self.loop.run_until(lambda: bool(self.crash) or self.loop.now() >= end)
        if self.crash:
            raise Stuck(self.crash)

    def wait(self, done: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
        """Runs the cluster until done() is true. Stuck if that takes too long."""
        end = self.loop.now() + int(seconds * SECOND)
        self.loop.at(end, lambda: None)
        self.loop.run_until(lambda: bool(self.crash) or done() or self.loop.now() >= end)
        if not done():
            raise Stuck(self.crash or f"no {what} within {seconds} s")

    def lines_since(self, moment: int) -> None:
        """Prints the nodes' lines since a moment, to explain a trial that missed its limit."""
        for said, line in self.said:
            if said >= moment:
                self.report.line(f"      {(said - moment) / SECOND:+.3f} s  {line}")

    # The clients

    def _client(self) -> Client:
        self._clients += 1
        broken = partial(self.report.breaks, "two answers")
        return Client(f"c{self._clients}", self.loop, self.network, broken)

    def new_keys(self) -> None:
        """Switches to new keys, because the checker needs short histories."""
        self._first_key += KEYS

    def ask(
        self, node_id: str, f: str = "", done: Callable[[Answer], object] = lambda answer: None
    ) -> None:
        """Sends an operation to a node: `f`, or a random one (half reads, a sixth writes)."""
        key = self._first_key + self.rng.randrange(KEYS)
        f = f or self.rng.choice(["read", "read", "read", "write", "cas", "cas"])
        if f == "cas" and key not in self._newest:
            f = "write"
        argument: Any = None
        if f != "read":
            self._values += 1
            argument = self._values if f == "write" else [self._newest[key], self._values]
        client = self._free.pop() if self._free else self._client()
        process, asked = int(client.client_id[1:]), self.loop.now()
        floor = self._rules.ask(key, None if f == "read" else self._values, asked)
        self._note(process, "invoke", f, [key, argument])

        def told(found: Outcome, reply: Body | None, src: str) -> None:
            if found.problem:
                self.report.breaks("protocol", f"{src} answered {f} with {reply}: {found.problem}")
            answer = Answer(node_id, f, asked, self.loop.now(), found.type, found.error)
            self._note(process, found.type, f, found.value, found.error)
            value = found.value[1]
            if answer.type == "ok":
                self._newest[key] = value[1] if f == "cas" else value
            self._rules.tell(key, value, answer, floor)
            self.answers.append(answer)
            if found.type != "info":  # else another process takes its place
                self._free.append(client)
            done(answer)

        client.perform(node_id, self._workload, f, [key, argument], self.timeout, told)

    def _note(self, process: int, type: str, f: str, value: Any, error: Any = None) -> None:
        op = Op(process, type, f, value, self.loop.now(), len(self.history), error)
        self.history.append(op)

    def closed_loop(self, clients: int, apart: bool = False) -> None:
        """Starts clients, spread over all nodes, that send a request after each reply.

        With `apart`, half of the clients only read and the others never read, as in lin-kv. In a
        minority, a client that writes waits for its time-out; only clients that never write go on
        reading.
        """
        for number in range(clients):
            row, column = divmod(number, len(self.node_ids))
            kinds = ("read",) if row % 2 == 0 else ("write", "cas", "cas")
            self.keep_asking(self.node_ids[column], *(kinds if apart else ("",)))

    def keep_asking(self, node_id: str, *kinds: str) -> None:
        """Starts a client that sends requests of these kinds to a node, each after a reply."""
        working = self._working

        def ask() -> None:
            if self._working == working:
                self.ask(node_id, self.rng.choice(kinds), lambda answer: ask())

        ask()

    def open_loop(self, rate: float) -> None:
        """Starts `rate` operations a second, at each node in turn, without waiting for replies."""
        working, start = self._working, self.loop.now()

        def next_one(number: int) -> None:
            if self._working == working:
                self.ask(self.node_ids[number % len(self.node_ids)])
                due = start + int((number + 1) * SECOND / rate)
                self.loop.at(due, partial(next_one, number + 1))

        next_one(0)

    def rest(self) -> None:
        """Stops the clients, and waits for the last replies."""
        self._working += 1
        self.run(self.timeout / SECOND + 0.1)

    def until_written(self, node_ids: Collection[str], everywhere: bool = False) -> float:
        """Waits until one of these nodes, or each of them, serves a write; returns the seconds.

        Each node gets a new write every PROBE ns, until it acknowledges one.
        """
        start = end = self.loop.now()
        waiting = set(node_ids)

        def finished() -> bool:
            return not waiting or (not everywhere and len(waiting) < len(node_ids))

        def done(answer: Answer) -> None:
            nonlocal end
            if answer.type == "ok" and not finished():
                waiting.discard(answer.node_id)
                end = answer.told

        def probe() -> None:
            if not finished():
                for node_id in sorted(waiting):
                    self.ask(node_id, "write", done)
                self.loop.after(PROBE, probe)

        probe()
        self.wait(finished, f"write through {', '.join(node_ids)}")
        return (end - start) / SECOND


@contextmanager
def cluster(
    report: Report,
    count: int = 3,
    latency: float = 0.0,
    independent: bool = False,
    command: Sequence[str] = NODE,
) -> Iterator[Bench]:
    """Starts nodes without init; at the end stops them and checks the history."""
    with tempfile.TemporaryDirectory() as logs:
        bench = Bench(report, Path(logs), count, latency, independent, command)
        try:
            bench.start()
            yield bench
        finally:
            bench.nodes.stop()
    for key, analysis in check_history(bench.history, BUDGET).items():
        if analysis.contradiction:
            report.breaks("not linearizable", f"key {key}: {analysis.contradiction}")
        elif analysis.valid is None:
            report.line(f"  key {key}: {analysis.why}")


@contextmanager
def running(
    report: Report,
    count: int = 3,
    latency: float = 0.0,
    independent: bool = False,
    command: Sequence[str] = NODE,
) -> Iterator[Bench]:
    """Starts a cluster, and waits until each node serves."""
    with cluster(report, count, latency, independent, command) as bench:
        bench.init()
        bench.until_written(bench.node_ids, everywhere=True)
        yield bench


# Scenarios


def time_to_new_leader(bench: Bench) -> float:
    """Cuts off the leader; returns the seconds until the others acknowledge a write. Then heals."""
    others = bench.others(bench.leader)
    with bench.cut([bench.leader], others):
        seconds = bench.until_written(others)
    bench.until_written(bench.node_ids, everywhere=True)
    return seconds


def new_leader(report: Report) -> None:
    """Cuts off the leader: how long until the others acknowledge a write?

    `make failover` asks the same of simulated nodes, at many latencies.
    """
    found = []
    with running(report) as bench:
        for trial in range(1, 21):
            bench.new_keys()
            bench.run(1 + bench.rng.random())
            before, moment = bench.leader, bench.loop.now()
            found.append(time_to_new_leader(bench))
            report.line(f"  new leader {trial}: {found[-1]:.3f} s, {before} to {bench.leader}")
            if found[-1] > 0.7:
                bench.lines_since(moment)
    report.limit("new leader, median", statistics.median(found), 0.35, "s")
    report.limit("new leader, max", max(found), 0.7, "s")


def start(report: Report) -> None:
    """Measures the time from init to the first acknowledged write."""
    for latency, wanted in ((0, 0.1), (100, 1.2)):
        found = []
        for trial in range(1, 11):
            with cluster(report, latency=latency) as bench:
                moment = bench.loop.now()
                bench.init()
                known = (bench.loop.now() - moment) / SECOND
                found.append(known + bench.until_written(bench.node_ids))
                text = f"{found[-1]:.3f} s, of which {known:.3f} s until the last init_ok"
                report.line(f"  start {trial}, {latency} ms: {text}")
                if found[-1] > wanted:
                    bench.lines_since(moment)
        report.limit(f"start at {latency} ms, max", max(found), wanted, "s")


def leader_cut(report: Report) -> None:
    """Cuts off the leader for 1 s every 2 s, with clients on both sides: are reads stale?"""
    with running(report) as bench:
        end = bench.loop.now() + 150 * SECOND
        reads = 0
        bench.closed_loop(10, apart=True)
        while reads < 100_000 and bench.loop.now() < end:
            bench.new_keys()
            bench.run(1)
            with bench.cut([bench.leader], bench.others(bench.leader)):
                bench.run(1)
            reads = sum(answer.f == "read" and answer.type == "ok" for answer in bench.answers)
        bench.rest()
        report.line(f"  {len(bench.answers):,} operations, {reads:,} reads ok")
    report.limit(f"leader-cut, stale reads of {reads:,}", report.broken["stale"], 0, "reads")


def lease_link(report: Report) -> None:
    """Cuts the leader's link to a follower: does the leader serve stale reads after an election?

    The leader sends only heartbeats, so it would learn late that the follower was elected.
    """
    with running(report) as bench:
        for _ in range(40):
            bench.new_keys()
            leader, follower = bench.leader, bench.others(bench.leader)[0]
            with bench.cut([leader], [follower]):
                for _ in range(3):
                    bench.keep_asking(leader, "read")
                    bench.keep_asking(follower, "write")
                bench.run(1)
            bench.rest()
            bench.run(0.5)
        reads = sum(answer.f == "read" and answer.type == "ok" for answer in bench.answers)
    report.limit(f"lease-link, stale reads of {reads:,}", report.broken["stale"], 0, "reads")


def link_cut(report: Report) -> None:
    """Cuts the link between the leader and a follower for 20 s: does the follower serve?"""
    with running(report) as bench:
        bench.open_loop(150)
        bench.run(2)
        follower, leader = bench.others(bench.leader)[0], bench.leader
        moment = bench.loop.now()
        with bench.cut([leader], [follower]):
            bench.run(20)
            end = bench.loop.now()
        bench.rest()
        report.line(f"  link from {leader} to {follower} cut; at the end {bench.leader} leads")
        asked = [
            answer
            for answer in bench.answers
            if answer.node_id == follower and moment <= answer.asked < end
        ]
        show_unserved(report, asked, moment)
        bench.lines_since(moment)
    report.share("link-cut, at the follower", asked)


def show_unserved(report: Report, answers: Sequence[Answer], moment: int) -> None:
    """Prints the operations that were not served, grouped by tenths of a second."""
    failed = Counter(
        ((answer.asked - moment) * 10 // SECOND, answer.node_id, answer.f, str(answer.error))
        for answer in answers
        if not answer.served
    )
    for (tenths, node_id, f, error), count in sorted(failed.items()):
        report.line(f"      {tenths / 10:+.1f} s  {count} {f} at {node_id}: {error}")


def lossy(report: Report) -> None:
    """Makes partitions every 0.8 s and drops 3 % of messages: is an operation applied twice?"""
    for count in (3, 5):
        with running(report, count) as bench:
            nemesis = Nemesis(
                bench.loop, bench.rng, bench.node_ids, bench.network, ["partition"], 0.8,
                lambda f, value: None,
            )  # fmt: skip
            bench.network.loss = 0.03
            nemesis.start(bench.loop.now() + 40 * SECOND)
            bench.closed_loop(2 * count, apart=True)
            for _ in range(20):
                bench.new_keys()
                bench.run(2)
            nemesis.heal()
            bench.network.loss = 0.0
            bench.rest()
            served = sum(answer.served for answer in bench.answers)
            report.line(f"  {count} nodes: {len(bench.answers):,} operations, {served:,} served")
    twice = sum(report.broken[rule] for rule in ("stale", "twice", "not linearizable"))
    report.limit("lossy, stale reads and operations applied twice", twice, 0, "")


def pause(report: Report) -> None:
    """Pauses a node for 4 s: does it serve again, and send no reply after a time-out?"""
    found, elections = [], []
    with running(report) as bench:
        for trial in range(1, 21):
            bench.new_keys()
            bench.open_loop(100)
            bench.run(1)
            node_id = bench.rng.choice(bench.node_ids)
            role = "the leader" if node_id == bench.leader else "a follower"
            bench.nodes.signal(node_id, signal.SIGSTOP)
            bench.run(4)
            moment = bench.loop.now()
            bench.nodes.signal(node_id, signal.SIGCONT)
            found.append(bench.until_written(bench.node_ids, everywhere=True))
            elections.append(time_to_new_leader(bench))
            text = f"all serve after {found[-1]:.3f} s, next leader after {elections[-1]:.3f} s"
            report.line(f"  pause {trial} of {node_id}, {role}: {text}")
            if found[-1] > 1 or elections[-1] > 0.7:
                bench.lines_since(moment)
            bench.rest()
    report.limit("pause, until all nodes serve, max", max(found), 1, "s")
    report.limit("pause, next leader, max", max(elections), 0.7, "s")


def latency(report: Report) -> None:
    """Measures the latency of operations, with a network latency of 100 ms and of 0 ms."""
    with running(report, latency=100, independent=True) as bench:
        bench.open_loop(50)
        bench.run(5)
        bench.answers.clear()
        bench.run(30)
        bench.rest()
        served = [answer for answer in bench.answers if answer.served]
        report.line(f"  100 ms: {len(served):,} of {len(bench.answers):,} served")
        for node_id in bench.node_ids:
            took = [a.seconds * 10 for a in served if a.node_id == node_id]
            role = "leader" if node_id == bench.leader else "follower"
            mean = statistics.mean(took)
            report.line(f"  100 ms: mean at {node_id}, {role}: {mean:.2f} one-way latencies")
    reads, writes = (
        statistics.mean(answer.seconds * 10 for answer in served if (answer.f == "read") is read)
        for read in (True, False)
    )
    report.limit("latency at 100 ms, reads, mean", reads, 0.7, "one-way latencies")
    report.limit("latency at 100 ms, writes and cas, mean", writes, 2.8, "one-way latencies")
    with running(report) as bench:
        bench.closed_loop(10)
        bench.run(2)
        bench.answers.clear()
        before, own = bench.cpu_seconds(), time.process_time()
        for _ in range(5):
            bench.new_keys()
            bench.run(2)
        took = [answer.seconds * 1000 for answer in bench.answers]
        own = time.process_time() - own
        report.line(f"  0 ms: {len(took) / 10:,.0f} operations/s in a closed loop of 10")
        cpu = {node_id: used - before[node_id] for node_id, used in bench.cpu_seconds().items()}
        shares = ", ".join(f"{node_id} {used / 10:.0%}" for node_id, used in cpu.items())
        report.line(f"  0 ms: CPU of this bench {own / 10:.0%}, {shares}; {bench.leader} leads")
        bench.rest()
    report.limit("latency at 0 ms, median", statistics.median(took), 0.6, "ms")


def messages(report: Report) -> None:
    """Counts messages between servers, for an operation and while idle."""
    with running(report, 5) as bench:
        bench.open_loop(100)
        bench.run(2)
        sent, asked = bench.network.between_servers.sent, len(bench.answers)
        bench.run(20)
        sent, asked = bench.network.between_servers.sent - sent, len(bench.answers) - asked
        bench.rest()
    report.limit("messages for an operation, 5 nodes", sent / asked, 5.5, "")
    for count in (3, 5, 7, 15):
        with running(report, count) as bench:
            bench.rest()
            sent = bench.network.between_servers.sent
            bench.run(10)
            sent = bench.network.between_servers.sent - sent
        report.limit(f"messages a second, {count} nodes, idle", sent / 10, 50, "")


class Moment(NamedTuple):
    """The partition and the leader from a moment on."""

    time: int  # ns
    cut: Grudge
    leader: str

    def should_serve(self, node_id: str, node_ids: Sequence[str]) -> bool:
        """Returns whether a node reaches a majority, and the leader by at most one relay."""
        near = self._reached(node_id, node_ids)
        led = any(self.leader in self._reached(other, node_ids) for other in near)
        return len(near) > len(node_ids) // 2 and led

    def _reached(self, node_id: str, node_ids: Sequence[str]) -> list[str]:
        """Returns the node itself and all nodes with working links to and from it."""
        return [
            other
            for other in node_ids
            if other not in self.cut.get(node_id, ()) and node_id not in self.cut.get(other, ())
        ]


def partitions(report: Report) -> None:
    """Makes four kinds of partitions for a minute: does every node serve that could?"""
    with running(report, 5) as bench:
        moments: list[Moment] = []

        def note() -> None:
            cut = bench.network.grudges.get("partition", {})
            moments.append(Moment(bench.loop.now(), cut, bench.leader))

        def changed(f: str, value: Any) -> None:
            note()
            if value is not None:
                what = f"{f}: {value}, {bench.leader} leads"
                bench.said.append((bench.loop.now(), what))

        nemesis = Nemesis(
            bench.loop, bench.rng, bench.node_ids, bench.network, ["partition"], 5, changed
        )
        note()
        bench.on_leader = note
        moment = bench.loop.now()
        nemesis.start(moment + 60 * SECOND)
        bench.open_loop(100)
        for _ in range(15):
            bench.new_keys()
            bench.run(4)
        nemesis.heal()
        bench.rest()

        def should_be_served(answer: Answer) -> bool:
            """Returns whether the node could serve for a full second after the request."""
            before = [m for m in moments if m.time <= answer.asked][-1:]
            during = [m for m in moments if answer.asked < m.time < answer.asked + SECOND]
            return all(m.should_serve(answer.node_id, bench.node_ids) for m in before + during)

        answers = [answer for answer in bench.answers if answer.asked >= moment]
        served = sum(answer.served for answer in answers) / len(answers)
        report.line(f"  {served:.1%} of all {len(answers):,} operations were served")
        expected = [answer for answer in answers if should_be_served(answer)]
        show_unserved(report, expected, moment)
        if not all(answer.served for answer in expected):
            bench.lines_since(moment)
    report.share("partitions, where a node could serve", expected)


SCENARIOS: Mapping[str, Callable[[Report], None]] = {
    "new-leader": new_leader,
    "start": start,
    "leader-cut": leader_cut,
    "lease-link": lease_link,
    "link-cut": link_cut,
    "lossy": lossy,
    "pause": pause,
    "latency": latency,
    "messages": messages,
    "partitions": partitions,
}


def main() -> None:
    """Runs the named scenarios, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenarios", metavar="SCENARIO", nargs="*", help=", ".join(SCENARIOS))
    names = parser.parse_args().scenarios or list(SCENARIOS)
    if unknown := set(names) - SCENARIOS.keys():
        parser.error(
            f"unknown scenario: {', '.join(sorted(unknown))}; choose from {', '.join(SCENARIOS)}"
        )
    gc.disable()  # with this many objects, a collection would delay the clients noticeably
    report = Report()
    for name in names:
        report.begin(f"{name}: {SCENARIOS[name].__doc__}")
        try:
            SCENARIOS[name](report)
        except Stuck as stuck:
            report.breaks("stuck", f"{name}: {stuck}")
    broken = ", ".join(f"{rule} {count:,} times" for rule, count in report.broken_in_all.items())
    report.line(f"rules broken: {broken or 'none'}")
    raise SystemExit(1 if broken else 0)


if __name__ == "__main__":
    main()
