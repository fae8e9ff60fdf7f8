"""A tiny training run, made once for all tests of the trainer."""

from pathlib import Path

import msgspec
import pytest

from tests.support.tiny_run import TINY
from trainer.learning.run import RunFolder
from trainer.learning.train import train


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> RunFolder:
    """A finished run of 3,000 steps; tests that change it work on a copy."""
    run = RunFolder.create(tmp_path_factory.mktemp("runs") / "tiny", TINY)
    train(run, 3000)
    return run


@pytest.fixture
def tiny_yaml(tmp_path) -> Path:
    """The same config as a file."""
    path = tmp_path / "tiny.yaml"
    path.write_bytes(msgspec.yaml.encode(TINY))
    return path
