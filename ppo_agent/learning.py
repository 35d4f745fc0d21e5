"""The training of `PPOAgent`: one compiled call from experience to updated networks."""

from __future__ import annotations

import contextlib
import functools
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tf_agents.agents import data_converter
from tf_agents.agents.tf_agent import LossInfo
from tf_agents.trajectories import TimeStep, Trajectory

from ppo_agent import summaries
from ppo_agent.advantages import PPOAdvantages
from ppo_agent.common.types import Nest, Tensor
from ppo_agent.learner import batches, experience_checks, optimizers, update
from ppo_agent.learner.batches import TrainingBatch
from ppo_agent.learner.compilation import UpdateCompiler, padded_capacity, work_per_row, xla_is_faster
from ppo_agent.learner.nonfinite import NonFiniteUpdateError, by_path
from ppo_agent.maths import masking
from ppo_agent.maths import returns as return_ops
from ppo_agent.objective import PPOLossInfo, PPOObjective

STEP_REPORT = ("loss", *PPOLossInfo._fields, "entropy", "approx_kl", "gradient_norm")
# Of `target_kl`, as in OpenAI's Spinning Up.
_KL_LIMIT = 1.5
TRAIN_REPORT = (
    *STEP_REPORT, "explained_variance", "learning_rate", "adaptive_kl_beta", "mean_kl_divergence", "skipped_steps",
)  # fmt: skip
# Behind the report: gradient steps skipped in a row, and whether the update has to be made again, see `_call_update`.
_IN_A_ROW, _AGAIN = len(TRAIN_REPORT), len(TRAIN_REPORT) + 1
REPORT_SIZE = len(TRAIN_REPORT) + 2


class Updated(NamedTuple):
    """What an update returns. Eager tensors are read in a fraction of the time that variables take.

    Attributes:
        loss_info: of the last gradient step.
        report: what is in the agent's variable of that name, float32 [REPORT_SIZE].
        train_step: the train step after the update, an int64 scalar.
    """

    loss_info: LossInfo
    report: tf.Tensor
    train_step: tf.Tensor


class PPOLearning(PPOAdvantages, PPOObjective):
    """Mix-in of `PPOAgent`: `train`, `loss` and `train_metrics`."""

    _has_slots = False
    _optimizer: Any
    _report: tf.Variable
    _shuffle_seed: tf.Variable
    _as_trajectory: data_converter.AsTrajectory
    training_data_spec: Trajectory
    update_normalizers_in_train: bool
    _compiler: UpdateCompiler
    time_step_spec: TimeStep
    _summarize_grads_and_vars: bool
    _skipped_minibatch: dict[str, Any] | None = None

    def train_metrics(self) -> dict[str, float]:
        """What the last call of `train` reported.

        Returns:
            Means over its gradient steps, those left out that were skipped: `loss`, its terms as in `PPOLossInfo`,
            `entropy` (nats), `approx_kl` (nats, see `losses.approximate_kl`), `gradient_norm` (before clipping); and
            `explained_variance` of the returns by the value predictions before the update, `learning_rate`,
            `adaptive_kl_beta` and `mean_kl_divergence` (NaN without adaptive KL penalty) after it; and `skipped_steps`,
            the number of gradient steps that changed nothing because their loss or gradient was not finite.
        """
        return dict(zip(TRAIN_REPORT, self._report.numpy().tolist()[: len(TRAIN_REPORT)], strict=True))

    def create_training_variables(self, batch_size: int | None = None) -> None:
        """Creates what the first call of `train` would: the optimiser, its slots, running returns.

        Args:
            batch_size: rows of the experience to come; None if that is not known.
        """
        if self._optimizer is None:
            self._optimizer = optimizers.default_optimizer()
        if not self._has_slots and not self._is_distributed():
            optimizers.create_slots(self._optimizer, self._trained_variables())
            self._has_slots = True
        self._create_running_return(batch_size)

    def _train(self, experience: Nest, weights: Tensor | None) -> LossInfo:
        if self._config.target_kl > 0 and self._is_distributed():
            raise ValueError(
                f"target_kl is {self._config.target_kl}, expected None under a tf.distribute strategy: all replicas "
                "must make equally many gradient steps."
            )
        trajectory = self._checked(experience)
        self.create_training_variables(trajectory.step_type.shape[0])
        updated = self._call_update(trajectory, weights)
        if tf.executing_eagerly() and self._skipped_minibatch is not None:
            self._stop(updated.loss_info)
        # In a graph the answer is a tensor; the summary operations ask it themselves.
        if not tf.executing_eagerly() or tf.summary.should_record_summaries():
            self._write_summaries(updated)
        return updated.loss_info

    def _stop(self, loss_info: LossInfo) -> None:
        """Raises what ends the training after too many skipped steps."""
        minibatch, self._skipped_minibatch = self._skipped_minibatch, None
        loss, extra = tf.nest.map_structure(lambda x: float(x.numpy()), loss_info)
        metrics = {**self.train_metrics(), "loss": loss, **extra._asdict()}
        raise NonFiniteUpdateError(int(self._report[_IN_A_ROW]), metrics, minibatch or {})

    def _call_update(self, trajectory: Trajectory, weights: Tensor | None) -> Updated:
        if self._is_distributed():
            return self._update(trajectory, weights, capacity=None, jit=False)
        batch_size, length = trajectory.step_type.shape
        jit = self._config.jit_compile
        if jit is None:
            jit = self._xla_is_faster(length)
        capacity = None
        if jit and batch_size is not None and length is not None:
            capacity = self._capacity(batch_size, length)
        updated = self._compiler(trajectory, weights, capacity, jit)
        # A test in every gradient step would cost XLA 7 % of its time. So there an update in which something is not
        # finite is undone as a whole, and made again in a plain graph, which skips the gradient steps concerned.
        if capacity is not None and tf.executing_eagerly() and updated.report.numpy()[_AGAIN]:
            return self._compiler(trajectory, weights, None, False)
        return updated

    def _capacity(self, batch_size: int, length: int) -> int:
        """To how many rows, or steps of a row, `_deal_out` pads."""
        if not self._is_recurrent:
            return padded_capacity(batch_size * length)
        if self._config.sequence_length is None:
            return padded_capacity(length, 32, 2)
        return padded_capacity(batch_size * -(-length // self._config.sequence_length), 32)

    def _xla_is_faster(self, length: int | None) -> bool:
        size = self._config.minibatch_size
        if self._plain_graph_needed or size is None:
            return False
        rows = size * (self._config.sequence_length or length or 1) if self._is_recurrent else size
        return xla_is_faster(rows, self._work_per_row, self._is_recurrent)

    def _loss(self, experience: Nest, weights: Tensor | None, training: bool) -> LossInfo:
        batch = self._make_batch(self._checked(experience), weights)
        rows, minibatches = self._deal_out(batch, capacity=None)
        minibatch = update.select_minibatch(rows, minibatches, tf.constant(0))
        return self._minibatch_loss(minibatch, self._debug_summaries, training).loss_info

    def _checked(self, experience: Nest) -> Trajectory:
        experience_checks.check_kind(experience)
        if not isinstance(experience, Trajectory):
            experience = self._as_trajectory(experience)
        trajectory = experience_checks.as_tensors(experience, self.training_data_spec)
        batch_size, length = trajectory.step_type.shape
        if self._compute_value_and_advantage_in_train:
            experience_checks.check_length(trajectory)
            length = length and length - 1
        steps = self._config.sequence_length if self._is_recurrent else 1
        num_rows = batch_size and (batch_size if steps is None else length and batch_size * -(-length // steps))
        unit = "sequences" if self._is_recurrent else "steps"
        experience_checks.check_minibatch_size(self._config.minibatch_size, num_rows, unit)
        return trajectory

    def _update(self, trajectory: Trajectory, weights: Tensor | None, capacity: Tensor | None, jit: bool) -> Updated:
        """The whole of `train`: batch, epochs, adaptive beta, normalisers, report; inside one compiled function."""
        batch = self._make_batch(trajectory, weights)
        rows, minibatches = self._deal_out(batch, capacity)
        is_undone = jit and capacity is not None

        def take_steps(rows: TrainingBatch, *plan: tf.Tensor) -> tuple[update.EpochsResult, tf.Tensor, tf.Tensor]:
            result = self._run_epochs(rows, update.Minibatches(minibatches.size, *plan), is_undone)
            return result, self._report_on(rows, result, is_undone), tf.cast(self.train_step_counter, tf.int64)

        compiled = take_steps
        if not self._is_distributed():
            compiled = tf.function(take_steps, jit_compile=jit, autograph=False)
        result, report, train_step = compiled(rows, *minibatches[1:])
        if not is_undone:
            self._keep_if_last(rows, minibatches, result)
        if self.update_normalizers_in_train:
            self._update_normalizers(trajectory, result.skipped > 0 if is_undone else None)
        loss, *extra = tf.unstack(result.last[: len(PPOLossInfo._fields) + 1])
        return Updated(LossInfo(loss, PPOLossInfo(*extra)), report, train_step)

    def _report_on(self, rows: TrainingBatch, result: update.EpochsResult, is_undone: bool) -> tf.Tensor:
        """Adapts beta and keeps the report."""
        failed = result.skipped > 0 if is_undone else None
        mean_kl = self._adapt_beta(rows, failed)
        explained = return_ops.explained_variance(rows.returns, rows.old_values, rows.mask)
        beta = float("nan") if self._adaptive_kl_beta is None else self._adaptive_kl_beta
        skipped = [tf.cast(count, tf.float32) for count in (result.skipped, result.skipped_in_a_row)]
        rest = [explained, optimizers.learning_rate(self._optimizer), beta, mean_kl, *skipped, 0.0]
        report = tf.concat([result.means, tf.stack(rest)], axis=0)
        if failed is not None:
            report = tf.where(failed, tf.concat([self._report[:_AGAIN], [1.0]], axis=0), report)
        self._report.assign(report)
        return report

    def _make_batch(self, trajectory: Trajectory, weights: Tensor | None) -> TrainingBatch:
        if self._compute_value_and_advantage_in_train:
            mask = batches.bootstrap_free_mask(trajectory)
            trajectory = self._preprocess(trajectory)
        else:
            mask = batches.precomputed_mask(trajectory)
        batch = batches.make_batch(trajectory, mask, weights, self._codec)
        if self._debug_summaries:
            normalized = masking.normalize_advantages(batch.advantages, mask)
            summaries.write_nest_histograms(self.train_step_counter, "actions", trajectory.action)
            summaries.write_histograms(self.train_step_counter, advantages_normalized=normalized)
        return batch

    def _deal_out(self, batch: TrainingBatch, capacity: Tensor | None) -> tuple[TrainingBatch, update.Minibatches]:
        """Rows and plan; rows are padded to `capacity` so that a changing experience keeps its compiled shape."""
        size, sequence_length = self._config.minibatch_size, self._config.sequence_length
        if self._is_recurrent:
            batch = batches.cut_into_sequences(batch, sequence_length)
        if size is None:
            return batch, update.whole_batch(self._config.num_epochs)
        rows = batch if self._is_recurrent else batches.flatten_time(batch)
        if capacity is not None:
            pads_time = self._is_recurrent and sequence_length is None
            rows = batches.pad_rows(rows, axis=1 if pads_time else 0, size=capacity)
        seed = tf.stack([self._shuffle_seed, tf.cast(self.train_step_counter, tf.int64)])
        # Replicas synchronise in every step: they must make equally many, whatever their data.
        num_rows = rows.mask.shape[0] if self._is_distributed() else None
        count = num_rows and -(-num_rows // size)
        row_mask = tf.reduce_any(rows.mask, axis=1)
        return rows, update.make_minibatches(row_mask, size, self._config.num_epochs, seed, count)

    def _run_epochs(self, rows: TrainingBatch, minibatches: update.Minibatches, is_undone: bool) -> update.EpochsResult:
        """All gradient steps; if `is_undone`, none where one of them is not sound: then `skipped` is 1."""
        skipped_before = self._report[_IN_A_ROW]
        if self._is_distributed():
            return update.run_unrolled(
                lambda index: self._step(rows, minibatches, index, "agree"), minibatches, skipped_before
            )
        guard, most_skipped = ("none", 1) if is_undone else ("skip", self._config.max_skipped_steps)
        state = self._state_of_steps() if is_undone else []
        before = [variable.read_value() for variable in state]
        result = update.run_epochs(
            lambda index: self._step(rows, minibatches, index, guard),
            minibatches.num_steps,
            len(STEP_REPORT),
            self._is_near,
            tf.zeros_like(skipped_before) if is_undone else skipped_before,
            most_skipped,
        )
        update.put_back(state, before, result.skipped > 0)
        return result

    def _state_of_steps(self) -> list[tf.Variable]:
        """What gradient steps change."""
        return [*self._trained_variables(), *optimizers.variables(self._optimizer), self.train_step_counter]

    def _keep_if_last(self, rows: TrainingBatch, plan: update.Minibatches, result: update.EpochsResult) -> None:
        """Keeps the last minibatch if too many in a row were skipped; without a part in any other update."""
        most = self._config.max_skipped_steps
        if not most or self._is_distributed():
            return

        def keep(*leaves: Any) -> tuple:
            self._skipped_minibatch = by_path(rows, [np.array(leaf) for leaf in leaves])
            return ()

        def call() -> tf.Tensor:
            minibatch = update.select_minibatch(rows, plan, result.taken - 1)
            with tf.control_dependencies([tf.numpy_function(keep, tf.nest.flatten(minibatch), [])]):
                return tf.constant(0)

        tf.cond(result.skipped_in_a_row >= most, call, lambda: tf.constant(0))

    def _is_near(self, report: tf.Tensor) -> tf.Tensor:
        """Whether the policy was still near the one that collected, before the step with this report."""
        limit = _KL_LIMIT * self._config.target_kl
        return tf.constant(True) if limit == 0 else ~(report[STEP_REPORT.index("approx_kl")] > limit)

    def _step(
        self, rows: TrainingBatch, minibatches: update.Minibatches, index: Tensor, guard: str
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Takes one gradient step; returns its report, see `STEP_REPORT`, and whether it was not skipped."""
        minibatch = update.select_minibatch(rows, minibatches, index)
        # As in TF-Agents, only the first and the last epoch are summarised.
        epoch = index // minibatches.count
        recorded = (epoch == 0) | (epoch == self._config.num_epochs - 1)
        with summaries.recording(recorded) if self._plain_graph_needed else contextlib.nullcontext():
            result, gradients, is_sound = update.gradient_step(
                lambda: self._minibatch_loss(minibatch, self._debug_summaries, training=True),
                self._trained_variables(),
                self._optimizer,
                self._config.gradient_clipping,
                guard,
            )
            if self._summarize_grads_and_vars and self._debug_summaries:
                summaries.write_gradients_and_variables(self.train_step_counter, gradients)
        self.train_step_counter.assign_add(1)
        loss, extra = result.loss_info
        return tf.stack([loss, *extra, *(result.metrics[n] for n in STEP_REPORT[len(extra) + 1 :])]), is_sound

    def _minibatch_loss(self, minibatch: TrainingBatch, debug_summaries: bool, training: bool) -> update.StepResult:
        weights = minibatch.weights * masking.balanced_weights(minibatch.mask)
        arguments = (
            minibatch.time_steps,
            minibatch.actions,
            minibatch.action_log_probs,
            minibatch.returns,
            masking.normalize_advantages(minibatch.advantages, minibatch.mask),
            minibatch.distribution_parameters,
            weights,
        )
        if getattr(self.get_loss, "__func__", None) is PPOObjective.get_loss:
            return self._evaluate_loss(
                *arguments, debug_summaries, minibatch.old_values, training, minibatch.first_state
            )
        # A pipeline has put its own loss in place: it does not tell the metrics.
        unknown = {"entropy": tf.constant(float("nan")), "approx_kl": tf.constant(float("nan"))}
        state = {"policy_state": minibatch.first_state} if minibatch.policy_state else {}
        loss_info = self.get_loss(
            *arguments, self.train_step_counter, debug_summaries, minibatch.old_values, training=training, **state
        )
        return update.StepResult(loss_info, unknown)

    def _adapt_beta(self, rows: TrainingBatch, failed: Tensor | None) -> Tensor:
        if self._adaptive_kl_beta is None:
            return float("nan")
        divergence = self._kl_divergence(
            rows.time_steps,
            rows.distribution_parameters,
            self._current_distribution(rows.time_steps, policy_state=rows.first_state),
        )
        divergence *= rows.weights * masking.balanced_weights(rows.mask)
        if failed is not None:  # A divergence that is not known changes nothing.
            divergence = tf.where(failed, float("nan"), divergence)
        self.update_adaptive_kl_beta(divergence)
        return tf.reduce_mean(divergence)

    def _write_summaries(self, updated: Updated) -> None:
        values = updated.report.numpy().tolist() if tf.executing_eagerly() else tf.unstack(updated.report)
        report = dict(zip(TRAIN_REPORT, values[: len(TRAIN_REPORT)], strict=True))
        summaries.write_train_metrics(report, updated.train_step)
        if self._summarize_grads_and_vars:
            summaries.write_variables(self.train_step_counter, self._trained_variables())

    def _trained_variables(self) -> list[tf.Variable]:
        """Both networks' trainable variables, each once, in an order that is the same in every process."""
        variables = {id(v): v for v in (*self._actor_net.trainable_weights, *self._value_net.trainable_weights)}
        return sorted(variables.values(), key=lambda v: v.name)

    @property
    def _is_recurrent(self) -> bool:
        return bool(self._actor_net.state_spec or self._value_net.state_spec)

    @property
    def _plain_graph_needed(self) -> bool:
        return self._config.check_numerics or self._debug_summaries or self._summarize_grads_and_vars

    def _is_distributed(self) -> bool:
        """Whether gradient steps synchronise replicas, which TensorFlow does not allow inside a loop."""
        return self._is_mirrored or tf.distribute.get_strategy().num_replicas_in_sync > 1

    # Going through the layers of both networks takes longer than a small gradient step, so it is done once.
    @functools.cached_property
    def _is_mirrored(self) -> bool:
        return any(isinstance(v, tf.distribute.DistributedValues) for v in self._trained_variables())

    @functools.cached_property
    def _work_per_row(self) -> int:
        return work_per_row(self._trained_variables(), self.time_step_spec.observation)
