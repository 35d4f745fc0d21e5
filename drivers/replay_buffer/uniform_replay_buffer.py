"""A replay buffer for on-policy experience, kept in host memory."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from tf_agents.replay_buffers import replay_buffer

from ppo_agent.common import host_calls
from ppo_agent.common.checks import check_int
from ppo_agent.common.configurable import configurable
from ppo_agent.common.nest_checks import NestCheck
from ppo_agent.common.types import Nest

from .host_rows import HostRows
from .ordered_dataset import BufferInfo, ordered_dataset


@configurable("ppo_agent.drivers")
class UniformReplayBuffer(replay_buffer.ReplayBuffer):
    """Holds up to `max_length` rows of each of `batch_size` environments.

    A row is read once `gather_all` or `get_next`, or the iteration over a dataset of `as_dataset`, could have returned
    it; each of these reads everything that the buffer holds at that moment. A full buffer makes room by dropping its
    oldest rows if they were read, and refuses with ValueError to overwrite unread ones.

    All methods work eagerly and inside a `tf.function`, where errors surface as TensorFlow's, with the same text.
    """

    def __init__(
        self,
        data_spec: Nest,
        batch_size: int,
        max_length: int = 1000,
        *,
        dataset_drop_remainder: bool = False,
        dataset_window_shift: int | None = None,
        seed: int | None = None,
    ) -> None:
        """Creates an empty buffer.

        Args:
            data_spec: Nest of `tf.TensorSpec` of one row of one environment, such as `agent.collect_data_spec`.
            batch_size: Number of environments B.
            max_length: Most rows per environment.
            dataset_drop_remainder: Whether `as_dataset(single_deterministic_pass=True)` leaves out a last batch or
                window that is not full.
            dataset_window_shift: Distance of the windows of `num_steps` there; None for `num_steps`, no overlap.
            seed: Of the sampling in `get_next` and `as_dataset`.

        Raises:
            TypeError: `data_spec` holds something else, or nothing.
            ValueError: A number is not positive.
        """
        check_int("batch_size", batch_size)
        check_int("max_length", max_length)
        leaves = tf.nest.flatten(data_spec)
        if not leaves or not all(isinstance(leaf, tf.TensorSpec) for leaf in leaves):
            raise TypeError(
                f"data_spec is {data_spec!r}, expected a nest of tf.TensorSpec, such as agent.collect_data_spec."
            )
        super().__init__(data_spec, capacity=batch_size * max_length)
        self._batch_size = batch_size
        self._drop_remainder = dataset_drop_remainder
        self._window_shift = dataset_window_shift
        self._rng = np.random.default_rng(seed)
        self._rows = HostRows(data_spec, batch_size, max_length)
        self._check_leaves = NestCheck("items", self._rows.data_spec)

    def add_rollout(self, items: Nest) -> None:
        """Adds rows of several time steps at once.

        Args:
            items: Nest as `data_spec`, arrays or eager tensors [B, T, ...], kept without a copy: do not write to the
                arrays afterwards.

        Raises:
            ValueError: `items` does not fit the spec, or would overwrite unread rows. Nothing is added then.
        """
        self._check(items, time_dims=1)
        self._rows.append(
            tf.nest.map_structure(lambda x: x if isinstance(x, np.ndarray | tf.Tensor) else np.asarray(x), items)
        )

    def gather_all(self) -> Nest:
        """Returns all rows as tensors [B, T, ...], the oldest first."""
        return self._gather_all()

    def get_next(
        self, sample_batch_size: int | None = None, num_steps: int | None = None, time_stacked: bool = True
    ) -> tuple[Nest, BufferInfo]:
        """Returns rows sampled uniformly, with replacement.

        Args:
            sample_batch_size: Number of samples S; None for one without batch dimension.
            num_steps: Number of consecutive rows N in each sample; None for one without time dimension.
            time_stacked: Whether the N rows are stacked; if not, they are a tuple.

        Returns:
            (Nest of tensors [S, N, ...], `BufferInfo`). The info's ids number the rows since the buffer was made.

        Raises:
            ValueError: A size is no positive int, or the buffer holds fewer than `num_steps` rows per environment.
        """
        for name, value in (("sample_batch_size", sample_batch_size), ("num_steps", num_steps)):
            if value is not None:
                check_int(name, value)
        return self._get_next(sample_batch_size, num_steps, time_stacked)

    def as_dataset(
        self,
        sample_batch_size: int | None = None,
        num_steps: int | None = None,
        num_parallel_calls: int | None = None,
        single_deterministic_pass: bool = False,
    ) -> tf.data.Dataset:
        """Returns a dataset of (rows, `BufferInfo`), which reads the buffer when it is iterated over.

        Args:
            sample_batch_size: Samples in an element, S; None for one without batch dimension.
            num_steps: Consecutive rows in a sample, N; None for one without time dimension.
            num_parallel_calls: As for `tf.data.Dataset.map`.
            single_deterministic_pass: False: endless samples as of `get_next`. True: everything once and in order;
                without S, environment after environment; with S, groups of S environments, step after step or window
                after window (a last window that is not full is left out).
        """
        return super().as_dataset(
            sample_batch_size, num_steps, num_parallel_calls, single_deterministic_pass=single_deterministic_pass
        )

    def _num_frames(self) -> tf.Tensor:
        """Returns the number of rows held, over all environments, int64."""
        size = self._batch_size
        return host_calls.call_on_host(lambda _: np.int64(len(self._rows) * size), (), tf.TensorSpec([], tf.int64))

    def _add_batch(self, items: Nest) -> tf.Tensor:
        """Adds one row of each environment, [B, ...]; arrays are copied.

        Returns:
            A scalar that is there when the row is, for TF-Agents' drivers to wait for.
        """
        self._check(items, time_dims=0)

        def add(arrays: Nest) -> np.bool_:
            self._rows.append(tf.nest.map_structure(lambda x: np.array(x)[:, None], arrays))
            return np.True_

        return host_calls.call_on_host(add, items, tf.TensorSpec([], tf.bool))

    def _clear(self) -> tf.Tensor:
        def clear(_: tuple) -> np.bool_:
            self._rows.clear()
            return np.True_

        return host_calls.call_on_host(clear, (), tf.TensorSpec([], tf.bool))

    def _gather_all(self) -> Nest:
        if tf.executing_eagerly():
            return host_calls.to_tensors(self._rows.read()[0])
        return self._read()[0]

    def _read(self) -> tuple[Nest, tf.Tensor]:
        """Returns all rows, tensors [B, T, ...], and their ids [T]."""
        return host_calls.call_on_host(lambda _: self._rows.read(), (), self._rows.read_spec)

    def _get_next(
        self, sample_batch_size: int | None, num_steps: int | None, time_stacked: bool = True
    ) -> tuple[Nest, BufferInfo]:
        outer = [size for size in (sample_batch_size, num_steps) if size is not None]
        batch = [] if sample_batch_size is None else [sample_batch_size]
        spec = (
            host_calls.with_outer_dims(self._rows.data_spec, *outer),
            tf.TensorSpec(outer, tf.int64),
            tf.TensorSpec(batch, tf.float32),
        )
        data, ids, probabilities = host_calls.call_on_host(lambda _: self._sample(batch, num_steps), (), spec)
        if num_steps is not None and not time_stacked:
            data, ids = (_unstack(nest, num_steps, axis=len(batch)) for nest in (data, ids))
        return data, BufferInfo(ids=ids, probabilities=probabilities)

    def _sample(self, batch: list[int], num_steps: int | None) -> tuple[Nest, np.ndarray, np.ndarray]:
        """Returns arrays (rows, ids, probabilities) of a random sample."""
        rows, ids = host_calls.to_arrays(self._rows.read())
        starts = len(ids) - (num_steps or 1) + 1
        if starts < 1:
            raise ValueError(
                f"the buffer holds {len(ids)} rows per environment, expected at least num_steps={num_steps or 1}."
            )
        times, environments = self._rng.integers(starts, size=batch), self._rng.integers(self._batch_size, size=batch)
        if num_steps is not None:
            times, environments = times[..., None] + np.arange(num_steps), np.asarray(environments)[..., None]
        data = tf.nest.map_structure(lambda leaf: leaf[environments, times], rows)
        return data, ids[times], np.full(batch, 1 / (starts * self._batch_size), np.float32)

    def _as_dataset(
        self,
        sample_batch_size: int | None,
        num_steps: int | None,
        sequence_preprocess_fn: None = None,
        num_parallel_calls: int | None = None,
    ) -> tf.data.Dataset:
        del sequence_preprocess_fn  # `as_dataset` does not take it.
        return tf.data.Dataset.counter().map(
            lambda _: self._get_next(sample_batch_size, num_steps), num_parallel_calls=num_parallel_calls
        )

    def _single_deterministic_pass_dataset(
        self,
        sample_batch_size: int | None,
        num_steps: int | None,
        sequence_preprocess_fn: None = None,
        num_parallel_calls: int | None = None,
    ) -> tf.data.Dataset:
        del sequence_preprocess_fn  # `as_dataset` does not take it.
        return ordered_dataset(
            self._read,
            sample_batch_size,
            num_steps,
            num_parallel_calls,
            shift=self._window_shift,
            drop_remainder=self._drop_remainder,
        )

    def _check(self, items: Nest, time_dims: int) -> None:
        """Checks structure, dtypes and shapes.

        Raises:
            ValueError: They do not fit; names the leaf.
        """
        self._check_leaves(items, self._batch_size, *[None] * time_dims)
        if time_dims and len({value.shape[1] for value in tf.nest.flatten(items)}) > 1:
            raise ValueError("items has leaves of different numbers of time steps, expected the same in all.")


def _unstack(values: Nest, count: int, axis: int) -> tuple[Nest, ...]:
    """Returns a tuple of nests without the axis."""
    return tuple(tf.nest.map_structure(lambda x, i=i: tf.gather(x, i, axis=axis), values) for i in range(count))
