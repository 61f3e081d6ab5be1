#!/usr/bin/env python3
"""`make bench-compare REV=...`: what an operation costs now, and what it cost at another commit.

raft.py and node.py as they stand here (or at --this REV) and as they were at REV run in turn: in
each round, each case is measured with the one and at once with the other, first the one and next
time the other. What the machine does meanwhile happens to both, so a round's ratio tells more
than its figures. Of each case it prints the medians, the median of the rounds' ratios and a margin.

A difference is `larger` than the noise if the ratio's median is farther from 1 than the margin:
five standard errors, and at least 2 %. (In logarithms, where twice and half are equally far. The
standard error of a median is 1.2533 / sqrt(rounds) times the spread, for which 1.4826 times the
median absolute deviation stands: a round that was disturbed does not widen it.) With nine rounds
of equal revisions one case in a hundred is `larger` by chance. With less than five rounds there is
no such word.

It takes four minutes, and writes compare.json and bench.html to store/bench/<time>/;
store/bench/latest-compare leads there.
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
HERE = str(Path(__file__).resolve().parent)  # not on the path: `bench` is a folder, and a file here
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
ERRORS = 5.0  # standard errors that chance may explain
LEAST = 0.02  # a ratio nearer to 1 is of no interest, however sure it is
FEWEST = 5  # rounds of which the spread tells something


class Case(NamedTuple):
    """What is measured; of a Window either CPU or the median latency."""

    name: str
    nodes: int
    clients: int = 50
    mix: Mix = Mix(HALF_READS)
    durable: bool = False
    latency: bool = False

    def figure(self, window: Window) -> float:
        """us of CPU for an operation, or ms."""
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
    """The median of ratios, by which part of it chance may explain, and what follows."""

    ratio: float
    margin: float
    verdict: str


def judge(ratios: Sequence[float]) -> Difference:
    """Is the difference larger than the noise? The rule is in this file's docstring."""
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
    """Puts the files of a revision there, or of the working tree for ""; the revision's name."""
    folder.mkdir()
    if not name:
        for file in FILES:
            shutil.copy(ROOT / file, folder)
        return f"{revision()}, as it stands here"
    git = ["git", "-C", str(ROOT)]
    try:
        words = [*git, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"]
        commit = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
        words = [*git, "archive", commit, *FILES]
        files = subprocess.run(words, capture_output=True, check=True).stdout
    except subprocess.CalledProcessError:
        raise SystemExit(f"{name!r} is no commit that has {' and '.join(FILES)}") from None
    with tarfile.open(fileobj=io.BytesIO(files)) as archive:
        for file in FILES:
            content = archive.extractfile(file)
            assert content is not None
            (folder / file).write_bytes(content.read())
    return f"{name} ({commit[:10]})" if name != commit else name


def measure(case: Case, folder: Path, seconds: float, warm_up: float) -> float:
    """The case's figure, of raft.py in that folder."""
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
    """Measures two revisions in turn; a row for each case, with `problem` if it cannot be run."""
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
    """A row as words: the medians, the ratio, its margin and the verdict."""
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
    add("rev", metavar="REV", help="a commit, as git names it")
    add("--this", default="", metavar="REV", help="default: the files as they stand here")
    add("--rounds", type=int, default=9, help="default: %(default)s")
    add("--only", default="", metavar="TEXT", help="only cases with this in their name")
    add("--quick", action="store_true", help="a fraction of the work: figures mean nothing")
    add("--store", type=Path, default=STORE, help="default: %(default)s")
    args = parser.parse_args(argv)
    cases = [case for case in CASES if args.only in case.name]
    if not cases or args.rounds < 1:
        parser.error("there is nothing to measure")
    # Beside the results: a file in /tmp may be in memory as well.
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
    main(sys.argv[1:])
