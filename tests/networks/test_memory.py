"""The recurrent layers against NumPy, Keras' cells, finite differences and themselves, step by step."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from ppo_agent.networks.memory import GRUMemory, LSTMMemory, Memory

UNITS = 3
BOTH = pytest.mark.parametrize("memory_class", [LSTMMemory, GRUMemory])


def _make(memory_class: Any, rng: np.random.Generator, features: int = 5) -> Memory:
    memory = memory_class(UNITS, seed=1)
    memory(tf.zeros([1, 2, features]), tf.zeros([1, 2], tf.bool))
    for variable in memory.variables:
        variable.assign(rng.normal(0.0, 0.7, variable.shape))
    return memory


def _state(memory: Memory, batch_size: int, rng: np.random.Generator) -> Any:
    return tf.nest.map_structure(
        lambda spec: tf.constant(rng.normal(size=(batch_size, *spec.shape)), spec.dtype), memory.state_spec
    )


def _sequence(rng: np.random.Generator, batch_size: int = 4, steps: int = 9) -> tuple[tf.Tensor, tf.Tensor]:
    features = tf.constant(rng.normal(size=(batch_size, steps, 5)), tf.float32)
    return features, tf.constant(rng.random((batch_size, steps)) < 0.3)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def _numpy_step(weights: dict[str, np.ndarray], x: np.ndarray, state: Any) -> Any:
    """One step of one sequence in float64, from the equations."""
    hidden = state["hidden"] if isinstance(state, dict) else state
    inputs, recurrent = x @ weights["kernel"] + weights["bias"], hidden @ weights["recurrent_kernel"]
    if isinstance(state, dict):
        i, f, g, o = np.split(inputs + recurrent, 4)
        cell = _sigmoid(f) * state["cell"] + _sigmoid(i) * np.tanh(g)
        return {"cell": cell, "hidden": _sigmoid(o) * np.tanh(cell)}
    inputs, recurrent = np.split(inputs, 3), np.split(recurrent + weights["recurrent_bias"], 3)
    z, r = _sigmoid(inputs[0] + recurrent[0]), _sigmoid(inputs[1] + recurrent[1])
    return z * hidden + (1 - z) * np.tanh(inputs[2] + r * recurrent[2])


def _oracle(memory: Memory, features: Any, is_first: Any, state: Any) -> tuple[np.ndarray, Any]:
    weights = {v.name.split("/")[-1].split(":")[0]: v.numpy().astype(np.float64) for v in memory.variables}
    outputs, last = [], []
    for b in range(len(features)):
        row = tf.nest.map_structure(lambda leaf, b=b: np.asarray(leaf[b], np.float64), state)
        for t in range(features.shape[1]):
            if is_first[b, t]:
                row = tf.nest.map_structure(np.zeros_like, row)
            row = _numpy_step(weights, np.asarray(features[b, t], np.float64), row)
            outputs.append(row["hidden"] if isinstance(row, dict) else row)
        last.append(row)
    outputs = np.reshape(outputs, (*features.shape[:2], -1))
    return outputs, tf.nest.map_structure(lambda *rows: np.stack(rows), *last)


def _assert_close(found: Any, expected: Any, atol: float = 1e-6) -> None:
    tf.nest.assert_same_structure(found, expected)
    for a, b in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


@BOTH
@pytest.mark.parametrize("steps", [1, 9])
def test_outputs_and_state_follow_the_equations(memory_class: Any, steps: int, rng: np.random.Generator) -> None:
    memory = _make(memory_class, rng)
    features, is_first = _sequence(rng, steps=steps)
    state = _state(memory, 4, rng)
    _assert_close(memory(features, is_first, state), _oracle(memory, features, is_first, state))


@BOTH
def test_equals_the_keras_cell_with_the_same_weights(memory_class: Any, rng: np.random.Generator) -> None:
    memory = _make(memory_class, rng)
    features, _ = _sequence(rng)
    state = _state(memory, 4, rng)
    if memory_class is LSTMMemory:
        layer = tf.keras.layers.LSTM(UNITS, return_sequences=True, return_state=True)
        initial = [state["hidden"], state["cell"]]
        weights = [memory.kernel, memory.recurrent_kernel, memory.bias]
    else:
        layer = tf.keras.layers.GRU(UNITS, return_sequences=True, return_state=True)
        initial = [state]
        weights = [memory.kernel, memory.recurrent_kernel, tf.stack([memory.bias, memory.recurrent_bias])]
    layer.build(features.shape)
    layer.set_weights([weight.numpy() for weight in weights])
    expected, hidden, *cell = layer(features, initial_state=initial)
    outputs, last = memory(features, tf.zeros([4, 9], tf.bool), state)
    _assert_close(outputs, expected)
    _assert_close(last, {"cell": cell[0], "hidden": hidden} if cell else hidden)


@BOTH
def test_all_steps_at_once_are_one_step_at_a_time(memory_class: Any, rng: np.random.Generator) -> None:
    memory = _make(memory_class, rng)
    features, is_first = _sequence(rng)
    state = _state(memory, 4, rng)
    expected = memory(features, is_first, state)
    outputs = []
    for t in range(9):
        output, state = memory(features[:, t : t + 1], is_first[:, t : t + 1], state)
        outputs.append(output)
    _assert_close((tf.concat(outputs, 1), state), expected)


@BOTH
@pytest.mark.parametrize("steps", [1, 4])
def test_a_first_step_forgets_everything_even_infinities(
    memory_class: Any, steps: int, rng: np.random.Generator
) -> None:
    memory = _make(memory_class, rng)
    features, _ = _sequence(rng, steps=steps)
    is_first = tf.constant([[True] + [False] * (steps - 1)] * 4)
    bad = tf.nest.map_structure(lambda leaf: leaf * np.inf, _state(memory, 4, rng))
    with tf.GradientTape() as tape:
        result = memory(features, is_first, bad)
        loss = tf.reduce_sum(result[0])
    _assert_close(result, memory(features, tf.zeros_like(is_first), ()))
    assert all(np.isfinite(gradient).all() for gradient in tape.gradient(loss, memory.trainable_variables))


@BOTH
def test_no_state_is_zeros(memory_class: Any, rng: np.random.Generator) -> None:
    memory = _make(memory_class, rng)
    features, is_first = _sequence(rng)
    zeros = tf.nest.map_structure(tf.zeros_like, _state(memory, 4, rng))
    for nothing in ((), None):
        _assert_close(memory(features, is_first, nothing), memory(features, is_first, zeros), atol=0)


def _loss(memory: Memory, features: Any, is_first: Any, state: Any, weights: Any) -> tf.Tensor:
    """Depends on every output and on the last state."""
    outputs, last = memory(features, is_first, state)
    terms = zip(tf.nest.flatten((outputs, last)), weights, strict=True)
    return tf.add_n([tf.reduce_sum(weight * leaf**2) for leaf, weight in terms])


def _loss_weights(memory: Memory, features: Any, rng: np.random.Generator) -> list[tf.Tensor]:
    batch_size, steps = features.shape[:2]
    shapes = [(batch_size, steps, UNITS), *[(batch_size, UNITS) for _ in tf.nest.flatten(memory.state_spec)]]
    return [tf.constant(rng.normal(size=shape), tf.float32) for shape in shapes]


@BOTH
@pytest.mark.parametrize("steps", [1, 7])
def test_gradients_are_finite_differences_of_the_oracle(
    memory_class: Any, steps: int, rng: np.random.Generator
) -> None:
    memory = _make(memory_class, rng)
    features, is_first = _sequence(rng, batch_size=2, steps=steps)
    state, weights = _state(memory, 2, rng), _loss_weights(memory, features, rng)
    sources = [*memory.trainable_variables, features, *tf.nest.flatten(state)]
    with tf.GradientTape() as tape:
        tape.watch([features, state])
        loss = _loss(memory, features, is_first, state, weights)
    for source, gradient in zip(sources, tape.gradient(loss, sources), strict=True):
        direction = rng.normal(size=source.shape)

        def oracle(step: float, source: Any = source, direction: np.ndarray = direction) -> float:
            moved = [x.numpy().astype(np.float64) + (step * direction if x is source else 0.0) for x in sources]
            return _oracle_loss(memory, moved, is_first, state, weights)

        difference = (oracle(1e-5) - oracle(-1e-5)) / 2e-5
        np.testing.assert_allclose(np.sum(gradient * direction), difference, rtol=1e-4, atol=1e-4)


def _oracle_loss(memory: Memory, values: list[np.ndarray], is_first: Any, state: Any, weights: Any) -> float:
    """`_loss` in float64; values are those of the variables, the features and the state's leaves."""
    count = len(memory.trainable_variables)
    stand_in = _StandIn(memory.trainable_variables, values[:count])
    moved_state = tf.nest.pack_sequence_as(state, values[count + 1 :])
    leaves = tf.nest.flatten(_oracle(stand_in, values[count], is_first, moved_state))
    return sum(
        np.sum(weight.numpy().astype(np.float64) * leaf**2) for leaf, weight in zip(leaves, weights, strict=True)
    )


class _Value:
    def __init__(self, name: str, value: np.ndarray) -> None:
        self.name, self.value = name, value

    def numpy(self) -> np.ndarray:
        return self.value


class _StandIn:
    """Has variables in float64, which a layer has not."""

    def __init__(self, variables: Any, values: list[np.ndarray]) -> None:
        self.variables = [_Value(variable.name, value) for variable, value in zip(variables, values, strict=True)]


@BOTH
@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("is_open", [False, True], ids=["fixed", "open"])
def test_gradients_in_graphs_are_the_eager_ones(
    memory_class: Any, is_open: bool, xla: bool, rng: np.random.Generator
) -> None:
    memory = _make(memory_class, rng)
    signature = None
    if is_open:
        state_spec = tf.nest.map_structure(lambda s: tf.TensorSpec([None, *s.shape], s.dtype), memory.state_spec)
        signature = [tf.TensorSpec([None, None, 5]), tf.TensorSpec([None, None], tf.bool), state_spec]

    def gradients(features: Any, is_first: Any, state: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch([features, state])
            outputs, last = memory(features, is_first, state)
            loss = tf.add_n([tf.reduce_sum(leaf**2) for leaf in tf.nest.flatten((outputs, last))])
        return outputs, last, tape.gradient(loss, [*memory.trainable_variables, features, state])

    compiled = tf.function(gradients, input_signature=signature, jit_compile=xla, autograph=False)
    for batch_size, steps in ((4, 9), (2, 3)) if is_open else ((4, 9),):
        arguments = (*_sequence(rng, batch_size, steps), _state(memory, batch_size, rng))
        _assert_close(compiled(*arguments), gradients(*arguments), atol=2e-5)


def test_inside_a_loop_of_gradient_steps_under_xla(rng: np.random.Generator) -> None:
    """As in training: the loop over time inside the loop over minibatches."""
    memory, target = _make(LSTMMemory, rng), _make(LSTMMemory, rng)
    features, is_first = _sequence(rng, batch_size=8)
    labels, _ = target(features, is_first)

    @tf.function(jit_compile=True, autograph=False)
    def train(steps: tf.Tensor) -> tf.Tensor:
        def body(i: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((memory(features, is_first)[0] - labels) ** 2)
            for variable, gradient in zip(
                memory.trainable_variables, tape.gradient(loss, memory.trainable_variables), strict=True
            ):
                variable.assign_sub(0.5 * gradient)
            return i + 1, loss

        return tf.while_loop(lambda i, _: i < steps, body, (0, 0.0))[1]

    first = float(train(tf.constant(1)))
    assert float(train(tf.constant(300))) < 0.5 * first


@BOTH
def test_first_weights(memory_class: Any) -> None:
    memory, same, other = (memory_class(8, seed=seed) for seed in (5, 5, 6))
    for layer in (memory, same, other):
        layer(tf.zeros([1, 1, 6]), tf.zeros([1, 1], tf.bool))
    for variable, twin, stranger in zip(memory.variables, same.variables, other.variables, strict=True):
        np.testing.assert_array_equal(variable, twin)
        if "kernel" in variable.name:
            assert not np.allclose(variable, stranger)
            np.testing.assert_allclose(variable @ tf.transpose(variable), np.eye(variable.shape[0]), atol=1e-5)
        else:
            # The gate that keeps the state starts open.
            keeping = -1 if "recurrent" in variable.name else {LSTMMemory: 1, GRUMemory: 0}[memory_class]
            np.testing.assert_array_equal(variable, np.arange(variable.shape[0]) // 8 == keeping)
    names = [variable.name for variable in memory.variables]
    assert sum("kernel" in name for name in names) == 2
    assert sum("bias" in name for name in names) == len(names) - 2


@BOTH
def test_a_layer_made_from_the_config_has_the_same_first_weights_in_other_variables(memory_class: Any) -> None:
    memory = memory_class(4, seed=5, name="memory_of_mine")
    twin = memory_class.from_config(memory.get_config())
    for layer in (memory, twin):
        layer(tf.zeros([1, 1, 6]), tf.zeros([1, 1], tf.bool))
    assert twin.name == "memory_of_mine"
    for variable, other in zip(memory.variables, twin.variables, strict=True):
        assert variable is not other
        np.testing.assert_array_equal(variable, other)


def test_without_a_seed_tensorflows_decides() -> None:
    def kernel(seed: int) -> np.ndarray:
        tf.random.set_seed(seed)
        memory = GRUMemory(4)
        memory(tf.zeros([1, 1, 2]), tf.zeros([1, 1], tf.bool))
        return memory.kernel.numpy()

    np.testing.assert_array_equal(kernel(1), kernel(1))
    assert not np.allclose(kernel(1), kernel(2))


@pytest.mark.parametrize("units", [0, -1, 2.0, True, None])
def test_units_must_be_a_positive_int(units: Any) -> None:
    with pytest.raises(ValueError, match=r"units is .*, expected a positive int"):
        LSTMMemory(units)
