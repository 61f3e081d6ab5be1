"""Kills, real and simulated: what is lost, what is still there, and what comes back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from bench.crashes import Killer, durable, replace_files
from bench.directed import Report, running
from test_runner import options
from test_workbench import run
from workbench.console.console import Console
from workbench.network.nemesis import TARGETS
from workbench.record import edn, node_log
from workbench.record.edn import Keyword
from workbench.record.history import Op, to_edn
from workbench.running.runner import Runner
from workbench.simulation.loop import VirtualLoop
from workbench.simulation.simulated_cluster import PATIENCE, Machine, SimulatedCluster, Watcher
from workbench.units import SECOND

ROOT = Path(__file__).resolve().parents[1]

STORE = """#!{python}
import os, sqlite3, sys

sys.path.insert(0, {root!r})
from node import Node, RPCError

class Storage:
    connect = staticmethod(sqlite3.connect)

class Server:
    def __init__(self):
        self.folder = sys.argv[sys.argv.index("--data-dir") + 1]
        self.node = Node()
        self.storage = Storage()
        self.map, self.new = {{}}, {{}}
        self.node.on_init(self.open)
        self.node.on_drained(self.save)
        for type in ("read", "write", "cas", "append_entries"):
            self.node.on(type, getattr(self, type))

    def open(self):
        os.makedirs(self.folder, exist_ok=True)
        path = os.path.join(self.folder, self.node.node_id)
        self.disk = self.storage.connect(path, isolation_level=None, check_same_thread=False)
        self.disk.execute("PRAGMA synchronous=FULL")
        self.disk.execute("CREATE TABLE IF NOT EXISTS map (key PRIMARY KEY, value)")
        self.map = dict(self.disk.execute("SELECT key, value FROM map"))
        self.node.log(f"has {{sorted(self.map.items())}}")

    def save(self):
        if self.new:
            self.disk.execute("BEGIN")
            try:
                for item in self.new.items():
                    self.disk.execute("INSERT OR REPLACE INTO map VALUES (?, ?)", item)
            finally:
                self.disk.execute("COMMIT")  # one that is dead does not get here
            self.new.clear()

    def read(self, msg):
        key = msg["body"]["key"]
        if key not in self.map:
            raise RPCError.key_does_not_exist("none")
        self.node.reply(msg, {{"type": "read_ok", "value": self.map[key]}})

    def write(self, msg):
        self.map[msg["body"]["key"]] = self.new[msg["body"]["key"]] = msg["body"]["value"]
        self.node.reply(msg, {{"type": "write_ok"}})

    def cas(self, msg):
        body = msg["body"]
        if body["key"] not in self.map:
            raise RPCError.key_does_not_exist("none")
        if self.map[body["key"]] != body["from"]:
            raise RPCError.precondition_failed("another value")
        self.map[body["key"]] = self.new[body["key"]] = body["to"]
        self.node.reply(msg, {{"type": "cas_ok"}})

    def append_entries(self, msg):  # as each program has that is looked into
        self.disk.execute("SELECT 1")  # in a handler, whose exceptions are caught
        for number in range(4):
            self.new[number] = 1
            self.node.send("n1", {{"type": "hello", "number": number}})

Server().node.main()
"""
FORGETFUL = ("self.node.on_drained(self.save)", "self.node.every(0.5, self.save)")


def store(folder: Path, rule: str = "", without: str = "") -> Path:
    """A store on a disk, for one node, perhaps without one of its rules."""
    text = STORE.format(python=sys.executable, root=str(ROOT))
    assert rule in text
    text = text.replace(rule, without) if rule else text
    binary = folder / "store.py"
    binary.write_text(text)
    binary.chmod(0o755)
    return binary


def killed(folder: Path, binary: Path, seed: int) -> tuple[list[Op], bool]:
    """A simulated run, and whether it was linearizable."""
    folder.mkdir()
    given = options(
        bin=binary, args=("--data-dir", str(folder / "data")), simulate=True, seed=seed, rate=40,
        nemesis=("kill",), nemesis_interval=0.5, kill_targets=TARGETS, time_limit=10,
    )  # fmt: skip
    loop = VirtualLoop()
    cluster = SimulatedCluster(loop, binary, given.args, folder, seed, Watcher())
    runner = Runner(given, loop, cluster, Console())
    record = runner.run()
    assert not record.problems and not record.crash
    runner.workload.check(record.history)
    analyses = runner.workload.analyses.values()
    return record.history, all(one.valid is True and not one.contradiction for one in analyses)


# Runs


def test_a_store_on_a_disk_survives_kills_and_one_that_saves_late_is_found_out(
    tmp_path: Path,
) -> None:
    kept = [killed(tmp_path / f"kept{seed}", store(tmp_path), seed) for seed in range(8)]
    assert all(valid for _, valid in kept)
    assert all(sum(op.f == "start-kill" for op in history) > 6 for history, _ in kept)
    late = store(tmp_path, *FORGETFUL)
    assert not all(killed(tmp_path / f"late{seed}", late, seed)[1] for seed in range(8))


def test_the_same_seed_gives_the_same_run_with_kills_too(tmp_path: Path) -> None:
    binary = store(tmp_path)

    def told(name: str, seed: int) -> tuple[str, bytes]:
        history, _ = killed(tmp_path / name, binary, seed)
        return "\n".join(map(to_edn, history)), (tmp_path / name / "n0.log").read_bytes()

    assert told("first", 1) == told("second", 1) != told("other", 2)


def test_real_processes_are_killed_and_paused_and_come_back(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        *("-w", "lin-kv", "--node-count", "1", "--concurrency", "20n", "--rate", "50"),
        *("--time-limit", "4", "--nemesis", "kill,pause", "--nemesis-interval", "0.3"),
        *("--kill-targets", "one", "--seed", "1", "--", "--data-dir", "{run}/data"),
        bin=store(tmp_path),
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr  # 1 if no cas succeeded
    latest = tmp_path / "store" / "latest"
    found = edn.loads((latest / "results.edn").read_text())
    assert found[Keyword("workload")][Keyword("valid?")] is True
    assert "Broken rule" not in done.stdout
    assert '{"n0" :started}' in done.stdout and '{"n0" :resumed}' in done.stdout
    log = (latest / "node-logs" / "n0.log").read_bytes().splitlines()
    starts = [*node_log.said(log)]
    marks = [line for line in log if b"--- n0: start " in line]
    assert len(marks) == 1 + done.stdout.count('{"n0" :started}')
    # A node that is killed as soon as it has started may have had no time to speak.
    assert 2 < len(starts) <= 1 + done.stdout.count('{"n0" :started}')
    assert (latest / "data" / "n0").exists()


def test_a_wiped_node_is_readmitted_and_then_it_counts_for_a_majority(tmp_path: Path) -> None:
    report = Report()
    with running(report, command=durable(tmp_path)) as bench:
        killer = Killer(bench)
        full = bench.leader
        empty, _ = others = bench.others(full)
        bench.closed_loop(3)
        killer.kill(empty)
        replace_files(tmp_path, empty)
        killer.restart([empty])
        killer.wait_for_returns()
        killer.kill(full)
        bench.until_written(others, everywhere=True)
        before = len(bench.answers)
        bench.wait(
            lambda: any(one.f == "read" and one.type == "ok" for one in bench.answers[before:]),
            "read",
        )
    assert not report.broken_in_all, report.broken_in_all


# One machine


class Lone(Watcher):
    """A simulated store, initialised at 0."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.loop = VirtualLoop()
        self.lines: list[bytes] = []
        self.log: list[str] = []
        self.exits: list[str] = []
        args = ["--data-dir", str(folder / f"data{seed}")]
        self.cluster = SimulatedCluster(self.loop, store(folder), args, folder, seed, self)
        self.start()

    @property
    def machine(self) -> Machine:
        return self.cluster.machines["n0"]

    def start(self) -> None:
        self.cluster.start("n0", self)
        self.init()
        self.lines.clear()

    def init(self) -> None:
        self.arrives({"type": "init", "node_id": "n0", "node_ids": ["n0", "n1"]})
        self.run()

    def arrives(self, body: dict[str, Any]) -> None:
        self.cluster.deliver("n0", {"src": "c1", "dest": "n0", "body": {"msg_id": 1, **body}})

    def run(self, delay: int = 0) -> None:
        self.loop.run_to(self.loop.now() + delay)

    def on_line(self, node_id: str, line: bytes) -> None:
        self.lines.append(line)

    def on_stderr(self, node_id: str, line: str) -> None:
        self.log.append(line)

    def on_exit(self, node_id: str, why: str) -> None:
        self.exits.append(why)


def test_a_kill_strikes_before_any_statement_and_in_the_midst_of_the_output(
    tmp_path: Path,
) -> None:
    found = set()
    torn = 0
    for seed in range(80):
        lone = Lone(tmp_path, seed)
        lone.cluster.kill("n0")
        lone.arrives({"type": "append_entries"})  # it saves four values and sends four messages
        lone.run()
        dead = lone.machine.node is None
        torn += lone.machine.torn
        lone.cluster.kill("n0")
        left = len(lone.lines)
        lone.start()
        rows = 0 if lone.log[-1] == "has []" else lone.log[-1].count("(")
        found.add((dead, rows, left))
        assert not lone.exits and {*lone.log} == {"has []", lone.log[-1]}
    assert torn > 5
    assert {rows for _, rows, _ in found} == {0, 4}  # all or nothing is committed
    assert all(rows == 4 for _, rows, left in found if left)  # and before a message leaves
    assert {left for dead, rows, left in found if dead and rows} == {0, 1, 2, 3}
    assert (True, 0, 0) in found and (False, 4, 4) in found


def test_an_idle_node_dies_soon(tmp_path: Path) -> None:
    before = set()
    for seed in range(20):
        lone = Lone(tmp_path, seed)
        lone.cluster.kill("n0")
        before.add(lone.machine.node is None)
        lone.run(PATIENCE)
        assert lone.machine.node is None and not lone.exits
    assert before == {False, True}


def test_a_late_kill_is_of_the_life_that_it_was_for(tmp_path: Path) -> None:
    for seed in range(20):
        lone = Lone(tmp_path, seed)
        lone.cluster.kill("n0")
        lone.start()
        node = lone.machine.node
        lone.arrives({"type": "append_entries"})
        lone.run(PATIENCE)
        assert lone.machine.node is node and len(lone.lines) == 4


def test_a_new_life_has_the_clock_and_the_disk_of_the_last_and_nothing_else(tmp_path: Path) -> None:
    lone = Lone(tmp_path, 1)
    first = lone.machine.node
    assert first
    called: list[str] = []
    first.after(1.0, lambda: called.append("timer"))
    first._turn(lambda: first.rpc("n1", {"type": "x"}, lambda reply: called.append("reply")))
    lone.arrives({"type": "write", "key": 7, "value": 3})
    lone.run()
    chance, shown = first.random.getstate(), lone.machine.clock.now()
    lone.machine.die()
    lone.arrives({"type": "write", "key": 8, "value": 3})  # is lost
    lone.run(SECOND // 2)
    lone.cluster.start("n0", lone)
    lone.arrives({"type": "read", "key": 7})  # comes before the init, and waits
    lone.run()
    assert len(lone.lines) == 2  # the request to n1 and write_ok
    lone.init()
    assert [b'"read_ok","value":3' in line for line in lone.lines[2:]] == [False, True]
    second = lone.machine.node
    assert second and second is not first and second.random.getstate() != chance
    assert lone.log == ["has []", "has [(7, 3)]"]
    assert second.now() == shown + 0.5
    lone.cluster.deliver("n0", {"src": "n1", "dest": "n0", "body": {"in_reply_to": 1}})
    lone.run(2 * SECOND)
    assert not called
    lone.arrives({"type": "read", "key": 8})
    lone.run()
    assert b'"code":20' in lone.lines[-1]


def test_a_kill_ends_a_pause_and_loses_what_had_waited(tmp_path: Path) -> None:
    lone = Lone(tmp_path, 1)
    lone.cluster.pause("n0")
    lone.arrives({"type": "write", "key": 7, "value": 3})
    lone.run()
    lone.machine.die()
    lone.cluster.pause("n0")
    lone.start()
    lone.cluster.resume("n0")
    lone.run()
    assert not lone.lines and lone.log == ["has []"] * 2
    lone.arrives({"type": "read", "key": 7})
    lone.run()
    assert len(lone.lines) == 1 and b'"code":20' in lone.lines[0]


def test_a_program_that_fails_when_it_starts_again_is_told_of(tmp_path: Path) -> None:
    lone = Lone(tmp_path, 1)
    lone.machine.die()
    lone.cluster._binary.write_text("raise SystemExit(3)")
    lone.cluster.start("n0", lone)
    assert lone.exits == ["ended by itself with exit status 3"]


def test_nothing_waits_for_the_disk(tmp_path: Path) -> None:
    lone = Lone(tmp_path, 1)
    assert lone.machine.node
    (level,) = lone.machine.node.server.disk.execute("PRAGMA synchronous").fetchone()
    assert level == 0
