"""An iteration of PPO in CartPole as one JAX program: what a compiler makes of environment, policy and update together.

Written for this comparison, in the structure that PureJaxRL has published: a scan over environment steps, a scan over
them backwards for the advantages, a scan over epochs and minibatches. It has no features beside that.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks import measure, workloads
from benchmarks.workloads import Workload

Array = Any

_OBSERVATION_SIZE, _ACTIONS = 4, 2
_GRAVITY, _CART, _POLE, _HALF_LENGTH, _FORCE, _SECONDS = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
_MOST_X, _MOST_ANGLE, _MOST_STEPS = 2.4, 12 * 2 * 3.141592653589793 / 360, 500


class Environments(NamedTuple):
    """CartPoles: their variables [B, 4], steps so far [B] and return so far [B]."""

    state: Array
    steps: Array
    total: Array


class Carry(NamedTuple):
    """What goes from iteration to iteration."""

    parameters: Any
    optimizer: Any
    environments: Environments
    key: Array


class Rows(NamedTuple):
    """Experience [T, B, ...]; `total` is the return of episodes that end, 0 elsewhere."""

    observation: Array
    action: Array
    log_probability: Array
    value: Array
    reward: Array
    terminated: Array
    ended: Array
    final_value: Array
    total: Array


def start(key: Array, count: int) -> Environments:
    """First states of episodes."""
    return Environments(
        jax.random.uniform(key, (count, 4), minval=-0.05, maxval=0.05), jnp.zeros(count, jnp.int32), jnp.zeros(count)
    )


def dynamics(state: Array, action: Array) -> Array:
    """The next state (Barto, Sutton and Anderson, 1983; Florian, 2007; Euler's method)."""
    _, x_dot, angle, angle_dot = state.T
    force = jnp.where(action == 1, _FORCE, -_FORCE)
    cos, sin, mass = jnp.cos(angle), jnp.sin(angle), _CART + _POLE
    push = (force + _POLE * _HALF_LENGTH * angle_dot**2 * sin) / mass
    angle_acc = (_GRAVITY * sin - cos * push) / (_HALF_LENGTH * (4 / 3 - _POLE * cos**2 / mass))
    x_acc = push - _POLE * _HALF_LENGTH * angle_acc * cos / mass
    change = jnp.stack([x_dot, x_acc, angle_dot, angle_acc], axis=1)
    return state + _SECONDS * change


def make_parameters(key: Array, hidden: tuple[int, ...]) -> dict[str, list[tuple[Array, Array]]]:
    """Orthogonal kernels and zero biases of both networks."""
    parameters = {}
    for name, outputs, last_gain in (("policy", _ACTIONS, 0.01), ("value", 1, 1.0)):
        sizes, layers = (_OBSERVATION_SIZE, *hidden, outputs), []
        for index, (rows, columns) in enumerate(itertools.pairwise(sizes)):
            key, own = jax.random.split(key)
            gain = last_gain if index == len(hidden) else 2**0.5
            layers.append((jax.nn.initializers.orthogonal(gain)(own, (rows, columns)), jnp.zeros(columns)))
        parameters[name] = layers
    return parameters


def apply(layers: list[tuple[Array, Array]], x: Array) -> Array:
    """A network's output [..., outputs]."""
    for kernel, bias in layers[:-1]:
        x = jnp.tanh(x @ kernel + bias)
    kernel, bias = layers[-1]
    return x @ kernel + bias


def value_of(parameters: Any, observation: Array) -> Array:
    """Values [...]."""
    return apply(parameters["value"], observation)[..., 0]


def step(parameters: Any, carry: tuple[Environments, Array], _: None) -> tuple[tuple[Environments, Array], Rows]:
    """Steps all environments once; those whose episode ends start anew."""
    environments, key = carry
    key, act_key, start_key = jax.random.split(key, 3)
    observation = environments.state
    log_probabilities = jax.nn.log_softmax(apply(parameters["policy"], observation))
    action = jax.random.categorical(act_key, log_probabilities)
    state, steps, total = dynamics(observation, action), environments.steps + 1, environments.total + 1.0
    terminated = (jnp.abs(state[:, 0]) > _MOST_X) | (jnp.abs(state[:, 2]) > _MOST_ANGLE)
    ended = terminated | (steps >= _MOST_STEPS)
    new = start(start_key, len(steps))
    rows = Rows(
        observation,
        action,
        jnp.take_along_axis(log_probabilities, action[:, None], axis=1)[:, 0],
        value_of(parameters, observation),
        jnp.ones_like(total),
        terminated,
        ended,
        value_of(parameters, state),
        jnp.where(ended, total, 0.0),
    )
    kept = Environments(jnp.where(ended[:, None], new.state, state), jnp.where(ended, 0, steps), (1 - ended) * total)
    return (kept, key), rows


def advantages_of(rows: Rows) -> Array:
    """Generalised advantages [T, B]; an episode that the time limit ends keeps the value of its last observation."""

    def backwards(advantage: Array, row: Rows) -> tuple[Array, Array]:
        delta = row.reward + workloads.DISCOUNT * (1 - row.terminated) * row.final_value - row.value
        advantage = delta + workloads.DISCOUNT * workloads.LAMBDA * (1 - row.ended) * advantage
        return advantage, advantage

    return jax.lax.scan(backwards, jnp.zeros_like(rows.value[0]), rows, reverse=True)[1]


def loss(parameters: Any, rows: Rows, advantage: Array, target: Array, entropy_coefficient: float) -> Array:
    """The clipped objective over a minibatch [N]."""
    log_probabilities = jax.nn.log_softmax(apply(parameters["policy"], rows.observation))
    log_probability = jnp.take_along_axis(log_probabilities, rows.action[:, None], axis=1)[:, 0]
    ratio = jnp.exp(log_probability - rows.log_probability)
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    clipped = jnp.clip(ratio, 1 - workloads.CLIPPING, 1 + workloads.CLIPPING)
    policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
    entropy = -(jnp.exp(log_probabilities) * log_probabilities).sum(-1).mean()
    value_loss = jnp.square(value_of(parameters, rows.observation) - target).mean()
    return policy_loss + workloads.VALUE_COEFFICIENT * value_loss - entropy_coefficient * entropy


@functools.partial(jax.jit, static_argnames=("workload",), donate_argnames=("carry",))
def iterate(carry: Carry, workload: Workload) -> tuple[Carry, Array]:
    """Collects and trains once; returns the mean return of the episodes that ended."""
    (environments, key), rows = jax.lax.scan(
        functools.partial(step, carry.parameters), (carry.environments, carry.key), None, workload.num_steps
    )
    advantage = advantages_of(rows)
    data = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (rows, advantage, advantage + rows.value))
    key, order_key = jax.random.split(key)
    count = workload.steps_per_iteration
    orders = jax.vmap(lambda k: jax.random.permutation(k, count))(jax.random.split(order_key, workload.num_epochs))

    def train(state: tuple[Any, Any], chosen: Array) -> tuple[tuple[Any, Any], None]:
        parameters, optimizer = state
        batch = jax.tree.map(lambda x: x[chosen], data)
        gradients = jax.grad(loss)(parameters, *batch, workload.entropy)
        updates, optimizer = make_optimizer(workload).update(gradients, optimizer)
        return (optax.apply_updates(parameters, updates), optimizer), None

    minibatches = orders.reshape(-1, workload.minibatch_size)
    (parameters, optimizer), _ = jax.lax.scan(train, (carry.parameters, carry.optimizer), minibatches)
    mean_return = rows.total.sum() / jnp.maximum(rows.ended.sum(), 1)
    return Carry(parameters, optimizer, environments, key), mean_return


def make_optimizer(workload: Workload) -> optax.GradientTransformation:
    """Adam behind a bound of the gradient's norm."""
    return optax.chain(
        optax.clip_by_global_norm(workloads.GRADIENT_CLIPPING),
        optax.adam(workload.learning_rate, eps=workloads.ADAM_EPSILON),
    )


def main() -> None:
    """Runs what the command line asks for."""
    arguments = measure.parse()
    workload, meter = arguments.workload, measure.Meter(arguments)
    keys = jax.random.split(jax.random.PRNGKey(arguments.seed), 3)
    parameters = make_parameters(keys[0], workload.hidden)
    environments = start(keys[1], workload.num_environments)
    carry = Carry(parameters, make_optimizer(workload).init(parameters), environments, keys[2])
    more = True
    while more:
        carry, mean_return = iterate(carry, workload)
        mean_return.block_until_ready()
        more = meter.updated()
    measure.emit({"peer": "jax", **meter.report(return_mean=float(mean_return))}, arguments, "jax", "jaxlib", "optax")


if __name__ == "__main__":
    main()
