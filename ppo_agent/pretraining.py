"""Behaviour cloning: a policy learns to take the actions of recorded episodes, before PPO."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tf_agents.trajectories import StepType

from ppo_agent import network_checks
from ppo_agent.agent import PPOAgent
from ppo_agent.common import action_masks, host_calls
from ppo_agent.common.checks import check_int
from ppo_agent.common.own_functions import own_function
from ppo_agent.common.types import Array, Nest
from ppo_agent.config import number
from ppo_agent.training.action_encoding import ActionEncoding
from ppo_agent.training.episodes import Episodes, read_episodes

__all__ = ["Episodes", "Pretraining", "pretrain", "read_episodes"]

# Squashed distributions have no density at the bounds themselves.
_INSIDE = 1e-4


class Pretraining(NamedTuple):
    """What behaviour cloning reports, a number for each epoch.

    Attributes:
        losses: mean negative log-likelihood of the actions, nats.
        accuracies: share of the actions whose discrete parts are the most likely ones; NaN for continuous actions.
        validation_losses: likewise, for the episodes held back; empty without any.
        validation_accuracies: likewise.
        value_losses: mean squared error of the values; empty unless asked for.
    """

    losses: list[float]
    accuracies: list[float]
    validation_losses: list[float]
    validation_accuracies: list[float]
    value_losses: list[float]

    def __str__(self) -> str:
        text = f"Pretrained: loss {self.losses[-1]:.4g}, accuracy {self.accuracies[-1]:.3f}"
        if self.validation_losses:
            text += f", of episodes held back {self.validation_losses[-1]:.4g}, {self.validation_accuracies[-1]:.3f}"
        return text


def pretrain(
    agent: PPOAgent,
    episodes: Any,
    num_epochs: int = 10,
    *,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    validation_fraction: float = 0.0,
    value: bool = False,
    seed: int = 0,
    encoding: ActionEncoding | None = None,
) -> Pretraining:
    """Trains an agent's actor network on recorded episodes, and its observation normaliser first.

    Args:
        agent: the agent.
        episodes: see `read_episodes`.
        num_epochs: passes over them.
        batch_size: steps per gradient step; with a recurrent network each takes one episode.
        learning_rate: of an Adam of its own.
        validation_fraction: share of the episodes that is held back; of the steps if there is a single one.
        value: whether the value network is trained too, on the discounted returns of the episodes.
        seed: of the shuffles.
        encoding: how the environment's actions become the agent's, see `read_episodes`; `Trainer` knows it.

    Raises:
        TypeError: `episodes` is of an unknown kind.
        ValueError: they do not fit the agent, or a number is out of range.
    """
    check_int("num_epochs", num_epochs)
    check_int("batch_size", batch_size)
    if not 0 <= number(validation_fraction) < 1:
        raise ValueError(f"validation_fraction is {validation_fraction!r}, expected a number from 0 to below 1.")
    if not 0 < number(learning_rate) < math.inf:
        raise ValueError(f"learning_rate is {learning_rate!r}, expected a positive finite number.")
    recorded = read_episodes(episodes, agent.time_step_spec.observation, agent.action_spec, encoding)
    if value and recorded.rewards is None:
        raise ValueError("value is True, expected episodes with rewards.")
    _check_is_allowed(recorded, agent)
    rng = np.random.default_rng(seed)
    training, held_back = _split(recorded, validation_fraction, rng)
    agent.update_observation_normalizer(tf.nest.map_structure(lambda x: tf.constant(x[None]), training.observations))
    cloning = _Cloning(agent, learning_rate, _returns(agent, training) if value else None)
    report = Pretraining([], [], [], [], [])
    for _ in range(num_epochs):
        losses, accuracies, value_losses = cloning.epoch(training, batch_size, rng)
        report.losses.append(losses)
        report.accuracies.append(accuracies)
        if value:
            report.value_losses.append(value_losses)
        if held_back is not None:
            loss, accuracy = cloning.measure(held_back, batch_size)
            report.validation_losses.append(loss)
            report.validation_accuracies.append(accuracy)
    return report


def _check_is_allowed(episodes: Episodes, agent: PPOAgent) -> None:
    """Raises ValueError for an action that its step's mask forbids: it would be imitated at any price."""
    _, mask = action_masks.split(episodes.observations, network_checks.splitter_of(agent.actor_net))
    if mask is None:
        return
    indices = action_masks.MaskLayout(agent.action_spec).leaf_indices
    leaves = zip(indices, tf.nest.flatten(episodes.actions), tf.nest.flatten(agent.action_spec), strict=True)
    for index, action, spec in leaves:
        if index is None:
            continue
        categories = (action - spec.minimum)[..., np.newaxis].astype(np.int64)
        positions = np.take_along_axis(np.broadcast_to(index, (len(action), *index.shape)), categories, axis=-1)
        allowed = np.take_along_axis(np.asarray(mask) != 0, positions.reshape(len(action), -1), axis=-1)
        if not allowed.all():
            step = int(np.argmin(allowed.all(axis=-1)))
            raise ValueError(
                f"actions of the episodes is {action[step].tolist()} in step {step}, expected what the action mask of "
                "that step allows."
            )


class _Cloning:
    """Gradient steps on recorded actions."""

    def __init__(self, agent: PPOAgent, learning_rate: float, returns: Array | None) -> None:
        self._policy, self._returns = agent.collect_policy, returns
        self._is_recurrent = bool(tf.nest.flatten(agent.actor_net.state_spec))
        self._action_spec = agent.action_spec
        networks = [agent.actor_net, *([] if returns is None else [agent.value_net])]
        variables = {id(v): v for net in networks for v in net.trainable_variables}
        self._variables = list(variables.values())
        self._optimizer = tf.keras.optimizers.Adam(learning_rate)
        self._optimizer.build(self._variables)
        batch_spec = (
            host_calls.with_outer_dims(host_calls.plain(agent.time_step_spec.observation), None),
            host_calls.with_outer_dims(host_calls.plain(agent.action_spec), None),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None], tf.float32),
        )
        self._step = own_function(self._take_step, input_signature=batch_spec)
        self._look = own_function(self._losses, input_signature=batch_spec)

    def epoch(self, episodes: Episodes, batch_size: int, rng: np.random.Generator) -> tuple[float, float, float]:
        """One pass; returns mean loss, accuracy and value loss."""
        return self._mean(self._step, episodes, batch_size, rng)

    def measure(self, episodes: Episodes, batch_size: int) -> tuple[float, float]:
        """Loss and accuracy without learning."""
        return self._mean(self._look, episodes, batch_size, None)[:2]

    def _mean(
        self, function: Callable, episodes: Episodes, batch_size: int, rng: np.random.Generator | None
    ) -> tuple[float, float, float]:
        sums, total = np.zeros(3), 0
        returns = self._returns if rng is not None else None
        for rows in self._batches(episodes, batch_size, rng):
            targets = np.zeros(len(rows), np.float32) if returns is None else returns[rows]
            observations, actions = tf.nest.map_structure(
                lambda x, rows=rows: tf.constant(x[rows]), (episodes.observations, episodes.actions)
            )
            starts = np.where(episodes.is_first[rows], StepType.FIRST, StepType.MID).astype(np.int32)
            sums += len(rows) * function(observations, actions, tf.constant(starts), tf.constant(targets)).numpy()
            total += len(rows)
        loss, accuracy, value_loss = (sums / total).tolist()
        return loss, accuracy, value_loss

    def _batches(self, episodes: Episodes, batch_size: int, rng: np.random.Generator | None) -> Iterator[Array]:
        """Indices of the steps of one batch after the other; whole episodes with a memory."""
        if self._is_recurrent:
            parts = np.split(np.arange(episodes.num_steps), np.flatnonzero(episodes.is_first)[1:])
            order = range(len(parts)) if rng is None else rng.permutation(len(parts))
            yield from (parts[index] for index in order)
            return
        steps = np.arange(episodes.num_steps) if rng is None else rng.permutation(episodes.num_steps)
        yield from np.split(steps, range(batch_size, len(steps), batch_size))

    def _take_step(self, *batch: Nest) -> tf.Tensor:
        with tf.GradientTape() as tape:
            report = self._losses(*batch)
            loss = report[0] + (report[2] if self._returns is not None else 0.0)
        gradients = tape.gradient(loss, self._variables)
        pairs = [(g, v) for g, v in zip(gradients, self._variables, strict=True) if g is not None]
        self._optimizer.apply_gradients(pairs)
        return report

    def _losses(self, observations: Nest, actions: Nest, step_types: tf.Tensor, returns: tf.Tensor) -> tf.Tensor:
        """[3]: negative log-likelihood, accuracy, squared error of the values; means over the steps [N]."""
        if self._is_recurrent:
            observations, actions, step_types, returns = tf.nest.map_structure(
                lambda x: x[tf.newaxis], (observations, actions, step_types, returns)
            )
        policy = self._policy
        distributions, _ = policy.apply_actor_network(
            observations, step_types, policy.get_initial_actor_state(tf.shape(step_types)[0]), training=True
        )
        loss, hits = 0.0, None
        leaves = (tf.nest.flatten(nest) for nest in (distributions, actions, self._action_spec))
        for distribution, action, spec in zip(*leaves, strict=True):
            loss -= _sum_inner(distribution.log_prob(_inside(action, spec)), step_types)
            if action.dtype.is_integer:
                hit = tf.equal(distribution.mode(), tf.cast(action, distribution.dtype))
                hit = tf.reduce_all(tf.reshape(hit, tf.concat([tf.shape(step_types), [-1]], 0)), -1)
                hits = hit if hits is None else hits & hit
        accuracy = math.nan if hits is None else tf.reduce_mean(tf.cast(hits, tf.float32))
        error = tf.constant(0.0)
        if self._returns is not None:
            state = policy.get_initial_value_state(tf.shape(step_types)[0])
            values, _ = policy.apply_value_network(observations, step_types, state, training=True)
            error = tf.reduce_mean(tf.math.squared_difference(values, returns))
        return tf.stack([tf.reduce_mean(loss), accuracy, error])


def _sum_inner(log_probs: tf.Tensor, step_types: tf.Tensor) -> tf.Tensor:
    """Sums over the components of an action, if it has several."""
    return tf.reduce_sum(tf.reshape(log_probs, tf.concat([tf.shape(step_types), [-1]], 0)), -1)


def _inside(action: tf.Tensor, spec: Any) -> tf.Tensor:
    if not action.dtype.is_floating:
        return action
    low, high = (np.asarray(bound, np.float64) for bound in (spec.minimum, spec.maximum))
    margin = np.where(high - low < 1e6, _INSIDE * (high - low), 0.0)
    return tf.clip_by_value(action, (low + margin).astype(np.float32), (high - margin).astype(np.float32))


def _split(episodes: Episodes, fraction: float, rng: np.random.Generator) -> tuple[Episodes, Episodes | None]:
    """Episodes to learn from, and those held back."""
    number = np.cumsum(episodes.is_first) - 1
    if number[-1] == 0:
        number = np.arange(episodes.num_steps)
    count = round(fraction * (number[-1] + 1))
    if not count:
        return episodes, None
    chosen = np.isin(number, rng.permutation(number[-1] + 1)[:count])
    if chosen.all():
        raise ValueError(f"validation_fraction is {fraction}, expected one that leaves an episode to learn from.")
    return episodes.select(~chosen), episodes.select(chosen)


def _returns(agent: PPOAgent, episodes: Episodes) -> Array:
    """Discounted returns [N] in the units of the agent's values."""
    rewards = np.asarray(episodes.rewards, np.float32)
    agent.update_reward_normalizer(tf.constant(rewards[None]))
    if (normalizer := agent._reward_normalizer) is not None:
        bound = agent._config.reward_norm_clipping
        rewards = normalizer.normalize(tf.constant(rewards), center_mean=False, clip_value=bound).numpy()
    returns, running = np.zeros_like(rewards), 0.0
    for index in reversed(range(len(rewards))):
        running = rewards[index] + agent._config.discount_factor * running
        returns[index] = running
        if episodes.is_first[index]:
            running = 0.0
    return returns
