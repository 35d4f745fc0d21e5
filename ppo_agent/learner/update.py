"""The update of the parameters by an experience: targets, batch, gradient steps, report."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tf_agents.agents.tf_agent import LossInfo
from tf_agents.trajectories import Trajectory

from ppo_agent import summaries
from ppo_agent.common import replicas, shared_functions, summary_groups
from ppo_agent.common.types import Tensor
from ppo_agent.config import PPOConfig
from ppo_agent.learner import batches, epochs, gradients, guards, minibatches, optimizers, report
from ppo_agent.learner.batches import TrainingBatch
from ppo_agent.learner.epochs import EpochsResult
from ppo_agent.learner.guards import Guard
from ppo_agent.learner.interface import UpdateMethods, UpdateOutcome, UpdateVariables
from ppo_agent.learner.minibatches import Minibatches
from ppo_agent.learner.nonfinite import SkippedMinibatch
from ppo_agent.learner.replica_steps import Batch, Computed, ReplicaSteps
from ppo_agent.learner.schedule_feed import ScheduleFeed
from ppo_agent.maths import adaptive_kl, masking
from ppo_agent.maths import returns as return_ops
from ppo_agent.maths.distributions import ParameterCodec

# Of `target_kl`, as in OpenAI's Spinning Up.
_KL_LIMIT = 1.5


class Update:
    """Updates an agent by an experience, all of it in one function that can be compiled."""

    def __init__(
        self,
        config: PPOConfig,
        codec: ParameterCodec,
        optimizer: Any,
        variables: UpdateVariables,
        methods: UpdateMethods,
        *,
        is_recurrent: bool,
        writes_debug_summaries: bool = False,
        writes_gradients: bool = False,
        is_series: bool = False,
    ) -> None:
        """Takes what the update needs.

        Args:
            config: hyper-parameters.
            codec: rebuilds the distributions that actions were drawn from.
            optimizer: a tf.keras, legacy tf.keras or tf.compat.v1 optimizer.
            variables: what is changed.
            methods: what is called.
            is_recurrent: whether rows of a batch are sequences.
            writes_debug_summaries: whether there are debug summaries.
            writes_gradients: whether gradients and variables are among them.
            is_series: whether every gradient step does all that an update of its own would: it adapts the coefficient
                of the KL penalty and writes summaries; and whether a remainder of rows is dropped. TF-Agents'
                PPOLearner makes such steps.
        """
        self.config, self.is_recurrent = config, is_recurrent
        self._codec, self._optimizer, self._variables, self._methods = codec, optimizer, variables, methods
        self._debugs, self._writes_gradients = writes_debug_summaries, writes_gradients
        self._is_series = is_series
        self.skipped_minibatch, self.trained_variables = SkippedMinibatch(), methods.trained_variables
        self.feed = ScheduleFeed(config, optimizer, self.changed_variables)

    def __call__(
        self,
        trajectory: Trajectory,
        weights: Tensor | None,
        capacity: Tensor | None = None,
        jit: bool = False,
    ) -> UpdateOutcome:
        """Updates the agent.

        Args:
            trajectory: checked experience [B, T, ...].
            weights: importance weights or None, see `batches.broadcast_weights`.
            capacity: number of rows that XLA shall see; None for as many as there are.
            jit: whether XLA compiles the gradient steps.
        """
        guard = Guard.UNDO if jit and capacity is not None else Guard.SKIP
        rows, plan = self.deal_out(self.make_batch(trajectory, weights), capacity, jit)

        def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
            if self.is_distributed():
                return function
            return shared_functions.shared(function) if jit else tf.function(function, autograph=False)

        if self.config.recompute_advantages:
            result, outcome = self._take_epochs(
                rows, plan, guard, compiled, lambda: self._targets(trajectory, weights, capacity, jit)
            )
        else:

            def take_steps(rows: TrainingBatch, *tensors: tf.Tensor) -> tuple[EpochsResult, UpdateOutcome]:
                return self._take_steps(rows, Minibatches(plan.size, plan.is_padded, *tensors), guard)

            result, outcome = compiled(take_steps)(rows, *plan[2:])
        most_skipped = self.config.max_skipped_steps
        if guard is Guard.SKIP and most_skipped and not self.is_distributed():
            self.skipped_minibatch.put_if(
                result.skipped_in_a_row >= most_skipped,
                lambda: minibatches.select_minibatch(rows, plan, result.taken - 1),
            )
        self._update_normalizers(trajectory, rows, outcome.is_undone if guard is Guard.UNDO else None)
        return outcome

    def first_loss(self, trajectory: Trajectory, weights: Tensor | None, training: bool) -> LossInfo:
        """The loss of the first gradient step that an update would take; changes nothing."""
        rows, plan = self.deal_out(self.make_batch(trajectory, weights))
        minibatch = batches.prepared(minibatches.select_minibatch(rows, plan, tf.constant(0)))
        return self._methods.evaluate(minibatch, training).loss_info

    def make_batch(self, trajectory: Trajectory, weights: Tensor | None) -> TrainingBatch:
        """A batch of an experience, with targets: [B, T, ...], or [B, T - 1, ...] where the last step has no part."""
        actions = trajectory.action
        if self.config.compute_value_and_advantage_in_train:
            mask = batches.bootstrap_free_mask(trajectory)
            trajectory = self._methods.fill_targets(trajectory)
            if self.config.minibatch_size is None and not self.is_recurrent:
                trajectory, mask, weights = batches.without_last_step(trajectory, mask, weights)
        else:
            mask = batches.precomputed_mask(trajectory)
        batch = batches.make_batch(trajectory, mask, weights, self._codec)
        if self._debugs:
            step, normalized = self._variables.train_step, masking.normalize_advantages(batch.advantages, mask)
            summaries.write_nest_histograms(step, "actions", actions)
            summaries.write_histograms(step, advantages_normalized=normalized)
        return batch

    def deal_out(
        self, batch: TrainingBatch, capacity: Tensor | None = None, jit: bool = False
    ) -> tuple[TrainingBatch, Minibatches]:
        """The rows of a batch, and a plan of gradient steps from them; see `minibatches.deal_out`."""
        seed = self._variables.shuffle_seed
        if seed is not None:
            seed = tf.stack([seed, tf.cast(self._variables.train_step, tf.int64)])
        return minibatches.deal_out(
            batch,
            self.config,
            seed,
            is_recurrent=self.is_recurrent,
            capacity=capacity,
            is_padded=jit,
            drops_remainder=self._is_series,
            leaves_out_invalid=self._leaves_out_invalid(jit),
        )

    def _leaves_out_invalid(self, jit: bool) -> bool:
        """Whether networks that keep statistics see no other step at all; XLA would compile for each number of them."""
        return self.has_network_state and not (jit or self.is_distributed())

    def is_distributed(self) -> bool:
        """Whether the replicas of a tf.distribute strategy make gradient steps together."""
        several = tf.distribute.get_strategy().num_replicas_in_sync > 1
        return several or (tf.distribute.has_strategy() and self.is_mirrored)

    @functools.cached_property
    def is_mirrored(self) -> bool:
        """Whether variables belong to a tf.distribute strategy; going through the layers every time would take long."""
        return any(isinstance(v, tf.distribute.DistributedValues) for v in self._methods.trained_variables())

    @functools.cached_property
    def has_network_state(self) -> bool:
        """Whether the networks hold more than what is trained."""
        return bool(self._methods.network_state())

    @property
    def needs_plain_graph(self) -> bool:
        """Whether there are operations that XLA does not have."""
        return self.config.check_numerics or (self.has_debug_summaries and not summary_groups.are_off())

    @property
    def has_debug_summaries(self) -> bool:
        """Whether an update writes more than its report."""
        return self._debugs or self._writes_gradients

    def _take_steps(self, rows: TrainingBatch, plan: Minibatches, guard: Guard) -> tuple[EpochsResult, UpdateOutcome]:
        """All gradient steps, the KL penalty's coefficient after them, and the report."""
        undo = guards.Undo(self.changed_variables() if guard is Guard.UNDO else [])
        result = self._run_epochs(rows, plan, guard, plan.order.shape[0], 0, self._skipped_before())
        return result, self._concluded(rows, result, guard, undo)

    def _take_epochs(
        self,
        rows: TrainingBatch,
        plan: Minibatches,
        guard: Guard,
        compiled: Callable[..., Callable[..., Any]],
        retargeted: Callable[[], tuple[Tensor, Tensor]],
    ) -> tuple[EpochsResult, UpdateOutcome]:
        """`_take_steps` with targets of its own for every epoch, which are made outside of what XLA compiles."""
        undo = guards.Undo(self.changed_variables() if guard is Guard.UNDO else [])

        def take_epoch(
            index: Tensor, targets: tuple[Tensor, Tensor], before: Tensor, rows: TrainingBatch, *tensors: tf.Tensor
        ) -> EpochsResult:
            rows = rows._replace(returns=targets[0], advantages=targets[1])
            plan_ = Minibatches(plan.size, plan.is_padded, *tensors)
            return self._run_epochs(rows, plan_, guard, 1, index, before)

        targets = (rows.returns, rows.advantages)
        take_epoch = compiled(take_epoch)

        def epoch(index: Tensor, targets: tuple[Tensor, Tensor], before: Tensor, number: Tensor = 1) -> EpochsResult:
            if self.is_distributed():
                own = rows._replace(returns=targets[0], advantages=targets[1])
                return self._run_epochs(own, plan, guard, number, index, before)
            return take_epoch(index, targets, before, rows, *plan[2:])

        run = epochs.run_unrolled_with_targets if self.is_distributed() else epochs.run_with_targets
        arguments = (epoch, targets, retargeted, self.config.num_epochs, len(report.STEP_METRICS))
        most = 1 if guard is Guard.UNDO else self.config.max_skipped_steps
        result = run(*arguments, self._skipped_before(), epochs.near(self._continues, most))
        return result, self._concluded(rows, result, guard, undo)

    def _targets(
        self, trajectory: Trajectory, weights: Tensor | None, capacity: Tensor | None, jit: bool
    ) -> tuple[Tensor, Tensor]:
        """Returns and advantages by the present value network, in rows as `deal_out` makes them."""
        with tf.summary.record_if(False):
            batch = self.make_batch(trajectory, weights)
        leaves_out = self._leaves_out_invalid(jit)
        rows = minibatches.rows_of(batch, self.config, is_recurrent=self.is_recurrent, leaves_out_invalid=leaves_out)
        rows = minibatches.padded(rows, self.config, capacity, is_recurrent=self.is_recurrent)
        return rows.returns, rows.advantages

    def _concluded(self, rows: TrainingBatch, result: EpochsResult, guard: Guard, undo: guards.Undo) -> UpdateOutcome:
        """Adapts the KL penalty's coefficient, reports, and puts everything back where that is asked for."""
        values = self._report_on(rows, result)
        self._variables.report.assign(values)
        is_undone = result.skipped > 0 if guard is Guard.UNDO else tf.constant(False)
        undo.where(is_undone)
        self._adapt_learning_rate(report.entry(values, "approx_kl"), is_undone)
        train_step = tf.cast(self._variables.train_step, tf.int64)
        # Those who hand the losses of replicas on add them up.
        loss_info = report.loss_info(replicas.share(result.last))
        return UpdateOutcome(loss_info, values, train_step, is_undone)

    def changed_variables(self) -> list[tf.Variable]:
        """What a gradient step may change."""
        own, methods = [variable for variable in self._variables if variable is not None], self._methods
        return [*methods.trained_variables(), *methods.network_state(), *optimizers.variables(self._optimizer), *own]

    def _skipped_before(self) -> tf.Tensor:
        return tf.cast(report.entry(self._variables.report, "skipped_in_a_row"), tf.int32)

    def _run_epochs(
        self, rows: TrainingBatch, plan: Minibatches, guard: Guard, num_epochs: Tensor, first: Tensor, before: Tensor
    ) -> EpochsResult:
        """Takes the gradient steps of so many epochs of the plan from number `first` on, see `epochs.run_epochs`."""
        # What all steps have in common is made once.
        whole = batches.prepared(rows) if plan.size is None else None
        if self.is_distributed():
            counts = (num_epochs * plan.count, first * plan.count, before)
            return self._replica_steps((rows, whole), plan, counts, self._methods.trained_variables())

        def step(index: Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            index += first * plan.count
            return self._step((rows, whole), plan, index, guard, self._optimizer)[:2]

        return self._loop(step, num_epochs if whole else num_epochs * plan.count, before, guard)

    def _loop(self, step: epochs.Step, num_steps: Tensor, before: Tensor, guard: Guard = Guard.SKIP) -> EpochsResult:
        before, most = (0, 1) if guard is Guard.UNDO else (before, self.config.max_skipped_steps)
        return epochs.run_epochs(step, num_steps, len(report.STEP_METRICS), self._continues, before, most)

    @functools.cached_property
    def _replica_steps(self) -> ReplicaSteps:
        compute = functools.partial(self._step, guard=Guard.SKIP, optimizer=None)
        return ReplicaSteps(self._optimizer, compute, self._loop, self.feed)

    def _continues(self, step_report: tf.Tensor) -> tf.Tensor:
        """Whether the policy was still near the one that collected, before the step with this report."""
        limit = _KL_LIMIT * self.config.target_kl
        return tf.constant(True) if limit == 0 else ~(report.entry(step_report, "approx_kl") > limit)

    def _step(self, batch: Batch, plan: Minibatches, index: Tensor, guard: Guard, optimizer: Any | None) -> Computed:
        """Takes one gradient step from rows, or all of them prepared; returns report, soundness and gradients."""
        rows, whole = batch
        minibatch = rows if whole else minibatches.select_minibatch(rows, plan, index)
        prepared = whole or batches.prepared(minibatch)
        with self._recording(index // plan.count):
            result, gradients_and_variables, is_sound = gradients.gradient_step(
                lambda: self._methods.evaluate(prepared, True),
                self._methods.trained_variables(),
                optimizer,
                self.config.gradient_clipping,
                guard,
                self._methods.network_state(),
            )
            if self._debugs and self._writes_gradients:
                summaries.write_gradients_and_variables(self._variables.train_step, gradients_and_variables)
        if self._is_series:
            self._methods.adapt_beta(minibatch)
        values = report.of_step(result)
        # In a graph nothing else makes it wait for the checks of the experience.
        with tf.control_dependencies([values]):
            self._variables.train_step.assign_add(1)
        return values, is_sound, gradients_and_variables

    def _recording(self, epoch: Tensor) -> contextlib.AbstractContextManager[None]:
        """As in TF-Agents, only the first and the last epoch are summarised."""
        if not self.needs_plain_graph:
            return contextlib.nullcontext()
        is_summarized = self._is_series | (epoch == 0) | (epoch == self.config.num_epochs - 1)
        return summaries.recording(is_summarized, self._variables.train_step)

    def _report_on(self, rows: TrainingBatch, result: EpochsResult) -> tf.Tensor:
        mean_kl = None if self._is_series else self._methods.adapt_beta(rows)
        return report.of_train(
            result.means,
            explained_variance=return_ops.explained_variance(rows.returns, rows.old_values, rows.mask),
            learning_rate=optimizers.learning_rate(self._optimizer),
            adaptive_kl_beta=self._variables.adaptive_kl_beta,
            mean_kl_divergence=mean_kl,
            skipped_steps=result.skipped,
            skipped_in_a_row=result.skipped_in_a_row,
            gradient_steps=result.taken,
            value_mean=masking.masked_mean(rows.old_values, rows.mask),
            return_mean=masking.masked_mean(rows.returns, rows.mask),
            advantage_mean=masking.masked_mean(rows.advantages, rows.mask),
        )

    def _adapt_learning_rate(self, mean_kl: Tensor, is_undone: Tensor) -> None:
        target = self.config.learning_rate_kl_target
        if target == 0:
            return
        rate = optimizers.learning_rate_variable(self._optimizer)
        if rate is not None:
            rate.assign(tf.where(is_undone, rate, adaptive_kl.adapted_learning_rate(rate, mean_kl, target)))

    def _update_normalizers(self, trajectory: Trajectory, rows: TrainingBatch, is_undone: Tensor | None) -> None:
        """Takes the experience into the running statistics, unless the update is to be made again."""

        def update() -> None:
            self._methods.update_normalizers(trajectory)
            self._methods.update_value_scale(rows)

        if is_undone is None:
            update()
        else:
            guards.apply(Guard.SKIP, ~is_undone, update)
