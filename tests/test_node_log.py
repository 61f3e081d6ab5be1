"""The nodes' logs: each line has the run's time, and each start and kill its mark."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_runner import options
from test_simulation import ROOT
from workbench.console.console import Console
from workbench.record import node_log
from workbench.record.node_log import NodeLog
from workbench.running.prepare import prepare
from workbench.simulation.loop import VirtualLoop
from workbench.units import MILLISECOND, SECOND

PRINTS = """
import sys
from node import Node
node = Node()
print("early")

@node.on("echo")
def echo(msg):
    print("asked", end=" ")
    print("once")
    print("warned", file=sys.stderr)
    node.reply(msg, {"type": "echo_ok", "echo": msg["body"]["echo"]})

node.main()
"""


def test_lines_have_the_time_since_the_first_operation(tmp_path: Path) -> None:
    loop, failures = VirtualLoop(), list[str]()
    log = NodeLog(tmp_path, "n1", loop, failures.append)
    loop.time = 100 * MILLISECOND
    log.started()
    log.write([b"early", b"  9.999  its own number"])
    assert not (tmp_path / "n1.log").read_bytes()  # time 0 is not known yet
    loop.time = 300 * MILLISECOND
    loop.start_run()
    loop.time += 6125 * MILLISECOND
    log.write([b"--- not a mark", b"\xff"])
    log.mark("killed")
    log.close()
    text = (tmp_path / "n1.log").read_bytes()
    assert text.splitlines() == [
        b" -0.200  --- n1: start 1",
        b" -0.200  early",
        b" -0.200    9.999  its own number",
        b"  6.125  --- not a mark",
        b"  6.125  \xff",
        b"  6.125  --- n1: killed",
    ]
    assert not failures


def test_a_run_that_fails_early_has_its_log(tmp_path: Path) -> None:
    loop = VirtualLoop()
    log = NodeLog(tmp_path, "n1", loop, pytest.fail, 6)
    loop.time = 100 * MILLISECOND
    log.write([b"too early"])
    log.close()
    assert (tmp_path / "n1.log").read_bytes() == b"  0.100000  too early\n"


def test_a_flood_before_time_0_does_not_fill_the_memory(tmp_path: Path) -> None:
    loop = VirtualLoop()
    log = NodeLog(tmp_path, "n1", loop, pytest.fail)
    log.write([b"x" * node_log.MOST_HELD, b"y"])
    text = (tmp_path / "n1.log").read_bytes()
    assert text.startswith(b"      ?  xx") and text.endswith(b"\n      ?  y\n")
    assert [*node_log.said(text.splitlines())][1] == b"y"
    log.close()


def test_a_full_disk_is_told_once(tmp_path: Path) -> None:
    loop, failures = VirtualLoop(), list[str]()
    (tmp_path / "n1.log").symlink_to("/dev/full")
    log = NodeLog(tmp_path, "n1", loop, failures.append)
    loop.start_run()
    log.write([b"one"])
    log.write([b"two"])
    log.close()
    assert failures == ["has a log that cannot be written: No space left on device"]


def test_a_log_of_the_real_maelstrom_has_neither_times_nor_marks() -> None:
    log = [b"Traceback", b"  6.125 is a number", b"--- a line"]
    assert [*node_log.said(log)] == log


def test_a_simulated_run_tells_one_time_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = options(
        bin=ROOT / "raft.py", simulate=True, node_count=3, concurrency=3, log_stderr=True,
        time_limit=5, nemesis=("kill",), nemesis_interval=1,
    )  # fmt: skip
    record = prepare(given, tmp_path, Console()).run()
    out = capsys.readouterr().out
    log = (tmp_path / "n1.log").read_text()
    late = [line for line in record.life if line.node == "n1" and line.time > 0]
    assert late and "before 0 s\t" in out
    for line in late:
        assert f"{line.time / SECOND:10.6f}  {line.text}\n" in log
        assert f"{line.time / SECOND:.6f} s\tINFO\t[n1 stderr] {line.text}\n" in out
    for op in record.history[:10]:
        assert f"{op.time / SECOND:.6f} s\tINFO\t[jepsen " in out
    starts = [line for line in log.splitlines() if "--- n1: start " in line]
    assert 1 < len(starts) == log.count("--- n1: killed") + ("killed" not in log.splitlines()[-1])


@pytest.mark.parametrize("early", [False, True])
def test_a_simulated_node_prints_as_a_process_does(
    early: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    binary = tmp_path / "prints.py"
    binary.write_text(PRINTS if early else PRINTS.replace('print("early")\n', ""))
    given = options(bin=binary, workload="echo", simulate=True, concurrency=1)
    record = prepare(given, tmp_path, Console()).run()
    text = (tmp_path / "n0.log").read_bytes().splitlines(keepends=True)
    said = b"".join(node_log.said(text))
    if early:  # before main() stdout is the node's output
        (problem,) = record.problems
        assert problem.startswith("n0 printed a line on stdout that is not JSON")
        assert "early" in problem and b"early" not in said
    else:
        assert not record.problems
        assert said.startswith(b"asked once\n") and b"warned" in said
    assert "asked" not in capsys.readouterr().out
