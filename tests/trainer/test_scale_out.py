"""Fragments from Ray actors: nothing wrong enters a batch, one actor is a run in one process, lost nodes are survived.

The cluster is simulated by ``ray.cluster_utils``: real processes, each node with its own scheduler and object store.
"""

import os
import signal
import subprocess
import sys
import uuid
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from outrider.verbs.train import app as train_app
from tests.support.tiny_run import BATCH_STEPS, TINY
from tests.support.waiting import wait_for
from trainer.errors import FragmentError, RunError, ScaleOutError, TrainConfigError
from trainer.learning.algorithms import algorithm_of
from trainer.learning.checkpoint import read_checkpoint, weights_hash
from trainer.learning.config import ConstraintsConfig, Stage
from trainer.learning.run import RunFolder
from trainer.learning.train import train
from trainer.scale_out.cluster import import_ray
from trainer.scale_out.collector import FragmentCollector, actor_config, actor_seed
from trainer.scale_out.config import ScaleOutConfig
from trainer.scale_out.fragment import Request, Weights, check, checksum, fill, layout_of
from trainer.scale_out.remote_worlds import RemoteWorlds, read_ledger

WAIT_MAX_S = 100.0
NODE = {"num_cpus": 1, "object_store_memory": 100_000_000}


@pytest.fixture(scope="module")
def cluster():
    """A head without a CPU for actors, and two nodes with one each."""
    import_ray()
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        made.add_node(wait=False, **NODE)
    made.wait_for_nodes()
    yield made
    made.shutdown()


@pytest.fixture(scope="module")
def collected():
    """A collector in this process, the weights it had, and two fragments in a row, as asked for."""
    random = torch.get_rng_state()
    collector = FragmentCollector(actor_config(TINY, 4, 3), 0, 0)
    tensors = {name: tensor.numpy().copy() for name, tensor in collector._model.policy.state_dict().items()}
    weights = Weights(7, 0, (0.0, 0.0), tensors)
    asked = [Request(2, number, 7, 0) for number in (4, 5)]
    fragments = [collector.collect(weights, request) for request in asked]
    torch.set_rng_state(random)
    return collector, asked, fragments


def test_a_fragment_as_asked_for_is_taken(collected):
    collector, asked, fragments = collected
    layout = layout_of(collector._model.rollout_buffer, 8)
    for request, fragment in zip(asked, fragments, strict=True):
        check(fragment, request, layout)
        assert fragment.samples == BATCH_STEPS
    assert fragments[0].checksum != fragments[1].checksum
    starts = fragments[0].arrays["episode_starts"]
    assert starts[0].all()
    assert (fragments[1].arrays["episode_starts"][0] == fragments[0].arrays["last_dones"]).all()


def altered(fragment, name, change, sealed=True):
    arrays = {key: array.copy() for key, array in fragment.arrays.items()}
    arrays[name] = change(arrays.get(name))
    seal = checksum(fragment.request, arrays, fragment.reduced_mean) if sealed else fragment.checksum
    return replace(fragment, arrays=arrays, checksum=seal)


def flipped(array):
    array.view(np.uint8).reshape(-1)[5] ^= 1
    return array


def holding(value):
    def put(array):
        array.reshape(-1)[-1] = value
        return array

    return put


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda first, _: altered(first, "rewards", flipped, sealed=False), "checksum"),
        (lambda first, _: altered(first, "trip_s", lambda a: np.append(a, 1.0), sealed=False), "checksum"),
        (lambda first, _: replace(first, reduced_mean=first.reduced_mean + 1e-9), "checksum"),
        (lambda _, second: second, "answers Request"),
        (lambda first, _: replace(first, request=Request(3, 4, 7, 0)), "answers Request"),
        (lambda first, _: replace(first, request=Request(2, 4, 6, 0)), "answers Request"),
        (lambda first, _: altered(first, "rewards", lambda a: a[:-1]), "rewards is float32"),
        (lambda first, _: altered(first, "values", lambda a: a.astype(np.float64)), "values is float64"),
        (lambda first, _: altered(first, "log_probs", holding(np.nan)), "log_probs holds NaN"),
        (lambda first, _: altered(first, "last_values", holding(np.inf)), "last_values holds NaN or inf"),
        (lambda first, _: altered(first, "surplus", lambda _: np.zeros(1)), "surplus"),
    ],
)  # fmt: skip
def test_any_other_fragment_is_refused(collected, wrong, message):
    collector, asked, fragments = collected
    with pytest.raises(FragmentError, match=message):
        check(wrong(*fragments), asked[0], layout_of(collector._model.rollout_buffer, 8))


def test_advantages_are_those_of_each_fragment_alone(collected):
    collector, _, fragments = collected
    alone = collector._model.rollout_buffer
    advantages, returns = alone.advantages.copy(), alone.returns.copy()
    spaces = alone.observation_space, alone.action_space
    wide = type(alone)(16, *spaces, "cpu", alone.gae_lambda, alone.gamma, n_envs=16)
    fill(wide, fragments)
    assert wide.advantages[:, 8:].tobytes() == advantages.tobytes()
    assert wide.returns[:, 8:].tobytes() == returns.tobytes()
    assert wide.observations[:, :8].tobytes() == fragments[0].arrays["observations"].tobytes()
    assert abs(wide.advantages[:, :8] - advantages).max() > 0.0
    assert wide.full


def test_no_two_actors_have_a_seed():
    assert actor_seed(TINY, 0, 0) == TINY.seed
    seeds = {actor_seed(TINY, begun, actor) for begun in (0, 128, 256) for actor in range(100)}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**31 for seed in seeds)


def connected(cluster, **settings):
    return ScaleOutConfig(address=cluster.address, late_s=30.0, silent_max_s=15.0, **settings)


def test_one_actor_gives_the_weights_of_a_run_in_one_process(cluster, tmp_path):
    """Stages and multipliers travel too; going on from either kind of run works, both ways."""
    config = msgspec.structs.replace(
        TINY,
        curriculum=(Stage(people=0, steps_max=384), Stage(people=1, robots_rule_based=1)),
        constraints=ConstraintsConfig(contacts_per_trip_max=0.0, reduced_mean_max=0.0),
    )
    alone, spread = (RunFolder.create(tmp_path / name, config) for name in ("alone", "spread"))
    train(alone, 1024)
    train(spread, 1024, scale_out=connected(cluster, actors=1, staleness_max=0))
    assert weights_hash(spread) == weights_hash(alone)
    told = [[msgspec.structs.replace(point, seconds=0.0) for point in run.curve()] for run in (alone, spread)]
    assert told[0] == told[1]
    assert told[0][-1].multiplier_reduced > 0.0
    ledger = read_ledger(spread)
    assert [line.fragments[0][1:3] for line in ledger] == [(k, k) for k in range(8)]
    assert read_checkpoint(spread).steps == 1024
    assert train(spread, 128, resume=True).steps == 1152, "goes on in worlds of its own"


def test_what_is_stale_damaged_or_silent_is_dropped_counted_and_collected_again(cluster, tmp_path):
    stages = (Stage(people=0), Stage(people=1))
    config = msgspec.structs.replace(TINY, curriculum=stages)
    run, algorithm = RunFolder.create(tmp_path / "run", config), algorithm_of(config)
    worlds = RemoteWorlds(config, algorithm, connected(cluster, actors=1), run)
    try:
        model = algorithm.make(config, worlds, config.seed)
        worlds.attach(model, 0)
        pool, ray, weights = worlds.pool, import_ray(), worlds._weights(model)

        def gathered(version, stage=0):
            (fragment,) = pool.gather(replace(weights, version=version, stage=stage))
            return msgspec.structs.astuple(fragment.request)

        assert gathered(0) == (0, 0, 0, 0)
        assert gathered(1) == (0, 1, 0, 0), "asked for while the learner learned"
        # The next was asked for with version 1, at version 3 that lies two updates back.
        assert gathered(3) == (0, 3, 3, 0)
        assert (pool.counts.stale, pool.counts.fragments) == (1, 3)
        # The next was asked for in worlds that the learner has left.
        assert gathered(4, stage=1) == (0, 5, 4, 1)
        assert pool.counts.stale == 2

        ray.get(pool._places[0].reply)  # one more that is whole, before the actor goes wrong
        ray.get(pool._places[0].handle.__ray_call__.remote(_break_checksums))
        assert gathered(5, stage=1) == (0, 6, 4, 1)
        assert gathered(6, stage=1) == (1, 0, 6, 1), "collected by its replacement"
        assert (pool.counts.refused, pool.counts.lost) == (1, 1)
        assert "checksum" in pool.counts.why

        pool._settings = msgspec.structs.replace(pool._settings, silent_max_s=2.0)
        stopped = ray.get(pool._places[0].handle.__ray_call__.remote(lambda _: os.getpid()))
        ray.get(pool._places[0].reply)
        os.kill(stopped, signal.SIGSTOP)
        try:
            assert gathered(7, stage=1) == (1, 1, 6, 1)
            assert gathered(8, stage=1) == (2, 0, 8, 1)
        finally:
            with suppress(ProcessLookupError):  # Ray has ended it already, or it is left to end itself.
                os.kill(stopped, signal.SIGCONT)
        assert (pool.counts.lost, pool.counts.launched, pool.counts.fragments) == (2, 3, 8)
        assert "no answer to a ping" in pool.counts.why

        broken = replace(weights, version=9, stage=1, tensors={})
        pool.gather(broken)  # what was asked for before; the next is asked for with these
        with pytest.raises(RuntimeError, match="Missing key"):
            pool.gather(broken)
    finally:
        worlds.close()


def _break_checksums(collector):
    """Runs in the actor: from now on, what it sends does not fit what it says."""
    from trainer.scale_out import fragment

    del collector
    fragment.checksum = lambda *_: "0" * 64


def test_a_lost_node_is_survived_and_no_wrong_sample_enters(cluster, tmp_path):
    run = RunFolder.create(tmp_path / "run", TINY)
    removed: list[str] = []

    def report(point):
        if point.steps == 5 * BATCH_STEPS:
            victim = next(iter(cluster.worker_nodes))
            removed.append(victim.node_id)
            cluster.remove_node(victim, allow_graceful=False)

    last = train(run, 12 * BATCH_STEPS, report=report, scale_out=connected(cluster, actors=2))
    assert last.steps == 12 * BATCH_STEPS
    assert [point.steps for point in run.curve()] == [BATCH_STEPS * (k + 1) for k in range(12)]
    ledger = read_ledger(run)
    assert [line.version for line in ledger] == list(range(12))
    assert {line.samples for line in ledger} == {BATCH_STEPS}
    taken = [fragment for line in ledger for fragment in line.fragments]
    assert len({fragment[:2] for fragment in taken}) == len({fragment[3] for fragment in taken}) == 24
    for line in ledger:
        assert all(0 <= line.version - version <= 1 for _, _, version, _, _ in line.fragments)
    nodes = [{node for *_, node in line.fragments} for line in ledger]
    assert all(len(of) == 2 for of in nodes[:5]), "both nodes collect"
    lost = removed[0]
    assert all(lost not in of for of in nodes[7:])
    assert ledger[-1].counts.lost >= 1
    assert read_checkpoint(run).steps == last.steps


def processes_with(mark):
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            found += [path] if mark in path.read_bytes() else []
        except OSError:
            continue
    return found


def test_ctrl_c_leaves_a_whole_checkpoint_and_no_process(tmp_path, tiny_yaml):
    """A cluster of its own; the signal goes to all of the terminal's processes, as a terminal sends it."""
    out, mark = tmp_path / "run", uuid.uuid4().hex
    arguments = ["--ray", "local", "--ray-actors", 1, "--out", out, "--config", tiny_yaml, "--steps", 10**8]
    code = "from outrider.cli import main; main(['train', *__import__('sys').argv[1:]])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OUTRIDER_TEST_MARK": mark},
        start_new_session=True,
    )
    wait_for(
        lambda: len(RunFolder(out, TINY).curve()) >= 3 or process.poll() is not None, "training", WAIT_MAX_S
    )
    assert len(processes_with(mark.encode())) > 2, "the cluster runs"
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=WAIT_MAX_S)
    assert process.returncode == 130, err
    assert f"interrupted; the checkpoint is whole, go on with --resume {out}" in " ".join(err.split())
    assert "Traceback" not in err
    run = RunFolder.open(out)
    assert read_checkpoint(run).steps == run.curve()[-1].steps == BATCH_STEPS * len(read_ledger(run))
    wait_for(lambda: not processes_with(mark.encode()), "the end of its processes", WAIT_MAX_S)


def refused(arguments, message, out, capsys, code=1):
    with pytest.raises(SystemExit) as caught:
        train_app([*arguments, "--out", str(out)], prog_name="outrider")
    err = " ".join(capsys.readouterr().err.split())
    assert caught.value.code == code, err
    assert message in err
    assert not out.exists(), "nothing has been written"


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["--ray", "127.0.0.1:1"], "no Ray cluster at '127.0.0.1:1': ", 1),
        (["--ray", "ray://head:10001"], "expected host:port", 1),
        (["--ray", "head"], "expected host:port", 1),
        (["--ray", "local", "--ray-actors", "3"], "64 worlds cannot be divided among 3 actors", 1),
        (["--ray", "local", "--seeds", "2"], "--seeds and --replay do not go with it", 2),
    ],
)
def test_what_cannot_be_spread_is_refused_before_anything_is_written(
    tmp_path, capsys, arguments, message, code
):
    refused(arguments, message, tmp_path / "run", capsys, code)


def test_replaying_algorithms_are_refused():
    with pytest.raises(TrainConfigError, match="sac learns from a replay buffer"):
        ScaleOutConfig().check(msgspec.structs.replace(TINY, algorithm="sac"))


def test_without_ray_it_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    refused(["--ray", "local"], "pip install 'outrider[scale]'", tmp_path / "run", capsys)
    with pytest.raises(ScaleOutError, match="not installed"):
        import_ray()


def test_nothing_but_a_connection_imports_ray():
    code = (
        "import sys, trainer.learning.train, trainer.scale_out.remote_worlds, outrider.verbs.train;"
        " sys.exit('ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], timeout=100)
    assert done.returncode == 0


def test_a_ledger_that_is_none_is_named(tmp_path):
    run = RunFolder.create(tmp_path / "run", TINY)
    with pytest.raises(RunError, match=r"fragments\.jsonl cannot be read"):
        read_ledger(run)
