"""Evaluation of policies."""

import numpy as np
import pytest
import tensorflow as tf
from toy_environments import Counter

from ppo_agent.drivers import GymnasiumEnvironment
from ppo_agent.drivers.array_policies.array_policy import ArrayPolicy
from ppo_agent.training import evaluation


def lengths(*values: int):
    """Makes Counters of these lengths, one after the other."""
    remaining = list(values)
    return lambda: Counter(length=remaining.pop(0))


def take(action: int):
    return lambda time_step: np.full(len(time_step.step_type), action)


def counter_return(length: int, action: int) -> float:
    return length * (length + 1) / 2 + 0.01 * action * length


def test_every_environment_counts_with_one_episode() -> None:
    with GymnasiumEnvironment(lengths(2, 7, 4), num_environments=3) as env:
        result = evaluation.evaluate(env, take(3), 3)
    expected = [counter_return(length, 3) for length in (2, 7, 4)]
    np.testing.assert_allclose(result.returns, expected, rtol=1e-6)
    assert result.mean == pytest.approx(np.mean(expected))
    assert result.std == pytest.approx(np.std(expected))


def test_more_episodes_than_environments() -> None:
    with GymnasiumEnvironment(lengths(2, 5), num_environments=2) as env:
        result = evaluation.evaluate(env, take(0), 3)
    np.testing.assert_allclose(result.returns, [3, 15, 3])


def test_endless_episodes_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "LONGEST_EPISODE", 10)
    with GymnasiumEnvironment(lengths(1000)) as env, pytest.warns(UserWarning, match="cut short after 10 steps"):
        assert evaluation.evaluate(env, take(0), 1).returns == [55.0]


@pytest.mark.parametrize(("episodes", "environments"), [(1, 1), (20, 20), (21, 11), (100, 20), (50, 17)])
def test_environments_are_used_evenly(episodes: int, environments: int) -> None:
    assert evaluation.num_environments(episodes) == environments


def test_policies_act_in_numpy_or_tensorflow_alike(rng: np.random.Generator) -> None:
    from helpers import make_agent

    agent = make_agent("ours")
    with_state = make_agent("rnn")
    step = agent.time_step_spec
    time_step = tf.nest.map_structure(
        lambda spec: rng.normal(size=[2, *spec.shape]).astype(spec.dtype.as_numpy_dtype), step
    )
    expected = agent.policy.action(tf.nest.map_structure(tf.constant, time_step)).action.numpy()
    np.testing.assert_allclose(evaluation.act_with(agent.policy, 2)(time_step), expected, rtol=1e-5)
    general, _, _ = ArrayPolicy(agent.policy, in_numpy=False).act(time_step, ())
    np.testing.assert_allclose(general, expected, rtol=1e-5)

    act = evaluation.act_with(with_state.policy, 2)
    first = time_step._replace(step_type=np.zeros(2, np.int32))
    later = time_step._replace(step_type=np.ones(2, np.int32))
    begins, goes_on, begins_again = act(first), act(later), act(first)
    assert not np.allclose(begins, goes_on)
    np.testing.assert_allclose(begins, begins_again)
