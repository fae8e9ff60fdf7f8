"""A robot in memory (``bench``), and a real agent with a stand-in for its robot (``live``)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent import Bench, LiveAgent
from tests.support.fleet import make_keys


@pytest.fixture
def bench() -> Bench:
    """A tick core on a free floor, armed, with a goal ahead."""
    return Bench()


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of a fleet of two, made once."""
    return make_keys(tmp_path_factory.mktemp("agent") / "keys")


@pytest.fixture
def live(tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveAgent]:
    """A real agent, not yet started, in a DDS domain of its own; everything ends with the test."""
    made = LiveAgent(tmp_path, keys, monkeypatch)
    yield made
    made.close()
