"""The rules between two batches: multipliers, stages, early stop; replays, several seeds, sweeps, plug-ins."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
import yaml

from outrider.verbs.sweep import app as sweep_app
from outrider.verbs.train import app as train_app
from sim.tasks.delivery import TRIP_MAX_S, Outcome
from tests.support.tiny_run import BATCH_STEPS, TINY
from trainer.errors import RunError, TrainConfigError
from trainer.learning.algorithms import algorithm_of
from trainer.learning.checkpoint import load_policy, weights_hash
from trainer.learning.config import (
    ConstraintsConfig,
    PpoConfig,
    Stage,
    StopConfig,
    TrainConfig,
    load_train_config,
)
from trainer.learning.facts import differing_facts, run_provenance
from trainer.learning.progress import TRIPS_WINDOW, Progress, next_multipliers
from trainer.learning.replay import replay
from trainer.learning.run import RunFolder
from trainer.learning.seeds import train_seeds
from trainer.learning.sweep import load_sweep, with_values
from trainer.learning.train import train

LIMITS = ConstraintsConfig(
    contacts_per_trip_max=0.1, reduced_mean_max=0.2, multiplier_rate=2.0, multiplier_max=1.0
)


@pytest.mark.parametrize(
    ("before", "contacts", "reduced", "after"),
    [
        ((0.0, 0.0), 0.3, 0.25, (0.4, 0.1)),
        ((0.4, 0.1), 0.1, 0.2, (0.4, 0.1)),
        ((0.4, 0.1), 0.0, 0.1, (0.2, 0.0)),
        ((0.9, 0.9), 1.0, 1.0, (1.0, 1.0)),
        ((0.5, 0.5), None, 0.2, (0.5, 0.5)),
    ],
)
def test_multipliers_follow_the_excess_within_bounds(before, contacts, reduced, after):
    assert next_multipliers(LIMITS, before, contacts, reduced) == pytest.approx(after)
    assert next_multipliers(ConstraintsConfig(), before, contacts, reduced) == (0.0, 0.0)


def filled(arrived, failed):
    progress = Progress()
    for _ in range(arrived):
        progress.trip_ended(Outcome.ARRIVED, 10.0, 5.0)
    for _ in range(failed):
        progress.trip_ended(Outcome.CONTACT, 3.0, -5.0)
    return progress


def test_window_counts_failed_trips_as_the_longest_and_keeps_the_newest():
    progress = filled(TRIPS_WINDOW, 10)
    progress.end_batch(ConstraintsConfig(), 0.0)
    assert len(progress.outcomes) == TRIPS_WINDOW
    assert progress.share(Outcome.CONTACT) == 10 / TRIPS_WINDOW
    assert max(progress.trip_s) == TRIP_MAX_S
    assert progress.batch_trips == progress.batch_contacts == 0


def test_stage_is_learned_after_so_many_good_batches_in_a_row():
    stage = Stage(success=0.9, batches=2, trips_min=10)
    good, bad, few = filled(9, 1), filled(8, 2), filled(9, 0)
    assert [good.stage_learned(stage, 0), good.stage_learned(stage, 0)] == [False, True]
    assert not any(bad.stage_learned(stage, 0) for _ in range(5))
    assert not any(few.stage_learned(stage, 0) for _ in range(5))
    good = filled(9, 1)
    good.stage_learned(stage, 0)
    good.trip_ended(Outcome.CONTACT, 1.0, 0.0)
    assert not good.stage_learned(stage, 0)
    assert good.stage_streak == 0
    limited = msgspec.structs.replace(stage, steps_max=100)
    bad.next_stage(1000)
    assert [bad.stage_learned(limited, 1099), bad.stage_learned(limited, 1100)] == [False, True]
    assert not bad.outcomes


def test_stage_fades_from_its_own_beginning():
    own = PpoConfig(learning_rate=1e-3, learning_rate_half_steps=100, log_std_start=0.0, std_half_steps=200)
    config = TrainConfig(curriculum=(Stage(), Stage(ppo=own)))
    assert config.in_stage(0, 0) is config
    later = config.in_stage(1, 1000).ppo
    assert [later.learning_rate_at(steps) for steps in (1000, 1100)] == [1e-3, 5e-4]
    assert [later.std_max_at(steps) for steps in (1000, 1200)] == [1.0, 0.5]
    assert later.learning_rate_at(10_000) == later.learning_rate_min == config.ppo.learning_rate_min


def test_run_stops_at_its_goal_or_when_nothing_gets_better():
    stop = StopConfig(success=0.9, batches=2, trips_min=10)
    good = filled(9, 1)
    assert not good.stop_reason(stop)
    assert "success was 90.0% or more for 2 batches" in good.stop_reason(stop)
    assert not any(filled(9, 0).stop_reason(stop) for _ in range(5))
    patient = StopConfig(patience_batches=3, trips_min=10)
    flat = filled(8, 2)
    reasons = [flat.stop_reason(patient) for _ in range(4)]
    assert [bool(reason) for reason in reasons] == [False, False, False, True]
    assert "not risen above 80.0%" in reasons[-1]
    assert not any(good.stop_reason(StopConfig(trips_min=1)) for _ in range(100))


def said(app, arguments, capsys, code=0):
    """Run a verb in this process; what it printed as (out, err)."""
    with pytest.raises(SystemExit) as caught:
        app([str(argument) for argument in arguments], prog_name="outrider")
    captured = capsys.readouterr()
    assert caught.value.code == code, captured.err
    return captured.out, " ".join(captured.err.split())


def test_replay_gives_the_same_weights(trained, tmp_path, capsys):
    out, _ = said(train_app, ["--replay", trained.path, "--out", tmp_path / "again"], capsys)
    assert f"same: 3,072 steps, weights {weights_hash(trained)}" in out
    warm = RunFolder.create(tmp_path / "warm", TINY, (trained,))
    train(warm, 200, warm_start=trained)
    assert replay(warm, tmp_path / "warm-again").same


def test_replay_that_comes_out_otherwise_says_what_differs(tmp_path, capsys):
    run = RunFolder.create(tmp_path / "run", msgspec.structs.replace(TINY, seed=5))
    train(run, 200)
    facts = run.facts() | {"torch": "1.0", "cpu": "another"}
    (run.path / "facts.json").write_bytes(msgspec.json.encode(facts))
    config = msgspec.structs.replace(run.config, seed=6)
    (run.path / "config.json").write_bytes(msgspec.json.encode(config))
    _, err = said(train_app, ["--replay", run.path, "--out", tmp_path / "again"], capsys, code=1)
    assert "other weights: recorded" in err
    assert "config_hash, cpu, torch" in err


def test_replay_without_its_parent_is_refused(tmp_path):
    parent = RunFolder.create(tmp_path / "parent", TINY)
    train(parent, 1)
    child = RunFolder.create(tmp_path / "child", TINY, (parent,))
    train(child, 1, warm_start=parent)
    train(parent, 1, resume=True)
    with pytest.raises(RunError, match="has gone on since"):
        replay(child, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_facts_and_provenance_tell_where_a_run_is_from(trained):
    facts = trained.facts()
    assert len(facts["commit"]) in (0, 40)
    assert [len(stage) for stage in facts["floor_hashes"]] == [TINY.floors]
    assert facts["cpu"]
    assert facts["cpus"] >= 1
    assert differing_facts(facts, facts) == []
    assert differing_facts(facts, facts | {"numba": "0", "command_line": []}) == ["numba"]
    short = run_provenance(trained)
    assert short.weights_hash == weights_hash(trained)
    assert (short.steps, short.seed, short.algorithm) == (3072, 3, "ppo")
    assert short.reward_hash == TINY.reward.hash()


def test_several_seeds_are_trained_and_finished_later(tmp_path, tiny_yaml, capsys):
    arguments = ["--seeds", 2, "--config", tiny_yaml, "--steps", 300, "--out", tmp_path / "runs"]
    out, _ = said(train_app, arguments, capsys)
    assert "seed 3: 384 steps" in out
    assert "seed 4: 384 steps" in out
    hashes = [weights_hash(RunFolder.open(tmp_path / "runs" / f"seed-{k}")) for k in (3, 4)]
    assert hashes[0] != hashes[1]
    summary = msgspec.json.decode((tmp_path / "runs" / "summary.json").read_bytes())
    assert summary["trip_s"]["lowest"] <= summary["trip_s"]["mean"] <= summary["trip_s"]["highest"]
    again = train_seeds(TINY, tmp_path / "runs", 2, 300)
    assert sorted(again.points) == [3, 4]
    with pytest.raises(RunError, match="asked for 300 steps, not 301"):
        train_seeds(TINY, tmp_path / "runs", 2, 301)
    with pytest.raises(RunError, match="another config"):
        train_seeds(msgspec.structs.replace(TINY, people=2), tmp_path / "runs", 2, 300)


def test_workers_of_a_killed_parent_put_their_run_away_and_take_no_other(tmp_path):
    code = (
        "from pathlib import Path; from trainer.learning.seeds import train_seeds\n"
        "from tests.support.tiny_run import TINY\n"
        f"if __name__ == '__main__': train_seeds(TINY, Path({str(tmp_path)!r}), 4, 10**8, 2)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(root)}
    ) as parent:
        while not all((tmp_path / f"seed-{k}" / "curve.jsonl").exists() for k in (3, 4)):
            assert parent.poll() is None
            time.sleep(0.2)
        workers = children(parent.pid)
        assert len(workers) >= 2
        parent.kill()
    end_s = time.monotonic() + 60.0
    while left := [pid for pid in workers if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < end_s, left
        time.sleep(0.2)
    assert sorted(path.name for path in tmp_path.glob("seed-*")) == ["seed-3", "seed-4"]
    for number in (3, 4):
        assert load_policy(RunFolder.open(tmp_path / f"seed-{number}")).num_timesteps > 0


def children(parent):
    """Process ids of a process's children that run Python code."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(stat.parent.name))
    return found


def sweep_file(path, **changes):
    document = {
        "steps": 200,
        "objective": "trip_s",
        "base": msgspec.to_builtins(TINY),
        "parameters": {
            "ppo.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
            "ppo.epochs": {"low": 1, "high": 3, "whole": True},
            "network.history": {"choices": [True, False]},
        },
        **changes,
    }
    path.write_text(yaml.safe_dump(document))
    return path


def test_sweep_goes_on_and_writes_a_config_to_train_with(tmp_path, capsys):
    sweep = sweep_file(tmp_path / "sweep.yaml")
    out = tmp_path / "out"
    shown, _ = said(sweep_app, ["--config", sweep, "--trials", 2, "--out", out], capsys)
    assert "trial 0:" in shown
    assert "trial 1:" in shown
    # A third that is cut off: its run stands at the first batch, the journal has it running.
    cut = run_cut_trial(load_sweep(sweep), out)
    shown, _ = said(sweep_app, ["--config", sweep, "--trials", 4, "--out", out], capsys)
    assert "trial 2:" in shown
    assert "trial 3:" in shown
    assert "trial 1:" not in shown
    assert cut.curve()[-1].steps == 256
    points = [RunFolder.open(out / f"trial-{k:04d}").curve()[-1] for k in range(4)]
    best = load_train_config(out / "best.yaml")
    winner = min(range(4), key=lambda k: points[k].trip_s)
    assert points[winner].trip_s in [
        points[k].trip_s for k in range(4) if RunFolder.open(out / f"trial-{k:04d}").config == best
    ]
    _, err = said(
        sweep_app,
        ["--config", sweep_file(tmp_path / "other.yaml", steps=100), "--out", out],
        capsys,
        code=1,
    )
    assert "holds another sweep" in err


def run_cut_trial(sweep, out):
    """Begin a trial as ``run_sweep`` does, and leave it after one batch."""
    from trainer.learning.sweep import _open_study

    trial = _open_study(sweep, out).ask()
    values = {path: parameter.ask(trial, path) for path, parameter in sweep.parameters.items()}
    run = RunFolder.create(out / f"trial-{trial.number:04d}", with_values(sweep.base, values))
    train(run, sweep.steps, seconds_max=1e-9)
    assert run.curve()[-1].steps == BATCH_STEPS
    return run


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"ppo.lr": {"low": 0.1, "high": 1.0}}, "no such setting"),
        ({"nothing.at.all": {"choices": [1]}}, "no such setting"),
        ({"ppo.epochs": {"low": 0, "high": 3, "whole": True}}, "epochs"),
        ({"ppo.epochs": {"choices": ["many"]}}, "epochs"),
        ({"ppo.discount": {"low": 0.9, "high": 0.1}}, "must be below"),
        ({"ppo.learning_rate": {"low": 0.0, "high": 0.1, "log": True}}, "log needs a low above 0"),
        ({"ppo.discount": {"low": 0.9}}, "either low and high, or choices"),
        ({"ppo.discount": {"low": 0.1, "high": 0.9, "choices": [0.5]}}, "either low and high, or choices"),
        ({"ppo.discount": {"low": 0.9, "hihg": 0.95}}, "hihg"),
        ({}, "parameters"),
    ],
)
def test_bad_sweep_is_refused_before_anything_is_written(tmp_path, parameters, message):
    path = sweep_file(tmp_path / "sweep.yaml", parameters=parameters)
    with pytest.raises(TrainConfigError, match=message) as caught:
        load_sweep(path)
    assert str(path) in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def plugged(tmp_path, monkeypatch):
    """The package of docs/training.md, with its entry points, on the path."""
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    site = tmp_path / "site"
    info = site / "my_policies-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "my_policies.py").write_text(text.split("```python\n# my_policies.py\n")[1].split("```")[0])
    (info / "entry_points.txt").write_text(text.split("```ini\n")[1].split("```")[0])
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-policies\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(site))
    yield
    sys.modules.pop("my_policies", None)


@pytest.mark.usefixtures("plugged")
def test_example_of_the_docs_trains_and_resumes(tmp_path):
    config = msgspec.structs.replace(
        TINY, algorithm="a2c", environment="one-floor", plugin={"learning_rate": 0.002}
    )
    whole, parts = (RunFolder.create(tmp_path / name, config) for name in ("whole", "parts"))
    train(whole, 256)
    train(parts, 1)
    train(parts, 128, resume=True)
    assert type(load_policy(parts)).__name__ == "A2C"
    assert weights_hash(parts) == weights_hash(whole)
    with pytest.raises(TrainConfigError, match="learning_rat"):
        algorithm_of(msgspec.structs.replace(config, plugin={"learning_rat": 1.0}))


def test_plugin_that_nobody_provides_is_refused(tmp_path):
    run = RunFolder.create(tmp_path / "run", msgspec.structs.replace(TINY, algorithm="a2c"))
    with pytest.raises(TrainConfigError, match=r"no 'a2c'; there are ppo, sac, dqn"):
        train(run, 1)
    run = RunFolder.create(tmp_path / "other", msgspec.structs.replace(TINY, environment="moon"))
    with pytest.raises(TrainConfigError, match=r"no 'moon'; there are warehouse"):
        train(run, 1)


@pytest.mark.usefixtures("plugged")
def test_plugin_that_cannot_be_imported_is_refused(tmp_path):
    (tmp_path / "site" / "my_policies.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(TrainConfigError, match="cannot be loaded"):
        algorithm_of(msgspec.structs.replace(TINY, algorithm="a2c"))
