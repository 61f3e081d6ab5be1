"""The nemesis: when faults begin and end, what they cut, and what the history says of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from statistics import mean
from typing import Any

import pytest
from workbench.network.nemesis import (
    DRIFT,
    FAULTS,
    HEALED,
    KINDS,
    TARGETS,
    Nemesis,
    grudge,
    target_size,
)
from workbench.network.network import Latency, Network
from workbench.record.edn import Keyword
from workbench.simulation.loop import VirtualLoop
from workbench.units import SECOND

from raft import LEASE

NODES = ["n0", "n1", "n2", "n3", "n4"]


class Machines:
    """Which nodes are frozen at the moment, and the rates of the clocks."""

    def __init__(self) -> None:
        self.paused: set[str] = set()
        self.rates: dict[str, float] = {}
        self.pause = self.paused.add
        self.resume = self.paused.remove
        self.set_rate = self.rates.__setitem__


class World:
    """A nemesis with a network to disturb; notes what it says, and when (s)."""

    def __init__(self, *faults: str, interval: float = 10, seed: int = 1, **settings: Any) -> None:
        self.loop = VirtualLoop()
        self.said: list[tuple[float, str, Any]] = []
        rng = random.Random(seed)
        self.network = Network(
            self.loop, rng, Latency(0, "constant"), lambda *words: None, lambda *words: None
        )
        self.machines = Machines()
        self.nemesis = Nemesis(
            self.loop, rng, NODES, self.network, faults, interval, self.note,
            machines=self.machines, **settings,
        )  # fmt: skip

    def note(self, f: str, value: Any) -> None:
        self.said.append((self.loop.now() / SECOND, f, value))

    def steps(self, fault: str) -> list[tuple[float, str]]:
        """When a fault began and ended: what was asked for, without what was done."""
        events = [(time, f.removesuffix(f"-{fault}")) for time, f, _ in self.said if fault in f]
        return events[::2]


def test_the_first_fault_comes_at_once_and_the_next_step_after_0_to_2_intervals() -> None:
    world = World("partition", interval=10)
    world.nemesis.start(20_000 * SECOND)
    assert world.steps("partition") == [(0, "start")]
    world.loop.run_until(lambda: False)
    steps = world.steps("partition")
    assert {what for _, what in steps[::2]} == {"start"}
    assert {what for _, what in steps[1::2]} == {"stop"}
    gaps = [after - before for (before, _), (after, _) in pairwise(steps)]
    assert 0 <= min(gaps) < 0.5 and 19.5 < max(gaps) <= 20
    assert abs(mean(gaps) - 10) < 0.5


def test_there_is_a_rest_after_each_end_if_one_is_asked_for() -> None:
    world = World("partition", interval=10, rest_seconds=100)
    world.nemesis.start(20_000 * SECOND)
    world.loop.run_until(lambda: False)
    gaps = [after - before for (before, _), (after, _) in pairwise(world.steps("partition"))]
    assert min(gaps[::2]) >= 0 and max(gaps[::2]) <= 20
    assert min(gaps[1::2]) >= 100 and max(gaps[1::2]) <= 120


def test_nothing_begins_or_ends_after_the_end() -> None:
    world = World(*FAULTS)
    world.nemesis.start(100 * SECOND)
    world.loop.run_until(lambda: False)
    assert 50 < max(time for time, _, _ in world.said) < 100
    late = World(*FAULTS)
    late.nemesis.start(0)
    assert not late.said


def test_each_fault_has_a_rhythm_of_its_own() -> None:
    world = World(*FAULTS)
    world.nemesis.start(1000 * SECOND)
    world.loop.run_until(lambda: False)
    moments = [[time for time, _ in world.steps(fault)[1:]] for fault in FAULTS]
    assert all(moments)
    assert len(set().union(*moments)) == sum(map(len, moments))


def test_the_history_and_the_progress_line_say_what_is_done() -> None:
    world = World("partition", "loss", "duplicate", kinds=["one-link"], loss=0.25)
    world.nemesis.start(SECOND)
    cut = world.network.grudges["partition"]
    first, second = cut
    assert cut == {first: {second}, second: {first}}
    assert (world.network.loss, world.network.duplicate) == (0.25, 0.03)
    assert world.nemesis.active == "partition: one-link, loss: 0.25, duplicate: 0.03"
    world.nemesis.heal()
    assert not world.network.grudges
    assert (world.network.loss, world.network.duplicate) == (0, 0)
    assert world.nemesis.active == ""
    isolated = [
        Keyword("isolated"), {first: frozenset({second}), second: frozenset({first})},
    ]  # fmt: skip
    assert [(f, value) for _, f, value in world.said] == [
        ("start-partition", Keyword("one-link")), ("start-partition", isolated),
        ("start-loss", 0.25), ("start-loss", 0.25),
        ("start-duplicate", 0.03), ("start-duplicate", 0.03),
        ("stop-partition", None), ("stop-partition", HEALED),
        ("stop-loss", None), ("stop-loss", HEALED),
        ("stop-duplicate", None), ("stop-duplicate", HEALED),
    ]  # fmt: skip


def test_a_pause_freezes_one_node_or_more_until_it_ends() -> None:
    counts = set()
    for seed in range(60):
        world = World("pause", seed=seed)
        world.nemesis.start(SECOND)
        paused = sorted(world.machines.paused)
        counts.add(len(paused))
        assert world.said[1] == (0, "start-pause", dict.fromkeys(paused, Keyword("paused")))
        assert world.nemesis.active == f"pause: {' '.join(paused)}"
        world.nemesis.heal()
        assert not world.machines.paused
        assert world.said[-1] == (0, "stop-pause", dict.fromkeys(paused, Keyword("resumed")))
    assert counts == {1, 2, 3, 4, 5}


def test_nodes_whose_init_is_under_way_are_not_paused() -> None:
    for seed in range(20):
        world = World("pause", seed=seed, starting=["n1", "n2"])
        world.nemesis.start(SECOND)
        assert not world.machines.paused & {"n1", "n2"}
        world.nemesis.heal()
        assert not world.machines.paused


def test_clocks_go_wrong_as_far_as_leases_allow_for_and_no_further() -> None:
    found: set[float] = set()
    for seed in range(60):
        world = World("clock", seed=seed)
        world.nemesis.start(SECOND)
        assert world.machines.rates.keys() == {*NODES}
        assert world.said[1] == (0, "start-clock", world.machines.rates)
        found.update(world.machines.rates.values())
        world.nemesis.heal()
        assert {*world.machines.rates.values()} == {1.0}
    assert (min(found), max(found)) == (1 - DRIFT, 1 + DRIFT)
    assert len(found) > 20
    # A leader with the slowest clock must not trust in a promise that the fastest one has ended.
    assert LEASE / (1 - DRIFT) < 1 / (1 + DRIFT)


def test_partitions_are_of_the_kinds_asked_for() -> None:
    def kinds(**settings: Any) -> set[str]:
        world = World("partition", **settings)
        world.nemesis.start(2000 * SECOND)
        world.loop.run_until(lambda: False)
        return {value.name for _, f, value in world.said[::2] if f == "start-partition"}

    assert kinds() == {"one", "majority", "majorities-ring", "minority-third"}
    assert kinds(kinds=["one-way", "one-link"]) == {"one-way", "one-link"}


SIZES = {  # of the smaller side, with 1, 2, ... nodes
    "one": [1, 1, 1, 1, 1, 1, 1, 1, 1],
    "majority": [0, 1, 1, 2, 2, 3, 3, 4, 4],
    "minority-third": [0, 0, 0, 1, 1, 1, 2, 2, 2],
}


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("count", range(1, 10))
def test_a_side_is_as_large_as_jepsens(kind: str, count: int) -> None:
    nodes = [f"n{number}" for number in range(count)]
    size = SIZES[kind][count - 1]
    sides = set()
    for seed in range(50):
        cut = grudge(kind, nodes, random.Random(seed))
        heard = {node: frozenset(nodes) - cut[node] for node in nodes}
        assert all(heard[peer] == heard[node] for node in nodes for peer in heard[node])
        groups = set(heard.values())
        assert {len(group) for group in groups} == {size, count - size} - {0}
        sides.add(min(groups, key=len))
    assert len(sides) > 1 or size == 0 or count < 3  # any node may be on it


@pytest.mark.parametrize("count", range(1, 10))
def test_in_a_ring_each_node_hears_a_majority(count: int) -> None:
    nodes = [f"n{number}" for number in range(count)]
    for seed in range(50):
        cut = grudge("majorities-ring", nodes, random.Random(seed))
        heard = {node: frozenset(nodes) - cut[node] for node in nodes}
        majority = count // 2 + 1
        assert all(node in heard[node] for node in nodes)
        assert min(map(len, heard.values())) == majority
        if count <= 5:
            assert max(map(len, heard.values())) == majority
            assert count < 3 or len(set(heard.values())) == count
        if count > 3:  # links work in both directions
            assert all(node in heard[peer] for node in nodes for peer in heard[node])
        if count > 5:  # and hardly any node has more of them than it needs
            assert sum(len(peers) - majority for peers in heard.values()) <= count // 2
            assert len(set(heard.values())) > 1


def test_in_a_ring_of_three_each_link_is_cut_in_one_direction() -> None:
    cut = grudge("majorities-ring", ["n0", "n1", "n2"], random.Random(1))
    assert sorted(map(len, cut.values())) == [1, 1, 1]
    assert {frozenset({node, *dropped}) for node, dropped in cut.items()} == {
        frozenset({"n0", "n1"}), frozenset({"n1", "n2"}), frozenset({"n0", "n2"}),
    }  # fmt: skip


def test_a_one_way_cut_makes_one_node_deaf_or_mute() -> None:
    cuts = [grudge("one-way", NODES, random.Random(seed)) for seed in range(100)]
    deaf = [cut for cut in cuts if len(cut) == 1]
    mute = [cut for cut in cuts if len(cut) == 4]
    assert len(deaf) + len(mute) == 100 and deaf and mute
    for cut in deaf:
        assert {*cut}.union(*cut.values()) == {*NODES} and len({*cut}) == 1
    for cut in mute:
        (silent,) = set.union(*cut.values())
        assert {silent, *cut} == {*NODES}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2])
def test_with_few_nodes_too_no_node_drops_itself(kind: str, count: int) -> None:
    for seed in range(20):
        cut = grudge(kind, NODES[:count], random.Random(seed))
        assert all(node not in dropped for node, dropped in cut.items())


def test_a_kill_is_of_one_of_the_targets_and_all_start_again() -> None:
    seen: dict[str, set[int]] = {}
    for seed in range(60):
        killed: list[str] = []
        started: list[str] = []
        world = World("kill", seed=seed, kill=killed.append, restart=started.append)
        world.nemesis.start(SECOND)
        target = world.said[0][2].name
        seen.setdefault(target, set()).add(len(killed))
        assert world.said[1] == (0, "start-kill", dict.fromkeys(killed, Keyword("killed")))
        assert world.nemesis.active == f"kill: {' '.join([target, *killed])}" and not started
        world.nemesis.heal()
        assert started == killed
        assert world.said[-1] == (0, "stop-kill", dict.fromkeys(killed, Keyword("started")))
    assert seen == {"one": {1}, "minority": {2}, "majority": {3}, "all": {5}}


def test_of_killed_nodes_one_may_be_wiped_before_they_start_again() -> None:
    wiped = set()
    for seed in range(60):
        events: list[str] = []

        def wipe_one(node_ids: Sequence[str], events: list[str] = events) -> str:
            events.append(f"wipe {node_ids[0]}")
            return node_ids[0]

        world = World(
            "kill", seed=seed, kill=lambda node_id: None, restart=events.append, wipe=0.5,
            wipe_one=wipe_one, targets=["minority"],
        )  # fmt: skip
        world.nemesis.start(SECOND)
        assert not events
        world.nemesis.heal()
        (_, _, values) = world.said[-1]
        lost = [node_id for node_id, what in values.items() if what == Keyword("wiped")]
        assert events == [*(f"wipe {node_id}" for node_id in lost), *values]
        wiped.add(len(lost))
    assert wiped == {0, 1}


def test_kills_are_of_the_targets_asked_for() -> None:
    killed: list[str] = []
    world = World("kill", targets=["one"], kill=killed.append)
    world.nemesis.start(200 * SECOND)
    world.loop.run_until(lambda: False)
    assert len(killed) == sum(f == "start-kill" for _, f, _ in world.said) / 2 > 3
    assert {*killed} == {*NODES}


@pytest.mark.parametrize(("count", "sizes"), [(1, [1, 0, 1, 1]), (4, [1, 2, 3, 4])])
def test_a_target_is_as_large_as_jepsens(count: int, sizes: list[int]) -> None:
    assert [target_size(target, count) for target in TARGETS] == sizes
