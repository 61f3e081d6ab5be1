#!/usr/bin/env python3
"""`make crashes`: real nodes are killed, stopped and loaded; what is lost, and what it costs.

Nodes are processes of raft.py in real time. A scenario prints its figures with the limits that
are wanted. The exit status is 1 if a rule was broken; a figure that misses its limit is only
marked, for these machines are shared and noisy: the load at the end of a scenario is printed too.

    python3 tests/bench/crashes.py [SCENARIO...]

It takes six minutes. The sizes that the limits are meant for take half an hour:

    --writes 2000000 --keys 1000000 --away-writes 100000 --trials 200
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:1] = [str(ROOT), str(ROOT / "tests")]  # `bench` is the folder, not the file in it

from bench.directed import (  # noqa: E402  (needs the path above)
    Answer,
    Bench,
    Report,
    Stuck,
    cluster,
    running,
)
from bench.driver import RAFT, Cluster, message, requests  # noqa: E402
from workbench.network.nemesis import target_size  # noqa: E402
from workbench.units import SECOND  # noqa: E402

# A node that stores its state often, forgets its log soon, and tells when it does what a crash
# might spoil: so that crashes hit these moments, which are short and rare otherwise.
TELLING = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import raft

raft.CHECKPOINT_BYTES = raft.KEPT_BYTES = 200_000
raft.KEPT_ENTRIES = 0

def telling(owner, name, begin, end):
    method = getattr(owner, name)
    def told(*args):
        if begin:
            print(begin, file=sys.stderr, flush=True)
        result = method(*args)
        if end:
            print(end, file=sys.stderr, flush=True)
        return result
    setattr(owner, name, told)

telling(raft.Storage, "_checkpoint", "checkpoint begins", "")
telling(raft.Storage, "_save", "", "saved")
telling(raft.Raft, "install_snapshot", "install begins", "")
telling(raft.Raft, "install", "", "installed")
raft.main()
"""
BEGINS = re.compile("(checkpoint|install) begins")
ENDS = {"saved": "checkpoint", "installed": "install"}
CLIENTS = 10
WRITTEN_KEYS = 1000  # of `memory`
MIB = 1 << 20


def durable(folder: Path, command: Sequence[str] = RAFT) -> list[str]:
    """The command of a node that keeps its state in that folder."""
    return [*command, "--data-dir", str(folder)]


@contextmanager
def temporary() -> Iterator[Path]:
    """A folder for the nodes' files."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def drive(nodes: Cluster, lines: Iterable[bytes], clients: int, by: Sequence[str] = ()) -> float:
    """Sends the lines in a closed loop of so many clients, spread over nodes; seconds it took."""
    lines, free, under_way = iter(lines), clients, 0
    node_ids = by or nodes.ids
    start = time.perf_counter()
    while batch := list(islice(lines, free)) or under_way:
        if isinstance(batch, list):
            for n, node_id in enumerate(node_ids):
                nodes.write(node_id, b"".join(batch[n :: len(node_ids)]))
            under_way += len(batch)
        free = len(nodes.route())
        under_way -= free
    return time.perf_counter() - start


def writes(first: int, end: int, keys: int, clients: int) -> Iterator[bytes]:
    """Lines that write each number from first on to one of so many keys."""
    for n in range(first, end):
        body = {"type": "write", "key": n % keys, "value": n, "msg_id": n + 1}
        yield message(n % clients, body)


# Scenarios


class Killer:
    """Kills nodes of a bench, and knows what they were about."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.kills = 0
        self.hit: Counter[str] = Counter()  # kills that interrupted something
        self.forgetful: set[str] = set()  # killed, and not said since then that they take part
        self._about: dict[str, set[str]] = {node_id: set() for node_id in bench.node_ids}
        self._listen, bench.on_stderr = bench.on_stderr, self._hear  # type: ignore[method-assign]

    def _hear(self, node_id: str, line: str) -> None:
        if found := BEGINS.match(line):
            self._about[node_id].add(found[1])
        elif line in ENDS:
            self._about[node_id].discard(ENDS[line])
        else:
            if line.endswith(", takes part"):
                self.forgetful.discard(node_id)
            self._listen(node_id, line)

    def wait_for(self, node_id: str, what: str) -> None:
        """Waits until a node begins with it; not for long, for it may have no reason to."""
        end = self.bench.loop.now() + SECOND
        self.bench.loop.at(end, lambda: None)
        now = self.bench.loop.now
        self.bench.loop.run_until(lambda: what in self._about[node_id] or now() >= end)

    def wait_for_returns(self) -> None:
        """Waits until all that have forgotten what they knew take part again."""
        self.bench.wait(lambda: not self.forgetful, "return")

    def kill(self, node_id: str) -> None:
        self.bench.nodes.kill(node_id)
        self.forgetful.add(node_id)
        self.kills += 1
        self.hit.update(self._about[node_id])
        self._about[node_id].clear()

    def restart(self, node_ids: Sequence[str]) -> set[str]:
        """Starts them again; returns who does not know who it is yet."""
        for node_id in node_ids:
            self.bench.nodes.start(node_id, self.bench)
        return self.bench.send_init(node_ids)


def rounds(report: Report, args: argparse.Namespace) -> None:
    """SIGKILL under load, and a new start with what was stored: is anything lost?

    At random moments, or while a node stores a checkpoint or takes a snapshot.
    """
    kill_again_and_again(report, args.rounds, remember=True)


def returns(report: Report, args: argparse.Namespace) -> None:
    """SIGKILL of minorities that remember nothing; when they have returned, again: what is lost?"""
    kill_again_and_again(report, args.rounds, remember=False)


def kill_again_and_again(report: Report, rounds: int, remember: bool) -> None:
    """Rounds of kills with three nodes and with five, and what they did."""
    back: list[float] = []
    kills, hit = 0, Counter[str]()
    operations = 0
    targets = ("one", "minority", "majority", "all") if remember else ("one", "minority")
    for count, share in ((3, rounds - rounds // 2), (5, rounds // 2)):
        with temporary() as folder:
            telling = [sys.executable, "-c", TELLING]
            command = durable(folder, telling) if remember else telling
            with running(report, count, command=command) as bench:
                killer = Killer(bench)
                bench.closed_loop(CLIENTS)
                for number in range(share):
                    back.append(one_round(bench, killer, targets[number % len(targets)]))
                    if not remember:
                        killer.wait_for_returns()
                bench.rest()
                operations += len(bench.answers)
        kills += killer.kills
        hit += killer.hit
    hits = ", ".join(f"{number} within {what}" for what, number in sorted(hit.items()))
    report.line(f"  {kills} kills in {len(back)} rounds: {hits}; {operations:,} operations")
    report.line(f"  all serve again after {statistics.median(back):.3f} s, median")
    report.limit("rounds, until all serve again, max", max(back), 5, "s")
    lost = sum(report.broken.values())
    report.limit("rounds, rules broken: lost, stale or twice", lost, 0, "")


def one_round(bench: Bench, killer: Killer, target: str) -> float:
    """Kills nodes, starts them again: seconds until each of all nodes has served a write."""
    rng = bench.rng
    bench.new_keys()
    victims = rng.sample(bench.node_ids, target_size(target, len(bench.node_ids)))
    what = rng.choice(["", "checkpoint", "install"])
    bench.run(rng.uniform(0.1, 0.4))
    if what == "install":  # one that was away for longer than the log is kept
        killer.kill(victims[0])
        bench.run(0.5)
        killer.restart(victims[:1])
    if what:
        killer.wait_for(victims[0], what)
        bench.run(rng.choice([0, rng.uniform(0, 0.004)]))
    for node_id in victims:
        killer.kill(node_id)
    bench.run(rng.choice([0, rng.uniform(0, 0.6)]))
    start = bench.loop.now()
    waiting = killer.restart(victims)
    bench.wait(lambda: not waiting, "init_ok")
    bench.until_written(bench.node_ids, everywhere=True)
    seconds = (bench.loop.now() - start) / SECOND
    if seconds > 5:
        bench.report.line(f"  {target} of {len(bench.node_ids)} nodes: {victims} {what}")
        bench.lines_since(start)
    return seconds


def resident(pid: int) -> float:
    """MiB of memory that a process has (proc(5): VmRSS)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def memory(report: Report, args: argparse.Namespace) -> None:
    """Many writes to few keys: do the nodes' memory and files stay as they are?"""
    first = args.writes // 10
    for kind in ("in memory", "durable"):
        with temporary() as folder:
            nodes = Cluster(RAFT if kind == "in memory" else durable(folder), 3)
            found: list[list[float]] = []
            seconds = 0.0
            for start, end in ((0, first), (first, args.writes)):
                seconds += drive(nodes, writes(start, end, WRITTEN_KEYS, 100), 100)
                found.append([resident(node.pid) for node in nodes.processes.values()])
            files = [file.stat().st_size / MIB for file in sorted(folder.glob("n0.db*"))]
            nodes.end()
        shown = ", ".join(f"{a:.1f} to {b:.1f}" for a, b in zip(*found, strict=True))
        rate = f"{args.writes / seconds:,.0f} writes/s"
        report.line(f"  {kind}: {args.writes:,} writes at {rate}; MiB from {first:,}: {shown}")
        growth = max(b / a for a, b in zip(*found, strict=True))
        report.limit(f"memory, {kind}, growth, max", growth * 100 - 100, 10, "%")
        report.limit(f"memory, {kind}, max", max(map(max, found)), 150, "MiB")
        if files:
            report.limit("memory, file with its -wal", sum(files), 100, "MiB")


def costs(report: Report, args: argparse.Namespace) -> None:
    """Durable against in memory, 3 nodes, 100 clients: operations a second, and syncs."""
    for kind in ("half reads", "writes"):
        pairs = []

        def rate(command: list[str], kind: str = kind) -> float:
            nodes = Cluster(command, 3)
            count: int = args.requests
            lines = requests(count, 100) if kind == "half reads" else writes(0, count, 1000, 100)
            seconds = drive(nodes, lines, 100)
            nodes.end()
            return count / seconds

        for _ in range(5):
            with temporary() as folder:
                pairs.append((rate(RAFT), rate(durable(folder))))
        fast, slow = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(slow / fast for fast, slow in pairs)
        report.line(f"  {kind}: {fast:,.0f}/s in memory, {slow:,.0f}/s durable")
        report.limit(f"costs, {kind}, in memory / durable", 1 / ratio, 1 / 0.6, "")
        if shutil.which("strace"):
            syncs = synced(rate)
            each = [count / args.requests for count in syncs]
            shown = ", ".join(f"{number:.4f}" for number in each)
            report.line(f"  {kind}: fdatasync an operation, by node (strace): {shown}")
            report.limit(f"costs, {kind}, syncs an operation, a node", max(each), 0.1, "")
        else:
            report.line(f"  {kind}: no strace, so syncs are not counted")


def synced(run: Callable[[list[str]], object]) -> list[int]:
    """How often each node of a run has waited for the disk, as strace counts."""
    with temporary() as folder:
        trace = f'exec strace -f -c -e trace=fsync,fdatasync -o {folder}/$$.strace "$@"'
        run(["sh", "-c", trace, "sh", *durable(folder)])
        return [
            sum(
                int(line.split()[3])
                for line in file.read_text().splitlines()
                if line.endswith("sync")
            )
            for file in folder.glob("*.strace")
        ]


def paused(report: Report, args: argparse.Namespace) -> None:
    """The leader is stopped for 5 s; when it goes on, does it still answer reads by itself?

    It has reads before it at once, for they have waited, and more follow.
    """
    reads: list[Answer] = []
    with temporary() as folder, running(report, command=durable(folder)) as bench:
        bench.closed_loop(6)
        for _ in range(args.trials):
            bench.new_keys()
            bench.run(0.5)
            old = bench.leader
            bench.nodes.signal(old, signal.SIGSTOP)
            bench.run(5)
            for _ in range(20):
                bench.ask(old, "read", reads.append)
            bench.nodes.signal(old, signal.SIGCONT)
            moment, late = bench.loop.now(), report.broken["late"]
            for _ in range(150):  # it is silent at first: what has waited may be too old to answer
                bench.ask(old, "read", reads.append)
                bench.run(0.01)
            if report.broken["late"] > late:
                report.line(f"  late answers after {old} went on:")
                bench.lines_since(moment)
            if bench.leader == old:
                report.line(f"  {old} still leads: nobody took its place")
        bench.rest()
        bench.until_written(bench.node_ids, everywhere=True)
    told = Counter(str(answer.error_name or answer.type) for answer in reads)
    report.line(f"  {args.trials} trials, {len(reads):,} reads just after SIGCONT: {dict(told)}")
    report.limit("paused, stale reads", report.broken["stale"], 0, "")
    report.limit("paused, late answers", report.broken["late"], 0, "")


def away(report: Report, args: argparse.Namespace) -> None:
    """With many keys, a follower is stopped, or killed, while the others take many writes.

    How long do the others' clients wait, and how long does it take until it is as they are?
    """
    with temporary() as folder:
        nodes = Cluster(durable(folder), 3)
        seconds = drive(nodes, writes(0, args.keys, args.keys, 1000), 1000)
        nodes.end()
        size = sum(file.stat().st_size for file in folder.glob("n0.db*")) / MIB
        report.line(f"  {args.keys:,} keys loaded in {seconds:.1f} s, {size:.0f} MiB a file")
        with cluster(report, command=durable(folder)) as bench:
            for node_id in bench.node_ids:
                report.limit(f"away, start of {node_id}, to init_ok", know(bench, node_id), 6, "s")
            seconds = bench.until_written(bench.node_ids, everywhere=True)
            report.line(f"  all serve {seconds:.3f} s after the last one's init_ok")
            for how in ("stopped", "killed"):
                be_away(bench, report, how, args.away_writes)


def know(bench: Bench, node_id: str) -> float:
    """Tells a node who it is: seconds until it knows, and what it has stored."""
    start = bench.loop.now()
    waiting = bench.send_init([node_id])
    bench.wait(lambda: not waiting, f"init_ok of {node_id}")
    return (bench.loop.now() - start) / SECOND


def be_away(bench: Bench, report: Report, how: str, count: int) -> None:
    """One follower is away until the others have taken so many writes; then it comes back."""
    follower, *_ = others = bench.others(bench.leader)
    others = bench.others(follower)
    for number in range(CLIENTS):
        bench.keep_asking(others[number % 2], "write")
    work(bench, len(bench.answers) + count // 5)  # the first second is for electing
    longest(bench, report, f"{how}, before, with checkpoints", others, bench.loop.now() - SECOND)
    if how == "stopped":
        bench.nodes.signal(follower, signal.SIGSTOP)
    else:
        bench.nodes.kill(follower)
    moment = bench.loop.now()
    work(bench, len(bench.answers) + count)
    longest(bench, report, f"{how}, while it is away", others, moment)
    moment = bench.loop.now()
    if how == "stopped":
        bench.nodes.signal(follower, signal.SIGCONT)
    else:
        bench.nodes.start(follower, bench)
        seconds = know(bench, follower)
        report.limit(f"away, {how}, new start to init_ok", seconds, 6, "s")
    bench.until_written([follower])
    seconds = (bench.loop.now() - moment) / SECOND
    report.line(f"= away, {how}: it serves {seconds:.3f} s after it came back")
    caught_up = re.compile(f"{follower} term .*: follower of .*, with its state up to")
    try:
        bench.wait(
            lambda: any(said >= moment and caught_up.match(line) for said, line in bench.said),
            f"snapshot in {follower}",
        )
    finally:
        bench.lines_since(moment)
    seconds = (bench.loop.now() - moment) / SECOND
    report.line(f"= away, {how}: it has caught up {seconds:.3f} s after it came back")
    longest(bench, report, f"{how}, while it catches up", others, moment)
    bench.rest()


def work(bench: Bench, until: int) -> None:
    """Lets the clients work until there are so many answers."""
    while len(bench.answers) < until:
        bench.new_keys()
        bench.run(0.5)


def longest(bench: Bench, report: Report, what: str, node_ids: Sequence[str], since: int) -> None:
    """The longest operation of the clients of some nodes since then."""
    answers = [a for a in bench.answers if a.node_id in node_ids and a.asked >= since]
    worst = max(answers, key=lambda answer: answer.seconds)
    served = sum(answer.served for answer in answers)
    rate = len(answers) * SECOND / (bench.loop.now() - since)
    report.line(f"  {what}: {served:,} of {len(answers):,} served, {rate:,.0f}/s")
    report.limit(f"away, {what}, longest", worst.seconds * 1000, 200, "ms")


SCENARIOS: Mapping[str, Callable[[Report, argparse.Namespace], None]] = {
    "rounds": rounds,
    "returns": returns,
    "memory": memory,
    "costs": costs,
    "away": away,
    "paused": paused,
}


def main() -> None:
    """Runs the scenarios that are named, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("scenarios", metavar="SCENARIO", nargs="*", help=", ".join(SCENARIOS))
    add("--rounds", type=int, default=100, help="of kills (default: %(default)s)")
    add("--writes", type=int, default=400_000, help="of memory (default: %(default)s)")
    add("--requests", type=int, default=30_000, help="of one run of costs (default: %(default)s)")
    add("--keys", type=int, default=200_000, help="of away (default: %(default)s)")
    add("--away-writes", type=int, default=40_000, help="of away (default: %(default)s)")
    add("--trials", type=int, default=10, help="of paused (default: %(default)s)")
    args = parser.parse_args()
    names = args.scenarios or list(SCENARIOS)
    if unknown := set(names) - SCENARIOS.keys():
        parser.error(f"no scenario {', '.join(sorted(unknown))}: there are {', '.join(SCENARIOS)}")
    gc.disable()  # with so many operations remembered, a collection is a pause that clients feel
    report = Report()
    for name in names:
        what, *_ = str(SCENARIOS[name].__doc__).splitlines()
        report.begin(f"{name}: {what}")
        start = time.perf_counter()
        try:
            SCENARIOS[name](report, args)
        except Stuck as stuck:
            report.breaks("stuck", f"{name}: {stuck}")
        load = ", ".join(f"{number:.1f}" for number in os.getloadavg())
        report.line(f"  {time.perf_counter() - start:.0f} s; load of the machine: {load}")
    broken = ", ".join(f"{rule} {count:,} times" for rule, count in report.broken_in_all.items())
    report.line(f"rules broken: {broken or 'none'}")
    raise SystemExit(1 if broken else 0)


if __name__ == "__main__":
    main()
