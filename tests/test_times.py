"""Times: the timeouts that follow from measured round trips. Nothing is configured."""

from __future__ import annotations

import pytest

from raft import MAX_TIMEOUT, SAMPLE_INTERVAL, Times

LONG_AGO = 51  # samples that count; older ones are forgotten


def measured(*round_trips: float, leads: bool = True, others: int = 2) -> Times:
    """The times of a node that has measured these round trips, a second apart."""
    times = Times(others)
    for second, seconds in enumerate(round_trips, 100):
        times.measure(float(second), second - seconds, leads)
    return times


@pytest.mark.parametrize("leads", [True, False])
def test_the_median_of_the_round_trips_counts(leads: bool) -> None:
    assert measured(*[0.2] * LONG_AGO, leads=leads).rtt == pytest.approx(0.2)
    assert measured(*[0.1] * 26, *[0.2] * 25, leads=leads).rtt == pytest.approx(0.1)
    assert measured(*[0.1] * 25, *[0.2] * 26, leads=leads).rtt == pytest.approx(0.2)


def test_a_longer_round_trip_makes_the_timeout_longer() -> None:
    assert measured(*[0.2] * LONG_AGO).timeout == pytest.approx(0.5)
    assert measured(*[0.4] * LONG_AGO).timeout == pytest.approx(1.0)


def test_the_timeout_has_a_minimum_and_a_maximum() -> None:
    assert measured(*[0.0] * LONG_AGO).timeout == Times(2).timeout >= 0.3
    assert measured(*[1000.0] * LONG_AGO).timeout == MAX_TIMEOUT


def test_a_few_long_round_trips_are_a_pause_and_change_no_timeout() -> None:
    assert measured(*[0.0] * 10, *[4.0] * 5).timeout < 0.5


def test_many_answers_at_once_are_one_sample() -> None:
    times = measured(0.0)
    for _ in range(60):
        times.measure(200.0, 199.0, True)
    assert times.rtt == 0.15
    for _ in range(60):
        times.measure(200.0 + 0.9 * SAMPLE_INTERVAL, 199.0, True)
    assert times.rtt == 0.15
    for second in range(60):
        times.measure(201.0 + second, 200.0 + second, True)
    assert times.rtt == 1.0


def test_a_round_trip_is_never_negative() -> None:
    """A leader's stamps increase even while its clock stands still, so they may be ahead."""
    assert measured(*[-0.001] * LONG_AGO).rtt == 0.0


def test_a_candidate_measures_but_keeps_its_timeout_until_it_leads() -> None:
    times = measured(*[0.4] * LONG_AGO, leads=False)
    assert times.rtt == pytest.approx(0.4) and times.timeout == Times(2).timeout
    times.set_timeout()
    assert times.timeout == pytest.approx(1.0)


def test_a_follower_takes_its_leaders_values_at_once() -> None:
    times = measured(*[0.4] * LONG_AGO)
    times.follow(rtt=0.1, timeout=2.0)
    assert (times.rtt, times.timeout) == (0.1, 2.0)


def test_a_follower_that_leads_has_samples_of_its_leaders_round_trips() -> None:
    times = Times(2)
    for _ in range(10):
        times.follow(rtt=0.2, timeout=2.0)
    times.set_timeout()
    assert times.rtt == 0.2 and times.timeout == pytest.approx(0.5)


def test_two_heartbeats_may_be_late_before_the_timeout() -> None:
    for times in (Times(2), measured(*[0.4] * LONG_AGO), measured(*[9.0] * LONG_AGO)):
        assert times.heartbeat <= times.timeout / 1.8


def test_a_far_network_has_fewer_heartbeats() -> None:
    assert measured(*[2.0] * LONG_AGO).heartbeat == pytest.approx(5.0 / 4)


@pytest.mark.parametrize("nodes", [1, 3, 7, 15, 50])
def test_heartbeats_and_their_answers_are_at_most_48_messages_a_second(nodes: int) -> None:
    others = nodes - 1
    assert 2 * others / Times(others).heartbeat <= 48.0 + 1e-9


@pytest.mark.parametrize(("rtt", "patience"), [(0.0, 0.9), (0.1, 0.9), (0.4, 1.8)])
def test_patience_is_nine_latencies_and_at_least_nine_tenths_of_a_second(
    rtt: float, patience: float
) -> None:
    """Maelstrom's clients wait for ten latencies, and for a second at least."""
    times = Times(2)
    times.follow(rtt, timeout=1.0)
    assert times.patience == pytest.approx(patience)
