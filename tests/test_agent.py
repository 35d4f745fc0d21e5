"""The agent as a whole: what is easy to miss in TF-Agents' PPOAgent, the metrics of `train`, and its state."""

import copy
import pickle

import helpers
import numpy as np
import oracles
import pytest
import tensorflow as tf
from tf_agents.policies import greedy_policy
from tf_agents.trajectories import time_step as ts

import ppo_agent
from ppo_agent.learner import gradients

PLAIN = {"normalize_rewards": False, "normalize_observations": False}
CLIP = {"importance_ratio_clipping": 0.2, "use_gae": True}
NO_KL = {"initial_adaptive_kl_beta": 0.0, "kl_cutoff_factor": 0.0}


def test_the_last_time_index_serves_as_bootstrap_alone(rng):
    agent = helpers.make_agent(**CLIP, **PLAIN)
    rows = helpers.numpy_experience(helpers.make_experience(agent, rng, end=0.0))
    expected = agent.loss(rows)
    rows.reward[:, -1], rows.action[:, -1], rows.discount[:, -1] = 7.0, 0.3, 0.0
    for parameter in tf.nest.flatten(rows.policy_info):
        parameter[:, -1] += 1.0
    np.testing.assert_allclose(agent.loss(rows).loss, expected.loss, rtol=1e-6)
    rows.observation[:, -1] += 5.0
    assert abs(agent.loss(rows).loss - expected.loss) > 1e-4


@pytest.mark.parametrize("kind", ["ours", "rnn"])
def test_two_time_steps_are_enough(rng, kind):
    agent = helpers.make_agent(kind, **CLIP, **PLAIN, num_epochs=1)
    experience = helpers.make_experience(agent, rng, length=2, end=0.0)
    expected = helpers.expected_loss(agent, experience)
    helpers.assert_loss(agent.train(experience), expected)


def test_old_log_probabilities_come_from_the_stored_parameters(rng):
    agent = helpers.make_agent("legacy", **CLIP, **PLAIN, **NO_KL)
    experience = helpers.make_experience(agent, rng, noise=0.0)
    loss_info = agent.loss(experience)
    np.testing.assert_allclose(loss_info.extra.clip_fraction, 0.0, atol=1e-6)
    moved = experience._replace(
        policy_info={
            "dist_params": {
                **experience.policy_info["dist_params"],
                "loc": experience.policy_info["dist_params"]["loc"] + 1.0,
            }
        }
    )
    assert agent.loss(moved).extra.clip_fraction > 0.3


def test_loss_info_is_that_of_the_last_gradient_step_before_its_update(rng):
    keywords = {**CLIP, **PLAIN, **NO_KL, "compute_value_and_advantage_in_train": False}
    once, twice = (helpers.make_agent(**keywords, num_epochs=n) for n in (1, 2))
    helpers.copy_weights(once, twice)
    experience = once.preprocess_sequence(helpers.make_experience(once, rng))
    once.train(experience)
    expected, actual = once.loss(experience), twice.train(experience)
    for x, y in zip(tf.nest.flatten(actual), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_beta_is_adapted_once_after_all_epochs_by_the_distance_gone(rng):
    agent = helpers.make_agent(initial_adaptive_kl_beta=2.0, kl_cutoff_factor=0.0, num_epochs=3, use_gae=True)
    helpers.prime_normalizers(agent, rng)
    experience = helpers.make_experience(agent, rng)
    normalized = agent._observation_normalizer.normalize(experience.observation)
    loss_info = agent.train(experience)
    present, _ = agent.actor_net(normalized, experience.step_type, ())
    valid = oracles.trained_rows(experience.step_type.numpy(), experience.next_step_type.numpy())
    old, new = map(
        helpers.numpy_distribution, (experience.policy_info["dist_params"], agent._codec.to_parameters(present))
    )
    mean_kl = old.kl(new)[valid].mean()
    metrics = agent.train_metrics()
    np.testing.assert_allclose(metrics["mean_kl_divergence"], mean_kl, rtol=1e-4)
    beta = oracles.updated_beta(2.0, mean_kl, 0.01, 0.3)
    np.testing.assert_allclose([agent._adaptive_kl_beta, metrics["adaptive_kl_beta"]], beta, rtol=1e-6)
    # In all epochs the penalty had the old coefficient.
    assert 1.0 < loss_info.extra.kl_penalty_loss / mean_kl < 3.0


def test_normalizers_are_updated_after_training(rng):
    agent = helpers.make_agent(**CLIP, num_epochs=1)
    helpers.prime_normalizers(agent, rng)
    experience = helpers.make_experience(agent, rng)
    expected = agent.loss(experience)
    np.testing.assert_allclose(agent.train(experience).loss, expected.loss, rtol=1e-5)
    assert float(tf.nest.flatten(agent._reward_normalizer.variables)[0]) > 50.5
    assert abs(agent.loss(experience).loss - expected.loss) > 1e-3


@pytest.mark.parametrize("in_train", [True, False])
def test_update_normalizers_in_train(rng, in_train):
    agent = helpers.make_agent(**CLIP, num_epochs=1, update_normalizers_in_train=in_train)
    before = helpers.state_of(agent)
    agent.train(helpers.make_experience(agent, rng))
    after = helpers.state_of(agent)
    changed = {name for name in before if "normalizer" in name and np.any(before[name] != after[name])}
    assert bool(changed) == in_train
    agent.update_observation_normalizer(tf.ones([2, 3, 3]))
    agent.update_reward_normalizer(tf.ones([2, 3]))
    assert np.any(helpers.state_of(agent)["_reward_normalizer 0"] != after["_reward_normalizer 0"])


@pytest.mark.parametrize("options", [CLIP, PLAIN], ids=["with normalisers", "without"])
def test_observations_of_another_environment_are_refused(options):
    agent = helpers.make_agent(**options)
    before = helpers.state_of(agent)
    with pytest.raises(ValueError, match=r"batched_observations is of shape \(5, 4\), expected shape \(\.\.\., 3\)\."):
        agent.update_observation_normalizer(tf.ones([5, 4]))
    with pytest.raises(ValueError, match=r"observation is of shape \(5, 4\), expected shape \(\.\.\., 3\)\."):
        agent.policy.action(ts.restart(tf.ones([5, 4]), 5))
    tf.nest.map_structure(np.testing.assert_array_equal, helpers.state_of(agent), before)


def test_without_normalizers_updates_do_nothing():
    agent = helpers.make_agent(**PLAIN)
    agent.update_observation_normalizer(tf.ones([2, 3, 3]))
    agent.update_reward_normalizer(tf.ones([2, 3]))
    assert agent._observation_normalizer is agent._reward_normalizer is None


@pytest.mark.parametrize("minibatch_size", [None, 10])
def test_counter_grows_by_one_per_gradient_step(rng, minibatch_size):
    counter = tf.Variable(7, dtype=tf.int64)
    agent = helpers.make_agent(**CLIP, train_step_counter=counter, minibatch_size=minibatch_size, num_epochs=2)
    experience = helpers.make_experience(agent, rng, end=0.0)
    agent.train(experience)
    per_epoch = 1 if minibatch_size is None else -(-44 // 10)
    assert counter == 7 + 2 * per_epoch


def test_the_global_step_is_the_default_counter():
    agent = helpers.make_agent(train_step_counter=None)
    assert agent.train_step_counter is tf.compat.v1.train.get_global_step()


# Metrics.


def test_train_metrics_are_those_of_numpy(rng):
    keywords = {**CLIP, **PLAIN, "entropy_regularization": 0.1, "num_epochs": 1}
    agent = helpers.make_agent(**keywords, optimizer=tf.keras.optimizers.SGD(0.25), gradient_clipping=0.1)
    experience = helpers.make_experience(agent, rng)
    expected = helpers.expected_loss(agent, experience)
    returns, advantages, values = valid_targets(agent, experience)
    explained = oracles.explained_variance(returns, values, np.ones_like(returns, bool))
    start = [v.numpy() for v in agent._trained_variables()]
    agent.train(experience)
    metrics = agent.train_metrics()
    for name in (*ppo_agent.PPOLossInfo._fields, "entropy", "approx_kl", "loss"):
        np.testing.assert_allclose(metrics[name], getattr(expected, name), rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(metrics["explained_variance"], explained, rtol=1e-3, atol=1e-5)
    for name, rows in (("return", returns), ("advantage", advantages), ("value", values)):
        np.testing.assert_allclose(metrics[f"{name}_mean"], rows.mean(), rtol=1e-4, atol=1e-5, err_msg=name)
    assert metrics["learning_rate"] == 0.25
    # The norm is that before clipping: the step made is of the bound's length.
    step = np.sqrt(sum(np.sum((v.numpy() - x) ** 2) for v, x in zip(agent._trained_variables(), start, strict=True)))
    np.testing.assert_allclose(step, 0.25 * 0.1, rtol=1e-3)
    assert metrics["gradient_norm"] > 0.2


def valid_targets(agent, experience):
    """Returns, advantages and values of the rows that count, [n] each."""
    rows = helpers.numpy_experience(experience)
    values = agent.collect_policy.apply_value_network(experience.observation, experience.step_type)[0].numpy()
    returns, advantages, _ = oracles.returns_and_advantages(
        rows.reward[:, :-1], rows.discount[:, :-1], rows.next_step_type[:, :-1], values, 0.99, 0.95
    )
    valid = oracles.trained_rows(rows.step_type, rows.next_step_type)[:, :-1]
    valid = valid.astype(bool)
    return returns[valid], advantages[valid], values[:, :-1][valid]


def test_gradient_norm_is_that_of_the_gradient(rng):
    agent = helpers.make_agent(**CLIP, **PLAIN, optimizer=tf.keras.optimizers.SGD(1.0), num_epochs=1)
    start = [v.numpy() for v in agent._trained_variables()]
    agent.train(helpers.make_experience(agent, rng))
    norm = np.sqrt(sum(np.sum((v.numpy() - x) ** 2) for v, x in zip(agent._trained_variables(), start, strict=True)))
    np.testing.assert_allclose(agent.train_metrics()["gradient_norm"], norm, rtol=1e-4)


def test_metrics_are_means_over_gradient_steps(rng, monkeypatch):
    agent = helpers.make_agent(**CLIP, minibatch_size=8, num_epochs=2)
    step, norms = gradients.gradient_step, []

    def spy(*arguments):
        result, *others = step(*arguments)
        norms.append(float(result.metrics["gradient_norm"]))
        return result, *others

    monkeypatch.setattr(gradients, "gradient_step", spy)
    agent.train(helpers.make_experience(agent, rng))
    assert len(norms) == agent.train_step_counter
    np.testing.assert_allclose(agent.train_metrics()["gradient_norm"], np.mean(norms), rtol=1e-5)


# What other code relies on.


def test_what_ppo_learner_reads():
    agent = helpers.make_agent("rnn", compute_value_and_advantage_in_train=False, update_normalizers_in_train=False)
    assert agent._actor_net.state_spec
    assert agent._value_net.state_spec
    assert agent._compute_value_and_advantage_in_train is False
    assert agent.update_normalizers_in_train is False
    agent.update_normalizers_in_train = True
    agent.train = agent.train
    info = agent.training_data_spec.policy_info
    assert set(info) == {"dist_params", "value_prediction", "return", "advantage"}
    assert set(agent.collect_data_spec.policy_info) == {"dist_params", "value_prediction"}


def test_without_precomputation_training_data_are_what_was_collected():
    agent = helpers.make_agent()
    assert agent.training_data_spec == agent.collect_data_spec
    assert set(agent.collect_data_spec.policy_info) == {"dist_params"}


@pytest.mark.parametrize("greedy_eval", [True, False])
def test_policies(greedy_eval):
    agent = helpers.make_agent(greedy_eval=greedy_eval)
    assert isinstance(agent.policy, greedy_policy.GreedyPolicy) == greedy_eval
    assert isinstance(agent.policy.wrapped_policy if greedy_eval else agent.policy, ppo_agent.PPOPolicy)
    assert isinstance(agent.collect_policy, ppo_agent.PPOPolicy)
    assert agent.policy.info_spec == ()
    assert agent.actor_net is agent.collect_policy._actor_network
    assert agent.value_net is agent.collect_policy._value_network
    agent.initialize()


def test_a_checkpoint_holds_all_that_training_goes_on_from(rng, tmp_path):
    def make():
        tf.random.set_seed(len(agents))
        return helpers.make_agent(**CLIP, minibatch_size=8, num_epochs=2, optimizer=tf.keras.optimizers.Adam(0.01))

    agents = []
    agents.append(make())
    experience = helpers.make_experience(agents[0], rng)
    agents[0].train(experience)
    path = tf.train.Checkpoint(agent=agents[0]).save(tmp_path / "ckpt")
    agents.append(make())
    agents[1].train(experience)
    tf.train.Checkpoint(agent=agents[1]).restore(path).assert_existing_objects_matched()
    helpers.assert_same_state(*map(helpers.state_of, agents))
    losses = [agent.train(experience).loss for agent in agents]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)
    helpers.assert_same_state(*map(helpers.state_of, agents), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"time_step_spec": helpers.OBSERVATION}, "time_step_spec is TensorSpec, expected a TimeStep of specs"),
        ({"optimizer": 1e-3}, r"optimizer is 0\.001, expected one of tf.keras"),
        ({"optimizer": "adam"}, "optimizer is 'adam', expected one of tf.keras"),
        ({"observation_and_action_constraint_splitter": "mask"}, "constraint_splitter is 'mask', expected a callable"),
    ],
)
def test_arguments_of_another_kind(keywords, message):
    with pytest.raises(TypeError, match=message):
        helpers.make_agent(nets=helpers.make_networks(), **keywords)


def test_metrics_before_any_training():
    with pytest.raises(ValueError, match=r"train_metrics is called before train, expected after its first call\."):
        helpers.make_agent().train_metrics()


def test_hyper_parameters_that_do_not_go_with_the_networks():
    with pytest.raises(ValueError, match=r"minibatch_size is 1, expected at least 2: a single advantage"):
        helpers.make_agent(minibatch_size=1)
    with pytest.raises(ValueError, match=r"store_policy_state is True, expected False: neither actor_net nor"):
        helpers.make_agent(store_policy_state=True)
    helpers.make_agent("rnn", minibatch_size=1)
    helpers.make_agent("rnn", store_policy_state=True)


def test_check_numerics_of_tensorflow_finds_nothing_in_healthy_data(rng):
    agent = helpers.make_agent(**CLIP, minibatch_size=8, eager=False, jit_compile=False)
    experience = helpers.make_experience(agent, rng)
    tf.debugging.enable_check_numerics()
    try:
        assert np.isfinite(agent.train(experience).loss)
    finally:
        tf.debugging.disable_check_numerics()
    metrics = agent.train_metrics()
    assert np.isfinite(list(metrics.values())).all()
    without = helpers.make_agent(**CLIP, **NO_KL)
    without.train(experience)
    assert np.isnan([without.train_metrics()[n] for n in ("adaptive_kl_beta", "mean_kl_divergence")]).all()


@pytest.mark.parametrize(
    ("reward", "found"),
    [
        (tf.TensorSpec([3], tf.float32), r"float32 of shape \(3,\)"),
        (tf.TensorSpec([1], tf.float32), r"float32 of shape \(1,\)"),
        (tf.TensorSpec([], tf.int32), r"int32 of shape \(\)"),
        ((tf.TensorSpec([], tf.float32),) * 2, r"float32 of shape \(\), float32 of shape \(\)"),
        ((), "empty"),
    ],
)
def test_rewards_are_scalars(reward, found):
    message = rf"^time_step_spec.reward is {found}, expected a floating-point scalar\.$"
    with pytest.raises(ValueError, match=message):
        helpers.make_agent(nets=helpers.make_networks(), time_step_spec=helpers.TIME_STEP._replace(reward=reward))


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, pickle.dumps, lambda x: copy.deepcopy({"it": [x]})],
    ids=["copy", "deepcopy", "pickle", "nested"],
)
@pytest.mark.parametrize("part", ["agent", "policy", "collect_policy"])
def test_copies_are_refused_in_one_sentence(copied, part, rng):
    agent = helpers.make_agent(**CLIP)
    with pytest.raises(TypeError, match=r"(copied|pickled or copied), expected to be created again: its variables"):
        copied(agent if part == "agent" else getattr(agent, part))
    assert np.isfinite(agent.train(helpers.make_experience(agent, rng)).loss)


def test_graphs_of_tensorflow_1_are_refused(rng):
    agent = helpers.make_agent(**CLIP, eager=False)
    rows = helpers.make_experience(agent, rng)
    arrays, nets = helpers.numpy_experience(rows), helpers.make_networks()
    with tf.Graph().as_default():
        with pytest.raises(ValueError, match=r"^PPOAgent is called in a tf.Graph, expected eager execution"):
            ppo_agent.PPOAgent(helpers.TIME_STEP, helpers.CONTINUOUS, actor_net=nets[0], value_net=nets[1])
        with pytest.raises(ValueError, match=r"^ActorNetwork is called in a tf.Graph, expected eager execution"):
            helpers.make_networks()
        for call in (agent.train, agent.loss):
            with pytest.raises(ValueError, match=r"^train is called in a tf.Graph, expected eager execution"):
                call(arrays)
    assert np.isfinite(agent.train(rows).loss)


@pytest.mark.parametrize("keywords", [{}, {"minibatch_size": 8}])
def test_xla_around_train_is_refused(rng, keywords):
    agent = helpers.make_agent(**CLIP, eager=False, **keywords)
    rows = helpers.make_experience(agent, rng)
    before = helpers.state_of(agent)
    with pytest.raises(ValueError, match=r"train is called in a function with jit_compile=True, expected one without"):
        tf.function(agent.train, jit_compile=True)(rows)
    helpers.assert_same_state(helpers.state_of(agent), before)


@pytest.mark.parametrize("policy", ["float64", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("kind", ["ours", "legacy", "rnn"])
def test_other_precisions_of_keras_are_named(policy, kind):
    tf.keras.mixed_precision.set_global_policy(policy)
    try:
        with pytest.raises(ValueError, match=rf"\(Keras' dtype policy is {policy}, expected float32\)"):
            helpers.make_agent(kind)
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
