"""Intervals and tests against hand-worked examples, and against data whose truth is known."""

import numpy as np
import pytest

from trainer.evaluation.statistics import (
    Counts,
    Excess,
    exact_interval,
    excess,
    gain,
    mean_interval,
    newcombe_high95,
)

CLUSTERS, TRIPS = 24, 9
TRUTH_REFERENCE_S, TRUTH_OTHER_S = 24.0, 18.0


@pytest.mark.parametrize(
    ("events", "trips", "low", "high"),
    [
        (0, 10, 0.0, 0.3085),
        (10, 10, 0.6915, 1.0),
        (5, 10, 0.1871, 0.8129),
        (81, 263, 0.2527, 0.3676),
    ],
)
def test_exact_interval_is_the_published_one(events, trips, low, high):
    """0, 5 and 10 of 10: the tables' values; none in ten is 1 - 0.025 ** (1 / 10). 81 of 263: Newcombe 1998."""
    came = exact_interval(Counts(events, trips))
    assert (came.value, came.low, came.high) == pytest.approx((events / trips, low, high), abs=1e-4)
    if events == 0:
        assert came.high == pytest.approx(1 - 0.025 ** (1 / trips))


def test_none_in_n_is_not_proof():
    """Wilson's bound for none in n is z^2 / (n + z^2), worked by hand; z = 1.6449."""
    for trips, bound in ((30, 2.7055 / 32.7055), (1000, 2.7055 / 1002.7055)):
        assert newcombe_high95(Counts(0, trips), Counts(0, trips)) == pytest.approx(bound, rel=1e-4)
    none = np.zeros(10)
    few, many = (excess(none, none[None], trips, 0.005) for trips in (30, 1000))
    assert not few.shown
    assert "NOT shown" in few.verdict
    assert many.shown
    assert many.verdict.startswith("no more contacts than the reference: shown")


def test_newcombes_own_example():
    """Newcombe 1998, table II, 56/70 against 48/80, method 10; here with 90 % ends, which are one-sided 95 %."""
    new, old = Counts(56, 70), Counts(48, 80)
    z2 = 1.6448536**2
    up = (0.8 + z2 / 140 + 1.6448536 * np.sqrt(0.16 / 70 + z2 / 19600)) / (1 + z2 / 70) - 0.8
    down = 0.6 - (0.6 + z2 / 160 - 1.6448536 * np.sqrt(0.24 / 80 + z2 / 25600)) / (1 + z2 / 80)
    assert newcombe_high95(new, old) == pytest.approx(0.2 + np.hypot(up, down), abs=1e-6)


def test_margin_is_a_strict_bound():
    assert not Excess(0.0, 0.005, 0.005).shown
    assert Excess(0.0, 0.00499, 0.005).shown
    assert Excess(0.02, 0.03, 0.005).verdict.startswith("more contacts than the reference")


def test_gain_by_hand():
    """Everything twice as fast in each cluster: no doubt about it. One cluster of two the same: 1 - 30 / 40."""
    reference = np.array([10.0, 30.0])
    sure = gain(reference, reference[None] / 2)
    assert (sure.value, sure.low, sure.high) == (0.5, 0.5, 0.5)
    half = gain(reference, np.array([[10.0, 20.0]]))
    assert half.value == pytest.approx(0.25)
    # Two clusters draw (0, 0), (0, 1), (1, 1): gains 0, 1/4 and 1/3, the outer ones with a quarter each.
    assert (half.low, half.high) == pytest.approx((0.0, 1 / 3))


def test_seeds_that_differ_widen_the_interval():
    rng = np.random.default_rng(1)
    reference = rng.normal(24.0, 3.0, CLUSTERS)
    alike = np.tile(reference * 0.8, (5, 1))
    apart = alike * np.array([0.8, 0.9, 1.0, 1.1, 1.2])[:, None]
    narrow, wide = gain(reference, alike), gain(reference, apart)
    assert narrow.value == pytest.approx(wide.value)
    assert narrow.high - narrow.low < 1e-9
    assert wide.high - wide.low > 0.15


def simulated(rng, seeds=0):
    """Mean times of clusters: trips of one cluster share its hardness, seeds (where asked) their own skill."""
    hardness = rng.normal(0.0, 4.0, CLUSTERS)
    noise = rng.normal(0.0, 5.0, (2 + seeds, CLUSTERS, TRIPS)).mean(axis=2)
    reference = TRUTH_REFERENCE_S + hardness + noise[0]
    if not seeds:
        return reference, (TRUTH_OTHER_S + hardness + noise[1])[None]
    return reference, TRUTH_OTHER_S + rng.normal(0.0, 1.5, (seeds, 1)) + hardness + noise[2:]


@pytest.mark.parametrize("seeds", [0, 6])
def test_intervals_hold_the_truth_as_often_as_they_say(seeds):
    rng = np.random.default_rng(7)
    truth, held, rounds = 1.0 - TRUTH_OTHER_S / TRUTH_REFERENCE_S, 0, 150
    for number in range(rounds):
        found = gain(*simulated(rng, seeds), seed=number)
        held += found.low <= truth <= found.high
    # 95 % asked; what 150 rounds can tell, and crossed draws give a little more.
    assert 0.90 <= held / rounds <= 1.0


def test_single_trips_would_promise_too_much():
    """What resampling clusters is for: trips drawn one by one give an interval that misses the truth too often."""
    rng = np.random.default_rng(4)
    held = {"clusters": 0, "trips": 0}
    for number in range(150):
        trips = (rng.normal(20.0, 4.0, CLUSTERS)[:, None] + rng.normal(0.0, 2.0, (CLUSTERS, TRIPS))).reshape(
            -1
        )
        for name, values in (("clusters", trips.reshape(CLUSTERS, TRIPS).mean(axis=1)), ("trips", trips)):
            found = mean_interval(values, seed=number)
            held[name] += found.low <= 20.0 <= found.high
    assert held["clusters"] >= 0.88 * 150
    assert held["trips"] < 0.75 * 150


def test_contact_bound_errs_on_the_safe_side():
    """True excess equal to the margin: non-inferiority must be claimed in at most about one case of twenty."""
    rng, claimed, rounds = np.random.default_rng(5), 0, 150
    for number in range(rounds):
        old = rng.binomial(40, 0.01, 30) / 40
        new = rng.binomial(40, 0.03, (1, 30)) / 40
        claimed += excess(old, new, 1200, 0.02, seed=number).shown
    assert claimed / rounds <= 0.09
