import functools
import json

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp
from gymnasium import spaces
from tf_agents.drivers import driver, dynamic_episode_driver, dynamic_step_driver
from tf_agents.environments import random_tf_environment, tf_py_environment
from tf_agents.metrics import tf_metrics
from tf_agents.policies import random_tf_policy, tf_policy
from tf_agents.replay_buffers import tf_uniform_replay_buffer
from tf_agents.trajectories import policy_step
from tf_agents.utils import common
from toy_environments import (
    Counter,
    CountingPolicy,
    GraphCountingPolicy,
    GraphRememberingPolicy,
    RememberingPolicy,
    Spaces,
)

from ppo_agent.drivers import (
    DynamicEpisodeDriver,
    DynamicStepDriver,
    EpisodeStatistics,
    GymnasiumEnvironment,
    UniformReplayBuffer,
)

FIRST, MID, LAST = 0, 1, 2
PAIRS = [
    (DynamicEpisodeDriver, dynamic_episode_driver.DynamicEpisodeDriver, {"num_episodes": 3}),
    (DynamicStepDriver, dynamic_step_driver.DynamicStepDriver, {"num_steps": 17}),
]


def make_env(lengths=(2, 3, 5), terminates=True):
    remaining = iter(lengths)
    return GymnasiumEnvironment(lambda: Counter(next(remaining), terminates), num_environments=len(lengths))


def make_policy(env, policy_class=CountingPolicy):
    return policy_class(env.time_step_spec(), env.action_spec())


class Recorder:
    """An observer of rows or transitions, any callable to a driver."""

    def __init__(self):
        self.rows = []

    def __call__(self, row):
        self.rows.append(tf.nest.map_structure(np.array, row))
        return row

    def stacked(self):
        return tf.nest.map_structure(lambda *x: np.stack(x, axis=1), *self.rows)


def assert_equal(found, expected):
    tf.nest.assert_same_structure(found, expected)
    tf.nest.map_structure(np.testing.assert_array_equal, found, expected)


def gathered(env, policy, driver_class, runs=2, wrap=False, **arguments):
    """Returns everything that `runs` runs put into a buffer, and the last time step."""
    buffer = UniformReplayBuffer(policy.trajectory_spec, env.batch_size)
    runner = driver_class(env, policy, [buffer.add_batch], **arguments)
    run = common.function(runner.run) if wrap else runner.run
    time_step, policy_state = run()
    for _ in range(runs - 1):
        time_step, policy_state = run(time_step, policy_state)
    return buffer.gather_all(), time_step


@pytest.mark.parametrize(("ours", "theirs", "arguments"), PAIRS)
@pytest.mark.parametrize("terminates", [True, False])
@pytest.mark.parametrize("way", ["numpy", "graph", "users_graph"])
def test_rows_are_those_of_the_driver_of_tf_agents(ours, theirs, arguments, terminates, way):
    reference_env = make_env(terminates=terminates)
    recorder, transitions = Recorder(), Recorder()
    reference = theirs(reference_env, make_policy(reference_env), [recorder], [transitions], **arguments)
    expected_step, _ = reference.run(reference_env.reset())
    expected_step, _ = reference.run(expected_step)

    env = make_env(terminates=terminates)
    policy = make_policy(env, CountingPolicy if way == "numpy" else GraphCountingPolicy)
    rows, time_step = gathered(env, policy, ours, wrap=way == "users_graph", **arguments)
    assert_equal(rows, recorder.stacked())
    assert_equal(time_step, expected_step)
    assert all(tf.is_tensor(x) for x in tf.nest.flatten(time_step))


@pytest.mark.parametrize(("ours", "theirs", "arguments"), PAIRS)
@pytest.mark.parametrize("policy_class", [GraphCountingPolicy, CountingPolicy, GraphRememberingPolicy])
def test_transitions_are_those_of_the_driver_of_tf_agents(ours, theirs, arguments, policy_class):
    found, expected = Recorder(), Recorder()
    for driver_class, recorder in ((ours, found), (theirs, expected)):
        env = make_env()
        driver_class(env, make_policy(env, policy_class), transition_observers=[recorder], **arguments).run(env.reset())
    assert_equal(found.stacked(), expected.stacked())


def test_a_policy_state_goes_on_and_is_returned():
    found, expected = Recorder(), Recorder()
    env, reference_env = make_env(), make_env()
    ours = DynamicStepDriver(env, make_policy(env, GraphRememberingPolicy), [found], num_steps=7)
    theirs = dynamic_step_driver.DynamicStepDriver(
        reference_env, make_policy(reference_env, GraphRememberingPolicy), [expected], num_steps=7
    )
    state = expected_state = time_step = expected_step = None
    for _ in range(3):
        time_step, state = ours.run(time_step, state)
        expected_step, expected_state = theirs.run(expected_step, expected_state)
        assert_equal(state, expected_state)
        assert np.any(state != 0)
    assert_equal(found.stacked(), expected.stacked())


def test_are_drivers_of_tf_agents():
    env = make_env()
    for driver_class in (DynamicEpisodeDriver, DynamicStepDriver):
        runner = driver_class(env, make_policy(env), [print])
        assert isinstance(runner, driver.Driver)
        assert runner.env is env
        assert runner.observers == [print]
        assert runner.transition_observers == []


@pytest.mark.parametrize("policy_class", [GraphCountingPolicy, CountingPolicy])
def test_the_episode_driver_resets_and_the_step_driver_goes_on(policy_class):
    env = make_env([4])
    policy, recorder = make_policy(env, policy_class), Recorder()
    env.reset_numpy()
    env.step_numpy(np.array([0]))
    DynamicStepDriver(env, policy, [recorder], num_steps=1).run()
    assert recorder.rows[0].observation[0, 0] == 1
    DynamicEpisodeDriver(env, policy, [recorder]).run()
    np.testing.assert_array_equal([row.observation[0, 0] for row in recorder.rows[1:]], [0, 1, 2, 3, 4])


@pytest.mark.parametrize("policy_class", [GraphCountingPolicy, CountingPolicy])
@pytest.mark.parametrize("wrap", [False, True])
def test_what_is_counted(policy_class, wrap):
    """The boundary rows of lengths 2, 3 and 5 are in columns 2, 5, ..., 3, 7, ... and 5, 11, ..."""
    env = make_env()
    policy = make_policy(env, policy_class)
    rows, _ = gathered(env, policy, DynamicEpisodeDriver, runs=1, wrap=wrap, num_episodes=3)
    assert (rows.step_type.numpy() == LAST).sum() == 4  # Two at once overshoot.
    assert rows.step_type.shape[1] == 6
    env = make_env()
    rows, _ = gathered(env, policy, DynamicStepDriver, runs=1, wrap=wrap, num_steps=12)
    assert (rows.step_type.numpy() != LAST).sum() == 13
    assert rows.step_type.shape[1] == 5


def test_the_number_of_episodes_of_one_run():
    env = make_env([2])
    recorder = Recorder()
    runner = DynamicEpisodeDriver(env, make_policy(env), [recorder], num_episodes=1)
    runner.run(num_episodes=3)
    assert len(recorder.rows) == 9
    runner.run()
    assert len(recorder.rows) == 12


@pytest.mark.parametrize("policy_class", [GraphCountingPolicy, CountingPolicy])
@pytest.mark.parametrize("wrap", [False, True])
def test_an_endless_episode_is_bounded(policy_class, wrap):
    env = make_env([10**9])
    recorder = Recorder()
    runner = DynamicEpisodeDriver(
        env, make_policy(env, policy_class), [EpisodeStatistics(), recorder][: 1 + (not wrap)]
    )
    run = functools.partial(runner.run, maximum_iterations=7)
    time_step, _ = common.function(run)() if wrap else run()
    assert time_step.observation[0, 0] == 7
    assert wrap or len(recorder.rows) == 7


@pytest.mark.parametrize("policy_class", [GraphCountingPolicy, CountingPolicy])
def test_no_iterations_observe_nothing(policy_class):
    env = make_env()
    recorder = Recorder()
    runner = DynamicStepDriver(env, make_policy(env, policy_class), [recorder], bootstrap_row=True)
    before = env.reset()
    time_step, _ = runner.run(before, maximum_iterations=0)
    assert_equal(time_step, before)
    assert not recorder.rows


@pytest.mark.parametrize("way", ["numpy", "graph", "users_graph"])
def test_the_bootstrap_row(way):
    policy_class = CountingPolicy if way == "numpy" else GraphCountingPolicy
    env, plain_env = make_env(terminates=False), make_env(terminates=False)
    arguments = {"runs": 1, "wrap": way == "users_graph", "num_steps": 8}
    rows, time_step = gathered(env, make_policy(env, policy_class), DynamicStepDriver, bootstrap_row=True, **arguments)
    plain, _ = gathered(plain_env, make_policy(plain_env, policy_class), DynamicStepDriver, **arguments)
    assert_equal(tf.nest.map_structure(lambda x: x[:, :-1], rows), plain)
    last = tf.nest.map_structure(lambda x: x[:, -1], rows)
    np.testing.assert_array_equal(last.observation, time_step.observation)
    np.testing.assert_array_equal(last.step_type, time_step.step_type)
    assert set(last.step_type.numpy()) == {FIRST, LAST, MID}
    np.testing.assert_array_equal(last.next_step_type, [FIRST] * 3)
    np.testing.assert_array_equal(last.reward, [0.0] * 3)
    np.testing.assert_array_equal(last.discount, [1.0] * 3)
    np.testing.assert_array_equal(last.action, plain.action[:, -1])
    np.testing.assert_array_equal(last.policy_info["twice"], plain.policy_info["twice"][:, -1])


@pytest.mark.parametrize("way", ["numpy", "graph", "users_graph"])
@pytest.mark.parametrize("bootstrap_row", [False, True])
def test_metrics_and_buffers_of_tf_agents(way, bootstrap_row):
    """Equal to those that were fed by TF-Agents' driver, but for the bootstrap rows in the buffer."""
    policy_class = CountingPolicy if way == "numpy" else GraphCountingPolicy
    results = []
    for driver_class, options in (
        (DynamicStepDriver, {"bootstrap_row": bootstrap_row}),
        (dynamic_step_driver.DynamicStepDriver, {}),
    ):
        env = make_env()
        policy = make_policy(env, policy_class)
        metrics = [
            tf_metrics.EnvironmentSteps(),
            tf_metrics.NumberOfEpisodes(),
            tf_metrics.AverageReturnMetric(batch_size=3),
            tf_metrics.AverageEpisodeLengthMetric(batch_size=3),
        ]
        buffer = tf_uniform_replay_buffer.TFUniformReplayBuffer(policy.trajectory_spec, 3, max_length=50)
        statistics = EpisodeStatistics(window=10)
        observers = [*metrics, buffer.add_batch, statistics]
        runner = driver_class(env, policy, observers, num_steps=9, **options)
        run = common.function(runner.run) if way == "users_graph" else runner.run
        time_step, _ = run()
        for _ in range(3):
            time_step, _ = run(time_step)
        results.append((metrics, buffer, statistics))
    (metrics, buffer, statistics), (expected, expected_buffer, expected_statistics) = results
    np.testing.assert_allclose([m.result() for m in metrics], [m.result() for m in expected], rtol=1e-6)
    assert metrics[0].result() == statistics.num_environment_steps == expected_statistics.num_environment_steps > 30
    assert metrics[1].result() == statistics.num_episodes
    np.testing.assert_allclose(metrics[2].result(), statistics.mean_return(), rtol=1e-6)
    np.testing.assert_allclose(statistics.mean_return(), expected_statistics.mean_return(), rtol=1e-6)
    rows = buffer.gather_all()
    if bootstrap_row:
        is_boundary = (rows.step_type.numpy() == LAST).all(axis=0)
        keep = np.flatnonzero(is_boundary | (rows.next_step_type.numpy() != FIRST).any(axis=0))
        assert rows.reward.shape[1] - len(keep) == 4
        rows = tf.nest.map_structure(lambda x: tf.gather(x, keep, axis=1), rows)
    assert_equal(rows, expected_buffer.gather_all())


@pytest.mark.parametrize(("ours", "theirs", "arguments"), PAIRS)
def test_our_buffer_and_environment_under_the_driver_of_tf_agents(ours, theirs, arguments):
    results = []
    for driver_class in (ours, theirs):
        env = make_env()
        results.append(gathered(env, make_policy(env), driver_class, wrap=driver_class is theirs, **arguments)[0])
    assert_equal(*results)


class Countdown:
    """Makes a Python environment of TF-Agents whose episodes take three steps."""

    def __new__(cls):
        from tf_agents.environments import py_environment
        from tf_agents.specs import array_spec
        from tf_agents.trajectories import time_step as ts

        class Environment(py_environment.PyEnvironment):
            count = 0

            def observation_spec(self):
                return array_spec.BoundedArraySpec([2], np.float32, 0.0, 10.0)

            def action_spec(self):
                return array_spec.BoundedArraySpec([], np.int64, 0, 4)

            def _observation(self):
                return np.array([self.count, 1], np.float32)

            def _reset(self):
                self.count = 0
                return ts.restart(self._observation())

            def _step(self, action):
                if self._current_time_step.is_last():
                    return self.reset()
                self.count += 1
                end = ts.termination if self.count == 3 else ts.transition
                return end(self._observation(), float(action))

        return Environment()


@pytest.mark.parametrize(("ours", "theirs", "arguments"), PAIRS)
def test_a_python_environment_of_tf_agents(ours, theirs, arguments):
    results = []
    for driver_class in (ours, theirs):
        env, recorder = tf_py_environment.TFPyEnvironment(Countdown()), Recorder()
        driver_class(env, make_policy(env), [recorder], **arguments).run(env.reset())
        env.close()
        results.append(recorder.stacked())
    assert_equal(*results)
    assert (results[0].step_type == LAST).any()


def test_a_tensorflow_environment_of_tf_agents():
    from tf_agents.specs import tensor_spec
    from tf_agents.trajectories import time_step as ts

    env = random_tf_environment.RandomTFEnvironment(
        ts.time_step_spec(tensor_spec.TensorSpec([2], tf.float32)),
        tensor_spec.BoundedTensorSpec([], tf.int64, 0, 4),
        batch_size=2,
        episode_end_probability=0.3,
    )
    rows, _ = gathered(env, make_policy(env), DynamicStepDriver, num_steps=40)
    step_type, next_step_type = rows.step_type.numpy(), rows.next_step_type.numpy()
    np.testing.assert_array_equal(step_type[:, 1:], next_step_type[:, :-1])
    np.testing.assert_array_equal(next_step_type[step_type == LAST], FIRST)
    np.testing.assert_array_equal(rows.policy_info["twice"], 2 * rows.observation)


def test_nested_observations_and_actions():

    space = spaces.Dict(a=spaces.Discrete(3), b=spaces.Tuple([spaces.Box(-1, 1, [2], np.float64)]))

    env = GymnasiumEnvironment(functools.partial(Spaces, space, space), num_environments=2, seed=0)
    policy = random_tf_policy.RandomTFPolicy(env.time_step_spec(), env.action_spec())
    rows, _ = gathered(env, policy, DynamicStepDriver, num_steps=6, bootstrap_row=True)
    assert rows.observation["b"][0].shape == [2, 8, 2]
    assert rows.action["a"].shape == [2, 8]


def test_observations_of_every_kind_and_size_under_a_policy_in_a_graph():
    """Small ones cross together, large ones alone."""
    from tf_agents.specs import tensor_spec

    space = spaces.Dict(
        image=spaces.Box(0, 255, [64, 64, 3], np.uint8),
        flags=spaces.MultiBinary(3),
        numbers=spaces.Box(-1, 1, [2, 2], np.float64),
        category=spaces.Discrete(7, start=-3),
        nested=spaces.Tuple([spaces.MultiDiscrete([3, 4]), spaces.Box(-5, 5, [], np.int16)]),
    )
    action_space = spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, [2], np.float32)])

    class EchoPolicy(GraphCountingPolicy):
        """Policy info is what it sees."""

        def __init__(self, time_step_spec, action_spec):
            tf_policy.TFPolicy.__init__(self, time_step_spec, action_spec, info_spec=time_step_spec)

        def _action(self, time_step, policy_state, seed):
            action = tensor_spec.sample_spec_nest(self.action_spec, outer_dims=[2])
            return policy_step.PolicyStep(action, policy_state, time_step)

    env = GymnasiumEnvironment(functools.partial(Spaces, space, action_space), num_environments=2, seed=0)
    policy = make_policy(env, EchoPolicy)
    rows, _ = gathered(env, policy, DynamicStepDriver, num_steps=6)
    assert_equal(rows.policy_info.observation, rows.observation)
    np.testing.assert_array_equal(rows.policy_info.step_type, rows.step_type)
    np.testing.assert_array_equal(rows.policy_info.reward[:, 1:], rows.reward[:, :-1])
    for found, spec in zip(tf.nest.flatten(rows.observation), tf.nest.flatten(env.observation_spec()), strict=True):
        assert found.dtype == spec.dtype
    assert rows.observation["flags"].numpy().any()
    assert len(np.unique(rows.observation["image"][0, 0])) > 100


class UniformPolicy(GraphCountingPolicy):
    """Draws from the distribution that it gives, as most policies do."""

    _action = tf_policy.TFPolicy._action

    def _distribution(self, time_step, policy_state):
        logits = tf.zeros([time_step.observation.shape[0], 5])
        distribution = tfp.distributions.Categorical(logits=logits, dtype=tf.int64)
        return policy_step.PolicyStep(distribution, policy_state, {"twice": time_step.observation})


def test_a_policy_in_a_graph_draws_its_actions_anew_and_from_the_seed():
    def actions(seed):
        tf.random.set_seed(seed)
        env = make_env()
        return gathered(env, make_policy(env, UniformPolicy), DynamicStepDriver, num_steps=600)[0].action.numpy()

    first = actions(1)
    np.testing.assert_array_equal(actions(1), first)
    assert not np.array_equal(actions(2), first)
    assert scipy.stats.chisquare(np.bincount(first.reshape(-1))).pvalue > 1e-3
    half = first.shape[1] // 2
    for a, b in [(first[:, half:], first[:, :-half]), (first[:, 1:], first[:, :-1]), (first[1:], first[:-1])]:
        table = np.histogram2d(a[:, :half].reshape(-1), b[:, :half].reshape(-1), bins=5)[0]
        assert scipy.stats.chi2_contingency(table).pvalue > 1e-3


@pytest.mark.parametrize(
    ("observation_space", "action_space", "text"),
    [
        (spaces.Box(-1, 1, [3]), spaces.Discrete(5), r"observation has shape \(2,\) .*, expected shape \(3,\)"),
        (spaces.Dict(a=spaces.Box(-1, 1, [2])), spaces.Discrete(5), r"observation is a single tensor, expected a nest"),
        (spaces.Box(0, 9, [2], np.int32), spaces.Discrete(5), r"observation .* dtype float32, expected .* dtype int32"),
        (spaces.Box(-1, 1, [2]), spaces.Box(-1, 1, [1]), r"action has shape \(\) .*, expected shape \(1,\)"),
        (spaces.Box(-1, 1, [2]), spaces.Discrete(3), r"action has values up to 4, expected the environment's: 2\."),
    ],
)
@pytest.mark.parametrize("driver_class", [DynamicEpisodeDriver, DynamicStepDriver])
def test_a_policy_for_another_environment_is_refused(driver_class, observation_space, action_space, text):
    policy = make_policy(make_env())
    env = GymnasiumEnvironment(functools.partial(Spaces, observation_space, action_space))
    with pytest.raises(ValueError, match="the policy's " + text):
        driver_class(env, policy)


def test_the_random_numbers_of_a_policy_in_a_graph_go_on_from_a_state():
    env = make_env()
    buffer = UniformReplayBuffer(make_policy(env, UniformPolicy).trajectory_spec, env.batch_size)

    def actions(driver):
        buffer.clear()
        driver.run(env.reset())
        return buffer.gather_all().action.numpy()

    first, second = (
        DynamicStepDriver(env, make_policy(env, UniformPolicy), [buffer.add_batch], num_steps=60) for _ in range(2)
    )
    actions(first)
    state = json.loads(json.dumps(first.get_state()))
    expected = actions(first)
    assert not np.array_equal(actions(second), expected)
    second.set_state(state)
    np.testing.assert_array_equal(actions(second), expected)
    with pytest.raises(ValueError, match=r"holds random numbers of \['compiled'\], expected \['array_policy'\]"):
        second.set_state({"compiled": {"seed": 1, "count": 2}})


def test_the_buffer_has_the_sampled_action_and_the_environment_the_clipped_one():

    space = spaces.Box(-1, 1, [1], np.float32)

    class WidePolicy(random_tf_policy.RandomTFPolicy):
        def _action(self, time_step, policy_state, seed):
            step = super()._action(time_step, policy_state, seed)
            return step._replace(action=step.action * 0 + 3.0)

    env = GymnasiumEnvironment(functools.partial(Spaces, space, space))
    policy = WidePolicy(env.time_step_spec(), env.action_spec(), clip=False)
    rows, _ = gathered(env, policy, DynamicStepDriver, runs=1, num_steps=2)
    np.testing.assert_array_equal(rows.action, np.full([1, 2, 1], 3.0))
    np.testing.assert_array_equal(env.gymnasium_env.envs[0].actions, np.ones([2, 1]))


def test_only_add_batch_stands_for_add_rollout():
    class Object:
        def __init__(self):
            self.blocks, self.rows, self.other = [], [], []

        def add_rollout(self, rows):
            self.blocks.append(rows)

        def add_batch(self, row):
            self.rows.append(row)

        def another(self, row):
            self.other.append(row)

    env, item = make_env(), Object()
    DynamicStepDriver(env, make_policy(env), [item.add_batch, item.another], num_steps=6).run()
    assert (len(item.blocks), len(item.rows), len(item.other)) == (1, 0, 2)
    assert item.blocks[0].reward.shape == (3, 2)


@pytest.mark.parametrize(("driver_class", "_", "arguments"), PAIRS)
def test_a_policy_state_goes_from_run_to_run_the_numpy_way_too(driver_class, _, arguments):
    """From the initial state and from one that is given."""
    rows, states = [], []
    for policy_class in (GraphRememberingPolicy, RememberingPolicy):
        env = make_env()
        policy = make_policy(env, policy_class)
        batches = []
        driver = driver_class(env, policy, [batches.append], **arguments)
        _, state = driver.run()
        states.append(state.numpy())
        _, state = driver.run(policy_state=state + 1.0)
        states.append(state.numpy())
        rows.append([batch.action.numpy() for batch in batches])
    np.testing.assert_array_equal(states[:2], states[2:])
    for found, expected in zip(*rows, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_actions_are_cast_to_the_spec_on_the_numpy_way():
    env = make_env()
    rows, _ = gathered(env, make_policy(env, CountingPolicy), DynamicStepDriver)
    assert rows.action.dtype == env.action_spec().dtype == tf.int64


@pytest.mark.parametrize("driver_class", [DynamicEpisodeDriver, DynamicStepDriver])
def test_nothing_is_retraced_after_the_first_run(driver_class):
    """Neither by rollouts of other lengths, nor by other bounds, nor by TF-Agents' observers."""
    traces = []

    class TracedPolicy(GraphCountingPolicy):
        def _action(self, time_step, policy_state, seed):
            traces.append("policy")
            return super()._action(time_step, policy_state, seed)

    class TracedMetric(tf_metrics.EnvironmentSteps):
        def call(self, trajectory):
            traces.append("metric")
            return super().call(trajectory)

    env = make_env()
    runner = driver_class(env, make_policy(env, TracedPolicy), [TracedMetric()], bootstrap_row=True)
    time_step, state = runner.run()
    first = list(traces)
    assert set(first) == {"policy", "metric"}
    for iterations in (3, 5, 100):
        time_step, state = runner.run(time_step, state, maximum_iterations=iterations)
        runner.run()
    assert traces == first


@pytest.mark.parametrize("driver_class", [DynamicEpisodeDriver, DynamicStepDriver])
def test_bad_arguments(driver_class):
    env = make_env()
    policy = make_policy(env)
    count = "num_episodes" if driver_class is DynamicEpisodeDriver else "num_steps"
    with pytest.raises(TypeError, match="env is 3, expected a tf_agents TFEnvironment"):
        driver_class(3, policy)
    with pytest.raises(TypeError, match="policy is 3, expected a tf_agents TFPolicy"):
        driver_class(env, 3)
    with pytest.raises(TypeError, match=r"observers is \[3\], expected a list of callables"):
        driver_class(env, policy, [3])
    with pytest.raises(TypeError, match=r"observers is <built-in function len>, expected a list of callables"):
        driver_class(env, policy, len)
    runner = driver_class(env, policy)
    with pytest.raises(TypeError, match=r"time_step is 3, expected None or a TimeStep"):
        runner.run(3)
    with pytest.raises(ValueError, match=r"maximum_iterations is -1, expected None or an int of at least 0\."):
        runner.run(maximum_iterations=-1)
    with pytest.raises(TypeError, match=r"transition_observers is \[3\], expected a list of callables"):
        driver_class(env, policy, [], [3])
    with pytest.raises(ValueError, match=rf"{count} is 0, expected a positive int\."):
        driver_class(env, policy, **{count: 0})
    with pytest.raises(ValueError, match=rf"{count} is 2.5, expected a positive int\."):
        driver_class(env, policy, **{count: 2.5})


def test_a_bad_number_of_episodes_for_one_run():
    env = make_env()
    with pytest.raises(ValueError, match="num_episodes is -1, expected a positive int"):
        DynamicEpisodeDriver(env, make_policy(env)).run(num_episodes=-1)
