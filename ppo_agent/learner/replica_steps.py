"""The gradient steps that the replicas of a tf.distribute strategy take together.

TensorFlow lets replicas meet neither within a loop nor within a branch of their own. So the loop runs once for all of
them: in each pass every replica computes the gradient of all rows of a minibatch, and where it is sound, all apply it.
Their number of steps has no part in the size of the graph, and they may stop together, as `target_kl` wants it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf

from ppo_agent.common import replicas
from ppo_agent.common.types import Nest, Tensor
from ppo_agent.learner import epochs, guards, optimizers
from ppo_agent.learner.batches import TrainingBatch
from ppo_agent.learner.epochs import EpochsResult
from ppo_agent.learner.guards import Guard
from ppo_agent.learner.minibatches import Minibatches
from ppo_agent.learner.schedule_feed import Fed, ScheduleFeed

# Takes all steps, given how to take one, how many there are, and how many in a row were skipped before.
Loop = Callable[[epochs.Step, Tensor, Tensor], EpochsResult]
# Whole rows, and all of them prepared where there are no minibatches.
Batch = tuple[TrainingBatch, TrainingBatch | None]
Computed = tuple[tf.Tensor, tf.Tensor, list[tuple[Tensor, tf.Variable]]]


def check_context(variables: Iterable[tf.Variable]) -> None:
    """Raises ValueError unless this is called in the `run` of the strategy that variables belong to."""
    strategy = tf.distribute.get_strategy()
    owners = [getattr(variable, "distribute_strategy", strategy) for variable in variables]
    if tf.distribute.get_replica_context() is None or any(owner is not strategy for owner in owners):
        raise ValueError(
            f"train is called outside of strategy.run, expected inside that of the {type(owners[0]).__name__} that the "
            "agent was made under."
        )


def copy_to_all(variables: Iterable[tf.Variable]) -> None:
    """Gives every replica's copy of variables the value of the first, which is what changes outside of strategies."""
    for variable in variables:
        first, *others = getattr(variable, "values", (variable,))
        for other in others:
            other.assign(first.read_value())


class ReplicaSteps:
    """Takes the gradient steps of an update on all replicas."""

    def __init__(
        self,
        optimizer: Any,
        compute: Callable[[Batch, Minibatches, Tensor], Computed],
        loop: Loop,
        feed: ScheduleFeed,
    ) -> None:
        """Takes what it needs.

        Args:
            optimizer: a tf.keras, legacy tf.keras or tf.compat.v1 optimizer.
            compute: from rows, plan and number of a step to its report, whether it is sound, and its gradients.
            loop: takes all steps.
            feed: has the scheduled values.
        """
        self._optimizer, self._compute, self._loop, self._feed = optimizer, compute, loop, feed
        # Called operation by operation, a step would take some hundred times as long.
        self._compiled = tf.function(self._take, autograph=False, reduce_retracing=True)
        self._size: int | None = None
        self._names: tuple[str, ...] = ()
        self._variables: list[tf.Variable] = []

    def __call__(
        self,
        batch: Batch,
        plan: Minibatches,
        counts: tuple[Tensor, Tensor, Tensor],
        variables: list[tf.Variable],
    ) -> EpochsResult:
        """Takes the steps; called on each replica.

        Args:
            batch: what the replica has.
            plan: for all replicas.
            counts: how many steps, the number of the first one in the plan, how many were skipped in a row before.
            variables: what is trained.
        """
        self._size, self._variables = plan.size, variables
        take = self._compiled if tf.executing_eagerly() else self._take
        replicas.create(lambda: optimizers.create_slots(self._optimizer, self._variables))
        # In a graph of the caller's own, functions are part of it.
        self._names, values = self._feed.read() if tf.executing_eagerly() else Fed()
        numbers = (*counts, *(() if values is None else (values,)))
        return replicas.together(take, batch, plan[2:], tf.nest.map_structure(tf.convert_to_tensor, numbers))

    def _take(self, batch: Batch, plan: tuple[tf.Tensor, ...], counts: tuple[tf.Tensor, ...]) -> EpochsResult:
        """Takes what each replica has."""
        num_steps, first, before, *values = replicas.first_of(counts)

        def step(index: Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            values, is_sound, computed = replicas.on_each(self._compute_on_one, batch, plan, first + index)
            values, is_sound = replicas.first_of((values, is_sound))
            guards.apply(Guard.SKIP, is_sound, lambda: replicas.on_each(self._apply_on_one, computed))
            return values, is_sound

        with self._feed.feeding(Fed(self._names, *values)):
            return self._loop(step, num_steps, before)

    def _compute_on_one(self, batch: Batch, plan: tuple[tf.Tensor, ...], index: Tensor) -> Nest:
        values, is_sound, pairs = self._compute(batch, Minibatches(self._size, False, *plan), index)
        return values, is_sound, [gradient for gradient, _ in pairs]

    def _apply_on_one(self, computed: list[Tensor]) -> None:
        optimizers.apply(self._optimizer, list(zip(computed, self._variables, strict=True)))
