"""The board's clock as the host knows it, against numbers worked out by hand."""

import pytest

from firmware_interface.link.clock import (
    DRIFT_AFTER_US,
    DRIFT_MAX,
    DRIFT_UNKNOWN,
    RECENT,
    SAMPLES_MAX,
    BoardClock,
    Estimate,
)

OFFSET_US = 3_000_000


def ask(
    clock: BoardClock,
    asked_us: int,
    there_us: int = 0,
    back_us: int = 0,
    drift: float = 0.0,
    held_us: int = 0,
) -> None:
    """One exchange: so long to the board, held there, so long back."""
    received_us = asked_us + there_us + OFFSET_US + round(drift * asked_us)
    clock.add(asked_us, received_us, received_us + held_us, asked_us + there_us + held_us + back_us)


def known(clock: BoardClock) -> Estimate:
    assert clock.estimate is not None
    return clock.estimate


def test_the_first_answer_is_the_estimate() -> None:
    clock = BoardClock()
    assert (clock.estimate, clock.round_trip_us, len(clock)) == (None, 0, 0)
    ask(clock, 1000, there_us=300, back_us=100, held_us=50)
    assert clock.round_trip_us == 400
    # It cannot be told that the way there was longer: the middle is 100 us off, within half the round trip.
    assert clock.estimate == Estimate(OFFSET_US + 100.0, 0.0, 1450, 200.0)


def test_what_is_stamped_is_at_the_earliest() -> None:
    estimate = Estimate(OFFSET_US, 100e-6, 1_000_000, 200.0)
    assert estimate.board_us(1_000_000) == 1_000_000 + OFFSET_US
    assert estimate.board_us(3_000_000) == 3_000_000 + OFFSET_US + 200
    assert estimate.board_not_after_us(1_000_000) == 1_000_000 + OFFSET_US - 200
    assert (
        estimate.board_not_after_us(3_000_000) == 3_000_000 + OFFSET_US + 200 - 200 - 2 * DRIFT_UNKNOWN * 1e6
    )
    late = Estimate(2.0**32, 0.0, 0, 0.0)
    assert (late.board_us(5), late.board_not_after_us(5)) == (5, 5), "32 bits of it"


@pytest.mark.parametrize(
    ("exchange", "kept"),
    [
        ((1000, 2000, 2000, 1000), True),
        ((1000, 2000, 2000, 999), False),
        ((1000, 2000, 1999, 1500), False),
        ((1000, 2000, 2500, 1500), True),
        ((1000, 2000, 2501, 1500), False),
    ],
)
def test_an_answer_that_cannot_be_is_left_out(exchange: tuple[int, int, int, int], kept: bool) -> None:
    clock = BoardClock()
    clock.add(*exchange)
    assert (len(clock), clock.estimate is not None) == (int(kept), kept)


def test_the_quickest_of_the_last_answers_counts() -> None:
    clock = BoardClock()
    ask(clock, 1000, there_us=10, back_us=10)
    ask(clock, 2000, there_us=900, back_us=100)
    assert known(clock).at_us == 1020
    assert clock.round_trip_us == 1000, "of the newest"
    ask(clock, 4000, there_us=5, back_us=5)
    assert (known(clock).at_us, known(clock).error_us) == (4010, 5.0)
    for count in range(RECENT):
        assert known(clock).at_us == 4010
        ask(clock, 10_000 * (count + 1), there_us=400, back_us=400)
    assert known(clock).at_us == 10_800, "the quick one is too long ago"


@pytest.mark.parametrize("drift", [40e-6, -40e-6, 0.002, -0.002])
def test_the_drift_is_found_and_never_more_than_a_crystal_has(drift: float) -> None:
    clock = BoardClock()
    ask(clock, 0, drift=drift)
    ask(clock, DRIFT_AFTER_US - 1, drift=drift)
    # The quickest one of the first: both are as quick, so it is still the very first, and the best is, too.
    assert known(clock).drift == 0.0
    for count in range(RECENT):
        ask(clock, DRIFT_AFTER_US + count, drift=drift)
    bounded = min(max(drift, -DRIFT_MAX), DRIFT_MAX)
    assert known(clock).drift == pytest.approx(bounded, abs=1e-6)


def test_the_drift_is_measured_from_the_quickest_of_the_first_answers() -> None:
    clock = BoardClock()
    ask(clock, 0, there_us=800)
    ask(clock, 1000)
    for count in range(RECENT):
        ask(clock, DRIFT_AFTER_US + 1000 + count, there_us=20, back_us=20)
    assert known(clock).drift == 0.0, "the slow one would have been 400 us of drift"
    assert known(clock).offset_us == OFFSET_US


def test_no_drift_is_told_from_a_moment() -> None:
    clock = BoardClock()
    ask(clock, 0, drift=40e-6)
    for count in range(RECENT):
        ask(clock, DRIFT_AFTER_US - RECENT + count, drift=40e-6)
    assert known(clock).drift == 0.0
    ask(clock, DRIFT_AFTER_US + RECENT, drift=40e-6)
    for count in range(RECENT):
        ask(clock, DRIFT_AFTER_US + 10 * RECENT + count, drift=40e-6)
    assert known(clock).drift == pytest.approx(40e-6, abs=1e-6)


def test_it_keeps_the_newest_answers_and_forgets_all_for_another_board() -> None:
    clock = BoardClock()
    for count in range(SAMPLES_MAX + 10):
        ask(clock, 1000 * count)
    assert len(clock) == SAMPLES_MAX
    clock.reset()
    assert (len(clock), clock.estimate) == (0, None)
