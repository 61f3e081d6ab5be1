"""A user in a hostile environment gets one line, and an exit status that is true."""

from __future__ import annotations

import http.client
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
from workbench import __main__ as bench
from workbench import check
from workbench.network.network import Latency, Network, ProtocolError, nesting
from workbench.record.edn import Keyword
from workbench.record.history import Op
from workbench.running.interrupt import Interrupted
from workbench.running.options import Options, parse
from workbench.running.results import lost_memory, results
from workbench.running.runner import Record
from workbench.simulation.loop import VirtualLoop
from workbench.units import SECOND
from workbench.verdicts import UNKNOWN
from workbench.workloads.lin_kv import LinKv
from workbench.workloads.workload import Settings

ROOT = Path(__file__).resolve().parents[1]
VALID = Keyword("valid?")
TEST = ["test", "--bin", str(ROOT / "raft.py"), "--node-count", "1", "--concurrency", "2n"]
SHORT = [*TEST, "--seed", "1", "--rate", "100", "--time-limit", "1"]
ENVIRONMENT = {**os.environ, "MAELSTROM": "workbench"}
ENVIRONMENT.pop("PYTHONUNBUFFERED", None)  # the harder case: what fails is the last flush


def maelstrom(
    folder: Path,
    *words: str,
    stdout: int | IO[bytes] = subprocess.PIPE,
    prepare: Callable[[], object] | None = None,
    **environment: str,
) -> tuple[int, str, list[str]]:
    """Exit status, stdout, and the lines on stderr, without that of the launcher."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "maelstrom"), *words],
        cwd=folder,
        env=ENVIRONMENT | environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
        preexec_fn=prepare,
        timeout=600,
    )
    said = done.stderr.decode().splitlines()
    rest = [line for line in said if not line.startswith("maelstrom: running the workbench (")]
    return done.returncode, (done.stdout or b"").decode(errors="replace"), rest


def test_store_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    status, _, said = maelstrom(tmp_path, *SHORT)
    assert status == 255 and len(said) == 1
    assert f"{tmp_path}/store/lin-kv: cannot make the run's folder" in said[0]


def test_the_verdict_is_printed_before_the_disk_is_found_to_be_full(tmp_path: Path) -> None:
    status, out, said = maelstrom(
        tmp_path, *SHORT, prepare=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, -1))
    )
    assert "Everything looks good!" in out
    assert status == 255 and len(said) == 1
    assert said[0].endswith("history.edn: File too large")


@pytest.mark.parametrize("words", [SHORT, ["check", "nowhere"], ["--help"], ["test", "--help"]])
def test_stdout_is_full(words: list[str], tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        status, _, said = maelstrom(tmp_path, *words, stdout=full)
    assert (status, said) == (255, ["maelstrom: stdout: No space left on device"])
    if words is SHORT:
        assert (tmp_path / "store" / "latest" / "results.edn").exists()


def test_nobody_reads_stdout(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as pipe:
        status, _, said = maelstrom(tmp_path, *TEST, "--time-limit", "1000", stdout=pipe)
    assert (status, said) == (255, ["maelstrom: stdout: Broken pipe"])
    assert (tmp_path / "store" / "latest" / "history.edn").exists()


def test_stdout_is_closed(tmp_path: Path) -> None:
    status, _, said = maelstrom(tmp_path, *SHORT, prepare=lambda: os.close(1))
    assert (status, said) == (255, ["maelstrom: stdout is closed"])


@pytest.mark.parametrize(("words", "status"), [(["check", "nowhere"], 2), (["tset"], 255)])
def test_stderr_is_full(words: list[str], status: int, tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, str(ROOT / "maelstrom"), *words],
            cwd=tmp_path,
            stderr=full,
            stdout=subprocess.DEVNULL,
        )
    assert done.returncode == status


def test_a_node_that_wrote_tracebacks_is_pointed_out(tmp_path: Path) -> None:
    node = tmp_path / "node.py"
    node.write_text("#!/bin/sh\necho 'Traceback (most recent call last):' >&2\n")
    node.chmod(0o755)
    status, out, _ = maelstrom(tmp_path, "test", "--bin", str(node), *TEST[3:])
    assert status == 255 and "n0 wrote 1 lines to node-logs/n0.log\n" in out


def test_a_terminal_without_utf_8(tmp_path: Path) -> None:
    status, out, said = maelstrom(tmp_path, *SHORT, PYTHONIOENCODING="ascii")
    assert (status, said) == (0, [])
    assert "Everything looks good! ?" in out


WRONG = {
    "serve --port 99999": "must be a whole number from 0 to 65535, not '99999'",
    "serve --port http": "must be a whole number from 0 to 65535, not 'http'",
    "check": "required: path",
    "check --budget many x": "must be a whole number, 1 or more, not 'many'",
    "test --bin x --rate fast": "must be a number, 0 or more, not 'fast'",
    "test --bin x --rate 1e-300": "must be 0, or 1e-09 or more, not '1e-300'",
    "test --bin x --time-limit 1e300": "must be at most 1,000,000,000, not '1e300'",
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_words_are_no_verdict(words: str, tmp_path: Path) -> None:
    status, out, said = maelstrom(tmp_path, *words.split())
    assert (status, out) == (255, "")
    assert WRONG[words] in said[-1] and "Traceback" not in "".join(said)


def test_a_binary_that_cannot_be_run(tmp_path: Path) -> None:
    binary = tmp_path / "node"
    binary.write_text("#!/no/such/interpreter\n")
    binary.chmod(0o755)
    status, out, said = maelstrom(tmp_path, "test", "--bin", str(binary), *TEST[3:])
    assert (status, said) == (255, [])
    assert f"The test was aborted: cannot run {binary}" in out
    assert ":stats" not in out  # there is nothing to look at


# A run that is cut short


def options(*words: str) -> Options:
    return parse([*SHORT[1:], *words])


def network(receive: Callable[[str, object], object] = lambda *_: None) -> Network:
    made = Network(
        VirtualLoop(), random.Random(0), Latency(0, "constant"), receive, lambda *_: None
    )
    made.add_node("n0")
    return made


def record(*events: tuple[str, str, object], cut_short: str = "") -> Record:
    """A run of one process."""
    history = [Op(0, type, f, [0, value], n, n) for n, (type, f, value) in enumerate(events)]
    return Record(history, cut_short=cut_short)


WRITTEN: list[tuple[str, str, object]] = [("invoke", "write", 1), ("ok", "write", 1)]
FAILED: list[tuple[str, str, object]] = [("invoke", "cas", [2, 3]), ("fail", "cas", [2, 3])]
STALE: list[tuple[str, str, object]] = [("invoke", "read", None), ("ok", "read", 3)]


@pytest.mark.parametrize(
    ("events", "valid", "when_cut"),
    [
        (WRITTEN, True, UNKNOWN),
        (WRITTEN + FAILED, False, UNKNOWN),  # no cas succeeded: there was no time for it
        (WRITTEN + STALE, False, False),  # an anomaly stays one
    ],
)
def test_a_run_cut_short_without_an_anomaly_is_unknown(
    events: list[tuple[str, str, object]], valid: bool, when_cut: object
) -> None:
    for cut_short, expected in ("", valid), ("cut short by SIGINT", when_cut):
        workload = LinKv(random.Random(0), Settings(1))
        run = record(*events, cut_short=cut_short)
        found = results(run, network(), workload, options("--availability", "0"))
        assert found[VALID] is expected


def test_a_cut_short_run_is_not_blamed_for_its_availability() -> None:
    run = record(*WRITTEN, ("invoke", "write", 2), cut_short="cut short by SIGINT")
    workload = LinKv(random.Random(0), Settings(1))
    found = results(run, network(), workload, options("--availability", "total"))
    assert found[VALID] is UNKNOWN


def test_an_interrupted_analysis_is_unknown_and_the_rest_is_there() -> None:
    workload = LinKv(random.Random(0), Settings(1))

    def check(_: object) -> None:
        raise Interrupted("SIGTERM")

    workload.check = check  # type: ignore[assignment, method-assign]
    run = record(*WRITTEN)
    found = results(run, network(), workload, options())
    assert found[VALID] is UNKNOWN and found[Keyword("stats")][Keyword("ok-count")] == 1
    assert run.cut_short == "cut short by SIGTERM during the analysis"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_a_series(number: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, str(ROOT / "maelstrom"), *TEST),
            *("--time-limit", "60", "--rate", "100", "--test-count", "3"),
        ],
        cwd=tmp_path,
        env=ENVIRONMENT | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout
    assert any(":invoke" in line for line in process.stdout)
    process.send_signal(number)
    rest = process.stdout.read()
    assert process.wait() == 2
    assert "Analysis invalid" not in rest and f"cut short by {number.name}" in rest
    assert len(list((tmp_path / "store" / "lin-kv").iterdir())) == 2  # one, latest


@pytest.mark.parametrize("name", ["contextlib", "shutil", "workbench.__main__"])
def test_ctrl_c_while_the_launcher_starts_prints_nothing(name: str, tmp_path: Path) -> None:
    program = f"""
import builtins, runpy, signal, sys
real = builtins.__import__
def importing(name, *words, **more):
    if name == {name!r} and sys._getframe(1).f_code.co_filename.endswith("maelstrom"):
        signal.raise_signal(signal.SIGINT)
    return real(name, *words, **more)
builtins.__import__ = importing
sys.argv = ["maelstrom", "check", "nowhere"]
runpy.run_path({str(ROOT / "maelstrom")!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


KILLED = Keyword("killed")


@pytest.mark.parametrize(
    ("kills", "args", "said"),
    [
        ([(1, "n0"), (1, "n2")], (), "n0, n2 (2 of 3) were killed at once. Nodes that keep all"),
        ([(1, "n0"), (3, "n2")], (), "n0, n2 (2 of 3) were killed within 2.0 s. Nodes that keep"),
        ([(1, "n0"), (3, "n2"), (4, "n1")], (), "n1, n2 (2 of 3) were killed within 1.0 s."),
        ([(1, "n0"), (3, "n0")], (), ""),
        ([], (), ""),
        ([(1, "n0"), (1, "n2")], ("--data-dir", "x"), ""),
    ],
)
def test_nodes_that_lost_their_memory_are_named(
    kills: list[tuple[int, str]], args: tuple[str, ...], said: str
) -> None:
    history = [
        Op("nemesis", "info", "start-kill", {node: KILLED}, time * SECOND, index)
        for index, (time, node) in enumerate(kills)
    ]
    given = options("--concurrency", "6", "--node-count", "3", "--", *args)
    found = lost_memory(history, given)
    assert found.startswith(said) and bool(found) is bool(said)
    assert not said or found.endswith("without --data-dir. Add: -- --data-dir {run}/data")


def test_a_run_whose_memory_was_lost_says_so(tmp_path: Path) -> None:
    words = ["--simulate", "--node-count", "3", "--seed", "2", "--time-limit", "30"]
    kills = ["--nemesis", "kill", "--nemesis-interval", "3", "--concurrency", "6"]
    status, out, _ = maelstrom(tmp_path, *TEST, *words, *kills, MAELSTROM_REPORT="no")
    assert status == 1 and "n1, n2 (2 of 3) were killed at once. Nodes that keep all" in out


def test_each_test_of_a_series_names_its_seed(tmp_path: Path) -> None:
    words = ["--seed", "3", "--test-count", "2", "--simulate", "--rate", "100"]
    status, out, _ = maelstrom(tmp_path, *TEST, *words, MAELSTROM_REPORT="no")
    assert status == 0 and "raft.py with 1 node, --seed 3\n" in out
    assert "raft.py with 1 node, --seed 4\n" in out


def test_a_rate_of_0_says_that_nothing_was_sent(tmp_path: Path) -> None:
    status, out, _ = maelstrom(tmp_path, *TEST, "--simulate", "--rate", "0")
    assert status == 0 and "The clients sent nothing, because of --rate 0.\n" in out


def test_a_signal_outside_of_a_run_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench.COMMANDS, "check", lambda _: signal.raise_signal(signal.SIGTERM))
    assert bench.main(["check"]) == 130


def test_a_bug_of_the_bench_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench.COMMANDS, "check", lambda _: 1 // 0)
    assert bench.main(["check"]) == 255


# check

GOOD = "".join(
    f"{{:type {type}, :f :write, :value [0 1], :process 0, :index {index}}}\n"
    for index, type in enumerate([":invoke", ":ok"])
)


@pytest.mark.parametrize(
    ("parts", "verdict", "why"),
    [
        ("{:exceptions {:valid? true}, :valid? true}", True, "1 operation"),
        ('{:exceptions {:valid? false, :exceptions ["n0 lied"]}}', False, "n0 lied"),
        ("{:stats {:valid? false}, :cut-short {:valid? :unknown}}", False, "stats: "),
        ('{:exceptions {:valid? false, :exceptions ["n0 lied\\nBefore that:"]}}', False,
         "Broken rule: n0 lied\nBefore that:"),
        ('{:workload {:valid? false, :errors [["Expected" "a" "But received" "b"]]}}', False,
         'An echo of "a" was expected, but "b" was received'),
        ('{:cut-short {:valid? :unknown, :why "cut"}}', None, "cut"),
        ("{:workload {:valid? false}}", True, "1 operation"),  # check's own judgement counts
        ("{", True, "results.edn cannot be read"),
        (None, True, "results.edn cannot be read"),
    ],
)
def test_check_agrees_with_the_results_of_the_run(
    parts: str | None, verdict: bool | None, why: str, tmp_path: Path
) -> None:
    (tmp_path / "history.edn").write_text(GOOD)
    if parts is not None:
        (tmp_path / "results.edn").write_text(parts)
    (found,) = check.judge(tmp_path)
    assert found.verdict.valid is verdict and why in found.text()
    (found,) = check.judge(tmp_path / "history.edn")
    assert (found.verdict.valid, found.text()) == (True, "1 operation on 1 key")


# serve


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[int, IO[str]]]:
    """The port of a server, and what it logs."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "results.edn").write_text("{}")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "maelstrom"), "serve", "--port", "0"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stderr
    url = process.stdout.readline()
    process.stderr.readline()  # the launcher's
    yield int(url.split(":")[2].split("/")[0]), process.stderr
    process.terminate()
    assert process.wait() == 130
    assert "Traceback" not in process.stderr.read()


REQUESTS = [
    ("/results.edn", None, 200),
    ("/results.edn", "localhost:8080", 200),
    ("/results.edn", "[::1]", 200),
    ("/results.edn", "evil.example", 403),
    ("/results.edn", "localhost.evil.example:8080", 403),
    ("/%00", None, 404),
    (f"/{'a' * 5000}", None, 404),
    ("/../../../../etc/passwd", None, 404),
]


def test_serve_refuses_what_is_hostile(site: tuple[int, IO[str]]) -> None:
    port, log = site
    for path, host, status in REQUESTS:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        connection.request("GET", path, headers={"Host": host} if host else {})
        assert connection.getresponse().status == status, (path, host)
        connection.close()
        if status != 200:
            assert f"code {status}" in log.readline()
        assert f'HTTP/1.1" {status}' in log.readline()


# Nodes


@pytest.mark.parametrize(
    "text",
    ['"' + "[{" * 100 + '"', r'"\"' + "[" * 101 + r'\""', "[]" * 101, "[" * 100 + "]" * 100],
)
def test_what_is_not_nested_too_deep(text: str) -> None:
    assert nesting(text.encode()) <= 100


def test_a_reply_nested_too_deep_breaks_a_rule() -> None:
    value = "[" * 900 + "]" * 900
    line = f'{{"src": "n0", "dest": "n0", "body": {{"type": "x", "value": {value}}}}}'
    with pytest.raises(ProtocolError, match="nested deeper than 100"):
        network().from_node("n0", line.encode())
