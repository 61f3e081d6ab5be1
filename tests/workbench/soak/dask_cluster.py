"""Runs seeds on a Dask cluster. Start each worker in a clone of this repository:

    PYTHONPATH=.:tests dask worker tcp://HOST:PORT

Each seed runs in a child process of its worker, for four reasons:

- A simulated run changes sys.argv, sys.path and node.Node, which all threads of a process share.
- The worker's threads keep all cores busy.
- A seed that crashes its process does not end the worker.
- The child loads the current code, even if the files changed after the worker's start.
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
PATIENCE = 5.0  # seconds to wait for a connection to the scheduler
AHEAD = 2  # seeds sent to each thread: one that runs, and the next one
RESULT = "outcome.json"

# The scheduler also unpickles the tasks, but cannot import this module, since it has no clone. So
# the task is `eval`, which every Python has; only the worker's `eval` imports this module.
CALL = "__import__('workbench.soak.dask_cluster').soak.dask_cluster.run_in_child({}, {!r}, {!r})"


class OtherCode(Exception):
    """A worker's files differ from the local files; the text names the worker."""


class DaskWorkers(Pool):
    """Runs seeds on the scheduler's current workers. A seed whose worker is lost runs again.

    `binary` must be inside the clone, since a worker uses the same path in its own clone. At the
    end of the block the scheduler forgets the waiting seeds; running seeds come to their end.
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
            raise Unavailable(f"--bin {self._binary} must be in {ROOT}, for workers to have it")
        self._there = path.relative_to(ROOT).as_posix()
        self._digest = digest(self._there)
        logging.disable()  # this class reports the cluster's errors itself
        try:
            self._client = Client(self._address, timeout=PATIENCE, set_as_default=False)
        except OSError as error:
            raise Unavailable(f"no scheduler answers at {self._address}: {error}") from error
        if not self._threads():
            print(f"soak: {self._address} has no workers yet; waiting for one", file=sys.stderr)
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()  # the scheduler then forgets the client's seeds
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
        """Returns the number of threads of all workers."""
        try:
            return sum(self._client.nthreads().values())
        except OSError as error:
            raise Unavailable(f"{self._address}: the scheduler has ended: {error}") from error

    def _outcome(self, seed: int, future: Future) -> Outcome:
        from distributed import KilledWorker

        if future.status == "finished":
            return Outcome(**future.result())
        if future.status != "error":
            raise Unavailable(f"{self._address}: the scheduler has ended or was restarted")
        error = future.exception()
        if isinstance(error, KilledWorker):
            why = f"{error.allowed_failures + 1} workers ran this seed, and all of them ended"
            return Outcome(seed, kind="process ended", why=why)
        if isinstance(error, OtherCode):
            raise Unavailable(
                f"{error} has a different workbench, node.py or {self._there}: "
                "update its clone to this commit"
            )
        if isinstance(error, ModuleNotFoundError):
            raise Unavailable(
                f"a worker cannot import the workbench ({error}): "
                "start it in a clone, with PYTHONPATH=.:tests"
            )
        raise Unavailable(f"a worker could not run seed {seed}: {error!r}")


def digest(binary: str) -> str:
    """Hashes all files that affect a seed. `binary` is relative to the clone's root."""
    found = hashlib.sha256()
    for path in [ROOT / binary, ROOT / "node.py", *sorted(WORKBENCH.rglob("*.py"))]:
        with contextlib.suppress(FileNotFoundError):
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def run_in_child(seed: int, binary: str, expected: str) -> dict[str, object]:
    """Runs a seed on a worker; returns an Outcome's fields.

    OtherCode if the digest of the worker's files is not `expected`.
    """
    if digest(binary) != expected:
        raise OtherCode(f"the worker in {socket.gethostname()}:{ROOT}")
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [sys.executable, "-m", __name__, str(seed), binary, scratch],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
            start_new_session=True,  # Ctrl-C reaches only the worker, and the seed is completed
            stdout=subprocess.DEVNULL,
        )
        result = Path(scratch) / RESULT
        if done.returncode or not result.exists():
            why = f"the seed's process ended with exit status {done.returncode}"
            return asdict(Outcome(seed, kind="process ended", why=why))
        found: dict[str, object] = json.loads(result.read_text())
        return found


def main(seed: str, binary: str, scratch: str) -> None:
    """Runs a seed in the child process, and writes its outcome to a file."""
    if found := outcome(int(seed), binary, Path(scratch)):
        (Path(scratch) / RESULT).write_text(json.dumps(asdict(found)))


if __name__ == "__main__":
    main(*sys.argv[1:])
