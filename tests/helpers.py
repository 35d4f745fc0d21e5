"""What the tests of the agent share: specs, small networks, random experience, and agents that skip tracing."""

import functools

import numpy as np
import oracles
import tensorflow as tf
from tf_agents.agents.ppo import ppo_actor_network
from tf_agents.networks import (
    actor_distribution_network,
    actor_distribution_rnn_network,
    value_network,
    value_rnn_network,
)
from tf_agents.specs import tensor_spec
from tf_agents.system import system_multiprocessing as multiprocessing
from tf_agents.trajectories import Trajectory
from tf_agents.trajectories import time_step as ts

import ppo_agent
from ppo_agent import networks

FIRST, MID, LAST = 0, 1, 2

OBSERVATION = tf.TensorSpec([3], tf.float32, "observation")
TIME_STEP = ts.time_step_spec(OBSERVATION)
CONTINUOUS = tensor_spec.BoundedTensorSpec([2], tf.float32, -1.0, 1.0, "continuous")
DISCRETE = tensor_spec.BoundedTensorSpec([], tf.int32, 0, 3, "discrete")
NESTED = {"move": CONTINUOUS, "mode": DISCRETE}
ACTIONS = {"continuous": CONTINUOUS, "discrete": DISCRETE, "nested": NESTED}


def make_networks(kind="ours", action_spec=CONTINUOUS, observation_spec=OBSERVATION):
    """Small actor and value networks: `ours`, TF-Agents' `legacy` and `sequential` ones, or its recurrent `rnn`."""
    if kind == "ours":
        return (
            networks.ActorNetwork(observation_spec, action_spec, fc_layers=(5,)),
            networks.ValueNetwork(observation_spec, fc_layers=(5,)),
        )
    if kind == "rnn":
        layers = {"input_fc_layer_params": (4,), "lstm_size": (4,), "output_fc_layer_params": None}
        return (
            actor_distribution_rnn_network.ActorDistributionRnnNetwork(observation_spec, action_spec, **layers),
            value_rnn_network.ValueRnnNetwork(observation_spec, **layers),
        )
    value_net = value_network.ValueNetwork(observation_spec, fc_layer_params=(5,))
    if kind == "sequential":
        return ppo_actor_network.PPOActorNetwork().create_sequential_actor_net((5,), action_spec), value_net
    assert kind == "legacy"
    actor_net = actor_distribution_network.ActorDistributionNetwork(observation_spec, action_spec, fc_layer_params=(5,))
    return actor_net, value_net


def make_agent(
    kind="ours", action_spec=CONTINUOUS, cls=None, eager=True, nets=None, time_step_spec=TIME_STEP, **keywords
):
    """An agent of small networks; if `eager`, its `train` runs operation by operation, without the cost of tracing."""
    actor_net, value_net = nets or make_networks(kind, action_spec, time_step_spec.observation)
    keywords.setdefault("optimizer", tf.keras.optimizers.Adam(0.01, epsilon=1e-5))
    keywords.setdefault("num_epochs", 3)
    keywords.setdefault("train_step_counter", tf.Variable(0, dtype=tf.int64))
    cls = cls or ppo_agent.PPOAgent
    agent = cls(time_step_spec, action_spec, actor_net=actor_net, value_net=value_net, **keywords)
    return run_eagerly(agent) if eager else agent


@functools.cache
def enable_processes():
    """Lets TF-Agents start processes from within this one; it refuses a second call."""
    multiprocessing.enable_interactive_mode()


def run_eagerly(agent):
    """Lets `train` of this agent run operation by operation; test_compilation.py shows that it computes the same."""

    def call(trajectory, weights):
        before = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)
        try:
            return agent._update(trajectory, weights)
        finally:
            tf.config.run_functions_eagerly(before)

    call.update = agent._update
    agent._run_update = call
    return agent


def prime_normalizers(agent, rng):
    """Gives the normalisers statistics unlike those of the experience."""
    spec = agent.time_step_spec.observation
    agent.update_observation_normalizer(random_observations(rng, spec, (50,)))
    agent.update_reward_normalizer(tf.constant(rng.normal(0.5, 1.5, 50).astype(np.float32)))


def random_observations(rng, spec, outer):
    def leaf(s):
        if s.dtype.is_integer:
            return tf.constant(rng.integers(0, 200, (*outer, *s.shape)), s.dtype)
        return tf.constant(rng.normal(0.3, 1.5, (*outer, *s.shape)), s.dtype)

    return tf.nest.map_structure(leaf, spec)


def random_steps(rng, batch, length, end=0.25, truncated=0.5):
    """Step types, next step types and discounts [B, T] as an environment gives them.

    Several episodes per row, cut off at both ends, with a boundary row behind each; `truncated` is the share of ends
    that keep their discount.
    """
    step_type, next_step_type = np.zeros((2, batch, length), np.int32)
    discount = np.ones((batch, length), np.float32)
    for b in range(batch):
        state = rng.choice([FIRST, MID])
        for t in range(length):
            step_type[b, t] = state
            if state == LAST:
                state = FIRST
            elif rng.random() < end:
                state = LAST
                discount[b, t] = float(rng.random() < truncated)
            else:
                state = MID
            next_step_type[b, t] = state
    return step_type, next_step_type, discount


def make_experience(agent, rng, batch=4, length=12, noise=0.3, end=0.25, truncated=0.5, padding=0):
    """Random experience [B, T] that a policy near the agent's present one has collected.

    Args:
        agent: whose networks and specs to use.
        rng: NumPy generator.
        batch: B.
        length: T, without padding.
        noise: how far the collecting policy's parameters are from the present ones.
        end: probability of an episode's end at each step.
        truncated: share of the ends that are time limits.
        padding: number of zero rows behind.
    """
    step_type, next_step_type, discount = random_steps(rng, batch, length, end, truncated)
    reward = rng.normal(0.5, 1.0, (batch, length)).astype(np.float32) * (step_type != LAST)
    observation = random_observations(rng, agent.time_step_spec.observation, (batch, length))
    policy = agent.collect_policy
    present, _ = policy.apply_actor_network(observation, tf.constant(step_type), policy.get_initial_actor_state(batch))
    parameters = tf.nest.map_structure(lambda x: x.numpy(), agent._codec.to_parameters(present))
    parameters = _perturbed(parameters, rng, noise)
    action = tf.nest.map_structure(lambda d: d.sample(), agent._codec.to_distributions(parameters))
    info = {"dist_params": parameters}
    if "value_prediction" in agent.collect_data_spec.policy_info:
        values, _ = policy.apply_value_network(
            observation, tf.constant(step_type), policy.get_initial_value_state(batch)
        )
        info["value_prediction"] = values
    rows = Trajectory(step_type, observation, action, info, next_step_type, reward, discount)
    return tf.nest.map_structure(lambda x: padded(tf.convert_to_tensor(x), padding), rows)


def _perturbed(parameters, rng, noise):
    if isinstance(parameters, dict) and not any(isinstance(p, dict) for p in parameters.values()):
        return {k: _perturbed_leaf(k, np.asarray(p), rng, noise) for k, p in parameters.items()}
    return {k: _perturbed(p, rng, noise) for k, p in parameters.items()}


def _perturbed_leaf(name, value, rng, noise):
    change = rng.normal(0.0, noise, value.shape)
    return tf.constant(value * np.exp(0.5 * change) if "scale" in name else value + change, tf.float32)


def padded(tensor, padding):
    return tf.pad(tensor, [[0, 0], [0, padding]] + [[0, 0]] * (tensor.shape.rank - 2))


def numpy_experience(experience):
    """The same rows as writable NumPy arrays."""
    return tf.nest.map_structure(np.array, experience)


def state_of(agent):
    """Everything that `train` may change, by name, copied."""
    parts = {"step": agent.train_step_counter, "beta": agent._adaptive_kl_beta}
    parts |= {f"variable {i}": v for i, v in enumerate(agent._trained_variables())}
    for name in ("_observation_normalizer", "_reward_normalizer"):
        normalizer = getattr(agent, name)
        if normalizer is not None:
            parts |= {f"{name} {i}": v for i, v in enumerate(tf.nest.flatten(normalizer.variables))}
    scale = getattr(agent, "_value_scale", None)  # TF-Agents' agents have none.
    if scale is not None:
        parts |= {f"value scale {i}": v for i, v in enumerate(scale.variables)}
    return {name: v.numpy().copy() for name, v in parts.items() if v is not None}


def assert_same_state(actual, expected, rtol=0.0, atol=0.0):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=rtol, atol=atol, err_msg=name)


def copy_weights(source, target):
    """Gives the networks of one agent the weights of another's of the same shape."""
    for name in ("_actor_net", "_value_net"):
        pairs = zip(getattr(source, name).variables, getattr(target, name).variables, strict=True)
        for variable, other in pairs:
            other.assign(variable)


def numpy_distribution(parameters):
    """The oracle of distribution parameters [B, T, ...] in any nest: one part for each leaf of the actions."""
    parts = []

    def collect(nest):
        if "logits" in nest:
            parts.append(oracles.Categorical(np.asarray(nest["logits"])))
        elif "loc" in nest:
            scale = nest["scale"] if "scale" in nest else nest["scale_diag"]
            parts.append(oracles.Normal(np.asarray(nest["loc"]), np.asarray(scale)))
        else:
            for key in sorted(nest):
                collect(nest[key])

    collect(parameters)
    return oracles.Joint(parts)


def expected_loss(agent, experience, weights=1.0):
    """What `agent.loss(experience, weights)` must be; only the networks' forward pass is not NumPy.

    The agent must have no reward normaliser that has seen anything, and no weight decay.
    """
    config, policy, rows = agent._config, agent.collect_policy, numpy_experience(experience)
    batch = rows.reward.shape[0]
    inputs = experience.observation, experience.step_type
    current, _ = policy.apply_actor_network(*inputs, policy.get_initial_actor_state(batch))
    values = policy.apply_value_network(*inputs, policy.get_initial_value_state(batch))[0].numpy()
    steps = (x[:, :-1] for x in (rows.reward, rows.discount, rows.next_step_type))
    returns, advantages, lambda_returns = oracles.returns_and_advantages(
        *steps, values, config.discount_factor, config.lambda_value
    )
    if not config.use_gae:
        advantages = returns - values[:, :-1]
    elif config.use_td_lambda_return:
        returns = lambda_returns
    returns, advantages = (np.pad(x, [[0, 0], [0, 1]]) for x in (returns, advantages))
    return oracles.ppo_loss(
        oracles.trained_rows(rows.step_type, rows.next_step_type),
        numpy_distribution(agent._codec.to_parameters(current)),
        numpy_distribution(rows.policy_info["dist_params"]),
        tf.nest.flatten(rows.action),
        advantages,
        values,
        returns,
        values,
        weights,
        clipping=config.importance_ratio_clipping,
        value_clipping=config.value_clipping,
        value_coef=config.value_pred_loss_coef,
        entropy_coef=config.entropy_regularization,
        beta=0.0 if agent._adaptive_kl_beta is None else agent._adaptive_kl_beta.numpy(),
        kl_cutoff=config.kl_cutoff_factor * config.adaptive_kl_target,
        kl_cutoff_coef=config.kl_cutoff_coef,
        log_prob_clipping=config.log_prob_clipping,
    )


def assert_loss(loss_info, expected, rtol=2e-5, atol=1e-5):
    """Compares a LossInfo with an `oracles.Loss`, all terms."""
    np.testing.assert_allclose(loss_info.loss, expected.loss, rtol=rtol, atol=atol)
    for name, value in loss_info.extra._asdict().items():
        np.testing.assert_allclose(value, getattr(expected, name), rtol=rtol, atol=atol, err_msg=name)
