#!/usr/bin/env python3
"""`make same-bytes`: checks that a seed always gives the same history, results and logs.

Each seed's simulated run (workbench/soak/shapes.py) is repeated with every Python from 3.10 to
3.13 on the PATH, or with those of --pythons. Each Python runs it with two values of
PYTHONHASHSEED, which changes the order of sets. Exit status: 0 if all bytes are equal, 1 at the
first difference, 2 if a run ended without a verdict.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import zip_longest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from workbench.soak import shapes  # noqa: E402  (needs the path above)

MINORS = range(10, 14)
HASH_SEEDS = ("1", "2")
VERDICTS = (0, 1, 2)  # exit statuses of runs with a verdict
Files = Mapping[str, bytes]  # contents by path in a run's folder


class CannotRun(Exception):
    """A run ended without a verdict."""


def able(candidates: Sequence[str]) -> dict[str, str]:
    """Returns the usable Pythons by version. A name on the PATH may not run, as pyenv's shims."""
    found: dict[str, str] = {}
    ask = "import platform; print(platform.python_version())"
    for python in filter(None, map(shutil.which, candidates)):
        done = subprocess.run([python, "-c", ask], capture_output=True, text=True)
        if done.returncode == 0:
            found.setdefault(done.stdout.strip(), python)
    return found


def run(seed: int, python: str, hash_seed: str) -> Files:
    """Simulates a seed; returns the run's files, without the timeline, which contains the date.

    The nodes log the path of their files, so the path of the run's folder is replaced by `{run}`.
    """
    words = shapes.words(seed, str(ROOT / "raft.py"))
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [python, str(ROOT / "maelstrom"), "test", *words],
            cwd=folder,
            env={
                **os.environ, "MAELSTROM": "workbench", "PYTHONHASHSEED": hash_seed,
                "MAELSTROM_REPORT": "no",  # the page contains random ids
            },
            capture_output=True,
            text=True,
        )
        if done.returncode not in VERDICTS:
            said = done.stdout[-2000:] + done.stderr
            raise CannotRun(f"{shlex.join(done.args)}\n{said}")
        latest = Path(folder, "store", "latest").resolve()
        return {
            str(path.relative_to(latest)): path.read_bytes().replace(bytes(latest), b"{run}")
            for path in sorted(latest.rglob("*"))
            if path.is_file() and path.name != "timeline.html"
        }


def difference(one: Files, other: Files) -> str:
    """Returns the first difference: file, line number and both lines. "" if all are equal."""
    for name in sorted(one.keys() | other.keys()):
        lines, others = (files.get(name, b"").splitlines() for files in (one, other))
        for number, (line, theirs) in enumerate(zip_longest(lines, others), 1):
            if line != theirs:
                return f"{name}:{number}\n    {line!r}\n    {theirs!r}"
        if one.get(name) != other.get(name):
            return f"{name}: missing in one of the runs, or different line ends"
    return ""


def digest(files: Files) -> str:
    """Returns a hash of all files, to compare with another machine."""
    found = hashlib.sha256()
    for name, content in sorted(files.items()):
        found.update(b"%s %d\n%s" % (name.encode(), len(content), content))
    return found.hexdigest()[:16]


def main() -> int:
    """Prints a line for each seed; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [f"python3.{minor}" for minor in MINORS]
    parser.add_argument(
        "--seeds", type=int, default=20, help="number of seeds; default: %(default)s"
    )
    parser.add_argument(
        "--first", type=int, default=0, metavar="SEED", help="first seed; default: %(default)s"
    )
    parser.add_argument("--pythons", nargs="+", default=names, help=f"default: {' '.join(names)}")
    args = parser.parse_args()
    pythons = able(args.pythons)
    if not pythons:
        parser.error(f"none of these Pythons can be run: {' '.join(args.pythons)}")
    print(f"Python {', '.join(pythons)}; PYTHONHASHSEED {', '.join(HASH_SEEDS)}", flush=True)
    if len(pythons) < len(args.pythons):
        print("the other names cannot be run, or are the same version", flush=True)
    ways = [(python, hash_seed) for python in pythons.values() for hash_seed in HASH_SEEDS]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for seed in range(args.first, args.first + args.seeds):
            try:
                found = list(pool.map(partial(run, seed), *zip(*ways, strict=True)))
            except CannotRun as error:
                print(f"seed {seed} ended without a verdict: {error}")
                return 2
            name = f"seed {seed} ({shapes.name(seed)})"
            for way, files in zip(ways, found, strict=True):
                if where := difference(found[0], files):
                    first, other = ("PYTHONHASHSEED={1} {0}".format(*w) for w in (ways[0], way))
                    print(f"{name}: {first} and {other} differ in {where}")
                    return 1
            size = sum(map(len, found[0].values()))
            print(f"{name}: {len(ways)} runs, {size:,} bytes, {digest(found[0])}", flush=True)
    print(f"{args.seeds} seeds, {len(ways)} runs of each: all bytes are equal")
    return 0


if __name__ == "__main__":
    sys.exit(main())
