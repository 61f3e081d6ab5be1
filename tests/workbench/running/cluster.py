"""The nodes of a run, as processes that are started and ended as in Maelstrom."""

from __future__ import annotations

import codecs
import contextlib
import errno
import json
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from ..record.node_log import NodeLog
from ..simulation.loop import RealLoop
from ..units import SECOND

LAST_LINES = 20  # lines of stderr to show when a node ends by itself
READ_SIZE = 1 << 16
LONG = 300  # characters of a line to show
LONGEST = 200_000_000  # bytes of an unfinished line on stdout, so that it does not fill the memory
NOT_FOUND = (126, 127)  # exit status of env and of shells for a program that cannot be run
# Advice on flushing stdout, which these languages buffer if it is a pipe.
FLUSH = "(Python: print(text, flush=True), Ruby: $stdout.sync = true, C: fflush(stdout))"
WELL = "exit status 0 (but a node must run until it is killed; with node.py: call node.main())"
WATCH_INTERVAL = SECOND // 10  # time between checks for ended nodes
# Writes JSON as Maelstrom does (cheshire), without blanks and with \u only where it must be: a node
# in C or shell may search a line for "type":"init". Made once: making an encoder is slow.
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode

# This shell kills all remaining nodes if the workbench ends without stopping them, even by
# SIGKILL. Its stdin then closes, and it kills the process groups that have not ended, including
# stopped ones. "done" ends the shell without kills.
GUARD = """
while read -r what group; do
  case $what in
    done) exit;;
    started) groups="$groups -$group";;
    ended)  # the system may reuse the number for another group
      others=
      for other in $groups; do [ "$other" = "-$group" ] || others="$others $other"; done
      groups=$others;;
  esac
done
for group in $groups; do kill -9 "$group" 2>/dev/null; done
"""


class NodeProcess:
    """One node's process, with its pipes and its log file."""

    def __init__(
        self,
        node_id: str,
        listener: Listener,
        process: subprocess.Popen[bytes],
        log: NodeLog,
    ) -> None:
        assert process.stdin and process.stdout and process.stderr
        self.node_id = node_id
        self.listener = listener
        self.process = process
        self.log = log
        self.stdin = process.stdin.fileno()
        self.stdout = process.stdout.fileno()
        self.stderr = process.stderr.fileno()
        self.unwritten = bytearray()  # bytes for stdin that the pipe has not accepted yet
        # Start of an incomplete line of stdout, and of stderr.
        self.unfinished = bytearray()
        self.silent = True  # nothing came from stdout yet
        self.closed_stdout = False
        self.unfinished_stderr = bytearray()
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)


class Listener(Protocol):
    """Receives the nodes' output and exits."""

    def on_line(self, node_id: str, line: bytes) -> object:
        """Handles a line that a node wrote to its stdout."""

    def on_stderr(self, node_id: str, line: str) -> object:
        """Handles a line that a node wrote to its stderr."""

    def on_exit(self, node_id: str, why: str) -> object:
        """Handles the exit of a node that ended by itself."""


class Cluster(ABC):
    """The nodes of a run: processes, or simulated nodes."""

    @abstractmethod
    def start(self, node_id: str, listener: Listener) -> None:
        """Starts a node, for the first time or after a kill. OSError if it cannot be run."""

    @abstractmethod
    def deliver(self, node_id: str, message: dict[str, Any]) -> None:
        """Delivers a message to a node. The message is lost if the node has ended.

        Messages in flight are kept by the network, as in the real Maelstrom. A message that is
        due after a restart reaches the new process, even before its init.
        """

    def unsent(self, node_id: str) -> str:
        """Says why output of a node may be missing: a line without its end, a closed stdout."""
        return ""

    @abstractmethod
    def stop(self) -> None:
        """Ends all nodes. Always call it; a second call does nothing."""

    def wiped(self, node_id: str) -> None:  # noqa: B027 (only simulated machines need it)
        """Called before a killed node's files are removed."""

    # Faults. A cluster implements the faults that it supports.

    def kill(self, node_id: str) -> None:
        """Ends a node by SIGKILL, without a call of `on_exit`; `start` restarts it."""
        raise NotImplementedError

    def pause(self, node_id: str) -> None:
        """Stops a node while its clock goes on. Does nothing if the node was killed."""
        raise NotImplementedError

    def resume(self, node_id: str) -> None:
        """Continues a paused node. Does nothing if the node was killed."""
        raise NotImplementedError

    def set_rate(self, node_id: str, rate: float) -> None:
        """Makes the node's clock advance by `rate` seconds in a second."""
        raise NotImplementedError


class Processes(Cluster):
    """Nodes as processes. `command` starts a node; `logs` is the folder for the nodes' logs."""

    def __init__(self, loop: RealLoop, command: Sequence[str], logs: Path) -> None:
        self._loop = loop
        self._command = list(command)
        self._logs = logs
        self._nodes: dict[str, NodeProcess] = {}
        self._node_logs: dict[str, NodeLog] = {}
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD], stdin=subprocess.PIPE, start_new_session=True
        )
        loop.after(WATCH_INTERVAL, self._watch)

    def start(self, node_id: str, listener: Listener) -> None:
        """Starts a node's process.

        The working directory is the folder for temporary files, as in the real Maelstrom. Each
        node has its own session, so that Ctrl-C reaches only the workbench, and the node's child
        processes can be killed with the node.
        """
        log = self._node_logs.get(node_id)
        if not log:
            log = self._node_logs[node_id] = NodeLog(
                self._logs, node_id, self._loop, lambda why: listener.on_exit(node_id, why)
            )
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=tempfile.gettempdir(),
                start_new_session=True,
            )
        except OSError as error:
            raise OSError(error.errno, _why_not(self._command[0], error)) from error
        self._tell_guard("started", process.pid)
        log.started()
        node = self._nodes[node_id] = NodeProcess(node_id, listener, process, log)
        os.set_blocking(node.stdin, False)
        self._loop.watch(node.stdout, lambda: self._read_stdout(node))
        self._loop.watch(node.stderr, lambda: self._read_stderr(node))

    def deliver(self, node_id: str, message: dict[str, Any]) -> None:
        """Writes a message to a node's stdin, and keeps the part that the pipe does not accept."""
        if node := self._nodes.get(node_id):
            waiting = bool(node.unwritten)
            # Half of a surrogate pair, which is no character, becomes "?", as in Maelstrom.
            node.unwritten += _encode(message).encode(errors="replace") + b"\n"
            if not waiting:
                self._write(node)

    def unsent(self, node_id: str) -> str:
        node = self._nodes.get(node_id)
        if node and node.unfinished:
            text = node.unfinished.decode(errors="replace")
            shown = text if len(text) <= LONG else f"{text[:LONG]}..."
            size = f"{len(node.unfinished):,} byte{'s' * (len(node.unfinished) > 1)}"
            return (
                f"{node_id} printed {size} on stdout without a newline at "
                f"their end: {shown}\nend each message with a newline"
            )
        if node and node.closed_stdout:
            return f"{node_id} closed its stdout, so no reply can come; keep it open"
        if node and node.silent:
            return (
                f"{node_id} printed nothing: it has no code for the type init, printed no newline "
                f"after its reply, did not flush it {FLUSH}, or needs longer to start"
            )
        return ""

    def stop(self) -> None:
        """Reports the nodes that have ended by themselves, then kills all process groups."""
        for end in (self._find_ended, self._end):
            for node_id in list(self._nodes):
                end(node_id)
        for log in self._node_logs.values():
            log.close()
        if self._guard.poll() is None and self._guard.stdin:
            self._tell_guard("done")
            with contextlib.suppress(OSError):
                self._guard.stdin.close()
            self._guard.wait()

    def kill(self, node_id: str) -> None:
        """Kills a node and its child processes. Lines that it wrote before are still sent."""
        self._find_ended(node_id)
        if node := self._nodes.get(node_id):
            self._signal(node, signal.SIGKILL)
            node.process.wait()
            os.set_blocking(node.stdout, False)
            with contextlib.suppress(BlockingIOError):  # another process keeps the pipe open
                while self._read_stdout(node):
                    pass
            self._end(node_id)
            node.log.mark("killed")

    def pause(self, node_id: str) -> None:
        if node := self._nodes.get(node_id):
            self._signal(node, signal.SIGSTOP)

    def resume(self, node_id: str) -> None:
        if node := self._nodes.get(node_id):
            self._signal(node, signal.SIGCONT)

    def _tell_guard(self, what: str, group: int = 0) -> None:
        assert self._guard.stdin
        with contextlib.suppress(OSError):  # the guard was killed from outside
            self._guard.stdin.write(b"%s %d\n" % (what.encode(), group))
            self._guard.stdin.flush()

    def _signal(self, node: NodeProcess, number: int) -> None:
        """Sends a signal to the node and its child processes."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(node.process.pid, number)

    def _end(self, node_id: str) -> None:
        node = self._nodes.pop(node_id)
        self._signal(node, signal.SIGKILL)
        node.process.wait()
        self._tell_guard("ended", node.process.pid)
        os.set_blocking(node.stderr, False)
        with contextlib.suppress(BlockingIOError):  # read the rest of stderr
            while self._read_stderr(node):
                pass
        if node.unfinished_stderr:
            last = bytes(node.unfinished_stderr)
            node.log.write([last])
            self._said(node, last)
        for file in (node.stdin, node.stdout, node.stderr):
            self._loop.unwatch(file)
        for pipe in (node.process.stdin, node.process.stdout, node.process.stderr):
            assert pipe
            pipe.close()

    def _write(self, node: NodeProcess) -> None:
        self._loop.unwatch(node.stdin)
        try:
            del node.unwritten[: os.write(node.stdin, node.unwritten)]
        except BlockingIOError:
            pass
        except BrokenPipeError:  # the node closed its stdin, or ended, which _watch detects
            node.unwritten.clear()
        if node.unwritten:
            self._loop.watch(node.stdin, lambda: self._write(node), selectors.EVENT_WRITE)

    def _read_stdout(self, node: NodeProcess) -> bytes:
        chunk = os.read(node.stdout, READ_SIZE)
        node.silent = node.silent and not chunk
        if not chunk:
            self._loop.unwatch(node.stdout)
            node.closed_stdout = True
        for line in _whole_lines(node.unfinished, chunk):
            node.listener.on_line(node.node_id, line)
        if len(node.unfinished) > LONGEST:
            self._loop.unwatch(node.stdout)
            node.listener.on_exit(
                node.node_id,
                f"printed more than {LONGEST:,} bytes on stdout without a newline: end each "
                "message with a newline",
            )
        return chunk

    def _read_stderr(self, node: NodeProcess) -> bytes:
        chunk = os.read(node.stderr, READ_SIZE)
        if not chunk:
            self._loop.unwatch(node.stderr)
        lines = _whole_lines(node.unfinished_stderr, chunk)
        if lines:
            node.log.write(lines)
        for line in lines:
            self._said(node, line)
        return chunk

    def _said(self, node: NodeProcess, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r")
        node.last_lines.append(text)
        node.listener.on_stderr(node.node_id, text)

    def _watch(self) -> None:
        for node_id in list(self._nodes):
            self._find_ended(node_id)
        self._loop.after(WATCH_INTERVAL, self._watch)

    def _find_ended(self, node_id: str) -> None:
        """Reports a node if it has ended by itself."""
        node = self._nodes.get(node_id)
        status = node.process.poll() if node else None
        if node and status is not None:
            self._end(node_id)
            how = f"exit status {status}" if status >= 0 else signal.Signals(-status).name
            words = "".join(f"\n    {line}" for line in node.last_lines)
            said = f"; its last lines on stderr:{words}" if words else " and no line on stderr"
            how = WELL if status == 0 else how
            wrong = _wrong_first_line(self._command[0]) if status in NOT_FOUND else ""
            advice = f"\n{self._command[0]}: {wrong}" if wrong else ""
            node.listener.on_exit(node_id, f"ended by itself with {how}{said}{advice}")


def _whole_lines(unfinished: bytearray, chunk: bytes) -> list[bytes]:
    """Returns the lines that a chunk completes, and keeps the rest in `unfinished`.

    Each byte is looked at once, because a line may have millions of bytes in many chunks.
    """
    first, *others = chunk.split(b"\n")
    unfinished += first
    if not others:
        return []
    *whole, rest = others
    lines = [bytes(unfinished), *whole]
    unfinished[:] = rest
    return lines


def _why_not(binary: str, error: OSError) -> str:
    """Returns why a file cannot be run."""
    if error.errno in (errno.ENOEXEC, errno.ENOENT) and (why := _wrong_first_line(binary)):
        return why
    if error.errno == errno.ENOEXEC:
        return (
            "its first line must name an interpreter, as #!/usr/bin/env python3 does; for source "
            "code in another language, give the compiled program, or write a script with the lines "
            f"#!/bin/sh and exec COMMAND {binary}"
        )
    return error.strerror or str(error)


def _wrong_first_line(binary: str) -> str:
    """Returns what is wrong with the line that names a script's interpreter; "" if nothing is."""
    try:
        with open(binary, "rb") as file:
            first = file.readline(LONG)
    except OSError:
        return ""
    if first.startswith(codecs.BOM_UTF8 + b"#!"):
        return "it begins with a byte order mark (BOM) before #!; save it as UTF-8 without BOM"
    if not first.startswith(b"#!"):
        return ""
    if first.endswith(b"\r\n"):
        return (
            "its first line ends in CRLF, a line end of Windows, and the CR counts as part of the "
            f"interpreter's name; change all line ends to LF: sed -i 's/\\r$//' {binary}"
        )
    words = first[2:].decode(errors="replace").split()
    if not words:
        return "its first line must name an interpreter after #!, as #!/usr/bin/env python3 does"
    if not Path(words[0]).exists():
        return f"the interpreter in its first line, {words[0]}, does not exist"
    rest = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    if Path(words[0]).name == "env" and rest and not shutil.which(rest[0]):
        return f"the interpreter in its first line, {rest[0]}, is not on the PATH"
    return ""
