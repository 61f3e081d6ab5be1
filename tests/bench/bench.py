#!/usr/bin/env python3
"""`make bench`: measures the cost of an operation, and its growth. Takes less than five minutes.

Clients send requests to all nodes of a cluster of local processes. Each client has one request in
flight (a closed loop). Each row measures a new cluster, after a warm-up. Machines may be shared and
noisy, so compare ratios rather than figures. `x bare` is the ratio to a bare loop (bare_loop.py,
the least that any Python node must do) with as many clients, measured in the same minute. `x first`
is the ratio to the first row of the table.

The tables are printed, and written to store/bench/<time>/ as bench.json and, if Bokeh is
installed, as bench.html. The link store/bench/latest leads to that folder. The benchmark needs
only Python's standard library, and Linux.

Columns:

    ops/s              operations per second
    p50 ms, p99 ms     quantiles of the time from a request to its reply
    CPU us             CPU time of all nodes for an operation
    turns              turns of all nodes' event loops for an operation
    msgs, bytes        messages and bytes between servers for an operation
    commits            commits to disk (one sync each) for an operation
    MB                 peak memory of the largest node
    nodes %, driver %  CPU use of all nodes together, and of the driver, in percent of one core
    refused            error replies that served nothing (error 11, for example)
    no answer          requests without a reply
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = str(Path(__file__).resolve().parent)  # off the path: bench.py would hide `bench`
sys.path[:] = [str(ROOT), str(ROOT / "tests"), *(path for path in sys.path if path != HERE)]

from bench import counted  # noqa: E402  (needs the path above)
from bench.driver import (  # noqa: E402
    HALF_READS,
    INIT,
    MIXES,
    RAFT,
    Clients,
    Cluster,
    Mix,
    NodeEnded,
    Window,
    message,
)
from workbench.record import store  # noqa: E402

from raft import Map  # noqa: E402

STORE = ROOT / "store" / "bench"
PYTHONS = ("python3.10", "python3.11", "python3.12", "python3.13", "pypy3")
CHAPTER_1 = [*RAFT, "--unreplicated"]
BARE_LOOP = [sys.executable, str(Path(__file__).with_name("bare_loop.py"))]
IMPORTS = [sys.executable, "-c", "import json, threading"]
WARM_UP = 0.3  # seconds before a measurement
SIZES = (1, 3, 5, 7)  # nodes
LOADS = (1, 10, 50, 200, 1000)  # clients
CLIENTS = 50  # number of clients in tables that do not vary it
COLUMNS = {  # a row's columns: head and format of each
    "per_second": ("ops/s", ",.0f"),
    "p50_ms": ("p50 ms", ".2f"),
    "p99_ms": ("p99 ms", ".2f"),
    "cpu_us": ("CPU us", ",.1f"),
    "cpu_ratio": ("x bare", ".2f"),
    "per_second_growth": ("ops/s x first", ".3f"),
    "cpu_growth": ("CPU x first", ".2f"),
    "turns": ("turns", ".3f"),
    "messages": ("msgs", ".3f"),
    "bytes": ("bytes", ",.0f"),
    "commits": ("commits", ".4f"),
    "peak_mb": ("MB", ",.0f"),
    "nodes_percent": ("nodes %", ".0f"),
    "driver_percent": ("driver %", ".0f"),
    "refused": ("refused", ",d"),
    "unanswered": ("no answer", ",d"),
}
Row = dict[str, Any]
UNWRITABLE = (  # errors of a folder or file that cannot be written
    errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENOSPC,
)  # fmt: skip


class Scale:
    """Scales the amount of work (all, or a fraction with --quick); names the folder for files."""

    def __init__(self, quick: bool, folder: Path) -> None:
        self.quick, self.folder = quick, folder

    def seconds(self, full: float) -> float:
        return full / 20 if self.quick else full

    def points(self, full: Sequence[Any]) -> Sequence[Any]:
        """Returns all points, or the first two with --quick."""
        return full[:2] if self.quick else full

    def rounds(self, full: int) -> int:
        return 1 if self.quick else full


# One row


def figures(window: Window) -> Row:
    """Computes a row's figures from a measurement."""
    p50, p99 = (seconds * 1e3 for seconds in window.quantiles(0.5, 0.99))
    each = 1 / max(1, window.operations)
    return {
        "operations": window.operations,
        "seconds": window.seconds,
        "per_second": window.per_second,
        "p50_ms": p50,
        "p99_ms": p99,
        "cpu_us": window.cpu_each * 1e6,
        "messages": window.messages * each,
        "bytes": window.bytes * each,
        "nodes_percent": window.cpu / window.seconds * 100,
        "driver_percent": window.driver_share * 100,
        "refused": window.refused,
        "unanswered": window.unanswered,
    }


def raft_rows(
    scale: Scale,
    label: str,
    nodes: int = 3,
    clients: int = CLIENTS,
    mix: Mix | None = None,
    seconds: float = 1.6,
    windows: int = 1,
    folder: Path | None = None,
    python: str = sys.executable,
) -> Iterator[Row]:
    """Measures a cluster of raft.py in consecutive windows, and yields a row for each.

    With a folder, the nodes keep their state there and start empty. Otherwise they keep it in
    memory and start with all keys.
    """
    mix = mix or Mix(HALF_READS)
    words = ["0", "--data-dir", str(folder)] if folder else [str(mix.keys)]
    cluster = Cluster([python, counted.__file__, *words], nodes)
    rows = []
    try:
        asked = Clients(cluster, clients, mix)
        asked.warm_up(scale.seconds(WARM_UP))
        for _ in range(windows):
            before, earlier = commits(folder), asked.answers
            window = asked.run(scale.seconds(seconds))
            if not window.operations:
                raise NodeEnded(f"{label}: no replies for {window.seconds:.1f} s")
            row = {"label": label, "nodes": nodes, "clients": clients} | figures(window)
            row |= {"keys": mix.keys, "value_bytes": mix.value_bytes, "earlier": earlier}
            row["peak_mb"] = cluster.peak() / 1e6
            if folder:
                row["commits"] = (commits(folder) - before) / window.operations
            rows.append(row)
    finally:
        said = cluster.end().values()
    # The nodes count turns from their start to their end, so divide by all answers of that time.
    turns = sum(turns_of(text) for text in said)
    yield from (row | {"turns": turns / asked.answers} for row in rows)


def turns_of(said: str) -> int:
    """Reads a node's number of turns from its last line. NodeEnded if that line is missing."""
    last = said.rpartition(counted.TURNS)[2]
    if not last.strip().isdecimal():
        raise NodeEnded(f"a node ended without printing its turns: {said[-1000:].strip()}")
    return int(last)


def many(count: int, name: str) -> str:
    """Formats a count with its noun: 1 node, 3 nodes."""
    return f"{count:,} {name}" if count == 1 else f"{count:,} {name}s"


def commits(folder: Path | None) -> int:
    """Counts the commits to disk of all nodes so far; each commit is one sync."""
    files = folder.glob("n*.commits") if folder else ()
    return sum(int(file.read_bytes() or 0) for file in files)


def alone(command: Sequence[str], clients: int, seconds: float) -> Window:
    """Measures one process of `command`, for example of the bare loop."""
    cluster = Cluster(command, 1)
    try:
        asked = Clients(cluster, clients, Mix(HALF_READS))
        asked.warm_up(seconds / 4)
        return asked.run(seconds)
    finally:
        cluster.end()


# The tables


def grid(scale: Scale) -> Iterator[Row]:
    """Numbers of nodes and clients, compared with a bare loop."""
    for clients in scale.points(LOADS):
        bare = partial(alone, BARE_LOOP, clients, scale.seconds(0.6))
        first = bare()  # before and after raft.py, since the machine's load changes
        rows = [
            row
            for nodes in scale.points(SIZES)
            for row in raft_rows(
                scale, f"{many(nodes, 'node')}, {many(clients, 'client')}", nodes, clients
            )
        ]
        last = bare()
        cpu = statistics.mean([first.cpu_each, last.cpu_each])
        label = {"label": f"bare loop, {many(clients, 'client')}", "nodes": 0, "clients": clients}
        yield label | figures(first) | {"cpu_us": cpu * 1e6, "cpu_ratio": 1.0}
        yield from (row | {"cpu_ratio": row["cpu_us"] / cpu / 1e6} for row in rows)


def keys(scale: Scale) -> Iterator[Row]:
    """Number of keys, 3 nodes."""
    for count in scale.points((10, 1_000, 100_000, 1_000_000)):
        yield from raft_rows(scale, f"{count:,} keys", mix=Mix(HALF_READS, count))


def values(scale: Scale) -> Iterator[Row]:
    """Size of values, 3 nodes, writes of 10 clients."""
    for size in scale.points((10, 1_000, 10_000, 100_000, 1_000_000)):
        mix = Mix(MIXES["writes"], value_bytes=size)
        yield from raft_rows(scale, f"{size:,} B", clients=10, mix=mix)


def log(scale: Scale) -> Iterator[Row]:
    """Number of earlier operations, 3 nodes, only writes."""
    rows = raft_rows(
        scale, "", mix=Mix(MIXES["writes"], 1000), seconds=3.0, windows=2 if scale.quick else 8
    )
    for row in rows:
        yield row | {"label": f"after {row['earlier']:,} writes"}


def nodes(scale: Scale) -> Iterator[Row]:
    """Number of nodes."""
    for size in scale.points((1, 3, 5, 7, 9, 11, 13, 15)):
        yield from raft_rows(scale, many(size, "node"), size, seconds=1.0)


def durable(scale: Scale) -> Iterator[Row]:
    """In memory or durable (--data-dir), 3 nodes; `x first` is the ratio to in memory."""
    for clients in scale.points((1, 50, 200)):
        (memory,) = raft_rows(scale, f"in memory, {many(clients, 'client')}", clients=clients)
        # In the folder of the results, since /tmp may be in memory.
        with tempfile.TemporaryDirectory(dir=scale.folder) as at:
            folder = Path(at) / "data"
            (disk,) = raft_rows(
                scale, f"durable, {many(clients, 'client')}", clients=clients, folder=folder
            )
        yield memory | growth(memory, memory)
        yield disk | growth(disk, memory)


def mix(scale: Scale) -> Iterator[Row]:
    """Kinds of operations, 3 nodes."""
    for name, kinds in scale.points([*MIXES.items()]):
        yield from raft_rows(scale, name, mix=Mix(kinds))


def pythons(scale: Scale) -> Iterator[Row]:
    """Versions of Python on the PATH, each compared with a bare loop."""
    for python in scale.points([name for name in PYTHONS if works(name)]):
        bare = figures(alone([python, BARE_LOOP[1]], CLIENTS, scale.seconds(1.6)))
        yield {"label": f"{python}, bare loop"} | bare | {"cpu_ratio": 1.0}
        for size in (1, 3):
            label = f"{python}, {many(size, 'node')}"
            for row in raft_rows(scale, label, size, python=python):
                yield row | {"cpu_ratio": row["cpu_us"] / bare["cpu_us"]}


def works(python: str) -> bool:
    """Returns whether this Python exists, runs, and is new enough."""
    check = "import sys; sys.exit(sys.version_info < (3, 10))"
    try:
        return subprocess.run([python, "-c", check], capture_output=True).returncode == 0
    except OSError:
        return False


def growth(row: Row, first: Row) -> Row:
    """Returns a row's ratios to another row."""
    return {
        "per_second_growth": row["per_second"] / first["per_second"],
        "cpu_growth": row["cpu_us"] / first["cpu_us"],
    }


TABLES = {"grid": grid, "mix": mix, "durable": durable, "keys": keys, "values": values,
          "log": log, "nodes": nodes, "pythons": pythons}  # fmt: skip


# Parts: pairs of measurements


def apply_seconds(keys: int, active: int, writes: int = 100_000, hold_first: bool = False) -> float:
    """Returns the seconds of a write to a Map of `keys` keys; writes go to `active` random keys.

    With `hold_first`, the version before the first write stays referenced.
    """
    state_machine = Map({key: 0 for key in range(keys)})
    held = state_machine if hold_first else None
    rng = random.Random(1)
    ops = [{"type": "write", "key": rng.randrange(active), "value": n} for n in range(writes)]
    start = time.perf_counter()
    for op in ops:
        state_machine, _ = state_machine.apply(op)
    seconds = time.perf_counter() - start
    del held
    return seconds / writes


def start_seconds(command: list[str], first_line: bytes = b"") -> float:
    """Returns the seconds from a process's start to its first line of output.

    Without a `first_line` to send, the time is measured to the end of the process.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(first_line)
    process.stdout.readline()
    if not first_line:
        process.wait()
    seconds = time.perf_counter() - start
    process.communicate()
    return seconds


def pair(
    title: str, unit: float, rounds: int, a: Callable[[], float], b: Callable[[], float]
) -> Row:
    """Measures a and b alternately; returns both medians, and the median ratio of the rounds."""
    pairs = [(a(), b()) for _ in range(rounds)]
    this, that = (statistics.median(column) * unit for column in zip(*pairs, strict=True))
    ratio = statistics.median(x / y for x, y in pairs)
    return {"title": title, "this": this, "that": that, "ratio": ratio}


def parts(scale: Scale) -> Iterator[Row]:
    """Measures chapter 1's server, the Map alone, and the start of a node."""
    rounds, large = scale.rounds(3), 10_000 if scale.quick else 1_000_000

    def cpu(command: list[str], clients: int) -> float:
        return alone(command, clients, scale.seconds(0.5)).cpu_each

    for clients in scale.points(LOADS[:-1]):
        yield pair(
            f"CPU us an operation, {many(clients, 'client')}: chapter 1; a bare loop", 1e6, rounds,
            partial(cpu, CHAPTER_1, clients), partial(cpu, BARE_LOOP, clients),
        )  # fmt: skip
    # With all keys active, the remaining difference is due to the processor's cache misses.
    for active in (10, large):
        yield pair(
            f"us a write: Map of {large:,} keys, {active:,} active; Map of 10", 1e6, rounds,
            partial(apply_seconds, large, active), partial(apply_seconds, 10, 10),
        )  # fmt: skip
    yield pair(
        "us a write: Map of 10 with an old version held; without", 1e6, rounds,
        partial(apply_seconds, 10, 10, hold_first=True), partial(apply_seconds, 10, 10),
    )  # fmt: skip
    yield pair(
        "start, ms: raft.py to init_ok; import json and threading", 1e3, rounds * 5,
        partial(start_seconds, CHAPTER_1, message(0, INIT)), partial(start_seconds, IMPORTS),
    )  # fmt: skip


# Output


def shown_columns(rows: Sequence[Row]) -> list[str]:
    """Returns the columns that have values. `refused` and `unanswered` must not be all 0."""
    rare = ("refused", "unanswered")
    return [
        name
        for name in COLUMNS
        if any(row.get(name) if name in rare else row.get(name) is not None for row in rows)
    ]


def cell(row: Row, column: str) -> str:
    value = row.get(column)
    return "" if value is None else format(value, COLUMNS[column][1])


def table(title: str, rows: Sequence[Row]) -> str:
    """Formats rows as a table."""
    columns = shown_columns(rows)
    lines = [["", *(COLUMNS[name][0] for name in columns)]]
    lines += [[row["label"], *(cell(row, name) for name in columns)] for row in rows]
    return f"{title}\n{aligned(lines)}"


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Aligns the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])])
        for first, *rest in lines
    )


def pairs_table(rows: Sequence[Row]) -> str:
    """Formats the rows of `parts` as a table."""
    lines = [["parts: this; that (medians)", "this", "that", "ratio"]]
    lines += [
        [row["title"], *(f"{row[name]:.2f}" for name in ("this", "that", "ratio"))] for row in rows
    ]
    return aligned(lines)


def title(name: str) -> str:
    """Returns a table's title: its name, and the first line of its docstring."""
    text = (TABLES[name].__doc__ or "").splitlines()[0]
    return f"{name}: {text[0].lower()}{text[1:].rstrip('.')}"


def revision() -> str:
    """Returns git's name of the measured revision."""
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def new_folder(parent: Path, kind: str) -> Path:
    """Creates a folder named after the current time, and points the link `kind` to it."""
    folder = parent / datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
    folder.mkdir(parents=True)
    new = parent / f".{folder.name}"  # replaces the old link atomically
    new.symlink_to(folder.name)
    new.replace(parent / kind)
    return folder


def rounded(rows: Sequence[Row]) -> list[Row]:
    """Rounds all figures to five digits."""
    text = json.dumps(rows)
    found: list[Row] = json.loads(text, parse_float=lambda number: float(f"{float(number):.5g}"))
    return found


def save(path: Path, found: Row) -> None:
    path.write_text(json.dumps(found, indent=1) + "\n")


def run(name: str, main: Callable[[Sequence[str]], object]) -> int:
    """Runs a benchmark's main; prints an error of the system, or Ctrl-C, in one line."""
    try:
        main(sys.argv[1:])
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        why = f"cannot write to {error.filename or 'the folder of the results'}"
        print(f"{name}: {why}: {error.strerror}; name another folder: --store FOLDER with make: "
              "ARGS='--store FOLDER'", file=sys.stderr)  # fmt: skip
        return 1
    except KeyboardInterrupt:
        print(f"{name}: stopped by Ctrl-C; nothing was written", file=sys.stderr)
        return 130
    return 0


def write_page(folder: Path) -> None:
    """Writes and prints bench.html with a Python that has Bokeh, or prints how to do so."""
    python = store.reporter()
    writer = Path(__file__).with_name("bench_page.py")
    if python is None:
        print(f"bench.html needs Bokeh. To write it: make .venv/ready, then .venv/bin/python "
              f"{writer.relative_to(ROOT)} {folder}")  # fmt: skip
    else:
        subprocess.run([python, writer, folder], check=False)


def main(argv: Sequence[str]) -> None:
    """Measures and prints each table, then writes the files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="do little work, to test the benchmark itself")
    only = "measure only this table; may be given several times"
    add("--only", action="append", choices=[*TABLES, "parts"], help=only)
    add("--store", type=Path, default=STORE, help="folder for results; default: %(default)s")
    args = parser.parse_args(argv)
    folder, wanted = new_folder(args.store, "latest"), args.only or [*TABLES, "parts"]
    scale = Scale(args.quick, folder)
    began, driver, load = time.monotonic(), time.process_time(), os.getloadavg()[0]
    found: Row = {
        "revision": revision(), "began": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(), "cores": os.cpu_count(),
        "tables": {}, "parts": [], "problems": [],
    }  # fmt: skip
    for name in (name for name in TABLES if name in wanted):
        rows: list[Row] = []
        try:
            rows.extend(TABLES[name](scale))
        except NodeEnded as error:  # go on with the other tables
            found["problems"].append(f"{name}: {error}")
            print(found["problems"][-1])
        if name not in ("grid", "pythons"):  # these have the ratio to the bare loop instead
            rows = [growth(row, rows[0]) | row for row in rows]
        rows = rounded(rows)
        found["tables"][name] = {"title": title(name), "rows": rows}
        print(table(title(name), rows), end="\n\n", flush=True)
    if "parts" in wanted:
        found["parts"] = rounded([*parts(scale)])
        print(pairs_table(found["parts"]), end="\n\n", flush=True)
    seconds = time.monotonic() - began
    found |= {
        "seconds": seconds, "driver_percent": (time.process_time() - driver) / seconds * 100,
        "load": [load, os.getloadavg()[0]],
    }  # fmt: skip
    print(
        f"{found['revision']}: took {seconds:.0f} s; the driver was busy for "
        f"{found['driver_percent']:.0f} %; load {load:.1f} before, {found['load'][1]:.1f} after"
    )
    save(folder / "bench.json", found)
    print(folder / "bench.json")
    write_page(folder)


if __name__ == "__main__":
    sys.exit(run("bench", main))
