"""How the link does."""

import dataclasses

from firmware_interface.link.machine import LinkMachine
from firmware_interface.protocol.frames import Verdict


@dataclasses.dataclass
class Statistics:
    """Counted since the start, over all sessions."""

    sessions: int = 0
    frames_in: int = 0
    frames_bad: int = 0
    """Dropped: CRC, COBS, length, range."""
    crc_errors: int = 0
    resyncs: int = 0
    frames_out: int = 0
    frames_unsent: int = 0
    commands_out: int = 0
    round_trip_us: int = 0
    """Of the newest time exchange, the board's own share taken off."""
    round_trip_max_us: int = 0
    clock_error_us: float = 0.0
    drift_ppm: float = 0.0

    def note(self, machine: LinkMachine) -> None:
        """Take over what the machine has counted."""
        reader = machine.reader
        self.frames_in, self.frames_bad, self.resyncs = reader.good, reader.bad_total, reader.resyncs
        self.crc_errors = reader.bad.get(Verdict.BAD_CRC, 0)
        self.round_trip_us = machine.clock.round_trip_us
        self.round_trip_max_us = max(self.round_trip_max_us, self.round_trip_us)
        estimate = machine.clock.estimate
        if estimate is not None:
            self.clock_error_us, self.drift_ppm = estimate.error_us, 1e6 * estimate.drift

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return dataclasses.asdict(self)
