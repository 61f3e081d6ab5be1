"""Runs seeds in processes on this machine.

This is a module of its own, not part of __main__, because a spawned process imports its function
by the name of the module.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from .seeds import Outcome, Pool, outcome

SPAWN = multiprocessing.get_context("spawn")  # workers inherit no open files of other workers


def work(connection: Connection, binary: str, scratch: Path) -> None:
    """Receives seeds and sends outcomes, until the parent closes the connection."""
    os.setpgrp()  # Ctrl-C reaches only the parent, which then kills this process
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            found = outcome(connection.recv(), binary, scratch)
            if not found:
                return
            connection.send(found)


class Workers(Pool):
    """Runs one seed at a time in each process. The end of the block kills all processes."""

    def __init__(self, count: int, binary: str, scratch: Path) -> None:
        self._count = count
        self._words = binary, scratch
        self._running: dict[Connection, tuple[BaseProcess, int]] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        for process, _ in self._running.values():
            process.kill()
        for connection, (process, _) in self._running.items():
            process.join()
            connection.close()

    def outcomes(self, seeds: Iterable[int]) -> Iterator[Outcome]:
        """Yields the outcome of each seed, in the order of completion."""
        left = iter(seeds)
        for seed in islice(left, self._count):
            self._give(seed)
        while self._running:
            for connection in wait(list(self._running)):
                assert isinstance(connection, Connection)
                process, seed = self._running[connection]
                try:
                    found = connection.recv()
                except EOFError:  # the process was killed, for example for lack of memory
                    process.join()
                    why = f"the seed's process ended with exit status {process.exitcode}"
                    found = Outcome(seed, kind="process ended", why=why)
                following = next(left, None)
                if following is not None and process.exitcode is None:
                    connection.send(following)
                    self._running[connection] = process, following
                else:
                    del self._running[connection]
                    connection.close()
                    if following is not None:
                        self._give(following)
                yield found

    def _give(self, seed: int) -> None:
        """Starts a process, and sends it its first seed."""
        connection, end = SPAWN.Pipe()
        process = SPAWN.Process(target=work, args=(end, *self._words), daemon=True)
        process.start()
        end.close()
        self._running[connection] = process, seed
        connection.send(seed)
