"""New firmware for a robot's board, as a technician with a laptop would bring it: the robot stands, its agent is off.

The board is started on the memory that it drove with, so that firmware, parameters and key are the robot's own. What
the emulator flashes does not run; version, key and which slot counts are the reference firmware's own doing.
"""

import time
from pathlib import Path

import msgspec

from firmware_interface.emulator.build import build
from firmware_interface.emulator.fleet import flash_file
from firmware_interface.emulator.process import Emulator
from firmware_interface.link.client import FirmwareLink
from firmware_interface.transport.ports import open_port
from outrider.demo.children import Children, DemoError

PAYLOAD_BYTES = 64 * 1024
CUT_AFTER_BYTES = PAYLOAD_BYTES // 2
"""Of memory erased or written: the line goes when a part of the image is there."""
WAIT_MAX_S = 60.0
POLL_S = 0.01
VERSION = 2
FLASH = "flash"


class BoardUpdate(msgspec.Struct, frozen=True):
    """What happened to a board."""

    robot: str
    version_before: int
    version: int
    size_bytes: int
    refused: str
    """What it said to an image with a stranger's signature."""
    cut: str
    """What the transfer said whose line was cut."""
    resumed_at_bytes: int


class Images(msgspec.Struct, frozen=True):
    """Firmware, signed twice."""

    good: Path
    foreign: Path
    foreign_keys: Path

    @classmethod
    def of(cls, folder: Path) -> "Images":
        """Those in a folder."""
        return cls(folder / "board.ofw", folder / "foreign.ofw", folder / "foreign_keys")


def pack_images(children: Children, folder: Path, keys: Path) -> None:
    """Sign one payload with the fleet's key, and with that of another fleet."""
    folder.mkdir()
    payload, images = folder / "board.bin", Images.of(folder)
    payload.write_bytes(build().read_bytes()[:PAYLOAD_BYTES])
    children.run("keys", "init", str(images.foreign_keys), "--robots", "robot_1")
    for signer, out in ((keys, images.good), (images.foreign_keys, images.foreign)):
        arguments = ("--version", str(VERSION), "--out", str(out), "--keys", str(signer))
        children.run("firmware", "pack", str(payload), *arguments)


def update_board(children: Children, robot: str, port: Path, images: Images, keys: Path) -> BoardUpdate:
    """Offer the foreign image, cut the line in the midst of the good one, bring it again.

    Raises:
        DemoError: the board took the foreign image, or did not take the good one.
        FirmwareError: there is no board.
    """
    with Emulator(link=port, flash=flash_file(port)) as board:
        before = running_version(port)
        children.start(FLASH, *_words(port, images.foreign, images.foreign_keys))
        refused = _refusal(children, "an image with a foreign signature")
        start = board.counts()["flash_written"]
        children.start(FLASH, *_words(port, images.good, keys))
        end_s = time.monotonic() + WAIT_MAX_S
        while board.counts()["flash_written"] - start < CUT_AFTER_BYTES and time.monotonic() < end_s:
            time.sleep(POLL_S)
        board.control("unplug")
        cut = _refusal(children, "a transfer without a line")
        board.control("plug")
        done = msgspec.json.decode(children.run(*_words(port, images.good, keys)))
        version = running_version(port)
    if version != VERSION or version_after_power_off(port) != VERSION:
        raise DemoError(f"the board of {robot} runs firmware {version}, not {VERSION}")
    return BoardUpdate(robot, before, version, PAYLOAD_BYTES, refused, cut, int(done["resumed_at"]))


def running_version(port: Path) -> int:
    """What the board at a port says it runs."""
    with FirmwareLink(lambda: open_port(str(port)), stop_on_close=False) as link:
        link.wait_open()
        return link.firmware_info().version


def version_after_power_off(port: Path) -> int:
    """The version after the power was off."""
    with Emulator(link=port, flash=flash_file(port)):
        return running_version(port)


def _words(port: Path, image: Path, keys: Path) -> tuple[str, ...]:
    return ("firmware", "flash", str(port), str(image), "--keys", str(keys), "--json")


def _refusal(children: Children, what: str) -> str:
    code, said = children.finish(FLASH, WAIT_MAX_S)
    if code != 1 or not said:
        raise DemoError(f"{what}: expected a refusal, came exit code {code}: {said}")
    return said.removeprefix("outrider: ")
