"""One trainer after the other in one process, as a search makes them: what is compiled is used again."""

import gc
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from ppo_agent import Trainer
from ppo_agent.learner import legacies
from ppo_agent.learner.nonfinite import NonFiniteUpdateError

TINY = {
    "num_environments": 2, "collect_steps_per_iteration": 10, "minibatch_size": 10, "num_epochs": 2,
    "actor_fc_layers": (4,), "value_fc_layers": (4,), "preset": "none", "jit_compile": False,
    "entropy_regularization": 0.01, "entropy_regularization_schedule": "linear",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_was_left():
    legacies._legacies.clear()
    yield
    legacies._legacies.clear()


def make(seed=0, **settings) -> Trainer:
    return Trainer("CartPole-v1", seed=seed, **{**TINY, **settings})


def functions(trainer):
    return list(trainer.agent._run_update._functions.values())


def trained(steps=60, **settings):
    """Parameters after training, and what was compiled."""
    with make(**settings) as trainer:
        trainer.train(steps)
        return trainer.get_parameters(), functions(trainer), trainer.metrics["loss"]


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_an_equal_trainer_trains_as_if_it_were_the_first(jit_compile):
    settings = {"jit_compile": jit_compile}
    alone = [trained(seed=seed, learning_rate=rate, **settings) for seed, rate in ((1, 1e-3), (2, 1e-2))]
    # The second was already the heir of the first: compare it with one that inherits nothing.
    assert alone[0][1] == alone[1][1] != []
    legacies._legacies.clear()
    again = [trained(seed=seed, learning_rate=rate, **settings) for seed, rate in ((2, 1e-2), (1, 1e-3))]
    assert again[0][1] != alone[0][1]
    for (one, _, loss), (other, _, other_loss) in zip(alone, again[::-1], strict=True):
        assert_same(one, other)
        assert loss == other_loss
    assert not np.array_equal(*(next(iter(found[0].values())) for found in alone))


def test_trainers_that_are_in_use_share_nothing():
    with make(1) as one, make(2) as other:
        one.train(30)
        values = one.get_parameters()
        other.train(30)
        assert_same(one.get_parameters(), values)
        assert not set(map(id, functions(one))) & set(map(id, functions(other)))
        values = other.get_parameters()
        one.train(30)
        assert_same(other.get_parameters(), values)


def test_a_closed_one_can_still_be_used():
    first = make(1)
    first.train(20)
    first.close()
    experience = first.experience
    with make(2) as second:
        second.train(20)
        values = second.get_parameters()
        assert not functions(first)
        before = first.get_parameters()
        first.agent.train(experience)
        assert_same(second.get_parameters(), values)
        assert any(not np.array_equal(before[name], value) for name, value in first.get_parameters().items())
        second.train(20)
        assert any(not np.array_equal(values[name], value) for name, value in second.get_parameters().items())


def test_one_that_nobody_closed_leaves_it_too():
    first = make(1)
    first.train(20)
    (function,) = functions(first)
    del first
    gc.collect()
    with make(2) as second:
        second.train(20)
        assert functions(second) == [function]
        # Variables that are gone would be missed here.
        with tf.GradientTape():
            second.agent.train(second.experience)


@pytest.mark.parametrize(
    "settings", [{"discount_factor": 0.9}, {"num_epochs": 1}, {"agent": "kl_penalty"}, {"normalize_rewards": False}]
)
def test_another_update_is_compiled_for_itself(settings):
    _, first, _ = trained()
    _, second, _ = trained(**settings)
    assert not set(map(id, first)) & set(map(id, second))


def test_the_minibatch_that_ended_it_is_found_by_the_heir():
    trained(max_skipped_steps=1)
    with make(max_skipped_steps=1) as trainer:
        trainer.train(20)
        kernel = trainer.agent.value_net.trainable_variables[0]
        kernel.assign(tf.fill(kernel.shape, np.nan))
        with pytest.raises(NonFiniteUpdateError) as caught:
            trainer.train(40)
        assert caught.value.minibatch


def test_graphs_that_draw_random_numbers_are_left_to_nobody():
    variable = tf.Variable(1.0)
    heir = legacies.Heir("key", lambda: {"v": variable})
    for function, roles in ((lambda: variable + 1.0, ["v"]), (lambda: variable * tf.random.uniform([]), None)):
        inner = tf.function(function)
        outer = tf.function(lambda inner=inner: inner()).get_concrete_function()
        assert heir._roles(outer) == roles
    other = tf.Variable(2.0)
    assert heir._roles(tf.function(lambda: variable + other).get_concrete_function()) is None


def test_few_are_kept():
    kept = []
    for index in range(legacies.MOST_LEGACIES + 3):
        trainer = make()
        kept.append(trainer)
        update = trainer.agent._run_update
        update.heir = legacies.Heir(index, update.heir._variables)
        update._functions["key"] = tf.function(lambda: tf.constant(1)).get_concrete_function()
        update.heir.note(update, "key")
    assert list(legacies._legacies) == list(range(3, legacies.MOST_LEGACIES + 3))


SCRIPT = """
import gc, json, time
import ppo_agent

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

rows = []
for seed in range({count}):
    start = time.process_time()
    trainer = ppo_agent.Trainer("CartPole-v1", seed=seed, learning_rate=1e-3 * (1 + seed), preset="none",
        num_environments=4, collect_steps_per_iteration=64, num_epochs=2, jit_compile={jit})
    trainer.train(256)
    seconds = time.process_time() - start
    trainer.train(256)
    trainer.evaluate(4)
    trainer.close()
    del trainer
    gc.collect()
    rows.append([seconds, resident()])
print(json.dumps(rows))
"""


@pytest.mark.slow
@pytest.mark.parametrize("jit", ["False", "None"])
def test_a_search_neither_grows_nor_compiles_again(jit):
    script = SCRIPT.format(count=20, jit=jit)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    rows = np.array(json.loads(done.stdout.splitlines()[-1]))
    assert rows[1, 0] <= rows[0, 0] / 2
    # Pages come and go in larger pieces: a line through all but the first three.
    growth = np.polyfit(np.arange(17), rows[3:, 1], 1)[0]
    assert growth < 5, rows[:, 1].tolist()
