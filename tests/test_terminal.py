"""The progress line of a run, and the table of its results."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from test_runner import good, make, saying
from workbench import __main__ as bench
from workbench.console.console import Console
from workbench.console.progress import Progress
from workbench.console.summary import summary
from workbench.record.edn import Keyword
from workbench.record.history import Op
from workbench.record.life import MOST, Ear
from workbench.units import SECOND

ROOT = Path(__file__).resolve().parents[1]
MS = SECOND // 1000
SIMULATED = [
    *("test", "--bin", str(ROOT / "raft.py"), "--simulate", "--seed", "1", "--rate", "20"),
    *("--node-count", "3", "--concurrency", "2n", "--time-limit", "40", "--latency", "10"),
]


class Run:
    """A run, and what its line says."""

    def __init__(self) -> None:
        self.history: list[Op] = []
        self.ear = Ear()
        self.progress = Progress(self.history, self.ear, 60)

    def note(self, process: int | str, type: str, at: int, f: str = "read") -> None:
        self.history.append(Op(process, type, f, None, at * MS, len(self.history)))

    def did(self, began: int, took: int, type: str = "ok", f: str = "read") -> None:
        """An operation; times are in ms."""
        self.note(0, "invoke", began, f)
        self.note(0, type, began + took, f)

    def says(self, node_id: str, text: str) -> None:
        self.ear.hear(0, node_id, f"{node_id} term {text}")

    def at(self, at: int, faults: str = "") -> str:
        """The shorter line."""
        return self.progress.lines(at * MS, faults)[1]


# The line


def test_the_line_counts_what_has_ended() -> None:
    run = Run()
    for type in ["ok"] * 1998 + ["fail", "fail", "info"]:
        run.did(0, 1, type)
    run.note("nemesis", "info", 2)
    run.note(1, "invoke", 2)
    long, short = run.progress.lines(30 * SECOND, "")
    assert long.startswith("30 of 60 s, 2,001 operations (1,998 ok, 2 failed, 1 unknown), 66.7/s")
    assert short.startswith("30 of 60 s, 2,001 operations, 66.7/s")


def test_an_event_is_counted_once_and_an_operation_may_span_two_looks() -> None:
    run = Run()
    assert run.at(0) == "0 of 60 s, 0 operations, 0.0/s"
    run.note(0, "invoke", 100)
    assert "0 operations" in run.at(200)
    run.note(0, "ok", 600)
    for _ in range(2):
        assert run.at(1000) == "1 of 60 s, 1 operations, 1.0/s, 500 ms"


def test_the_latency_is_the_median_of_what_was_ok_in_the_last_second() -> None:
    run = Run()
    for took in (900, 900, 900):
        run.did(0, took)
    for took in (1, 2, 30):
        run.did(2000, took)
    for _ in range(9):
        run.did(2000, 500, "fail")
    assert run.at(2600).endswith("/s, 2 ms")
    assert run.at(3020).endswith("/s, 30 ms"), "the others are older than a second"
    assert run.at(3030).endswith("/s, none ok")


def test_the_line_says_who_leads_in_the_latest_term() -> None:
    run = Run()
    assert run.at(0).endswith("/s"), "these nodes may have no roles"
    run.says("n0", "1: candidate")
    assert run.at(0).endswith(", no leader heard")
    run.says("n1", "9: leader, elected by n1 n2")
    run.says("n0", "10: leader, elected by n0 n2")
    run.says("n2", "11: follower, n0 asks for a vote")
    assert run.at(0).endswith(", n0 leads term 10")
    run.says("n0", "11: follower of n2")
    assert run.at(0, "loss: 0.1").endswith(", n1 leads term 9, loss: 0.1")


def test_a_node_that_was_killed_does_not_lead() -> None:
    runner, _ = make(saying("n0 term 1: leader, elected by n0"), time_limit=1)
    runner.loop.at(SECOND, lambda: leaders.append(runner._ear.leader()))
    runner.loop.at(SECOND, lambda: runner._kill("n0"))
    runner.loop.at(SECOND, lambda: leaders.append(runner._ear.leader()))
    leaders: list[tuple[str, int] | None] = []
    runner.run()
    assert leaders == [("n0", 1), None]


def test_nobody_knows_what_a_node_is_whose_lines_are_not_kept_any_more() -> None:
    run = Run()
    for _ in range(MOST - 1):
        run.says("n0", "1: leader, elected by n0")
    assert run.ear.leader() == ("n0", 1)
    run.says("n0", "1: leader, elected by n0")
    assert run.ear.leader() is None


def test_a_run_shows_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, ...]] = []
    monkeypatch.setattr(Console, "progress", lambda _, *texts: said.append(texts))
    runner, _ = make(good, time_limit=6, nemesis=("pause",), nemesis_interval=1000, rate=100)
    runner._cluster.pause = lambda node_id: None  # type: ignore[method-assign]
    runner._cluster.resume = lambda node_id: None  # type: ignore[method-assign]
    runner.run()
    assert len(said) == 3 and said[-1] == ("",)
    line = r"5 of 6 s, (49|50)\d operations, \d+\.\d/s, 0\.00 ms, pause: n0"
    assert re.fullmatch(line, said[1][1])


def on_a_terminal(columns: int, folder: Path) -> str:
    """All that a run writes to a terminal of that width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {**os.environ, "MAELSTROM": "workbench", "TERM": "xterm"}
    for name in ("COLUMNS", "NO_COLOR"):
        environment.pop(name, None)
    command = [sys.executable, str(ROOT / "maelstrom"), *SIMULATED]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=theirs, stderr=subprocess.DEVNULL
    ) as process:
        os.close(theirs)
        found = b""
        try:
            while some := os.read(ours, 65536):
                found += some
        except OSError:  # that is how a terminal ends
            pass
        os.close(ours)
    assert process.returncode == 0
    return found.decode()


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (120, r"30 of 40 s, \d+ operations \(\d+ ok, .* unknown\), .*, n\d leads term \d"),
        (80, r"30 of 40 s, \d+ operations, \d+\.\d/s, \d+ ms, n\d leads term \d"),
        (24, r"30 of 40 s, \d+ operati?"),
    ],
)
def test_the_line_fits_the_terminal(columns: int, line: str, tmp_path: Path) -> None:
    out = on_a_terminal(columns, tmp_path)
    # The line is what follows a clearing; lines of the log are printed there, too.
    lines = {text for text in re.findall(r"\r\x1b\[K([^\r\n\x1b]*)", out) if " of 40 s" in text}
    assert len(lines) == 4, "one every ten seconds"
    assert max(map(len, lines)) < columns
    assert any(re.fullmatch(line, text) for text in lines), lines
    before, _, after = out.rpartition("\r\x1b[K")
    assert "analyzing" in after and before.endswith(max(lines)), "it is taken away in the end"


# The table


def results(ok: float = 1.0, messages: float = 2.5, **kinds: list[int]) -> dict[Keyword, Any]:
    """Those of a run with so many operations of each kind: ok, failed and unknown."""

    def counts(numbers: list[int]) -> dict[Keyword, int]:
        names = ("count", "ok-count", "fail-count", "info-count")
        return dict(zip(map(Keyword, names), [sum(numbers), *numbers], strict=True))

    total = [sum(column) for column in zip(*kinds.values(), strict=True)] or [0, 0, 0]
    by_f = {Keyword(f): counts(numbers) for f, numbers in kinds.items()}
    return {
        Keyword("stats"): {**counts(total), Keyword("by-f"): by_f},
        Keyword("availability"): {Keyword("ok-fraction"): ok},
        Keyword("net"): {Keyword("servers"): {Keyword("msgs-per-op"): messages}},
    }


def test_the_table() -> None:
    run = Run()
    for took in range(100, 0, -1):
        run.did(0, took, "ok", "read")
    run.did(0, 1500, "ok", "write")
    run.did(0, 700, "fail", "write")
    run.did(0, 900, "info", "cas")
    found = results(0.9805, cas=[0, 0, 1], read=[100, 0, 0], write=[1, 1, 0])
    assert summary(run.history, found) == [
        "       operations   ok  failed  unknown  median    p95    max",
        "cas             1    0       0        1       -      -      -",
        "read          100  100       0        0      50     95    100",
        "write           2    1       1        0   1,500  1,500  1,500",
        "all           103  101       1        1      51     96  1,500",
        "98.0% of the operations were ok. The latencies are of ok operations, in ms.",
        "2.50 messages between servers for an operation.",
    ]


def test_one_kind_needs_no_sum() -> None:
    run = Run()
    run.did(0, 7, "ok", "echo")
    assert [line.split()[0] for line in summary(run.history, results(echo=[1, 0, 0]))[1:-2]] == [
        "echo"
    ]


def test_there_is_no_table_of_nothing() -> None:
    run = Run()
    run.note("nemesis", "info", 0)
    assert summary(run.history, results()) == []
    run.note(0, "invoke", 0)
    assert summary(run.history, results(read=[0, 0, 0])) == []


def test_an_operation_in_flight_at_the_end_counts_as_unknown() -> None:
    run = Run()
    run.did(0, 7, "ok", "echo")
    run.note(0, "invoke", 0, "echo")
    row = summary(run.history, results(echo=[1, 0, 0]))[1]
    assert row.split()[:5] == ["echo", "2", "1", "0", "1"]


# All of it


def test_the_parts_have_their_order_and_plain_text_has_no_controls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert bench.main([*SIMULATED, "--rate", "1000", "--time-limit", "11"]) == 0
    out = capsys.readouterr().out
    assert not re.search(r"[^\n\t\x20-\x7e\xa0-\U0010ffff]", out)
    order = [
        r"\[workbench\] .*raft\.py with 3 nodes, --seed 1\n",
        r"\[workbench\] 10 of 11 s, [\d,]+ operations \(.*n\d leads term \d\n",
        r"analyzing the history",
        r" :valid\? true}\n\n",
        r" +operations +ok .*max\ncas .*\nread .*\nwrite .*\nall .*\n",
        r"The clients could not keep the rate",
        r"The results are in store/.* in a browser\.\n\n\nEverything looks good! .*\n$",
    ]
    found = [re.search(part, out) for part in order]
    assert all(found), list(zip(order, found, strict=True))
    starts = [match.start() for match in found if match]
    assert starts == sorted(starts)
