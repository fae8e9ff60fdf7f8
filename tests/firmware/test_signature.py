"""The board's own check of an image: the key in its memory, the signature over digest, length, version and board."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from firmware_interface.emulator import build as building
from firmware_interface.emulator.process import Emulator
from firmware_interface.errors import ImageError, RefusedError
from firmware_interface.link.client import FirmwareLink
from firmware_interface.protocol import frames
from firmware_interface.protocol.frames import Capability, Result
from firmware_interface.protocol.schema import UPDATE_BLOCK_BYTES
from firmware_interface.transport.ports import open_port
from firmware_interface.update.flash import flash
from firmware_interface.update.image import Image, check_image, make_image
from tests.support.firmware import BOARD, KEY, PUBLIC, TRUSTED, Pair

NEXT_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
CARRIES_NEXT = b"OUTRIDER-KEY-V1\0" + NEXT_KEY.public_key().public_bytes_raw()
ORDER = 2**252 + 27742317777372353535851937790883648493
"""Of Ed25519's base point (RFC 8032 section 5.1)."""
PAGE_BYTES = 2048
SLOT_1_AT = 4 + 6 * PAGE_BYTES + 64 * PAGE_BYTES
"""In the emulator's memory file: boot counter, six pages of records, slot 0."""


def signed(
    version: int = 2, payload: bytes = b"\x7f" * 300, board: str = BOARD, key: Ed25519PrivateKey = KEY
) -> Image:
    """An image as a careless host would pass it on: read, not checked."""
    data = make_image(payload, version, board, key.sign)
    return Image(version, board, hashlib.sha256(payload).digest(), data[60:124], payload, "somebody")


@pytest.fixture
def pair(verifying: Path) -> Iterator[Pair]:
    with Pair(verifying) as opened:
        opened.open()
        yield opened


def begin(pair: Pair, image: Image) -> Result:
    """Announce an image."""
    size = len(image.payload)
    asked = (frames.UpdateBegin, image.version, size, image.digest, image.signature)
    return Result(pair.ask(*asked).result)


def install(pair: Pair, image: Image, payload: bytes | None = None) -> list[Result]:
    """The whole update, whatever is answered on the way; the answers to begin, verify and switch."""
    found = [begin(pair, image)]
    payload = image.payload if payload is None else payload
    for at in range(0, len(payload), UPDATE_BLOCK_BYTES):
        block = payload[at : at + UPDATE_BLOCK_BYTES]
        pair.ask(frames.UpdateBlock, at, len(block), block.ljust(UPDATE_BLOCK_BYTES, b"\0"))
    found.append(Result(pair.ask(frames.UpdateVerify).result))
    found.append(Result(pair.ask(frames.UpdateSwitch).result))
    if found[-1] is Result.OK:
        pair.run(10)
        pair.open()
    return found


def runs(pair: Pair) -> int:
    """The version that the board says it runs."""
    pair.send(frames.InfoRequest(pair.machine.session))
    pair.run(3)
    return int(pair.latest(frames.FirmwareInfo).version)


TAKEN = [Result.OK] * 3
REFUSED = [Result.BAD_SIGNATURE, Result.OUT_OF_PLACE, Result.OUT_OF_PLACE]


def test_a_rightly_signed_image_runs(pair: Pair) -> None:
    assert Capability(pair.machine.capabilities) & Capability.SIGNATURE
    assert runs(pair) == 1
    shipped = pair.latest(frames.FirmwareInfo)
    assert (shipped.slot, shipped.digest, shipped.board) == (0, bytes(32), BOARD.encode().ljust(16, b"\0"))
    newer = signed(version=7, payload=os.urandom(5000))
    for count, (image, slot) in enumerate(((GOOD, 1), (newer, 0)), 1):
        assert install(pair, image) == TAKEN
        assert runs(pair) == image.version
        info = pair.latest(frames.FirmwareInfo)
        assert (info.slot, info.digest, info.boots) == (slot, image.digest, shipped.boots + count)


def malleable(signature: bytes) -> bytes:
    """Another signature for the same message, which RFC 8032 forbids to accept."""
    return signature[:32] + (int.from_bytes(signature[32:], "little") + ORDER).to_bytes(32, "little")


GOOD = signed()
FORGED = {
    "first bit": GOOD._replace(signature=bytes([GOOD.signature[0] ^ 1]) + GOOD.signature[1:]),
    "last bit": GOOD._replace(signature=GOOD.signature[:-1] + bytes([GOOD.signature[-1] ^ 1])),
    "none": GOOD._replace(signature=bytes(64)),
    "malleable": GOOD._replace(signature=malleable(GOOD.signature)),
    "other key": signed(key=NEXT_KEY),
    "other board": signed(board="host-emulatoR"),
    "shorter name": signed(board="host-emulato"),
    "newer than signed": GOOD._replace(version=3),
    "truncated": GOOD._replace(payload=GOOD.payload[:-1]),
    "longer": GOOD._replace(payload=GOOD.payload + b"x"),
    "other contents": GOOD._replace(digest=hashlib.sha256(b"evil").digest()),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_image_is_refused_at_once_and_the_old_one_runs(pair: Pair, name: str) -> None:
    assert install(pair, FORGED[name]) == REFUSED
    assert runs(pair) == 1
    assert install(pair, GOOD) == TAKEN, "the refusal spoiled nothing"


def test_what_was_signed_must_also_be_what_was_written(pair: Pair) -> None:
    evil = b"evil".ljust(len(GOOD.payload), b"!")
    assert install(pair, GOOD, evil) == [Result.OK, Result.BAD_DIGEST, Result.OUT_OF_PLACE]
    assert install(pair, GOOD, GOOD.payload[:200]) == [Result.OK, Result.OUT_OF_PLACE, Result.OUT_OF_PLACE]
    assert runs(pair) == 1
    assert install(pair, GOOD) == TAKEN


def test_the_name_is_signed_whole(pair: Pair) -> None:
    longest = "amr-large-rev-12"
    pair.board.control(pair.now_us, f"name {longest}")
    assert begin(pair, signed()) is Result.BAD_SIGNATURE
    assert begin(pair, signed(board=longest[:-1])) is Result.BAD_SIGNATURE
    assert install(pair, signed(board=longest)) == TAKEN
    assert runs(pair) == 2
    assert pair.latest(frames.FirmwareInfo).board.decode() == longest
    pair.board.control(pair.now_us, "name amr")
    assert runs(pair) == 2
    assert pair.latest(frames.FirmwareInfo).board == b"amr".ljust(16, b"\0"), "nothing of what lies behind it"
    assert begin(pair, signed(version=3, board="amr")) is Result.OK


def test_verifying_again_is_nothing_and_after_the_switch_nothing_is_heard(pair: Pair) -> None:
    assert begin(pair, GOOD) is Result.OK
    for at in range(0, 300, UPDATE_BLOCK_BYTES):
        block = GOOD.payload[at : at + UPDATE_BLOCK_BYTES]
        pair.ask(frames.UpdateBlock, at, len(block), block.ljust(UPDATE_BLOCK_BYTES, b"\0"))
    verify = frames.UpdateVerify(pair.machine.session, pair.sequence + 1)
    for number in (1, 2):  # the second comes while it still looks at the first
        pair.send(verify._replace(sequence=pair.sequence + number))
    pair.sequence += 2
    pair.run(5)
    assert pair.ask(frames.UpdateVerify).result == Result.OK
    mark = len(pair.events)
    pair.send(frames.UpdateSwitch(pair.machine.session, pair.sequence + 1))
    pair.send(frames.ParameterGet(pair.machine.session, pair.sequence + 2, 1))
    pair.run(1)
    answers = [event.code for event in pair.events[mark:] if isinstance(event, frames.Acknowledge)]
    assert answers == [0x33]


@pytest.mark.parametrize("step", ["begin", "block", "verify", "switch"])
def test_a_memory_that_does_not_answer_leaves_the_old_image(pair: Pair, step: str) -> None:
    def broken(name: str) -> bool:
        pair.board.control(pair.now_us, f"flash {int(name != step)}")
        return name == step

    size = len(GOOD.payload)
    if not broken("begin"):
        assert begin(pair, GOOD) is Result.OK
        for at in range(0, size, UPDATE_BLOCK_BYTES):
            block = GOOD.payload[at : at + UPDATE_BLOCK_BYTES]
            if at == 256 and broken("block"):
                break
            asked = (frames.UpdateBlock, at, len(block), block.ljust(UPDATE_BLOCK_BYTES, b"\0"))
            assert pair.ask(*asked).result == Result.OK
    question = {
        "begin": (frames.UpdateBegin, 2, size, GOOD.digest, GOOD.signature),
        "block": (frames.UpdateBlock, 256, size - 256, GOOD.payload[256:].ljust(UPDATE_BLOCK_BYTES, b"\0")),
        "verify": (frames.UpdateVerify,),
        "switch": (frames.UpdateSwitch,),
    }
    if step == "switch":
        assert pair.ask(frames.UpdateVerify).result == Result.OK
    broken(step)
    assert pair.ask(*question[step]).result == Result.STORAGE
    broken("nothing")
    assert runs(pair) == 1
    assert install(pair, GOOD) == TAKEN


def test_blocks_must_follow_and_be_whole(pair: Pair) -> None:
    block = GOOD.payload[:128]
    assert pair.ask(frames.UpdateBlock, 0, 128, block).result == Result.OUT_OF_PLACE, "none was announced"
    too_large = make_image(b"x" * 200_000, 2, BOARD, KEY.sign)
    big = signed(payload=too_large[124:])
    assert begin(pair, big) is Result.OUT_OF_RANGE
    assert begin(pair, GOOD._replace(payload=b"")) is Result.OUT_OF_RANGE
    assert begin(pair, GOOD) is Result.OK
    assert pair.ask(frames.UpdateBlock, 128, 128, block).result == Result.OUT_OF_PLACE
    assert pair.ask(frames.UpdateBlock, 0, 127, block).result == Result.OUT_OF_RANGE
    assert pair.ask(frames.UpdateBlock, 0, 128, block).value == 128
    assert pair.ask(frames.UpdateBlock, 0, 128, block).result == Result.OUT_OF_PLACE, "it has that one"
    assert pair.ask(frames.UpdateVerify).result == Result.OUT_OF_PLACE, "not all of it is there"
    assert install(pair, GOOD) == TAKEN


def test_an_older_version_is_refused_though_rightly_signed(pair: Pair) -> None:
    assert install(pair, signed(version=5)) == TAKEN
    for version in (5, 4, 1):
        assert begin(pair, signed(version=version)) is Result.TOO_OLD
    assert runs(pair) == 5


def test_without_a_key_nothing_is_taken(verifying: Path) -> None:
    with Pair(verifying, key=b"") as pair:
        pair.open()
        assert install(pair, GOOD) == REFUSED
        assert runs(pair) == 1


def test_a_refused_image_leaves_the_memory_as_it_was(link: FirmwareLink, emulator: Emulator) -> None:
    written = emulator.counts()["flash_written"]
    for image in FORGED.values():
        if image.board == BOARD:
            with pytest.raises(RefusedError, match="not signed for this board"):
                flash(link, image)
    assert emulator.counts()["flash_written"] == written


def test_only_an_image_signed_with_the_old_key_brings_a_new_one(pair: Pair) -> None:
    assert install(pair, signed(payload=CARRIES_NEXT, key=NEXT_KEY)) == REFUSED
    assert install(pair, signed(payload=CARRIES_NEXT)) == TAKEN
    assert install(pair, signed(version=3)) == REFUSED
    assert install(pair, signed(version=3, key=NEXT_KEY)) == TAKEN
    assert runs(pair) == 3


def test_key_and_floor_outlast_an_image_that_broke(verifying: Path, tmp_path: Path) -> None:
    memory = tmp_path / "flash"

    def board(key: bytes = PUBLIC) -> Emulator:
        return Emulator(verifying, flash=memory, key=key)

    with board() as emulator, FirmwareLink(lambda: open_port(emulator.port)) as link:
        link.wait_open()
        assert flash(link, signed(version=5, payload=CARRIES_NEXT)).version == 5
    with memory.open("r+b") as file:
        file.seek(SLOT_1_AT + PAGE_BYTES + 16)
        assert file.read(4) == CARRIES_NEXT[16:20], "the image lies there"
        file.seek(-4, os.SEEK_CUR)
        file.write(b"\0\0\0\0")
    # Another firmware as shipped, with another key: the key that was there first, or came signed, stays.
    with (
        board(KEY.public_key().public_bytes_raw()) as emulator,
        FirmwareLink(lambda: open_port(emulator.port)) as link,
    ):
        link.wait_open()
        assert link.firmware_info().version == 1, "it fell back to what ran before"
        with pytest.raises(RefusedError, match="below one installed before"):
            flash(link, signed(version=4, key=NEXT_KEY))
        with pytest.raises(RefusedError, match="not signed for this board"):
            flash(link, signed(version=6))
        assert flash(link, signed(version=5, key=NEXT_KEY)).version == 5


def test_a_board_keeps_the_key_that_it_was_shipped_with(verifying: Path, tmp_path: Path) -> None:
    other = NEXT_KEY.public_key().public_bytes_raw()
    for key in (PUBLIC, other, b""):
        with (
            Emulator(verifying, flash=tmp_path / "flash", key=key) as emulator,
            FirmwareLink(lambda port=emulator.port: open_port(port)) as link,  # type: ignore[misc]
        ):
            link.wait_open()
            with pytest.raises(RefusedError, match="not signed for this board"):
                flash(link, signed(key=NEXT_KEY))
            if not key:
                good = check_image(make_image(b"x", 2, BOARD, KEY.sign), TRUSTED)
                assert flash(link, good).version == 2


def test_a_board_without_a_library_takes_no_update(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert program.exists()
    monkeypatch.setattr(building, "signature_flags", lambda: ())
    bare = building.build(building.Kind.FAST, tmp_path)
    with Emulator(bare, key=PUBLIC) as emulator, FirmwareLink(lambda: open_port(emulator.port)) as link:
        link.wait_open()
        with pytest.raises(ImageError, match="takes no update: its firmware was built without libsodium"):
            flash(link, GOOD)
    with Pair(bare) as pair:
        pair.open()
        assert install(pair, GOOD) == REFUSED
