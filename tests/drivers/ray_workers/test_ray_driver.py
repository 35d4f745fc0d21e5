import functools
import ipaddress
import os
import signal
import subprocess
import sys
import time

import gymnasium as gym
import helpers
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.metrics import tf_metrics
from tf_agents.networks import actor_distribution_rnn_network, value_rnn_network

from ppo_agent import PPOClipAgent, networks
from ppo_agent.drivers import (
    EnvironmentFaultError,
    EpisodeStatistics,
    GymnasiumEnvironment,
    RayDriver,
    UniformReplayBuffer,
)
from ppo_agent.drivers.ray_workers import cluster
from ppo_agent.drivers.vector_envs import atari, factory

ray = pytest.importorskip("ray")

# Of Ray's own affairs.
KINDS = ("ResourceWarning", "FutureWarning", "DeprecationWarning")
pytestmark = pytest.mark.filterwarnings(*(f"ignore::{kind}" for kind in KINDS))


@pytest.fixture(scope="module", autouse=True)
def connected():
    cluster.connect(None, 2)
    # The workers cannot import tests.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    ray.shutdown()


def make_agent(name="CartPole-v1", recurrent=False):
    with GymnasiumEnvironment(name, vectorization="sync") as env:
        specs = env.time_step_spec(), env.action_spec()
    tf.random.set_seed(1)
    if recurrent:
        layers = {"input_fc_layer_params": (4,), "lstm_size": (4,), "output_fc_layer_params": None}
        nets = (
            actor_distribution_rnn_network.ActorDistributionRnnNetwork(specs[0].observation, specs[1], **layers),
            value_rnn_network.ValueRnnNetwork(specs[0].observation, **layers),
        )
    else:
        nets = (
            networks.ActorNetwork(specs[0].observation, specs[1], fc_layers=(8,)),
            networks.ValueNetwork(specs[0].observation, fc_layers=(8,)),
        )
    optimizer = tf.keras.optimizers.Adam(0.01, epsilon=1e-5)
    return PPOClipAgent(*specs, optimizer=optimizer, actor_net=nets[0], value_net=nets[1], num_epochs=2)


def collect(agent, env="CartPole-v1", runs=2, **keywords):
    """The experience of some runs, with statistics; the agent is trained in between."""
    keywords = {"num_workers": 2, "num_environments": 4, "seed": 5, "num_steps": 200, **keywords}
    statistics = EpisodeStatistics()
    buffer = UniformReplayBuffer(agent.collect_data_spec, keywords["num_environments"], 1000)
    with RayDriver(env, agent.collect_policy, [buffer.add_batch, statistics], bootstrap_row=True, **keywords) as driver:
        found = []
        for _ in range(runs):
            driver.run()
            found.append(buffer.gather_all())
            buffer.clear()
            agent.train(found[-1])
        processes = driver.processes()
        return tf.nest.map_structure(lambda x: x.numpy(), found), statistics, processes, driver.restarts


def assert_equal(one, other):
    for x, y in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
        np.testing.assert_array_equal(x, y)


def test_two_executions_are_equal_to_the_last_bit_and_need_no_tensorflow():
    one, statistics, processes, restarts = collect(make_agent())
    other, *_ = collect(make_agent())
    assert_equal(one, other)
    assert not np.array_equal(one[0].observation, one[1].observation)
    assert one[0].observation.shape == (4, 51, 4)
    assert not any(process["has_tensorflow"] for process in processes)
    assert restarts == [0, 0]
    steps = sum(int(((x.step_type != 2) & (x.next_step_type != 0)).sum()) for x in one)
    assert statistics.num_environment_steps == steps
    assert statistics.num_episodes == sum(int((x.next_step_type == 2).sum()) for x in one)


# Pictures need TensorFlow in the workers.
PONG = factory.Vectorised(functools.partial(atari.make_atari_env, "ALE/Pong-v5", ends_with_life=True, num_threads=1))


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1", pytest.param(PONG, marks=pytest.mark.slow)])
def test_workers_act_as_the_policy_does_and_environments_are_seeded_as_in_one_process(env):
    if env is PONG:
        pytest.importorskip("ale_py")
    agent = make_agent(env)
    rows = collect(agent, env, runs=1)[0][0]
    with GymnasiumEnvironment(env, num_environments=4, seed=5, vectorization="sync") as local:
        np.testing.assert_array_equal(rows.observation[:, 0], local.reset_numpy().observation)
        # The same actions lead to the same rows.
        for t in range(rows.reward.shape[1] - 1):
            step = local.step_numpy(tf.nest.map_structure(lambda x, t=t: x[:, t], rows.action))
            np.testing.assert_array_equal(rows.observation[:, t + 1], step.observation)
            np.testing.assert_array_equal(rows.reward[:, t], step.reward)
            np.testing.assert_array_equal(rows.next_step_type[:, t], step.step_type)
    # Of the policy before training.
    parameters = make_agent(env).collect_policy.distribution(
        tf.nest.map_structure(lambda x: tf.constant(x[:, 3]), time_step_of(rows))
    )
    for found, expected in zip(
        tf.nest.flatten(rows.policy_info["dist_params"]), tf.nest.flatten(parameters.info["dist_params"]), strict=True
    ):
        np.testing.assert_allclose(found[:, 3], expected, rtol=1e-4, atol=1e-5)


def time_step_of(rows):
    from tf_agents.trajectories import TimeStep

    return TimeStep(rows.step_type, rows.reward, rows.discount, rows.observation)


@pytest.mark.slow  # Two workers load TensorFlow, twice.
def test_policies_that_numpy_cannot_carry_out_are_graphs_in_the_workers():
    agent, twin = make_agent(recurrent=True), make_agent(recurrent=True)
    helpers.copy_weights(agent, twin)
    one, _, processes, _ = collect(agent, runs=1)
    other, *_ = collect(twin, runs=1)
    assert_equal(one, other)
    assert np.unique(one[0].action).tolist() == [0, 1]
    assert all(process["has_tensorflow"] for process in processes)


class InvalidAtFirst(gym.Wrapper):
    """CartPole whose first 15 rewards are NaN."""

    def __init__(self):
        super().__init__(gym.make("CartPole-v1"))
        self.steps = 0

    def step(self, action):
        observation, reward, *others = super().step(action)
        self.steps += 1
        return observation, np.nan if self.steps <= 15 else reward, *others


def test_a_rollout_without_a_step_is_collected_again():
    # Ten rows of each environment: the first rollout is dropped, and half of the second one.
    _, statistics, _, _ = collect(make_agent(), InvalidAtFirst, runs=1, num_steps=40, invalid_steps="drop")
    assert statistics.num_environment_steps == 4 * 5


def test_other_observers_get_rows_and_metrics_count():
    agent = make_agent()
    seen, metric = [], tf_metrics.EnvironmentSteps()
    with RayDriver(
        "CartPole-v1", agent.collect_policy, [seen.append, metric], num_workers=1, num_environments=2, num_steps=20
    ) as driver:
        time_step, state = driver.run()
    assert len(seen) == 10
    assert seen[0].reward.shape == (2,)
    np.testing.assert_array_equal(seen[-1].next_step_type, time_step.step_type)
    assert int(metric.result()) == sum(int(np.sum(np.asarray(row.step_type) != 2)) for row in seen)
    assert state == ()


def test_a_killed_worker_is_restarted_and_counted():
    agent = make_agent()
    buffer = UniformReplayBuffer(agent.collect_data_spec, 2, 1000)
    with RayDriver("CartPole-v1", agent.collect_policy, [buffer.add_batch], num_workers=2, num_steps=100) as driver:
        driver.run()
        for expected in (1, 2):
            os.kill(driver.processes()[1]["pid"], signal.SIGKILL)
            driver.run()
            assert driver.restarts == [0, expected]
    rows = buffer.gather_all()
    assert rows.reward.shape == (2, 150)
    # New episodes in the killed worker's environment only.
    assert rows.step_type.numpy()[1, [50, 100]].tolist() == [0, 0]
    # The other one's continue: a time step is the last of one run and the first of the next.
    np.testing.assert_array_equal(rows.next_step_type[0, 49], rows.step_type[0, 50])


class Hanging(gym.Wrapper):
    """Hangs in its first process; the file tells which one that was."""

    def __init__(self, path):
        super().__init__(gym.make("CartPole-v1"))
        self._path = path

    def step(self, action):
        if not os.path.exists(self._path):
            with open(self._path, "w", encoding="ascii") as file:
                file.write(str(os.getpid()))
            time.sleep(1000)
        return super().step(action)


def test_a_worker_that_hangs_is_killed_and_restarted(tmp_path):
    agent, path = make_agent(), str(tmp_path / "hung")
    seen = []
    with RayDriver(
        lambda: Hanging(path), agent.collect_policy, [seen.append], num_steps=20, worker_time_limit_s=4.0
    ) as driver:
        driver.run()
        driver.run()
        assert sum(driver.restarts) <= 1
        assert int((tmp_path / "hung").read_text()) != driver.processes()[0]["pid"]
    assert len(seen) == 40


class Scored(gym.Wrapper):
    """Ends after 3 to 6 steps, and tells then how many there were and whether that is even."""

    def __init__(self):
        super().__init__(gym.make("CartPole-v1"))
        self._count, self._length = 0, 0

    def reset(self, **keywords):
        found = super().reset(**keywords)
        self._count, self._length = 0, int(self.unwrapped.np_random.integers(3, 7))
        return found

    def step(self, action):
        self._count += 1
        observation, *_ = super().step(action)
        ends = self._count == self._length
        info = {"is_success": self._count % 2 == 0, "steps": self._count} if ends else {"steps": 100}
        return observation, 1.0, False, ends, info


def test_infos_of_episodes_that_end_in_workers_arrive():
    statistics = EpisodeStatistics()
    agent, keywords = make_agent(), {"num_workers": 2, "num_environments": 4, "seed": 2, "num_steps": 100}
    with RayDriver(Scored, agent.collect_policy, [statistics], **keywords) as driver:
        for _ in range(2):
            driver.run()
            lengths = np.array(statistics.pop()[1])
            expected = {"is_success": np.mean(lengths % 2 == 0), "steps": np.mean(lengths)}
            assert len(lengths) > 10
            assert driver.pop_episode_infos() == pytest.approx(expected)
        assert driver.pop_episode_infos() == {}


class Failing(gym.Wrapper):
    def __init__(self):
        super().__init__(gym.make("CartPole-v1"))

    def step(self, action):
        raise OSError("the motor is stuck")


def test_what_an_environment_raises_is_raised_here():
    with (
        RayDriver(Failing, make_agent().collect_policy, num_steps=5) as driver,
        pytest.raises(EnvironmentFaultError, match=r"environment 0 raised OSError: the motor is stuck"),
    ):
        driver.run()


def test_rollouts_of_an_interrupted_iteration_are_dropped_and_counted():
    agent, seen = make_agent(), []
    with RayDriver("CartPole-v1", agent.collect_policy, [seen.append], num_workers=2, num_steps=20) as driver:
        driver.run()
        crew = driver._crew
        wait, crew._stop_those_that_hang = crew._stop_those_that_hang, interrupt
        with pytest.raises(KeyboardInterrupt):
            driver.run()
        crew._stop_those_that_hang = wait
        driver.run()
        assert driver.stale_rollouts == 2
    assert len(seen) == 20


def interrupt():
    raise KeyboardInterrupt


def test_it_continues_with_other_episodes_where_another_driver_left_off():
    agent = make_agent()

    def first_observations(state):
        seen = []
        with RayDriver("CartPole-v1", agent.collect_policy, [seen.append], num_steps=3, seed=3) as driver:
            driver.set_state(state)
            driver.run()
            return np.asarray(seen[0].observation), driver.get_state()

    first, state = first_observations({"iteration": 0, "restarts": [2, 1], "stale_rollouts": 4})
    assert state == {"iteration": 1, "restarts": [3], "stale_rollouts": 4}
    later, _ = first_observations(state)
    again, _ = first_observations(state)
    np.testing.assert_array_equal(later, again)
    assert not np.allclose(later, first)


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({"num_workers": 0}, "num_workers is 0, expected a positive int"),
        ({"num_workers": 2, "num_environments": 3}, "num_environments is 3, expected a multiple of num_workers, 2"),
        ({"num_steps": 0}, "num_steps is 0, expected a positive int"),
        ({"max_restarts": -1}, "max_restarts is -1, expected an int of at least 0"),
        ({"worker_time_limit_s": 0.0}, "worker_time_limit_s is 0.0, expected seconds, more than 0"),
    ],
)
def test_arguments_that_are_no_good(keywords, text):
    with pytest.raises(ValueError, match=text):
        RayDriver("CartPole-v1", make_agent().collect_policy, **keywords)


def test_ray_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"ray is not installed, .* `pip install 'ppo-agent\[ray\]'`\.$"):
        cluster.load_ray()


def test_workers_import_no_tensorflow():
    program = "import sys, ppo_agent.drivers.ray_workers.worker; sys.exit('tensorflow' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_nothing_listens_to_the_network():
    """Ports of Ray's processes are bound to loopback, and there is no dashboard."""
    import psutil

    listening = [
        connection.laddr
        for process in psutil.Process().children(recursive=True)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    addresses = [ipaddress.ip_address(address.ip.removeprefix("::ffff:")) for address in listening]
    assert all(address.is_loopback for address in addresses), addresses
    assert 8265 not in {address.port for address in listening}
