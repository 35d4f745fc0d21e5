"""Encoders of the user's own, memories, shared torsos: called, copied, checkpointed, exported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.networks import encoding_network, lstm_encoding_network
from tf_agents.policies import greedy_policy, policy_saver
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import StepType
from tf_agents.trajectories import time_step as ts

from ppo_agent.export import export_policy
from ppo_agent.networks import ActorNetwork, GRUMemory, LSTMMemory, ObservationEncoder, ValueNetwork, shared_networks
from ppo_agent.policy import PPOPolicy

VECTOR = tensor_spec.BoundedTensorSpec([5], tf.float32, -2, 2, "vector")
NESTED = {
    "dials": tensor_spec.BoundedTensorSpec([2], tf.int64, 0, [1, 2], "dials"),
    "view": tensor_spec.BoundedTensorSpec([6, 6, 3], tf.uint8, 0, 255, "view"),
    "vector": VECTOR,
}
MASKED = {"observation": NESTED, "action_mask": tensor_spec.BoundedTensorSpec([7], tf.int32, 0, 1, "allowed")}
HYBRID = {
    "levers": tensor_spec.BoundedTensorSpec([2], tf.int32, [3, 0], [4, 2], "levers"),
    "pair": (
        tensor_spec.BoundedTensorSpec([], tf.int64, 0, 1, "gear"),
        tensor_spec.BoundedTensorSpec([2], tf.float32, [-1, 0], [1, 3], "wheel"),
    ),
}
BOX = tensor_spec.BoundedTensorSpec([2], tf.float32, [-1, 0], [1, 3])


def _observe(spec: Any, rng: np.random.Generator, *outer: int) -> Any:
    def leaf(s: Any) -> tf.Tensor:
        if s.name == "allowed":
            return tf.ones([*outer, *s.shape], s.dtype)
        if s.dtype.is_integer:
            return tf.constant(rng.integers(s.minimum, s.maximum, (*outer, *s.shape), endpoint=True), s.dtype)
        return tf.constant(rng.normal(size=(*outer, *s.shape)), s.dtype)

    return tf.nest.map_structure(leaf, spec)


class _OwnModel(tf.keras.Model):
    """A subclassed model on a nested observation, with a layer that behaves differently in training."""

    def __init__(self, units: int = 7) -> None:
        super().__init__()
        self.units = units
        self.dense = tf.keras.layers.Dense(units, "relu")
        self.dropout = tf.keras.layers.Dropout(0.5)

    def get_config(self) -> dict[str, Any]:
        return {"units": self.units}

    def call(self, observation: Any, training: bool = False) -> tf.Tensor:
        pixels = tf.cast(tf.reshape(observation["view"], [-1, 108]), tf.float32) / 255.0
        joined = tf.concat([pixels, observation["vector"], tf.one_hot(observation["dials"][:, 1], 3)], axis=1)
        return self.dropout(self.dense(joined), training=training)


def _functional() -> tf.keras.Model:
    inputs = {
        "dials": tf.keras.Input([2], dtype=tf.int32),
        "view": tf.keras.Input([6, 6, 3], dtype=tf.uint8),
        "vector": tf.keras.Input([5]),
    }
    pixels = tf.keras.layers.Flatten()(tf.keras.layers.Rescaling(1 / 255)(inputs["view"]))
    return tf.keras.Model(
        inputs, tf.keras.layers.Dense(6, "elu")(tf.keras.layers.concatenate([pixels, inputs["vector"]]))
    )


ENCODERS: dict[str, tuple[Any, Callable[[], Any]]] = {
    "layer": (VECTOR, lambda: tf.keras.layers.Dense(4, "relu")),
    "sequential": (VECTOR, lambda: tf.keras.Sequential([tf.keras.layers.Dense(4), tf.keras.layers.Dense(3)])),
    "functional": (NESTED, _functional),
    "subclass": (NESTED, _OwnModel),
    "own encoder": (NESTED, lambda: ObservationEncoder(NESTED, (6,), embedding_size=2)),
    "own encoder, masked": (MASKED, lambda: ObservationEncoder(MASKED, (6,))),
    "functional, masked": (MASKED, _functional),
    "tf_agents": (VECTOR, lambda: encoding_network.EncodingNetwork(VECTOR, fc_layer_params=(4,))),
}


@pytest.mark.parametrize("with_memory", [False, True], ids=["", "memory"])
@pytest.mark.parametrize(("spec", "make"), ENCODERS.values(), ids=ENCODERS)
def test_any_keras_model_is_an_encoder(spec: Any, make: Any, with_memory: bool, rng: np.random.Generator) -> None:
    memory = GRUMemory(3) if with_memory else None
    networks = [
        ActorNetwork(spec, HYBRID, encoder=make(), memory=memory),
        ValueNetwork(spec, encoder=make(), memory=memory),
    ]
    for network in networks:
        network.create_variables(spec)
        sequence = _observe(spec, rng, 2, 3)
        step_type = tf.fill([2, 3], StepType.FIRST)  # so that a memory remembers nothing from column to column
        column = tf.nest.map_structure(lambda x: x[:, 1], sequence)
        outputs = [network(sequence, step_type)[0], network(column, step_type[:, 1])[0]]
        if isinstance(network, ActorNetwork):
            outputs = [output["pair"][1].mode() for output in outputs]
        np.testing.assert_allclose(outputs[0][:, 1], outputs[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("spec", "make"), ENCODERS.values(), ids=ENCODERS)
def test_copy_has_an_encoder_and_a_memory_of_its_own(spec: Any, make: Any) -> None:
    for network in (
        ActorNetwork(spec, HYBRID, encoder=make(), memory=LSTMMemory(3)),
        ValueNetwork(spec, encoder=make(), memory=LSTMMemory(3)),
    ):
        network.create_variables(spec)
        copy = network.copy(name="copy")
        copy.create_variables(spec)
        assert [v.shape for v in copy.variables] == [v.shape for v in network.variables]
        assert not {v.ref() for v in copy.variables} & {v.ref() for v in network.variables}


class _WithoutConfig(tf.keras.layers.Layer):
    def __init__(self, table: Any) -> None:
        super().__init__()
        self.table = table

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.matmul(x, self.table())


def test_copy_of_an_encoder_without_config_is_refused() -> None:
    network = ValueNetwork(VECTOR, encoder=_WithoutConfig(lambda: tf.ones([5, 3])))
    with pytest.raises(ValueError, match=r"encoder: .* has no complete get_config.*give copy\(encoder=...\)"):
        network.copy(name="copy")
    assert network.copy(encoder=tf.keras.layers.Dense(2)).create_variables() == tf.TensorSpec([], tf.float32)


def test_training_reaches_the_layers_of_the_encoder(rng: np.random.Generator) -> None:
    value = ValueNetwork(NESTED, encoder=_OwnModel())
    value.create_variables()
    observation = _observe(NESTED, rng, 8)
    np.testing.assert_array_equal(value(observation)[0], value(observation, training=False)[0])
    assert not np.allclose(value(observation)[0], value(observation, training=True)[0])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ValueNetwork(VECTOR, encoder=lambda x: x), TypeError, "encoder: found function, expected a tf.keras"),
        (lambda: ActorNetwork(VECTOR, BOX, memory=tf.keras.layers.LSTM(3)), TypeError, "memory: found LSTM, expected"),
        (
            lambda: ValueNetwork(VECTOR, encoder=lstm_encoding_network.LSTMEncodingNetwork(VECTOR, lstm_size=(3,))),
            ValueError,
            "has a state, expected .*; give the recurrent part as memory",
        ),
        (
            lambda: ValueNetwork(VECTOR, encoder=tf.keras.layers.Dense(2), embedding_size=3),
            ValueError,
            "embedding_size: found 3 together with an encoder",
        ),
        (
            lambda: ActorNetwork(VECTOR, BOX, encoder=tf.keras.layers.Dense(2), conv_layers=()),
            ValueError,
            r"conv_layers: found \(\) together with an encoder",
        ),
        (
            lambda: ValueNetwork(VECTOR, encoder=tf.keras.layers.Reshape([5, 1])).create_variables(),
            ValueError,
            r"encoder: reshape.* returned \(1, 5, 1\), expected features of the shape \[N, F\]",
        ),
    ],
)
def test_impossible_parts_are_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("make", [LSTMMemory, GRUMemory])
def test_memory_steps_equal_a_sequence(make: Any, rng: np.random.Generator) -> None:
    actor = ActorNetwork(VECTOR, BOX, memory=make(4), fc_layers=(6,))
    actor.create_variables()
    for variable in actor.variables:
        variable.assign(rng.normal(size=variable.shape))
    observation = _observe(VECTOR, rng, 3, 6)
    step_type = tf.constant(rng.integers(0, 3, (3, 6)), tf.int32)
    initial = tf.nest.map_structure(lambda s: tf.constant(rng.normal(size=(3, *s.shape)), s.dtype), actor.state_spec)
    distribution, last = actor(observation, step_type, initial)
    state = initial
    for t in range(6):
        one, state = actor(observation[:, t], step_type[:, t], state)
        np.testing.assert_allclose(one.mode(), distribution.mode()[:, t], rtol=1e-4, atol=1e-5)
    for found, expected in zip(tf.nest.flatten(state), tf.nest.flatten(last), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_no_state_is_zeros_and_no_step_type_is_no_start(rng: np.random.Generator) -> None:
    value = ValueNetwork(VECTOR, memory=LSTMMemory(4))
    value.create_variables()
    observation = _observe(VECTOR, rng, 3, 6)
    expected = value(observation, tf.ones([3, 6], tf.int32), value.get_initial_state(3))[0]
    for state in ((), None):
        np.testing.assert_array_equal(value(observation, None, state)[0], expected)


def _refs(network: Any) -> set[Any]:
    return {v.ref() for v in network.variables}


@pytest.mark.parametrize("memory", [None, LSTMMemory(3, seed=1)], ids=["", "memory"])
def test_shared_networks_share_all_but_their_outputs(memory: Any, rng: np.random.Generator) -> None:
    actor, value = shared_networks(MASKED, HYBRID, (6,), memory=memory, embedding_size=2, squash=True, seed=4)
    for network in (actor, value):
        network.create_variables(MASKED)
    shared = _refs(actor) & _refs(value)
    own = {v.deref().name for v in (_refs(actor) | _refs(value)) - shared}
    assert len(shared) == len(actor.encoder.variables) + (0 if memory is None else len(memory.variables))
    assert len(own) == 4 + 3 + 2
    names = [v.deref().name for v in _refs(actor) | _refs(value)]
    assert len(set(names)) == len(names)
    assert all("kernel" in v.deref().name for v in shared if v.deref().shape.rank == 2 and v.deref().shape[1] != 2)


def test_seed_decides_the_shared_weights() -> None:
    def draw(seed: int) -> np.ndarray:
        networks = shared_networks(VECTOR, BOX, seed=seed)
        for network in networks:
            network.create_variables()
        return np.concatenate([v.numpy().ravel() for network in networks for v in network.variables])

    np.testing.assert_array_equal(draw(1), draw(1))
    assert not np.array_equal(draw(1), draw(2))


def test_gradient_of_both_losses_reaches_the_shared_torso(rng: np.random.Generator) -> None:
    actor, value = shared_networks(VECTOR, BOX, memory=GRUMemory(3))
    for network in (actor, value):
        network.create_variables()
    observation, torso = _observe(VECTOR, rng, 4, 2), actor.encoder.variables[0]
    with tf.GradientTape(persistent=True) as tape:
        losses = [tf.reduce_sum(actor(observation)[0].mode() ** 2), tf.reduce_sum(value(observation)[0])]
    for loss in losses:
        assert np.any(tape.gradient(loss, torso))


NETWORKS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "separate": lambda: (ActorNetwork(MASKED, HYBRID, squash=True), ValueNetwork(MASKED)),
    "shared": lambda: shared_networks(MASKED, HYBRID, (6,), embedding_size=3, state_dependent_std=True),
    "shared memory": lambda: shared_networks(MASKED, HYBRID, (6,), memory=LSTMMemory(4), squash=True),
    "own model": lambda: shared_networks(MASKED, HYBRID, encoder=_functional(), memory=GRUMemory(4)),
}


def _policy(networks: tuple[Any, Any], collect: bool = False) -> PPOPolicy:
    return PPOPolicy(
        ts.time_step_spec(MASKED),
        HYBRID,
        *networks,
        clip=not collect,
        collect=collect,
        compute_value_and_advantage_in_train=True,
    )


@pytest.mark.filterwarnings("ignore:Encoding a StructuredValue")
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_checkpoint_and_exports_act_equally(make: Any, rng: np.random.Generator, tmp_path: Path) -> None:
    networks = make()
    policy = greedy_policy.GreedyPolicy(_policy(networks))
    for network in networks:
        assert len({v.name for v in network.variables}) == len(network.variables)
        for variable in network.variables:
            variable.assign(rng.normal(size=variable.shape) * 0.5)
    observation = _observe(MASKED, rng, 3)
    time_step = ts.restart(observation, 3)
    expected = policy.action(time_step, policy.get_initial_state(3)).action

    def check(action: Any) -> None:
        for found, leaf in zip(tf.nest.flatten(action), tf.nest.flatten(expected), strict=True):
            np.testing.assert_allclose(found, leaf, rtol=1e-5, atol=1e-6)

    checkpoint = tf.train.Checkpoint(actor=networks[0], value=networks[1]).write(str(tmp_path / "checkpoint"))
    restored = make()
    other = greedy_policy.GreedyPolicy(_policy(restored))
    tf.train.Checkpoint(actor=restored[0], value=restored[1]).read(checkpoint).assert_consumed()
    check(other.action(time_step, other.get_initial_state(3)).action)

    export_policy(policy, tmp_path / "export")
    loaded = tf.saved_model.load(str(tmp_path / "export"))
    if policy.policy_state_spec:
        check(loaded.action(observation, loaded.initial_state(3))[0])
    else:
        check(loaded.action(observation))

    policy_saver.PolicySaver(policy).save(str(tmp_path / "saver"))
    saved = tf.saved_model.load(str(tmp_path / "saver"))
    check(saved.action(time_step, saved.get_initial_state(3)).action)


@pytest.mark.filterwarnings("ignore:Encoding a StructuredValue")
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_collecting_policy_gives_its_distributions_back(make: Any, rng: np.random.Generator, tmp_path: Path) -> None:
    policy = _policy(make(), collect=True)
    time_step = ts.restart(_observe(MASKED, rng, 3), 3)
    step = tf.function(policy.action)(time_step, policy.get_initial_state(3))
    rebuilt = policy._codec.to_distributions(step.info["dist_params"])
    for distribution, action in zip(tf.nest.flatten(rebuilt), tf.nest.flatten(step.action), strict=True):
        assert np.all(np.isfinite(distribution.log_prob(action)))
    policy_saver.PolicySaver(policy).save(str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    saved = loaded.action(time_step, policy.get_initial_state(3))
    for found, expected in zip(*map(tf.nest.flatten, (saved.info, step.info)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_everything_together_works_in_a_graph_of_unknown_sizes(jit_compile: bool, rng: np.random.Generator) -> None:
    networks = shared_networks(MASKED, HYBRID, (6,), memory=LSTMMemory(4), squash=True)
    for network in networks:
        network.create_variables(MASKED)

    def call(observation: Any, step_type: Any) -> Any:
        distributions = networks[0](observation, step_type)[0]
        modes = tf.nest.map_structure(lambda d: d.mode(), distributions)
        return modes, networks[1](observation, step_type)[0]

    signature = tf.nest.map_structure(lambda s: tf.TensorSpec([None, None, *s.shape], s.dtype), MASKED)
    compiled = tf.function(
        call, input_signature=[signature, tf.TensorSpec([None, None], tf.int32)], jit_compile=jit_compile
    )
    observation, step_type = _observe(MASKED, rng, 2, 5), tf.constant(rng.integers(0, 3, (2, 5)), tf.int32)
    pairs = zip(*(tf.nest.flatten(f(observation, step_type)) for f in (compiled, call)), strict=True)
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (tensor_spec.TensorSpec([2], tf.float32, "wheel"), "squash: action wheel has no bounds"),
        (
            tensor_spec.BoundedTensorSpec([2], tf.float32, [-1, np.finfo(np.float32).min], 1, "wheel"),
            "squash: action wheel has bounds .*, expected finite ones",
        ),
        (tensor_spec.BoundedTensorSpec([], tf.float32, -np.inf, np.inf, "wheel"), "expected finite ones"),
        (tensor_spec.BoundedTensorSpec([2], tf.float32, 1, [2, 1], "wheel"), "not above minimum"),
    ],
)
def test_squash_wants_finite_bounds(spec: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ActorNetwork(VECTOR, {"other": HYBRID, "this": spec}, squash=True)


@pytest.mark.parametrize("log_std", [-2.0, 0.0, 1.0])
def test_first_state_dependent_standard_deviation_is_the_keyword(log_std: float) -> None:
    actor = ActorNetwork(VECTOR, BOX, state_dependent_std=True, initial_log_std=log_std)
    actor.create_variables()
    scale = actor(tf.zeros([1, 5]))[0].distribution.scale
    np.testing.assert_allclose(scale, np.full((1, 2), np.exp(log_std)), rtol=1e-4)
    assert not np.allclose(actor(tf.ones([1, 5]))[0].distribution.scale, scale, rtol=1e-5)


@pytest.mark.skipif(tf.keras.__name__.startswith("keras."), reason="Keras 2 is the only one here.")
def test_an_encoder_of_keras_3_is_refused_as_such():
    keras = pytest.importorskip("keras", minversion="3")
    encoder = keras.Sequential([keras.layers.Dense(4)])
    with pytest.raises(TypeError, match=r"^encoder is Sequential of Keras 3, expected a layer or model of Keras 2"):
        ActorNetwork(tf.TensorSpec([3], tf.float32), tf.TensorSpec([1], tf.float32), encoder=encoder)
