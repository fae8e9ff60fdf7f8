"""What the board has of an image, to the byte: how far it resumes, how large an image may be, how long it verifies.

In virtual time; who may have signed it is in ``test_signature.py``.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware_interface.emulator.virtual import Powered
from firmware_interface.protocol import frames
from firmware_interface.protocol.frames import Kind, Result
from firmware_interface.protocol.schema import UPDATE_BLOCK_BYTES
from firmware_interface.protocol.values import BY_NAME
from firmware_interface.update.image import Image, check_image, make_image
from tests.support.firmware import BOARD, KEY, TRUSTED, Pair

PAGE_BYTES, SLOT_PAGES = 2048, 64
SLOT_BYTES_MAX = (SLOT_PAGES - 1) * PAGE_BYTES
"""The first page holds header and markers."""
VERIFY_BYTES = 512
"""Hashed in one millisecond."""


def image_of(size: int, version: int = 2, salt: int = 7) -> Image:
    """No page of it is like another."""
    payload = bytes((index * salt + index // 251) & 0xFF for index in range(size))
    return check_image(make_image(payload, version, BOARD, KEY.sign), TRUSTED)


@pytest.fixture
def pair(verifying: Path) -> Iterator[Pair]:
    with Pair(verifying) as opened:
        opened.open()
        yield opened


def begin(pair: Pair, image: Image) -> tuple[Result, int]:
    """Announce an image; the answer, and from where the board wants it."""
    asked = (frames.UpdateBegin, image.version, len(image.payload), image.digest, image.signature)
    answer = pair.ask(*asked)
    return Result(answer.result), answer.value


def send(pair: Pair, image: Image, first: int, end: int) -> None:
    """Send what lies between two places, a block at a time."""
    for at in range(first, end, UPDATE_BLOCK_BYTES):
        block = image.payload[at : at + UPDATE_BLOCK_BYTES]
        asked = (frames.UpdateBlock, at, len(block), block.ljust(UPDATE_BLOCK_BYTES, b"\0"))
        answer = pair.ask(*asked)
        assert (answer.result, answer.value) == (Result.OK, at + len(block))


def restart(pair: Pair) -> None:
    """As after a power cut between two blocks."""
    pair.board.control(pair.now_us, "restart 1")
    pair.run(3)
    pair.open()
    pair.events.clear()  # answers of the session before bear the same numbers


def finish(pair: Pair) -> int:
    """Verify, switch and start; the version that runs."""
    assert pair.ask(frames.UpdateVerify).result == Result.OK
    assert pair.ask(frames.UpdateSwitch).result == Result.OK
    pair.run(5)
    assert not any(isinstance(seen, Powered) for seen in pair.observed), "never armed, never powered"
    pair.open()
    pair.events.clear()
    pair.send(frames.InfoRequest(pair.machine.session))
    pair.run(3)
    return int(pair.latest(frames.FirmwareInfo).version)


@pytest.mark.parametrize("there", [0, 128, 1920, 2048, 2176, 4096, 4992, 5000])
def test_an_update_goes_on_from_the_last_whole_page(pair: Pair, there: int) -> None:
    image = image_of(5000)
    assert begin(pair, image) == (Result.OK, 0)
    send(pair, image, 0, there)
    restart(pair)
    first = 5000 if there == 5000 else there // PAGE_BYTES * PAGE_BYTES
    assert begin(pair, image) == (Result.OK, first)
    send(pair, image, first, 5000)
    assert finish(pair) == 2


def test_a_board_that_runs_from_its_other_slot_goes_on_as_well(pair: Pair) -> None:
    first, second = image_of(300), image_of(5000, version=3)
    assert begin(pair, first) == (Result.OK, 0)
    send(pair, first, 0, 300)
    assert finish(pair) == 2
    assert begin(pair, second) == (Result.OK, 0)
    send(pair, second, 0, 2176)
    restart(pair)
    assert begin(pair, second) == (Result.OK, 2048)
    send(pair, second, 2048, 5000)
    assert finish(pair) == 3


@pytest.mark.parametrize("running", [1, 2], ids=["slot 0", "slot 1"])
def test_what_did_not_verify_is_never_resumed(pair: Pair, running: int) -> None:
    if running == 2:
        first = image_of(300)
        assert begin(pair, first) == (Result.OK, 0)
        send(pair, first, 0, 300)
        assert finish(pair) == 2
    image = image_of(5000, version=running + 1)
    assert begin(pair, image) == (Result.OK, 0)
    send(pair, image._replace(payload=image.payload[::-1]), 0, 5000)
    assert pair.ask(frames.UpdateVerify).result == Result.BAD_DIGEST
    assert begin(pair, image) == (Result.OK, 0)
    send(pair, image, 0, 5000)
    assert finish(pair) == running + 1


@pytest.mark.parametrize("size", [1, 7, 8, 9, 511, 512, 513, 2047, 2048, 2049, 4096])
def test_an_image_of_any_size_is_kept_whole_and_verified(pair: Pair, size: int) -> None:
    image = image_of(size)
    assert begin(pair, image) == (Result.OK, 0)
    send(pair, image, 0, size)
    restart(pair)
    assert begin(pair, image) == (Result.OK, size)
    asked_us = pair.now_us
    assert pair.ask(frames.UpdateVerify).value == size
    steps = (size + VERIFY_BYTES - 1) // VERIFY_BYTES
    assert (pair.now_us - asked_us) // 1000 - steps in (1, 2), "it takes its time, and not more"
    assert finish(pair) == 2


@pytest.mark.parametrize(("version", "salt"), [(3, 7), (2, 9)])
def test_of_another_image_nothing_is_there(pair: Pair, version: int, salt: int) -> None:
    image, other = image_of(5000), image_of(5000, version, salt)
    assert begin(pair, image) == (Result.OK, 0)
    send(pair, image, 0, 4096)
    assert begin(pair, other) == (Result.OK, 0)
    send(pair, other, 0, 5000)
    assert finish(pair) == version


def test_an_image_may_fill_its_slot_and_not_a_byte_more(pair: Pair) -> None:
    assert begin(pair, image_of(SLOT_BYTES_MAX)) == (Result.OK, 0)
    assert begin(pair, image_of(SLOT_BYTES_MAX + 1))[0] is Result.OUT_OF_RANGE


def test_what_was_refused_ends_what_was_under_way(pair: Pair) -> None:
    image = image_of(300)
    assert begin(pair, image) == (Result.OK, 0)
    assert begin(pair, image._replace(signature=bytes(64)))[0] is Result.BAD_SIGNATURE
    asked = (frames.UpdateBlock, 0, 128, image.payload[:128])
    assert pair.ask(*asked).result == Result.OUT_OF_PLACE
    assert begin(pair, image) == (Result.OK, 0)
    send(pair, image, 0, 300)
    assert finish(pair) == 2


def test_a_running_image_and_one_before_it_are_older(pair: Pair) -> None:
    for version in (2, 3):
        image = image_of(600, version)
        assert begin(pair, image) == (Result.OK, 0)
        send(pair, image, 0, 600)
        assert finish(pair) == version
        assert pair.latest(frames.FirmwareInfo).slot == 1 - version % 2
        restart(pair)
        assert begin(pair, image)[0] is Result.TOO_OLD


def test_a_switch_whose_floor_is_not_stored_is_none(pair: Pair) -> None:
    """First the version below which nothing is taken, then the record of what to start: never that one alone."""
    image = image_of(300)
    assert begin(pair, image) == (Result.OK, 0)
    send(pair, image, 0, 300)
    assert pair.ask(frames.UpdateVerify).result == Result.OK
    pair.board.control(pair.now_us, "worn 1")
    assert pair.ask(frames.UpdateSwitch).result == Result.STORAGE
    pair.run(20)
    pair.send(frames.InfoRequest(pair.machine.session))
    pair.run(3)
    assert pair.latest(frames.FirmwareInfo).version == 1
    assert finish(pair) == 2


def test_a_parameter_that_could_not_be_stored_is_the_old_one_after_a_start_too(pair: Pair) -> None:
    wheels = BY_NAME["wheels_hz"].id
    assert pair.ask(frames.ParameterSet, wheels, Kind.U32, 60).result == Result.OK
    for fails, value in (("worn 1", 70), ("worn 1", 80)):
        pair.board.control(pair.now_us, fails)
        assert pair.ask(frames.ParameterSet, wheels, Kind.U32, value).result == Result.STORAGE
        restart(pair)
        assert pair.ask(frames.ParameterGet, wheels).value == 60
