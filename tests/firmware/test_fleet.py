"""PyBullet's robots behind real boards: the wheels turn as the firmware says, and its sensors see what came of it."""

import contextlib
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from contracts.robot import TUGGER
from firmware_interface.emulator.fleet import EVENTS_FILE, PORTS_FILE, BoardFleet
from firmware_interface.errors import EmulatorError, FirmwareError, RefusedError
from firmware_interface.link.client import FirmwareLink
from firmware_interface.protocol import frames
from firmware_interface.protocol.frames import Fault, State
from firmware_interface.transport.ports import open_port
from navigation.warehouse import load_warehouse
from sim.errors import SimConfigError
from sim.physics.boards import Battery, BoardDrive, check_run
from sim.world.library import find_layout
from sim.world.run import STEP_S, FloorRun
from tests.support.waiting import wait_for

WAIT_STEPS = 1200
TRIES_MAX = 10
EXPIRY_US = 200_000
"""As long as it may be: here a busy test and not a frozen host is late."""
STANDING = np.zeros((2, 2))


class Rig:
    """A floor with two robots whose wheels boards turn, and a host on the first one's line. No ROS."""

    def __init__(self, program: Path, folder: Path, rate: float = 1.0) -> None:
        self.run = FloorRun(load_warehouse(find_layout(Path("small"))), 1, 2, "wheeled")
        self.run.step(STANDING)  # what is compiled at the first step is compiled now
        self.fleet = BoardFleet(self.run.names, folder / "ports", rate, program)
        self.drive = BoardDrive(self.run, self.fleet)
        self.link = FirmwareLink(lambda: open_port(self.fleet.ports["robot_1"]), repeat_s=0.02, rate=rate)
        self.command: tuple[float, float] | None = None
        self._period_s, self._due_s = STEP_S / rate, time.monotonic()
        self.step()
        self.link.start()

    def step(self) -> None:
        """One step of the floor, in time; the command goes out before it."""
        if self.command is not None:
            self.link.send_command(*self.command, expiry_us=EXPIRY_US)
        self.drive.before_step()
        self.run.step(STANDING)
        self.drive.after_step()
        self._due_s = max(self._due_s + self._period_s, time.monotonic() - self._period_s)
        time.sleep(max(0.0, self._due_s - time.monotonic()))

    def until(self, holds: Callable[[], bool]) -> None:
        """Step until it holds."""
        for _ in range(WAIT_STEPS):
            if holds():
                return
            self.step()
        raise AssertionError(f"not within {WAIT_STEPS} steps; board: {self.link.latest(frames.Status)}")

    def drive_until(self, holds: Callable[[], bool]) -> None:
        """As a person would: arm, and again where the board stopped because this machine was late."""

        def held() -> bool:
            status = self.link.latest(frames.Status)
            if self.link.open and status is not None and status.state == State.DISARMED:
                with contextlib.suppress(FirmwareError):
                    self.link.arm()
            elif self.link.open and status is not None and status.faults == Fault.SENSOR:
                with contextlib.suppress(FirmwareError):
                    self.link.clear_faults()
            return holds()

        self.until(held)

    def state(self) -> State:
        return State(self.link.wait_frame(frames.Status).state)

    def speed(self, robot: int = 0) -> tuple[float, float]:
        forward, turn = self.run.state.velocity[0, robot].tolist()
        return forward, turn

    def wheels(self) -> np.ndarray:
        return self.run.physics.read_wheels(0).wheels_radps

    def close(self) -> None:
        self.link.close()
        emulators = [self.fleet.emulator(name) for name in self.run.names]
        self.fleet.close()
        self.run.close()
        codes = [emulator.process.returncode for emulator in emulators if emulator is not None]
        assert all(code == 0 for code in codes), "a sanitizer found something"


@pytest.fixture
def rig(program: Path, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(program, tmp_path)
    yield made
    made.close()


def test_the_robot_moves_as_the_board_says_and_the_board_feels_it(rig: Rig) -> None:
    start = rig.run.state.pose[0].copy()
    rig.until(lambda: rig.link.open)
    rig.command = (0.0, 0.8)
    rig.step()
    assert np.abs(rig.wheels()).max() < 0.1, "nobody has armed it"
    rig.drive_until(lambda: rig.speed()[1] > 0.7)
    assert abs(rig.speed()[0]) < 0.1

    def felt() -> bool:
        wheels, imu = rig.link.latest(frames.Wheels), rig.link.latest(frames.Imu)
        battery = rig.link.latest(frames.Battery)
        assert wheels is not None
        assert imu is not None
        assert battery is not None
        assert 24.0 < battery.voltage_v < 25.2
        return (
            wheels.right_radps == pytest.approx(-wheels.left_radps, abs=0.3)
            and wheels.right_radps == pytest.approx(0.8 * 0.2 / 0.08, abs=0.4)
            and imu.turn_rate_z_radps == pytest.approx(0.8, abs=0.15)
            and battery.current_a > 0.5
            and battery.charge < 1.0
        )

    rig.drive_until(felt)
    rig.drive_until(lambda: abs(math.remainder(rig.run.state.pose[0, 0, 2] - start[0, 2], math.tau)) > 0.3)
    assert np.abs(rig.run.state.pose[0, 1] - start[1]).max() < 0.01, "the other robot has a board of its own"


def test_without_commands_the_board_stops_the_wheels_and_keeps_them(rig: Rig) -> None:
    rig.until(lambda: rig.link.open)
    rig.command = (0.0, 0.8)
    rig.drive_until(lambda: rig.speed()[1] > 0.4)
    rig.command = None
    rig.until(lambda: abs(rig.speed()[1]) < 0.02)
    assert rig.state() == State.DISARMED
    rig.command = (0.0, 0.8)
    for _ in range(10):
        rig.step()
    assert np.abs(rig.wheels()).max() < 0.1


def test_what_it_runs_into_presses_the_bumper_and_faults_it(rig: Rig) -> None:
    rig.until(lambda: rig.link.open)
    rig.command = (0.5, 0.0)
    rig.drive_until(lambda: rig.run.state.contact[0, 0] != 0)
    rig.command = None
    rig.until(lambda: bool(rig.link.wait_frame(frames.Status).faults & Fault.BUMPER))
    assert rig.link.wait_frame(frames.Bumper).bumpers & 1, "it drove forward"
    rig.until(lambda: np.abs(rig.wheels()).max() < 0.1)
    with pytest.raises(RefusedError, match="faulted"):
        rig.link.arm()


def test_a_killed_board_stops_its_robot_and_comes_back_disarmed(rig: Rig, tmp_path: Path) -> None:
    rig.until(lambda: rig.link.open)
    rig.command = (0.0, 0.8)
    rig.drive_until(lambda: rig.speed()[1] > 0.4)
    found = json.loads((tmp_path / "ports" / PORTS_FILE).read_bytes())
    before, sessions = found["robot_1"]["pid"], rig.link.statistics.sessions
    os.kill(before, signal.SIGKILL)
    rig.until(lambda: not rig.link.open or rig.link.statistics.sessions > sessions)
    rig.until(lambda: np.abs(rig.wheels()).max() < 0.1)
    rig.until(lambda: rig.link.open)
    for _ in range(5):
        rig.step()
    assert rig.state() == State.DISARMED
    assert np.abs(rig.wheels()).max() < 0.1
    rig.drive_until(lambda: rig.speed()[1] > 0.4)
    assert json.loads((tmp_path / "ports" / PORTS_FILE).read_bytes())["robot_1"]["pid"] != before
    lines = (tmp_path / "ports" / EVENTS_FILE).read_text().splitlines()
    what = [json.loads(line)["what"] for line in lines if json.loads(line)["robot"] == "robot_1"]
    assert [word for word in what if word in ("started", "ended")] == ["started", "ended", "started"]
    assert rig.fleet.counts()["robot_1"]["starts"] == 2
    assert rig.fleet.counts()["robot_2"]["starts"] == 1


def test_in_a_faster_simulation_the_boards_clock_goes_as_fast(program: Path, tmp_path: Path) -> None:
    rig = Rig(program, tmp_path, rate=2.0)
    try:
        rig.until(lambda: rig.link.open)
        rig.command = (0.0, 0.8)
        rig.drive_until(lambda: rig.speed()[1] > 0.7)

        def twice_as_fast() -> bool:
            """Unless this process stood still between a frame's coming and its look at the clock."""
            first, first_s = rig.link.wait_frame(frames.Wheels, 30.0), time.monotonic()
            for _ in range(10):
                rig.step()
            last, last_s = rig.link.wait_frame(frames.Wheels, 30.0), time.monotonic()
            told_s = (last.time_us - first.time_us) / 1e6
            return bool(told_s == pytest.approx(2.0 * (last_s - first_s), abs=0.1))

        assert any(twice_as_fast() for _ in range(TRIES_MAX))
        rig.until(lambda: rig.link.statistics.clock_error_us < 50_000)
    finally:
        rig.close()


def test_a_board_that_hears_nothing_of_its_robot_stops(rig: Rig) -> None:
    rig.until(lambda: rig.link.open)
    wait_for(lambda: (s := rig.link.latest(frames.Status)) and s.faults & Fault.SENSOR, "the fault")

    def cleared() -> bool:
        with contextlib.suppress(FirmwareError):
            return rig.link.clear_faults() == 0
        return False

    rig.until(cleared)


@pytest.mark.parametrize(
    ("kind", "model", "why"), [("planar", None, "wheels"), ("wheeled", TUGGER, "amr_small")]
)
def test_a_floor_that_boards_cannot_drive_is_refused(kind: str, model: object, why: str) -> None:
    more = {} if model is None else {"model": model}
    run = FloorRun(load_warehouse(find_layout(Path("small"))), 1, 1, kind, **more)  # type: ignore[arg-type]
    try:
        with pytest.raises(SimConfigError, match=why):
            check_run(run)
    finally:
        run.close()


def test_a_folder_that_cannot_be_made_is_named(program: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmulatorError, match="choose another folder"):
        BoardFleet(["robot_1"], tmp_path / "file" / "ports", program=program)


def test_a_battery_sags_under_load_and_empties() -> None:
    battery = Battery()
    battery.draw(25.0, 0.05)
    idle_v = battery.voltage_v
    battery.draw(500.0, 0.05)
    assert battery.voltage_v < idle_v
    assert battery.current_a == pytest.approx(500.0 / 25.2, rel=0.01)
    battery.draw(25.0, 1e9)
    assert battery.charge == 0.0
