"""Scalars and histograms for tf.summary, many at once, at the cost of what is recorded.

`tf.summary.histogram` puts some forty operations and three conditions of its own into a graph for every histogram. Here
all that is written within a `group` shares one condition, behind which one operation makes one message of it.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorboard.compat.proto import summary_pb2
from tensorboard.plugins.histogram import summary_v2 as histogram_summary
from tensorboard.plugins.scalar import summary_v2 as scalar_summary

from ppo_agent.common.types import Array, Tensor

# What is written: a tensor or variable, or a function that makes it where it is recorded; the latter may return None
# for nothing.
Value = Tensor | Callable[[], Tensor | None]


class _Entry(NamedTuple):
    tag: str
    value: Value
    is_histogram: bool


class _OpenGroup(threading.local):
    entries: list[_Entry] | None = None
    graph: Any = None
    is_off: bool = False


_open = _OpenGroup()


@contextlib.contextmanager
def off() -> Iterator[None]:
    """Writes nothing of what is written within, and leaves no trace of it in a graph."""
    before, _open.is_off = _open.is_off, True
    try:
        yield
    finally:
        _open.is_off = before


def are_off() -> bool:
    """Whether nothing is written, see `off`."""
    return _open.is_off


@contextlib.contextmanager
def group(step: Tensor | None) -> Iterator[None]:
    """Writes what is written within at the end, at a train step, all of it behind one condition."""
    outer = _open.entries, _open.graph
    entries: list[Any] = []
    _open.entries, _open.graph = entries, tf.compat.v1.get_default_graph()
    try:
        yield
    finally:
        _open.entries, _open.graph = outer
    _write_if_recorded(entries, step)


def write(step: Tensor | None, values: Mapping[str, Value], *, are_histograms: bool) -> None:
    """Writes scalars or histograms under their names, with the name scopes in force in front, as tf.summary does.

    Within a group, the group's train step is taken. Histograms are of all entries of a tensor.
    """
    entries = []
    for name, value in values.items():
        with tf.summary.experimental.summary_scope(name) as (tag, _):
            entries.append(_Entry(tag, value, are_histograms))
    # What is computed within a branch or a loop cannot leave it.
    if _open.entries is not None and _open.graph is tf.compat.v1.get_default_graph():
        _open.entries.extend(entries)
    else:
        _write_if_recorded(entries, step)


def _write_if_recorded(entries: list[_Entry], step: Tensor | None) -> None:
    if not entries or _open.is_off:
        return
    is_recorded = tf.summary.should_record_summaries()
    if tf.get_static_value(is_recorded) is False:
        return
    if tf.executing_eagerly() and not is_recorded:
        return
    step = tf.summary.experimental.get_step() if step is None else step
    if step is not None:  # Read here: behind the condition it might be read after the step has been counted.
        step = tf.cast(step, tf.int64)

    def write_all() -> tf.Tensor:
        values = [evaluated(entry.value) for entry in entries]
        known = [(entry, value) for entry, value in zip(entries, values, strict=True) if value is not None]
        message = functools.partial(_message, [entry for entry, _ in known])
        serialized = tf.numpy_function(message, [value for _, value in known], tf.string)
        with tf.summary.record_if(True):
            tf.summary.experimental.write_raw_pb(serialized, step)
        return tf.constant(0)

    tf.cond(is_recorded, write_all, lambda: tf.constant(0))


def evaluated(value: Value) -> Tensor | None:
    """What a value is, or what it makes if it is a function."""
    return value() if isinstance(value, types.FunctionType | functools.partial) else value


def _message(entries: list[_Entry], *arrays: Array) -> bytes:
    """The serialized message of all entries, as TensorBoard makes it of each of them."""
    message = summary_pb2.Summary()
    with np.errstate(invalid="ignore"):  # Values that are not finite fall into no bucket.
        for entry, array in zip(entries, arrays, strict=True):
            make = histogram_summary.histogram_pb if entry.is_histogram else scalar_summary.scalar_pb
            message.MergeFrom(make(entry.tag, array))
    return message.SerializeToString()
