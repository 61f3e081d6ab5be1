"""Nodes as processes: whole lines in both directions, and how they end."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from workbench.record.node_log import said
from workbench.running import cluster as cluster_module
from workbench.running.cluster import FLUSH, GUARD, WELL, Processes
from workbench.simulation.loop import RealLoop
from workbench.units import SECOND


class Told:
    """A listener that records all calls."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, bytes]] = []
        self.words: list[str] = []
        self.exits: list[str] = []

    def on_line(self, node_id: str, line: bytes) -> None:
        self.lines.append((node_id, line))

    def on_stderr(self, node_id: str, line: str) -> None:
        self.words.append(line)

    def on_exit(self, node_id: str, why: str) -> None:
        self.exits.append(f"{node_id} {why}")


class Bench:
    """A cluster of Python programs."""

    def __init__(self, folder: Path) -> None:
        self.loop = RealLoop()
        self.told = Told()
        self.folder = folder
        self.cluster: Processes | None = None

    def start(self, program: str, node_id: str = "n0") -> Processes:
        prefix = "import os, signal, sys\n"
        self.cluster = Processes(self.loop, [sys.executable, "-c", prefix + program], self.folder)
        self.cluster.start(node_id, self.told)
        return self.cluster

    def until(self, done: Callable[[], bool]) -> None:
        """Runs the loop; what waits in vain fails and does not hang."""
        self.loop.after(30 * SECOND, self.give_up)
        self.loop.run_until(done)

    def give_up(self) -> None:
        pytest.fail(f"waited in vain; told were {vars(self.told)}")

    def log(self) -> bytes:
        return (self.folder / "n0.log").read_bytes()

    def said(self) -> list[bytes]:
        """The node's own lines in its log."""
        return [line.removesuffix(b"\n") for line in said(BytesIO(self.log()))]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    if bench.cluster:
        bench.cluster.stop()


def test_last_words_are_whole_lines_even_when_they_come_in_pieces(bench: Bench) -> None:
    cluster = bench.start(
        "os.write(2, b'first\\nhalf \\xe2\\x82')\n"
        "input()\n"
        "os.write(2, b'\\xac a line\\r\\nno end')\n"
        "os._exit(3)"
    )
    bench.loop.start_run()
    bench.until(lambda: b"first" in bench.log())
    assert bench.told.words == ["first"]
    cluster.deliver("n0", {})
    bench.until(lambda: bool(bench.told.exits))
    assert bench.told.words == ["first", "half \u20ac a line", "no end"]
    assert bench.told.exits == [
        "n0 ended by itself with exit status 3; its last lines on stderr:\n"
        "    first\n    half \u20ac a line\n    no end"
    ]
    assert bench.said() == [b"first", b"half \xe2\x82\xac a line\r", b"no end"]


def test_only_the_last_of_many_words_are_shown(bench: Bench) -> None:
    bench.start("for n in range(100): print('line', n, file=sys.stderr)")
    bench.until(lambda: bool(bench.told.exits))
    (why,) = bench.told.exits
    assert why.count("\n") == 20
    assert why.endswith("line 98\n    line 99")


@pytest.mark.parametrize(
    ("program", "how"),
    [("pass", WELL), ("os.kill(os.getpid(), signal.SIGTERM)", "SIGTERM")],
)
def test_a_node_that_ends_by_itself_is_told_of(program: str, how: str, bench: Bench) -> None:
    cluster = bench.start(program)
    bench.until(lambda: bool(bench.told.exits))
    assert bench.told.exits == [f"n0 ended by itself with {how} and no line on stderr"]
    cluster.deliver("n0", {})  # goes nowhere


def test_one_that_ends_just_before_it_is_stopped_is_told_of_too(bench: Bench) -> None:
    cluster = bench.start("sys.exit(3)")
    cluster.start("n1", bench.told)
    for node in cluster._nodes.values():
        node.process.wait()
    cluster.stop()
    assert [why[:30] for why in bench.told.exits] == [
        "n0 ended by itself with exit s", "n1 ended by itself with exit s"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("first", "why"),
    [
        ("#!/usr/bin/env python3\r\n", "its first line ends in CRLF"),
        ("#!/usr/bin/env no-such-python\n", "its first line, no-such-python, is not on the PATH"),
        ("#!/usr/bin/env -S no-such-python -u\n", "no-such-python, is not on the PATH"),
    ],
)
def test_an_interpreter_that_env_does_not_find_is_named(
    first: str, why: str, tmp_path: Path, bench: Bench
) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(first.encode())
    binary.chmod(0o755)
    bench.cluster = Processes(bench.loop, [str(binary)], tmp_path)
    bench.cluster.start("n0", bench.told)
    bench.until(lambda: bool(bench.told.exits))
    assert "exit status 127" in bench.told.exits[0] and why in bench.told.exits[0].split("\n")[-1]


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("", "n0 printed nothing: it has no code for the type init, printed no newline after its "
         f"reply, did not flush it {FLUSH}, or needs longer to start"),
        ("os.write(1, b'hi')", "n0 printed 2 bytes on stdout without a newline at their end: hi"),
        ("os.write(1, b'1\\n2')", "n0 printed 1 byte on stdout without a newline at their end: 2"),
        ("os.write(1, b'1\\n'); os.close(1)", "n0 closed its stdout, so no reply can come"),
        ("os.write(1, b'1\\n')", ""),
    ],
)
def test_output_that_is_missing_is_explained(program: str, why: str, bench: Bench) -> None:
    cluster = bench.start(f"{program}\nos.write(2, b'done\\n')\nsignal.pause()")
    bench.until(lambda: bench.told.words == ["done"])
    bench.loop.after(0, lambda: bench.told.words.append("read"))  # after what can be read
    bench.until(lambda: "read" in bench.told.words)
    said = cluster.unsent("n0")
    assert said.startswith(why) and bool(said) is bool(why)
    cluster.stop()
    assert cluster.unsent("n0") == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("package main\n",
         "its first line must name an interpreter, as #!/usr/bin/env python3 does; for source code "
         "in another language, give the compiled program, or write a script with the lines "
         "#!/bin/sh and exec COMMAND {}"),
        ("#!/no/python\n", "the interpreter in its first line, /no/python, does not exist"),
        ("#!/no/python -u\n", "the interpreter in its first line, /no/python, does not exist"),
        ("#!/bin/sh\r\n", "its first line ends in CRLF, a line end of Windows, and the CR counts "
         "as part of the interpreter's name; change all line ends to LF: sed -i 's/\\r$//' {}"),
        ("\ufeff#!/bin/sh\n",
         "it begins with a byte order mark (BOM) before #!; save it as UTF-8 without BOM"),
        ("#!\n",
         "its first line must name an interpreter after #!, as #!/usr/bin/env python3 does"),
        (None, "No such file or directory"),
    ],
)
def test_why_a_file_cannot_be_run(tmp_path: Path, text: str | None, why: str) -> None:
    binary = tmp_path / "binary"
    if text:
        binary.write_bytes(text.encode())
        binary.chmod(0o755)
    cluster = Processes(RealLoop(), [str(binary)], tmp_path)
    with pytest.raises(OSError) as caught:
        cluster.start("n0", Told())
    assert caught.value.strerror == why.format(binary)
    cluster.stop()


def test_messages_are_lines_of_json_and_lines_come_whole(bench: Bench) -> None:
    cluster = bench.start(
        "os.write(1, b'ha')\n"
        "os.write(2, b'said\\n')\n"
        "for line in sys.stdin.buffer:\n"
        "    os.write(1, b'lf\\n' + line + b'ha')\n"
    )
    bench.until(lambda: bool(bench.told.words))  # so it has read the first piece
    cluster.deliver("n0", {"a": "\u20ac"})
    cluster.deliver("n0", {"b": [1, None]})
    bench.until(lambda: len(bench.told.lines) == 4)
    assert [id for id, _ in bench.told.lines] == ["n0"] * 4
    texts = [line for _, line in bench.told.lines]
    assert texts[::2] == [b"half", b"half"]
    assert [json.loads(text) for text in texts[1::2]] == [{"a": "\u20ac"}, {"b": [1, None]}]


def test_a_line_without_an_end_does_not_fill_the_memory(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "LONGEST", 100_000)
    bench.start("while True: os.write(1, b'x' * 1000)")
    bench.until(lambda: bool(bench.told.exits))
    assert bench.told.exits == [
        "n0 printed more than 100,000 bytes on stdout without a newline: end each message with a "
        "newline"
    ]


def test_messages_have_no_blanks_as_in_maelstrom(bench: Bench) -> None:
    cluster = bench.start("for line in sys.stdin.buffer: os.write(1, line)")
    cluster.deliver("n0", {"id": 1, "body": {"type": "init", "node_ids": ["n0", "n1"]}})
    bench.until(lambda: len(bench.told.lines) == 1)
    wanted = b'{"id":1,"body":{"type":"init","node_ids":["n0","n1"]}}'
    assert bench.told.lines == [("n0", wanted)]


def test_characters_are_utf_8_as_in_maelstrom_and_half_of_one_is_a_question_mark(
    bench: Bench,
) -> None:
    cluster = bench.start("for line in sys.stdin.buffer: os.write(1, line)")
    cluster.deliver("n0", {"a": "\u20ac\0\ud83d"})
    bench.until(lambda: len(bench.told.lines) == 1)
    assert bench.told.lines == [("n0", '{"a":"\u20ac\\u0000?"}'.encode())]


def test_what_a_pipe_does_not_take_waits_and_arrives_in_order(bench: Bench) -> None:
    cluster = bench.start(
        "input()\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin: print(len(line), line[:12], sep='', end='\\n', flush=True)"
    )
    cluster.deliver("n0", {})
    bench.until(lambda: len(bench.told.lines) == 1)
    sizes = [200_000, 5, 300_000, 7]
    for number, size in enumerate(sizes):
        cluster.deliver("n0", {"n": number, "x": "x" * size})  # none of it blocks
    bench.until(lambda: len(bench.told.lines) == 5)
    assert [line for _, line in bench.told.lines[1:]] == [
        f'{size + 15}{{"n":{number},"x":"'.encode() for number, size in enumerate(sizes)
    ]


def test_a_node_that_does_not_read_its_input_stops_nobody(bench: Bench) -> None:
    cluster = bench.start("os.close(0)\nprint('closed', flush=True)\nsignal.pause()")
    bench.until(lambda: bool(bench.told.lines))
    cluster.deliver("n0", {"x": "x" * 200_000})
    cluster.deliver("n0", {})
    assert not bench.told.exits


def test_the_working_directory_is_the_folder_for_temporary_files(bench: Bench) -> None:
    bench.start("print(os.getcwd())")
    bench.until(lambda: bool(bench.told.lines))
    assert bench.told.lines[0][1].decode() == os.path.realpath(tempfile.gettempdir())


def test_stop_kills_what_a_node_has_started_and_keeps_its_last_words(bench: Bench) -> None:
    sleeper = f"exec {shlex.quote(sys.executable)} -c 'import signal; signal.pause()'"
    cluster = bench.start(
        "import subprocess\n"
        f"child = subprocess.Popen(['/bin/sh', '-c', {sleeper!r}])\n"
        "os.write(1, b'%d\\n' % child.pid)\n"
        "signal.pause()"
    )
    bench.until(lambda: bool(bench.told.lines))
    child = int(bench.told.lines[0][1])
    handle = os.pidfd_open(child)
    gone: list[int] = []
    cluster.stop()
    cluster.stop()
    bench.loop.watch(handle, lambda: gone.append(child))  # readable when it has ended
    bench.until(lambda: bool(gone))
    os.close(handle)
    assert not bench.told.exits  # it did not end by itself


def test_a_killed_node_starts_again_with_a_log_that_goes_on(bench: Bench) -> None:
    cluster = bench.start(
        "os.write(2, b'born\\n')\n"
        "for line in sys.stdin: os.write(1, b'%d %s' % (os.getpid(), line.encode()))"
    )
    cluster.deliver("n0", {"n": 1})
    bench.until(lambda: len(bench.told.lines) == 1 and len(bench.told.words) == 1)
    cluster.kill("n0")
    cluster.deliver("n0", {"n": 2})  # is lost
    cluster.kill("n0")
    cluster.start("n0", bench.told)
    cluster.deliver("n0", {"n": 3})
    bench.until(lambda: len(bench.told.lines) == 2 and len(bench.told.words) == 2)
    (first, one), (second, three) = (line.split(b" ", 1) for _, line in bench.told.lines)
    assert first != second and (one, three) == (b'{"n":1}', b'{"n":3}')
    cluster.stop()
    assert bench.said() == [b"born", b"born"]
    lines = bench.log().decode().splitlines()
    assert [line[line.index("  ", 6) + 2 :] for line in lines] == [
        "--- n0: start 1", "born", "--- n0: killed", "--- n0: start 2", "born"
    ]  # fmt: skip
    times = [float(line.split()[0]) for line in lines]
    assert times == sorted(times)
    assert not bench.told.exits


def test_what_a_node_has_written_before_a_kill_has_left(bench: Bench) -> None:
    cluster = bench.start(
        "os.write(1, b'one\\ntwo\\nhal')\n"
        f"open({str(bench.folder / 'written')!r}, 'w').close()\n"
        "signal.pause()"
    )
    while not (bench.folder / "written").exists():  # the loop does not run: nothing is read
        os.sched_yield()
    cluster.kill("n0")
    assert [line for _, line in bench.told.lines] == [b"one", b"two"]


def test_a_kill_comes_too_late_for_a_node_that_has_ended_by_itself(bench: Bench) -> None:
    cluster = bench.start("os._exit(3)")
    os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    cluster.kill("n0")
    assert bench.told.exits == ["n0 ended by itself with exit status 3 and no line on stderr"]


def state(process: int) -> str:
    """R, S, T (stopped), Z...: proc(5)."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_paused_node_stands_still_until_it_goes_on(bench: Bench) -> None:
    cluster = bench.start("for line in sys.stdin: print(os.getpid(), flush=True)")
    cluster.deliver("n0", {})
    bench.until(lambda: len(bench.told.lines) == 1)
    process = int(bench.told.lines[0][1])
    cluster.pause("n0")
    os.waitid(os.P_PID, process, os.WSTOPPED | os.WNOWAIT)
    cluster.deliver("n0", {})
    assert state(process) == "T"
    cluster.resume("n0")
    bench.until(lambda: len(bench.told.lines) == 2)


def test_a_kill_ends_a_pause_and_faults_of_what_is_dead_do_nothing(bench: Bench) -> None:
    cluster = bench.start("for line in sys.stdin: print('heard', flush=True)")
    cluster.pause("n0")
    cluster.kill("n0")
    cluster.pause("n0")
    cluster.start("n0", bench.told)
    cluster.deliver("n0", {})
    bench.until(lambda: len(bench.told.lines) == 1)
    cluster.resume("n0")
    cluster.pause("n0")
    cluster.stop()  # of what is stopped, too
    assert not bench.told.exits


def test_the_guard_kills_stopped_nodes_but_none_that_have_ended(bench: Bench) -> None:
    """The guard's lines are written by hand: the number of an ended node may be reused."""
    sleep = [sys.executable, "-c", "import signal; signal.pause()"]
    nodes = [subprocess.Popen(sleep, start_new_session=True) for _ in range(3)]
    guard = subprocess.Popen(["/bin/sh", "-c", GUARD], stdin=subprocess.PIPE)
    told = [f"started {node.pid}" for node in nodes] + [f"ended {nodes[1].pid}"]
    os.killpg(nodes[0].pid, signal.SIGSTOP)
    guard.communicate("".join(f"{line}\n" for line in told).encode(), timeout=600)
    assert [nodes[n].wait(600) for n in (0, 2)] == [-signal.SIGKILL] * 2
    assert nodes[1].poll() is None
    nodes[1].kill()
    nodes[1].wait()
