"""Action masks: probability zero in sampling, mode and training, in our networks and around TF-Agents' own."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.networks import actor_distribution_network, actor_distribution_rnn_network, sequential
from tf_agents.networks import value_network as tf_agents_value_network
from tf_agents.specs import tensor_spec

from ppo_agent.common import action_masks
from ppo_agent.maths.distributions import ParameterCodec
from ppo_agent.networks import ActorNetwork, LSTMMemory, MaskedNetwork, ValueNetwork, masked_network

VECTOR = tensor_spec.BoundedTensorSpec([5], tf.float32, -2, 2)
DISCRETE = tensor_spec.BoundedTensorSpec([], tf.int64, 0, 3)
EQUAL = tensor_spec.BoundedTensorSpec([3], tf.int32, 0, 1)
UNEQUAL = tensor_spec.BoundedTensorSpec([2], tf.int32, [3, 0], [4, 3])
BOX = tensor_spec.BoundedTensorSpec([2], tf.float32, -1, 1)
ACTIONS = {"gear": DISCRETE, "levers": (UNEQUAL, EQUAL), "wheel": BOX}


def _spec(action: Any, dtype: Any = tf.int8) -> Any:
    size = action_masks.MaskLayout(action).size
    return {"observation": VECTOR, "action_mask": tensor_spec.BoundedTensorSpec([size], dtype, 0, 1, "allowed")}


def _observe(action: Any, rng: np.random.Generator, *outer: int, dtype: Any = np.int8) -> Any:
    """Observations whose masks allow at least one category of each component."""
    layout = action_masks.MaskLayout(action)
    allowed = rng.random((*outer, layout.size)) < 0.4
    ends = [*layout.offsets[1:], layout.size]
    for start, end in zip(layout.offsets, ends, strict=True):
        chosen = rng.integers(start, end, outer)
        np.put_along_axis(allowed, chosen[..., np.newaxis], True, axis=-1)
    vector = rng.normal(size=(*outer, 5)).astype(np.float32)
    return {"observation": tf.constant(vector), "action_mask": tf.constant(allowed.astype(dtype))}


def _randomise(network: Any, rng: np.random.Generator) -> None:
    for variable in network.variables:
        variable.assign(rng.normal(size=variable.shape))


def _is_allowed(action_spec: Any, action: Any, mask: np.ndarray) -> np.ndarray:
    """Whether every component of actions [*outer, ...] is allowed by masks [*outer, size]; a loop."""
    position, result = 0, np.ones(mask.shape[:-1], bool)
    for spec, value in zip(tf.nest.flatten(action_spec), tf.nest.flatten(action), strict=True):
        if not spec.dtype.is_integer:
            continue
        low, high = np.broadcast_to(spec.minimum, spec.shape).ravel(), np.broadcast_to(spec.maximum, spec.shape).ravel()
        index = np.reshape(value, (*result.shape, -1)) - low
        for component, count in enumerate(high - low + 1):
            part = mask[..., position : position + count]
            result &= np.take_along_axis(part, index[..., component : component + 1], axis=-1)[..., 0].astype(bool)
            position += count
    return result


@pytest.mark.parametrize("action", [DISCRETE, EQUAL, UNEQUAL, ACTIONS], ids=["one", "equal", "unequal", "nested"])
@pytest.mark.parametrize("outer", [(40,), (8, 5)])
def test_forbidden_actions_never_occur(action: Any, outer: Any, rng: np.random.Generator) -> None:
    actor = ActorNetwork(_spec(action), action)
    actor.create_variables(_spec(action))
    _randomise(actor, rng)
    observation = _observe(action, rng, *outer)
    mask = observation["action_mask"].numpy()
    distributions, _ = actor(observation)
    for _ in range(50):
        sample = tf.nest.map_structure(lambda d: d.sample().numpy(), distributions)
        assert _is_allowed(action, sample, mask).all()
    mode = tf.nest.map_structure(lambda d: d.mode().numpy(), distributions)
    assert _is_allowed(action, mode, mask).all()


def test_the_check_of_actions_sees_forbidden_ones() -> None:
    mask = np.array([[1, 0, 0, 1, 1, 1, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1]])
    action = {"gear": np.array([0]), "levers": (np.array([[3, 1]]), np.array([[1, 1, 0]])), "wheel": np.zeros((1, 2))}
    assert _is_allowed(ACTIONS, action, mask).tolist() == [True]
    for wrong in ({"gear": np.array([1])}, {"levers": (np.array([[3, 0]]), np.array([[1, 1, 0]]))}):
        assert _is_allowed(ACTIONS, {**action, **wrong}, mask).tolist() == [False]


def test_probabilities_are_exactly_zero_and_those_left_are_renormalised(rng: np.random.Generator) -> None:
    actor = ActorNetwork(_spec(UNEQUAL), UNEQUAL)
    actor.create_variables()
    _randomise(actor, rng)
    observation = _observe(UNEQUAL, rng, 30)
    masked = tf.nn.softmax(actor(observation)[0].distribution.logits).numpy()
    free = {**observation, "action_mask": tf.ones_like(observation["action_mask"])}
    unmasked = tf.nn.softmax(actor(free)[0].distribution.logits).numpy()
    mask = observation["action_mask"].numpy().astype(bool)
    allowed = np.stack([np.pad(mask[:, :2], ((0, 0), (0, 2))), mask[:, 2:]], axis=1)
    assert np.all(masked[~allowed] == 0.0)
    expected = np.where(allowed, unmasked, 0.0)
    np.testing.assert_allclose(masked, expected / expected.sum(-1, keepdims=True), rtol=1e-4, atol=1e-6)


def test_everything_is_finite_and_forbidden_categories_get_no_gradient(rng: np.random.Generator) -> None:
    logits = tf.constant(rng.normal(size=(6, 4)), tf.float32)
    allowed = tf.constant(rng.random((6, 4)) < 0.5) | tf.one_hot(rng.integers(0, 4, 6), 4, True, False, dtype=tf.bool)
    old = tfp.distributions.Categorical(logits=tf.where(allowed, logits * 0.5, masked_network.IMPOSSIBLE_LOGIT))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        new = masked_network.mask_distribution(tfp.distributions.Categorical(logits=logits), allowed, "0")
        parts = [new.log_prob(old.sample()), new.entropy(), old.kl_divergence(new)]
        loss = tf.add_n([tf.reduce_sum(part) for part in parts])
    gradient = tape.gradient(loss, logits).numpy()
    assert all(np.all(np.isfinite(part)) for part in parts)
    assert np.all(np.isfinite(gradient))
    assert np.all(gradient[~allowed.numpy()] == 0.0)
    assert np.all(np.isfinite(new.log_prob(tf.argmin(allowed, axis=1))))  # also that of a forbidden action


def test_component_that_may_do_nothing_stays_in_its_range() -> None:
    actor = ActorNetwork(_spec(UNEQUAL), UNEQUAL)
    actor.create_variables()
    observation = {"observation": tf.zeros([500, 5]), "action_mask": tf.zeros([500, 6], tf.int8)}
    action = actor(observation)[0].sample().numpy()
    assert np.all(action >= UNEQUAL.minimum)
    assert np.all(action <= UNEQUAL.maximum)


@pytest.mark.parametrize("dtype", [np.bool_, np.int32, np.float32])
def test_masks_of_any_type(dtype: Any, rng: np.random.Generator) -> None:
    spec = _spec(DISCRETE, tf.as_dtype(dtype)) if dtype != np.bool_ else _spec(DISCRETE)
    spec["action_mask"] = tf.TensorSpec([4], tf.as_dtype(dtype))
    actor = ActorNetwork(spec, DISCRETE)
    actor.create_variables(spec)
    observation = _observe(DISCRETE, rng, 20, dtype=dtype)
    assert _is_allowed(DISCRETE, actor(observation)[0].sample().numpy(), observation["action_mask"].numpy()).all()


def test_mask_is_not_an_input_of_the_networks(rng: np.random.Generator) -> None:
    spec = _spec(DISCRETE)
    value = ValueNetwork(spec)
    value.create_variables(spec)
    observation = _observe(DISCRETE, rng, 6)
    free = {**observation, "action_mask": tf.ones_like(observation["action_mask"])}
    np.testing.assert_array_equal(value(observation)[0], value(free)[0])
    assert value.encoder.dense_layers[0].kernel.shape == (5, 64)


def _splitter(observation: Any) -> Any:
    return {"all": (observation[0], observation[1])}, observation[1]


def test_splitter_replaces_the_convention(rng: np.random.Generator) -> None:
    spec = (VECTOR, tensor_spec.BoundedTensorSpec([4], tf.int32, 0, 1))
    actor = ActorNetwork(spec, DISCRETE, observation_and_action_constraint_splitter=_splitter)
    value = ValueNetwork(spec, observation_and_action_constraint_splitter=_splitter)
    observation = _observe(DISCRETE, rng, 30, dtype=np.int32)
    pair = (observation["observation"], observation["action_mask"])
    for network in (actor, value, actor.copy(name="copy")):
        network.create_variables(spec)
        assert network.encoder.dense_layers[0].kernel.shape == (9, 64)
        network(pair)
    assert _is_allowed(DISCRETE, actor(pair)[0].sample().numpy(), pair[1].numpy()).all()


def _tf_agents_actor(action: Any) -> Any:
    return actor_distribution_network.ActorDistributionNetwork(VECTOR, action, fc_layer_params=(6,))


def _tf_agents_rnn(action: Any) -> Any:
    return actor_distribution_rnn_network.ActorDistributionRnnNetwork(
        VECTOR, action, input_fc_layer_params=(6,), lstm_size=(4,), output_fc_layer_params=None
    )


def _sequential(action: Any) -> Any:
    layers = [
        tf.keras.layers.Dense(int(np.max(action.maximum)) + 1),
        tf.keras.layers.Lambda(lambda x: tfp.distributions.Categorical(logits=x, dtype=action.dtype)),
    ]
    return sequential.Sequential(layers, input_spec=VECTOR)


FROM_ZERO = {"gear": DISCRETE, "levers": EQUAL, "wheel": BOX}
FOREIGN = {
    "discrete": (DISCRETE, _tf_agents_actor),
    "nested": (FROM_ZERO, _tf_agents_actor),
    "recurrent": (DISCRETE, _tf_agents_rnn),
    "recurrent nested": (FROM_ZERO, _tf_agents_rnn),
    "sequential": (DISCRETE, _sequential),
    "our own": (ACTIONS, lambda action: ActorNetwork(VECTOR, action)),
    "our own recurrent": (ACTIONS, lambda action: ActorNetwork(VECTOR, action, memory=LSTMMemory(3))),
}


@pytest.mark.parametrize(("action", "make"), FOREIGN.values(), ids=FOREIGN)
def test_masked_network_masks_any_network(action: Any, make: Any, rng: np.random.Generator) -> None:
    network = MaskedNetwork(make(action), action)
    output_spec = network.create_variables(_spec(action))
    tf.nest.assert_same_structure(output_spec, action)
    _randomise(network, rng)
    codec = ParameterCodec(network, output_spec)
    for outer in ((12,), (4, 3)):
        observation = _observe(action, rng, *outer)
        state = network.get_initial_state(outer[0]) if network.state_spec else ()
        step_type = tf.ones(outer, tf.int32)
        distributions, state = network(observation, step_type=step_type, network_state=state, training=False)
        rebuilt = codec.to_distributions(codec.to_parameters(distributions))
        for nest in (distributions, rebuilt):
            sample = tf.nest.map_structure(lambda d: d.sample().numpy(), nest)
            assert _is_allowed(action, sample, observation["action_mask"].numpy()).all()
        tf.nest.assert_same_structure(state, network.state_spec)
        for leaf, spec in zip(tf.nest.flatten(state), tf.nest.flatten(network.state_spec), strict=True):
            assert leaf.shape == (outer[0], *spec.shape)


def test_masked_network_splits_for_value_networks_and_copies(rng: np.random.Generator) -> None:
    value = MaskedNetwork(tf_agents_value_network.ValueNetwork(VECTOR), DISCRETE)
    value.create_variables(_spec(DISCRETE))
    observation = _observe(DISCRETE, rng, 6)
    np.testing.assert_array_equal(value(observation)[0], value.network(observation["observation"])[0])
    copy = value.copy(name="copy")
    copy.create_variables(_spec(DISCRETE))
    assert copy.name == "copy"
    assert not {v.ref() for v in copy.variables} & {v.ref() for v in value.variables}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ActorNetwork(_spec(DISCRETE), EQUAL), r"mask has the shape \(4,\), expected \[6\]"),
        (lambda: ActorNetwork(_spec(DISCRETE), BOX), "no discrete component"),
        (lambda: MaskedNetwork(_tf_agents_actor(BOX), BOX), "action_spec: has no discrete component"),
        (lambda: MaskedNetwork(_tf_agents_actor(DISCRETE), DISCRETE).create_variables(VECTOR), "has no action mask"),
        (
            lambda: MaskedNetwork(_tf_agents_actor(DISCRETE), DISCRETE).create_variables(_spec(EQUAL)),
            r"mask has the shape \(6,\), expected \[4\]",
        ),
    ],
)
def test_masks_that_fit_nothing_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("emit", "message"),
    [
        (lambda x: tfp.distributions.OneHotCategorical(logits=x, dtype=tf.int64), "emits OneHotCategorical"),
        (lambda x: tfp.distributions.Categorical(probs=tf.nn.softmax(x), dtype=tf.int64), "emits probabilities"),
        (lambda x: tfp.distributions.Categorical(logits=x[:, :3], dtype=tf.int64), r"emits logits \(1, 3\)"),
    ],
)
def test_distributions_that_cannot_be_masked_are_refused(emit: Any, message: str) -> None:
    layers = [tf.keras.layers.Dense(4), tf.keras.layers.Lambda(emit)]
    network = MaskedNetwork(sequential.Sequential(layers, input_spec=VECTOR), DISCRETE)
    with pytest.raises(ValueError, match=message):
        network.create_variables(_spec(DISCRETE))


def test_masked_network_wants_a_network() -> None:
    with pytest.raises(TypeError, match=r"network: found Dense, expected a tf_agents\.networks\.Network"):
        MaskedNetwork(tf.keras.layers.Dense(2), DISCRETE)
