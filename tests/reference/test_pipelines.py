"""The agent in pipelines of TF-Agents' own drivers, replay buffers, learners and distribution strategies."""

import contextlib
from pathlib import Path

import helpers
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.drivers import dynamic_episode_driver
from tf_agents.environments import random_py_environment, tf_py_environment
from tf_agents.replay_buffers import tf_uniform_replay_buffer
from tf_agents.specs import array_spec
from tf_agents.train import learner, ppo_learner
from tf_agents.utils import common

CLIP = {"importance_ratio_clipping": 0.2, "use_gae": True, "num_epochs": 2}


def make_environment(action):
    """Episodes of random length, observations [3]."""
    spec = {
        "continuous": array_spec.BoundedArraySpec([2], np.float32, -1.0, 1.0),
        "discrete": array_spec.BoundedArraySpec([], np.int32, 0, 3),
    }[action]
    observation = array_spec.BoundedArraySpec([3], np.float32, -2.0, 2.0)
    environment = random_py_environment.RandomPyEnvironment(observation, spec, episode_end_probability=0.2, seed=3)
    return tf_py_environment.TFPyEnvironment(environment)


@pytest.fixture
def make_pipeline():
    """Makes an agent, a driver and a replay buffer; closes the environment, which has a thread, behind the test."""
    with contextlib.ExitStack() as stack:

        def make(action="continuous", kind="ours", **keywords):
            environment = make_environment(action)
            stack.callback(environment.close)
            return join(environment, kind, **keywords)

        yield make


def join(environment, kind, **keywords):
    agent = helpers.make_agent(
        kind,
        environment.action_spec(),
        time_step_spec=environment.time_step_spec(),
        nets=helpers.make_networks(kind, environment.action_spec(), environment.observation_spec()),
        **CLIP | keywords,
    )
    buffer = tf_uniform_replay_buffer.TFUniformReplayBuffer(agent.collect_data_spec, batch_size=1, max_length=200)
    driver = dynamic_episode_driver.DynamicEpisodeDriver(
        environment, agent.collect_policy, observers=[buffer.add_batch], num_episodes=4
    )
    return agent, driver, buffer


@pytest.mark.parametrize(("action", "kind"), [("continuous", "ours"), ("discrete", "legacy"), ("continuous", "rnn")])
def test_dynamic_episode_driver_and_tf_uniform_replay_buffer(make_pipeline, action, kind):
    agent, driver, buffer = make_pipeline(action, kind)
    before = helpers.state_of(agent)
    for _ in range(2):
        driver.run()
        experience = buffer.gather_all()
        assert np.isfinite(agent.train(experience).loss)
        buffer.clear()
    after = helpers.state_of(agent)
    assert all(np.isfinite(value).all() for value in after.values())
    assert all(np.any(before[name] != after[name]) for name in before if name.startswith("variable"))


def test_train_wrapped_in_common_function_over_episodes_of_any_length(make_pipeline):
    agent, driver, buffer = make_pipeline(eager=False, minibatch_size=2)
    agent.train = common.function(agent.train, reduce_retracing=True)
    for _ in range(3):
        driver.run()
        assert np.isfinite(agent.train(experience=buffer.gather_all()).loss)
        buffer.clear()


def collected(agent, driver, buffer):
    driver.run()
    return tf.nest.map_structure(lambda x: x[:, :16], buffer.gather_all())


@pytest.mark.parametrize("minibatch_size", [None, 4])
def test_learner(make_pipeline, tmp_path, minibatch_size):
    agent, driver, buffer = make_pipeline(
        eager=False, minibatch_size=minibatch_size, compute_value_and_advantage_in_train=True
    )
    experience = collected(agent, driver, buffer)
    before = helpers.state_of(agent)
    trainer = learner.Learner(
        str(tmp_path),
        agent.train_step_counter,
        agent,
        experience_dataset_fn=lambda: tf.data.Dataset.from_tensors((experience, ())).repeat(),
        checkpoint_interval=1,
    )
    loss_info = trainer.run(iterations=2)
    assert np.isfinite(loss_info.loss)
    steps = (
        2 * CLIP["num_epochs"] * (1 if minibatch_size is None else number_of_minibatches(experience, minibatch_size))
    )
    assert agent.train_step_counter == steps
    changed = [n for n, v in helpers.state_of(agent).items() if np.any(v != before[n])]
    assert len([n for n in changed if n.startswith("variable")]) == len(agent._trained_variables())
    assert list(Path(tmp_path).glob("**/ckpt-*"))


def number_of_minibatches(experience, size):
    valid = ((experience.step_type != 2) & (experience.next_step_type != 0))[:, :-1]
    return -(-int(np.sum(valid)) // size)


def test_ppo_learner_with_minibatches_trains_as_its_steps_one_by_one(make_pipeline, tmp_path):
    keywords = {
        "compute_value_and_advantage_in_train": False,
        "update_normalizers_in_train": False,
        "num_epochs": 1,
        "optimizer": tf.keras.optimizers.SGD(0.1),
    }
    agent, driver, buffer = make_pipeline(eager=False, **keywords)
    twin = helpers.make_agent(
        time_step_spec=agent.time_step_spec, **CLIP | keywords | {"optimizer": tf.keras.optimizers.SGD(0.1)}
    )
    helpers.copy_weights(agent, twin)
    raw = collected(agent, driver, buffer)
    data = agent.preprocess_sequence(raw)
    trainer = ppo_learner.PPOLearner(
        str(tmp_path),
        agent.train_step_counter,
        agent,
        experience_dataset_fn=lambda: tf.data.Dataset.from_tensors((data, ())),
        normalization_dataset_fn=lambda: tf.data.Dataset.from_tensors((raw, ())),
        num_samples=1,
        num_epochs=2,
        minibatch_size=8,
        shuffle_buffer_size=1,
    )
    start = helpers.state_of(agent)
    loss_info = trainer.run()
    assert np.isfinite(loss_info.loss)
    assert agent.train_step_counter == 2 * 16 // 8
    twin.update_observation_normalizer(raw.observation)
    twin.update_reward_normalizer(raw.reward)
    assert any(np.any(start[n] != v) for n, v in helpers.state_of(agent).items())
    rows = tf.nest.map_structure(lambda x: tf.reshape(x, [-1, 1, *x.shape[2:]]), data)
    for i in (0, 8, 0, 8):
        expected = twin.train(tf.nest.map_structure(lambda x, i=i: x[i : i + 8], rows))
    np.testing.assert_allclose(loss_info.loss, expected.loss, rtol=1e-4, atol=1e-5)
    helpers.assert_same_state(helpers.state_of(agent), helpers.state_of(twin), rtol=1e-4, atol=1e-5)


def test_under_a_one_device_strategy(rng):
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    keywords = {**CLIP, "minibatch_size": 8}
    tf.random.set_seed(1)
    plain = helpers.make_agent(**keywords)
    with strategy.scope():
        tf.random.set_seed(1)
        optimizer, counter = tf.keras.optimizers.Adam(0.01, epsilon=1e-5), tf.Variable(0, dtype=tf.int64)
        agent = helpers.make_agent(**keywords, optimizer=optimizer, train_step_counter=counter, eager=False)
    helpers.copy_weights(plain, agent)
    experience = helpers.make_experience(plain, rng, end=0.0)
    expected = plain.train(experience)
    actual = strategy.run(tf.function(agent.train, autograph=False), args=(experience,))
    actual = tf.nest.map_structure(lambda x: strategy.experimental_local_results(x)[0], actual)
    np.testing.assert_allclose(tf.nest.flatten(actual), tf.nest.flatten(expected), rtol=1e-4, atol=1e-5)
