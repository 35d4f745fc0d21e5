"""Rollouts compiled by XLA against those of the plain graph."""

import gymnasium as gym
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.policies import greedy_policy, random_tf_policy, tf_policy
from tf_agents.trajectories import policy_step
from tf_agents.utils import common
from toy_environments import CountingPolicy, RememberingPolicy

from ppo_agent.common import program_space, shared_functions
from ppo_agent.drivers import (
    DynamicEpisodeDriver,
    DynamicStepDriver,
    TensorFlowEnvironment,
    TFCartPole,
    TFPendulum,
    UniformReplayBuffer,
)
from ppo_agent.drivers.rollouts import compiled_loop

LAST = 2


class Counter(TensorFlowEnvironment):
    """Counts the steps of episodes that take 3 steps; counts how often it is traced."""

    max_episode_steps = 3
    observation_space = gym.spaces.Box(-1e3, 1e3, [2], np.float32)
    action_space = gym.spaces.Discrete(5)
    traces = 0

    def _initial_state(self, seed):
        return tf.tile([[0.0, 1.0]], [self.batch_size, 1]) + tf.range(float(self.batch_size))[:, None]

    def _advance(self, state, action):
        self.traces += 1
        return state + tf.constant([1.0, 0.0]), tf.cast(action, tf.float32), tf.zeros(self.batch_size, tf.bool)

    def _observe(self, state):
        return state


class FreePolicy(tf_policy.TFPolicy):
    """Draws from the distributions of a given function of the observation; policy info is the observation."""

    def __init__(self, env, make_distribution, **kwargs):
        self._make = make_distribution
        spec = env.observation_spec()
        super().__init__(env.time_step_spec(), env.action_spec(), info_spec=spec, **kwargs)

    def _variables(self):
        return []

    def _distribution(self, time_step, policy_state):
        return policy_step.PolicyStep(self._make(time_step.observation), policy_state, time_step.observation)


def uniform_policy(env, **kwargs):
    logits = tf.zeros([env.batch_size, env.action_spec().maximum + 1])
    return FreePolicy(env, lambda _: tfp.distributions.Categorical(logits=logits, dtype=tf.int64), **kwargs)


def gathered(env, policy, driver_class, compiled, wrap=False, runs=3, capacity=None, iterations=None, **arguments):
    """Returns what the runs put into a buffer, the last time step and policy state, and the driver."""
    env.is_compilable = compiled
    buffer = UniformReplayBuffer(policy.trajectory_spec, env.batch_size)
    driver = driver_class(env, policy, [buffer.add_batch], **arguments)
    if capacity and compiled:
        driver._compiled._capacity = capacity
    run = common.function(driver.run) if wrap else driver.run
    time_step, state = run(maximum_iterations=iterations)
    for _ in range(runs - 1):
        time_step, state = run(time_step, state, maximum_iterations=iterations)
    if compiled:
        assert driver._compiled.is_possible()
    return buffer.gather_all(), time_step, state


def assert_equal(found, expected):
    tf.nest.assert_same_structure(found, expected)
    tf.nest.map_structure(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
    ("driver_class", "arguments", "policy_class", "wrap"),
    [
        (DynamicStepDriver, {"num_steps": 17}, CountingPolicy, False),
        (DynamicStepDriver, {"num_steps": 60, "capacity": 7}, RememberingPolicy, True),
        (DynamicStepDriver, {"num_steps": 60, "capacity": 20, "iterations": 6}, RememberingPolicy, False),
        (DynamicEpisodeDriver, {"num_episodes": 4}, CountingPolicy, True),
        (DynamicEpisodeDriver, {"num_episodes": 9, "capacity": 5, "bootstrap_row": True}, RememberingPolicy, False),
    ],
)
def test_rows_are_those_of_the_plain_graph(driver_class, arguments, policy_class, wrap):
    """With one chunk and with several, with and without policy state, in a user's graph too."""
    results = []
    for compiled in (False, True):
        env = Counter(num_environments=3, seed=0)
        policy = policy_class(env.time_step_spec(), env.action_spec())
        results.append(gathered(env, policy, driver_class, compiled, wrap and compiled, **arguments))
    assert_equal(*results)


def test_numbers_are_those_of_the_plain_graph():
    """Of a real environment, under a policy that drives the pole from side to side."""
    results = []
    for compiled in (False, True):
        env = TFCartPole(num_environments=4, seed=0)
        policy = FreePolicy(env, lambda x: tfp.distributions.Deterministic(tf.cast(x[:, 3] > 0.5, tf.int64)))
        results.append(gathered(env, policy, DynamicStepDriver, compiled, num_steps=400, bootstrap_row=True)[:2])
    tf.nest.map_structure(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), *results)
    assert (results[0][0].step_type.numpy() == LAST).sum() > 0


def collected_actions(env, policy, runs=2, num_steps=2000):
    env.is_compilable = True
    actions = []
    driver = DynamicStepDriver(env, policy, [lambda row: actions.append(row.action.numpy())], num_steps=num_steps)
    for _ in range(runs):
        driver.run()
    assert driver._compiled.is_possible()
    return np.stack(actions)


def test_actions_are_drawn_independently():
    """Over environments, over steps within a chunk, over chunks and over runs."""
    env = Counter(num_environments=4, seed=0)
    actions = collected_actions(env, uniform_policy(env), num_steps=10_000)
    assert len(actions) > 4000
    counts = np.bincount(actions.reshape(-1), minlength=5)
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    half = len(actions) // 2
    for a, b in [
        (actions[1:], actions[:-1]),
        (actions[:, 1:], actions[:, :-1]),
        (actions[1024:], actions[:-1024]),
        (actions[half:], actions[: len(actions) - half]),
    ]:
        table = np.histogram2d(a.reshape(-1), b.reshape(-1), bins=5)[0]
        assert scipy.stats.chi2_contingency(table).pvalue > 1e-3


def test_normal_actions_and_their_clipping():
    env = TFPendulum(num_environments=8, seed=0)
    make = lambda x: tfp.distributions.MultivariateNormalDiag(x[:, :1] * 0 + 1.0, tf.fill([8, 1], 2.0))  # noqa: E731
    actions = collected_actions(env, FreePolicy(env, make, clip=False), num_steps=4000).reshape(-1)
    assert scipy.stats.kstest(actions, scipy.stats.norm(1.0, 2.0).cdf).pvalue > 1e-3
    clipped = collected_actions(env, FreePolicy(env, make, clip=True), num_steps=800)
    assert clipped.min() == -2.0
    assert clipped.max() == 2.0


def test_the_seed_of_tensorflow_decides():
    def actions(seed, wrap=False):
        tf.random.set_seed(seed)
        env = Counter(num_environments=4, seed=0)
        rows, *_ = gathered(env, uniform_policy(env), DynamicStepDriver, True, wrap, runs=2, num_steps=40)
        return rows.action.numpy()

    first = actions(1)
    assert not np.array_equal(actions(2), first)
    assert not np.array_equal(*np.split(first[:, : first.shape[1] // 2 * 2], 2, axis=1))
    np.testing.assert_array_equal(actions(1, wrap=True), first)


def test_log_probabilities_are_emitted():
    env = Counter(num_environments=2, seed=0)

    class Emitting(FreePolicy):
        def __init__(self, env, make):
            self._make = make
            tf_policy.TFPolicy.__init__(self, env.time_step_spec(), env.action_spec(), emit_log_probability=True)

        def _distribution(self, time_step, policy_state):
            return super()._distribution(time_step, policy_state)._replace(info=())

    logits = tf.constant([[0.0, 1.0, 2.0, 3.0, 4.0]] * 2)
    policy = Emitting(env, lambda _: tfp.distributions.Categorical(logits=logits, dtype=tf.int64))
    rows, *_ = gathered(env, policy, DynamicStepDriver, True, num_steps=40)
    expected = tf.gather(tf.nn.log_softmax(logits[0]), rows.action)
    np.testing.assert_allclose(rows.policy_info.log_probability, expected, rtol=1e-5)


def test_a_greedy_policy_is_compiled():
    env = Counter(num_environments=2, seed=0)
    logits = tf.constant([[0.0, 1.0, 9.0, 3.0, 4.0]] * 2)
    policy = greedy_policy.GreedyPolicy(
        FreePolicy(env, lambda _: tfp.distributions.Categorical(logits=logits, dtype=tf.int64))
    )
    rows, *_ = gathered(env, policy, DynamicStepDriver, True, num_steps=10)
    np.testing.assert_array_equal(rows.action, np.full(rows.action.shape, 2))


@pytest.mark.parametrize("driver_class", [DynamicStepDriver, DynamicEpisodeDriver])
def test_nothing_is_retraced_after_the_first_run(driver_class):
    env = Counter(num_environments=3, seed=0)
    policy, lengths = uniform_policy(env), []
    driver = driver_class(env, policy, [lambda row: lengths.append(row.reward.shape)], bootstrap_row=True)
    driver._compiled._capacity = 16
    state = driver.run()
    traces = env.traces
    assert traces > 0
    for iterations in (1, 3, 5, 40):
        driver.run(*state, maximum_iterations=iterations)
        driver.run()
    assert env.traces == traces


def test_functions_that_run_eagerly_give_the_same_rows():
    """As `tf.config.run_functions_eagerly` is used to find errors."""
    found = []
    for eager in (False, True):
        tf.random.set_seed(0)
        env = TFCartPole(num_environments=4, seed=3)
        policy = FreePolicy(
            env, lambda x: tfp.distributions.Categorical(logits=tf.stack([x[:, 2], x[:, 1]], -1), dtype=tf.int64)
        )
        tf.config.run_functions_eagerly(eager)
        try:
            found.append(gathered(env, policy, DynamicStepDriver, True, num_steps=60)[0])
        finally:
            tf.config.run_functions_eagerly(False)
    assert_equal(*found)


def test_equal_rollouts_are_compiled_once_with_variables_of_their_own(monkeypatch):
    translated = []
    translate = shared_functions.SharedProgram.translate
    monkeypatch.setattr(
        shared_functions.SharedProgram, "translate", lambda self: translated.append(self.name) or translate(self)
    )

    def collect(side, factor=1.0):
        """Drives the pole with an angle of more than `side` to the right."""
        env, variable = TFCartPole(num_environments=4, seed=3), tf.Variable(side)
        policy = FreePolicy(
            env, lambda x: tfp.distributions.Deterministic(tf.cast(factor * x[:, 2] > variable, tf.int64))
        )
        rows, *_ = gathered(env, policy, DynamicStepDriver, True, num_steps=60)
        moves = rows.step_type != LAST
        expected = factor * rows.observation[..., 2] > side
        np.testing.assert_array_equal(rows.action[moves], tf.cast(expected, tf.int64)[moves])
        assert 0 < tf.reduce_mean(tf.cast(expected, tf.float32)) < 1
        return rows

    first, second = collect(0.0), collect(0.02)
    assert not np.array_equal(first.action, second.action[:, : first.action.shape[1]])
    assert len(translated) == 1
    assert_equal(collect(0.0), first)
    assert len(translated) == 1
    collect(0.0, factor=-1.0)
    assert len(set(translated)) == 2


@pytest.mark.parametrize("wrap", [False, True])
def test_random_numbers_continue_without_room_for_a_program_too(wrap, monkeypatch):
    monkeypatch.setattr(program_space, "is_left", lambda: False)
    monkeypatch.setattr(compiled_loop, "_translated", set())
    env = Counter(num_environments=3, seed=0)
    buffer = UniformReplayBuffer(uniform_policy(env).trajectory_spec, env.batch_size)

    def make():
        driver = DynamicStepDriver(env, uniform_policy(env), [buffer.add_batch], num_steps=60)
        return driver, common.function(driver.run) if wrap else driver.run

    def actions(run):
        buffer.clear()
        run(env.reset())
        return buffer.gather_all().action.numpy()

    (driver, run), (resumed, run_resumed) = make(), make()
    first, state = actions(run), driver.get_state()
    expected = actions(run)
    resumed.set_state(state)
    np.testing.assert_array_equal(actions(run_resumed), expected)
    assert not np.array_equal(first, expected)
    assert not driver._compiled.is_possible()


@pytest.mark.parametrize("wrap", [False, True])
def test_what_xla_does_not_take_runs_in_a_plain_graph(wrap, caplog):
    class HostPolicy(CountingPolicy):
        def _action(self, time_step, policy_state, seed):
            step = super()._action(time_step, policy_state, seed)
            action = tf.numpy_function(lambda x: x, [step.action], step.action.dtype)
            return step._replace(action=tf.ensure_shape(action, step.action.shape))

    env = Counter(num_environments=2, seed=0)
    driver = DynamicStepDriver(env, HostPolicy(env.time_step_spec(), env.action_spec()), num_steps=8)
    time_step, _ = (common.function(driver.run) if wrap else driver.run)()
    assert not driver._compiled.is_possible()
    assert "The rollout cannot be compiled by XLA" in caplog.text
    np.testing.assert_array_equal(time_step.observation[:, 0], [1, 2])  # After 5 steps of 4 rows each.
    driver.run(time_step)
    assert caplog.text.count("cannot be compiled") == 1


def test_a_policy_whose_numbers_xla_would_not_seed_runs_in_a_plain_graph(caplog):
    env = Counter(num_environments=2, seed=0)
    driver = DynamicStepDriver(env, random_tf_policy.RandomTFPolicy(env.time_step_spec(), env.action_spec()))
    driver.run()
    assert not driver._compiled.is_possible()
    assert "RandomUniformInt, which ignores seeds under XLA" in caplog.text
