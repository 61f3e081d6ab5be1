"""The mutants of raft.py: what is taken out, and where that shows (tests/mutants.py runs them).

"The paper" is D. Ongaro and J. Ousterhout, In search of an understandable consensus algorithm;
"thesis" is D. Ongaro's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

Patch = tuple[str, str]  # a text that is once in raft.py, and what takes its place


class Shape(NamedTuple):
    """Runs in which some kind of bug shows soon: the bench's options, and raft.py's constants."""

    words: str
    constants: Sequence[Patch] = ()


class Mutant(NamedTuple):
    """A rule taken out: where it is from, what breaks without it, how, and where to look.

    That is a shape, for so many seeds at most, or a test (pytest -k).
    """

    name: str
    section: str
    breaks: str
    patches: Sequence[Patch]
    shape: str = "elections"
    seeds: int = 500
    test: str = ""


COMMON = "--time-limit 15 --rate 60"
SHAPES = {
    "elections": Shape(
        f"{COMMON} --node-count 5 --concurrency 2n --latency 40 --latency-dist exponential "
        "--nemesis partition,loss,duplicate --nemesis-interval 0.7 --loss 0.2 --duplicate 0.1 "
        "--partition-kinds one,majority,majorities-ring,one-way,one-link --independent-delivery",
        [("CHUNK_ENTRIES, CHUNK_BYTES = 1000, ", "CHUNK_ENTRIES, CHUNK_BYTES = 2, ")],
    ),
    "leases": Shape(
        f"{COMMON} --node-count 3 --concurrency 4n --latency 1 --latency-dist exponential "
        "--nemesis partition,clock --nemesis-interval 0.6 --partition-kinds one,one-link,one-way"
    ),
}

MUTANTS = [
    Mutant(
        "a majority is one short",
        "paper 5.2 and 5.3", "election safety",
        [("return count // 2 + 1", "return count // 2")],
    ),
    Mutant(
        "votes without the log check",
        "paper 5.4.1", "leader completeness",
        [("if led or theirs < ours:", "if led:")],
    ),
    Mutant(
        "two votes in a term",
        "paper 5.2", "one vote, election safety",
        [("granted = term == self.term and self.voted_for in (None, src)",
          "granted = term == self.term")],
    ),
    Mutant(
        "reads without confirmation",
        "paper 8, thesis 6.4", "no stale read",
        [("if not by_lease and acked <= batch.stamp:", "if False:")],
        "leases",
    ),
    Mutant(
        "entries of earlier terms are committed by counting",
        "paper 5.4.2", "leader completeness",
        [("if index > self.commit_index and self.log[index].term == self.term:",
          "if index > self.commit_index:")],
        test="5_4_2_no_entry_of_an_earlier_term",
    ),
]  # fmt: skip
