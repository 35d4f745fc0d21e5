"""What an update is handed and what it returns."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import tensorflow as tf
from tf_agents.agents.tf_agent import LossInfo
from tf_agents.trajectories import Trajectory

from ppo_agent.common.types import Tensor
from ppo_agent.learner import report
from ppo_agent.learner.batches import TrainingBatch


class UpdateOutcome(NamedTuple):
    """What an update returns. Eager tensors are read in a fraction of the time that variables take.

    Attributes:
        loss_info: of the last gradient step that was not skipped, before it; of several replicas, each has its share.
        report: float32 [len(report.ENTRIES)].
        train_step: the train step after the update, an int64 scalar.
        is_undone: bool scalar; True if a step was not sound and everything was put back, see `guards.Guard.UNDO`.
    """

    loss_info: LossInfo
    report: tf.Tensor
    train_step: tf.Tensor
    is_undone: tf.Tensor


class UpdateMethods(Protocol):
    """What an update calls: it is handed in, so that the methods of an agent's subclass are used."""

    def fill_targets(self, trajectory: Trajectory) -> Trajectory:
        """From raw experience [B, T, ...] to one with returns, advantages and values in its policy info."""

    def evaluate(self, minibatch: TrainingBatch, training: bool) -> report.StepResult:
        """The loss and the metrics of a minibatch."""

    def adapt_beta(self, batch: TrainingBatch) -> Tensor | None:
        """Adapts the KL penalty's coefficient after all steps; returns the mean KL, None without such a penalty."""

    def update_normalizers(self, trajectory: Trajectory) -> None:
        """Takes an experience into the running statistics."""

    def update_value_scale(self, rows: TrainingBatch) -> None:
        """Takes the returns of rows into the moments that value predictions are scaled by, if they are."""

    def trained_variables(self) -> list[tf.Variable]:
        """Both networks' trainable variables."""

    def network_state(self) -> list[tf.Variable]:
        """Their other variables, which a forward pass may change."""


class UpdateVariables(NamedTuple):
    """What an update changes besides the networks and the optimiser.

    Attributes:
        report: float32 [len(report.ENTRIES)], of the last update.
        train_step: grows by one per gradient step.
        shuffle_seed: int64 scalar; None without minibatches.
        adaptive_kl_beta: None without adaptive KL penalty.
    """

    report: tf.Variable
    train_step: tf.Variable
    shuffle_seed: tf.Variable | None
    adaptive_kl_beta: tf.Variable | None
