"""A fleet for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, make_keys


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of a fleet of two, made once."""
    return make_keys(tmp_path_factory.mktemp("fleet") / "keys")


@pytest.fixture
def fleet(tmp_path: Path, keys: Path) -> Iterator[Fleet]:
    """A fleet whose processes end with the test."""
    made = Fleet(tmp_path, keys)
    yield made
    made.close()
