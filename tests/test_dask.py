"""Seeds on a Dask cluster: a scheduler and workers as processes, and what is lost with them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from test_soak import MAJORITY, RAFT, ROOT, ended, start
from workbench.running import options
from workbench.soak import __main__ as soak
from workbench.soak import dask_cluster
from workbench.soak.dask_cluster import AHEAD, DaskWorkers
from workbench.soak.seeds import Outcome, Unavailable
from workbench.soak.workers import Workers

pytest.importorskip("distributed", reason="distributed is not installed: no cluster to test with")

Started = Callable[..., subprocess.Popen[str]]
SOURCES = ("node.py", "tests/workbench")


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[Started]:
    """`dask(words, PYTHONPATH=..., ...)` starts a part of a cluster. All of them end."""
    (tmp_path / "elsewhere").mkdir()
    with ExitStack() as parts:

        def begin(*words: str, **env: str) -> subprocess.Popen[str]:
            part = parts.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "dask", *words, "--host", "127.0.0.1", "--no-dashboard"],
                    cwd=tmp_path / "elsewhere",
                    env={**os.environ, "PYTHONPATH": "", "TMPDIR": str(tmp_path), **env},
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            parts.callback(part.kill)
            return part

        yield begin


@pytest.fixture
def scheduler(dask: Started) -> str:
    """The address of one that gives a seed up with the first worker that dies of it twice."""
    begun = dask("scheduler", "--port", "0", DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="1")
    return said(begun, "Scheduler at:").split()[-1]


def said(part: subprocess.Popen[str], text: str) -> str:
    """The line with this text, as soon as it is there."""
    assert part.stderr
    return next(line for line in part.stderr if text in line)


def clone(folder: Path, program: str) -> Path:
    """A clone whose raft.py is this program; which is what is returned."""
    for name in SOURCES:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, place)
    binary = folder / "raft.py"
    binary.write_text(program)
    binary.chmod(0o755)
    return binary


@pytest.fixture
def hasty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A raft.py with a majority that is one short, in the clone that is ours."""
    monkeypatch.setattr(dask_cluster, "ROOT", tmp_path / "clone")
    return clone(tmp_path / "clone", RAFT.read_text().replace(MAJORITY, "max(1, count // 2)"))


def work(dask: Started, scheduler: str, binary: Path) -> subprocess.Popen[str]:
    """A worker of one thread, in the clone of this binary."""
    path = f"{binary.parent}:{binary.parent / 'tests'}"
    words = ("worker", scheduler, "--nthreads", "1", "--no-nanny")
    worker = dask(*words, PYTHONPATH=path)
    said(worker, "Registered to:")
    return worker


def test_a_worker_that_is_lost_changes_no_outcome(
    dask: Started, scheduler: str, hasty: Path, tmp_path: Path
) -> None:
    workers = [work(dask, scheduler, hasty) for _ in range(2)]
    seeds = range(8)
    left = iter(seeds)
    with DaskWorkers(scheduler, str(hasty)) as pool:
        coming = pool.outcomes(left)
        outcomes = [next(coming)]
        assert next(left) == AHEAD * len(workers)  # no more than these were taken
        workers[0].kill()
        outcomes += coming
    with Workers(2, str(hasty), tmp_path) as local:
        expected = sorted(local.outcomes(set(seeds) - {AHEAD * len(workers)}), key=by_seed)
    assert sorted(outcomes, key=by_seed) == expected
    assert {outcome.kind for outcome in outcomes} > {""}


def by_seed(outcome: Outcome) -> int:
    return outcome.seed


def test_a_process_that_ends_costs_no_worker(dask: Started, scheduler: str, hasty: Path) -> None:
    hasty.write_text("import os; os._exit(7)")
    work(dask, scheduler, hasty)
    with DaskWorkers(scheduler, str(hasty)) as pool:
        outcomes = list(pool.outcomes(range(3)))
    why = "the seed's process ended with exit status 7"
    assert sorted(outcomes, key=by_seed) == [
        Outcome(seed, kind="process ended", why=why) for seed in range(3)
    ]


def test_a_seed_that_ends_its_workers_is_given_up(
    dask: Started, scheduler: str, hasty: Path
) -> None:
    hasty.write_text("import os, signal; os.kill(os.getppid(), signal.SIGKILL)")
    for _ in range(2):
        work(dask, scheduler, hasty)
    with DaskWorkers(scheduler, str(hasty)) as pool:
        why = "2 workers ran this seed, and all of them ended"
        assert list(pool.outcomes([5])) == [Outcome(5, kind="process ended", why=why)]


def test_a_worker_with_other_code_is_refused(
    dask: Started, scheduler: str, hasty: Path, tmp_path: Path
) -> None:
    work(dask, scheduler, clone(tmp_path / "other", RAFT.read_text()))
    refused = pytest.raises(Unavailable, match=r"has a different workbench, node\.py or raft\.py")
    with DaskWorkers(scheduler, str(hasty)) as pool, refused:
        list(pool.outcomes([0]))


def test_a_worker_in_no_clone_is_told_where_to_start(
    dask: Started, scheduler: str, hasty: Path, tmp_path: Path
) -> None:
    work(dask, scheduler, tmp_path / "raft.py")
    refused = pytest.raises(Unavailable, match=r"start it in a clone, with PYTHONPATH=\.:tests")
    with DaskWorkers(scheduler, str(hasty)) as pool, refused:
        list(pool.outcomes([0]))


def test_a_scheduler_that_is_lost_ends_it_with_a_line(dask: Started, hasty: Path) -> None:
    begun = dask("scheduler", "--port", "0")
    scheduler = said(begun, "Scheduler at:").split()[-1]
    work(dask, scheduler, hasty)
    with DaskWorkers(scheduler, str(hasty)) as pool:
        coming = pool.outcomes(range(1000))
        next(coming)
        begun.kill()
        with pytest.raises(Unavailable, match=f"{scheduler}: the scheduler has ended"):
            list(coming)


def test_a_scheduler_that_is_lost_while_nothing_comes_ends_it_too(
    dask: Started, hasty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = dask("scheduler", "--port", "0")
    scheduler = said(begun, "Scheduler at:").split()[-1]

    def seeds() -> Iterator[int]:
        yield 0
        begun.kill()

    lost = pytest.raises(Unavailable, match=f"{scheduler}: the scheduler has ended or was")
    with DaskWorkers(scheduler, str(hasty)) as pool, lost:
        list(pool.outcomes(seeds()))
    assert capsys.readouterr().err == f"soak: {scheduler} has no workers yet; waiting for one\n"


def test_ctrl_c_ends_it(dask: Started, scheduler: str, hasty: Path, tmp_path: Path) -> None:
    hasty.write_text("import os; os._exit(7)")
    work(dask, scheduler, hasty)
    folder = tmp_path / "soak"
    folder.mkdir()
    words = ("--bin", hasty, "--seeds", 100_000, "--scheduler", scheduler)
    begun = start(folder, *words, root=hasty.parent)
    assert begun.stdout and begun.stdout.readline().startswith("seed ")
    begun.send_signal(signal.SIGINT)
    status, output = ended(begun)
    assert status == 130, output
    assert "Stopped by SIGINT: " in output and "Traceback" not in output


def test_a_scheduler_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dask_cluster, "PATIENCE", 0.1)
    with socket.socket() as taken:  # nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        assert soak.main(["--bin", str(RAFT), "--scheduler", address]) == options.CRASHED
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"soak: no scheduler answers at {address}: ")


def test_a_binary_outside_the_clone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="must be in"), DaskWorkers("tcp://h:1", str(tmp_path)):
        pass
