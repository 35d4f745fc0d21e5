"""Masks of the actions that are allowed: where they are found, and how they are laid out.

A mask is one flat vector over all discrete components of an action, in tf.nest's order of the leaves; each component
has one entry for each of its categories: n for gymnasium's `Discrete(n)`, the sum of `nvec` for `MultiDiscrete(nvec)`,
2 k for `MultiBinary(k)`. An entry that is not 0 allows the category.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.specs import tensor_spec

from ppo_agent.common.specs import num_categories
from ppo_agent.common.types import Nest

Splitter = Callable[[Nest], tuple[Nest, Any]]

OBSERVATION, ACTION_MASK = "observation", "action_mask"


def has_mask(observation: Nest) -> bool:
    """Whether an observation, or the spec of one, is a mapping of `observation` and `action_mask` and nothing else."""
    return isinstance(observation, Mapping) and set(observation) == {OBSERVATION, ACTION_MASK}


def split(observation: Nest, splitter: Splitter | None = None) -> tuple[Nest, Any]:
    """Splits an observation, or the spec of one, into what the networks see and the mask of the actions.

    Args:
        observation: nest of tensors, arrays or specs.
        splitter: TF-Agents' `observation_and_action_constraint_splitter`; None splits where `has_mask` holds.

    Returns:
        The network's observation, and the mask or None.
    """
    if splitter is not None:
        return splitter(observation)
    if has_mask(observation):
        return observation[OBSERVATION], observation[ACTION_MASK]
    return observation, None


def gather(mask: tf.Tensor, indices: np.ndarray) -> tf.Tensor:
    """What a mask says of one leaf's categories.

    Args:
        mask: bool [..., size].
        indices: [*shape, n] into the mask with one False appended.

    Returns:
        bool [..., *shape, n].
    """
    size, start = mask.shape[-1], int(indices.flat[0])
    if np.array_equal(indices.ravel(), np.arange(start, start + indices.size)) and start + indices.size <= size:
        part = mask if indices.size == size else mask[..., start : start + indices.size]
        return part if indices.ndim == 1 else tf.reshape(part, tf.concat([tf.shape(mask)[:-1], indices.shape], axis=0))
    padded = tf.concat([mask, tf.zeros_like(mask[..., :1])], axis=-1)
    return tf.gather(padded, indices, axis=-1)


class MaskLayout:
    """Where the categories of each action component stand in a mask.

    Attributes:
        size: length of the mask.
        offsets: int array [number of components], the position of each component's first category.
        leaf_indices: for every leaf of the action None if it is continuous; else an int array [*shape, n], n the
            largest number of categories of its components. It holds positions in the mask, and `size` for categories
            that a component does not have: the mask with one False appended can be gathered by it.
    """

    def __init__(self, action_spec: Nest) -> None:
        """Lays the mask out for a nest of bounded specs."""
        self.leaf_indices: list[np.ndarray | None] = []
        counts: list[int] = []
        specs = tf.nest.flatten(tensor_spec.from_spec(action_spec))
        leaf_counts = [num_categories(spec) if spec.dtype.is_integer else None for spec in specs]
        self.size = int(sum(count.sum() for count in leaf_counts if count is not None))
        for count in leaf_counts:
            self.leaf_indices.append(None if count is None else self._indices(count, sum(counts)))
            counts += [] if count is None else count.ravel().tolist()
        self.offsets = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64) if counts else np.zeros(0, int)

    def _indices(self, count: np.ndarray, start: int) -> np.ndarray:
        ends = start + np.cumsum(count.ravel()).reshape(count.shape)
        category = np.arange(count.max())
        return np.where(category < count[..., np.newaxis], (ends - count)[..., np.newaxis] + category, self.size)

    def check_spec(self, mask_spec: tf.TypeSpec) -> None:
        """Raises ValueError unless masks of the spec fit the action."""
        if self.size == 0:
            raise ValueError("action_spec has no discrete component, expected one where observations hold a mask.")
        if mask_spec.shape.rank != 1 or mask_spec.shape[0] != self.size:
            raise ValueError(
                f"the action mask has the shape {mask_spec.shape}, expected [{self.size}]: one entry for every "
                "category of every discrete component of the action."
            )

    def leaf_masks(self, mask: tf.Tensor) -> list[tf.Tensor | None]:
        """Deals a mask out to the leaves of the action.

        Args:
            mask: [..., size], not 0 where a category is allowed.

        Returns:
            For every leaf bool [..., *shape, n] as `leaf_indices`, None for continuous ones.
        """
        allowed = tf.cast(mask, tf.bool)
        return [None if index is None else gather(allowed, index) for index in self.leaf_indices]

    def assert_choice(self, mask: tf.Tensor) -> tf.Operation | None:
        """Raises InvalidArgumentError, when it runs, if a row of a mask [B, size] leaves a component without choice.

        XLA leaves such checks out.
        """
        choices = [tf.reduce_any(leaf, axis=-1) for leaf in self.leaf_masks(mask) if leaf is not None]
        rows = tf.stack([tf.reduce_all(c, axis=list(range(1, c.shape.rank))) for c in choices])
        wrong = tf.where(~tf.reduce_all(rows, axis=0))[:, 0]
        message = "action_mask allows no action at all, expected one for every component, in the environments"
        return tf.debugging.Assert(tf.reduce_all(rows), [message, wrong])

    def rows_without_choice(self, mask: np.ndarray) -> np.ndarray:
        """The rows of masks [B, size] that leave some component without any allowed category, int [n]."""
        allowed = np.logical_or.reduceat(mask != 0, self.offsets, axis=-1).all(axis=-1)
        return np.flatnonzero(~allowed)
