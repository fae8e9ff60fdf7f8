"""Sends an image to a board, from where an interrupted transfer stopped."""

import contextlib
import time
from collections.abc import Callable
from typing import NamedTuple

from firmware_interface.errors import ImageError, LinkLostError, RefusedError
from firmware_interface.link.client import FirmwareLink
from firmware_interface.protocol import frames
from firmware_interface.protocol.schema import UPDATE_BLOCK_BYTES
from firmware_interface.update.image import Image

VERIFY_TRIES = 40
RESTART_MAX_S = 10.0
RESTART_LOOK_S = 0.1


class Flashed(NamedTuple):
    """What was done. ``resumed_at``: bytes that an earlier transfer had brought already."""

    version: int
    resumed_at: int
    sent: int


def flash(link: FirmwareLink, image: Image, progress: Callable[[int, int], None] | None = None) -> Flashed:
    """Transfer, have it verified, switch. Until the switch, the board runs what it ran before.

    The board checks the signature itself, with the key in its own memory, before it writes anything.

    Args:
        link: open; the board must be disarmed.
        image: checked (``read_image``).
        progress: called with bytes done and bytes in all.

    Raises:
        ImageError: for another board, or for one that checks no signatures.
        RefusedError: the board refused: armed, signature, version not above its own or below its floor, storage,
            digest.
        LinkLostError: the line broke; run again, it goes on where it stopped.
    """
    info = link.firmware_info()
    board = info.board.rstrip(b"\0").decode("ascii", "replace")
    if image.board != board:
        raise ImageError(f"the image is for {image.board!r}, the board is {board!r}; nothing was sent")
    if not link.capabilities & frames.Capability.SIGNATURE:
        raise ImageError(
            f"the board {board!r} cannot check signatures and takes no update: its firmware was built without "
            "libsodium or another library behind signature.h (for the emulated one: 'apt-get install libsodium-dev "
            "pkg-config')"
        )
    size = len(image.payload)
    start = link.ask(
        lambda session, sequence: frames.UpdateBegin(
            session, sequence, image.version, size, image.digest, image.signature
        )
    )
    offset = start
    while offset < size:
        after = _send_block(link, image.payload, offset)
        if after <= offset:
            raise LinkLostError(f"the board stays at byte {offset}; run this again")
        offset = after
        if progress is not None:
            progress(offset, size)
    link.ask(frames.UpdateVerify, VERIFY_TRIES)
    with contextlib.suppress(LinkLostError):  # it may restart before its answer gets through
        link.ask(frames.UpdateSwitch)
    _wait_running(link, image.version)
    return Flashed(image.version, start, size - start)


def _send_block(link: FirmwareLink, payload: bytes, offset: int) -> int:
    """Send the block at ``offset``; the board's next offset."""
    block = payload[offset : offset + UPDATE_BLOCK_BYTES]
    padded = block.ljust(UPDATE_BLOCK_BYTES, b"\0")
    try:
        return link.ask(
            lambda session, sequence: frames.UpdateBlock(session, sequence, offset, len(block), padded)
        )
    except RefusedError as error:
        if error.result == frames.Result.OUT_OF_PLACE and error.value > offset:
            return error.value  # it has the block: the answer to an earlier try was lost
        raise


def _wait_running(link: FirmwareLink, version: int) -> None:
    """Until the board has restarted with the new image."""
    end_s = time.monotonic() + RESTART_MAX_S
    while time.monotonic() < end_s:
        try:
            link.wait_open(end_s - time.monotonic())
            if link.firmware_info().version == version:
                return
        except LinkLostError:
            time.sleep(RESTART_LOOK_S)
    raise LinkLostError(f"the board did not come back with version {version} within {RESTART_MAX_S:g} s")
