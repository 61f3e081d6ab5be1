#!/usr/bin/env python3
"""`make crashes`: kills, pauses and loads real nodes; checks for lost writes, and measures.

The nodes are processes of raft.py in real time. Each scenario prints its figures with their limits.
The exit status is 1 if a rule was broken. A figure that misses its limit is only marked, since
machines may be shared and noisy; so each scenario also prints the load at its end.

    python3 tests/bench/crashes.py [SCENARIO...]

All scenarios take eight minutes. The limits are meant for larger sizes, which take half an hour:

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
sys.path[:1] = [str(ROOT), str(ROOT / "tests")]  # else bench.py would hide `bench`

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

# A node that takes checkpoints often and compacts its log early, so that crashes often hit these
# moments. It prints the start and the end of each checkpoint and of each installed snapshot.
TELLING = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import raft

raft.CHECKPOINT_BYTES = raft.KEPT_BYTES = 200_000
raft.KEPT_ENTRIES = 0

def telling(owner, name, begin, end):
    method = getattr(owner, name)
    def told(*args, **words):
        if begin:
            print(begin, file=sys.stderr, flush=True)
        result = method(*args, **words)
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
WIPED_CLIENTS = 6  # fewer, since the checker needs few unknown outcomes for each key
WRITTEN_KEYS = 1000  # number of keys in the scenario `memory`
MIB = 1 << 20


def durable(folder: Path, command: Sequence[str] = RAFT) -> list[str]:
    """Returns the command of a node that keeps its state in a folder."""
    return [*command, "--data-dir", str(folder)]


@contextmanager
def temporary() -> Iterator[Path]:
    """Creates a temporary folder for the nodes' files."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def drive(nodes: Cluster, lines: Iterable[bytes], clients: int, by: Sequence[str] = ()) -> float:
    """Sends lines in rounds, one for each client, spread over the nodes; returns the seconds."""
    lines, node_ids = iter(lines), by or nodes.ids
    start = time.perf_counter()
    while batch := list(islice(lines, clients)):  # one of each client: it waits for its reply
        for n, node_id in enumerate(node_ids):
            nodes.write(node_id, b"".join(batch[n :: len(node_ids)]))
        under_way = len(batch)
        while under_way:
            under_way -= len(nodes.route())
    return time.perf_counter() - start


def writes(first: int, end: int, keys: int, clients: int) -> Iterator[bytes]:
    """Yields lines that write each number from `first` to `end` - 1 to one of the keys."""
    for n in range(first, end):
        body = {"type": "write", "key": n % keys, "value": n, "msg_id": n + 1}
        yield message(n % clients, body)


# Scenarios


class Killer:
    """Kills nodes of a bench, and records what each kill interrupted."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.kills = 0
        self.hit: Counter[str] = Counter()  # kills during a checkpoint or an installation
        self.forgetful: set[str] = set()  # killed nodes that are not readmitted yet
        self._about: dict[str, set[str]] = {node_id: set() for node_id in bench.node_ids}
        self._listen, bench.on_stderr = bench.on_stderr, self._hear  # type: ignore[method-assign]

    def _hear(self, node_id: str, line: str) -> None:
        if found := BEGINS.match(line):
            self._about[node_id].add(found[1])
        elif line in ENDS:
            self._about[node_id].discard(ENDS[line])
        else:
            if line.startswith("Traceback"):
                self.bench.report.breaks("traceback", f"of {node_id}")
            if ", a member: " in line:
                self.forgetful.discard(node_id)
            self._listen(node_id, line)

    def wait_for(self, node_id: str, what: str) -> None:
        """Waits until a node starts `what`, but at most a second: it may never do so."""
        end = self.bench.loop.now() + SECOND
        self.bench.loop.at(end, lambda: None)
        now = self.bench.loop.now
        self.bench.loop.run_until(lambda: what in self._about[node_id] or now() >= end)

    def wait_for_returns(self) -> None:
        """Waits until all killed nodes are readmitted."""
        self.bench.wait(lambda: not self.forgetful, "return")

    def kill(self, node_id: str) -> None:
        self.bench.nodes.kill(node_id)
        self.forgetful.add(node_id)
        self.kills += 1
        self.hit.update(self._about[node_id])
        self._about[node_id].clear()

    def restart(self, node_ids: Sequence[str]) -> set[str]:
        """Restarts nodes and sends init; returns the shrinking set of nodes without init_ok."""
        for node_id in node_ids:
            self.bench.nodes.start(node_id, self.bench)
        return self.bench.send_init(node_ids)


def rounds(report: Report, args: argparse.Namespace) -> None:
    """Kills nodes under load and restarts them with their stored state: is a write lost?

    Kills come at random moments, or while a node takes a checkpoint or installs a snapshot.
    """
    kill_again_and_again(report, args.rounds, remember=True)


def returns(report: Report, args: argparse.Namespace) -> None:
    """Kills a minority of nodes that store nothing, once all are readmitted: is a write lost?"""
    kill_again_and_again(report, args.rounds, remember=False)


def kill_again_and_again(report: Report, rounds: int, remember: bool) -> None:
    """Runs rounds of kills with three nodes and with five, and reports their effects."""
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
    hits = ", ".join(f"{number} during {what}" for what, number in sorted(hit.items()))
    report.line(f"  {kills} kills in {len(back)} rounds: {hits}; {operations:,} operations")
    report.line(f"  all nodes serve again after {statistics.median(back):.3f} s (median)")
    report.limit("rounds, until all nodes serve again, max", max(back), 5, "s")
    lost = sum(report.broken.values())
    report.limit("rounds, rules broken: lost, stale or twice", lost, 0, "")


def one_round(bench: Bench, killer: Killer, target: str) -> float:
    """Kills and restarts nodes; returns the seconds until every node has served a write."""
    rng = bench.rng
    bench.new_keys()
    victims = rng.sample(bench.node_ids, target_size(target, len(bench.node_ids)))
    what = rng.choice(["", "checkpoint", "install"])
    bench.run(rng.uniform(0.1, 0.4))
    if what == "install":  # a node that was away for so long that it needs a snapshot
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


def files(folder: Path, node_id: str) -> list[Path]:
    """Returns a node's files: its database, SQLite's -wal file, and the count of commits."""
    return sorted(folder.glob(f"{node_id}.*"))


def replace_files(folder: Path, node_id: str, copy: Path | None = None) -> None:
    """Removes a node's files. With a folder `copy`, copies of them take their place."""
    for file in files(folder, node_id):
        file.unlink()
    for file in files(copy, node_id) if copy else []:
        shutil.copy(file, folder)


def wiped(report: Report, args: argparse.Namespace) -> None:
    """Kills a node, removes its files, and once it is readmitted kills another: is a write lost?

    Then the readmitted node is needed for a majority. How long until the two nodes serve?
    """
    times: list[tuple[float, float]] = []
    roles: Counter[str] = Counter()
    with temporary() as folder:
        command = durable(folder, [sys.executable, "-c", TELLING])
        with running(report, command=command) as bench:
            killer = Killer(bench)
            bench.closed_loop(WIPED_CLIENTS)
            for _ in range(args.rounds):
                times.append(one_wipe(bench, killer, folder, roles))
            bench.rest()
            shown = ", ".join(f"{count} times {what}" for what, count in sorted(roles.items()))
            report.line(f"  {len(bench.answers):,} operations; {shown}")
    readmitted, served = zip(*times, strict=True)
    report.line(
        f"  median: a wiped node is readmitted after {statistics.median(readmitted):.3f} s, "
        f"and two nodes serve after {statistics.median(served):.3f} s"
    )
    report.limit("wiped, until the node is readmitted, max", max(readmitted), 5, "s")
    report.limit("wiped, until two nodes serve, max", max(served), 2, "s")
    lost = sum(report.broken.values())
    report.limit("wiped, rules broken: lost, stale or twice", lost, 0, "")


def one_wipe(
    bench: Bench, killer: Killer, folder: Path, roles: Counter[str]
) -> tuple[float, float]:
    """Wipes a node and then kills another; returns how long until readmitted, and until served.

    Counts the roles of the wiped node and of the killed node.
    """
    rng, now = bench.rng, bench.loop.now
    bench.new_keys()
    bench.run(rng.uniform(0.1, 0.4))
    empty = rng.choice(bench.node_ids)
    full = rng.choice(bench.others(empty))
    roles["the leader wiped" if empty == bench.leader else "a follower wiped"] += 1
    killer.kill(empty)
    replace_files(folder, empty)
    bench.run(rng.choice([0, rng.uniform(0, 0.6)]))
    start = now()
    killer.restart([empty])
    killer.wait_for_returns()
    readmitted = (now() - start) / SECOND
    roles["then the leader killed" if full == bench.leader else "then a follower killed"] += 1
    start = now()
    killer.kill(full)
    killer.forgetful.discard(full)  # it keeps its files
    served = bench.until_written(bench.others(full), everywhere=True)
    if served > 2:
        bench.report.line(f"  {empty} was wiped, then {full} was killed:")
        bench.lines_since(start)
    bench.run(rng.uniform(0, 0.3))  # now reads find what is lost
    waiting = killer.restart([full])
    bench.wait(lambda: not waiting, "init_ok")
    bench.until_written(bench.node_ids, everywhere=True)
    return readmitted, served


def older(report: Report, args: argparse.Namespace) -> None:
    """Gives a follower an older copy of its files: does the leader's log say so?

    Nothing can heal that, so the clients end before it.
    """
    found = [one_older(report) for _ in range(max(1, args.rounds // 20))]
    report.line(f"  {len(found)} trials, the leader says so after {statistics.median(found):.3f} s")
    report.limit("older, until the leader says so, max", max(found), 5, "s")


def one_older(report: Report) -> float:
    """Returns the seconds from the restart with an older copy until the leader's line."""
    with (
        temporary() as folder,
        temporary() as copy,
        running(report, command=durable(folder)) as bench,
    ):
        killer = Killer(bench)
        follower = bench.rng.choice(bench.others(bench.leader))
        killer.kill(follower)
        for file in files(folder, follower):
            shutil.copy(file, copy)
        waiting = killer.restart([follower])
        bench.wait(lambda: not waiting, "init_ok")
        bench.closed_loop(WIPED_CLIENTS)
        bench.run(1)
        bench.until_written([follower])
        bench.rest()
        killer.kill(follower)
        replace_files(folder, follower, copy)
        start = bench.loop.now()
        killer.restart([follower])
        text = f": leader, {follower} has lost entries after"
        bench.wait(
            lambda: any(text in line for said, line in bench.said if said >= start),
            f"line of the leader that {follower} has lost entries",
        )
        return (bench.loop.now() - start) / SECOND


def resident(pid: int) -> float:
    """Returns the memory of a process in MiB (proc(5): VmRSS)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def memory(report: Report, args: argparse.Namespace) -> None:
    """Sends many writes to few keys: do the nodes' memory and files stay small?"""
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
        report.line(
            f"  {kind}: {args.writes:,} writes at {rate}; "
            f"MiB of each node after {first:,} writes and at the end: {shown}"
        )
        growth = max(b / a for a, b in zip(*found, strict=True))
        report.limit(f"memory, {kind}, growth, max", growth * 100 - 100, 10, "%")
        report.limit(f"memory, {kind}, max", max(map(max, found)), 150, "MiB")
        if files:
            report.limit("memory, file with its -wal", sum(files), 100, "MiB")


def costs(report: Report, args: argparse.Namespace) -> None:
    """Compares durable nodes with nodes in memory: throughput and syncs, 3 nodes, 100 clients."""
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
            report.line(f"  {kind}: syncs are not counted, because strace is not installed")


def synced(run: Callable[[list[str]], object]) -> list[int]:
    """Counts the calls of fsync and fdatasync by each node of a run, with strace."""
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
    """Pauses the leader for 5 s: does it serve stale reads when it continues?

    Reads are waiting when the leader continues, and more follow.
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
            for _ in range(150):  # the node first drops requests that may be past their time-out
                bench.ask(old, "read", reads.append)
                bench.run(0.01)
            if report.broken["late"] > late:
                report.line(f"  late replies after {old} continued:")
                bench.lines_since(moment)
            if bench.leader == old:
                report.line(f"  {old} still leads: no other node was elected")
        bench.rest()
        bench.until_written(bench.node_ids, everywhere=True)
    told = Counter(str(answer.error_name or answer.type) for answer in reads)
    report.line(f"  {args.trials} trials, {len(reads):,} reads just after SIGCONT: {dict(told)}")
    report.limit("paused, stale reads", report.broken["stale"], 0, "")
    report.limit("paused, late replies", report.broken["late"], 0, "")


def away(report: Report, args: argparse.Namespace) -> None:
    """Pauses or kills a follower with many keys, while the other nodes serve many writes.

    How long do their clients wait, and how long does the follower take to catch up?
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
            report.line(f"  all nodes serve {seconds:.3f} s after the last init_ok")
            for how in ("stopped", "killed"):
                be_away(bench, report, how, args.away_writes)


def know(bench: Bench, node_id: str) -> float:
    """Sends init to a node; returns the seconds to init_ok, which include loading its state."""
    start = bench.loop.now()
    waiting = bench.send_init([node_id])
    bench.wait(lambda: not waiting, f"init_ok of {node_id}")
    return (bench.loop.now() - start) / SECOND


def be_away(bench: Bench, report: Report, how: str, count: int) -> None:
    """Pauses or kills a follower until the others have served `count` writes; then it returns."""
    follower, *_ = others = bench.others(bench.leader)
    others = bench.others(follower)
    for number in range(CLIENTS):
        bench.keep_asking(others[number % 2], "write")
    work(bench, len(bench.answers) + count // 5)  # includes the election, in the first second
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
        report.limit(f"away, {how}, restart to init_ok", seconds, 6, "s")
    bench.until_written([follower])
    seconds = (bench.loop.now() - moment) / SECOND
    report.line(f"= away, {how}: the follower serves {seconds:.3f} s after its return")
    caught_up = re.compile(f"{follower} term .*: follower of .*, with its state up to")
    try:
        bench.wait(
            lambda: any(said >= moment and caught_up.match(line) for said, line in bench.said),
            f"snapshot in {follower}",
        )
    finally:
        bench.lines_since(moment)
    seconds = (bench.loop.now() - moment) / SECOND
    report.line(f"= away, {how}: the follower has caught up {seconds:.3f} s after its return")
    longest(bench, report, f"{how}, while it catches up", others, moment)
    bench.rest()


def work(bench: Bench, until: int) -> None:
    """Runs the clients until there are `until` replies."""
    while len(bench.answers) < until:
        bench.new_keys()
        bench.run(0.5)


def longest(bench: Bench, report: Report, what: str, node_ids: Sequence[str], since: int) -> None:
    """Reports the longest operation at some nodes since a moment."""
    answers = [a for a in bench.answers if a.node_id in node_ids and a.asked >= since]
    worst = max(answers, key=lambda answer: answer.seconds)
    served = sum(answer.served for answer in answers)
    rate = len(answers) * SECOND / (bench.loop.now() - since)
    report.line(f"  {what}: {served:,} of {len(answers):,} served, {rate:,.0f}/s")
    report.limit(f"away, {what}, longest", worst.seconds * 1000, 200, "ms")


SCENARIOS: Mapping[str, Callable[[Report, argparse.Namespace], None]] = {
    "rounds": rounds,
    "returns": returns,
    "wiped": wiped,
    "older": older,
    "memory": memory,
    "costs": costs,
    "away": away,
    "paused": paused,
}


def main() -> None:
    """Runs the named scenarios, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("scenarios", metavar="SCENARIO", nargs="*", help=", ".join(SCENARIOS))
    for option, number, meaning in (
        ("--rounds", 100, "rounds of kills in `rounds`, `returns` and `wiped`"),
        ("--writes", 400_000, "writes in `memory`"),
        ("--requests", 30_000, "requests in each run of `costs`"),
        ("--keys", 200_000, "keys in `away`"),
        ("--away-writes", 40_000, "writes in `away`, while the follower is away"),
        ("--trials", 10, "trials of `paused`"),
    ):
        add(option, type=int, default=number, help=f"{meaning} (default: %(default)s)")
    args = parser.parse_args()
    names = args.scenarios or list(SCENARIOS)
    if unknown := set(names) - SCENARIOS.keys():
        parser.error(
            f"unknown scenario: {', '.join(sorted(unknown))}; choose from {', '.join(SCENARIOS)}"
        )
    gc.disable()  # with this many objects, a collection would delay the clients noticeably
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
        report.line(f"  took {time.perf_counter() - start:.0f} s; load of the machine: {load}")
    broken = ", ".join(f"{rule} {count:,} times" for rule, count in report.broken_in_all.items())
    report.line(f"rules broken: {broken or 'none'}")
    raise SystemExit(1 if broken else 0)


if __name__ == "__main__":
    main()
