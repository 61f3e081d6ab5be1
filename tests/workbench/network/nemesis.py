"""The nemesis: begins and ends faults at random times, independently of each other."""

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

Grudge = dict[str, set[str]]  # maps each node to the nodes whose messages it drops
JEPSEN_KINDS = ("one", "majority", "majorities-ring", "minority-third")
KINDS = (*JEPSEN_KINDS, "one-way", "one-link")
PERFECT_RING = 5  # largest cluster for which Jepsen builds an exact ring
TARGETS = ("one", "minority", "majority", "all")
HEALED = Keyword("network-healed")
# Largest error of a clock's rate. A lease stays safe if two clocks differ by twice as much.
DRIFT = 0.04


class Machines(Protocol):
    """The nodes' machines, if the bench can pause them and change their clocks."""

    def pause(self, node_id: str) -> object:
        """Stops the node. Its clock keeps running."""

    def resume(self, node_id: str) -> object:
        """Resumes the node: it handles the messages and timers that have become due."""

    def set_rate(self, node_id: str, rate: float) -> object:
        """Makes the node's clock advance `rate` seconds per second."""


@dataclass
class Fault:
    """A fault that has begun."""

    asked: Any  # value of the :start event that requests it
    done: Any  # value of the :start event that reports it
    end: Action
    shown: str  # short description for the status line
    ended: Any = HEALED  # value of the :stop event that reports its end


class Nemesis:
    """Begins and ends `faults` (names in FAULTS), and reports each step: `note(f, value)`.

    - `kinds`: kinds of partition to draw from. `targets`: targets of a kill to draw from.
    - `loss`, `duplicate`: probability for each message while that fault is active.
    - `machines`: needed for the faults pause and clock.
    - `kill(node_id)` ends a node, `restart(node_id)` starts it again. In between, with
      probability `wipe`, `wipe_one(node_ids)` may remove the files of one of the killed nodes;
      it returns that node or "".
    - `starting`: nodes whose init_ok is still missing. They are not paused: the real nemesis
      waits for init_ok, which has a time-out.
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
        wipe: float = 0.0,
        wipe_one: Callable[[Sequence[str]], str] = lambda node_ids: "",
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
        self.wipe, self.wipe_one = wipe, wipe_one
        self._loop = loop
        self._faults = list(faults)
        self._interval, self._rest = interval_seconds, rest_seconds
        self._note = note
        self._begun: dict[str, Fault] = {}

    @property
    def active(self) -> str:
        """Describes the active faults: "partition: majority, loss: 0.03". "" if there are none."""
        return ", ".join(f"{name}: {fault.shown}" for name, fault in self._begun.items())

    def start(self, end: int) -> None:
        """Begins each fault now, then ends and begins it in turn until the time `end`.

        The delay between two steps of a fault is 0 to 2 intervals, and before the fault begins
        again a rest is added. As in jepsen.generator/stagger, the first step has no delay.
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
    """Cuts links between nodes, by a partition of a random kind."""
    kind = nemesis.rng.choice(nemesis.kinds)
    cut = grudge(kind, nemesis.node_ids, nemesis.rng)
    grudges = nemesis.network.grudges
    grudges["partition"] = cut
    isolated = [Keyword("isolated"), {node: frozenset(cut[node]) for node in cut}]
    return Fault(Keyword(kind), isolated, lambda: grudges.pop("partition"), kind)


def loss(nemesis: Nemesis) -> Fault:
    """Loses messages between servers at random."""
    network, probability = nemesis.network, nemesis.loss
    network.loss = probability
    end = partial(setattr, network, "loss", 0.0)
    return Fault(probability, probability, end, f"{probability:g}")


def duplicate(nemesis: Nemesis) -> Fault:
    """Duplicates messages between servers at random."""
    network, probability = nemesis.network, nemesis.duplicate
    network.duplicate = probability
    end = partial(setattr, network, "duplicate", 0.0)
    return Fault(probability, probability, end, f"{probability:g}")


def kill(nemesis: Nemesis) -> Fault:
    """Kills random nodes, as many as a random target says. The end of the fault restarts them.

    Before that, one of them may lose its files.
    """
    rng, node_ids = nemesis.rng, nemesis.node_ids
    target = rng.choice(nemesis.targets)
    killed = sorted(rng.sample(node_ids, target_size(target, len(node_ids))))
    for node_id in killed:
        nemesis.kill(node_id)
    started = dict.fromkeys(killed, Keyword("started"))

    def end() -> None:
        if nemesis.wipe and killed and rng.random() < nemesis.wipe:
            wiped = nemesis.wipe_one(rng.sample(killed, len(killed)))
            started.update({wiped: Keyword("wiped")} if wiped else {})
        for node_id in killed:
            nemesis.restart(node_id)

    shown = " ".join([target, *killed])
    return Fault(Keyword(target), dict.fromkeys(killed, Keyword("killed")), end, shown, started)


def pause(nemesis: Nemesis) -> Fault:
    """Pauses one node, or a random number of nodes."""
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
    """Makes every clock too fast or too slow, often by the most that leases tolerate."""
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
    """Returns how many of `count` nodes a target selects (jepsen.nemesis.combined/db-nodes).

    Jepsen's `minority` is one less than a majority. Of an even number it is half, of one node 0.
    """
    return {"one": 1, "minority": count // 2, "majority": count // 2 + 1, "all": count}[target]


def grudge(kind: str, node_ids: Sequence[str], rng: random.Random) -> Grudge:
    """Draws a partition of one of the KINDS. The first four follow jepsen.nemesis.combined.

    - `one`: one node against the rest.
    - `majority`: a random majority against the rest.
    - `minority-third`: less than a third of the nodes (none of three) against the rest.
    - `majorities-ring`: each node hears a majority. With up to five nodes, no two nodes hear the
      same majority.
    - `one-way`: one node does not hear the rest, or the rest do not hear it.
    - `one-link`: two nodes do not hear each other.
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
    """Cuts all links between the two sides."""
    return {**{node: set(other) for node in side}, **{node: set(side) for node in other}}


def ring(nodes: Sequence[str]) -> Grudge:
    """Lets each node hear its neighbours on a ring (jepsen.nemesis/majorities-ring-perfect)."""
    count = len(nodes)
    majority = count // 2 + 1
    # The node in the middle of each window of a majority hears the nodes of that window.
    return {
        nodes[(i + majority // 2) % count]: set(nodes)
        - {nodes[(i + j) % count] for j in range(majority)}
        for i in range(count)
    }


def stochastic_ring(nodes: Sequence[str], rng: random.Random) -> Grudge:
    """Links the least connected nodes, in both directions, until each hears a majority.

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
