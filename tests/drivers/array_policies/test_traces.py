"""What is made of a policy's trace: once for equal traces, anew for others, and no longer than the policy lives."""

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.policies import tf_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import policy_step
from tf_agents.trajectories import time_step as ts

from ppo_agent.drivers.array_policies import array_policy, traces
from ppo_agent.drivers.array_policies.array_policy import ArrayPolicy

OBSERVATION = tensor_spec.TensorSpec([2], tf.float32)
ACTION = tensor_spec.BoundedTensorSpec([2], tf.float32, -100, 100)
INFO = {"a": OBSERVATION, "b": OBSERVATION}
OPERATIONS = {
    "in NumPy": tf.identity,
    "a graph": lambda x: x + 0.0 * tf.math.lgamma(x),
    "Python": lambda x: tf.ensure_shape(tf.py_function(lambda y: y, [x], tf.float32), x.shape),
    "a conditional": lambda x: tf.cond(tf.reduce_all(x < 1e3), lambda: x, lambda: tf.math.lgamma(x)),
}


class Shifting(tf_policy.TFPolicy):
    """Adds a number of Python and a variable to the observation."""

    def __init__(self, operation: str, factor: float = 1.0) -> None:
        super().__init__(ts.time_step_spec(OBSERVATION), ACTION, info_spec=INFO, emit_log_probability=False)
        self.shift, self.names, self._operation = 0.0, "ab", OPERATIONS[operation]
        self.variable = tf.Variable(factor)

    def _action(self, time_step: ts.TimeStep, policy_state: Any, seed: Any) -> policy_step.PolicyStep:
        double, triple = 2.0 * time_step.observation, 3.0 * time_step.observation
        info = dict(zip(self.names, (double, triple), strict=True))
        action = self._operation(time_step.observation) + self.shift + self.variable
        return policy_step.PolicyStep(action, policy_state, info)

    def _variables(self) -> list[tf.Variable]:
        return [self.variable]


def step(size: int = 3) -> ts.TimeStep:
    ones = np.ones(size, np.float32)
    return ts.TimeStep(np.ones(size, np.int32), ones, ones, np.full((size, 2), 5.0, np.float32))


def acted(policy: Shifting, size: int = 3) -> float:
    """The action of drivers' objects made now."""
    action, _, _ = ArrayPolicy(policy).act(step(size))
    assert np.ptp(action) == 0
    return float(action[0, 0])


def count_made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns a list that grows by what is made of traces."""
    made = []

    def counted(policy: Any, traced: Any, purpose: str, make: Any) -> Any:
        return traces.made_once(policy, traced, purpose, lambda: (made.append(purpose), make())[1])

    monkeypatch.setattr(array_policy, "made_once", counted)
    return made


@pytest.mark.parametrize("operation", OPERATIONS)
def test_equal_traces_share_what_is_made_of_them(monkeypatch: pytest.MonkeyPatch, operation: str) -> None:
    made = count_made(monkeypatch)
    policy = Shifting(operation)
    assert [acted(policy) for _ in range(12)] == [6.0] * 12
    expected = ["NumPy"] if operation == "in NumPy" else ["NumPy", "call"]
    if operation != "Python":  # Each trace registers its own Python function with TensorFlow.
        assert made == expected
        assert acted(policy, size=4) == acted(policy, size=3) == acted(policy, size=4) == 6.0
        assert made == expected * 2


@pytest.mark.parametrize("operation", OPERATIONS)
def test_changes_of_a_policy_are_seen(operation: str) -> None:
    policy, other = Shifting(operation), Shifting(operation, factor=7.0)
    assert (acted(policy), acted(other)) == (6.0, 12.0)
    policy.shift = 20.0
    assert (acted(policy), acted(other)) == (26.0, 12.0)
    policy.variable.assign(3.0)
    assert acted(policy) == 28.0
    policy.variable = tf.Variable(4.0)
    assert acted(policy) == 29.0


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_same_operations_with_other_results_are_another_trace(operation: str) -> None:
    policy = Shifting(operation)
    for names in ("ab", "ba", "ab"):
        policy.names = names
        info = ArrayPolicy(policy).act(step())[1]
        assert [info[name][0, 0] for name in names] == [10.0, 15.0]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_nothing_outlives_the_policy(operation: str) -> None:
    policy = Shifting(operation)
    acted(policy)
    dead = weakref.ref(policy), weakref.ref(policy.variable)
    del policy
    gc.collect()
    assert [reference() for reference in dead] == [None, None]


def test_objects_of_one_trace_draw_for_themselves() -> None:
    class Drawing(Shifting):
        _action = tf_policy.TFPolicy._action

        def _distribution(self, time_step: ts.TimeStep, policy_state: Any) -> policy_step.PolicyStep:
            normal = tfp.distributions.Independent(tfp.distributions.Normal(time_step.observation, 1.0), 1)
            return policy_step.PolicyStep(
                normal, policy_state, {"a": time_step.observation, "b": time_step.observation}
            )

    policy = Drawing("in NumPy")
    first, second, again = (ArrayPolicy(policy, seed=seed) for seed in (1, 2, 1))
    drawn = [[p.act(step())[0] for _ in range(3)] for p in (first, second)]
    assert not np.isclose(drawn[0], drawn[1]).any()
    np.testing.assert_array_equal(drawn[0], [again.act(step())[0] for _ in range(3)])
