"""TF-Agents' PPOLearner, with all gradient steps of an iteration in one compiled call."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf
from tf_agents.agents.tf_agent import LossInfo
from tf_agents.train import ppo_learner
from tf_agents.trajectories import Trajectory
from tf_agents.utils import common

from ppo_agent import update_methods
from ppo_agent.agent import PPOAgent
from ppo_agent.common import limits, seeds
from ppo_agent.common.types import Tensor
from ppo_agent.learner.compilation import CompiledUpdate


class PPOLearner(ppo_learner.PPOLearner):
    """Trains an agent on the experience of an iteration; constructor, files and triggers are those of TF-Agents.

    TF-Agents' learner takes minibatches from a tf.data pipeline and calls `agent.train` for each of them. This one
    takes the experience as it is, and the agent deals it out and makes all gradient steps in one compiled call. As
    there, an iteration has `frames // minibatch_size * num_epochs` steps, each of which normalises the advantages of
    its own minibatch, adapts the coefficient of the KL penalty, and is summarised where `summary_interval` says so.
    What differs: every epoch is shuffled as a whole, whatever the `shuffle_buffer_size`, and steps that do not count
    (boundaries, padding) take no place in a minibatch. With the losses of all steps at hand, `Losses/` has their means.

    Where that would not be the same, minibatches go through `agent.train` one by one as in TF-Agents: with several
    replicas, `after_train_strategy_step_fn`, `use_kwargs_in_agent_train`, several samples without minibatches, an agent
    with minibatches, epochs or advantages of its own in `train`, or one whose class overrides `train` or `_train`.
    """

    def run(self, parallel_iterations: int = 10) -> LossInfo:
        """Trains on `num_samples` samples of the experience, for `num_epochs` passes.

        Args:
            parallel_iterations: of the loop where minibatches go through `agent.train`.

        Returns:
            The losses of the last gradient step, from before it.

        Raises:
            ValueError: there are not enough frames for a minibatch.
        """
        if self._run_update is None:
            return super().run(parallel_iterations)
        self.num_frames_for_training.assign(self._update_normalizers(self._normalization_iterator))
        experience = self._next_experience()
        learner, size = self._generic_learner, self._minibatch_size
        num_frames = experience.step_type.shape.num_elements()
        if size and num_frames < size:
            raise ValueError(f"minibatch_size is {size}, expected at most the {num_frames} frames of an iteration.")
        num_steps = (num_frames // size if size else 1) * self._num_epochs
        with learner.train_summary_writer.as_default(), common.soft_device_placement(), learner.strategy.scope():
            loss_info = self._update(experience, num_steps)
        for trigger in learner.triggers:
            trigger(self.train_step_numpy)
        return loss_info

    def _create_datasets(self, strategy: tf.distribute.Strategy) -> None:
        """Called by the constructor at its end, when everything else is known."""
        self._run_update = self._make_update() if self._is_compilable(strategy) else None
        super()._create_datasets(strategy)
        if self._run_update is not None:
            samples = tf.data.experimental.Counter().flat_map(
                lambda _: self._experience_dataset_fn().take(self._num_samples)
            )
            self._train_dataset, self._train_iterator = samples, iter(samples)

    def _is_compilable(self, strategy: tf.distribute.Strategy) -> bool:
        learner, agent = self._generic_learner, self._agent
        if (
            learner.use_kwargs_in_agent_train
            or learner.after_train_strategy_step_fn
            or strategy.num_replicas_in_sync > 1
        ):
            return False
        return _trains_in_single_steps(agent) and bool(self._minibatch_size or self._num_samples == 1)

    def _make_update(self) -> CompiledUpdate:
        seed = tf.Variable(seeds.draw_seed(limits.LARGEST_INT64), trainable=False, dtype=tf.int64, name="shuffle_seed")
        config = dataclasses.replace(
            self._agent._config, num_epochs=self._num_epochs, minibatch_size=self._minibatch_size or None
        )
        return update_methods.make_update(self._agent, config, seed, is_series=True)

    def _next_experience(self) -> Trajectory:
        """The samples of an iteration; with minibatches as one sequence [1, N, ...], whatever their shapes."""
        samples = [next(self._train_iterator)[0] for _ in range(self._num_samples)]
        if not self._minibatch_size:
            return samples[0]
        return tf.nest.map_structure(
            lambda *leaves: tf.concat([tf.reshape(leaf, [1, -1, *leaf.shape[2:]]) for leaf in leaves], axis=1), *samples
        )

    def _update(self, experience: Trajectory, num_steps: int) -> LossInfo:
        step, interval = self._generic_learner.train_step, int(self._generic_learner.summary_interval)
        first = int(self.train_step_numpy)
        has_recorded_step = interval > 0 and -(-first // interval) * interval < first + num_steps

        def is_recorded() -> Tensor:
            """Asked for the iteration as a whole, and within its function for every gradient step."""
            return has_recorded_step if tf.executing_eagerly() or not interval else tf.equal(step % interval, 0)

        with tf.summary.record_if(is_recorded):
            return self._agent.train_by(self._run_update, experience)


def _trains_in_single_steps(agent: Any) -> bool:
    """Whether a call of `train` with precomputed advantages is one gradient step, made by this package."""
    if not isinstance(agent, PPOAgent) or agent._update.is_distributed():
        return False
    kind = type(agent)
    return (
        kind.train is PPOAgent.train
        and kind._train is PPOAgent._train
        and agent._config.num_epochs == 1
        and agent._config.minibatch_size is None
        and not agent._config.compute_value_and_advantage_in_train
    )
