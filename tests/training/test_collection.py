"""Collection of an iteration."""

import functools

import numpy as np
import pytest
from toy_environments import Counter

from ppo_agent.drivers import EpisodeStatistics, GymnasiumEnvironment
from ppo_agent.training.collection import Collector
from ppo_agent.training.experiment import make_agent
from ppo_agent.training.settings import combine


def make_collector(length: int, **given: object) -> tuple[Collector, EpisodeStatistics]:
    settings = combine({"num_environments": 2, "actor_fc_layers": (3,), "minibatch_size": 2}, given)
    env = GymnasiumEnvironment(functools.partial(Counter, length=length), num_environments=settings.num_environments)
    statistics = EpisodeStatistics()
    return Collector(
        env, make_agent(env.time_step_spec(), env.action_spec(), settings, None), settings, statistics
    ), statistics


def test_rollouts_go_on_where_the_last_one_ended() -> None:
    collector, statistics = make_collector(10, collect_steps_per_iteration=4)
    parts = [collector.collect(100) for _ in range(3)]
    assert [part.step_type.shape for part in parts[:2]] == [[2, 5], [2, 5]]
    counts = np.concatenate([part.observation[0, :-1, 0] for part in parts])
    # The episode goes on across rollouts; 10 stands in the boundary row.
    np.testing.assert_array_equal(counts, [*range(11), 0, 1])
    np.testing.assert_array_equal(parts[0].observation[:, -1], parts[1].observation[:, 0])
    assert statistics.num_environment_steps == 24
    assert collector.last_steps == 8


def test_episodes_are_collected_until_a_minibatch_is_full() -> None:
    collector, statistics = make_collector(3, collect_episodes_per_iteration=1, minibatch_size=30)
    experience = collector.collect(1000)
    num_rows = 2 * (experience.step_type.shape[1] - 1)
    assert 30 <= num_rows < 40
    observation = experience.observation[0].numpy()
    # No row stands twice: the counter never repeats.
    assert (np.diff(observation[:, 0]) != 0).all()
    is_step = (experience.step_type != 2) & (experience.next_step_type != 0)
    assert np.count_nonzero(is_step) == statistics.num_environment_steps
    assert (experience.next_step_type[:, -1] == 0).numpy().all()


@pytest.mark.parametrize("given", [{"collect_episodes_per_iteration": 4}, {"collect_steps_per_iteration": 16}])
def test_the_budget_is_never_exceeded(given: dict) -> None:
    collector, statistics = make_collector(7, **given)
    while collector.collect(101 - statistics.num_environment_steps) is not None:
        assert statistics.num_environment_steps <= 101
    assert statistics.num_environment_steps >= 101 - 32


def test_a_small_rest_is_left() -> None:
    collector, statistics = make_collector(20, collect_episodes_per_iteration=2)
    assert collector.collect(100) is not None
    steps = statistics.num_environment_steps
    assert steps == 40
    assert collector.collect(19) is None
    assert statistics.num_environment_steps == steps
    assert collector.collect(21) is not None


@pytest.mark.parametrize("given", [{"collect_episodes_per_iteration": 1}, {"collect_steps_per_iteration": 6}])
def test_every_step_that_counts_is_in_some_experience(given: dict) -> None:
    collector, statistics = make_collector(5, minibatch_size=12, **given)
    found = []
    for budget in (11, 12, 9, 25, 3, 13, 12, 40, 11):
        before = statistics.num_environment_steps
        if (experience := collector.collect(budget)) is not None:
            is_step = (experience.step_type != 2) & (experience.next_step_type != 0)
            # The last row is there for its observation alone.
            found.append(int(np.count_nonzero(is_step[:, :-1])))
            assert budget >= 12
        else:
            found.append(0)
        assert statistics.num_environment_steps - before == found[-1]
    assert sum(map(bool, found)) >= 3


def test_endless_episodes_are_trained_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppo_agent.training.collection.MOST_STEPS", 50)
    collector, statistics = make_collector(10**6, collect_episodes_per_iteration=1)
    assert collector.collect(1000) is not None
    assert statistics.num_environment_steps == 50
