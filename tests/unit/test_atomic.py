"""Files of key folders: whole, and nobody else's."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from contracts.atomic import write_atomically, write_private


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_private_file_is_its_owners_whatever_other_threads_write(tmp_path):
    """The umask is the whole process's: a key written beside other files was readable by others now and then."""

    def write(number):
        path = tmp_path / str(number) / "robot.pem"
        write_private(path, b"secret")
        write_atomically(tmp_path / f"plain-{number}", b"for all", durable=False)
        return path

    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(write, range(200)))
    assert {mode_of(path) for path in keys} == {0o600}
    assert {mode_of(path.parent) for path in keys} == {0o700}
    ordinary = tmp_path / "ordinary"
    ordinary.write_bytes(b"")
    assert {mode_of(tmp_path / f"plain-{number}") for number in range(200)} == {mode_of(ordinary)}


def test_what_a_killed_process_has_left_does_not_open_a_private_file(tmp_path):
    left = tmp_path / f".robot.pem.{os.getpid()}.tmp"
    left.write_bytes(b"half")
    left.chmod(0o644)
    write_private(tmp_path / "robot.pem", b"secret")
    assert mode_of(tmp_path / "robot.pem") == 0o600
    assert (tmp_path / "robot.pem").read_bytes() == b"secret"
    assert not left.exists()


def test_a_private_file_replaces_an_open_one(tmp_path):
    path = tmp_path / "robot.pem"
    path.write_bytes(b"before")
    path.chmod(0o644)
    write_private(path, b"after")
    assert (mode_of(path), path.read_bytes()) == (0o600, b"after")


def test_a_disk_that_refuses_names_the_file(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder") as refused:
        write_private(tmp_path / "folder", b"secret")
    assert refused.value.filename == str(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
