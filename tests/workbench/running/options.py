"""The options of `./maelstrom test`: Maelstrom's own names and defaults."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..network.nemesis import FAULTS, JEPSEN_KINDS, KINDS, ONLY_SIMULATED, TARGETS
from ..workloads import WORKLOADS

DESCRIPTION = """\
Runs a test of a Maelstrom binary, as the real Maelstrom does, without a JVM. What it finds is
under store/latest. Exit status: 0 valid, 1 invalid, 2 unknown, 255 the test could not be run.
With MAELSTROM_REPORT=no in the environment it writes no report.html, and no messages.jsonl.
Options marked with * are its own.
In the words for the binary {run} stands for the folder of the run: -- --data-dir {run}/data
"""
MOST = 1e9  # of a number: 30 years, if seconds
CRASHED = 255


@dataclass(frozen=True)
class Options:
    """What a test is to do; times in seconds, latency in ms."""

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
    loss: float
    duplicate: float
    independent_delivery: bool
    availability: float | None
    log_stderr: bool
    log_net_send: bool
    log_net_recv: bool
    test_count: int
    simulate: bool
    constants: dict[str, float]
    seed: int
    args: tuple[str, ...]
    command: tuple[str, ...] = ()

    @property
    def node_ids(self) -> list[str]:
        """n0, n1, ..."""
        return [f"n{number}" for number in range(self.node_count)]


class Parser(argparse.ArgumentParser):
    """Leaves with Maelstrom's status for what could not be run."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.print_usage(sys.stderr)
        self.exit(CRASHED, f"{self.prog}: error: {message}\n")


def at_least(least: float) -> Callable[[str], float]:
    """A converter for numbers from `least` on; what might overflow is too large or too small."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is no number of at least {least:g}")
        if value > MOST or 0 < value < 1 / MOST:
            raise argparse.ArgumentTypeError(f"{text} is too {'large' if value > 1 else 'small'}")
        return value

    return number


def probability(text: str) -> float:
    """A converter for numbers from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError
    return value


def names(known: Collection[str]) -> Callable[[str], tuple[str, ...]]:
    """A converter for names with commas between them."""

    def split(text: str) -> tuple[str, ...]:
        given = tuple(dict.fromkeys(filter(None, text.split(","))))
        if unknown := [name for name in given if name not in known]:
            raise argparse.ArgumentTypeError(
                f"{', '.join(unknown)}: known are {', '.join(known)}"
            )
        return given

    return split


def constants(text: str) -> dict[str, float]:
    """A converter for NAME=NUMBER with commas between them."""
    try:
        pairs = [item.split("=") for item in filter(None, text.split(","))]
        return {name: float(number) if "." in number else int(number) for name, number in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not NAME=NUMBER,NAME=NUMBER") from None


def whole(least: int, most: float = math.inf) -> Callable[[str], int]:
    """A converter for whole numbers from `least` to `most`."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            range = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{text} is no whole number {range}")
        return value

    return number


def parser() -> Parser:
    """The command line."""
    p = Parser(
        prog="maelstrom test",
        usage="maelstrom test -w WORKLOAD --bin FILE [OPTIONS] [-- WORDS FOR THE BINARY]",
        description=DESCRIPTION,
        allow_abbrev=False,
    )
    add = p.add_argument
    add("-w", "--workload", choices=WORKLOADS, default="lin-kv", help="default: %(default)s")
    add("--bin", required=True, metavar="FILE", help="path to the binary which runs a node")
    add("--node-count", type=whole(1), default=5, metavar="N", help="default: %(default)s")
    add("--time-limit", type=at_least(0), default=60, metavar="SECONDS",
        help="for how long operations are begun; default: %(default)s")
    add("--rate", type=at_least(0), default=5, metavar="N",
        help="operations a second, of all clients together; default: %(default)s")
    add("--concurrency", default="1n", metavar="N",
        help="clients, as a number or as a multiple of the nodes: 10, 4n; default: %(default)s; "
        "lin-kv needs a multiple of 2n")
    add("--latency", type=at_least(0), default=0, metavar="MS",
        help="mean latency between servers; default: %(default)s")
    add("--latency-dist", choices=("constant", "uniform", "exponential"), default="constant",
        help="default: %(default)s")
    add("--nemesis", type=names(FAULTS), default=(), metavar="FAULTS",
        help=f"comma-separated: {', '.join(FAULTS)}; loss, duplicate and clock are its own, and "
        f"{' and '.join(ONLY_SIMULATED)} only with --simulate; default: none")
    add("--nemesis-rest", type=at_least(0), default=0, metavar="SECONDS",
        help="* more of them before a fault begins again, for nodes to recover; default: "
        "%(default)s")
    add("--nemesis-interval", type=at_least(0.001), default=10, metavar="SECONDS",
        help="between two steps of the nemesis, on average; default: %(default)s")
    add("--partition-kinds", type=names(KINDS), default=JEPSEN_KINDS, metavar="KINDS",
        help=f"* comma-separated: {', '.join(KINDS)}; default: the first four, Maelstrom's own")
    add("--kill-targets", type=names(TARGETS), default=TARGETS, metavar="TARGETS",
        help=f"* how many nodes a kill is of; comma-separated: {', '.join(TARGETS)}; default: all "
        "four")
    add("--loss", type=probability, default=0.03, metavar="P",
        help="* of a message between servers, while that fault is on; default: %(default)s")
    add("--duplicate", type=probability, default=0.03, metavar="P",
        help="* likewise, that it comes twice; default: %(default)s")
    add("--independent-delivery", action="store_true",
        help="* each message is delivered by itself, so that more of them overtake each other; the "
        "real Maelstrom has one delivery at a time for each node")
    add("--availability", metavar="total|FRACTION",
        help="the fraction of operations that must be ok for the test to be valid; a cas that "
        "found another value is not")
    add("--log-stderr", action="store_true", help="show what nodes write to stderr")
    add("--log-net-send", action="store_true", help="show messages as they are sent")
    add("--log-net-recv", action="store_true", help="show messages as they are received")
    add("--test-count", type=whole(1), default=1, metavar="N",
        help="how many tests to run; the first that is not valid is the last")
    add("--simulate", action="store_true",
        help="* run the nodes in this process and in virtual time, so that a --seed always gives "
        "the same run; the binary must be a Python program on node.py")
    add("--constants", type=constants, default={}, metavar="NAME=NUMBER,...",
        help="* with --simulate: other values of the binary's constants, such as CHUNK_BYTES=2000")
    add("--seed", type=whole(0), help="* for the workbench's dice")
    return p  # fmt: skip


def parse(argv: Sequence[str]) -> Options:
    """Options from a command line; leaves with a message and status 255 for a wrong one."""
    argv = list(argv)
    split = argv.index("--") if "--" in argv else len(argv)
    p = parser()
    given = p.parse_args(argv[:split])

    path = Path(given.bin).resolve()
    if not path.is_file():
        p.error(f"--bin {given.bin} {'is a folder' if path.is_dir() else 'does not exist'}")
    if not os.access(path, os.X_OK):
        p.error(f"--bin {given.bin} is not executable: chmod +x {given.bin}")

    match = re.fullmatch(r"(\d+)(n?)", given.concurrency)
    concurrency = int(match[1]) * (given.node_count if match[2] else 1) if match else 0
    if not concurrency:
        p.error(f"--concurrency {given.concurrency} must be a number, or one with n: 10, 4n")
    group = 2 * given.node_count
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
        p.error(f"--partition-kinds needs one at least of {', '.join(KINDS)}")
    if not given.kill_targets:
        p.error(f"--kill-targets needs one at least of {', '.join(TARGETS)}")

    computed = {
        "bin": path,
        "concurrency": concurrency,
        "availability": _availability(p, given.availability),
        "seed": int.from_bytes(os.urandom(4), "big") if given.seed is None else given.seed,
        "args": tuple(argv[split + 1 :]),
    }
    seed = () if given.seed is not None else ("--seed", str(computed["seed"]))
    computed["command"] = ("./maelstrom", "test", *argv[:split], *seed, *argv[split:])
    return Options(**(vars(given) | computed))


def _availability(p: Parser, text: str | None) -> float | None:
    if text in (None, "total"):
        return 1.0 if text else None
    try:
        fraction = float(str(text))
    except ValueError:
        fraction = -1.0
    if not 0 <= fraction <= 1:
        p.error(f"--availability {text} must be total, or a fraction from 0 to 1")
    return fraction
