"""The reference firmware, compiled once with sanitizers; boards in virtual and in real time.

``OUTRIDER_FIRMWARE_KIND=COVERED``: with gcov's counters instead (``tools/coverage_cores.py``);
``OUTRIDER_FIRMWARE_PROGRAM``: a program made elsewhere (``tools/mutation_c.py``).
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware_interface.emulator.build import Kind, build, signature_flags
from firmware_interface.emulator.process import Emulator
from firmware_interface.link.client import FirmwareLink
from firmware_interface.transport.ports import open_port
from tests.support.firmware import OPEN_MAX_S, PUBLIC, Pair


@pytest.fixture(scope="session")
def program() -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc here: 'apt-get install gcc libc6-dev'")
    if given := os.environ.get("OUTRIDER_FIRMWARE_PROGRAM"):
        return Path(given)
    return build(Kind[os.environ.get("OUTRIDER_FIRMWARE_KIND", "SANITIZED")])


@pytest.fixture(scope="session")
def verifying(program: Path) -> Path:
    """The same, where it can check signatures: without that it takes no update, and there is nothing to test."""
    if not signature_flags():
        pytest.skip("no libsodium here: 'apt-get install libsodium-dev pkg-config'")
    return program


@pytest.fixture
def emulator(program: Path, tmp_path: Path) -> Iterator[Emulator]:
    running = Emulator(program, link=tmp_path / "board", flash=tmp_path / "flash", key=PUBLIC)
    yield running
    assert running.close() == 0, "a sanitizer found something"


@pytest.fixture
def link(emulator: Emulator) -> Iterator[FirmwareLink]:
    with FirmwareLink(lambda: open_port(emulator.port)) as opened:
        opened.wait_open(OPEN_MAX_S)
        yield opened


@pytest.fixture
def pair(program: Path) -> Iterator[Pair]:
    with Pair(program) as opened:
        opened.open()
        yield opened
