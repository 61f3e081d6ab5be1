"""Many seeds: what a shape is, what counts as a failure, and that a command brings it back."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from workbench.checkers.linearizable import Analysis
from workbench.network.nemesis import KINDS
from workbench.running import options
from workbench.running.runner import Record
from workbench.soak import seeds, shapes
from workbench.verdicts import UNKNOWN, VALID
from workbench.workloads.lin_kv import LinKv
from workbench.workloads.workload import Settings

ROOT = Path(__file__).resolve().parents[1]
RAFT = ROOT / "raft.py"
MAJORITY = "count // 2 + 1"


def start(folder: Path, *words: object, root: Path = ROOT) -> subprocess.Popen[str]:
    """A soak that has a folder of its own for whatever it writes."""
    scratch = folder / "scratch"
    scratch.mkdir()
    return subprocess.Popen(
        [sys.executable, "-m", "workbench.soak", *map(str, words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}", "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(soak: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit status and output. Its workers have its stdout: they, too, have ended."""
    output, _ = soak.communicate(timeout=600)
    return soak.returncode, output


def left(folder: Path) -> list[str]:
    """The names of the files that are there."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def hasty(tmp_path: Path) -> Path:
    """A raft.py with a majority that is one short."""
    text = RAFT.read_text()
    assert text.count(MAJORITY) == 1
    binary = tmp_path / "hasty.py"
    binary.write_text(text.replace(MAJORITY, "max(1, count // 2)"))
    binary.chmod(0o755)
    return binary


@pytest.mark.parametrize("first", range(0, 200, 10))
def test_200_seeds_find_nothing(first: int, tmp_path: Path) -> None:
    outcomes = [seeds.run(seed, str(RAFT), tmp_path) for seed in range(first, first + 10)]
    assert not [outcome for outcome in outcomes if not outcome or outcome.kind]


def test_nothing_is_found_in_a_good_program_and_nothing_written(tmp_path: Path) -> None:
    status, output = ended(start(tmp_path, "--bin", RAFT, "--seeds", 6, "--workers", 2))
    assert status == 0, output
    assert "6 seeds, " in output and "No seed failed." in output
    assert not left(tmp_path)


def test_a_failure_comes_with_the_command_that_brings_it_back(tmp_path: Path, hasty: Path) -> None:
    given = ("--bin", hasty, "--seeds", 6, "--workers", 2)
    status, output = ended(start(tmp_path, *given))
    assert status == 1, output
    assert "6 seeds, " in output and "failed, commit: seeds " in output
    assert left(tmp_path) == ["hasty.py"]

    lines = [line.strip() for line in output.splitlines()]
    found = next(line for line in lines if line.startswith("seed ") and "commit: " in line)
    after = lines[lines.index(found) :]
    _, *words = shlex.split(next(line for line in after if line.startswith("./maelstrom ")))
    done = subprocess.run(
        [sys.executable, str(ROOT / "maelstrom"), *words],
        cwd=tmp_path,
        env={**os.environ, "MAELSTROM": "workbench"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    why = found.partition(": ")[2]
    assert done.returncode == 1 and f"Broken rule: {why}" in done.stdout


def test_ctrl_c_ends_all_of_it(tmp_path: Path, hasty: Path) -> None:
    begun = start(tmp_path, "--bin", hasty, "--seeds", 100_000, "--workers", 2)
    assert begun.stdout and begun.stdout.readline().startswith("seed ")
    begun.send_signal(signal.SIGINT)
    status, output = ended(begun)
    assert status == 130, output
    assert "Stopped by SIGINT: " in output and " of 100,000 seeds ran." in output
    assert "Traceback" not in output
    assert left(tmp_path) == ["hasty.py"]


def test_a_process_that_ends_costs_its_seed_and_no_other(tmp_path: Path) -> None:
    binary = tmp_path / "binary.py"
    binary.write_text("import os; os._exit(7)")
    binary.chmod(0o755)
    status, output = ended(start(tmp_path, "--bin", binary, "--seeds", 5, "--workers", 2))
    assert status == 1, output
    assert output.count("the seed's process ended with exit status 7") == 5
    assert "5 failed, process ended: seeds 0 1 2 3 4" in output


def test_a_binary_that_is_not_there_is_said_once(tmp_path: Path) -> None:
    status, output = ended(start(tmp_path, "--bin", "nothing.py"))
    assert status == options.CRASHED
    assert output.splitlines()[-1].endswith("--bin nothing.py does not exist")


@pytest.fixture
def no_distributed(tmp_path: Path) -> None:
    """In the soaks of this test it cannot be imported."""
    for name in ("dask", "distributed"):
        (tmp_path / f"{name}.py").write_text("raise ModuleNotFoundError")


def test_without_distributed_a_cluster_is_refused_in_one_line(
    tmp_path: Path, no_distributed: None
) -> None:
    status, output = ended(start(tmp_path, "--bin", RAFT, "--scheduler", "tcp://127.0.0.1:1"))
    assert status == options.CRASHED
    assert output.splitlines() == [
        "soak: --scheduler needs Dask's distributed: pip install -r tests/requirements.txt"
    ]


def test_without_distributed_seeds_run_here(tmp_path: Path, no_distributed: None) -> None:
    status, output = ended(start(tmp_path, "--bin", RAFT, "--seeds", 1))
    assert status == 0 and "No seed failed." in output
    assert "distributed" not in output


def test_what_is_no_address_is_refused(tmp_path: Path) -> None:
    status, output = ended(start(tmp_path, "--bin", RAFT, "--scheduler", "nowhere"))
    assert status == options.CRASHED
    assert output.splitlines()[-1].endswith("nowhere is not an address like tcp://HOST:8786")


def test_the_shapes_have_everything_in_them() -> None:
    runs = [options.parse(shapes.words(seed, str(RAFT))) for seed in range(1200)]
    assert {run.node_count for run in runs} == set(range(1, 8))
    assert {fault for run in runs for fault in run.nemesis} == {*shapes.FAULTS, "kill"}
    assert {kind for run in runs for kind in run.partition_kinds} == set(KINDS)
    stored = ("--data-dir", "{run}/data")
    reads = [(), ("--reads", "index"), ("--reads", "log")]
    assert {run.args for run in runs} == {(*mode, *kept) for mode in reads for kept in ((), stored)}
    assert all("kill" in run.nemesis for run in runs if stored[0] in run.args)
    assert {run.independent_delivery for run in runs} == {False, True}
    assert all(run.simulate and run.seed == seed for seed, run in enumerate(runs))
    assert {shapes.name(seed) for seed in range(1200)} == shapes.SHAPES.keys()


@pytest.mark.parametrize(
    ("record", "valid", "complaints", "kind", "why"),
    [
        (Record(), True, [], "", ""),
        (Record(), None, [], "", ""),
        (Record(), False, ["n0 wrote"], "invalid history", "because"),
        (Record(), True, ["n0 wrote"], "traceback", "a traceback: n0 wrote"),
        (Record(crash="n0 ended"), False, [], "a node ended", "n0 ended"),
        (Record(problems=["log matching: n1"]), True, [], "log matching", "log matching: n1"),
        (Record(problems=["n1: x"], crash="n0"), True, [], "rule of the protocol", "n1: x"),
    ],
)
def test_what_counts_as_a_failure(
    record: Record, valid: bool | None, complaints: list[str], kind: str, why: str
) -> None:
    workload = LinKv(None, Settings(1))  # type: ignore[arg-type]
    workload.analyses = {0: Analysis(valid, "because", 0)}
    results = {VALID: UNKNOWN if valid is None else valid}
    assert seeds.failure(record, workload, results, complaints) == (kind, why)
