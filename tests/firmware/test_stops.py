"""Host killed or frozen, line unplugged or flooded: the wheels are asked for zero within 100 ms, 20 times each."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from firmware_interface.emulator.stops import Stop, StopTrials

CAUSES = ("killed", "frozen", "unplugged", "flooded")
TRIALS = int(os.environ.get("OUTRIDER_STOPS", "20"))
STOP_MAX_MS = 100.0


def trials(program: Path, folder: Path, cause: str) -> list[Stop]:
    folder.mkdir()
    with StopTrials(program, folder, seed=CAUSES.index(cause)) as rig:
        return [rig.run(cause) for _ in range(TRIALS)]


@pytest.mark.slow
def test_wheels_are_asked_for_zero_within_100_ms_and_stay_there(program: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(len(CAUSES)) as pool:
        results = list(pool.map(lambda cause: trials(program, tmp_path / cause, cause), CAUSES))
    for stops in results:
        assert len(stops) == TRIALS
        # A virtual machine that does not run the emulator is no board that does not run.
        late = [stop for stop in stops if stop.stop_ms > STOP_MAX_MS + stop.stall_ms]
        assert late == []
        assert [stop for stop in stops if stop.restarted] == []
        assert min(stop.stop_ms for stop in stops) > 0.0
