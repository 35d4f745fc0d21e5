"""Recurrent networks: states stored at collection, sequences that start from them."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from helpers import make_agent, make_networks, state_of
from tf_agents.trajectories import StepType
from toy_environments import Noise

from ppo_agent.drivers import DynamicStepDriver, GymnasiumEnvironment, UniformReplayBuffer
from ppo_agent.learner.batches import TrainingBatch, cut_into_sequences
from ppo_agent.networks import ActorNetwork, GRUMemory, LSTMMemory, ValueNetwork

BATCH, STEPS = 3, 25


def collect(agent, env, runs=2):
    """Experience of the last of some runs: it starts in the middle of episodes."""
    buffer = UniformReplayBuffer(agent.collect_data_spec, env.batch_size, 1000)
    driver = DynamicStepDriver(
        env, agent.collect_policy, [buffer.add_batch], num_steps=BATCH * STEPS, bootstrap_row=True
    )
    time_step, state = env.reset(), agent.collect_policy.get_initial_state(env.batch_size)
    for _ in range(runs):
        buffer.clear()
        time_step, state = driver.run(time_step, state)
    return buffer.gather_all()


@pytest.fixture(name="env")
def make_env():
    with GymnasiumEnvironment(lambda: Noise(terminates=False), num_environments=BATCH, seed=1) as env:
        yield env


def own_networks(action_spec, observation_spec):
    return (
        ActorNetwork(observation_spec, action_spec, (4,), memory=LSTMMemory(4)),
        ValueNetwork(observation_spec, (4,), memory=GRUMemory(3)),
    )


def recurrent_agent(env, kind="ours", eager=True, **keywords):
    specs = {"action_spec": env.action_spec(), "time_step_spec": env.time_step_spec()}
    theirs = functools.partial(make_networks, "rnn")
    nets = {"ours": own_networks, "tf_agents": theirs}[kind](env.action_spec(), env.observation_spec())
    for net in nets:
        net.create_variables()
        for variable in net.trainable_weights:  # Strong enough for the state to matter.
            variable.assign(3.0 * variable + 0.1)
    keywords = {"importance_ratio_clipping": 0.2, "normalize_observations": False, **keywords}
    return make_agent(eager=eager, nets=nets, **specs, **keywords)


def old_and_new_log_probs(agent, experience):
    """Log-probabilities [N, L] at collection and in training before the first step, and the mask."""
    batch, _ = agent._update.deal_out(agent._update.make_batch(experience, None))
    current = agent._objective.current_distribution(batch.time_steps, True, batch.first_state)
    log_probs = agent._objective.log_probs(current, batch.actions, batch.time_steps)
    return batch.action_log_probs, log_probs, batch.mask.numpy()


@pytest.mark.parametrize("kind", ["ours", "tf_agents"])
@pytest.mark.parametrize("length", [None, 1, 4, 7, 1000])
def test_training_gives_the_distributions_of_collection_back(env, length, kind):
    agent = recurrent_agent(env, kind, store_policy_state=True, sequence_length=length, minibatch_size=2)
    experience = collect(agent, env)
    assert experience.step_type[0, 0] != StepType.FIRST
    assert tf.reduce_any(experience.step_type[:, 1:-1] == StepType.FIRST)
    old, new, mask = old_and_new_log_probs(agent, experience)
    assert mask.sum() == np.sum(experience.step_type[:, :-1] != StepType.LAST)
    np.testing.assert_allclose(np.exp(new - old)[mask], 1.0, atol=1e-5)
    if length != 4 or kind != "ours":
        return
    # And without the stored states it would not.
    experience.policy_info["policy_state"] = tf.nest.map_structure(
        tf.zeros_like, experience.policy_info["policy_state"]
    )
    old, new, mask = old_and_new_log_probs(agent, experience)
    assert np.abs(np.exp(new - old)[mask] - 1.0).max() > 1e-4


def test_a_gradient_step_runs_the_actor_once(env, monkeypatch):
    agent = recurrent_agent(env, store_policy_state=True, num_epochs=2)
    experience, calls = collect(agent, env), []
    run = agent.collect_policy.apply_actor_network
    monkeypatch.setattr(agent.collect_policy, "apply_actor_network", lambda *args: calls.append(1) or run(*args))
    agent.train(experience)
    assert len(calls) == 2 + 1  # And once for the KL penalty, after the last step.


def test_values_start_from_the_stored_state(env):
    agent = recurrent_agent(env, store_policy_state=True, sequence_length=4, compute_value_and_advantage_in_train=False)
    experience = collect(agent, env)
    batch = agent._update.make_batch(agent.preprocess_sequence(experience), None)
    rows, _ = agent._update.deal_out(batch)
    values = agent._objective.predict_values(
        rows.time_steps.observation, rows.time_steps.step_type, True, rows.first_state
    )
    np.testing.assert_allclose(values.numpy()[rows.mask], rows.old_values.numpy()[rows.mask], atol=1e-5)
    in_train = recurrent_agent(env, store_policy_state=True)
    for ours, other in zip(in_train._trained_variables(), agent._trained_variables(), strict=True):
        ours.assign(other)
    info = {k: experience.policy_info[k] for k in ("dist_params", "policy_state")}
    filled = in_train._preprocess(experience._replace(policy_info=info)).policy_info["value_prediction"]
    present = experience.step_type.numpy()[:, :-1] >= 0
    np.testing.assert_allclose(
        filled.numpy()[:, :-1][present], experience.policy_info["value_prediction"].numpy()[:, :-1][present], atol=1e-5
    )


def test_the_stored_state_is_that_before_the_action(env):
    agent = recurrent_agent(env, store_policy_state=True)
    time_step, state = env.reset(), agent.collect_policy.get_initial_state(BATCH)
    for _ in range(6):
        step = agent.collect_policy.action(time_step, state)
        stored = step.info["policy_state"]
        assert set(stored) == {"actor_network_state", "value_network_state"}
        first = (time_step.step_type == StepType.FIRST).numpy()[:, np.newaxis]
        for actual, before in zip(tf.nest.flatten(stored), tf.nest.flatten(dict(state)), strict=True):
            np.testing.assert_array_equal(actual, np.where(first, 0.0, before))
        time_step, state = env.step(step.action), step.state
    without = recurrent_agent(env)
    assert set(without.collect_policy.info_spec) == {"dist_params"}
    assert set(without.collect_policy.policy_state_spec) == {"actor_network_state"}
    assert set(agent.policy.policy_state_spec) == {"actor_network_state"}


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("length", [None, 8])
def test_trains_compiled(env, length, jit):
    agent = recurrent_agent(
        env, eager=False, store_policy_state=True, sequence_length=length, minibatch_size=2, jit_compile=jit
    )
    before = state_of(agent)
    for _ in range(2):
        loss = agent.train(collect(agent, env, runs=1)).loss
        assert np.isfinite(loss)
    assert not agent._run_update._xla_is_refused
    sequences = BATCH if length is None else BATCH * -(-(STEPS + 1) // 8)
    assert agent.train_step_counter.numpy() >= 2 * 3 * (sequences // 2)
    after = state_of(agent)
    assert all(np.abs(after[k] - before[k]).max() > 0 for k in after if k.startswith("variable"))


def test_cut_into_sequences(rng):
    length, cut = 11, 4
    step_type = np.arange(2 * length).reshape(2, length)
    batch = TrainingBatch(
        *(tf.constant(step_type) for _ in range(8)),
        mask=tf.constant(rng.random((2, length)) < 0.7),
        policy_state={"s": tf.constant(rng.normal(size=(2, length, 3)))},
    )
    cut_batch = cut_into_sequences(batch, cut)
    expected = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 10], [11, 12, 13, 14], [15, 16, 17, 18], [19, 20, 21, 21]]
    np.testing.assert_array_equal(cut_batch.returns, expected)
    states = batch.policy_state["s"].numpy()[:, [0, 4, 8]].reshape(6, 1, 3)
    np.testing.assert_array_equal(cut_batch.policy_state["s"], states)
    mask = np.pad(batch.mask.numpy(), [[0, 0], [0, 1]])
    np.testing.assert_array_equal(cut_batch.mask, mask.reshape(6, 4))


def test_sequences_within_episodes_need_stored_states(env):
    with pytest.raises(ValueError, match="sequence_length is 8, expected None without store_policy_state"):
        recurrent_agent(env, sequence_length=8)


def test_a_minibatch_of_more_sequences_than_there_are_is_refused(env):
    agent = recurrent_agent(env, store_policy_state=True, sequence_length=8, minibatch_size=100)
    with pytest.raises(ValueError, match="minibatch_size is 100, expected at most the 12 sequences"):
        agent.train(collect(agent, env, runs=1))
