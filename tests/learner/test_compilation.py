"""However `train` runs - eagerly, as a graph, by XLA, in the caller's function - it computes the same, traced once."""

from unittest import mock

import helpers
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.agents.tf_agent import LossInfo
from tf_agents.utils import common

from ppo_agent.config import PPOConfig
from ppo_agent.learner import compilation, report
from ppo_agent.learner.compilation import CompiledUpdate
from ppo_agent.learner.schedule_feed import ScheduleFeed
from ppo_agent.learner.update import Update, UpdateOutcome

CLIP = {"importance_ratio_clipping": 0.2, "use_gae": True, "gradient_clipping": 0.5, "entropy_regularization": 0.01}


def train_all(make, experiences):
    """Trains agents of equal weights and seeds; returns their states, losses and metrics."""
    agents = []
    for keywords in make:
        tf.random.set_seed(5)
        agents.append(helpers.make_agent(**keywords))
        helpers.copy_weights(agents[0], agents[-1])
    results = []
    for agent in agents:
        losses = [tf.nest.flatten(agent.train(e)) for e in experiences(agent)]
        results.append((helpers.state_of(agent), losses, agent.train_metrics()))
    return results


def assert_same_results(results, tolerance=1e-5):
    expected_state, expected_losses, expected_metrics = results[0]
    for state, losses, metrics in results[1:]:
        np.testing.assert_allclose(losses, expected_losses, rtol=tolerance, atol=tolerance)
        helpers.assert_same_state(state, expected_state, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(list(metrics.values()), list(expected_metrics.values()), rtol=1e-4, atol=tolerance)


@pytest.fixture
def same_experiences(rng):
    cache = []

    def experiences(agent):
        if not cache:
            cache.extend(helpers.make_experience(agent, rng, length=n, padding=1) for n in (12, 9))
        return cache

    return experiences


@pytest.mark.parametrize(("minibatch_size", "jit_compile"), [(None, False), (8, True)])
def test_eager_graph_and_xla_agree(same_experiences, minibatch_size, jit_compile):
    keywords = {**CLIP, "action_spec": helpers.NESTED, "minibatch_size": minibatch_size, "num_epochs": 2}
    ways = [{"eager": True}, {"eager": False, "jit_compile": jit_compile}]
    assert_same_results(train_all([keywords | way for way in ways], same_experiences))


def test_recurrent_eager_and_xla_agree(same_experiences):
    keywords = {**CLIP, "kind": "rnn", "minibatch_size": 3, "num_epochs": 2}
    ways = [{"eager": True}, {"eager": False, "jit_compile": True}]
    with mock.patch.object(Update, "make_batch", autospec=True, side_effect=Update.make_batch) as make_batch:
        assert_same_results(train_all([keywords | way for way in ways], same_experiences))
    assert make_batch.call_count == 2 + 1  # Two lengths run eagerly, and one trace for both.


def test_train_within_the_callers_function(same_experiences):
    keywords = {**CLIP, "minibatch_size": 8, "num_epochs": 2}

    def experiences(agent):
        if agent._config.jit_compile is not None:
            agent.train = common.function(agent.train)
        return same_experiences(agent)[:1] * 2

    ways = [{"eager": True}, {"eager": False, "jit_compile": False}]
    assert_same_results(train_all([keywords | way for way in ways], experiences))


def test_train_within_a_function_of_unknown_shapes(rng):
    agent = helpers.make_agent(**CLIP, minibatch_size=4, eager=False, jit_compile=True)
    experience = helpers.make_experience(agent, rng)
    for batch, length in ((None, 12), (None, None)):
        spec = tf.nest.map_structure(
            lambda x, b=batch, t=length: tf.TensorSpec([b, t, *x.shape[2:]], x.dtype), experience
        )
        function = tf.function(agent.train, autograph=False, input_signature=[spec]).get_concrete_function()
        assert function.structured_outputs.loss.shape == []


class CountingUpdate:
    """Stands in for an agent's update and counts how often it is traced."""

    def __init__(self, agent):
        self.count, self._update = 0, agent._update
        agent._run_update.update = self

    def __getattr__(self, name):
        return getattr(self._update, name)

    def __call__(self, *arguments):
        self.count += 1
        return self._update(*arguments)


@pytest.mark.parametrize(
    "keywords",
    [
        {"minibatch_size": 8, "jit_compile": True},
        {},
    ],
)
def test_one_trace_for_all_lengths(rng, keywords):
    agent = helpers.make_agent(**CLIP, **{"num_epochs": 2, **keywords}, eager=False)
    traces = CountingUpdate(agent)
    for length in (12, 9, 31, 12, 4, 9):
        experience = helpers.make_experience(agent, rng, length=length, end=0.1)
        agent.train(experience)
        assert traces.count == 1


def test_a_trace_for_each_kind_of_weights_and_no_more(rng):
    agent = helpers.make_agent(**CLIP, num_epochs=1, eager=False)
    traces = CountingUpdate(agent)
    experience = helpers.make_experience(agent, rng)
    for _ in range(2):
        for weights in (None, np.ones(4, np.float32)):
            agent.train(experience, weights=weights)
    assert traces.count == 2


UNUSED = UpdateOutcome(LossInfo(0.0, ()), tf.zeros([len(report.ENTRIES)]), tf.constant(0, tf.int64), tf.constant(False))


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({}, False),
        ({"minibatch_size": 8}, True),
        ({"minibatch_size": 8, "jit_compile": False}, False),
        ({"jit_compile": True}, True),
        # Summaries that are not recorded keep nothing in the graph.
        ({"minibatch_size": 8, "debug_summaries": True}, True),
        ({"minibatch_size": 8, "check_numerics": True}, False),
        ({"minibatch_size": 8, "summarize_grads_and_vars": True}, True),
    ],
)
def test_who_chooses_xla(rng, keywords, expected):
    agent = helpers.make_agent(**CLIP, **keywords, eager=False)
    seen = []
    agent._run_update._call = lambda *_, jit: seen.append(jit) or UNUSED
    agent.train(helpers.make_experience(agent, rng))
    assert seen == [expected]


@pytest.mark.parametrize("name", ["check_numerics", "debug_summaries", "summarize_grads_and_vars"])
def test_xla_cannot_be_asked_for_with_what_it_lacks(name):
    with pytest.raises(ValueError, match="jit_compile is True, expected None or False with check_numerics"):
        helpers.make_agent(jit_compile=True, **{name: True})


def test_xla_is_for_small_minibatches():
    assert compilation.xla_is_faster(64, 10_000)
    assert not compilation.xla_is_faster(16_384, 10_000)
    assert not compilation.xla_is_faster(256, 80_000)
    assert compilation.xla_is_faster(256, 80_000, is_recurrent=True)


def test_a_convolution_is_work_at_every_position():
    kernels = [tf.Variable(tf.zeros(shape)) for shape in ([8, 8, 4, 32], [32], [512, 10])]
    flat = 8 * 8 * 4 * 32 + 32 + 5120
    assert compilation.work_per_row(kernels, tf.TensorSpec([17], tf.float32)) == flat
    atari = {"pixels": tf.TensorSpec([4, 84, 84], tf.uint8), "lives": tf.TensorSpec([], tf.int32)}
    assert compilation.work_per_row(kernels, atari) == 8 * 8 * 4 * 32 * (84 * 84 // 16) + 32 + 5120
    assert not compilation.xla_is_faster(64, compilation.work_per_row(kernels, atari))


@pytest.mark.parametrize("size", [1, 4096, 4097, 100_000])
def test_padded_capacity_holds_the_rows_and_takes_few_values(size):
    capacity = compilation.padded_capacity(size)
    assert size <= capacity <= max(4 * size, 4096)
    assert capacity in {4096 * 4**i for i in range(8)}


@pytest.mark.parametrize(
    ("length", "expected"), [(1, 32), (32, 32), (33, 48), (48, 48), (49, 64), (129, 192), (193, 256)]
)
def test_sequences_are_padded_by_less_than_half(length, expected):
    assert compilation.padded_length(length) == expected


# What the compiler itself does, with a stand-in for the update.


class Stub:
    """An update of which XLA, or XLA and the graph, fail in the operation that `message` describes."""

    is_mirrored = False

    def __init__(self, message, fails_in_graph=False):
        self.config, self.is_recurrent = PPOConfig(jit_compile=True), False
        self.feed = ScheduleFeed(self.config, tf.keras.optimizers.Adam(), list)
        self._message, self._fails_in_graph = message, fails_in_graph

    def is_distributed(self):
        return False

    def __call__(self, trajectory, weights, capacity=None, jit=False):
        is_good = not (jit or self._fails_in_graph)
        with tf.control_dependencies([tf.debugging.Assert(is_good, [self._message])]):
            loss = tf.identity(tf.reduce_sum(trajectory.reward))
        return UNUSED._replace(loss_info=LossInfo(loss, ()))


def test_an_update_that_xla_refuses_runs_without_it(rng, caplog):
    compiled, trajectory = CompiledUpdate(Stub("no such kernel"), lambda: 1), small_trajectory(rng)
    for _ in range(2):
        loss_info = compiled(trajectory, None).loss_info
        np.testing.assert_allclose(loss_info.loss, tf.reduce_sum(trajectory.reward), rtol=1e-6)
    warnings = [record for record in caplog.records if "runs without XLA" in record.getMessage()]
    assert len(warnings) == 1


def test_errors_of_the_update_itself_are_passed_on(rng, caplog):
    compiled = CompiledUpdate(Stub("the user's XLA network does not compile this", fails_in_graph=True), lambda: 1)
    for _ in range(2):
        with pytest.raises(tf.errors.InvalidArgumentError, match="does not compile this"):
            compiled(small_trajectory(rng), None)
    assert not caplog.records


def small_trajectory(rng):
    return helpers.make_experience(helpers.make_agent(), rng)
