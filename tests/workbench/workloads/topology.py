"""The topologies that `broadcast` suggests to its nodes: each node's neighbours, in their order."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

Topology = dict[str, list[str]]


def line(nodes: Sequence[str]) -> Topology:
    """Links each node to the one before and the one after it. A single node is left out."""
    last = len(nodes) - 1
    if not last:
        return {}
    return _topology(nodes, lambda i: [i - 1] * (i > 0) + [i + 1] * (i < last))


def grid(nodes: Sequence[str]) -> Topology:
    """Fills the rows of a square, and links each node to those below, above, right and left."""
    side = math.ceil(math.sqrt(len(nodes)))

    def neighbours(i: int) -> list[int]:
        right, left = (i % side < side - 1), (i % side > 0)
        found = [i + side, i - side] + [i + 1] * right + [i - 1] * left
        return [other for other in found if 0 <= other < len(nodes)]

    return _topology(nodes, neighbours)


def total(nodes: Sequence[str]) -> Topology:
    """Links each node to all others."""
    return _topology(nodes, lambda i: [other for other in range(len(nodes)) if other != i])


def tree(branches: int) -> Callable[[Sequence[str]], Topology]:
    """Returns a function that links each node to its parent and its children."""

    def make(nodes: Sequence[str]) -> Topology:
        def neighbours(i: int) -> list[int]:
            children = range(branches * i + 1, min(branches * (i + 1) + 1, len(nodes)))
            return [(i - 1) // branches] * (i > 0) + [*children]

        return _topology(nodes, neighbours)

    return make


def _topology(nodes: Sequence[str], neighbours: Callable[[int], list[int]]) -> Topology:
    return {node: [nodes[other] for other in neighbours(i)] for i, node in enumerate(nodes)}


TOPOLOGIES: Mapping[str, Callable[[Sequence[str]], Topology]] = {
    "line": line,
    "grid": grid,
    "tree": tree(2),
    "tree2": tree(2),
    "tree3": tree(3),
    "tree4": tree(4),
    "total": total,
}
