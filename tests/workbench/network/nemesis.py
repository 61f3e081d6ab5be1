"""The nemesis: faults that begin and end at random moments, each independent of the others."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from ..record.edn import Keyword
from ..simulation.loop import Action, Loop
from ..units import SECOND
from .network import Network

Grudge = dict[str, set[str]]  # a node, and the nodes whose messages it drops
JEPSEN_KINDS = ("one", "majority", "majorities-ring", "minority-third")
KINDS = (*JEPSEN_KINDS, "one-way", "one-link")
PERFECT_RING = 5  # nodes; Jepsen makes its exact ring for so many at most
TARGETS = ("one", "minority", "majority", "all")
HEALED = Keyword("network-healed")
DRIFT = 0.04  # of a clock's rate from 1, at most: leases allow for two that are twice as far apart


class Machines(Protocol):
    """What the nodes run on, where it can be frozen and its clocks changed."""

    def pause(self, node_id: str) -> object:
        """Nothing happens on the node any more, but its clock goes on."""

    def resume(self, node_id: str) -> object:
        """What has come and come due meanwhile happens."""

    def set_rate(self, node_id: str, rate: float) -> object:
        """From now on the node's clock gains `rate` seconds in a second."""


@dataclass
class Fault:
    """A fault that has begun: what was asked for and done, how it ends, what people read."""

    asked: Any
    done: Any
    end: Action
    shown: str
    ended: Any = HEALED


class Nemesis:
    """Begins and ends `faults` (names in FAULTS), and says so: `note(f, value)`.

    Partitions are of `kinds`, kills of `targets`; `loss` and `duplicate` are the probabilities
    during those faults. A pause and wrong clocks need `machines`; for a kill, `kill(node_id)` ends
    a node and `restart(node_id)` starts it again. Those that are `starting` are not paused: the
    real nemesis waits for their init_ok, which has a time-out.
    """

    def __init__(
        self,
        loop: Loop,
        rng: random.Random,
        node_ids: Sequence[str],
        network: Network,
        faults: Sequence[str],
        interval_seconds: float,
        note: Callable[[str, Any], object],
        *,
        rest_seconds: float = 0.0,
        kinds: Sequence[str] = JEPSEN_KINDS,
        targets: Sequence[str] = TARGETS,
        loss: float = 0.03,
        duplicate: float = 0.03,
        machines: Machines | None = None,
        kill: Callable[[str], object] = lambda node_id: None,
        restart: Callable[[str], object] = lambda node_id: None,
        starting: Collection[str] = (),
    ) -> None:
        self.rng = rng
        self.node_ids = list(node_ids)
        self.network = network
        self.kinds = list(kinds)
        self.loss = loss
        self.duplicate = duplicate
        self.machines = machines
        self.targets = list(targets)
        self.kill, self.restart, self.starting = kill, restart, starting
        self._loop = loop
        self._faults = list(faults)
        self._interval, self._rest = interval_seconds, rest_seconds
        self._note = note
        self._begun: dict[str, Fault] = {}

    @property
    def active(self) -> str:
        """What is wrong at the moment: "partition: majority, loss: 0.03"; empty if nothing is."""
        return ", ".join(f"{name}: {fault.shown}" for name, fault in self._begun.items())

    def start(self, end: int) -> None:
        """Begins each of the faults now, and then ends and begins it until the moment `end`.

        Between two steps of a fault pass 0 to 2 intervals (jepsen.generator/stagger, whose
        first operation comes at once), and a rest before it begins again.
        """
        for name in self._faults:
            self._step(name, end)

    def heal(self) -> None:
        """Ends all faults."""
        for name in list(self._begun):
            self._toggle(name)

    def _step(self, name: str, end: int) -> None:
        if self._loop.now() >= end:
            return
        self._toggle(name)
        pause = self.rng.uniform(0, 2 * self._interval)
        if name not in self._begun:
            pause += self._rest
        self._loop.after(int(pause * SECOND), partial(self._step, name, end))

    def _toggle(self, name: str) -> None:
        if fault := self._begun.pop(name, None):
            fault.end()
            values = (None, fault.ended)
        else:
            fault = self._begun[name] = FAULTS[name](self)
            values = (fault.asked, fault.done)
        for value in values:
            self._note(f"{'start' if name in self._begun else 'stop'}-{name}", value)


def partition(nemesis: Nemesis) -> Fault:
    """Cuts links between nodes: one of the nemesis's kinds."""
    kind = nemesis.rng.choice(nemesis.kinds)
    cut = grudge(kind, nemesis.node_ids, nemesis.rng)
    grudges = nemesis.network.grudges
    grudges["partition"] = cut
    isolated = [Keyword("isolated"), {node: frozenset(cut[node]) for node in cut}]
    return Fault(Keyword(kind), isolated, lambda: grudges.pop("partition"), kind)


def loss(nemesis: Nemesis) -> Fault:
    """Each message between servers may be lost."""
    network, probability = nemesis.network, nemesis.loss
    network.loss = probability
    end = partial(setattr, network, "loss", 0.0)
    return Fault(probability, probability, end, f"{probability:g}")


def duplicate(nemesis: Nemesis) -> Fault:
    """Each message between servers may come twice."""
    network, probability = nemesis.network, nemesis.duplicate
    network.duplicate = probability
    end = partial(setattr, network, "duplicate", 0.0)
    return Fault(probability, probability, end, f"{probability:g}")


def kill(nemesis: Nemesis) -> Fault:
    """Some nodes are killed: as many as one of the nemesis's targets says. All start again."""
    rng, node_ids = nemesis.rng, nemesis.node_ids
    target = rng.choice(nemesis.targets)
    killed = sorted(rng.sample(node_ids, target_size(target, len(node_ids))))
    for node_id in killed:
        nemesis.kill(node_id)

    def end() -> None:
        for node_id in killed:
            nemesis.restart(node_id)

    shown = " ".join([target, *killed])
    started = dict.fromkeys(killed, Keyword("started"))
    return Fault(Keyword(target), dict.fromkeys(killed, Keyword("killed")), end, shown, started)


def pause(nemesis: Nemesis) -> Fault:
    """One node, or any number of them, is frozen."""
    machines, rng, node_ids = nemesis.machines, nemesis.rng, nemesis.node_ids
    assert machines
    count = rng.choice([1, rng.randint(1, len(node_ids))])
    drawn = sorted(rng.sample(node_ids, count))
    paused = [node_id for node_id in drawn if node_id not in nemesis.starting]
    for node_id in paused:
        machines.pause(node_id)

    def end() -> None:
        for node_id in paused:
            machines.resume(node_id)

    shown = " ".join(paused)
    resumed = dict.fromkeys(paused, Keyword("resumed"))
    return Fault(None, dict.fromkeys(paused, Keyword("paused")), end, shown, resumed)


def clock(nemesis: Nemesis) -> Fault:
    """All clocks go too fast or too slowly, often as far as leases allow for."""
    machines, rng = nemesis.machines, nemesis.rng
    assert machines

    def change(rates: Mapping[str, float]) -> None:
        for node_id, rate in rates.items():
            machines.set_rate(node_id, rate)

    rates = {
        node_id: 1 + DRIFT * rng.choice([-1, 1, round(rng.uniform(-1, 1), 2)])
        for node_id in nemesis.node_ids
    }
    right = dict.fromkeys(rates, 1.0)
    change(rates)
    shown = " ".join(f"{rate:g}" for rate in rates.values())
    return Fault(None, rates, partial(change, right), shown, right)


FAULTS: Mapping[str, Callable[[Nemesis], Fault]] = {
    "partition": partition,
    "loss": loss,
    "duplicate": duplicate,
    "pause": pause,
    "clock": clock,
    "kill": kill,
}
ONLY_SIMULATED = ("clock",)


def target_size(target: str, count: int) -> int:
    """How many of `count` nodes one of the TARGETS is (jepsen.nemesis.combined/db-nodes).

    Jepsen's `minority` is one less than a majority: half of an even number, and none of one node.
    """
    return {"one": 1, "minority": count // 2, "majority": count // 2 + 1, "all": count}[target]


def grudge(kind: str, node_ids: Sequence[str], rng: random.Random) -> Grudge:
    """Draws a partition of one of the KINDS, the first four as jepsen.nemesis.combined does.

    `one`: one node against the rest. `majority`: a random majority against the rest.
    `minority-third`: less than a third (none of three nodes) against the rest.
    `majorities-ring`: each node hears a majority, and with up to five nodes no two the same one.
    `one-way`: one node does not hear the rest, or is not heard. `one-link`: two nodes do not
    hear each other.
    """
    nodes = rng.sample(node_ids, len(node_ids))
    count = len(nodes)
    if kind == "majorities-ring":
        return ring(nodes) if count <= PERFECT_RING else stochastic_ring(nodes, rng)
    if kind == "one-way":
        first, rest = nodes[0], nodes[1:]
        return rng.choice([{first: set(rest)}, {node: {first} for node in rest}])
    if kind == "one-link":
        return split(nodes[:1], nodes[1:2])
    size = {"one": 1, "majority": count // 2, "minority-third": (count - 1) // 3}[kind]
    return split(nodes[:size], nodes[size:])


def split(side: Sequence[str], other: Sequence[str]) -> Grudge:
    """Neither side hears the other."""
    return {**{node: set(other) for node in side}, **{node: set(side) for node in other}}


def ring(nodes: Sequence[str]) -> Grudge:
    """Each node hears those around it on a ring (jepsen.nemesis/majorities-ring-perfect)."""
    count = len(nodes)
    majority = count // 2 + 1
    # The node in the middle of a window hears that window.
    return {
        nodes[(i + majority // 2) % count]: set(nodes)
        - {nodes[(i + j) % count] for j in range(majority)}
        for i in range(count)
    }


def stochastic_ring(nodes: Sequence[str], rng: random.Random) -> Grudge:
    """Links in both directions between nodes that have the fewest, until each has a majority.

    jepsen.nemesis/majorities-ring-stochastic
    """
    hears = {node: {node} for node in nodes}
    while True:
        order = sorted(rng.sample(nodes, len(nodes)), key=lambda node: len(hears[node]))
        node = order[0]
        if len(hears[node]) > len(nodes) // 2:
            return {node: set(nodes) - heard for node, heard in hears.items()}
        other = next(other for other in order if other not in hears[node])
        hears[node].add(other)
        hears[other].add(node)
