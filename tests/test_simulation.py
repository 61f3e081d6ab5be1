"""A whole cluster in virtual time: the same seed, the same run; what the nodes do, and cannot."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from bench.failover import measure
from test_runner import options
from workbench.console.console import Console
from workbench.network.nemesis import KINDS
from workbench.network.network import Latency
from workbench.running.cluster import WELL, Processes
from workbench.running.runner import Record, Runner
from workbench.simulation import loop as loop_module
from workbench.simulation import simulated_cluster
from workbench.simulation.loop import RealLoop, VirtualLoop
from workbench.simulation.raft_invariants import Invariants
from workbench.simulation.simulated_cluster import Clock, Machine, SimulatedCluster, Watcher
from workbench.units import SECOND

ROOT = Path(__file__).resolve().parents[1]
FAULTS = "partition,loss,duplicate,pause,clock"

ECHO = """
from node import Node

node = Node()

@node.on("echo", blocking={blocking})
def echo(msg):
    {does}
    node.reply(msg, {{"type": "echo_ok", "echo": msg["body"]["echo"]}})

node.main()
"""


def simulate(folder: Path, binary: Path, *args: str, **changes: Any) -> Record:
    """The record of a short run; its logs are in the folder."""
    given = options(bin=binary, args=args, simulate=True, **changes)
    loop = VirtualLoop()
    invariants = Invariants(loop, given.seed, lambda text: runner.problem(text))
    cluster = SimulatedCluster(
        loop, given.bin, given.args, folder, given.seed, invariants, given.constants,
        lambda text: runner.note(text),
    )  # fmt: skip
    runner = Runner(given, loop, cluster, Console())
    return runner.run()


def echo(folder: Path, does: str = "pass", blocking: bool = False, **changes: Any) -> Record:
    binary = folder / "echo.py"
    binary.write_text(ECHO.format(does=does, blocking=blocking))
    return simulate(folder, binary, workload="echo", concurrency=1, **changes)


def run(folder: Path, python: str, seed: int, hash_seed: str) -> dict[str, bytes]:
    """The files that a simulated run leaves behind, but for those with its name in them."""
    folder.mkdir()
    words = [
        *("-w", "lin-kv", "--bin", str(ROOT / "raft.py"), "--simulate", "--seed", str(seed)),
        *("--node-count", "3", "--concurrency", "2n", "--rate", "100", "--time-limit", "10"),
        *("--latency", "10", "--latency-dist", "exponential"),
        *("--nemesis", FAULTS, "--nemesis-interval", "1"),
    ]
    done = subprocess.run(
        [python, str(ROOT / "maelstrom"), "test", *words],
        cwd=folder,
        env={**os.environ, "MAELSTROM": "workbench", "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    latest = folder / "store" / "latest"
    return {
        str(path.relative_to(latest)): path.read_bytes()
        for path in latest.rglob("*")
        if path.is_file() and path.name != "timeline.html"
    }


def pythons() -> list[str]:
    """The other versions that there are here: on the PATH, or beside each other in pyenv's way."""
    names = [f"python3.{minor}" for minor in range(10, 14)]
    installed = sorted(Path.home().glob(".pyenv/versions/3.1[0-3].*/bin/python3"))
    found = [*map(str, installed), *filter(None, map(shutil.which, names))]
    able: dict[str, str] = {}
    for python in found:
        asked = [python, "-c", "import sys; print(sys.version_info[:2])"]
        done = subprocess.run(asked, capture_output=True, text=True)
        if done.returncode == 0:
            able.setdefault(done.stdout, python)
    return list(able.values())


def test_the_same_seed_gives_the_same_bytes_in_any_process_and_python(tmp_path: Path) -> None:
    first = run(tmp_path / "first", sys.executable, 1, "1")
    assert {"history.edn", "results.edn", "node-logs/n2.log"} <= first.keys()
    assert b":ok" in first["history.edn"] and b"leader" in b"".join(first.values())
    for number, python in enumerate([sys.executable, *pythons()]):
        assert run(tmp_path / str(number), python, 1, str(number + 2)) == first, python
    assert run(tmp_path / "other", sys.executable, 2, "1")["history.edn"] != first["history.edn"]


def test_the_store_survives_faults(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"node_count": 3, "nemesis": FAULTS.split(",")[:3], "time_limit": 20}
    record = simulate(tmp_path, ROOT / "raft.py", nemesis_interval=1, loss=0.1, **changes)
    assert not record.crash and not record.problems
    assert sum(op.type == "ok" for op in record.history) > 500


ANY_CUT = ("one", "majority", "majorities-ring", "one-way", "one-link")
FOUND: dict[str, dict[str, Any]] = {
    "a pause was taken for latency, and clients were told too late": {
        "seed": 40, "node_count": 7, "concurrency": 14, "independent_delivery": True,
        "nemesis": ("partition", "pause", "clock"), "nemesis_interval": 3,
        "partition_kinds": ANY_CUT,
    },
    "a request had waited for a slow message, and then for the end of a pause": {
        "seed": 71, "node_count": 5, "concurrency": 20,
        "nemesis": ("pause", "clock"), "nemesis_interval": 0.5,
    },
    "all peers were paused at the start, and their first answers told a round trip of 6 s": {
        "seed": 2045, "node_count": 3, "concurrency": 30, "rate": 300, "latency": 50,
        "latency_dist": "constant", "nemesis": ("partition", "loss", "duplicate", "pause"),
        "nemesis_interval": 3, "partition_kinds": ANY_CUT, "loss": 0.03, "duplicate": 0.03,
    },
    "followers kept the round trip of a leader that had measured its peers' pause": {
        "seed": 2145, "node_count": 5, "concurrency": 20, "args": ("--reads", "index"),
        "nemesis": ("loss", "duplicate", "pause", "clock"), "nemesis_interval": 3,
        "loss": 0.03, "duplicate": 0.03,
    },
    "the first answers were quick, and the next message held a request up for half a second": {
        "seed": 611, "node_count": 5, "concurrency": 10, "rate": 50, "time_limit": 4,
        "nemesis": ("pause", "partition", "loss"), "nemesis_interval": 1.97, "loss": 0.0771,
        "partition_kinds": (
            "majorities-ring", "one-way", "one-link", "minority-third", "majority", "one"
        ),
        "constants": {"EARLY_APPENDS": 1, "CHUNK_BYTES": 100},
    },
    "messages waited for each other, and half of the round trips took more than half a second": {
        "seed": 8194, "node_count": 4, "concurrency": 8, "rate": 100,
        "nemesis": ("partition", "loss", "duplicate"), "nemesis_interval": 1.47, "loss": 0.379,
        "duplicate": 0.27, "partition_kinds": (
            "minority-third", "one-way", "majorities-ring", "majority", "one", "one-link"
        ),
        "constants": {"CHUNK_BYTES": 1000}, "turn_ends": simulated_cluster.TURN_ENDS,
    },
}  # fmt: skip


@pytest.mark.parametrize("found", FOUND)
def test_what_a_seed_has_found_stays_mended(
    found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"latency": 100, "latency_dist": "exponential", "rate": 50, "time_limit": 15}
    given: dict[str, Any] = {**changes, **FOUND[found]}
    # There was no such chance when the others were found.
    monkeypatch.setattr(simulated_cluster, "TURN_ENDS", given.pop("turn_ends", 0.0))
    record = simulate(tmp_path, ROOT / "raft.py", *given.pop("args", ()), **given)
    assert not record.problems and not record.crash


def test_any_program_on_a_node_can_be_simulated_even_one_without_a_main(tmp_path: Path) -> None:
    record = echo(tmp_path)
    assert not record.crash
    assert {op.type for op in record.history} == {"invoke", "ok"}


def test_a_node_that_ends_says_why_in_its_log(tmp_path: Path) -> None:
    record = echo(tmp_path, "raise SystemExit(3)")
    first, *rest = record.crash.splitlines()
    assert first == "n0 ended by itself with SystemExit: 3"
    assert [line.partition(":")[0] for line in rest] == ["n0 had this request when it ended"]
    assert "raise SystemExit(3)" in (tmp_path / "n0.log").read_text()


def test_a_blocking_handler_is_refused_for_there_are_no_threads(tmp_path: Path) -> None:
    record = echo(tmp_path, blocking=True)
    assert record.crash == (
        "n0 cannot be simulated: a simulated node has no threads, and so no blocking handlers "
        "(blocking=True); use node.rpc with a callback, or run this node as a process, without "
        "--simulate"
    )


def test_a_program_that_never_calls_main_ends_as_a_process_does(tmp_path: Path) -> None:
    binary = tmp_path / "echo.py"
    text = ECHO.format(does="pass", blocking=False).replace("node.main()", "")
    binary.write_text(f"#!{sys.executable}\nimport sys; sys.path.append({str(ROOT)!r})\n{text}")
    binary.chmod(0o755)
    simulated = simulate(tmp_path, binary).crash
    loop = RealLoop()
    real = Runner(options(bin=binary), loop, Processes(loop, [str(binary)], tmp_path), Console())
    for crash in (simulated, real.run().crash):
        first = crash.partition("\n")[0]
        assert first == f"n0 ended by itself with {WELL} and no line on stderr"


def test_a_sleep_in_a_simulated_node_is_pointed_out_once(tmp_path: Path) -> None:
    record = echo(tmp_path, "__import__('time').sleep(7.5)")
    assert record.notes == [
        "n0 called time.sleep(7.5), which takes no time in a simulated node: use "
        "node.after(seconds, action) instead, or run it without --simulate"
    ]
    assert not record.crash and time.sleep is simulated_cluster.SLEEP
    assert sum(op.type == "ok" for op in record.history) > 100


@pytest.mark.parametrize("seconds", ["0", "-1.0", "1e-7"])
@pytest.mark.parametrize("call", ["every({}, lambda: None)", "after({}, again)"])
def test_timers_that_leave_no_time_end_the_run(call: str, seconds: str, tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    again = f"\ndef again():\n    node.{call.format(seconds)}\nagain()\nnode.main()"
    binary.write_text(ECHO.format(does="pass", blocking=False).replace("\nnode.main()", again))
    crash = simulate(tmp_path, binary, workload="echo", concurrency=1).crash
    assert crash.startswith("n0 cannot be simulated: its timers take more than 20,000 turns in a s")


def test_a_constant_of_0_ends_the_run_of_raft(tmp_path: Path) -> None:
    crash = simulate(tmp_path, ROOT / "raft.py", constants={"TICK": 0}).crash
    assert "(with --constants: a constant that is 0 or too small)" in crash


def test_messages_without_end_at_one_moment_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "MOST_STEPS", 10_000)
    crash = echo(tmp_path, "node.send('n0', msg['body'])").crash
    assert crash.startswith("virtual time stands still at 0.0") and "--latency above 0" in crash


@pytest.mark.parametrize(
    ("text", "crash"),
    [
        (b"\x7fELF\x00", "cannot run {}: only a Python program can be simulated"),
        (b"#!/bin/sh\nif true; then exit; fi",
         "cannot run {}: only a Python program can be simulated"),
        (b"#!/usr/bin/env python3\nx = (", "cannot run {}: line 2: '(' was never closed"),
        (b"x = 1", "n0 cannot be simulated: it makes no Node of node.py, and nothing else can be "
         "simulated; run it without --simulate"),
        (b"for line in __import__('sys').stdin: print(line)",
         "n0 cannot be simulated: it makes no Node of node.py, and nothing else can be "
         "simulated; run it without --simulate"),
        (b"import sys; sys.exit()", f"n0 ended by itself with {WELL}"),
        (b"import sys; sys.exit(3)", "n0 ended by itself with exit status 3"),
        (b"1 / 0", "n0 ended by itself with ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_no_node_is_a_crash(tmp_path: Path, text: bytes, crash: str) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(text)
    assert simulate(tmp_path, binary).crash == crash.format(binary)


def test_constants_of_the_binary_can_be_given_other_values(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    shown = ECHO.format(does="node.log(f'{A} {B} {C}')", blocking=False)
    binary.write_text(f"A, B = 1, 2\nC = A + B\n{shown}")
    given = {"workload": "echo", "concurrency": 1, "constants": {"A": 7}}
    record = simulate(tmp_path, binary, **given)
    assert not record.crash and "7 2 9" in (tmp_path / "n0.log").read_text()
    record = simulate(tmp_path, binary, **given | {"constants": {"D": 7}})
    assert record.crash == f"cannot run {binary}: it has no constant D"


def test_what_is_printed_before_main_goes_to_stdout_and_what_is_printed_later_to_stderr(
    tmp_path: Path,
) -> None:
    assert not echo(tmp_path, "print('late')").problems
    assert "late\n" in (tmp_path / "n0.log").read_text()
    binary = tmp_path / "echo.py"
    text = binary.read_text()
    binary.write_text(f"{text}\nprint('afterwards')")
    assert not simulate(tmp_path, binary, workload="echo", concurrency=1).problems
    binary.write_text(text.replace("node.main()", "print('early')\nnode.main()"))
    (problem,) = simulate(tmp_path, binary, workload="echo", concurrency=1).problems
    assert problem.startswith("n0 printed a line on stdout that is not JSON: early\n")


class Lone(Watcher):
    """A simulated node that echoes, logs the time each second, and was initialised at 0."""

    def __init__(self, folder: Path, seed: int = 1) -> None:
        binary = folder / "echo.py"
        every = "\n\nnode.every(1.0, lambda: node.log(str(node.now())))\n\nnode.main()"
        text = ECHO.format(does="node.log('echo')", blocking=False)
        binary.write_text(text.replace("\n\nnode.main()", every))
        self.loop = VirtualLoop()
        self.turns: list[int] = []
        self.log: list[str] = []
        self.cluster = SimulatedCluster(self.loop, binary, [], folder, seed, self)
        self.cluster.start("n0", self)
        self.lines: list[bytes] = []
        self.arrives(0, {"type": "init", "node_id": "n0", "node_ids": ["n0"]})
        self.loop.run_to(0)

    def arrives(self, moment: int, body: dict[str, Any]) -> None:
        message = {"src": "c1", "dest": "n0", "body": {"msg_id": moment, **body}}
        self.loop.at(moment, lambda: self.cluster.deliver("n0", message))

    def turned(self, machine: Machine, lines: list[bytes]) -> None:
        self.turns.append(self.loop.now())

    def seconds(self) -> list[float]:
        """When the node took turns since it was asked last."""
        self.turns, turns = [], self.turns
        return [round(moment / SECOND, 6) for moment in turns]

    def on_line(self, node_id: str, line: bytes) -> None:
        self.lines.append(line)

    def on_stderr(self, node_id: str, line: str) -> None:
        self.log.append(line)

    def on_exit(self, node_id: str, why: str) -> None:
        pytest.fail(why)


def test_what_arrives_at_one_moment_makes_one_turn_or_two(tmp_path: Path) -> None:
    found = set()
    for seed in range(20):
        lone = Lone(tmp_path, seed)
        lone.seconds()
        for moment in (SECOND // 2, SECOND // 2, SECOND * 6 // 10):
            lone.arrives(moment, {"type": "echo", "echo": 1})
        lone.loop.run_to(SECOND // 10 * 9)
        found.add(tuple(lone.seconds()))
        assert len(lone.lines) == 4
    assert found == {(0.5, 0.6), (0.5, 0.5, 0.6)}


def test_on_a_paused_machine_nothing_happens_and_then_everything_at_once(tmp_path: Path) -> None:
    first = set()
    for seed in range(10):
        lone = Lone(tmp_path, seed)
        lone.seconds()
        began = lone.cluster.machines["n0"].clock.now()
        lone.cluster.pause("n0")
        for number in range(1, 9):
            lone.arrives(number * SECOND // 4, {"type": "echo", "echo": 1})
        lone.loop.run_to(5 * SECOND // 2)
        assert not lone.seconds() and not lone.log
        lone.cluster.resume("n0")
        lone.loop.run_to(3 * SECOND)
        assert lone.seconds() == [2.5, 2.5]
        assert lone.log.count("echo") == 8 and len(lone.log) == 9
        (shown,) = (float(line) for line in lone.log if line != "echo")
        assert shown == pytest.approx(began + 2.5)
        first.add(lone.log[0] == "echo")
    assert first == {False, True}  # what comes first is chance


def test_timers_go_by_the_machines_clock(tmp_path: Path) -> None:
    lone = Lone(tmp_path)
    lone.seconds()
    lone.cluster.set_rate("n0", 1.25)
    lone.loop.run_to(2 * SECOND)
    lone.cluster.set_rate("n0", 0.5)
    lone.loop.run_to(6 * SECOND)
    assert lone.seconds() == [0.8, 1.6, 3.0, 5.0]


def test_a_clock_gains_what_its_rate_says_and_never_jumps() -> None:
    loop = VirtualLoop()
    clock = Clock(loop, 7.0)
    loop.run_to(2 * SECOND)
    assert clock.now() == 9.0
    clock.set_rate(0.5)
    assert clock.now() == 9.0 and clock.moment(10.0) == 4 * SECOND
    loop.run_to(4 * SECOND)
    clock.set_rate(1.5)
    loop.run_to(6 * SECOND)
    assert clock.now() == 13.0


def test_the_others_soon_serve_when_the_leader_is_cut_off() -> None:
    found = measure(Latency(0, "constant"), trials=20, seed=1)  # seconds, of virtual time
    assert found[0] > 0 and statistics.median(found) <= 0.4 and found[-1] <= 1


# Invariants: each one sees the rule that it is for taken out of raft.py


MUTANTS = {
    "commit: ": ("    return count // 2 + 1\n", "    return count // 2\n"),
    "leader completeness: ": (
        "theirs = (last_log_term, last_log_index)", "theirs = (10**9, 0)"
    ),
    "one vote: ": (
        "        self.leading = Leading()\n        self.log",
        "        self.leading = Leading()\n        self.voted_for = None\n        self.log",
    ),
    "state machine safety: ": (
        "min(leader_commit, following.verified)",
        "min(leader_commit, self.log.size)",
    ),
    "no stale read: ": (
        'if self.reads == "lease" and self.node.now() < lease:',
        "if True:",
    ),
    "at most once: ": ("if msg_id > last or is_read:", "if True:"),
}


def disturbed(folder: Path, binary: Path, seed: int) -> Record:
    """A run in which bugs show: partitions of all kinds, and retries of what was lost."""
    return simulate(
        folder, binary, node_count=(3, 5)[seed % 2], rate=150, time_limit=15, seed=seed,
        latency=(0, 10, 50)[seed % 3], latency_dist="exponential", loss=0.1,
        nemesis=("partition", "loss"), nemesis_interval=0.8, partition_kinds=KINDS,
    )  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_a_rule_taken_out_is_seen_and_named(name: str, tmp_path: Path) -> None:
    rule, without = MUTANTS[name]
    source = (ROOT / "raft.py").read_text()
    assert source.count(rule) == 1, "raft.py has changed: change the mutant, too"
    binary = tmp_path / "raft.py"
    binary.write_text(source.replace(rule, without))
    found = ""
    for seed in range(1, 40):
        problems = disturbed(tmp_path, binary, seed).problems
        if found := next((text for text in problems if text.startswith(name)), ""):
            break
    first, *before = found.splitlines()
    assert f"(--seed {seed}, at " in first
    assert before[0] == "Before that:" and 2 < len(before) <= 21
    assert re.fullmatch(r"    +[0-9.]+  n[0-4] -> [nc0-9 ]+  [a-z].*", before[-1])
