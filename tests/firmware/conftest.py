"""The reference firmware, compiled once with sanitizers; boards in virtual and in real time."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware_interface.emulator.build import Kind, build
from firmware_interface.emulator.process import Emulator
from firmware_interface.link.client import FirmwareLink
from firmware_interface.transport.ports import open_port


@pytest.fixture(scope="session")
def program() -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc here: 'apt-get install gcc libc6-dev'")
    return build(Kind.SANITIZED)


@pytest.fixture
def emulator(program: Path, tmp_path: Path) -> Iterator[Emulator]:
    running = Emulator(program, link=tmp_path / "board", flash=tmp_path / "flash")
    yield running
    assert running.close() == 0, "a sanitizer found something"


@pytest.fixture
def link(emulator: Emulator) -> Iterator[FirmwareLink]:
    with FirmwareLink(lambda: open_port(emulator.port)) as opened:
        opened.wait_open()
        yield opened
