"""What the policy takes over from a rule-based controller before it learns by trial."""

import msgspec
import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from contracts.canonical import hash_of
from contracts.observation import OBSERVATION_SIZE
from navigation.action import encode_command
from tests.support.tiny_run import TINY
from trainer.baselines.catalogue import build, tuned_config
from trainer.errors import TrainConfigError
from trainer.evaluation.controllers import OnnxPolicy
from trainer.evaluation.policies import export_run
from trainer.learning.algorithms import algorithm_of
from trainer.learning.checkpoint import load_policy, weights_hash
from trainer.learning.config import ImitationConfig, NetworkConfig, train_config
from trainer.learning.facts import run_provenance
from trainer.learning.imitation import imitate
from trainer.learning.network import actor_parameters
from trainer.learning.run import RunFolder
from trainer.learning.scene import make_environment
from trainer.learning.teachers import make_teacher, teacher_hash
from trainer.learning.train import train

LESSONS = ImitationConfig(
    teacher="orca", rounds=2, steps_per_round=100, epochs=10, epochs_last=20, batch_size=256
)
CONFIG = msgspec.structs.replace(
    TINY, worlds=8, robots=4, people=2, floors=8, network=NetworkConfig(hidden=(64, 64)), imitation=LESSONS
)


@pytest.fixture(autouse=True)
def one_thread():
    """As in training: on a busy machine two of torch's threads wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fresh(config):
    environment = make_environment(config, None)
    return environment, algorithm_of(config).make(config, environment, config.seed)


def told(lesson):
    return (lesson.number, lesson.of, lesson.teacher)


def test_the_policy_does_what_its_teacher_would_where_nobody_taught_it():
    environment, model = fresh(CONFIG)
    lessons = []
    imitate(model, CONFIG, lessons.append)
    assert [told(lesson) for lesson in lessons] == [(1, 2, "orca"), (2, 2, "orca")]
    _, untaught = fresh(CONFIG)
    teacher = build("orca", tuned_config("orca"), CONFIG.robot, environment.simulation.step_s)
    teacher.begin(environment.num_envs)
    environment.seed(4711)
    observation, errors = environment.reset(), []
    for _ in range(50):
        right = np.clip(encode_command(teacher.commands(observation), CONFIG.robot), -1.0, 1.0)
        answers = [one.predict(observation, deterministic=True)[0] for one in (model, untaught)]
        errors.append([np.abs(answer - right).mean() for answer in answers])
        observation = environment.step(answers[0])[0]
    after, before = np.mean(errors, axis=0)
    assert after < 0.5 * before, (after, before)
    mean = model.policy.average
    for kept, now in zip(
        [*mean.body.parameters(), *mean.head.parameters()], actor_parameters(model.policy), strict=True
    ):
        assert torch.equal(kept, now), "what is exported begins at the taught weights"
    assert float(mean.updates) == 0.0


@pytest.mark.parametrize("teacher", ["orca", "pure_pursuit"])
def test_same_config_same_weights(tmp_path, teacher):
    lesson = ImitationConfig(teacher=teacher, rounds=2, steps_per_round=4, critic_steps=1)
    config = msgspec.structs.replace(TINY, imitation=lesson)
    runs = [RunFolder.create(tmp_path / name, config) for name in ("one", "two")]
    for run in runs:
        train(run, 1)
    assert weights_hash(runs[0]) == weights_hash(runs[1])
    assert runs[0].facts()["teacher_hash"] == hash_of(tuned_config(teacher))


def test_at_first_only_the_critic_learns(tmp_path):
    lesson = ImitationConfig(rounds=1, steps_per_round=10, critic_steps=100)
    config = msgspec.structs.replace(TINY, imitation=lesson)
    run = RunFolder.create(tmp_path / "run", config)
    _, taught = fresh(config)
    imitate(taught, config)
    train(run, 1)
    critic_only = load_policy(run).policy
    pairs = zip(actor_parameters(critic_only), actor_parameters(taught.policy), strict=True)
    assert all(torch.equal(now, then) for now, then in pairs)
    assert torch.equal(critic_only.log_std, taught.policy.log_std)
    assert not torch.equal(critic_only.value_net.weight, taught.policy.value_net.weight)
    train(run, 1, resume=True)
    moved = load_policy(run).policy
    assert not torch.equal(moved.action_net.weight, taught.policy.action_net.weight)


def test_weights_of_a_parent_and_of_a_teacher_are_one_too_many(tmp_path):
    parent = RunFolder.create(tmp_path / "parent", TINY)
    with pytest.raises(TrainConfigError, match="leave imitation out"):
        RunFolder.create(tmp_path / "run", CONFIG, (parent,))
    assert not (tmp_path / "run").exists()


def constant_policy(speed, turn):
    """An exported network that answers one command (m/s, rad/s) to everything."""
    values = {"w": np.zeros((OBSERVATION_SIZE, 2)), "b": np.array([speed, turn])}
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["observation", "w", "b"], ["command"])],
        "policy",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["rows", OBSERVATION_SIZE])],
        [helper.make_tensor_value_info("command", TensorProto.FLOAT, ["rows", 2])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    ).SerializeToString()


def networks(folder, values):
    """A folder of networks, each of which answers the same command to everything."""
    folder.mkdir()
    for number, command in enumerate(values):
        (folder / f"seed-{number}.onnx").write_bytes(constant_policy(*command))
    return f"{folder}/"


def test_several_policies_teach_by_their_median(tmp_path):
    folder = networks(tmp_path / "three", [(0.2, 0.0), (0.9, -0.5), (0.4, 1.0)])
    teacher = make_teacher(folder, CONFIG.robot, 0.1, 4)
    told = teacher.commands(np.zeros((4, OBSERVATION_SIZE), dtype=np.float32))
    assert told == pytest.approx(np.tile([0.4, 0.0], (4, 1)), abs=1e-6)


def test_a_run_says_which_policies_taught_it(tmp_path):
    folder = networks(tmp_path / "two", [(0.2, 0.0), (0.9, -0.5)])
    config = msgspec.structs.replace(
        TINY, imitation=msgspec.structs.replace(LESSONS, teacher=folder, steps_per_round=4)
    )
    run = RunFolder.create(tmp_path / "run", config)
    before = teacher_hash(folder)
    assert run.facts()["teacher_hash"] == before
    train(run, 1)
    assert run_provenance(run).parents == (before,)
    own = teacher_hash(f"{tmp_path}/")
    assert own != before, "a folder of runs teaches, too"
    teacher = make_teacher(f"{tmp_path}/", CONFIG.robot, 0.1, 1)
    seen = np.zeros((1, OBSERVATION_SIZE), dtype=np.float32)
    policy = OnnxPolicy(export_run(run, CONFIG.robot), "run")
    assert np.array_equal(teacher.commands(seen), policy.commands(seen))
    (tmp_path / "two" / "seed-1.onnx").write_bytes(constant_policy(0.9, -0.4))
    assert teacher_hash(folder) != before


def test_a_folder_that_cannot_teach_is_refused_by_name(tmp_path):
    (tmp_path / "empty").mkdir()
    broken = networks(tmp_path / "broken", [(0.2, 0.0)])
    (tmp_path / "broken" / "seed-0.onnx").write_bytes(b"no network")
    for folder, why in [
        (f"{tmp_path}/nowhere", "cannot be read"),
        (f"{tmp_path}/empty", "holds neither"),
        (broken, "broken"),
    ]:
        with pytest.raises(TrainConfigError, match=why):
            train_config({"imitation": {"teacher": folder}})
