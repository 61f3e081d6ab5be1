#!/usr/bin/env python3
"""`make bench-compare REV=...`: compares the cost of an operation now and at another commit.

`this` is raft.py and node.py in the working tree (or at --this REV); `that` is both files at REV.
Each round measures each case with both revisions, one directly after the other, and alternates
their order. Other load on the machine affects both, so the ratio of a round is more precise than
its figures. For each case the program prints both medians, the median ratio and a margin.

A difference is `larger` than the noise if the median ratio differs from 1 by more than the margin.
The margin is five standard errors, but at least 2 %. Both are computed from logarithms, so that
twice and half are equally far from 1. The standard error of a median is 1.2533 / sqrt(rounds) times
the spread. The spread is 1.4826 times the median absolute deviation, so that a single disturbed
round does not widen the margin. With nine rounds of equal revisions, one case in a hundred is
`larger` by chance. Fewer than five rounds give no verdict.

The comparison takes four minutes. It writes compare.json and bench.html to store/bench/<time>/;
the link store/bench/latest-compare leads to that folder.
"""

from __future__ import annotations

import argparse
import io
import math
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
HERE = str(Path(__file__).resolve().parent)  # off the path: bench.py would hide `bench`
sys.path[:] = [str(ROOT), str(ROOT / "tests"), *(path for path in sys.path if path != HERE)]

from bench.bench import (  # noqa: E402  (needs the path above)
    STORE,
    WARM_UP,
    Row,
    Scale,
    aligned,
    new_folder,
    revision,
    rounded,
    run,
    save,
    write_page,
)
from bench.driver import (  # noqa: E402
    HALF_READS,
    MIXES,
    Clients,
    Cluster,
    Mix,
    NodeEnded,
    Window,
)

FILES = ("raft.py", "node.py")
ERRORS = 5.0  # standard errors in the margin
LEAST = 0.02  # minimum margin: smaller differences do not matter
FEWEST = 5  # minimum rounds for a verdict


class Case(NamedTuple):
    """A case to measure: its CPU time or, if `latency`, its median latency."""

    name: str
    nodes: int
    clients: int = 50
    mix: Mix = Mix(HALF_READS)
    durable: bool = False
    latency: bool = False

    def figure(self, window: Window) -> float:
        """Returns the CPU time of an operation in us, or the median latency in ms."""
        return window.quantiles(0.5)[0] * 1e3 if self.latency else window.cpu_each * 1e6


CASES = [
    Case("CPU us: 1 node, 50 clients", 1),
    Case("CPU us: 3 nodes, 50 clients", 3),
    Case("CPU us: 5 nodes, 50 clients", 5),
    Case("CPU us: 3 nodes, 50 clients, writes", 3, mix=Mix(MIXES["writes"])),
    Case("CPU us: 3 nodes, 50 clients, durable", 3, durable=True),
    Case("CPU us: 3 nodes, 200 clients", 3, 200),
    Case("p50 ms: 3 nodes, 10 clients", 3, 10, latency=True),
]


@dataclass
class Difference:
    """The difference of two revisions in a case."""

    ratio: float  # median of the rounds' ratios
    margin: float  # distance from 1 that may be noise
    verdict: str


def judge(ratios: Sequence[float]) -> Difference:
    """Decides whether a difference is larger than the noise; see this module's docstring."""
    logs = [math.log(ratio) for ratio in ratios]
    middle = statistics.median(logs)
    spread = 1.4826 * statistics.median(abs(value - middle) for value in logs)
    error = 1.2533 * spread / math.sqrt(len(logs))
    margin = max(ERRORS * error, math.log1p(LEAST))
    verdict = "larger" if abs(middle) > margin else "within noise"
    if len(logs) < FEWEST:
        verdict = "too few rounds"
    return Difference(math.exp(middle), math.expm1(margin), verdict)


def check_out(name: str, folder: Path) -> str:
    """Copies the files of a revision ("": the working tree) to a folder; returns its name."""
    folder.mkdir()
    if not name:
        for file in FILES:
            shutil.copy(ROOT / file, folder)
        return f"the working tree at {revision()}"
    git = ["git", "-C", str(ROOT)]
    try:
        words = [*git, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"]
        commit = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
        words = [*git, "archive", commit, *FILES]
        files = subprocess.run(words, capture_output=True, check=True).stdout
    except subprocess.CalledProcessError:
        raise SystemExit(f"{name!r} is not a commit with {' and '.join(FILES)}") from None
    with tarfile.open(fileobj=io.BytesIO(files)) as archive:
        for file in FILES:
            content = archive.extractfile(file)
            assert content is not None
            (folder / file).write_bytes(content.read())
    return f"{name} ({commit[:10]})" if name != commit else name


def measure(case: Case, folder: Path, seconds: float, warm_up: float) -> float:
    """Measures a case with the raft.py of a folder."""
    with tempfile.TemporaryDirectory(dir=folder) as data:
        words = ["--data-dir", f"{data}/data"] if case.durable else []
        cluster = Cluster([sys.executable, str(folder / "raft.py"), *words], case.nodes)
        try:
            clients = Clients(cluster, case.clients, case.mix)
            clients.warm_up(warm_up)
            return case.figure(clients.run(seconds))
        finally:
            cluster.end()


def compare(folders: Sequence[Path], cases: Sequence[Case], rounds: int, scale: Scale) -> list[Row]:
    """Measures two revisions alternately; returns a row for each case.

    The row of a case that cannot be measured has only its name and the `problem`.
    """
    pairs: dict[str, list[tuple[float, float]]] = {case.name: [] for case in cases}
    problems: dict[str, str] = {}
    for number in range(rounds):
        for case in cases:
            if case.name in problems:
                continue
            found = [0.0, 0.0]
            try:
                for side in (0, 1) if number % 2 else (1, 0):
                    found[side] = measure(
                        case, folders[side], scale.seconds(0.8), scale.seconds(WARM_UP)
                    )
            except NodeEnded as error:
                problems[case.name] = f"{('this', 'that')[side]} cannot be measured: {error}"
            else:
                pairs[case.name].append((found[0], found[1]))
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    rows: list[Row] = []
    for name, figures in pairs.items():
        if name in problems:
            rows.append({"case": name, "problem": problems[name]})
            continue
        this, that = (statistics.median(column) for column in zip(*figures, strict=True))
        difference = judge([a / b for a, b in figures])
        rows.append({"case": name, "this": this, "that": that} | asdict(difference))
    return rounded(rows)


def cells(row: Row) -> list[str]:
    """Formats a row: the medians, the ratio, its margin and the verdict."""
    if "problem" in row:
        return [row["case"], "", "", "", "", row["problem"].splitlines()[0]]
    return [
        row["case"],
        f"{row['this']:.2f}",
        f"{row['that']:.2f}",
        f"{row['ratio']:.3f}",
        f"{row['margin']:.1%}",
        row["verdict"],
    ]


HEADS = ["for an operation, medians", "this", "that", "this / that", "margin", "difference"]


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("rev", metavar="REV", help="git revision to compare with")
    add("--this", default="", metavar="REV", help="git revision; default: the working tree")
    add("--rounds", type=int, default=9, help="number of rounds; default: %(default)s")
    add("--only", default="", metavar="TEXT", help="measure only cases with TEXT in their name")
    add("--quick", action="store_true", help="do little work, to test the benchmark itself")
    add("--store", type=Path, default=STORE, help="folder for results; default: %(default)s")
    args = parser.parse_args(argv)
    cases = [case for case in CASES if args.only in case.name]
    if not cases:
        parser.error(f"--only {args.only}: no case has this in its name")
    if args.rounds < 1:
        parser.error(f"--rounds {args.rounds} must be at least 1")
    # In the folder of the results, since /tmp may be in memory.
    args.store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.store) as temporary:
        folders = [Path(temporary) / "this", Path(temporary) / "that"]
        names = [
            check_out(name, folder)
            for name, folder in zip((args.this, args.rev), folders, strict=True)
        ]
        print(f"this: {names[0]}; that: {names[1]}", flush=True)
        rows = compare(folders, cases, args.rounds, Scale(args.quick, args.store))
    print(aligned([HEADS, *map(cells, rows)]))
    folder = new_folder(args.store, "latest-compare")
    began = datetime.now(timezone.utc).isoformat(timespec="seconds")
    save(
        folder / "compare.json",
        {"this": names[0], "that": names[1], "ended": began, "rounds": args.rounds, "rows": rows},
    )
    print(folder / "compare.json")
    write_page(folder)


if __name__ == "__main__":
    sys.exit(run("bench-compare", main))
