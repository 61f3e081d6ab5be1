"""Simulates a cluster in one process and in virtual time: the same seed gives the same run.

The unchanged binary runs once for each node. In place of node.py's `Node` it gets a class without a
clock, random generator, input or output of its own. Nodes share no objects, because messages
between them pass as JSON text. The binary must be a Python program on node.py that reads the time
from `node.now()`, draws from `node.random`, and has no blocking handlers.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import io
import json
import math
import sqlite3
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from random import Random
from types import CodeType
from typing import Any, NoReturn, SupportsIndex

import node as node_module
from node import Node, encode

from ..record.node_log import NodeLog
from ..running.cluster import WELL, Cluster, Listener
from ..units import SECOND
from .loop import VirtualLoop, dice

MAX_OFFSET = 1000.0  # seconds; largest difference between the clocks of two machines at the start
NEVER = math.inf
# Probability that the next of several lines that arrive at the same time misses the turn.
# With this value nodes send as many messages as real processes do (`make agreement`).
TURN_ENDS = 0.25
PATIENCE = SECOND // 2  # ns; longest delay of a kill that waits for a statement or an output
OTHERS = "__constants__"  # name of the global that overrides a program's constants
SLEEP = time.sleep
MOST_TURNS = 20_000  # turns of a node's timers in a second of its time; more would never end
STATEMENTS = 12  # a kill waits for fewer database statements than this


class Ended(BaseException):
    """A node has ended by itself. As a BaseException, no `except Exception` of its catches it."""


class NotSimulable(Ended):
    """A node has done what no simulated node can do."""


class Killed(BaseException):
    """A node is killed during a turn. As a BaseException, no `except Exception` catches it."""


class VirtualNode(Node):
    """A node with a given clock, random generator, `write(line)` and `note(log_line)`.

    It has no threads. Its owner drives it: `read` or `handle` for messages, and `run` when its
    clock shows `due`.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        rng: Random,
        write: Callable[[bytes], object],
        note: Callable[[str], object],
    ) -> None:
        self._give, self._note = write, note
        self.has_main = False  # whether the program has called main()
        self.now = clock  # type: ignore[method-assign]  # called often: saves a nested call
        super().__init__()
        self.random = rng

    def read(self, lines: bytes) -> None:
        """Takes one turn for these lines. Raises Ended if the node ends."""
        self._turn(self._receive, lines)

    def handle(self, messages: Sequence[dict[str, Any]]) -> None:
        """Takes one turn for these messages, and owns them. Raises Ended if the node ends."""
        self._turn(self._handle_all, messages)

    def _handle_all(self, messages: Sequence[dict[str, Any]]) -> None:
        for message in messages:
            self._handle(message)

    def run(self) -> None:
        """Takes one turn for the timers that are due. Raises Ended if the node ends."""
        self._turn(self._run_due)

    @property
    def server(self) -> Any:
        """The program's object whose method handles append_entries; None if there is none."""
        return getattr(self._handlers.get("append_entries"), "__self__", None)

    @property
    def due(self) -> float:
        """Time of its next timer, on its clock; NEVER before its init."""
        return self._next_due() if self._early is None else NEVER

    def log(self, text: str) -> None:
        self._note(text)

    def main(self) -> None:
        """Returns at once: the owner drives the node."""
        self.has_main = True

    def _write(self, data: bytes) -> None:
        for line in data.splitlines():
            self._give(line)

    def _start_thread(self, action: Callable[[], object]) -> None:
        raise NotSimulable(
            "a simulated node has no threads, and so no blocking handlers (blocking=True); "
            "use node.rpc with a callback, or run this node as a process, without --simulate"
        )

    def _end(self, error: BaseException) -> NoReturn:
        if isinstance(error, (KeyboardInterrupt, Ended, Killed)):  # handled by the owner
            raise error
        self.log("".join(traceback.format_exception(type(error), error, error.__traceback__)))
        raise Ended(f"{type(error).__name__}: {error}") from error


class Clock:
    """A machine's clock. It shows seconds, and can run fast or slow."""

    def __init__(self, loop: VirtualLoop, shows: float) -> None:
        self._loop = loop
        self._rate = 1.0
        self._since, self._shown = loop.time, shows  # loop time and shown time of the last change

    def now(self) -> float:
        return self._shown + (self._loop.time - self._since) * self._rate / SECOND

    def set_rate(self, rate: float) -> None:
        """Makes the clock advance `rate` seconds per second from now on. It does not jump."""
        self._shown, self._since, self._rate = self.now(), self._loop.time, rate

    def moment(self, shown: float) -> int:
        """Returns the loop's time at which the clock shows `shown`, up to rounding."""
        return self._since + math.ceil((shown - self._shown) / self._rate * SECOND)


class Watcher:
    """Observes the nodes. It must not change them."""

    def arrived(self, machine: Machine, message: dict[str, Any]) -> None:
        """Called when a message has arrived at a node."""

    def turned(self, machine: Machine, lines: list[bytes]) -> None:
        """Called after a node's turn, before its output `lines` leave."""


class Machine:
    """The machine of a node: its clock, disk, arrived messages and turns.

    Messages that arrive at the same time make one turn or several, at random: a real process wakes
    up at the first line, and finds a random number of further lines. Messages that arrive during a
    pause make one turn.

    A kill strikes between two turns, before one of the next statements of the node's databases, or
    after a part of the next output (possibly none) has left. Only committed changes of a database
    survive it.
    """

    def __init__(
        self,
        node_id: str,
        loop: VirtualLoop,
        rng: Random,
        turn_rng: Random,
        kill_rng: Random,
        listener: Listener,
        log: NodeLog,
        watcher: Watcher,
        warn: Callable[[str], object],
    ) -> None:
        self.node_id = node_id
        self.clock = Clock(loop, rng.uniform(0, MAX_OFFSET))
        self.node: VirtualNode | None = None
        self._loop = loop
        self._rng = rng
        self._turn_rng = turn_rng
        self._kill_rng = kill_rng
        self._listener = listener
        self._log = log
        self._watcher = watcher
        self._stderr = Lines(self.note)
        # A program may print before its main(), which takes stdout for messages alone.
        self._stdout = Lines(lambda line: listener.on_line(node_id, line.encode(errors="replace")))
        self._warn = warn
        self._thread = threading.get_ident()
        self._warned = False
        self._timer_turns, self._counted_until = 0, 0  # turns of timers until this loop time
        self._arrived: deque[list[dict[str, Any]]] = deque()  # the messages of each coming turn
        self._written: list[bytes] = []
        self._turn_at = self._wake_at = NEVER  # loop times of the next read and check of timers
        self._paused = False
        self._databases: list[Database] = []
        self._lives = 0
        self._statements_left: int | None = None  # statements until a kill; None if none is due
        self._dies_writing = False
        self.torn = 0  # number of kills within a turn, whose writes may be partly on disk
        self.wiped = 0  # number of times that its files were removed

    def node_class(self) -> type[VirtualNode]:
        """Returns the class that replaces Node, so that the binary makes this machine's node."""
        machine = self

        class MachineNode(VirtualNode):
            def __init__(self) -> None:
                super().__init__(
                    machine.clock.now, machine._rng, machine._written.append, machine.note
                )
                machine.node = self

            def main(self) -> None:
                sys.stdout = machine._stderr
                super().main()

        return MachineNode

    def begin(self, program: Callable[[], object]) -> None:
        """Runs a program, which makes the node and returns from its main().

        Each incarnation has another random generator. If the program has a storage, its `connect`
        is replaced, so that a kill can stop its database.
        """
        if self._lives:
            self.die()
            self._rng = Random(self._kill_rng.getrandbits(64))
        self._lives += 1
        self._paused = False
        self._log.started()
        try:
            with self._output(self._stdout):
                program()
        except SystemExit as error:
            self.end(WELL if error.code in (None, 0) else f"exit status {error.code}")
        except NotSimulable as error:
            self.refuse(str(error))
        except Exception as error:
            self.note(traceback.format_exc())
            self.end(f"{type(error).__name__}: {error}")
        else:
            if not self.node:
                self.refuse(
                    "it makes no Node of node.py, and nothing else can be simulated; "
                    "run it without --simulate"
                )
            elif not self.node.has_main:
                self.end(f"{WELL} and no line on stderr")
            elif storage := getattr(self.node.server, "storage", None):
                storage.connect = self._connect
        finally:
            time.sleep = SLEEP

    def kill(self) -> None:
        """Kills the node now, at a statement or during an output, at most PATIENCE later."""
        if not self.node:
            return
        kinds = ["now", "writing", *(["statement"] * 2 if self._databases else [])]
        kind = self._kill_rng.choice(kinds)
        if kind == "now":
            self.die()
            return
        if kind == "writing":
            self._dies_writing = True
        else:
            self._statements_left = self._kill_rng.randrange(STATEMENTS)
        life = self._lives
        delay = self._kill_rng.randrange(PATIENCE)
        self._loop.after(delay, lambda: self.die() if life == self._lives else None)

    def die(self, torn: bool = False) -> None:
        """Removes the process and its unread messages. Does nothing if it is dead already."""
        if not self.node:
            return
        self.node = None
        self._log.mark("killed")
        self.torn += torn
        self._arrived.clear()
        self._written.clear()
        self._wake_at = NEVER
        self._statements_left, self._dies_writing = None, False
        self.close()

    def close(self) -> None:
        """Closes the databases. Uncommitted changes are lost."""
        for database in self._databases:
            database.close()
        self._databases.clear()

    def count_statement(self) -> None:
        """Counts a database statement before it is executed. Raises Killed if the kill is due."""
        if self._statements_left is not None:
            self._statements_left -= 1
            if self._statements_left < 0:
                raise Killed

    def _connect(self, path: str, **words: Any) -> Database:
        database = sqlite3.connect(path, factory=Database, **words)
        database.machine = self
        self._databases.append(database)
        database.execute("PRAGMA synchronous=FULL")
        return database

    def note(self, text: str) -> None:
        """Writes one or more lines to the node's stderr."""
        lines = text.splitlines()
        self._log.write([line.encode(errors="replace") for line in lines])
        for line in lines:
            self._listener.on_stderr(self.node_id, line)

    def _output(self, stdout: Lines) -> contextlib.ExitStack:
        """Redirects stdout and stderr of a program or a turn, within a `with` block."""
        stack = contextlib.ExitStack()
        stack.enter_context(contextlib.redirect_stdout(stdout))
        stack.enter_context(contextlib.redirect_stderr(self._stderr))
        return stack

    def deliver(self, message: dict[str, Any]) -> None:
        """Takes a message that has arrived. It is lost if the node is dead."""
        if not self.node:
            return
        self._watcher.arrived(self, message)
        if not self._arrived or (not self._paused and self._turn_rng.random() < TURN_ENDS):
            self._arrived.append([])
        self._arrived[-1].append(message)
        self._read_soon()

    def pause(self) -> None:
        """Stops the node's turns. Its clock keeps running."""
        self._paused = True

    def resume(self) -> None:
        """Handles the messages and timers of the pause, in random order."""
        self._paused = False
        for action in self._rng.sample([self._read_soon, self._look_soon], 2):
            action()

    def set_rate(self, rate: float) -> None:
        """Changes the rate of the clock, and so the due times of the timers."""
        self.clock.set_rate(rate)
        self._wake_at = NEVER
        self._look_soon()

    def end(self, how: str) -> None:
        """Reports that the node has ended by itself."""
        self.node = None
        self._listener.on_exit(self.node_id, f"ended by itself with {how}")

    def refuse(self, why: str) -> None:
        """Reports that the node cannot be simulated."""
        self.node = None
        self._listener.on_exit(self.node_id, f"cannot be simulated: {why}")

    def _sleep(self, seconds: float | SupportsIndex, /) -> None:
        """Stands in for time.sleep while the node runs. Other threads of this process do sleep."""
        if threading.get_ident() != self._thread:
            SLEEP(seconds)
        elif not self._warned:
            self._warned = True
            self._warn(
                f"{self.node_id} called time.sleep({float(seconds):g}), which takes no time in a "
                "simulated node: use node.after(seconds, action) instead, or run it without "
                "--simulate"
            )

    def _read_soon(self) -> None:
        if self._arrived and self._turn_at == NEVER:
            self._turn_at = now = self._loop.now()
            self._loop.at(now, self._read)

    def _read(self) -> None:
        self._turn_at = NEVER
        if self.node and self._arrived and not self._paused:
            self._turn(self.node, self.node.handle, self._arrived.popleft())
            self._read_soon()

    def _look_soon(self) -> None:
        """Schedules the node's next timer on the loop."""
        if self.node and (due := self.node.due) < NEVER:
            now = self._loop.now()
            moment = max(now, self.clock.moment(due)) if due > -NEVER else now
            if moment < self._wake_at:
                self._wake_at = moment
                self._loop.at(moment, partial(self._look, moment))

    def _look(self, moment: int) -> None:
        if moment != self._wake_at:
            return  # rescheduled meanwhile
        self._wake_at = NEVER
        if self._paused or not self.node:
            return
        due = self.node.due
        if due <= self.clock.now():
            if moment >= self._counted_until:
                self._timer_turns, self._counted_until = 0, int(moment) + SECOND
            self._timer_turns += 1
            if self._timer_turns > MOST_TURNS:
                self.refuse(
                    f"its timers take more than {MOST_TURNS:,} turns in a second of virtual time; "
                    "make the seconds of its node.every or node.after larger (with --constants: a "
                    "constant that is 0 or too small)"
                )
                return
            self._turn(self.node, self.node.run)
        elif due < NEVER:  # too early by a rounding, or the timer was cancelled
            self._wake_at = max(moment + 1, self.clock.moment(due))
            self._loop.at(self._wake_at, partial(self._look, self._wake_at))

    def _turn(self, node: VirtualNode, turn: Callable[..., object], *args: object) -> None:
        before = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = self._stderr
        time.sleep = self._sleep
        try:
            turn(*args)
        except NotSimulable as error:
            self.refuse(str(error))
            return
        except Ended as error:
            self.end(str(error))
            return
        except Killed:
            self.die(torn=True)
            return
        finally:
            sys.stdout, sys.stderr = before
            time.sleep = SLEEP
        written = self._written.copy()
        self._written.clear()
        dies = self._dies_writing and bool(written)
        if dies:
            del written[self._kill_rng.randrange(len(written)) :]
        self._watcher.turned(self, written)
        for line in written:
            self._listener.on_line(self.node_id, line)
        if dies:
            self.die()
        self._look_soon()


class Lines(io.TextIOBase):
    """A text file that passes each line to `take`, without its line end."""

    def __init__(self, take: Callable[[str], object]) -> None:
        super().__init__()
        self._take = take
        self._unfinished = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._unfinished = (self._unfinished + text).split("\n")
        for line in lines:
            self._take(line)
        return len(text)


class Database(sqlite3.Connection):
    """A database that a kill of its machine can stop before each statement.

    It runs with synchronous=OFF, because a kill loses a process's memory, not the system's cache.
    """

    machine: Machine

    def execute(self, sql: str, *words: Any) -> sqlite3.Cursor:
        self.machine.count_statement()
        if sql.lower().startswith("pragma synchronous") and "=" in sql:
            sql = "PRAGMA synchronous=OFF"
        return super().execute(sql, *words)

    def executemany(self, sql: str, *words: Any) -> sqlite3.Cursor:
        self.machine.count_statement()
        return super().executemany(sql, *words)

    def commit(self) -> None:
        self.machine.count_statement()
        super().commit()


class SimulatedCluster(Cluster):
    """A cluster that runs a Python `binary` with `args`. Each node's stderr is in `logs`.

    `warn(text)` is called for what a node does that a simulation does not do as a real run.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        binary: Path,
        args: Sequence[str],
        logs: Path,
        seed: int,
        watcher: Watcher,
        constants: Mapping[str, float] = {},
        warn: Callable[[str], object] = lambda text: None,
    ) -> None:
        self.machines: dict[str, Machine] = {}
        self._loop = loop
        self._binary = binary
        self._args = args
        self._logs = logs
        self._seed = seed
        self._watcher = watcher
        self._constants = constants
        self._warn = warn
        self._files = contextlib.ExitStack()

    def start(self, node_id: str, listener: Listener) -> None:
        """Runs the binary on the node's machine. A restarted node keeps its machine."""
        machine = self.machines.get(node_id)
        if not machine:
            log = NodeLog(
                self._logs, node_id, self._loop, lambda why: listener.on_exit(node_id, why), 6
            )
            self._files.callback(log.close)
            rng, turns, kills = (
                dice(self._seed, f"{what} {node_id}") for what in ("node", "turns", "kill")
            )
            machine = Machine(
                node_id, self._loop, rng, turns, kills, listener, log, self._watcher, self._warn
            )
            self.machines[node_id] = machine
            self._files.callback(machine.close)
        path = str(self._binary)
        code, has = compiled(self._binary.read_bytes(), path)
        if missing := self._constants.keys() - has:
            raise OSError(errno.EINVAL, f"it has no constant {', '.join(sorted(missing))}")

        def program() -> None:
            with standing_in(machine.node_class(), [path, *self._args]):
                exec(code, {"__name__": "__main__", "__file__": path, OTHERS: self._constants})

        machine.begin(program)

    def deliver(self, node_id: str, message: dict[str, Any]) -> None:
        """Delivers a message. A client's message is copied, because the client may keep it."""
        if message["src"] not in self.machines:
            message = json.loads(encode(message))
        self.machines[node_id].deliver(message)

    def stop(self) -> None:
        self._files.close()

    def wiped(self, node_id: str) -> None:
        """Ends the node, if its kill is still due, so that it writes no file again."""
        self.machines[node_id].die()
        self.machines[node_id].wiped += 1

    def kill(self, node_id: str) -> None:
        self.machines[node_id].kill()

    def pause(self, node_id: str) -> None:
        self.machines[node_id].pause()

    def resume(self, node_id: str) -> None:
        self.machines[node_id].resume()

    def set_rate(self, node_id: str, rate: float) -> None:
        self.machines[node_id].set_rate(rate)


@lru_cache(maxsize=4)  # thousands of runs mostly use the same program
def compiled(source: bytes, path: str) -> tuple[CodeType, frozenset[str]]:
    """Compiles a program whose constants can be overridden. Also returns their names.

    After each assignment of a constant, its value in the global OTHERS, if any, replaces it. So
    later constants derive from the new value. Raises OSError if it is not a Python program.
    """
    try:
        program = ast.parse(source, path)
    except (SyntaxError, ValueError) as error:
        why = "only a Python program can be simulated"
        if isinstance(error, SyntaxError) and b"python" in source.split(b"\n", 1)[0]:
            why = f"line {error.lineno}: {error.msg}"
        raise OSError(errno.ENOEXEC, why) from error
    names: list[str] = []
    body: list[ast.stmt] = []
    for statement in program.body:
        body.append(statement)
        if isinstance(statement, ast.Assign):
            targets = (node for target in statement.targets for node in ast.walk(target))
            for name in [node.id for node in targets if isinstance(node, ast.Name)]:
                names.append(name)
                body += ast.parse(f"{name} = {OTHERS}.get({name!r}, {name})").body
    program.body = body
    return compile(program, path, "exec"), frozenset(names)


@contextlib.contextmanager
def standing_in(stand_in: type[Node], argv: list[str]) -> Iterator[None]:
    """Replaces node.Node by `stand_in`, sys.argv by `argv`, and stdin, within the block.

    A module beside the program that is first imported in the block is forgotten after it. So each
    node has the module to itself, as in a process of its own.
    """
    before = node_module.Node, sys.argv, sys.path
    imported, folder = set(sys.modules), Path(argv[0]).parent
    stdin, sys.stdin = sys.stdin, io.StringIO()  # a program that reads it gets no line
    node_module.Node = stand_in  # type: ignore[misc]
    sys.argv, sys.path = argv, [str(Path(argv[0]).parent), *sys.path]
    try:
        yield
    finally:
        node_module.Node, sys.argv, sys.path = before  # type: ignore[misc]
        sys.stdin = stdin
        for name in set(sys.modules) - imported:
            top = folder / name.partition(".")[0]  # the module, or its outermost package
            if top.is_dir() or top.with_suffix(".py").exists():
                del sys.modules[name]
