"""The options of `./maelstrom test`, with Maelstrom's names and defaults."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from ..network.nemesis import FAULTS, JEPSEN_KINDS, KINDS, ONLY_SIMULATED, TARGETS
from ..record import store
from ..workloads import WORKLOADS
from ..workloads.topology import TOPOLOGIES
from ..workloads.workload import Settings

DESCRIPTION = """\
Tests a Maelstrom binary as the real Maelstrom does, but without a JVM. The results are in
store/latest. Exit status: 0 valid, 1 invalid, 2 unknown, 255 the test could not be run.
Set MAELSTROM_REPORT=no to skip report.html and messages.jsonl.
The real Maelstrom has no options marked with *.
In the arguments for the binary, {run} stands for the folder of the run: -- --data-dir {run}/data
"""
MOST = 1e9  # largest number of an option: 30 years in seconds
MOST_NODES = 250  # a node takes 4 open files, and a run can have 1,024 (loop.MOST_FILES)
NODES = 5
MOST_CLIENTS = 10_000
CONCURRENCY = "1n"
LONG = 100  # characters of a wrong number in an error text
CRASHED = 255
# En dash, em dash and minus sign. Web pages and word processors put them in the place of hyphens.
LONG_DASHES = "\u2013\u2014\u2212"


@dataclass(frozen=True)
class Options:
    """The options of a test; times are in seconds, latency is in ms."""

    workload: str
    bin: Path
    node_count: int
    time_limit: float
    rate: float
    concurrency: int
    latency: float
    latency_dist: str
    nemesis: tuple[str, ...]
    nemesis_interval: float
    nemesis_rest: float
    partition_kinds: tuple[str, ...]
    kill_targets: tuple[str, ...]
    wipe: float
    loss: float
    duplicate: float
    independent_delivery: bool
    availability: float | None
    log_stderr: bool
    log_net_send: bool
    log_net_recv: bool
    test_count: int
    strict: bool
    simulate: bool
    constants: dict[str, float]
    seed: int
    args: tuple[str, ...]
    command: tuple[str, ...] = ()
    topology: str = Settings.topology
    key_count: int = Settings.key_count
    max_txn_length: int = Settings.max_txn_length
    max_writes_per_key: int = Settings.max_writes_per_key
    consistency_models: tuple[str, ...] = Settings.consistency_models
    first_node: int = 0  # number in the id of the first node
    concurrency_note: str = ""  # says which --concurrency was chosen, if that is not the usual one

    @property
    def node_ids(self) -> list[str]:
        """The nodes' ids: n0, n1, ..., or without --node-count n1 to n5."""
        return [f"n{number + self.first_node}" for number in range(self.node_count)]

    @property
    def settings(self) -> Settings:
        """The options of the workload. Those of `check` alone keep their defaults."""
        names = {field.name for field in fields(Settings)} & {field.name for field in fields(self)}
        return Settings(**{name: getattr(self, name) for name in names})


class Parser(argparse.ArgumentParser):
    """A parser that exits with Maelstrom's status for a test that could not be run."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.print_usage(sys.stderr)
        self.exit(CRASHED, f"{self.prog}: error: {message}\n")


def at_least(least: float) -> Callable[[str], float]:
    """Returns a converter for numbers of at least `least`, up to MOST."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value < math.inf:
            raise argparse.ArgumentTypeError(f"must be a number, {least:g} or more, not {text!r}")
        if value > MOST:
            raise argparse.ArgumentTypeError(f"must be at most {MOST:,.0f}, not {text!r}")
        if 0 < value < 1 / MOST:
            raise argparse.ArgumentTypeError(f"must be 0, or {1 / MOST:g} or more, not {text!r}")
        return value

    return number


def probability(text: str) -> float:
    """Converts a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, not {text!r}")
    return value


def names(known: Collection[str]) -> Callable[[str], tuple[str, ...]]:
    """Returns a converter for comma-separated names."""

    def split(text: str) -> tuple[str, ...]:
        given = tuple(dict.fromkeys(filter(None, text.split(","))))
        if unknown := [name for name in given if name not in known]:
            raise argparse.ArgumentTypeError(
                f"unknown: {', '.join(unknown)}; choose from {', '.join(known)}"
            )
        return given

    return split


def models(text: str) -> tuple[str, ...]:
    """Splits the names of consistency models at commas between blanks, as Maelstrom does."""
    return tuple(text.split(" , "))


def settings(folder: Path) -> Settings:
    """Returns the settings of a recorded run on which its verdict depends, from its command."""
    given = store.option(folder, "--consistency-models")
    return Settings(consistency_models=models(given)) if given else Settings()


def constants(text: str) -> dict[str, float]:
    """Converts comma-separated NAME=NUMBER pairs."""
    try:
        pairs = [item.split("=") for item in filter(None, text.split(","))]
        found = {name: float(number) if "." in number else int(number) for name, number in pairs}
        if all(abs(number) < math.inf for number in found.values()):
            return found
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"must be NAME=NUMBER,NAME=NUMBER, not {text!r}")


def whole(least: int, most: float = math.inf) -> Callable[[str], int]:
    """Returns a converter for whole numbers from `least` to `most`."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            range = f", {least} or more" if most == math.inf else f" from {least} to {most}"
            shown = text if len(text) <= LONG else f"{text[:LONG]}..."
            raise argparse.ArgumentTypeError(f"must be a whole number{range}, not {shown!r}")
        return value

    return number


def parser() -> Parser:
    """Returns the parser of the command line."""
    p = Parser(
        prog="maelstrom test",
        usage="maelstrom test -w WORKLOAD --bin FILE [OPTIONS] [-- ARGUMENTS FOR THE BINARY]",
        description=DESCRIPTION,
        allow_abbrev=False,
    )
    add = p.add_argument
    add("-w", "--workload", choices=WORKLOADS, default="lin-kv", help="default: %(default)s")
    add("--bin", required=True, metavar="FILE", help="path of the binary that runs a node")
    add("--node-count", type=whole(1, MOST_NODES), metavar="N",
        help=f"number of nodes, at most {MOST_NODES}, which are named n0, n1, ...; default: "
        f"{NODES} nodes, n1 to n{NODES}")
    add("--time-limit", type=at_least(0), default=60, metavar="SECONDS",
        help="how long clients start operations; default: %(default)s")
    add("--rate", type=at_least(0), default=5, metavar="N",
        help="operations a second of all clients together; default: %(default)s")
    add("--concurrency", metavar="N",
        help="number of clients, for example 10, or 4n for 4 clients a node; default: "
        f"{CONCURRENCY}; at most {MOST_CLIENTS:,}; lin-kv needs a multiple of 2n, and takes 2n by "
        "default")
    add("--topology", choices=TOPOLOGIES, default=Settings.topology,
        help="neighbours that broadcast suggests to the nodes; default: %(default)s")
    add("--key-count", type=whole(1), default=Settings.key_count, metavar="N",
        help="keys that transactions use at a time; default: %(default)s")
    add("--max-txn-length", type=whole(1), default=Settings.max_txn_length, metavar="N",
        help="maximum number of micro-operations in a transaction; default: %(default)s")
    add("--max-writes-per-key", type=whole(1), default=Settings.max_writes_per_key, metavar="N",
        help="maximum number of writes to a key; then another key takes its place; default: "
        "%(default)s")
    add("--consistency-models", type=models, default=Settings.consistency_models,
        metavar="MODEL[ , MODEL]",
        help="consistency models that the transactions must satisfy; the commas need blanks on "
        f"both sides; default: {Settings.consistency_models[0]}")
    add("--latency", type=at_least(0), default=0, metavar="MS",
        help="mean latency between servers; default: %(default)s")
    add("--latency-dist", choices=("constant", "uniform", "exponential"), default="constant",
        help="default: %(default)s")
    add("--nemesis", type=names(FAULTS), default=(), metavar="FAULTS",
        help=f"faults, comma-separated: {', '.join(FAULTS)}; the real Maelstrom has no loss, "
        f"duplicate and clock; {' and '.join(ONLY_SIMULATED)} needs --simulate; default: none")
    add("--nemesis-rest", type=at_least(0), default=0, metavar="SECONDS",
        help="* extra time between the end of a fault and the next fault of its kind, for nodes "
        "to recover; default: %(default)s")
    add("--nemesis-interval", type=at_least(0.001), default=10, metavar="SECONDS",
        help="average time between two steps of the nemesis; default: %(default)s")
    add("--partition-kinds", type=names(KINDS), default=JEPSEN_KINDS, metavar="KINDS",
        help=f"* comma-separated: {', '.join(KINDS)}; default: the first four, as in Maelstrom")
    add("--kill-targets", type=names(TARGETS), default=TARGETS, metavar="TARGETS",
        help=f"* number of nodes to kill at a time; comma-separated: {', '.join(TARGETS)}; "
        "default: all four")
    add("--wipe", type=probability, default=0.0, metavar="P",
        help="* probability that a kill also removes the files of one of its nodes, those in "
        "--data-dir that begin with its id and a dot; another node loses its files only after this "
        'one has written ", a member: " to stderr, as raft.py does; default: %(default)s')
    add("--loss", type=probability, default=0.03, metavar="P",
        help="* probability that --nemesis loss drops a message between nodes; default: "
        "%(default)s")
    add("--duplicate", type=probability, default=0.03, metavar="P",
        help="* probability that --nemesis duplicate delivers a message between nodes twice; "
        "default: %(default)s")
    add("--independent-delivery", action="store_true",
        help="* deliver messages independently, so that they overtake each other more often; the "
        "real Maelstrom delivers one message at a time to each node")
    add("--availability", metavar="total|FRACTION",
        help="fraction of operations that must be ok for the test to be valid; a cas that finds "
        "another value is not ok")
    add("--log-stderr", action="store_true", help="show what nodes write to stderr")
    add("--log-net-send", action="store_true", help="show messages as they are sent")
    add("--log-net-recv", action="store_true", help="show messages as they are received")
    add("--test-count", type=whole(1), default=1, metavar="N",
        help="maximum number of tests to run, each with the next seed; stops after the first test "
        "that is not valid")
    add("--strict", action="store_true",
        help="* fail the test for what the real Maelstrom lets pass and the bench warns of, such "
        "as malformed replies")
    add("--simulate", action="store_true",
        help="* run the nodes in this process and in virtual time, so that a --seed always gives "
        "the same run; the binary must be a Python program that uses node.py")
    add("--constants", type=constants, default={}, metavar="NAME=NUMBER,...",
        help="* with --simulate: override constants of the binary, for example CHUNK_BYTES=2000")
    add("--seed", type=whole(0), help="* seed of the random numbers; default: a random seed")
    return p  # fmt: skip


def parse(argv: Sequence[str]) -> Options:
    """Parses a command line. A wrong one exits with a message and status 255."""
    argv = list(argv)
    split = argv.index("--") if "--" in argv else len(argv)
    p = parser()
    for word in argv[:split]:
        if word.startswith(tuple(LONG_DASHES)):
            name = word.strip(f"-{LONG_DASHES}")
            p.error(
                f"{word} begins with a long dash, which is no hyphen: type "
                f"{'-' if len(name) == 1 else '--'}{name}"
            )
    given, unknown = p.parse_known_args(argv[:split])
    if unknown:
        words = " ".join(unknown)
        hint = "" if words.startswith("-") else "; arguments for the binary come behind --"
        p.error(f"unrecognized arguments: {words}{hint}")

    path = Path(given.bin).resolve()
    if not path.is_file():
        script = "; it takes one file: write a script with the lines #!/bin/sh and exec"
        why = "is a folder" if path.is_dir() else "does not exist"
        p.error(f"--bin {given.bin} {why}{f'{script} {given.bin}' if ' ' in given.bin else ''}")
    if not os.access(path, os.X_OK):
        p.error(
            f"--bin {given.bin} is not executable: chmod +x {given.bin}, or give the program that "
            "is compiled from it"
        )

    node_count = given.node_count or NODES
    group = 2 * node_count
    note = ""
    if not given.concurrency and given.workload == "lin-kv":
        note = f"no --concurrency: lin-kv takes 2n, which makes {group} clients"
    words = given.concurrency or ("2n" if note else CONCURRENCY)
    concurrency = _concurrency(p, words, node_count)
    if given.workload == "lin-kv" and concurrency % group:
        p.error(
            f"--concurrency {given.concurrency} makes {concurrency} clients, but lin-kv needs a "
            f"multiple of {group}, twice the number of nodes: 2n, 4n, ..."
        )
    simulated = [name for name in given.nemesis if name in ONLY_SIMULATED]
    if simulated and not given.simulate:
        p.error(f"--nemesis {','.join(simulated)} needs --simulate")
    if given.constants and not given.simulate:
        p.error("--constants needs --simulate")
    if not given.partition_kinds:
        p.error(f"--partition-kinds needs at least one of {', '.join(KINDS)}")
    if not given.kill_targets:
        p.error(f"--kill-targets needs at least one of {', '.join(TARGETS)}")
    if given.wipe and "--data-dir" not in argv[split:-1]:
        p.error("--wipe needs the folder of the nodes' files: -- --data-dir FOLDER")

    computed = {
        "bin": path,
        "node_count": node_count,
        "first_node": 0 if given.node_count else 1,
        "concurrency": concurrency,
        "concurrency_note": note,
        "availability": _availability(p, given.availability),
        "seed": int.from_bytes(os.urandom(4), "big") if given.seed is None else given.seed,
        "args": tuple(argv[split + 1 :]),
    }
    seed = () if given.seed is not None else ("--seed", str(computed["seed"]))
    computed["command"] = ("./maelstrom", "test", *argv[:split], *seed, *argv[split:])
    return Options(**(vars(given) | computed))


def numbered(opts: Options, number: int) -> Options:
    """Returns the options of the test with this number, from 0: each test has the next seed.

    Its command repeats this test alone: of an option that is given twice, the last one counts.
    """
    if not number:
        return opts
    split = opts.command.index("--") if "--" in opts.command else len(opts.command)
    alone = ("--seed", str(opts.seed + number), "--test-count", "1")
    command = (*opts.command[:split], *alone, *opts.command[split:])
    return replace(opts, seed=opts.seed + number, command=command)


def _concurrency(p: Parser, text: str, node_count: int) -> int:
    """Returns the number of clients."""
    match = re.fullmatch(r"0*([0-9]+)(n?)", text)
    if not match or match[1] == "0":
        p.error(
            "argument --concurrency: must be a whole number, 1 or more, and may end in n (a number "
            f"for each node), for example 10 or 4n, not {text!r}"
        )
    assert match
    clients = int(match[1][:LONG]) * (node_count if match[2] else 1)
    if clients > MOST_CLIENTS:
        made = f"{clients:,}" if clients < MOST else f"more than {MOST:,.0f}"
        p.error(f"argument --concurrency: must make at most {MOST_CLIENTS:,} clients, not {made}")
    return clients


def _availability(p: Parser, text: str | None) -> float | None:
    if text in (None, "total"):
        return 1.0 if text else None
    try:
        fraction = float(str(text))
    except ValueError:
        fraction = -1.0
    if not 0 <= fraction <= 1:
        p.error(f"argument --availability: must be total or a number from 0 to 1, not {text!r}")
    return fraction
