"""The nodes of a run, as processes that are started and ended the way Maelstrom does it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import selectors
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from ..simulation.loop import RealLoop
from ..units import SECOND

LAST_LINES = 20  # lines of stderr that are shown when a node ends by itself
READ_SIZE = 1 << 16
WATCH_INTERVAL = SECOND // 10

# Whatever becomes of the bench, even by SIGKILL, nothing is left running: this shell sees the
# end of its stdin and kills the process groups that have not ended, stopped ones as well. "done"
# calls it off.
GUARD = """
while read -r what group; do
  case $what in
    done) exit;;
    started) groups="$groups -$group";;
    ended)  # its number may be somebody else's soon
      others=
      for other in $groups; do [ "$other" = "-$group" ] || others="$others $other"; done
      groups=$others;;
  esac
done
for group in $groups; do kill -9 "$group" 2>/dev/null; done
"""


class NodeProcess:
    """One process: lines in, lines out, and its stderr in a file."""

    def __init__(
        self,
        node_id: str,
        listener: Listener,
        process: subprocess.Popen[bytes],
        log: IO[bytes],
    ) -> None:
        assert process.stdin and process.stdout and process.stderr
        self.node_id = node_id
        self.listener = listener
        self.process = process
        self.log = log
        self.stdin = process.stdin.fileno()
        self.stdout = process.stdout.fileno()
        self.stderr = process.stderr.fileno()
        self.unwritten = bytearray()
        # The start of a line whose end has not arrived, of stdout and of stderr.
        self.unfinished = b""
        self.unfinished_stderr = b""
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)


class Listener(Protocol):
    """Who wants to know what the nodes do."""

    def on_line(self, node_id: str, line: bytes) -> object:
        """A node has written a line to its stdout."""

    def on_stderr(self, node_id: str, line: str) -> object:
        """A node has written a line to its stderr."""

    def on_exit(self, node_id: str, why: str) -> object:
        """A node has ended by itself."""


class Cluster(ABC):
    """The nodes of a run, whatever they are."""

    @abstractmethod
    def start(self, node_id: str, listener: Listener) -> None:
        """Starts a node, for the first time or after a kill; OSError if it cannot be run."""

    @abstractmethod
    def deliver(self, node_id: str, message: dict[str, Any]) -> None:
        """Gives a node a message, which is lost if it has ended or was killed.

        The queue of what is under way to it is the network's, as the real Maelstrom's is its own:
        what is due after a new start reaches the new process, even before its init.
        """

    @abstractmethod
    def stop(self) -> None:
        """Ends all nodes. Call it always; twice is harmless."""

    # Faults; each cluster has those that it can have

    def kill(self, node_id: str) -> None:
        """Ends a node by SIGKILL, which is not told of; `start` starts it again."""
        raise NotImplementedError

    def pause(self, node_id: str) -> None:
        """Nothing happens on the node any more, but its clock goes on; nothing if it was killed."""
        raise NotImplementedError

    def resume(self, node_id: str) -> None:
        """Ends a pause; nothing if a kill has ended it."""
        raise NotImplementedError

    def set_rate(self, node_id: str, rate: float) -> None:
        """From now on the node's clock gains `rate` seconds in a second."""
        raise NotImplementedError


class Processes(Cluster):
    """Each node is a process: `command` is what starts one, `logs` the folder for their stderr."""

    def __init__(self, loop: RealLoop, command: Sequence[str], logs: Path) -> None:
        self._loop = loop
        self._command = list(command)
        self._logs = logs
        self._nodes: dict[str, NodeProcess] = {}
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD], stdin=subprocess.PIPE, start_new_session=True
        )
        loop.after(WATCH_INTERVAL, self._watch)

    def start(self, node_id: str, listener: Listener) -> None:
        """Starts a node's process.

        Its working directory is the folder for temporary files, as with the real Maelstrom.
        Each node has a session of its own: Ctrl-C is for the bench alone, and what a node
        starts ends with it.
        """
        log = (self._logs / f"{node_id}.log").open("ab", buffering=0)
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
        node = self._nodes[node_id] = NodeProcess(node_id, listener, process, log)
        os.set_blocking(node.stdin, False)
        self._loop.watch(node.stdout, lambda: self._read_stdout(node))
        self._loop.watch(node.stderr, lambda: self._read_stderr(node))

    def deliver(self, node_id: str, message: dict[str, Any]) -> None:
        """Writes a message to a node's stdin; what the pipe does not take waits."""
        if node := self._nodes.get(node_id):
            waiting = bool(node.unwritten)
            node.unwritten += json.dumps(message).encode() + b"\n"
            if not waiting:
                self._write(node)

    def stop(self) -> None:
        """Kills all nodes with what they have started, but tells first of those that have ended."""
        for end in (self._find_ended, self._end):
            for node_id in list(self._nodes):
                end(node_id)
        if self._guard.poll() is None and self._guard.stdin:
            self._tell_guard("done")
            with contextlib.suppress(OSError):
                self._guard.stdin.close()
            self._guard.wait()

    def kill(self, node_id: str) -> None:
        """Kills a node with what it has started. What it has written before has left."""
        self._find_ended(node_id)
        if node := self._nodes.get(node_id):
            self._signal(node, signal.SIGKILL)
            node.process.wait()
            os.set_blocking(node.stdout, False)
            with contextlib.suppress(BlockingIOError):  # another process has it
                while self._read_stdout(node):
                    pass
            self._end(node_id)

    def pause(self, node_id: str) -> None:
        if node := self._nodes.get(node_id):
            self._signal(node, signal.SIGSTOP)

    def resume(self, node_id: str) -> None:
        if node := self._nodes.get(node_id):
            self._signal(node, signal.SIGCONT)

    def _tell_guard(self, what: str, group: int = 0) -> None:
        assert self._guard.stdin
        with contextlib.suppress(OSError):  # somebody has ended it
            self._guard.stdin.write(b"%s %d\n" % (what.encode(), group))
            self._guard.stdin.flush()

    def _signal(self, node: NodeProcess, number: int) -> None:
        """Sends a signal to the node and what it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(node.process.pid, number)

    def _end(self, node_id: str) -> None:
        node = self._nodes.pop(node_id)
        self._signal(node, signal.SIGKILL)
        node.process.wait()
        self._tell_guard("ended", node.process.pid)
        os.set_blocking(node.stderr, False)
        with contextlib.suppress(BlockingIOError):  # its last words
            while self._read_stderr(node):
                pass
        if node.unfinished_stderr:
            self._said(node, node.unfinished_stderr)
        for file in (node.stdin, node.stdout, node.stderr):
            self._loop.unwatch(file)
        for pipe in (node.process.stdin, node.process.stdout, node.process.stderr, node.log):
            assert pipe
            pipe.close()

    def _write(self, node: NodeProcess) -> None:
        self._loop.unwatch(node.stdin)
        try:
            del node.unwritten[: os.write(node.stdin, node.unwritten)]
        except BlockingIOError:
            pass
        except BrokenPipeError:  # it has closed its stdin, or ended: _watch tells
            node.unwritten.clear()
        if node.unwritten:
            self._loop.watch(node.stdin, lambda: self._write(node), selectors.EVENT_WRITE)

    def _read_stdout(self, node: NodeProcess) -> bytes:
        chunk = os.read(node.stdout, READ_SIZE)
        if not chunk:
            self._loop.unwatch(node.stdout)
        *lines, node.unfinished = (node.unfinished + chunk).split(b"\n")
        for line in lines:
            node.listener.on_line(node.node_id, line)
        return chunk

    def _read_stderr(self, node: NodeProcess) -> bytes:
        chunk = os.read(node.stderr, READ_SIZE)
        if not chunk:
            self._loop.unwatch(node.stderr)
        try:
            node.log.write(chunk)
        except OSError as error:
            why = f"has a log that cannot be written: {error.strerror}"
            node.listener.on_exit(node.node_id, why)
        *lines, node.unfinished_stderr = (node.unfinished_stderr + chunk).split(b"\n")
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
        """Tells of a node that has ended by itself."""
        node = self._nodes.get(node_id)
        status = node.process.poll() if node else None
        if node and status is not None:
            self._end(node_id)
            how = f"exit status {status}" if status >= 0 else signal.Signals(-status).name
            words = "".join(f"\n    {line}" for line in node.last_lines)
            said = f"; its last words on stderr:{words}" if words else ", and said nothing"
            node.listener.on_exit(node_id, f"ended by itself with {how}{said}")


def _why_not(binary: str, error: OSError) -> str:
    """Why a file cannot be run."""
    if error.errno == errno.ENOEXEC:
        return "its first line must say what runs it, as #!/usr/bin/env python3 does"
    if error.errno == errno.ENOENT and Path(binary).exists():
        return "what its first line says runs it is not there"
    return error.strerror or str(error)
