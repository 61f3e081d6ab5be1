"""Shapes: each seed selects the options of a run that exposes one kind of bug.

Completely random options rarely produce the order of events that a bug needs. So most shapes
choose options for which faults hit one part of the protocol.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from ..network.nemesis import KINDS, TARGETS
from ..simulation.loop import dice

Choice = dict[str, Any]  # values of options, by name
FAULTS = ("partition", "loss", "duplicate", "pause", "clock")  # no kill: it needs stable storage


def words(seed: int, binary: str) -> list[str]:
    """Returns the arguments of `./maelstrom test` that run this seed."""
    rng = dice(seed, "shape")
    choice = SHAPES[name(seed)](rng)
    args = [(name, choice.pop(name, "")) for name in ("reads", "data-dir")]
    nodes = choice["node-count"]
    found = ["-w", choice.pop("workload", "lin-kv"), "--bin", binary, "--simulate", "--strict"]
    found += ["--seed", str(seed)]
    if nodes > 2 and rng.random() < 0.3:
        found.append("--independent-delivery")
    has = defined(Path(binary))
    small = constants(dice(seed, "constants"))
    choice["constants"] = [f"{name}={value}" for name, value in small.items() if name in has]
    for key, value in choice.items():
        if value != []:
            found += [f"--{key}", shown(value)]
    of_binary = [word for name, value in args if value for word in (f"--{name}", value)]
    return [*found, *(["--", *of_binary] if of_binary else [])]


def name(seed: int) -> str:
    """Returns the name of the seed's shape."""
    return list(SHAPES)[seed % len(SHAPES)]


def shown(value: Any) -> str:
    """Formats an option's value for the command line."""
    if isinstance(value, list):
        return ",".join(value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def anything(rng: Random) -> Choice:
    """Chooses all options at random."""
    nodes = rng.randint(1, 7)
    return {
        "node-count": nodes,
        "concurrency": f"{rng.choice([2, 2, 4, 6])}n",
        "rate": rng.choice([10, 50, 100, 300]),
        "time-limit": rng.choice([5, 10]),
        "latency": rng.choice([0, 1, 10, 50, 100]),
        "latency-dist": distribution(rng),
        "nemesis": some(rng, FAULTS, 0),
        "nemesis-interval": rng.choice([0.3, 0.8, 2.0, 5.0]),
        "partition-kinds": some(rng, KINDS),
        "loss": rng.choice([0.01, 0.05, 0.2]),
        "duplicate": rng.choice([0.01, 0.05, 0.2]),
        "reads": rng.choice(["", "", "index", "log"]),
    }


def lease(rng: Random) -> Choice:
    """Cuts off the leader or one of its links, while clients read and write on both sides."""
    return {
        "node-count": rng.choice([3, 3, 5]),
        "concurrency": "2n",
        "rate": rng.choice([20, 50, 200]),
        "time-limit": 10,
        "latency": rng.choice([0, 0, 1, 2]),
        "latency-dist": distribution(rng),
        "nemesis": ["partition", "clock", *some(rng, ["pause"], 0)],
        "nemesis-interval": rng.uniform(0.3, 2),
        "partition-kinds": rng.choice([["one-link"], ["one-link", "one"], ["one", "one-way"]]),
    }


def election(rng: Random) -> Choice:
    """Changes leaders so often that messages of several terms are in flight."""
    return {
        "node-count": rng.choice([3, 4, 5, 5, 7]),
        "concurrency": "2n",
        "rate": rng.choice([20, 100]),
        "time-limit": 15,
        "latency": rng.choice([1, 20, 50, 100]),
        "latency-dist": "exponential",
        "nemesis": ["partition", "loss", "duplicate"],
        "nemesis-interval": rng.uniform(0.3, 1.5),
        "partition-kinds": some(rng, KINDS),
        "loss": rng.uniform(0.1, 0.4),
        "duplicate": rng.uniform(0.05, 0.3),
    }


def dedup(rng: Random) -> Choice:
    """Cuts off leaders with entries that few nodes have, so that requests are retried."""
    return {
        "node-count": rng.choice([2, 3, 3, 5]),
        "concurrency": "2n",
        "rate": rng.choice([200, 500]),
        "time-limit": 10,
        "latency": rng.choice([5, 10, 20, 50]),
        "latency-dist": distribution(rng),
        "nemesis": ["partition", "loss", "duplicate"],
        "nemesis-interval": rng.uniform(0.5, 1),
        "partition-kinds": ["one", "majority", "one-way"],
        "loss": rng.uniform(0.1, 0.3),
        "duplicate": rng.uniform(0.03, 0.2),
        "reads": rng.choice(["", "index", "log"]),
    }


def pauses(rng: Random) -> Choice:
    """Pauses nodes, which then continue with outdated state."""
    return {
        "node-count": rng.choice([1, 3, 3, 5, 7]),
        "concurrency": rng.choice(["2n", "4n"]),
        "rate": rng.choice([50, 200]),
        "time-limit": 10,
        "latency": rng.choice([0, 1, 10, 100]),
        "latency-dist": distribution(rng),
        "nemesis": ["pause", *some(rng, ["partition", "clock", "loss"], 0)],
        "nemesis-interval": rng.uniform(0.3, 4),
        "partition-kinds": some(rng, KINDS),
        "reads": rng.choice(["", "", "index"]),
    }


def starts(rng: Random) -> Choice:
    """Makes short runs with faults from the beginning."""
    return {
        "node-count": rng.randint(1, 7),
        "concurrency": "2n",
        "rate": rng.choice([50, 300]),
        "time-limit": rng.choice([2, 4]),
        "latency": rng.choice([0, 10, 100, 300]),
        "latency-dist": distribution(rng),
        "nemesis": some(rng, FAULTS, 0),
        "nemesis-interval": rng.uniform(0.1, 2),
        "partition-kinds": some(rng, KINDS),
        "loss": rng.uniform(0.05, 0.4),
    }


def constants(rng: Random) -> dict[str, int]:
    """Chooses small values for some constants of raft.py, so that runs often reach the limits."""
    chunk = rng.choice([1, 2000, 5000, 20_000])
    small = {
        "CHUNK_BYTES": chunk,
        "WINDOW_BYTES": chunk * rng.choice([1, 2, 8]),
        "EARLY_APPENDS": rng.choice([0, 1, 3]),
        "KEPT_BYTES": rng.choice([1, 5000, 20_000]),
        "KEPT_ENTRIES": rng.choice([0, 3]),
        "CHECKPOINT_BYTES": rng.choice([1, 5000, 20_000]),
    }
    return {name: small[name] for name in some(rng, small, 0)}


def defined(program: Path) -> set[str]:
    """Returns the names of a Python program's constants; none if the file does not exist."""
    text = program.read_text(errors="replace") if program.is_file() else ""
    lines = re.findall(r"^([A-Z_, ]+) =", text, re.MULTILINE)
    return {name for line in lines for name in line.split(", ")}


def crashes(rng: Random) -> Choice:
    """Kills nodes at any step; they restart with the state on their disks."""
    return {
        "node-count": rng.choice([1, 2, 3, 3, 5]),
        "concurrency": "2n",
        "rate": rng.choice([50, 200]),
        "time-limit": 10,
        "latency": rng.choice([0, 1, 10, 50]),
        "latency-dist": distribution(rng),
        "nemesis": ["kill", *some(rng, FAULTS, 0)],
        "nemesis-interval": rng.uniform(0.3, 2),
        "kill-targets": some(rng, TARGETS),
        "partition-kinds": some(rng, KINDS),
        "loss": rng.uniform(0.01, 0.2),
        "duplicate": rng.uniform(0.01, 0.2),
        "reads": rng.choice(["", "", "index", "log"]),
        "data-dir": "{run}/data",
    }


def returns(rng: Random) -> Choice:
    """Kills one node at a time; it restarts without its state."""
    return {
        "node-count": rng.choice([3, 3, 5]),
        "concurrency": "2n",
        "rate": rng.choice([50, 200]),
        "time-limit": 15,
        "latency": rng.choice([0, 1, 10]),
        "latency-dist": distribution(rng),
        "nemesis": ["kill", *some(rng, ["loss", "duplicate", "clock"], 0)],
        "nemesis-interval": rng.uniform(0.5, 2),
        "nemesis-rest": 3,  # else the next node is killed before the last one is readmitted
        "kill-targets": ["one"],
        "loss": rng.uniform(0.01, 0.1),
        "duplicate": rng.uniform(0.01, 0.2),
        "reads": rng.choice(["", "", "index", "log"]),
    }


def wiped(rng: Random) -> Choice:
    """Kills nodes with files; one of them may lose its files, once the last one is readmitted."""
    return {
        "node-count": rng.choice([3, 3, 3, 5]),
        "concurrency": "2n",
        "rate": rng.choice([50, 200]),
        "time-limit": 10,
        "latency": rng.choice([0, 1, 10, 50]),
        "latency-dist": distribution(rng),
        "nemesis": ["kill", *some(rng, FAULTS, 0)],
        "nemesis-interval": rng.uniform(0.3, 2),
        "kill-targets": some(rng, TARGETS),
        "wipe": rng.choice([0.5, 1.0]),
        "partition-kinds": some(rng, KINDS),
        "loss": rng.uniform(0.01, 0.2),
        "duplicate": rng.uniform(0.01, 0.2),
        "reads": rng.choice(["", "", "index", "log"]),
        "data-dir": "{run}/data",
    }


def transactions(rng: Random) -> Choice:
    """Does transactions in the place of single reads and writes, under the faults of a shape."""
    shape = rng.choice([lease, election, dedup, pauses, crashes, returns, wiped])
    return {
        **shape(rng),
        "workload": rng.choice(["txn-list-append", "txn-rw-register"]),
        "key-count": rng.choice([2, 5, 10]),
        "max-txn-length": rng.choice([1, 4, 8]),
        "max-writes-per-key": rng.choice([16, 100]),
    }


def distribution(rng: Random) -> str:
    """Chooses a distribution of latencies."""
    return rng.choice(["constant", "uniform", "exponential"])


def some(rng: Random, names: Any, least: int = 1) -> list[str]:
    """Chooses some of the names, at least `least` of them."""
    known = list(names)
    return rng.sample(known, rng.randint(least, len(known)))


SHAPES: Mapping[str, Callable[[Random], Choice]] = {
    "anything": anything,
    "lease": lease,
    "election": election,
    "dedup": dedup,
    "pauses": pauses,
    "starts": starts,
    "crashes": crashes,
    "returns": returns,
    "wiped": wiped,
    "transactions": transactions,
}
