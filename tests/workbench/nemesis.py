"""Partitions: who hears whom no more, as jepsen.nemesis and jepsen.nemesis.combined draw it."""

from __future__ import annotations

import random
from collections.abc import Sequence

Grudge = dict[str, set[str]]  # a node, and the nodes whose messages it drops
KINDS = ("one", "majority", "majorities-ring", "minority-third")


def grudge(kind: str, node_ids: Sequence[str], rng: random.Random) -> Grudge:
    """Draws a partition of one of the KINDS.

    `one`: one node against the rest. `majority`: a random majority against the rest.
    `minority-third`: up to a third (less than half) against the rest. `majorities-ring`: each
    node hears a majority, and no two the same one.
    """
    nodes = list(node_ids)
    rng.shuffle(nodes)
    count = len(nodes)
    majority = count // 2 + 1
    if kind == "majorities-ring":
        windows = [{nodes[(i + j) % count] for j in range(majority)} for i in range(count)]
        # The node in the middle of a window hears that window.
        middle = majority // 2
        return {
            nodes[(i + middle) % count]: set(nodes) - window for i, window in enumerate(windows)
        }
    size = {"one": 1, "majority": count - majority, "minority-third": max(1, count // 3)}[kind]
    return split(nodes[:size], nodes[size:])


def split(side: Sequence[str], other: Sequence[str]) -> Grudge:
    """Neither side hears the other."""
    return {**{node: set(other) for node in side}, **{node: set(side) for node in other}}
