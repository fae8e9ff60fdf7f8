"""``outrider firmware``: what people type, and what they read when it is wrong."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from firmware_interface.emulator.process import Emulator
from outrider.verbs.firmware import app, board_key
from outrider.verbs.keys import app as keys_app

runner = CliRunner()


def test_params_are_shown_set_and_refused(emulator: Emulator) -> None:
    done = runner.invoke(app, ["params", emulator.port, "--set", "speed_max_mps=0.75", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"speed_max_mps": 0.75}
    for wrong, code, words in (
        ("speed_max_mps=7", 1, "speed_max_mps is 0.05 to 2 m/s, not 7"),
        ("speed=1", 1, "no parameter 'speed'"),
        ("speed_max_mps=fast", 2, "expected NAME=NUMBER"),
    ):
        refused = runner.invoke(app, ["params", emulator.port, "--set", wrong])
        assert (refused.exit_code, words in refused.stderr) == (code, True), refused.stderr
    shown = runner.invoke(app, ["params", emulator.port])
    assert "watchdog_us" in shown.stdout
    assert "0.75" in shown.stdout


def test_monitor_says_what_the_board_does(emulator: Emulator) -> None:
    emulator.ask("bumper 1")
    done = runner.invoke(app, ["monitor", emulator.port, "--seconds", "0.5", "--json"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout.splitlines()[-1])
    assert (facts["state"], facts["faults"], facts["bumpers"]) == ("faulted", ["BUMPER"], 1)
    gone = runner.invoke(app, ["monitor", emulator.port + "-not", "--timeout", "0.3"])
    assert gone.exit_code == 1
    assert "there is no such port" in gone.stderr


def test_an_image_is_packed_flashed_and_refused_with_other_keys(verifying: Path, tmp_path: Path) -> None:
    for folder in ("ours", "theirs"):
        assert runner.invoke(keys_app, ["init", str(tmp_path / folder), "--robots", "r1"]).exit_code == 0
    (tmp_path / "board.bin").write_bytes(os.urandom(2000))
    image = str(tmp_path / "board.ofw")
    pack = ["pack", str(tmp_path / "board.bin"), "--version", "7", "--out", image, "--keys"]
    with Emulator(verifying, key=board_key(tmp_path / "ours")) as emulator:
        written = emulator.counts()["flash_written"]
        flash = ["flash", emulator.port, image, "--json", "--keys"]
        for signer, host, words in (
            ("ours", "theirs", "bad signature"),
            ("theirs", "theirs", "not signed for"),
        ):
            assert runner.invoke(app, [*pack, str(tmp_path / signer)]).exit_code == 0
            refused = runner.invoke(app, [*flash, str(tmp_path / host)])
            assert (refused.exit_code, words in refused.stderr) == (1, True), refused.stderr
        assert emulator.counts()["flash_written"] == written
        assert runner.invoke(app, [*pack, str(tmp_path / "ours")]).exit_code == 0
        done = runner.invoke(app, [*flash, str(tmp_path / "ours")])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout) == {"version": 7, "resumed_at": 0, "sent": 2000}
        again = runner.invoke(app, [*flash, str(tmp_path / "ours")])
        assert "version is not above" in again.stderr


def test_emulate_runs_until_interrupted(tmp_path: Path, program: Path) -> None:
    assert program.exists()
    port = tmp_path / "board"
    command = [sys.executable, "-m", "outrider.cli", "firmware", "emulate", "--sanitized", "--json"]
    process = subprocess.Popen(
        [*command, "--link", str(port), "--line", "flip=10"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["port"] == str(port)
    assert port.is_symlink()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=100)
    assert process.returncode == 130
    assert not port.is_symlink()


def test_a_soak_passes_and_reports(program: Path) -> None:
    assert program.exists()
    arguments = ["soak", "--fuzz-bytes", "1e5", "--frames", "2e3", "--differential", "500", "--cuts", "400"]
    done = runner.invoke(app, [*arguments, "--stops", "1", "--json"])
    assert done.exit_code == 0, done.output
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r["name"] for r in results] == [
        "fuzz", "differential", "bad line", "power cuts", "killed", "frozen", "unplugged", "flooded",
    ]  # fmt: skip
    assert all(r["good"] for r in results)


@pytest.mark.parametrize("verb", ["emulate", "monitor", "params", "pack", "flash", "soak"])
def test_each_help_has_an_example(verb: str) -> None:
    done = runner.invoke(app, [verb, "--help"])
    assert done.exit_code == 0
    assert f"outrider firmware {verb}" in done.stdout
