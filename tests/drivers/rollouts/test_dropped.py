"""Episodes that were given up: nobody learns from their rows or counts them."""

import functools

import helpers
import numpy as np
import pytest
import tensorflow as tf
from misbehaving_environments import Misbehaving
from toy_environments import Counter, CountingPolicy, GraphCountingPolicy, RememberingPolicy

from ppo_agent.drivers import (
    DynamicEpisodeDriver,
    DynamicStepDriver,
    EnvironmentFaultError,
    EpisodeStatistics,
    GymnasiumEnvironment,
    TFCartPole,
)
from ppo_agent.drivers.rollouts.rollout import Rollout, drop_abandoned, is_nothing_but_dropped, to_trajectory
from ppo_agent.learner import batches
from ppo_agent.maths import masking

F, M, L = 0, 1, 2


def rollout_of(step_types, rng):
    """A rollout whose time steps have these types [B, T + 1], all else random."""
    step_type = np.array(step_types, np.int32)
    outer = step_type.shape
    time_steps = helpers.ts.TimeStep(
        step_type, rng.normal(size=outer).astype(np.float32), np.ones(outer, np.float32),
        rng.normal(size=(*outer, 3)).astype(np.float32),
    )  # fmt: skip
    action = rng.normal(size=(outer[0], outer[1] - 1, 2)).astype(np.float32)
    return Rollout(time_steps, action, (), ())


@pytest.mark.parametrize(
    ("given", "dropped"),
    [
        ([F, M, M, L, F, M, M], "000000"),
        ([F, M, M, F, M, M, M], "111000"),
        ([M, M, L, F, M, F, M], "000110"),  # The boundary row in front of it stays.
        ([M, M, F, M, L, F, F], "110001"),
        ([F, F, F, F, M, L, F], "111000"),
        ([F, M, L, F, M, M, F], "000111"),
        ([L, F, F, M, M, M, M], "010000"),
    ],
)
def test_rows_of_episodes_that_were_given_up(rng, given, dropped):
    other = [F, M, L, F, M, M, M]
    rollout = rollout_of([given, other], rng)
    before = to_trajectory(rollout, True)
    before = tf.nest.map_structure(np.copy, before)
    rows = to_trajectory(drop_abandoned(rollout), True)
    flags = np.array([int(flag) for flag in dropped + "0"], bool)
    np.testing.assert_array_equal(rows.step_type[0][flags], F)
    np.testing.assert_array_equal(rows.next_step_type[0][flags], F)
    np.testing.assert_array_equal(rows.reward[0][flags], 0)
    for name in ("step_type", "next_step_type", "reward", "discount", "observation"):
        np.testing.assert_array_equal(getattr(rows, name)[0][~flags], getattr(before, name)[0][~flags])
        np.testing.assert_array_equal(getattr(rows, name)[1], getattr(before, name)[1])
    trained = batches.bootstrap_free_mask(tf.nest.map_structure(tf.constant, rows)).numpy()
    assert not trained[0][flags].any()
    # A valid row of another episode is not lost.
    expected = (before.step_type[0] != L) & (before.next_step_type[0] != F) & ~flags
    np.testing.assert_array_equal(trained[0][:-1], expected[:-1])
    seen = masking.observation_mask(rows.step_type, rows.next_step_type).numpy()
    assert not seen[0][flags].any()


def without_rows(rows, keep):
    return tf.nest.map_structure(lambda x: tf.constant(np.asarray(x)[:, keep]), rows)


@pytest.mark.parametrize(
    "keywords", [{}, {"normalize_rewards_by": "return"}, {"compute_value_and_advantage_in_train": False}]
)
@pytest.mark.parametrize("kind", ["ours", "rnn"])
def test_training_is_that_without_these_rows(rng, keywords, kind):
    step_types = [[F, M, M, L, F, M, M, M, F, M, M, L, F, M, M]]  # Rows 4 to 7 were given up.
    # Not Adam, which divides by the size of gradients: those of the order of rounding would be magnified.
    keywords = {"use_gae": True, "num_epochs": 2, "gradient_clipping": 1.0, **keywords}
    agents = [helpers.make_agent(kind, optimizer=tf.keras.optimizers.SGD(0.01), **keywords) for _ in range(2)]
    helpers.copy_weights(*agents)
    template = helpers.make_experience(agents[0], rng, batch=1, length=15)
    whole = to_trajectory(drop_abandoned(rollout_of(step_types, rng)), True)._replace(
        action=template.action, policy_info=template.policy_info
    )
    keep = np.r_[0:4, 8:15]
    experiences = [without_rows(whole, np.arange(15)), without_rows(whole, keep)]
    for agent, experience in zip(agents, experiences, strict=True):
        agent.train(agent.preprocess_sequence(experience))
    helpers.assert_same_state(*map(helpers.state_of, agents), rtol=1e-5, atol=1e-6)


def make_env(fault, **keywords):
    return GymnasiumEnvironment(functools.partial(Flat, fault), num_environments=2, seed=0, **keywords)


class Flat(Misbehaving):
    """With an observation that the toy policies take."""

    def __init__(self, fault):
        super().__init__(fault)
        self.observation_space = Counter().observation_space
        self.action_space = Counter().action_space

    def _observation(self, due=False):
        return super()._observation(due)["x"]


@pytest.mark.parametrize("policy", [CountingPolicy, RememberingPolicy, GraphCountingPolicy])
@pytest.mark.parametrize("fault", ["raise_in_step", "nan_observation"])
def test_drivers_drop_them(policy, fault):
    rows, statistics = [], EpisodeStatistics()
    with make_env(fault, max_restarts=100, invalid_steps="drop") as env:
        collected = type("Sink", (), {"add_rollout": lambda self, x: rows.append(x), "__call__": lambda *_: None})()
        driver = DynamicStepDriver(
            env,
            policy(env.time_step_spec(), env.action_spec()),
            [collected, statistics],
            num_steps=80,
            bootstrap_row=True,
        )
        driver.run()
    (rows,) = rows
    step, after = rows.step_type[:, :-1], rows.next_step_type[:, :-1]
    assert np.count_nonzero((step == F) & (after == F)) > 2
    # All that is counted belongs to whole episodes of five steps, or to those at the end.
    steps = np.count_nonzero((step != L) & (after != F))
    assert statistics.num_environment_steps == steps
    returns, lengths = statistics.pop()
    assert set(returns) == {5.0}
    assert set(lengths) == {5}
    assert steps - 5 * len(returns) < 2 * 5


class InvalidAtFirst(Counter):
    """Gives NaN in each of its first steps."""

    def __init__(self):
        super().__init__()
        self.steps = 0

    def step(self, action):
        observation, reward, *others = super().step(action)
        self.steps += 1
        return observation, np.nan if self.steps <= 10 else reward, *others


def test_a_rollout_without_a_step_is_collected_again():
    statistics, rows = EpisodeStatistics(), []
    keywords = {"num_environments": 2, "seed": 0, "invalid_steps": "drop"}
    with GymnasiumEnvironment(InvalidAtFirst, **keywords) as env:
        policy = CountingPolicy(env.time_step_spec(), env.action_spec())
        driver = DynamicStepDriver(env, policy, [statistics, rows.append], num_steps=8)
        driver.run()
        assert env._recovery.drops.tolist() == [10, 10]
    # The first two rollouts of four rows for each environment are dropped, and half of the third.
    assert statistics.num_environment_steps == 4
    assert len(rows) == 4


def test_a_rollout_of_boundary_rows_is_no_empty_one():
    def is_empty(*step_types):
        return is_nothing_but_dropped(drop_abandoned(rollout_of(step_types, np.random.default_rng(0))))

    assert not is_empty([L, F], [L, F])  # A single vector step in which all episodes begin.
    assert is_empty([L, F, F], [F, F, F])
    assert not is_empty([F, F, F], [F, F, M])
    assert not is_empty([F, F, F], [M, L, F])


def test_environments_without_a_valid_step_end_a_run():
    class Broken(Counter):
        def step(self, action):
            observation, _, *others = super().step(action)
            return observation, np.nan, *others

    with GymnasiumEnvironment(Broken, num_environments=2, seed=0, invalid_steps="drop") as env:
        driver = DynamicStepDriver(env, CountingPolicy(env.time_step_spec(), env.action_spec()), num_steps=8)
        with pytest.raises(EnvironmentFaultError, match="the 100th episode in a row that had to be dropped"):
            driver.run()


def test_an_error_in_a_rollout_passes_the_driver():
    with make_env("nan_reward") as env:
        driver = DynamicStepDriver(env, CountingPolicy(env.time_step_spec(), env.action_spec()), num_steps=80)
        with pytest.raises(EnvironmentFaultError, match="environment 0 gave an invalid reward, nan"):
            driver.run()


def test_episodes_that_never_end_end_a_run(monkeypatch):
    monkeypatch.setattr("ppo_agent.drivers.dynamic_episode_driver.LONGEST_EPISODE", 20)
    statistics = EpisodeStatistics()
    with make_env("never_ending") as env:
        policy = CountingPolicy(env.time_step_spec(), env.action_spec())
        DynamicEpisodeDriver(env, policy, [statistics], num_episodes=2).run()
    assert statistics.num_environment_steps == 2 * 40
    assert statistics.num_episodes == 0


def test_environments_of_tensorflow_operations_are_checked(monkeypatch):
    env = TFCartPole(num_environments=3, seed=0)
    agent_env = GymnasiumEnvironment("CartPole-v1")
    policy = helpers.make_agent(
        action_spec=env.action_spec(), time_step_spec=agent_env.time_step_spec(), normalize_observations=False
    ).collect_policy
    driver = DynamicStepDriver(env, policy, [EpisodeStatistics()], num_steps=12)
    time_step, _ = driver.run()
    bad = tf.constant([[0.0] * 4, [0.0, np.nan, 0.0, 0.0], [0.0] * 4])
    env._state = None  # Whatever it holds, the next rollout starts from what it is given.
    with pytest.raises(EnvironmentFaultError, match="environment 1 gave an invalid observation, nan") as info:
        driver.run(time_step._replace(observation=bad))
    assert (info.value.environment, info.value.step, info.value.leaf) == (1, 0, "observation")
