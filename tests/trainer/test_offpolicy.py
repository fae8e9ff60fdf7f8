"""Off-policy estimates agree with worked examples, with a world whose truth is known, and with the twin; or refuse."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from outrider.verbs.ope import app
from sim.simulation import Simulation, SimulationConfig
from trainer.episodes.vec_env import BatchedVecEnv
from trainer.evaluation.config import unseen_floors
from trainer.learning.train import load_policy
from trainer.offpolicy.collect import collect_episodes
from trainer.offpolicy.episodes import EpisodesError, LoggedEpisodes
from trainer.offpolicy.estimate import ESTIMATORS, OpeConfig, evaluate_offline
from trainer.offpolicy.overlap import OverlapLimits
from trainer.offpolicy.policies import GaussianPolicy, learned_policy

ANYTHING = OverlapLimits(
    episodes_min=2,
    ess_min=1.0,
    ess_share_min=0.0,
    weight_share_max=1.0,
    step_ess_share_min=0.0,
    covered_min=0.0,
)
STATES, HORIZON, DISCOUNT = 3, 4, 0.9
WEIGHTING = ("wis", "pdis", "pdwis")


class TablePolicy:
    """Chooses 0 or 1 by the state's number; float64[S] probabilities of 1."""

    deterministic = False

    def __init__(self, of_one):
        self.of_one = np.array(of_one)

    def log_prob(self, observations, actions):
        one = self.of_one[observations.argmax(axis=1)]
        with np.errstate(divide="ignore"):
            return np.log(np.where(actions[:, 0] > 0.5, one, 1.0 - one))

    def sample(self, observations, rng):
        return (rng.random((len(observations), 1)) < self.mean_action(observations)).astype(np.float32)

    def mean_action(self, observations):
        return self.of_one[observations.argmax(axis=1)][:, None].astype(np.float32)


class TableWorld:
    """Three states and two actions, with a chance to end at each step; its values are known exactly."""

    rng = np.random.default_rng(4)
    moves = rng.dirichlet(np.ones(STATES), (STATES, 2))
    rewards = rng.normal(size=(STATES, 2))
    end = 0.15
    start = np.array([0.5, 0.3, 0.2])

    def value(self, policy):
        chance = np.stack([1.0 - policy.of_one, policy.of_one], axis=1)
        value = np.zeros(STATES)
        for _ in range(HORIZON):
            value = (chance * (self.rewards + DISCOUNT * (1.0 - self.end) * self.moves @ value)).sum(axis=1)
        return float(self.start @ value)

    def log(self, policy, count, seed):
        rng = np.random.default_rng(seed)
        rows, offsets, ended, final = [], [0], [], []
        for _ in range(count):
            state, over = rng.choice(STATES, p=self.start), False
            for _ in range(HORIZON):
                seen = np.eye(STATES, dtype=np.float32)[[state]]
                action = policy.sample(seen, rng)
                choice = int(action[0, 0])
                logged = policy.log_prob(seen, action)[0]
                rows.append((seen[0], action[0], logged, self.rewards[state, choice] + rng.normal(0.0, 0.1)))
                state = rng.choice(STATES, p=self.moves[state, choice])
                over = bool(rng.random() < self.end)
                if over:
                    break
            offsets.append(len(rows))
            ended.append(over)
            final.append(np.eye(STATES, dtype=np.float32)[state])
        columns = list(zip(*rows, strict=True))
        return LoggedEpisodes(
            np.stack(columns[0]),
            np.stack(columns[1]),
            np.array(columns[2]),
            np.array(columns[3]),
            np.array(offsets),
            np.array(ended),
            np.stack(final),
        )


def table_features(observations, actions):
    cell = observations.argmax(axis=1) * 2 + (actions[:, 0] > 0.5)
    return np.eye(2 * STATES)[cell]


BEHAVIOUR, TARGET = TablePolicy([0.5, 0.4, 0.6]), TablePolicy([0.7, 0.25, 0.5])
WORLD = TableWorld()
QUESTION = OpeConfig(horizon=HORIZON, discount=DISCOUNT)


@pytest.fixture(scope="module")
def table_log():
    return WORLD.log(BEHAVIOUR, 2500, seed=1)


def by_hand(rewards, actions, ended=True):
    """Episodes in one state, logged with both actions equally likely."""
    lengths = [len(row) for row in rewards]
    steps = sum(lengths)
    return LoggedEpisodes(
        np.ones((steps, 1), np.float32),
        np.concatenate(actions).astype(np.float32)[:, None],
        np.full(steps, np.log(0.5)),
        np.concatenate(rewards).astype(np.float64),
        np.concatenate([[0], np.cumsum(lengths)]),
        np.full(len(rewards), ended),
        np.ones((len(rewards), 1), np.float32),
    )


def test_weighting_as_worked_by_hand():
    """Target takes 1 with 0.8, the log with 0.5: ratios 1.6 and 0.4.

    Episodes (1, 1), (1, 0), (0): weights after each step 1.6, 2.56; 1.6, 0.64; 0.4 (over, stays 0.4).
    """
    log = by_hand([[1.0, 2.0], [3.0, 4.0], [5.0]], [[1, 1], [1, 0], [0]])
    report = evaluate_offline(
        log, TablePolicy([0.8]), OpeConfig(discount=0.5, limits=ANYTHING), estimators=WEIGHTING
    )
    wis, pdis, pdwis = report.estimates
    total = 2.56 + 0.64 + 0.4
    assert wis.value == pytest.approx((2.56 * 2.0 + 0.64 * 5.0 + 0.4 * 5.0) / total)
    assert pdis.value == pytest.approx((1.6 * 1 + 1.6 * 3 + 0.4 * 5 + 0.5 * (2.56 * 2 + 0.64 * 4)) / 3)
    first = (1.6 * 1 + 1.6 * 3 + 0.4 * 5) / 3.6
    assert pdwis.value == pytest.approx(first + 0.5 * (2.56 * 2 + 0.64 * 4) / total)
    assert wis.ess == pytest.approx(total**2 / (2.56**2 + 0.64**2 + 0.4**2))
    assert wis.weight_share_max == pytest.approx(2.56 / total)
    assert report.logged.value == pytest.approx((2.0 + 5.0 + 5.0) / 3)


def test_every_estimator_finds_the_truth_of_a_known_world(table_log):
    truth = WORLD.value(TARGET)
    report = evaluate_offline(table_log, TARGET, QUESTION, features=table_features)
    assert [estimate.estimator for estimate in report.estimates] == list(ESTIMATORS)
    assert abs(report.logged.value - truth) > 0.08, "the question is not answered by the log's own mean"
    assert report.logged.value == pytest.approx(WORLD.value(BEHAVIOUR), abs=0.08)
    for estimate in report.estimates:
        assert estimate.value == pytest.approx(truth, abs=0.08), estimate.estimator
        low, high = estimate.interval
        assert low < estimate.value < high, estimate.estimator
        assert high - low < 0.35, estimate.estimator


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_intervals_cover_the_truth_about_as_often_as_they_say(name):
    truth = WORLD.value(TARGET)
    covered = 0
    for seed in range(20):
        report = evaluate_offline(
            WORLD.log(BEHAVIOUR, 150, 100 + seed), TARGET, QUESTION, (name,), table_features
        )
        low, high = report.estimates[0].interval
        covered += low <= truth <= high
    assert covered >= 16


def test_doubly_robust_survives_useless_values(table_log):
    """With one feature for everything the learned values are wrong; the weights put them right."""
    truth = WORLD.value(TARGET)
    names = ("dr", "wdr")
    report = evaluate_offline(table_log, TARGET, QUESTION, names, lambda seen, _: np.ones((len(seen), 1)))
    dr, wdr = report.estimates
    assert dr.value == pytest.approx(truth, abs=0.08)
    assert wdr.value == pytest.approx(truth, abs=0.08)


def test_values_that_miss_the_logs_own_return_are_refused(table_log):
    """The first state's number alone cannot tell how an episode goes on."""

    def blind(seen, _):
        return seen[:, :1].astype(np.float64) - 0.6

    report = evaluate_offline(table_log, TARGET, QUESTION, ("fqe", "dm"), blind)
    assert report.estimates == []
    assert all("miss the log's own return" in refusal.reason for refusal in report.refusals)


def refused(log, target, config=QUESTION, names=tuple(ESTIMATORS)):
    report = evaluate_offline(log, target, config, names)
    assert report.estimates == []
    return " / ".join(sorted({refusal.reason for refusal in report.refusals}))


def test_what_the_log_cannot_say_is_refused(table_log):
    few = WORLD.log(BEHAVIOUR, 19, 0)
    assert "19 episodes, at least 20" in refused(few, TARGET)
    logs = table_log.log_probabilities.copy()
    logs[:7] = [np.nan, -np.inf, np.nan, -np.inf, np.inf, np.nan, np.nan]
    assert "7 of" in refused(replace(table_log, log_probabilities=logs), TARGET)
    cut = refused(table_log, TARGET, OpeConfig(horizon=HORIZON + 1))
    assert "were cut before the horizon of 5 steps" in cut
    never = TablePolicy([0.0, 0.0, 0.0])
    only_ones = WORLD.log(TablePolicy([1.0, 1.0, 1.0]), 100, 0)
    assert "after step 1 no logged episode could have come from the target" in refused(only_ones, never)


def test_limits_hold_at_their_boundary(table_log):
    def with_limit(ess_min):
        limits = OverlapLimits(ess_min=ess_min)
        return evaluate_offline(table_log, TARGET, OpeConfig(HORIZON, DISCOUNT, limits), ("wis",))

    ess = with_limit(1.0).estimates[0].ess
    assert with_limit(ess).refusals == []
    assert f"effective sample size {ess:.1f}" in with_limit(ess * 1.001).refusals[0].reason


def test_unknown_estimator_is_named(table_log):
    with pytest.raises(EpisodesError, match="no estimator magic"):
        evaluate_offline(table_log, TARGET, QUESTION, ("magic",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": np.array([1.0, np.nan, 0.0])}, "rewards: 1 values are NaN"),
        ({"rewards": np.zeros(2)}, r"rewards: expected shape \(3,\), came \(2,\)"),
        ({"rewards": np.zeros(3, np.float32)}, "rewards: expected float64, came float32"),
        ({"offsets": np.array([0, 2, 2, 3])}, "offsets: expected"),
        ({"offsets": np.array([1, 2, 3])}, "offsets: expected"),
        ({"ended": np.array([True])}, r"ended: expected shape \(2,\)"),
        ({"final_observations": np.ones((2, 4), np.float32)}, "final_observations: expected shape"),
        ({"actions": np.full((3, 1), np.inf, np.float32)}, "actions: 3 values"),
    ],
)
def test_episodes_that_do_not_fit_are_refused(change, message):
    good = by_hand([[1.0, 2.0], [3.0]], [[1, 1], [0]])
    with pytest.raises(EpisodesError, match=message):
        replace(good, **change)


def test_episodes_come_back_from_a_file(tmp_path):
    good = by_hand([[1.0, 2.0], [3.0]], [[1, 1], [0]])
    path = tmp_path / "log.npz"
    good.save(path)
    back = LoggedEpisodes.load(path)
    assert all(np.array_equal(getattr(good, name), getattr(back, name)) for name in vars(good))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EpisodesError, match="no file of logged episodes"):
        LoggedEpisodes.load(path)
    np.savez(path, observations=np.array([{}], dtype=object))
    with pytest.raises(EpisodesError, match="expected the arrays"):
        LoggedEpisodes.load(path)
    np.savez(path, **{**vars(good), "rewards": np.array([{}, {}, {}], dtype=object)})
    with pytest.raises(EpisodesError, match="allow_pickle"):
        LoggedEpisodes.load(path)
    with pytest.raises(EpisodesError, match="cannot be read"):
        LoggedEpisodes.load(tmp_path / "none.npz")


def floor():
    """25 worlds with one robot each."""
    return Simulation(unseen_floors(2), SimulationConfig(worlds=25, robots=1, people=2), seed=0)


TWIN_STEPS = 20


@pytest.fixture(scope="module")
def behaviour(trained):
    return learned_policy(load_policy(trained))


@pytest.fixture(scope="module")
def twin_log(behaviour):
    return collect_episodes(behaviour, floor(), 400, seed=5, steps_max=TWIN_STEPS)


def shifted(policy, by):
    """The same policy, its mean moved by ``by`` of its own spread."""
    return GaussianPolicy(
        lambda seen: policy.mean_action(seen) + (by * policy.std).astype(np.float32), policy.std
    )


def discounted(log):
    returns = log.padded(log.rewards, TWIN_STEPS, 0.0) @ 0.99 ** np.arange(TWIN_STEPS)
    return returns.mean(), returns.std() / np.sqrt(len(returns))


def test_logged_probabilities_and_rewards_are_those_of_the_environment(twin_log, trained):
    model = load_policy(trained)
    with torch.no_grad():
        _, logs, _ = model.policy.evaluate_actions(
            torch.as_tensor(twin_log.observations[:200]), torch.as_tensor(twin_log.actions[:200])
        )
    assert twin_log.log_probabilities[:200] == pytest.approx(logs.numpy(), abs=1e-4)
    simulation = floor()
    environment = BatchedVecEnv(simulation)
    environment.seed(5)
    first = environment.reset()[0]
    assert np.array_equal(first, twin_log.observations[0])
    _, reward, _, _ = environment.step(twin_log.actions[twin_log.offsets[:25]])
    assert twin_log.rewards[twin_log.offsets[:25]] == pytest.approx(reward, abs=1e-5)
    assert len(twin_log) == 400
    assert (twin_log.lengths[~twin_log.ended] == TWIN_STEPS).all()


def test_same_seed_same_log(behaviour):
    logs = [collect_episodes(behaviour, floor(), 30, seed, steps_max=5) for seed in (1, 1, 2)]
    assert all(np.array_equal(getattr(logs[0], n), getattr(logs[1], n)) for n in vars(logs[0]))
    assert not np.array_equal(logs[0].actions, logs[2].actions)


def test_a_close_policy_is_judged_as_the_twin_judges_it(behaviour, twin_log):
    target = shifted(behaviour, 0.25)
    truth, truth_error = discounted(collect_episodes(target, floor(), 2000, seed=99, steps_max=TWIN_STEPS))
    report = evaluate_offline(twin_log, target, OpeConfig(horizon=TWIN_STEPS))
    assert len(report.estimates) >= 5
    for estimate in report.estimates:
        low, high = estimate.interval
        assert low - 2 * truth_error <= truth <= high + 2 * truth_error, (estimate, truth)


def test_a_far_policy_is_refused(behaviour, twin_log):
    reasons = refused(twin_log, shifted(behaviour, 3.0), OpeConfig(horizon=TWIN_STEPS))
    assert "effective sample size" in reasons
    assert "outside what was logged" in reasons


def test_deterministic_policies_are_refused_with_the_way_out(behaviour, twin_log):
    still = GaussianPolicy(behaviour.mean_action, np.zeros(2))
    question = OpeConfig(horizon=TWIN_STEPS)
    report = evaluate_offline(twin_log, still, question)
    assert {"wis", "pdis", "pdwis", "dr", "wdr", "dm"} <= {refusal.estimator for refusal in report.refusals}
    weighted = [refusal for refusal in report.refusals if refusal.estimator != "fqe"]
    assert all("--noise" in refusal.reason for refusal in weighted)
    # It needs no weights: it answers, or says that it does not even find the log's own return.
    answered = [estimate.estimator for estimate in report.estimates]
    missed = [refusal.reason for refusal in report.refusals if refusal.estimator == "fqe"]
    assert answered == ["fqe"] or "own return" in missed[0]
    log = collect_episodes(still, floor(), 30, seed=1, steps_max=TWIN_STEPS)
    assert "log with exploration" in refused(log, still, question)
    far = GaussianPolicy(lambda seen: behaviour.mean_action(seen) + np.float32(3.0), np.zeros(2))
    assert (
        "spreads from the logged ones"
        in evaluate_offline(twin_log, far, question, ("fqe",)).refusals[0].reason
    )
    with pytest.raises(ValueError, match="spread above zero for each action"):
        GaussianPolicy(behaviour.mean_action, np.array([0.0, 0.1]))


def test_from_the_command_line(trained, tmp_path):
    runner, path = CliRunner(), tmp_path / "log.npz"
    made = runner.invoke(
        app,
        f"collect --run {trained.path} --out {path} --episodes 40 --worlds 20 --steps-max 10 --seed 3".split(),
    )
    assert made.exit_code == 0, made.output
    same = [str(path), "--run", str(trained.path), "--horizon", "10", "--json"]
    result = runner.invoke(app, same)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    wis = report["estimates"][0]
    assert wis["value"] == pytest.approx(report["logged"]["value"], abs=1e-3)
    assert wis["ess"] == pytest.approx(40, abs=0.01)
    deterministic = runner.invoke(app, [*same, "--noise", "0"])
    assert deterministic.exit_code == 0, "fqe still answers"
    refusal = runner.invoke(app, [*same, "--noise", "0", "--estimators", "wis,dr"])
    assert refusal.exit_code == 3
    assert runner.invoke(app, [*same, "--estimators", "magic"]).exit_code == 1
    assert runner.invoke(app, [str(path)]).exit_code == 2
