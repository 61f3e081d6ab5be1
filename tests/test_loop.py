"""The two loops: what is due is done in order, and the clock is the loop's."""

from __future__ import annotations

import os
import selectors
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from workbench.simulation.loop import Loop, RealLoop, VirtualLoop
from workbench.units import SECOND

MS = SECOND // 1000


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("make", [RealLoop, VirtualLoop])
def test_actions_come_in_order_of_time_and_then_of_making(make: type[Loop]) -> None:
    loop = make()
    seen: list[str] = []
    late = loop.now() + MS
    for moment, name in [(late, "c"), (late - 1, "b"), (late, "d"), (0, "a"), (late + 1, "e")]:
        loop.at(moment, lambda name=name: seen.append(name))  # type: ignore[misc]
    loop.run_until(lambda: len(seen) == 5)
    assert seen == list("abcde")


@pytest.mark.parametrize("make", [RealLoop, VirtualLoop])
def test_nothing_comes_before_it_is_due(make: type[Loop]) -> None:
    loop = make()
    seen: list[int] = []
    begun = loop.now()
    for delay in (3 * MS, MS, 0, -MS):
        loop.after(delay, lambda due=begun + delay: seen.append(loop.now() - due))  # type: ignore[misc]
    loop.run_until(lambda: len(seen) == 4)
    assert min(seen) >= 0


def test_virtual_time_jumps_to_the_next_action_and_stands_still_in_it() -> None:
    loop = VirtualLoop()
    seen: list[int] = []

    def action() -> None:
        before = loop.now()
        loop.at(before - SECOND, lambda: seen.append(loop.now()))  # overdue: now
        loop.after(60 * SECOND, lambda: seen.append(loop.now()))
        assert loop.now() == before
        seen.append(before)

    loop.after(5 * SECOND, action)
    assert loop.now() == 0
    loop.run_until(lambda: len(seen) == 3)
    assert seen == [5 * SECOND, 5 * SECOND, 65 * SECOND]


def test_virtual_time_looks_after_each_action_whether_it_is_done() -> None:
    loop = VirtualLoop()
    seen: list[int] = []
    for number in range(3):
        loop.after(0, lambda number=number: seen.append(number))  # type: ignore[misc]
    loop.run_until(lambda: seen == [0])
    loop.run_until(lambda: seen == [0, 1, 2])


def test_virtual_time_does_not_hang_when_nothing_is_left_to_do() -> None:
    VirtualLoop().run_until(lambda: False)


def test_the_real_loop_sees_files_while_it_waits_for_a_moment() -> None:
    loop = RealLoop()
    seen: list[bytes] = []
    with pipe() as (reader, writer):

        def write() -> None:
            loop.unwatch(writer)
            os.write(writer, b"x")

        loop.watch(reader, lambda: seen.append(os.read(reader, 10)))
        loop.watch(writer, write, selectors.EVENT_WRITE)
        loop.after(3600 * SECOND, lambda: seen.append(b"late"))
        loop.run_until(lambda: bool(seen))
        assert seen == [b"x"]
        os.write(writer, b"y")
        loop.unwatch(reader)
        loop.unwatch(reader)  # twice is harmless
        loop.after(MS, lambda: seen.append(b"timer"))
        loop.run_until(lambda: len(seen) == 2)
        assert seen == [b"x", b"timer"]


def test_the_real_loop_says_when_there_are_more_files_than_it_can_wait_for() -> None:
    with pytest.raises(OSError, match="too many nodes"):
        RealLoop().watch(1024, lambda: None)


def test_the_real_loop_does_not_round_up_to_milliseconds() -> None:
    """The best of many waits counts: a busy machine delays some, rounding delays them all."""
    loop = RealLoop()
    late: list[int] = []

    def wait() -> None:
        due = loop.now() + MS // 5

        def note() -> None:
            late.append(loop.now() - due)
            wait()

        loop.at(due, note)

    wait()
    loop.run_until(lambda: bool(late) and (min(late) < MS // 2 or len(late) == 1000))
    assert min(late) < MS // 2
