"""The bench as its users meet it: runs of ./maelstrom test, good ones and bad ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from workbench import check
from workbench.record import edn
from workbench.record.edn import Keyword
from workbench.record.history import read

ROOT = Path(__file__).resolve().parents[1]
FAULTY = ROOT / "tests" / "faulty_node.py"

ECHO = """#!{python}
import sys
sys.path.insert(0, {root!r})
from node import Node

node = Node()

@node.on("echo")
def echo(msg):
    node.reply(msg, {{"type": "echo_ok", "echo": {answer}}})

node.main()
"""


def command(*words: str, bin: Path = ROOT / "raft.py") -> list[str]:
    return [sys.executable, str(ROOT / "maelstrom"), "test", "--bin", str(bin), *words]


def run(
    folder: Path, *words: str, bin: Path = ROOT / "raft.py"
) -> subprocess.CompletedProcess[str]:
    """One run in a folder of its own."""
    return subprocess.run(
        command(*words, bin=bin),
        cwd=folder,
        env={**os.environ, "MAELSTROM": "workbench"},
        capture_output=True,
        text=True,
        timeout=600,
    )


def lin_kv(seconds: float = 2, nodes: int = 1, rate: int = 100) -> list[str]:
    return [
        *("-w", "lin-kv", "--time-limit", str(seconds), "--rate", str(rate)),
        *("--node-count", str(nodes), "--concurrency", "2n", "--seed", "1"),
    ]


def test_one_node_looks_good_and_leaves_its_files(tmp_path: Path) -> None:
    done = run(tmp_path, *lin_kv(3))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().splitlines()[-1] == "Everything looks good! ヽ(‘ー`)ノ"  # noqa: RUF001
    latest = tmp_path / "store" / "latest"
    names = {path.name for path in latest.iterdir()}
    histories = {"history.edn", "history.txt", "life.edn"}
    assert names == {*histories, "node-logs", "results.edn", "timeline.html"}
    results = edn.loads((latest / "results.edn").read_text())
    assert results[Keyword("valid?")] is True
    parts = ["timeline", "exceptions", "stats", "availability", "net", "workload", "valid?"]
    assert list(results) == list(map(Keyword, parts))
    assert "\t:invoke\t:read\t[0 nil]" in done.stdout
    (found,) = check.judge(latest)
    assert found.verdict.valid is True
    # history.txt and the lines on the console tell the same story as history.edn.
    assert [(op.process, op.type, op.value) for op in read(latest / "history.txt")] == [
        (op.process, op.type, op.value) for op in read(latest)
    ]


def test_two_nodes_are_found_out_and_drawn(tmp_path: Path) -> None:
    done = run(tmp_path, *lin_kv(nodes=2), "--", "--unreplicated")
    assert done.returncode == 1
    assert done.stdout.rstrip().endswith("Analysis invalid! (ﾉಥ益ಥ）ﾉ ┻━┻")  # noqa: RUF001
    picture = next((tmp_path / "store" / "latest").glob("independent/*/linear.svg"))
    texts = " ".join(ElementTree.parse(picture).getroot().itertext())
    (found,) = check.judge(tmp_path / "store" / "latest")
    assert found.verdict.valid is False
    # One sentence everywhere; the picture breaks its lines, and shows the first key's.
    why = found.verdict.why[0]
    assert why in done.stdout
    assert why.split(";")[0] in " ".join(texts.split())


FAULTS = {
    "stale-read": (1, ["but key 0"]),
    "lost-write": (1, ["but key 0"]),
    "wrong-cas": (1, ["cas", "succeeded, but key 0"]),
    "definite-error-but-done": (1, ["but key 0"]),
    "extra-key-in-message": (1, ["malformed message", 'remove the field "time" from']),
    "no-such-destination": (1, ["there is no node or client n99; the nodes and services of"]),
    "second-init-ok": (1, ["n0 sent init_ok twice for one init: {", "\nsend it once"]),
    "not-json": (1, ["not JSON", "I am fine"]),
    "exits": (255, ["n0 ended by itself with exit status 3", "out of ideas"]),
}


TOLERATED = {  # by the real Maelstrom
    "second-reply": ["two contradicting replies", "not now"],
    "extra-key": ["malformed reply to write", "write_ok must not have value"],
    "missing-value": ["malformed reply to read", "read_ok must have value"],
    "forged-src": ["n0 sent a message as c", "its own name, as src"],
}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("fault", TOLERATED)
def test_what_maelstrom_lets_pass_is_a_warning_and_with_strict_a_failure(
    fault: str, strict: bool, tmp_path: Path
) -> None:
    words = [*lin_kv(), *["--strict"] * strict]
    done = run(tmp_path, *words, "--", fault, bin=FAULTY)
    assert done.returncode == strict, done.stdout[-3000:] + done.stderr
    assert ("Broken rule: " if strict else "\nWarning: ") in done.stdout
    for word in TOLERATED[fault]:
        assert word in done.stdout


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_out_with_a_message_that_says_what_is_wrong(
    fault: str, tmp_path: Path
) -> None:
    status, words = FAULTS[fault]
    done = run(tmp_path, *lin_kv(), "--", fault, bin=FAULTY)
    assert done.returncode == status, done.stdout[-3000:] + done.stderr
    for word in words:
        assert word in done.stdout


def test_the_faulty_node_without_a_fault_looks_good(tmp_path: Path) -> None:
    assert run(tmp_path, *lin_kv(), "--", "none", bin=FAULTY).returncode == 0


def test_a_node_that_never_answers_init(tmp_path: Path) -> None:
    done = run(tmp_path, *lin_kv(), "--", "never-answers-init", bin=FAULTY)
    assert done.returncode == 255
    assert "n0 did not answer init within 10 s" in done.stdout


@pytest.mark.parametrize(("answer", "status"), [('msg["body"]["echo"]', 0), ('"what?"', 1)])
def test_echo(answer: str, status: int, tmp_path: Path) -> None:
    node = tmp_path / "echo.py"
    node.write_text(ECHO.format(python=sys.executable, root=str(ROOT), answer=answer))
    node.chmod(0o755)
    done = run(tmp_path, "-w", "echo", "--node-count", "2", "--time-limit", "1", "--rate", "50",
               bin=node)  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr


def test_partitions_come_and_go_and_are_in_the_history(tmp_path: Path) -> None:
    words = ["--nemesis", "partition", "--nemesis-interval", "0.2", "--latency", "5"]
    done = run(tmp_path, *lin_kv(nodes=3), *words)
    assert done.returncode == 0
    faults = [op for op in read(tmp_path / "store" / "latest") if op.process == "nemesis"]
    assert {op.f for op in faults} == {"start-partition", "stop-partition"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_the_nodes_and_judges_what_was_recorded(
    number: signal.Signals, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        command(*lin_kv(60)),
        cwd=tmp_path,
        env={**os.environ, "MAELSTROM": "workbench", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    seen = [next(line for line in process.stdout if kind in line) for kind in (":ok\t:cas",)]
    process.send_signal(number)
    rest = process.stdout.read()
    assert process.wait() == 2, seen
    assert f"cut short by {number.name}" in rest
    assert (tmp_path / "store" / "latest" / "results.edn").exists()


def test_nothing_is_left_running_even_if_the_bench_is_killed(tmp_path: Path) -> None:
    lasting = tmp_path / "lasting.py"
    pid_file = tmp_path / "pid"
    # Neither the end of stdin nor a signal ends this node, and its child holds a pipe of ours.
    lasting.write_text(
        f"#!{sys.executable}\nimport os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "reader, writer = os.pipe()\n"
        "sys.stdin.readline()  # its init: by then the bench has told its guard\n"
        f"os.write(os.open({str(pid_file)!r}, os.O_WRONLY), b'ready')\n"
        "time.sleep(1000)\n"
    )
    lasting.chmod(0o755)
    os.mkfifo(pid_file)
    process = subprocess.Popen(
        command(*lin_kv(60), bin=lasting),
        cwd=tmp_path,
        env={**os.environ, "MAELSTROM": "workbench"},
        stdout=subprocess.DEVNULL,
    )
    with pid_file.open("rb") as pipe:
        assert pipe.read(5) == b"ready"
        process.kill()
        process.wait()
        assert pipe.read() == b""  # the last writer is gone


WRONG_WORDS = {
    "--concurrency 3": "needs a multiple of 2",
    "--concurrency many": "must be a whole number, 1 or more, and may end in n",
    "--node-count 0": "--node-count",
    "--rate -1": "--rate",
    "--nemesis earthquake": "unknown: earthquake; choose from partition, loss, duplicate",
    "--partition-kinds half": "unknown: half; choose from one, majority",
    "--partition-kinds ,": "needs at least one",
    "--wipe 0.5": "--wipe needs the folder of the nodes' files: -- --data-dir FOLDER",
    "--kill-targets ,": "needs at least one of one, minority, majority, all",
    "--nemesis loss,pause,clock": "--nemesis clock needs --simulate",
    "--constants KEPT_ENTRIES=4": "--constants needs --simulate",
    "--simulate --constants KEPT_ENTRIES": "must be NAME=NUMBER,NAME=NUMBER, not 'KEPT_ENTRIES'",
    "--loss 1.5": "--loss",
    "--availability 2": "must be total or a number from 0 to 1, not '2'",
    "-w list-append": "list-append",
    "--bin nowhere.py": "nowhere.py does not exist",
    "--bin /": "/ is a folder",
    "--bin README.md": "chmod +x",
}


@pytest.mark.parametrize("words", WRONG_WORDS)
def test_wrong_options_are_named_with_what_to_do(words: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").touch()
    done = run(tmp_path, "--node-count", "1", "--concurrency", "2n", *words.split())
    assert done.returncode == 255
    assert WRONG_WORDS[words] in done.stderr
    assert not (tmp_path / "store").exists()


def test_availability_is_demanded(tmp_path: Path) -> None:
    done = run(tmp_path, *lin_kv(), "--availability", "total")
    assert done.returncode == 1  # a cas that does not match is not ok
    assert "--availability" in done.stdout
