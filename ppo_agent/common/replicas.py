"""What the replicas of a tf.distribute strategy know together; without a strategy, everything is as it is."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from ppo_agent.common.types import Nest, Tensor


def count() -> int:
    """How many replicas run this code; 1 without a strategy and where all replicas are seen together."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else int(context.num_replicas_in_sync)


def total(nest: Nest) -> Nest:
    """The sum of each tensor of a nest over the replicas; they all ask for it, in the same order."""
    if count() == 1:
        return nest
    tensors = [tf.convert_to_tensor(tensor) for tensor in tf.nest.flatten(nest)]
    # TensorFlow puts all tensors into one message, which can only hold one dtype.
    for dtype in sorted({tensor.dtype for tensor in tensors}, key=str):
        chosen = [i for i, tensor in enumerate(tensors) if tensor.dtype == dtype]
        summed = tf.distribute.get_replica_context().all_reduce("SUM", [tensors[i] for i in chosen])
        for i, tensor in zip(chosen, summed, strict=True):
            tensors[i] = tensor
    return tf.nest.pack_sequence_as(nest, tensors)


def mean(value: Tensor) -> Tensor:
    """The mean of a floating-point tensor over the replicas."""
    return value if count() == 1 else total(value) / count()


def gathered(nest: Nest) -> Nest:
    """Each tensor of a nest as all replicas have it, [R, ...], in the order of the replicas.

    A sum with zeros in the places of the others: unlike a gathering by TensorFlow, it works inside loops.
    """
    number = count()
    if number == 1:
        return tf.nest.map_structure(lambda tensor: tf.convert_to_tensor(tensor)[tf.newaxis], nest)

    def placed(tensor: Tensor) -> tf.Tensor:
        tensor = tf.convert_to_tensor(tensor)
        is_own = tf.reshape(tf.range(number) == index(), [number] + [1] * tensor.shape.rank)
        return tf.where(is_own, tensor[tf.newaxis], tf.zeros_like(tensor)[tf.newaxis])

    return total(tf.nest.map_structure(placed, nest))


def index() -> Tensor:
    """The number of this replica among all of them."""
    context = tf.distribute.get_replica_context()
    return 0 if context is None else context.replica_id_in_sync_group


def share(value: Tensor) -> Tensor:
    """What this replica has to report and to differentiate of a scalar that all of them know, so that a sum is right.

    The value is divided by the number of replicas; the gradient is that by what this replica has a part in.
    """
    number = count()
    return value if number == 1 else value + tf.stop_gradient(value / number - value)


def mean_with_own_gradient(value: Tensor) -> Tensor:
    """The mean of a scalar over the replicas, with the gradient of this replica's part in it alone."""
    number = count()
    if number == 1:
        return value
    own = value / number
    return own + tf.stop_gradient(total(own) - own)


def from_any(nest: Nest, is_known: Tensor) -> Nest:
    """A nest of numbers or bools from the first replica that has one; where none has, that of the replica itself.

    `is_known` is a bool scalar, whether this replica has it; the shapes are the same on all replicas.
    """
    if count() == 1:
        return nest
    known = gathered(tf.cast(is_known, tf.int32))
    is_source = is_known & (tf.argmax(known, output_type=tf.int32) == index())

    def offered(tensor: tf.Tensor) -> tf.Tensor:
        # Not all dtypes can be summed everywhere.
        tensor = tensor if tensor.dtype.is_floating else tf.cast(tensor, tf.int64)
        return tf.where(is_source, tensor, tf.zeros_like(tensor))

    found = total(tf.nest.map_structure(offered, nest))
    is_any = tf.reduce_any(known > 0)
    return tf.nest.map_structure(lambda own, other: tf.where(is_any, tf.cast(other, own.dtype), own), nest, found)


def together(function: Callable[..., Nest], *arguments: Nest) -> Nest:
    """Calls a function once for all replicas, which may then contain loops and branches that replicas take together.

    The function takes `arguments`, nests of tensors, as what each replica has of them, for `on_each` and `first_of`.
    """
    return tf.distribute.get_replica_context().merge_call(lambda _, *each: function(*each), args=arguments)


def create(function: Callable[[], Nest]) -> Nest:
    """Calls a function that creates variables, once for all replicas and outside of a graph that is being traced."""

    def call() -> Nest:
        strategy = tf.distribute.get_strategy()
        with tf.init_scope(), strategy.scope():
            return function()

    return together(call)


def on_each(function: Callable[..., Nest], *arguments: Nest) -> Nest:
    """Calls a function on every replica with what it has of `arguments`; returns what each of them returned."""
    return tf.distribute.get_strategy().run(tf.autograph.experimental.do_not_convert(function), args=arguments)


def assign(variable: tf.Variable, value: Tensor) -> None:
    """Gives every replica's copy of a variable a value that all of them know, whatever its aggregation is."""
    if not tf.distribute.has_strategy():
        variable.assign(value)
        return

    def update(strategy: tf.distribute.Strategy, value: Tensor) -> None:
        strategy.extended.update(variable, lambda copy, own: copy.assign(own), args=(value,))

    tf.distribute.get_replica_context().merge_call(update, args=(value,))


def first_of(nest: Nest) -> Nest:
    """What the first of this process's replicas has, of a nest that each of them has."""
    strategy = tf.distribute.get_strategy()
    return tf.nest.map_structure(lambda value: strategy.experimental_local_results(value)[0], nest)
