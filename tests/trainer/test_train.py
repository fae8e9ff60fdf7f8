"""A run leaves what it should behind, goes on where it stopped, and survives being cut off at any moment."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from sim.tasks.delivery import TRIP_MAX_S
from tests.support.tiny_run import BATCH_STEPS, TINY
from trainer.errors import RunError, TrainConfigError
from trainer.learning.config import load_train_config
from trainer.learning.network import CLIP, VARIANCE_MIN
from trainer.learning.run import RunFolder
from trainer.learning.train import load_policy, train

TRAIN = "from outrider.cli import main; main(['train', *__import__('sys').argv[1:]])"
OFTEN = "import trainer.learning.train as t; t.CHECKPOINT_EVERY_S = 0.0; "
WAIT_MAX_S = 60.0


def start(*arguments, code=TRAIN):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(*arguments):
    process = start(*arguments)
    out, err = process.communicate(timeout=WAIT_MAX_S)
    return process.returncode, out, err


def files(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def copy(trained, tmp_path):
    shutil.copytree(trained.path, tmp_path / "run")
    return RunFolder.open(tmp_path / "run")


def test_a_run_leaves_everything_behind(trained):
    assert RunFolder.open(trained.path).config == TINY
    curve = trained.curve()
    batches = -(-3000 // BATCH_STEPS)
    assert [point.steps for point in curve] == [BATCH_STEPS * (k + 1) for k in range(batches)]
    for point in curve:
        assert point.success + point.contact + point.timeout <= 1.0 + 1e-9
        assert 0.0 < point.trip_s <= TRIP_MAX_S
        assert 0.0 <= point.reduced <= 1.0
    facts = json.loads((trained.path / "facts.json").read_text())
    assert facts["config_hash"] == TINY.hash()
    assert facts["monitor_hash"] == TINY.monitor.hash()
    assert any(path.name.startswith("events") for path in (trained.path / "tensorboard").iterdir())
    assert load_policy(trained).num_timesteps == curve[-1].steps
    assert not list(trained.path.glob("*.new*")), "nothing half-written is left"


def test_normaliser_holds_what_it_has_seen(trained):
    normaliser = load_policy(trained).policy.features_extractor
    assert float(normaliser.count) == pytest.approx(trained.curve()[-1].steps, rel=1e-3)
    assert float(normaliser.mean[80]) > 1.0, "the route that is left is some metres on average"
    assert (normaliser.variance >= 0.0).all()
    raw = torch.full((1, 83), 2.0)
    expected = torch.clamp(
        (raw - normaliser.mean) / torch.sqrt(normaliser.variance + VARIANCE_MIN), -CLIP, CLIP
    )
    assert torch.equal(normaliser(raw), expected)


def test_same_config_same_weights(trained, tmp_path):
    run = RunFolder.create(tmp_path / "again", TINY)
    train(run, 3000)
    first, second = (load_policy(folder).policy.state_dict() for folder in (trained, run))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_resume_goes_on_counting(copy):
    before, curve = load_policy(copy), copy.curve()
    last = train(copy, 1000, resume=True)
    assert last.steps == curve[-1].steps + -(-1000 // BATCH_STEPS) * BATCH_STEPS
    after = copy.curve()
    assert after[: len(curve)] == curve
    assert [point.steps for point in after] == sorted({point.steps for point in after})
    assert after[len(curve)].seconds > curve[-1].seconds
    assert float(load_policy(copy).policy.features_extractor.count) > float(
        before.policy.features_extractor.count
    )


def test_time_limit_ends_a_run(copy):
    started = time.monotonic()
    train(copy, 10_000_000, resume=True, seconds_max=0.5)
    assert time.monotonic() - started < 20.0


def test_save_that_fails_leaves_the_old_checkpoint(copy):
    before = copy.checkpoint.read_bytes()

    def torn(path):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        copy.save_checkpoint(torn)
    assert copy.checkpoint.read_bytes() == before
    load_policy(copy)
    train(copy, 1, resume=True)


def test_torn_curve_is_still_read(copy):
    points = copy.curve()
    with (copy.path / "curve.jsonl").open("ab") as stream:
        stream.write(b'{"seconds": 1.0, "ste')
    assert copy.curve() == points


def wait_for(condition):
    deadline = time.monotonic() + WAIT_MAX_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_ctrl_c_leaves_a_whole_checkpoint_and_says_so(tmp_path, tiny_yaml):
    out = tmp_path / "run"
    process = start("--out", out, "--config", tiny_yaml, "--steps", 10**8)
    wait_for(lambda: len(RunFolder(out, TINY).curve()) >= 3 or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WAIT_MAX_S)
    assert process.returncode == 130, err
    assert f"interrupted; the checkpoint is whole, go on with --resume {out}" in err
    assert "Traceback" not in err
    steps = load_policy(RunFolder.open(out)).num_timesteps
    code, shown, err = finish("--resume", out, "--steps", 1, "--json")
    assert code == 0, err
    assert json.loads(shown)["steps"] > steps


def test_kill_leaves_a_loadable_checkpoint(copy):
    before = copy.checkpoint.stat().st_mtime_ns
    rng = np.random.default_rng()
    process = start("--resume", copy.path, "--steps", 10**8, code=OFTEN + TRAIN)
    wait_for(lambda: copy.checkpoint.stat().st_mtime_ns != before or process.poll() is not None)
    time.sleep(float(rng.uniform(0.0, 0.3)))
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=WAIT_MAX_S)
    assert process.returncode == -signal.SIGKILL
    steps = load_policy(copy).num_timesteps
    assert steps % BATCH_STEPS == 0
    assert train(copy, 1, resume=True).steps == steps + BATCH_STEPS


def refused(arguments, message, folder):
    """The command fails with one clear line and changes nothing in ``folder``."""
    before = files(folder)
    code, out, err = finish(*arguments)
    assert code != 0
    assert out == ""
    assert message in " ".join(err.split())
    assert "Traceback" not in err
    assert err.startswith("outrider: ")
    assert err.count("\n") == 1
    assert files(folder) == before


def test_folder_in_use_is_refused(copy, tmp_path, tiny_yaml):
    refused(["--out", copy.path, "--config", tiny_yaml], "holds a run already; continue it with", tmp_path)


def test_resume_of_nothing_is_refused(tmp_path):
    refused(["--resume", tmp_path], "holds no run (config.json is missing)", tmp_path)


def test_corrupt_checkpoint_is_refused(copy, tmp_path):
    copy.checkpoint.write_bytes(copy.checkpoint.read_bytes()[:2000])
    refused(["--resume", copy.path, "--steps", 1], "is not a checkpoint of this version", tmp_path)


def test_unknown_config_key_is_refused(tmp_path):
    (tmp_path / "odd.yaml").write_text("wrlds: 3\n")
    refused(["--out", tmp_path / "run", "--config", tmp_path / "odd.yaml"], "wrlds", tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("worlds: 0", "worlds"),
        ("worlds: many", "worlds"),
        ("ppo: {epochs: -1}", "epochs"),
        ("ppo: {lr: 1.0}", "lr"),
        ("monitor: {margin_m: 0.0}", "margin_m"),
        ("monitor: {margin_m: .nan}", "margin_m"),
        ("[1, 2", "not valid YAML"),
        ("- 1", "object"),
    ],
)
def test_bad_config_is_refused(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(TrainConfigError, match=message) as caught:
        load_train_config(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_run_without_checkpoint_is_refused(tmp_path):
    run = RunFolder.create(tmp_path / "fresh", TINY)
    with pytest.raises(RunError, match="no checkpoint yet"):
        load_policy(RunFolder.open(run.path))
    with pytest.raises(RunError, match="no checkpoint yet"):
        train(run, 1, resume=True)
