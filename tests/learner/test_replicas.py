"""Replicas of tf.distribute strategies equal one agent with all data; replicas.py and replica_workers.py train."""

import functools
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import helpers
import numpy as np
import pytest
import replicas
import tensorflow as tf

FAST = ("minibatches",)
SLOW = (*(name for name in replicas.CASES if name not in FAST), "graph_size")


def start(program, *arguments):
    path = Path(__file__).parents[1] / program
    environment = os.environ | {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "PYTHONPATH": os.pathsep.join([str(path.parent), *sys.path]),
    }
    return subprocess.Popen(
        [sys.executable, str(path), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def lines_of(process, timeout=1800):
    out, err = process.communicate(timeout=timeout)
    found = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return found, err


@functools.cache
def comparisons(names):
    process = start("replicas.py", *names)
    found, err = lines_of(process)
    assert process.returncode == 0, err[-5000:]
    return {line["name"]: line for line in found}


def assert_equal(errors):
    # The copies of a variable are not just nearly equal.
    assert errors.pop("replicas apart") == 0.0
    assert max(errors.values()) < 1e-5, errors


@pytest.mark.parametrize("name", FAST)
def test_replicas_equal_one_agent_with_all_data(name):
    assert_equal(dict(comparisons(FAST)[name]["errors"]))


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW[:-1])
def test_replicas_equal_one_agent_in_other_settings(name):
    assert_equal(dict(comparisons(SLOW)[name]["errors"]))


@pytest.mark.slow
def test_the_graph_of_replicas_does_not_grow_with_their_steps():
    small, large = comparisons(SLOW)["graph_size"]["sizes"]
    assert small == large


def test_train_in_the_scope_of_the_strategy_is_refused(rng):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        agent = helpers.make_agent(eager=False)
    experience = helpers.make_experience(agent, rng)
    text = "train is called outside of strategy.run, expected inside that of the MirroredStrategy that the agent was"
    with strategy.scope(), pytest.raises(ValueError, match=text):
        agent.train(experience)
    with pytest.raises(ValueError, match=text):
        tf.function(agent.train)(experience)
    assert agent.train_step_counter.numpy() == 0
    strategy.run(agent.train, args=(experience,))
    assert agent.train_step_counter.numpy() == 3


def test_train_outside_of_all_strategies_trains_as_one_agent(rng):
    """As in TF-Agents' own tests."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        agent = helpers.make_agent(eager=False)
    single = helpers.make_agent(eager=False)
    helpers.copy_weights(agent, single)
    experience = helpers.make_experience(agent, rng)
    losses = [each.train(experience).loss for each in (agent, single)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for found, expected in zip(agent._trained_variables(), single._trained_variables(), strict=True):
        for copy in found.values:
            np.testing.assert_allclose(copy, expected, rtol=1e-4, atol=1e-6)


def ports():
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return f"{one.getsockname()[1]},{other.getsockname()[1]}"


def workers(folder, fatal):
    where = ports()
    pair = [start("replica_workers.py", index, where, folder, fatal) for index in (0, 1)]
    return [(*lines_of(process), process.returncode) for process in pair]


@pytest.mark.slow
def test_processes_that_train_together_end_with_an_error_when_one_is_killed_and_resume(tmp_path):
    (found, err, code), (_, _, killed) = workers(tmp_path, fatal=8)
    assert (code, killed) == (1, -9), err[-3000:]
    assert found[0]["after_s"] < 30
    assert re.search(r"/job:worker/replica:0/task:1|Connection|timeout", " ".join(found[0]["error"])), found
    results = workers(tmp_path, fatal=0)
    assert [code for *_, code in results] == [0, 0], results[0][1][-3000:]
    one, other = (found[-1] for found, *_ in results)
    assert one["first"] == other["first"] == 8
    assert one["steps"] == other["steps"] == 100
    np.testing.assert_array_equal(one["parameters"], other["parameters"])
    assert max(one["error"], one["loss"]) < 1e-5
