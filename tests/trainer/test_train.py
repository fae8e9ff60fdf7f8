"""A run leaves what it should behind, goes on where it stopped, and survives being cut off at any moment."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from contracts.observation import ROUTING_LAYOUT
from sim.tasks.delivery import TRIP_MAX_S
from tests.support.tiny_run import BATCH_STEPS, TINY
from tests.support.waiting import wait_for
from trainer.episodes.vec_env import BatchedVecEnv, require_numbers
from trainer.errors import RunError, TrainConfigError
from trainer.learning.checkpoint import load_policy, read_checkpoint, weights_hash
from trainer.learning.config import (
    ConstraintsConfig,
    ImitationConfig,
    NetworkConfig,
    PpoConfig,
    Stage,
    StopConfig,
    load_train_config,
)
from trainer.learning.network import CLIP, VARIANCE_MIN
from trainer.learning.run import RunFolder
from trainer.learning.scene import make_simulation
from trainer.learning.train import train

TRAIN = "from outrider.cli import main; main(['train', *__import__('sys').argv[1:]])"
OFTEN = "import trainer.learning.train as t; t.CHECKPOINT_EVERY_S = 0.0; "
TRAIN_FOLDER = """
import sys, pathlib
from trainer.learning.run import RunFolder
t.train(RunFolder.open(pathlib.Path(sys.argv[1])), int(sys.argv[2]))
"""
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
    assert bool(normaliser.seen.all())
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
    train(copy, 10_000_000, resume=True, seconds_max=0.5)
    goal = copy.goal()
    assert goal is not None
    assert copy.curve()[-1].steps < goal.target_steps


def test_resume_without_steps_finishes_what_was_asked(tmp_path):
    run = RunFolder.create(tmp_path / "run", TINY)
    train(run, 1000, seconds_max=1e-9)
    assert [point.steps for point in run.curve()] == [BATCH_STEPS]
    last = train(run, resume=True)
    assert last == run.curve()[-1]
    assert last.steps == 1024
    before = files(run.path)
    assert train(run, resume=True) == last
    assert files(run.path) == before, "nothing is left to do"


def test_what_was_asked_has_to_be_known(copy):
    (copy.path / "goal.json").unlink()
    with pytest.raises(RunError, match="give --steps"):
        train(copy, resume=True)
    (copy.path / "goal.json").write_text("{")
    with pytest.raises(RunError, match="resume with --steps"):
        train(copy, resume=True)


def test_save_that_fails_leaves_the_old_checkpoint(copy):
    """A real limit on the size of files, below that of a checkpoint, above that of all else."""
    before, limit = copy.checkpoint.read_bytes(), copy.checkpoint.stat().st_size // 2
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); " + TRAIN
    process = start("--resume", copy.path, "--steps", 1, code=code)
    _, err = process.communicate(timeout=WAIT_MAX_S)
    assert process.returncode == 1
    assert "checkpoint.zip cannot be written: File too large; the one before is whole" in " ".join(
        err.split()
    )
    assert "Traceback" not in err
    assert copy.checkpoint.read_bytes() == before
    assert not list(copy.path.glob("*.new"))
    assert train(copy, 1, resume=True).steps == 3072 + BATCH_STEPS


def test_torn_curve_is_still_read(copy):
    points = copy.curve()
    with (copy.path / "curve.jsonl").open("ab") as stream:
        stream.write(b'{"seconds": 1.0, "ste')
    assert copy.curve() == points


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
    assert json.loads(shown)["steps"] == steps + BATCH_STEPS


def test_killed_and_resumed_gives_the_same_weights(tmp_path):
    """Real SIGKILL at a random moment, in the midst of a curriculum and of moving multipliers."""
    own = PpoConfig(
        steps_per_world=32, batch_size=128, epochs=2, log_std_start=-1.0, std_half_steps=4000, discount=0.95
    )
    stages = (
        Stage(people=0, steps_max=1500),
        Stage(people=1, robots_rule_based=1, ppo=own),
    )
    limits = ConstraintsConfig(contacts_per_trip_max=0.0, reduced_mean_max=0.0)
    lesson = ImitationConfig(rounds=1, steps_per_round=20, epochs_last=2, critic_steps=2000)
    config = msgspec.structs.replace(TINY, curriculum=stages, constraints=limits, imitation=lesson)
    whole, cut = (RunFolder.create(tmp_path / name, config) for name in ("whole", "cut"))
    steps = 12_800
    train(whole, steps)
    process = start(cut.path, steps, code=OFTEN + TRAIN_FOLDER)
    wait_for(lambda: len(cut.curve()) >= 15 or process.poll() is not None)
    time.sleep(float(np.random.default_rng().uniform(0.0, 0.2)))
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=WAIT_MAX_S)
    assert process.returncode == -signal.SIGKILL
    assert read_checkpoint(cut).steps < steps
    train(cut, resume=True)
    assert weights_hash(cut) == weights_hash(whole)

    def told(run):
        return [msgspec.structs.replace(point, seconds=0.0) for point in run.curve()]

    assert told(cut) == told(whole)
    assert {point.stage for point in told(cut)} == {0, 1}
    assert told(cut)[-1].multiplier_reduced > 0.0


@pytest.mark.parametrize("algorithm", ["ppo", "sac", "dqn"])
def test_parts_make_the_same_whole(tmp_path, algorithm):
    config = msgspec.structs.replace(TINY, algorithm=algorithm)
    whole, parts = (RunFolder.create(tmp_path / name, config) for name in ("whole", "parts"))
    train(whole, 768)
    train(parts, 1)
    train(parts, 384, resume=True)
    np.random.random(7)
    torch.rand(7)
    assert train(parts, 256, resume=True).steps == 768
    assert weights_hash(parts) == weights_hash(whole)


def test_checkpoint_of_another_layout_is_refused(copy):
    came, expected = "a" * 64, ROUTING_LAYOUT.hash()
    data = torch.load(copy.checkpoint, weights_only=True)
    data["head"] = data["head"].replace(expected, came)
    torch.save(data, copy.checkpoint)
    with pytest.raises(RunError, match=f"layout {came[:12]}, this version has {expected[:12]}"):
        train(copy, 1, resume=True)
    with pytest.raises(RunError, match="layout"):
        load_policy(copy)


def test_checkpoint_of_another_config_is_refused(copy, tmp_path):
    wide = msgspec.structs.replace(TINY, network=NetworkConfig(hidden=(8,)))
    for config, message in (
        (wide, "network does not fit"),
        (msgspec.structs.replace(TINY, algorithm="dqn"), "one of PPO, expected DQN"),
        (msgspec.structs.replace(TINY, worlds=2), "does not fit the run's worlds"),
    ):
        other = RunFolder.create(tmp_path / message.replace(" ", "-"), config)
        shutil.copy(copy.checkpoint, other.checkpoint)
        with pytest.raises(RunError, match=message):
            train(other, 1, resume=True)


class Blind(BatchedVecEnv):
    """A lidar that breaks after some steps."""

    def step_wait(self):
        if self._length.max() > 20:
            self.simulation.observation[1, 1, 5] = np.nan
            require_numbers(self._learned(self.simulation.observation), np.zeros(1))
        return super().step_wait()


def test_nan_is_refused_and_the_checkpoint_stays(copy, monkeypatch):
    before = copy.checkpoint.read_bytes()
    monkeypatch.setattr(
        "trainer.learning.train.make_environment",
        lambda config, table, stage: Blind(make_simulation(config, stage), table),
    )
    with pytest.raises(RunError, match=r"NaN or infinity in observation\[5\] of environment 3"):
        train(copy, 1000, resume=True)
    assert copy.checkpoint.read_bytes() == before


def test_warm_start_takes_over_the_weights(trained, tmp_path):
    run = RunFolder.create(tmp_path / "next", TINY, (trained,))
    train(run, 1, warm_start=trained)
    assert run.curve()[0].steps == BATCH_STEPS
    parents = run.facts()["parents"]
    assert [(parent["steps"], parent["weights_hash"]) for parent in parents] == [
        (3072, weights_hash(trained))
    ]
    count = load_policy(run).policy.features_extractor.count
    assert float(count) == pytest.approx(3072 + BATCH_STEPS, rel=1e-3)


def test_early_stop_ends_a_run_and_says_why(tmp_path):
    stop = StopConfig(success=0.0, batches=3, trips_min=1)
    run = RunFolder.create(tmp_path / "run", msgspec.structs.replace(TINY, stop=stop))
    last = train(run, 100_000)
    assert last.steps < 20_000
    assert "success was 0.0% or more for 3 batches" in run.goal().ended_early
    assert train(run, resume=True) == last, "it has ended"
    assert train(run, 1, resume=True).steps == last.steps + BATCH_STEPS
    assert not run.goal().ended_early


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
        ("difficulty: [0.5, 0.2]", "difficulty"),
        ("families: [maze]", "families"),
        ("curriculum: [{succes: 0.5}]", "succes"),
        ("imitation: {teacher: nobody}", "no baseline 'nobody'"),
        ("{algorithm: sac, imitation: {}}", "imitation works with ppo"),
        ("{algorithm: dqn, curriculum: [{ppo: {}}]}", "settings of ppo"),
        ("curriculum: [{ppo: {rate: 0.1}}]", "rate"),
        ("randomise: {friction: [2.0, 0.1]}", "friction"),
        ("{algorithm: sac, constraints: {reduced_mean_max: 0.1}}", "constraints do not work with sac"),
        ("dqn: {turns: []}", "turns"),
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
