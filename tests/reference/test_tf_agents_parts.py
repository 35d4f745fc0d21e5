"""The agent among TF-Agents' own parts: Actor, PyDriver, triggers, metrics, environments, checkpoints, Reverb."""

import functools
import importlib.util

import helpers
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.drivers import dynamic_step_driver, py_driver
from tf_agents.environments import parallel_py_environment, random_py_environment, suite_gym, tf_py_environment
from tf_agents.metrics import py_metrics, tf_metrics
from tf_agents.policies import policy_saver, py_tf_eager_policy
from tf_agents.replay_buffers import tf_uniform_replay_buffer
from tf_agents.specs import array_spec, tensor_spec
from tf_agents.train import actor, learner, triggers
from tf_agents.train.utils import spec_utils
from tf_agents.utils import common

from ppo_agent import drivers
from ppo_agent.networks import ActorNetwork, ValueNetwork

pytestmark = pytest.mark.filterwarnings("ignore:Encoding a StructuredValue:UserWarning")
SETTINGS = {"importance_ratio_clipping": 0.2, "use_gae": True, "num_epochs": 2, "normalize_rewards": False}


def make_py_environment(seed=3):
    """Episodes of random length, observations [3], four actions."""
    return random_py_environment.RandomPyEnvironment(
        array_spec.BoundedArraySpec([3], np.float32, -2.0, 2.0),
        array_spec.BoundedArraySpec([], np.int32, 0, 3),
        episode_end_probability=0.2,
        seed=seed,
    )


def make_agent_for(env, **keywords):
    _, action_spec, time_step_spec = spec_utils.get_tensor_specs(env)
    nets = helpers.make_networks("ours", action_spec, time_step_spec.observation)
    return helpers.make_agent(
        "ours", action_spec, time_step_spec=time_step_spec, nets=nets, eager=False, **SETTINGS | keywords
    )


def stacked(rows):
    """One sequence [1, T] of a PyDriver's rows."""
    return tf.nest.map_structure(lambda *x: tf.constant(np.stack(x)[np.newaxis]), *rows)


def assert_trains(agent, experience):
    before = helpers.state_of(agent)
    assert np.isfinite(agent.train(experience).loss)
    after = helpers.state_of(agent)
    assert any(np.any(before[name] != after[name]) for name in before if name.startswith("variable"))


@pytest.fixture
def py_environment():
    with make_py_environment() as env:
        yield env


def test_actor_collects_and_counts(py_environment, tmp_path):
    agent = make_agent_for(py_environment)
    rows = []
    policy = py_tf_eager_policy.PyTFEagerPolicy(agent.collect_policy, use_tf_function=True)
    worker = actor.Actor(
        py_environment,
        policy,
        agent.train_step_counter,
        steps_per_run=50,
        observers=[rows.append],
        metrics=actor.collect_metrics(buffer_size=10),
        summary_dir=str(tmp_path),
    )
    worker.run()
    results = {metric.name: metric.result() for metric in worker.metrics}
    assert results["EnvironmentSteps"] == sum(not row.is_boundary() for row in rows) == 50
    assert results["NumberOfEpisodes"] == sum(bool(row.is_last()) for row in rows) > 0
    assert_trains(agent, stacked(rows))


def test_py_driver_and_py_metrics(py_environment):
    agent = make_agent_for(py_environment)
    rows, episodes = [], py_metrics.NumberOfEpisodes()
    driver = py_driver.PyDriver(
        py_environment,
        py_tf_eager_policy.PyTFEagerPolicy(agent.collect_policy, use_tf_function=True),
        observers=[rows.append, episodes],
        max_episodes=5,
    )
    driver.run(py_environment.reset())
    assert episodes.result() == 5
    assert_trains(agent, stacked(rows))


def test_learner_with_triggers_that_save_policies_and_log_steps(py_environment, tmp_path, rng):
    agent = make_agent_for(py_environment)
    experience = helpers.make_experience(agent, rng)
    steps = agent.train_step_counter
    saved = tmp_path / "policies"
    trainer = learner.Learner(
        str(tmp_path),
        steps,
        agent,
        experience_dataset_fn=lambda: tf.data.Dataset.from_tensors((experience, ())).repeat(),
        triggers=[
            triggers.PolicySavedModelTrigger(str(saved), agent, steps, interval=2),
            triggers.StepPerSecondLogTrigger(steps, interval=2),
        ],
        checkpoint_interval=2,
    )
    trainer.run(iterations=3)
    assert {path.name for path in saved.iterdir()} >= {"checkpoints", "collect_policy", "greedy_policy", "policy"}
    greedy = tf.saved_model.load(str(saved / "greedy_policy"))
    time_step = tensor_spec.sample_spec_nest(agent.time_step_spec, outer_dims=[2])
    assert greedy.action(time_step).action.shape == (2,)


def test_parallel_environments_through_both_packages_drivers():
    helpers.enable_processes()
    with parallel_py_environment.ParallelPyEnvironment(
        [functools.partial(make_py_environment, seed) for seed in range(2)], start_serially=False
    ) as parallel:
        env = tf_py_environment.TFPyEnvironment(parallel)
        agent = make_agent_for(env)
        buffer = tf_uniform_replay_buffer.TFUniformReplayBuffer(agent.collect_data_spec, batch_size=2, max_length=100)
        returns, steps = tf_metrics.AverageReturnMetric(batch_size=2), tf_metrics.EnvironmentSteps()
        arguments = (env, agent.collect_policy, [buffer.add_batch, returns, steps])
        dynamic_step_driver.DynamicStepDriver(*arguments, num_steps=20).run()
        drivers.DynamicStepDriver(*arguments, num_steps=20).run()
        assert steps.result() >= 40
        experience = buffer.gather_all()
        # Every row goes on where the one before it ended, across the change of drivers.
        np.testing.assert_array_equal(experience.step_type[:, 1:], experience.next_step_type[:, :-1])
        assert_trains(agent, experience)


def test_suite_gym():
    try:
        env = tf_py_environment.TFPyEnvironment(suite_gym.load("CartPole-v0"))
        env.step(env.reset() and tf.constant([0], tf.int64))
    except Exception as error:
        pytest.skip(f"gym 0.23 does not run here: {error}")
    nets = (ActorNetwork(env.observation_spec(), env.action_spec()), ValueNetwork(env.observation_spec()))
    agent = helpers.make_agent(
        "ours", env.action_spec(), time_step_spec=env.time_step_spec(), nets=nets, eager=False, **SETTINGS
    )
    buffer = drivers.UniformReplayBuffer(agent.collect_data_spec, 1, 500)
    drivers.DynamicEpisodeDriver(env, agent.collect_policy, [buffer.add_batch], num_episodes=3).run()
    assert_trains(agent, buffer.gather_all())


def test_checkpointer_restores_the_agent(py_environment, tmp_path, rng):
    agent = make_agent_for(py_environment)
    agent.train(helpers.make_experience(agent, rng))
    common.Checkpointer(str(tmp_path), max_to_keep=1, agent=agent, step=agent.train_step_counter).save(1)
    other = make_agent_for(py_environment)
    other.create_training_variables(4)
    restored = common.Checkpointer(str(tmp_path), max_to_keep=1, agent=other, step=other.train_step_counter)
    assert restored.checkpoint_exists
    helpers.assert_same_state(helpers.state_of(other), helpers.state_of(agent))


@pytest.mark.parametrize("collects", [False, True])
def test_policy_saver(py_environment, tmp_path, collects):
    agent = make_agent_for(py_environment)
    policy = agent.collect_policy if collects else agent.policy
    policy_saver.PolicySaver(policy, batch_size=None).save(str(tmp_path / "policy"))
    loaded = py_tf_eager_policy.SavedModelPyTFEagerPolicy(
        str(tmp_path / "policy"), agent.time_step_spec, agent.action_spec
    )
    time_step = tensor_spec.sample_spec_nest(agent.time_step_spec, outer_dims=[1])
    found = loaded.action(tf.nest.map_structure(lambda x: x.numpy()[0], time_step))
    assert found.action.shape == ()
    if collects:
        expected = policy.distribution(time_step).info["dist_params"]
        np.testing.assert_allclose(found.info["dist_params"]["logits"], expected["logits"][0], rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(importlib.util.find_spec("reverb") is None, reason="Reverb is for TensorFlow 2.15 only.")
def test_reverb_server_and_table(py_environment):
    import reverb
    from tf_agents.replay_buffers import reverb_replay_buffer, reverb_utils

    agent = make_agent_for(py_environment)
    signature = tensor_spec.add_outer_dim(tensor_spec.from_spec(agent.collect_data_spec))
    table = reverb.Table(
        "experience", reverb.selectors.Fifo(), reverb.selectors.Fifo(), max_size=10,
        rate_limiter=reverb.rate_limiters.MinSize(1), max_times_sampled=1, signature=signature,
    )  # fmt: skip
    server = reverb.Server([table], port=None)
    try:
        client = reverb_replay_buffer.ReverbReplayBuffer(
            agent.collect_data_spec, sequence_length=None, table_name="experience", local_server=server
        )
        observer = reverb_utils.ReverbAddEpisodeObserver(client.py_client, "experience", 200)
        driver = py_driver.PyDriver(
            py_environment,
            py_tf_eager_policy.PyTFEagerPolicy(agent.collect_policy, use_tf_function=True),
            observers=[observer],
            max_episodes=3,
        )
        driver.run(py_environment.reset())
        experience, _ = next(iter(client.as_dataset(sample_batch_size=1)))
        assert experience.next_step_type[0, -1] == 0
        assert_trains(agent, experience)
    finally:
        server.stop()
