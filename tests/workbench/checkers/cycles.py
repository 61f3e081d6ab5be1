"""Searches a graph of transactions for cycles of each type. elle.py says what the types mean.

The search works on one strongly connected component at a time, since a cycle cannot leave it. For
each type it first computes which paths can close at all, in time linear in the number of edges. A
breadth-first search then finds a short cycle, so most of its time goes into cycles that exist.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final, TypeVar

from . import consistency

WW, WR, RW, PROCESS, REALTIME = 1, 2, 4, 8, 16
ANY: Final = WW | WR | RW | PROCESS | REALTIME
NAMES: Final = {WW: "ww", WR: "wr", RW: "rw", PROCESS: "process", REALTIME: "realtime"}

ALL_PATHS: Final = 20_000
"""Steps of the search for one type of cycle during which it tries all paths."""
SIMPLE_PATHS: Final = 20_000
"""Steps of one search for a path that visits no transaction twice."""
WORD: Final = 0xFFFFFFFF
"""Mask of 32 bits."""


# The graph

Vertex = Any
Out = dict[int, dict[int, int]]
"""Edges by their first and second vertex, with the reasons."""


class Graph:
    """Which transaction comes before which, and why. An edge is a set of reasons: a sum of WW, WR,
    RW, PROCESS and REALTIME."""

    def __init__(self, vertices: Iterable[int]) -> None:
        self.out: Out = {vertex: {} for vertex in vertices}
        self.empty = True

    def link(self, before: int, after: int, reason: int, loops: bool = False) -> None:
        """Adds an edge. Leaves out edges from a transaction to itself, unless `loops` is True."""
        if before != after or loops:
            self.out[before][after] = self.out[before].get(after, 0) | reason
            self.empty = False


class Budget:
    """Counts the steps of searches."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def spend(self, steps: int) -> None:
        """Raises TimeoutError if fewer steps are left."""
        self.left -= steps
        if self.left < 0:
            raise TimeoutError


def components(
    vertices: Iterable[Vertex], successors: Callable[[Vertex], Iterable[Vertex]]
) -> Iterator[list[Vertex]]:
    """Yields the strongly connected components, each after those that it leads to: Tarjan's
    algorithm, with a stack in place of recursion (R. Tarjan, Depth-first search and linear graph
    algorithms, 1972)."""
    number: dict[Vertex, int] = {}
    low: dict[Vertex, int] = {}
    path: list[Vertex] = []  # visited vertices whose component is not complete
    on_path: set[Vertex] = set()
    for root in vertices:
        if root in number:
            continue
        number[root] = low[root] = len(number)
        path.append(root)
        on_path.add(root)
        work = [(root, iter(successors(root)))]
        while work:
            vertex, rest = work[-1]
            for after in rest:
                if after not in number:
                    number[after] = low[after] = len(number)
                    path.append(after)
                    on_path.add(after)
                    work.append((after, iter(successors(after))))
                    break
                if after in on_path:
                    low[vertex] = min(low[vertex], number[after])
            else:
                work.pop()
                if work:
                    outer = work[-1][0]
                    low[outer] = min(low[outer], low[vertex])
                if low[vertex] == number[vertex]:
                    component = []
                    while True:
                        member = path.pop()
                        on_path.discard(member)
                        component.append(member)
                        if member == vertex:
                            break
                    yield component


def cyclic_parts(out: Out, mask: int, loops: bool = True) -> Iterator[Out]:
    """Yields the components that have a cycle of edges with a reason in `mask`.

    Without `loops`, an edge from a vertex to itself is no cycle.
    """

    def successors(vertex: int) -> Iterable[int]:
        return [after for after, reasons in out[vertex].items() if reasons & mask]

    for component in components(sorted(out), successors):
        vertex = component[0]
        if len(component) > 1 or (loops and out[vertex].get(vertex, 0) & mask):
            members = set(component)
            yield {
                vertex: {
                    after: reasons & mask
                    for after, reasons in out[vertex].items()
                    if after in members and reasons & mask
                }
                for vertex in sorted(component)
            }


# Which of several cycles is found first?

# A found cycle of the wrong type ends the search for a type. So the types reported depend on the
# order of the search. Elle's order is that of its hash maps: tries with 32 children per node, whose
# hash is that of the operation's index. A node's own entries come before its subtrees.


def in_hash_order(vertices: Collection[int]) -> list[int]:
    """Sorts vertices as Elle's hash maps do."""
    return trie_order(vertices, _index_hash) if len(vertices) > 1 else list(vertices)


def in_list_order(lists: Collection[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Sorts lists of integers as Elle's hash sets do."""
    return trie_order(lists, _list_hash)


Member = TypeVar("Member")


def trie_order(members: Collection[Member], hash_of: Callable[[Member], int]) -> list[Member]:
    """Returns the members of a trie in order."""
    found: list[Member] = []
    nodes: deque[tuple[int, Collection[Member]]] = deque([(0, members)])
    while nodes:
        shift, inside = nodes.popleft()
        slots: dict[int, list[Member]] = {}
        for member in inside:
            slots.setdefault(hash_of(member) >> shift & 31, []).append(member)
        for slot in sorted(slots):
            if len(slots[slot]) == 1 or shift > 30:
                found += slots[slot]
            else:
                nodes.append((shift + 5, slots[slot]))
    return found


@lru_cache(maxsize=100_000)
def _index_hash(index: int) -> int:
    """Returns the hash of an operation: MurmurHash3 of its index (A. Appleby), in 32 bits."""
    found = 0
    for word in (index & WORD, index >> 32 & WORD) if index else ():
        word = _rotate(word * 0xCC9E2D51 & WORD, 15) * 0x1B873593 & WORD
        found = (_rotate(found ^ word, 13) * 5 + 0xE6546B64) & WORD
    found ^= 8 if index else 0
    found = (found ^ found >> 16) * 0x85EBCA6B & WORD
    found = (found ^ found >> 13) * 0xC2B2AE35 & WORD
    return _spread(found ^ found >> 16)


def _list_hash(value: tuple[Any, ...]) -> int:
    """Returns the hash of a list in Java; elements that are no integers count as 0."""
    found = 1
    for element in value:
        number = element if isinstance(element, int) else 0
        found = (31 * found + (number ^ number >> 32)) & WORD
    return _spread(found)


def _spread(found: int) -> int:
    """Mixes the high bits of a hash into the low ones, which choose the slots near the root."""
    if found >> 31:  # folding a negative number's 64 bits to 32 inverts them
        found ^= WORD
    found ^= found >> 20 ^ found >> 12
    return found ^ found >> 7 ^ found >> 4


def _rotate(number: int, bits: int) -> int:
    return (number << bits | number >> (32 - bits)) & WORD


# Does a cycle exist?

# The edges whose cycles rule out a model. If the last entry is True, an rw edge may follow each of
# these edges. Models are in Elle's order.
EXISTENCE: Final = (
    ("PL-1", "read-uncommitted", WW, False),
    ("PL-2", "read-committed", WW | WR, False),
    ("PL-SI", "snapshot-isolation", WW | WR, True),
    ("PL-2.99", "repeatable-read", WW | WR | RW, False),
    ("PL-3", "serializable", WW | WR | RW, False),
    ("strong-session-PL-1", "strong-session-read-uncommitted", WW | PROCESS, False),
    ("strong-session-PL-2", "strong-session-read-committed", WW | WR | PROCESS, False),
    (
        "strong-session-snapshot-isolation",
        "strong-session-snapshot-isolation",
        WW | WR | PROCESS,
        True,
    ),
    (
        "strong-session-serializable",
        "strong-session-serializable",
        WW | WR | RW | PROCESS,
        False,
    ),
    ("strong-PL-1", "strong-read-uncommitted", WW | REALTIME, False),
    ("strong-PL-2", "strong-read-committed", WW | WR | REALTIME, False),
    ("strong-snapshot-isolation", "strong-snapshot-isolation", WW | WR | REALTIME, True),
    ("PL-SS", "strong-serializable", WW | WR | RW | REALTIME, False),
)


def cyclic_models(out: Out) -> dict[str, list[int]]:
    """Returns each weakest model whose edges have a cycle, with the smallest such component."""
    found: dict[str, list[int]] = {}
    redundant: set[str] = set()
    for _, model, mask, extended in EXISTENCE:
        if model in redundant:
            continue
        cyclic = _extended(out, mask) if extended else map(list, cyclic_parts(out, mask))
        smallest = min(cyclic, key=len, default=None)
        if smallest:
            found[model] = sorted(smallest)
            redundant |= consistency.with_stronger([model])
    return found


def _extended(out: Out, mask: int) -> Iterator[list[int]]:
    """Yields the components of the edges of a mask, each of which an rw edge may follow."""

    # A vertex (v, True) was reached by an edge of the mask, so an rw edge may follow.
    def successors(vertex: tuple[int, bool]) -> Iterator[tuple[int, bool]]:
        for after, reasons in out[vertex[0]].items():
            if reasons & mask:
                yield after, True
            if vertex[1] and reasons & RW:
                yield after, False

    for component in components([(vertex, False) for vertex in out], successors):
        if len(component) > 1:
            yield list({vertex for vertex, _ in component})


# The search for a cycle of a type


@dataclass(frozen=True, slots=True, eq=False)  # compared by identity, which is fast
class Stage:
    """The needs of a path that is to close into a cycle of the wanted type. Made by stage_of()."""

    want: int  # reasons that must still occur
    want_rw: int  # number of rw edges that must still occur
    rw: str  # "legal", "no", "once" (one more), "free" (one may follow), "taken" (just taken)
    done: bool  # True if the path may close here


@cache
def stage_of(want: int, want_rw: int, rw: str) -> Stage:
    """Returns the only stage with these needs."""
    return Stage(want, want_rw, rw, not want and not want_rw and rw != "taken")


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """A type of cycles, as a machine that accepts their paths."""

    type: str
    legal: int  # reasons of edges that are always allowed
    start: Stage
    strict: bool  # a found cycle counts only if its explanation has this type

    @property
    def mask(self) -> int:
        """All reasons of edges that can occur."""
        return self.legal | (RW if self.start.want_rw else 0)


def _shapes() -> list[Shape]:
    """Returns all types in the order in which Elle searches for them."""
    order = (
        "G-single-item G0 G-nonadjacent-item G-single-item-process G1c G-nonadjacent-item-process "
        "G-single-item-realtime G2-item G-nonadjacent-item-realtime G0-process G1c-process "
        "G2-item-process G0-realtime G1c-realtime G2-item-realtime"
    )
    bases: dict[str, tuple[int, int, int, str]] = {  # legal, wanted, rw edges wanted, mode
        "G0": (WW, 0, 0, "no"),
        "G1c": (WW | WR, WR, 0, "no"),
        "G-single-item": (WW | WR, 0, 1, "once"),
        "G-nonadjacent-item": (WW | WR, 0, 2, "free"),
        "G2-item": (WW | WR | RW, 0, 2, "legal"),
    }
    shapes = []
    for name in order.split():
        base, extra = name, 0
        for suffix, reason in (("-process", PROCESS), ("-realtime", REALTIME)):
            if name.endswith(suffix):
                base, extra = name.removesuffix(suffix), reason
        legal, want, want_rw, mode = bases[base]
        start = stage_of(want | extra, want_rw, mode)
        shapes.append(Shape(name, legal | extra, start, strict=bool(want_rw)))
    return shapes


SHAPES: Final = _shapes()


@cache
def steps(shape: Shape, stage: Stage, reasons: int, first: bool) -> tuple[Stage, ...]:
    """Returns the stages after an edge, which counts for one of its reasons.

    A cycle begins with an rw edge if it needs one, or else with another wanted edge. That loses no
    cycle, and saves most starts.
    """
    after: list[Stage] = []
    rw_matters = stage.want_rw > 0 or stage.rw in ("once", "free")
    if rw_matters and reasons & RW:
        left = max(0, stage.want_rw - 1)
        if stage.rw == "legal":
            after.append(stage_of(stage.want, left, "legal"))
        elif stage.rw == "once":
            after.append(stage_of(stage.want, 0, "no"))
        elif stage.rw == "free":
            after.append(stage_of(stage.want, left, "taken"))
    if first and stage.want_rw:
        return tuple(after)
    mode = "free" if stage.rw == "taken" else stage.rw
    for reason in NAMES:
        if reasons & reason & stage.want:
            after.append(stage_of(stage.want & ~reason, stage.want_rw, mode))
    if first and stage.want:
        return tuple(after)
    if reasons & shape.legal & ~stage.want & ~(RW if rw_matters else 0):
        after.append(stage_of(stage.want, stage.want_rw, mode))
    return tuple(after)


def find_cycle(out: Out, shape: Shape, budget: Budget) -> list[int] | None:
    """Returns a short cycle of a shape, without its first vertex at the end; None if there is
    none. Raises TimeoutError if the budget runs out.

    Elle tries all paths, whose number grows exponentially with their length. This search does so
    too at first, since then it finds the same cycle. After `ALL_PATHS` steps it continues with a
    search that visits each position once.
    """
    edges = {
        vertex: {
            after: afters[after] & shape.mask
            for after in in_hash_order([w for w in afters if afters[w] & shape.mask])
        }
        for vertex, afters in out.items()
    }
    parts: Out = {}
    reach: dict[Position, int] = {}
    for part in cyclic_parts(edges, shape.mask):
        part = {
            vertex: {after: edges[vertex][after] for after in edges[vertex] if after in part}
            for vertex in part
        }
        parts |= part
        reach |= _closing(part, shape, budget)
    firsts = {
        start: [
            (after, stage)
            for after, reasons in afters.items()
            for stage in steps(shape, shape.start, reasons, True)
            if reach[after, stage] >> start & 1
        ]
        for start, afters in parts.items()
    }
    if not any(firsts.values()):
        return None
    after_any = {after for afters in edges.values() for after in afters}
    try_all = Budget(ALL_PATHS)
    search = Search(parts, shape, reach, budget)
    for start in in_hash_order([v for v in edges if edges[v] or v in after_any]):
        try:
            cycle = _first_loop(edges, shape, start, try_all)
        except TimeoutError:
            try_all.left = 0
            cycle = search.shortest(start, firsts.get(start, []))
        if cycle:
            return cycle
    return None


def _first_loop(
    edges: Out, shape: Shape, start: int, budget: Budget, within: frozenset[int] | None = None
) -> list[int] | None:
    """Searches all paths from a start, the shortest first, for one that closes.

    A path may close at a later vertex. Then the search continues among the vertices of that loop.
    """
    paths: deque[tuple[tuple[int, ...], Stage]] = deque([((start,), shape.start)])
    while paths:
        path, stage = paths.popleft()
        tip = path[-1]
        if len(path) > 1 and tip in path[:-1]:
            loop = path[path.index(tip) : -1]
            if stage.done and tip == start:
                return list(loop)
            if stage.done:
                members = frozenset(loop) & within if within else frozenset(loop)
                for vertex in (*loop, tip):
                    found = _first_loop(edges, shape, vertex, budget, members)
                    if found:
                        return found
            continue
        budget.spend(1 + len(edges[tip]))
        for after, reasons in edges[tip].items():
            if within is None or after in within:
                for later in steps(shape, stage, reasons, len(path) == 1):
                    paths.append(((*path, after), later))
    return None


Position = tuple[int, Stage]


def _closing(part: Out, shape: Shape, budget: Budget) -> dict[Position, int]:
    """Returns, for each position of a path, the bit set of vertices at which the path can close.

    A path can repeat a vertex here, so this is a necessary condition for a cycle. It makes a
    fruitless search linear.
    """

    following: dict[Position, list[Position]] = {}

    def successors(position: Position) -> list[Position]:
        vertex, stage = position
        budget.spend(len(part[vertex]))
        following[position] = [
            (after, later)
            for after, reasons in part[vertex].items()
            for later in steps(shape, stage, reasons, False)
        ]
        return following[position]

    starts = [
        (after, stage)
        for vertex in part
        for after, reasons in part[vertex].items()
        for stage in steps(shape, shape.start, reasons, True)
    ]
    reach: dict[Position, int] = {}
    for component in components(starts, successors):
        bits = 0
        for position in component:
            vertex, stage = position
            if stage.done:
                bits |= 1 << vertex
            for later in following.pop(position):
                bits |= reach.get(later, 0)
        for position in component:
            reach[position] = bits
    return reach


@dataclass(frozen=True)
class Search:
    """A search for cycles of a shape, in the cyclic parts of a graph.

    `first` are the positions after one step from a start.
    """

    parts: Out
    shape: Shape
    reach: dict[Position, int]  # by position: the bit set of vertices at which a path can close
    budget: Budget

    def shortest(self, start: int, first: list[Position]) -> list[int] | None:
        """Searches breadth-first for the shortest cycle through a start."""
        bit = 1 << start
        came_from: dict[Position, Position | None] = dict.fromkeys(first)
        queue = deque(first)
        while queue:
            position = queue.popleft()
            vertex, stage = position
            if vertex == start:
                if stage.done:
                    cycle = []
                    step = came_from[position]
                    while step is not None:
                        cycle.append(step[0])
                        step = came_from[step]
                    cycle = [start, *reversed(cycle)]
                    if len(set(cycle)) == len(cycle):
                        return cycle
                    return self.without_repeats(start, first)
                continue
            self.budget.spend(len(self.parts[vertex]))
            for after, reasons in self.parts[vertex].items():
                for later in steps(self.shape, stage, reasons, False):
                    if (after, later) not in came_from and self.reach[after, later] & bit:
                        came_from[after, later] = position
                        queue.append((after, later))
        return None

    def without_repeats(self, start: int, first: list[Position]) -> list[int] | None:
        """Searches for a cycle that visits no vertex twice, where the shortest one does."""
        bit = 1 << start
        queue: deque[tuple[tuple[int, ...], Stage]] = deque(
            ((start, vertex), stage) for vertex, stage in first
        )
        left = SIMPLE_PATHS
        while queue:
            path, stage = queue.popleft()
            if path[-1] == start:
                if stage.done:
                    return list(path[:-1])
                continue
            left -= 1
            if not left:
                raise TimeoutError
            self.budget.spend(len(self.parts[path[-1]]))
            for after, reasons in self.parts[path[-1]].items():
                if after not in path[1:]:
                    for later in steps(self.shape, stage, reasons, False):
                        if self.reach[after, later] & bit:
                            queue.append(((*path, after), later))
        return None


# About a cycle


def any_cycle(part: Out) -> list[int]:
    """Returns a cycle of a component: its shortest cycle through its first vertex."""
    start = next(iter(part))
    came_from: dict[int, int] = {}
    queue = deque([start])
    while True:
        vertex = queue.popleft()
        for after in part[vertex]:
            if after == start:
                cycle = [vertex]
                while cycle[-1] != start:
                    cycle.append(came_from[cycle[-1]])
                return cycle[::-1]
            if after not in came_from:
                came_from[after] = vertex
                queue.append(after)


def type_of(reasons: Sequence[int]) -> str:
    """Returns the type of a cycle with these edges."""
    rw = reasons.count(RW)
    if rw == 1:
        base = "G-single-item"
    elif rw:
        pairs = zip(reasons, [*reasons[1:], reasons[0]], strict=True)
        base = "G2-item" if (RW, RW) in pairs else "G-nonadjacent-item"
    else:
        base = "G1c" if WR in reasons else "G0"
    suffix = "-realtime" if REALTIME in reasons else "-process" if PROCESS in reasons else ""
    return base + suffix
