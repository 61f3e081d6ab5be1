"""Seeds on the machines of a Dask cluster; each worker is started in a clone of this repository:

    PYTHONPATH=.:tests dask worker tcp://HOST:PORT

A seed runs in a child process of its worker, as it does locally: a simulated run changes sys.argv,
sys.path and node.Node, which all threads of a process share, and with a child for each thread all
cores are busy, a seed that ends its process costs no worker, and the code is never an old one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from .seeds import Outcome, Pool, Unavailable, outcome

if TYPE_CHECKING:
    from distributed import Client, Future

ROOT = Path(__file__).resolve().parents[3]
WORKBENCH = Path(__file__).resolve().parents[1]
PATIENCE = 5.0  # seconds, to reach the scheduler
AHEAD = 2  # seeds a thread: one that runs, and one that is there when it ends
RESULT = "outcome.json"

# The scheduler, too, makes objects of what it is sent, and it has no clone: `eval` is in every
# Python, and the worker looks up the rest.
CALL = "__import__('workbench.soak.dask_cluster').soak.dask_cluster.run_in_child({}, {!r}, {!r})"


class OtherCode(Exception):
    """A worker's files are not ours; the text is its address."""


class DaskWorkers(Pool):
    """The workers that a scheduler has at the time. A seed whose worker is lost runs again.

    `binary` must be inside the clone: on a worker it is the same path in its own.
    After the block the scheduler has nothing of ours, and what was running ends within a seed.
    """

    def __init__(self, address: str, binary: str) -> None:
        self._address = address
        self._binary = binary
        self._client: Client

    def __enter__(self) -> DaskWorkers:
        try:
            from distributed import Client
        except ImportError as error:
            raise Unavailable(
                "--scheduler needs Dask's distributed: pip install -r tests/requirements.txt"
            ) from error
        path = Path(self._binary).resolve()
        if ROOT not in path.parents:
            raise Unavailable(f"--bin {self._binary} must be in {ROOT}, for workers to have it too")
        self._there = path.relative_to(ROOT).as_posix()
        self._digest = digest(self._there)
        logging.disable()  # what is to be said of the cluster is said here
        try:
            self._client = Client(self._address, timeout=PATIENCE, set_as_default=False)
        except OSError as error:
            raise Unavailable(f"no scheduler at {self._address}: {error}") from error
        if not self._threads():
            print(f"soak: {self._address} has no workers yet", file=sys.stderr)
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()  # the scheduler forgets its seeds, then
        logging.disable(logging.NOTSET)

    def outcomes(self, seeds: Iterable[int]) -> Iterator[Outcome]:
        from distributed import as_completed

        left = iter(seeds)
        running: dict[Future, int] = {}
        done = as_completed(loop=self._client.loop)
        while True:
            lacking = AHEAD * max(self._threads(), 1) - len(running)
            for seed in islice(left, max(lacking, 0)):
                call = CALL.format(seed, self._there, self._digest)
                future = self._client.submit(eval, call, pure=False)
                running[future] = seed
                done.add(future)
            if not running:
                return
            for future in done.next_batch():
                yield self._outcome(running.pop(future), future)

    def _threads(self) -> int:
        """Of all workers."""
        try:
            return sum(self._client.nthreads().values())
        except OSError as error:
            raise Unavailable(f"{self._address}: the scheduler is gone: {error}") from error

    def _outcome(self, seed: int, future: Future) -> Outcome:
        from distributed import KilledWorker

        if future.status == "finished":
            return Outcome(**future.result())
        if future.status != "error":
            raise Unavailable(f"{self._address}: the scheduler is gone, or has been restarted")
        error = future.exception()
        if isinstance(error, KilledWorker):
            why = f"each worker that ran it ended, {error.allowed_failures + 1} in all"
            return Outcome(seed, kind="process ended", why=why)
        if isinstance(error, OtherCode):
            raise Unavailable(f"{error} has another workbench, node.py or {self._there}: update it")
        if isinstance(error, ModuleNotFoundError):
            raise Unavailable(
                f"a worker has no workbench ({error}): start it in a clone, with PYTHONPATH=.:tests"
            )
        raise Unavailable(f"a worker could not run seed {seed}: {error!r}")


def digest(binary: str) -> str:
    """Of what decides what a seed does; `binary` is a path from the clone's root."""
    found = hashlib.sha256()
    for path in [ROOT / binary, ROOT / "node.py", *sorted(WORKBENCH.rglob("*.py"))]:
        with contextlib.suppress(FileNotFoundError):
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def run_in_child(seed: int, binary: str, expected: str) -> dict[str, object]:
    """On a worker: an Outcome's fields. OtherCode unless its files are those that are expected."""
    if digest(binary) != expected:
        raise OtherCode(f"the worker in {socket.gethostname()}:{ROOT}")
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [sys.executable, "-m", __name__, str(seed), binary, scratch],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
            start_new_session=True,  # Ctrl-C is the worker's, and a seed comes to its end
            stdout=subprocess.DEVNULL,
        )
        result = Path(scratch) / RESULT
        if done.returncode or not result.exists():
            why = f"its process ended with {done.returncode}"
            return asdict(Outcome(seed, kind="process ended", why=why))
        found: dict[str, object] = json.loads(result.read_text())
        return found


def main(seed: str, binary: str, scratch: str) -> None:
    """In the child."""
    if found := outcome(int(seed), binary, Path(scratch)):
        (Path(scratch) / RESULT).write_text(json.dumps(asdict(found)))


if __name__ == "__main__":
    main(*sys.argv[1:])
