"""What the board's clock says, from this side of the line: NTP's offset (RFC 5905 section 8), and its drift."""

from collections import deque
from typing import NamedTuple

SAMPLES_MAX = 64
RECENT = 8
DRIFT_AFTER_US = 2_000_000
DRIFT_UNKNOWN = 200e-6
DRIFT_MAX = 500e-6
"""A crystal is better than 200 ppm; a larger estimate is noise of the line."""


class Estimate(NamedTuple):
    """Board time is ``host_us + offset_us + drift * (host_us - at_us)``. ``error_us``: half the round trip."""

    offset_us: float
    drift: float
    at_us: int
    error_us: float

    def board_us(self, host_us: int) -> int:
        """The board's clock, low 32 bits, most likely."""
        return round(host_us + self.offset_us + self.drift * (host_us - self.at_us)) & 0xFFFFFFFF

    def board_not_after_us(self, host_us: int) -> int:
        """The board's clock, low 32 bits, at the earliest: what is stamped so never seems fresher than it is."""
        unsure_us = self.error_us + DRIFT_UNKNOWN * (host_us - self.at_us)
        return round(host_us + self.offset_us + self.drift * (host_us - self.at_us) - unsure_us) & 0xFFFFFFFF


class _Sample(NamedTuple):
    host_us: int
    offset_us: float
    round_trip_us: int


class BoardClock:
    """Takes time replies, keeps the estimate."""

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque(maxlen=SAMPLES_MAX)
        self.estimate: Estimate | None = None
        self.round_trip_us = 0

    def reset(self) -> None:
        """Another board, or the same one started anew."""
        self._samples.clear()
        self.estimate = None

    def __len__(self) -> int:
        return len(self._samples)

    def add(self, asked_us: int, received_us: int, sent_us: int, answered_us: int) -> None:
        """One exchange: host, board, board, host; us. What cannot be is left out."""
        round_trip_us = (answered_us - asked_us) - (sent_us - received_us)
        if answered_us < asked_us or sent_us < received_us or round_trip_us < 0:
            return
        offset_us = ((received_us - asked_us) + (sent_us - answered_us)) / 2.0
        self.round_trip_us = round_trip_us
        self._samples.append(_Sample(answered_us, offset_us, round_trip_us))
        self.estimate = self._estimate()

    def _estimate(self) -> Estimate:
        samples = list(self._samples)
        best = min(samples[-RECENT:], key=lambda sample: sample.round_trip_us)
        early = min(samples[:RECENT], key=lambda sample: sample.round_trip_us)
        span_us = best.host_us - early.host_us
        drift = 0.0
        if span_us >= DRIFT_AFTER_US:
            drift = (best.offset_us - early.offset_us) / span_us
            drift = min(max(drift, -DRIFT_MAX), DRIFT_MAX)
        return Estimate(best.offset_us, drift, best.host_us, best.round_trip_us / 2.0)
