"""Seeds on the cores of this machine: a few processes, each of which runs one at a time.

This is no part of __main__: a spawned process imports what it runs by its module's name.
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

SPAWN = multiprocessing.get_context("spawn")  # no worker has anything of another one's


def work(connection: Connection, binary: str, scratch: Path) -> None:
    """A worker: seeds come in and outcomes go out, until nobody asks any more."""
    os.setpgrp()  # Ctrl-C is the parent's, who ends this one then
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            found = outcome(connection.recv(), binary, scratch)
            if not found:
                return
            connection.send(found)


class Workers(Pool):
    """Processes that run seeds, each of them one at a time. None is left after the block."""

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
        """Of each seed, as they come."""
        left = iter(seeds)
        for seed in islice(left, self._count):
            self._give(seed)
        while self._running:
            for connection in wait(list(self._running)):
                assert isinstance(connection, Connection)
                process, seed = self._running[connection]
                try:
                    found = connection.recv()
                except EOFError:  # it ran out of memory, or somebody has ended it
                    process.join()
                    why = f"its process ended with {process.exitcode}"
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
        """Starts a process for this seed, and those after it."""
        connection, end = SPAWN.Pipe()
        process = SPAWN.Process(target=work, args=(end, *self._words), daemon=True)
        process.start()
        end.close()
        self._running[connection] = process, seed
        connection.send(seed)
