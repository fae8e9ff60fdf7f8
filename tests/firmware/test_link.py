"""The host's link on real ports: opening, asking, reconnecting, updating; and what is wrong with a port, by name."""

import contextlib
import os
import pty
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from firmware_interface.emulator.plant import Plant, Sample
from firmware_interface.emulator.process import Emulator
from firmware_interface.errors import (
    EmulatorError,
    FieldRangeError,
    FirmwareError,
    ImageError,
    LinkLostError,
    NoBoardError,
    ParameterError,
    PortBusyError,
    PortMissingError,
    RefusedError,
    SchemaMismatchError,
)
from firmware_interface.link.client import FirmwareLink
from firmware_interface.protocol import codec, frames
from firmware_interface.protocol.frames import State
from firmware_interface.transport.ports import memory_pair, open_port
from firmware_interface.update.flash import Flashed, flash
from firmware_interface.update.image import Image, check_image, make_image, read_image
from tests.support.firmware import BOARD, KEY, OPEN_MAX_S, PUBLIC, TRUSTED
from tests.support.waiting import wait_for

TRIES_MAX = 20


def image_bytes(size: int = 3000, version: int = 2, board: str = BOARD) -> bytes:
    return make_image(os.urandom(size), version, board, KEY.sign)


@contextmanager
def board_with(program: Path, memory: Path) -> Iterator[tuple[Emulator, FirmwareLink]]:
    """A board that keeps its memory, and an open link to it."""
    with (
        Emulator(program, flash=memory, key=PUBLIC) as emulator,
        FirmwareLink(lambda: open_port(emulator.port)) as link,
    ):
        link.wait_open(OPEN_MAX_S)
        yield emulator, link


def wait_state(link: FirmwareLink, state: State) -> None:
    wait_for(lambda: (s := link.latest(frames.Status)) and s.state == state, f"{state.name} at the board")


def arm(link: FirmwareLink) -> None:
    """As ``link.arm``, and again where the machine stood still and took the session with it."""

    def armed() -> bool:
        with contextlib.suppress(LinkLostError):
            link.wait_open(OPEN_MAX_S)
            link.arm()
            return True
        return False

    wait_for(armed, "arming")


def test_it_opens_drives_and_stops(link: FirmwareLink, emulator: Emulator) -> None:
    start, sent, tried = emulator.mark(), 0, 0
    for _ in range(TRIES_MAX):  # a late test stops the board, as it should
        arm(link)
        for _ in range(20):
            sent, tried = sent + link.send_command(0.5, 0.1), tried + 1
            time.sleep(0.01)
        if [e for e in emulator.events[start:] if e["event"] == "asked" and e["on"] == 1]:
            break
    link.stop()
    emulator.wait_for("asked", emulator.events.index(emulator.wait_for("asked", start, on=1)), on=0)
    wait_state(link, State.DISARMED)
    assert link.statistics.frames_bad == 0
    assert 0 < sent <= link.statistics.commands_out <= tried
    assert link.statistics.round_trip_us > 0


def test_a_command_beyond_the_protocol_is_refused_here(link: FirmwareLink) -> None:
    for wrong in (float("nan"), float("inf"), 9.0):
        with pytest.raises(FieldRangeError, match="velocity_command"):
            link.send_command(wrong, 0.0)
    wait_for(lambda: link.send_command(0.0, 0.0), "and the link goes on")


def test_it_works_over_tcp(program: Path) -> None:
    with Emulator(program, tcp_port=0) as emulator, FirmwareLink(lambda: open_port(emulator.port)) as link:
        link.wait_open(OPEN_MAX_S)
        assert link.firmware_info().board.rstrip(b"\0") == BOARD.encode()
        before = link.statistics.sessions
        emulator.control("unplug")
        emulator.wait_for("unplugged")
        wait_for(lambda: link.statistics.sessions > before and link.open, "another session")
        assert link.get_parameter("watchdog_us") == 80_000


def test_unplugging_is_noticed_and_the_link_comes_back_disarmed(
    link: FirmwareLink, emulator: Emulator
) -> None:
    arm(link)
    start, before = emulator.mark(), link.statistics.sessions
    emulator.control("unplug")
    emulator.wait_for("unplugged", start)
    wait_for(lambda: not link.open, "that it is noticed")
    assert not link.send_command(0.5, 0.0)
    emulator.control("plug")
    link.wait_open(OPEN_MAX_S)
    assert link.wait_frame(frames.Status, OPEN_MAX_S).state != State.ARMED
    assert link.statistics.sessions > before


def test_the_last_command_is_repeated_until_it_expires_not_longer(emulator: Emulator) -> None:
    with FirmwareLink(lambda: open_port(emulator.port), repeat_s=0.01) as link:
        for _ in range(
            TRIES_MAX
        ):  # where this process stands still meanwhile, less of them get there in time
            arm(link)
            start, before = emulator.mark(), emulator.counts()["executed"]
            if not link.send_command(0.5, 0.0, expiry_us=150_000):
                continue
            wait_state(link, State.DISARMED)
            executed = emulator.counts()["executed"] - before
            assert executed <= 16, "within the expiry"
            asked = [event["us"] for event in emulator.events[start:] if event["event"] == "asked"]
            if executed >= 4 and len(asked) == 2 and asked[1] - asked[0] > 80_000:
                break
        else:
            raise AssertionError(f"never beyond one watchdog in {TRIES_MAX} tries")


def test_parameters_survive_a_restart_and_bad_ones_are_refused(program: Path, tmp_path: Path) -> None:
    for expected in (1.2, 0.9):
        with board_with(program, tmp_path / "flash") as (_, link):
            assert link.get_parameter("speed_max_mps") == pytest.approx(expected)
            assert link.set_parameter("speed_max_mps", 0.9) == pytest.approx(0.9)
            with pytest.raises(ParameterError, match=r"speed_max_mps is 0\.05 to 2 m/s, not 5"):
                link.set_parameter("speed_max_mps", 5.0)
            assert link.get_parameter("speed_max_mps") == pytest.approx(0.9)


def test_a_fault_is_refused_and_cleared_by_name(link: FirmwareLink, emulator: Emulator) -> None:
    emulator.ask("estop 1")
    wait_state(link, State.FAULTED)
    with pytest.raises(RefusedError, match="refused Arm: faulted"):
        link.arm()
    emulator.ask("estop 0")
    while link.wait_frame(frames.Bumper, OPEN_MAX_S).emergency_stop:
        pass
    assert link.clear_faults() == 0
    arm(link)


def test_an_outside_plant_gets_wheel_speeds_and_its_silence_stops_the_robot(
    program: Path, tmp_path: Path
) -> None:
    with Emulator(program, plant=tmp_path / "plant") as emulator, Plant(tmp_path / "plant") as plant:
        plant.tell(Sample((0.0, 0.0)))
        with FirmwareLink(lambda: open_port(emulator.port)) as link:
            plant.tell(Sample((0.0, 0.0)))
            link.wait_open(OPEN_MAX_S)
            wheels = (0.0, 0.0)

            def turns() -> bool:
                """One turn of the plant; a late one makes the board stop, and it is armed anew."""
                nonlocal wheels
                status = link.latest(frames.Status)
                if status is None or status.state != State.ARMED:
                    with contextlib.suppress(FirmwareError):
                        link.clear_faults()
                        link.arm()
                link.send_command(0.4, 0.0)
                plant.tell(Sample(wheels))
                wanted = plant.read().wanted_radps
                wheels = (0.5 * (wheels[0] + wanted[0]), 0.5 * (wheels[1] + wanted[1]))
                felt = link.latest(frames.Wheels)
                return wanted[0] == pytest.approx(5.0) and felt is not None and felt.left_radps > 3.0

            wait_for(turns, "the wheel speed of 0.4 m/s, wanted and felt")

            def faults() -> int:
                link.send_command(0.4, 0.0)
                found = link.latest(frames.Status)
                return 0 if found is None else found.faults

            wait_for(lambda: faults() & frames.Fault.SENSOR, "the fault of a plant that says nothing")
    with pytest.raises(EmulatorError, match="no emulator behind"), Plant(tmp_path / "plant") as plant:
        plant.tell(Sample((0.0, 0.0)))


def failure(port: str) -> FirmwareError:
    """Why there is no session on a port, once it is known."""
    with FirmwareLink(lambda: open_port(port)) as link:
        wait_for(lambda: link.failure, "a reason")
        with pytest.raises(FirmwareError) as caught:
            link.wait_open(0.0)
    return caught.value


def test_a_missing_port_is_named(tmp_path: Path) -> None:
    assert isinstance(failure(str(tmp_path / "nothing")), PortMissingError)
    assert isinstance(failure("tcp://127.0.0.1:1"), PortMissingError)
    assert "expected tcp://HOST:PORT" in str(failure("tcp://robot"))
    assert isinstance(failure(os.devnull), NoBoardError)


def test_a_port_in_use_is_named(link: FirmwareLink, emulator: Emulator) -> None:
    assert link.open
    found = failure(emulator.port)
    assert isinstance(found, PortBusyError)
    assert "fuser" in str(found)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_a_denied_port_says_how_to_get_in(emulator: Emulator) -> None:
    code = (
        "import os, sys; sys.path[:0] = [os.getcwd()]\n"
        "from firmware_interface.errors import PortDeniedError\n"
        "from firmware_interface.transport.ports import open_port\n"
        f"os.setgid(65534); os.setgroups([]); os.setuid(65534)\n"
        f"try: open_port({os.path.realpath(emulator.port)!r})\n"
        "except PortDeniedError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True
    )
    assert "permission denied" in done.stdout
    assert "usermod -aG dialout" in done.stdout


def test_a_silent_port_and_another_device_are_told_apart() -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)  # nobody may be there to write
    try:
        assert "nothing came back" in str(failure(os.ttyname(slave)))
        talking = threading.Event()

        def gps() -> None:
            while not talking.wait(0.02):
                with contextlib.suppress(BlockingIOError):
                    os.write(master, b"$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47\r\n")
                with contextlib.suppress(BlockingIOError):
                    os.read(master, 4096)

        device = threading.Thread(target=gps)
        device.start()
        found = failure(os.ttyname(slave))
        talking.set()
        device.join()
        assert isinstance(found, NoBoardError)
        assert "another device on this port" in str(found)
    finally:
        os.close(master)
        os.close(slave)


def test_another_schema_ends_the_wait_with_advice() -> None:
    host, board = memory_pair()
    with FirmwareLink(lambda: host) as link:
        reader, hellos = codec.Reader(), []
        while not hellos:
            hellos = [frame for frame in reader.feed(board.read()) if isinstance(frame, frames.Hello)]
        board.write(codec.encode(hellos[0]._replace(revision=frames.SCHEMA_REVISION + 1, schema=0xBAD)))
        with pytest.raises(SchemaMismatchError, match="this host is older; update the agent"):
            link.wait_open(OPEN_MAX_S)
        assert not link.send_command(0.1, 0.0)
    board.close()


def flashed(link: FirmwareLink, image: Image, *progress: Callable[[int, int], None]) -> Flashed:
    """As ``flash``, and again where the machine stood still and took the session with it: it goes on then."""
    for _ in range(TRIES_MAX):
        with contextlib.suppress(LinkLostError):
            link.wait_open(OPEN_MAX_S)
            return flash(link, image, *progress)
    raise AssertionError(f"the link was lost {TRIES_MAX} times")


@pytest.mark.usefixtures("verifying")
def test_an_update_is_verified_switched_and_cannot_go_back(link: FirmwareLink, emulator: Emulator) -> None:
    seen: list[int] = []
    image = check_image(image_bytes(5000), TRUSTED)
    result = flashed(link, image, lambda done, _: seen.append(done))
    assert (result.version, result.resumed_at + result.sent) == (2, 5000)
    assert seen[-1] == 5000
    info = link.firmware_info()
    assert (info.version, info.slot, info.digest) == (2, 1, image.digest)
    with pytest.raises(RefusedError, match="version is not above"):
        flashed(link, image)
    with pytest.raises(ImageError, match="for 'other'"):
        flashed(link, check_image(image_bytes(board="other", version=3), TRUSTED))
    emulator.wait_for("restarted", version=2)


def test_an_update_goes_on_where_the_power_failed_and_the_old_image_ran(
    verifying: Path, tmp_path: Path
) -> None:
    image = check_image(image_bytes(20_000), TRUSTED)
    with board_with(verifying, tmp_path / "flash") as (emulator, link):
        emulator.ask("cut 30000")
        while emulator.process.poll() is None:
            with contextlib.suppress(FirmwareError):
                link.wait_open(2.0)
            with pytest.raises(FirmwareError):
                flash(link, image)
        assert emulator.process.wait() == 9, "the power was cut in the midst of it"
    with board_with(verifying, tmp_path / "flash") as (emulator, link):
        assert link.firmware_info().version == 1
        assert flashed(link, image).resumed_at >= 8192
        assert link.firmware_info().version == 2


@pytest.mark.usefixtures("verifying")
def test_an_update_gets_through_a_bad_line(link: FirmwareLink, emulator: Emulator) -> None:
    emulator.ask("line flip=300 drop=200 duplicate=20000")
    assert flashed(link, check_image(image_bytes(6000), TRUSTED)).version == 2
    assert emulator.counts()["damaged"] > 0


def test_bad_images_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    good = image_bytes()
    cases = {
        "bad signature": good[:60] + bytes([good[60] ^ 1]) + good[61:],
        "not signed by any": make_image(b"x" * 100, 2, BOARD, Ed25519PrivateKey.generate().sign),
        "they were changed": good[:-1] + bytes([good[-1] ^ 1]),
        "expected 3000 bytes, came 2990": good[:-10],
        "is no firmware image": b"\x7fELF" + good,
    }
    for words, data in cases.items():
        (tmp_path / "image").write_bytes(data)
        with pytest.raises(ImageError, match=words):
            read_image(tmp_path / "image", TRUSTED)
    with pytest.raises(ImageError, match="no firmware image at"):
        read_image(tmp_path / "nothing", TRUSTED)
    for byte in range(4, 60):
        with pytest.raises(ImageError):
            check_image(good[:byte] + bytes([good[byte] ^ 4]) + good[byte + 1 :], TRUSTED)
    with pytest.raises(ImageError, match="version from 1"):
        make_image(b"", 0, "", KEY.sign)
